//! How jobs are made: by dispatch out of the log, with its position in the same transaction, and by hand.

use linkspan_model::Timestamp;
use linkspan_model::id::{EventId, JobId};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::salt_of;
use crate::Store;
use crate::error::{Result, StoreError};
use crate::event::LogRun;

/// The consumer whose position tells how far events have been turned into jobs.
const DISPATCH: &str = "dispatch";

/// A job to be queued.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The recipe's row.
    pub recipe: i64,
    /// The revision that it will run.
    pub recipe_revision: u64,
    /// The event that starts it.
    pub event: EventId,
    /// Twelve random bits for its id.
    pub salt: u16,
    /// The job that it repeats.
    pub rerun_of: Option<JobId>,
    /// Whether its recipe's condition is still to be evaluated; until then no list shows it.
    pub is_deferred: bool,
}

/// What dispatch made of a stretch of the log.
#[derive(Debug, Clone, Default)]
pub struct Dispatched {
    /// The position it started after.
    pub after: u64,
    /// The position it reached.
    pub up_to: u64,
    /// Whose events stand in between.
    pub runs: Vec<LogRun>,
    /// The jobs they start.
    pub jobs: Vec<NewJob>,
}

/// How dispatch has to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// In stretches.
    Usual,
    /// Event by event: several processes have ended in the stretch that comes next.
    StepByStep,
    /// The next event that a recipe waits for is set aside: it alone has ended a process.
    SetAside,
}

/// So many processes in a row may end at one place before dispatch gets careful.
const DEATHS: u32 = 3;

impl Store {
    /// How far events have been turned into jobs.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn dispatch_position(&self) -> Result<u64> {
        self.read_for_engine(|db| position(db, DISPATCH)).await
    }

    /// Notes that dispatch begins, and tells how careful it has to be: whether earlier processes have ended at this
    /// place, before they came any further.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn dispatch_began(&self) -> Result<Care> {
        let last = self.last_seq();
        self.write(move |db| {
            let position = position(db, DISPATCH)?;
            if position >= last {
                forget_beginning(db)?;
                return Ok(Care::Usual);
            }
            let earlier: Option<String> = db
                .prepare_cached("SELECT value FROM meta WHERE key = 'dispatch_began'")?
                .query_row([], |row| row.get(0))
                .optional()?;
            // The position, and how many processes have begun there.
            let earlier = earlier.as_deref().and_then(|text| text.split_once(' '));
            let earlier = earlier.and_then(|(at, count)| Some((at.parse::<u64>().ok()?, count.parse::<u32>().ok()?)));
            let count = match earlier {
                Some((at, count)) if at == position => count.saturating_add(1),
                // One that went step by step has come as far as to what ended it.
                Some((_, count)) if count >= DEATHS => DEATHS,
                _ => 1,
            };
            db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('dispatch_began', ?1)")?
                .execute([format!("{position} {count}")])?;
            Ok(match count {
                count if count > DEATHS => Care::SetAside,
                DEATHS => Care::StepByStep,
                _ => Care::Usual,
            })
        })
        .await
    }

    /// Notes that dispatch goes on as usual.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn dispatch_goes_on(&self) -> Result<()> {
        self.write(forget_beginning).await
    }

    /// Queues the jobs of a stretch of the log and moves the position over it.
    ///
    /// # Errors
    /// `Conflict` when the position is not where the stretch begins: somebody else has dispatched it.
    pub async fn dispatch(&self, dispatched: Dispatched) -> Result<()> {
        let now = self.now();
        let any = !dispatched.jobs.is_empty();
        self.write(move |db| {
            let found = position(db, DISPATCH)?;
            if found != dispatched.after {
                return Err(StoreError::Conflict(format!("dispatch is at {found}, not at {}", dispatched.after)));
            }
            let mut index =
                db.prepare_cached("INSERT OR IGNORE INTO event_runs (endpoint, first, last) VALUES (?1, ?2, ?3)")?;
            for LogRun { endpoint, first, last } in &dispatched.runs {
                index.execute(params![endpoint, first.cast_signed(), last.cast_signed()])?;
            }
            for job in &dispatched.jobs {
                insert_job(db, job, now)?;
            }
            db.prepare_cached("INSERT OR REPLACE INTO positions (consumer, seq) VALUES (?1, ?2)")?
                .execute(params![DISPATCH, dispatched.up_to.cast_signed()])?;
            Ok(())
        })
        .await?;
        self.tell_dispatched();
        if any {
            self.tell_jobs();
        }
        Ok(())
    }

    /// Queues jobs that no dispatch made: reruns and replays. Gives their ids.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn queue_jobs(&self, jobs: Vec<NewJob>) -> Result<Vec<JobId>> {
        let now = self.now();
        let ids = self.write(move |db| jobs.iter().map(|job| insert_job(db, job, now)).collect()).await?;
        self.tell_jobs();
        Ok(ids)
    }

    /// Queues a new job that runs `job`'s recipe, as it is now, on the stored event of `job`.
    ///
    /// # Errors
    /// `NotFound` when the job, its recipe or its event is gone.
    pub async fn rerun(&self, job: JobId, salt: u16) -> Result<JobId> {
        let now = self.now();
        let id = self
            .write(move |db| {
                let gone = || StoreError::NotFound(format!("job {job}"));
                let (recipe, event): (i64, [u8; 16]) = db
                    .prepare_cached("SELECT recipe, event_id FROM jobs WHERE seq = ?1 AND salt = ?2")?
                    .query_row(params![job.seq().cast_signed(), salt_of(job)], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?
                    .ok_or_else(gone)?;
                let event = EventId::from_bytes(event);
                let revision: i64 = db
                    .prepare_cached("SELECT revision FROM resources WHERE id = ?1 AND deleted_at IS NULL")?
                    .query_row([recipe], |row| row.get(0))
                    .optional()?
                    .ok_or_else(|| StoreError::NotFound(format!("the recipe of job {job}")))?;
                let kept =
                    db.prepare_cached("SELECT 1 FROM events WHERE seq = ?1")?.exists([event.seq().cast_signed()])?;
                if !kept {
                    return Err(StoreError::NotFound(format!("event {event}, which started job {job},")));
                }
                let new = NewJob {
                    recipe,
                    recipe_revision: revision.cast_unsigned(),
                    event,
                    salt,
                    rerun_of: Some(job),
                    is_deferred: false,
                };
                insert_job(db, &new, now)
            })
            .await?;
        self.tell_jobs();
        Ok(id)
    }
}

fn forget_beginning(db: &Connection) -> Result<()> {
    db.prepare_cached("DELETE FROM meta WHERE key = 'dispatch_began'")?.execute([])?;
    Ok(())
}

fn insert_job(db: &Connection, job: &NewJob, now: Timestamp) -> Result<JobId> {
    db.prepare_cached(
        // After the highest number ever, which may be that of a job that is gone.
        "INSERT INTO jobs (seq, salt, recipe, recipe_revision, event_id, event_seq, status, run_at, rerun_of, created_at, is_deferred)
         VALUES (1 + max(ifnull((SELECT max(seq) FROM jobs), 0),
                         ifnull((SELECT seq FROM positions WHERE consumer = 'jobs'), 0)),
                 ?1, ?2, ?3, ?4, ?5, 'queued', ?6, ?7, ?6, ?8)",
    )?
    .execute(params![
        job.salt & 0x0fff,
        job.recipe,
        job.recipe_revision.cast_signed(),
        job.event.as_bytes(),
        job.event.seq().cast_signed(),
        now.as_micros(),
        job.rerun_of.map(|id| *id.as_bytes()),
        job.is_deferred
    ])?;
    Ok(JobId::new(now, db.last_insert_rowid().cast_unsigned(), job.salt))
}

fn position(db: &Connection, consumer: &str) -> Result<u64> {
    let seq: Option<i64> = db
        .prepare_cached("SELECT seq FROM positions WHERE consumer = ?1")?
        .query_row([consumer], |row| row.get(0))
        .optional()?;
    Ok(seq.unwrap_or(0).cast_unsigned())
}

/// Notes the highest number of a job before jobs are deleted: a number is never used again, also when the newest job
/// goes, or ids would come back.
pub(crate) fn keep_numbers(db: &Connection) -> Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO positions (consumer, seq) SELECT 'jobs', seq FROM jobs ORDER BY seq DESC LIMIT 1",
    )?
    .execute([])?;
    Ok(())
}
