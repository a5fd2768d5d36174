//! Jobs: made by dispatch, claimed under a lease, recorded step by step.
//!
//! Guarantees: a job row and the position of dispatch that made it are one transaction, so no event is
//! missed and none starts a recipe twice; a worker that lost its lease records nothing; a step's result is
//! durable before the next step starts.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use linkspan_model::id::{EventId, JobId};
use linkspan_model::job::{Job, JobStatus, StepError, StepRun};
use linkspan_model::{Document, JsonText, Name, SecretBytes, Timestamp, limits};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::Value;

use crate::Store;
use crate::error::{Result, StoreError};
use crate::event::LogRun;
use crate::seal::MasterKey;
use crate::spool::{Spool, SpoolFile};

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

fn forget_beginning(db: &Connection) -> Result<()> {
    db.prepare_cached("DELETE FROM meta WHERE key = 'dispatch_began'")?.execute([])?;
    Ok(())
}

/// How the places of workers are shared among recipes: each may have as many as are left free, so that one with ten
/// thousand slow jobs takes half of them, and whoever comes later finds a place at once.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    /// Most jobs to take now.
    pub most: u32,
    /// Places that are free.
    pub free: u32,
    /// Places that each recipe's row has.
    pub taken: HashMap<i64, u32>,
    /// Whether jobs were left because their recipes have their share.
    pub is_short: bool,
    /// The recipe that came last; the next turn begins behind it.
    last: i64,
}

impl Shares {
    /// Shares of one who has no other jobs.
    #[must_use]
    pub fn of(most: u32) -> Self {
        Self { most, free: u32::MAX, ..Self::default() }
    }

    fn take(&mut self, recipe: i64) -> bool {
        let own = self.taken.entry(recipe).or_default();
        if *own >= self.free {
            return false;
        }
        *own += 1;
        self.free -= 1;
        true
    }
}

/// Most jobs that one write cancels.
const CANCEL_AT_ONCE: u32 = 200;
/// Most jobs that one write looks at when the clock was set back.
const AT_ONCE: u32 = 500;

/// Most recipes that one look for due jobs passes.
const RECIPES_MAX: usize = 2_000;

/// A worker's right to a job. Every record of the worker carries it; a later claim makes it void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    fence: i64,
}

/// A job in the hands of a worker.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The worker's right to it.
    pub lease: Lease,
    /// The recipe's row.
    pub recipe: i64,
    /// The revision that it runs.
    pub recipe_revision: u64,
    /// The event that started it.
    pub event: EventId,
    /// The job that it repeats.
    pub rerun_of: Option<JobId>,
    /// How often a worker has taken it; more than once and not after a wait: an earlier worker went away.
    pub claims: u32,
    /// Whether the worker that had it last went away without a record.
    pub was_interrupted: bool,
    /// When it was queued.
    pub created_at: Timestamp,
    /// Whether its recipe's condition is still to be evaluated.
    pub is_deferred: bool,
    /// The size of its event's body in bytes, when that stands in a file.
    pub large_body: Option<u64>,
    /// The steps that it has come through or has begun.
    pub steps: Vec<FinishedStep>,
}

/// A step that earlier work on the job has recorded.
#[derive(Debug, Clone)]
pub struct FinishedStep {
    /// How it stands.
    pub run: StepRun,
    /// Its whole output, when it succeeded.
    pub result: Option<Value>,
}

/// A step's outcome, to be recorded.
#[derive(Debug)]
pub struct StepRecord {
    /// Its place in the recipe, from 0.
    pub position: u32,
    /// How it stands, as shown.
    pub run: StepRun,
    /// Its whole output as JSON, for later steps.
    pub result: Option<Vec<u8>>,
}

/// How the job goes on after a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// With the next step; the worker keeps its lease.
    Continue,
    /// With the same step, at this time.
    RetryAt(Timestamp),
    /// With the same step, at this time or when this connection's row can be called again ([`Store::hasten`]).
    WaitFor {
        /// The time.
        until: Timestamp,
        /// The row of the connection.
        connection: i64,
    },
    /// Not: every step succeeded.
    Succeed,
    /// Not: the step failed for good.
    Fail(StepError),
}

/// Which jobs to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only of this recipe.
    pub recipe: Option<Name>,
    /// Only in this state.
    pub status: Option<JobStatus>,
    /// Only those that this event started.
    pub event: Option<EventId>,
    /// Only older than this job.
    pub before: Option<u64>,
    /// Most jobs.
    pub limit: u32,
}

/// A page of jobs.
#[derive(Debug, Clone, Default)]
pub struct JobPage {
    /// The jobs, newest first.
    pub jobs: Vec<Job>,
    /// Where the next page begins, when there may be one: a page is short, or even empty, when few of very many jobs
    /// are what was asked for.
    pub next: Option<JobId>,
}

/// Most jobs that one page looks at.
const WALK_MAX: u32 = 10_000;

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

    /// Ends a job by hand. A step that is under way is not recorded any more.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it has ended already.
    pub async fn cancel(&self, job: JobId) -> Result<()> {
        let now = self.now();
        let spool = self.spool_folder().clone();
        let files = self
            .write(move |db| {
                let status: String = db
                    .prepare_cached("SELECT status FROM jobs WHERE seq = ?1 AND salt = ?2")?
                    .query_row(params![job.seq().cast_signed(), salt_of(job)], |row| row.get(0))
                    .optional()?
                    .ok_or_else(|| StoreError::NotFound(format!("job {job}")))?;
                if status_of(&status)?.is_final() {
                    return Err(StoreError::Conflict(format!("job {job} has already {status}")));
                }
                end_job(db, job, JobStatus::Canceled, None, now)
            })
            .await?;
        remove_spooled(spool, files).await
    }

    /// How many jobs of a recipe, or of one of this name that was deleted, have not ended; counted up to 10,000.
    ///
    /// # Errors
    /// `NotFound` when there never was such a recipe.
    pub async fn open_jobs_of(&self, recipe: Name) -> Result<u64> {
        self.read(move |db| {
            let row = crate::resource::recipe_with_jobs(db, &recipe)?;
            let count: i64 = db
                .prepare_cached(
                    "SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_due
                                           WHERE status IN ('queued', 'waiting') AND recipe = ?1 LIMIT ?2)",
                )?
                .query_row(params![row, WALK_MAX], |row| row.get(0))?;
            Ok(count.cast_unsigned())
        })
        .await
    }

    /// Cancels the jobs of a recipe, or of one of this name that was deleted, that wait; those under way go on. Gives
    /// how many it were.
    ///
    /// # Errors
    /// `NotFound` when there never was such a recipe.
    pub async fn cancel_all(&self, recipe: Name) -> Result<u64> {
        let row = self.read(move |db| crate::resource::recipe_with_jobs(db, &recipe)).await?;
        let mut canceled = 0;
        loop {
            let now = self.now();
            let spool = self.spool_folder().clone();
            let (count, files) = self
                .write(move |db| {
                    let mut waiting = db.prepare_cached(
                        "SELECT created_at, seq, salt FROM jobs INDEXED BY jobs_due
                         WHERE status IN ('queued', 'waiting') AND recipe = ?1 ORDER BY run_at LIMIT ?2",
                    )?;
                    let jobs: Vec<JobId> = waiting
                        .query_map(params![row, CANCEL_AT_ONCE], |row| {
                            let at = Timestamp::from_micros(row.get(0)?);
                            Ok(JobId::new(at, row.get::<_, i64>(1)?.cast_unsigned(), row.get(2)?))
                        })?
                        .collect::<rusqlite::Result<_>>()?;
                    let mut files = Vec::new();
                    for job in &jobs {
                        files.extend(end_job(db, *job, JobStatus::Canceled, None, now)?);
                    }
                    Ok((jobs.len() as u64, files))
                })
                .await?;
            remove_spooled(spool, files).await?;
            canceled += count;
            if count < u64::from(CANCEL_AT_ONCE) {
                return Ok(canceled);
            }
        }
    }

    /// The time of the next job that is not due yet.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next_job_at(&self) -> Result<Option<Timestamp>> {
        self.read_for_engine(|db| {
            let mut first = db.prepare_cached(
                "SELECT recipe, run_at FROM jobs INDEXED BY jobs_due
                 WHERE status IN ('queued', 'waiting') AND recipe > ?1 ORDER BY recipe, run_at LIMIT 1",
            )?;
            let (mut next, mut recipe) = (None, i64::MIN);
            for _ in 0..RECIPES_MAX {
                let found = first.query_row([recipe], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?))).optional()?;
                let Some((of, at)) = found else { break };
                recipe = of;
                next = Some(next.map_or(at, |next: i64| next.min(at)));
            }
            Ok(next.map(Timestamp::from_micros))
        })
        .await
    }

    /// Lets jobs that wait for a connection go on now, at most so many, those first that wait longest; gives how many.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn hasten(&self, connection: i64, most: u32) -> Result<usize> {
        let now = self.now();
        let hastened = self
            .write(move |db| {
                Ok(db
                    .prepare_cached(
                        "UPDATE jobs SET run_at = ?2, waits_for = NULL WHERE seq IN (
                             SELECT seq FROM jobs INDEXED BY jobs_waiting
                             WHERE waits_for = ?1 AND waits_for IS NOT NULL ORDER BY run_at LIMIT ?3)",
                    )?
                    .execute(params![connection, now.as_micros(), most])?)
            })
            .await?;
        if hastened > 0 {
            self.tell_jobs();
        }
        Ok(hastened)
    }

    /// Takes due jobs for as long as a lease lasts: recipe by recipe, and of each the oldest first, as far as `shares`
    /// lets them. None while the disk is full, because what they bring could not be recorded.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn claim(&self, shares: &mut Shares) -> Result<Vec<Claimed>> {
        if self.refuse_when_full().is_err() {
            // Due jobs are left: whoever asks should wait for something to end, and not for their time.
            shares.is_short = true;
            return Ok(Vec::new());
        }
        let now = self.now();
        let spool = self.spool_folder().clone();
        let key = self.key().clone();
        let asked = shares.clone();
        let (due, left) = self.read_for_engine(move |db| due(db, asked, now)).await?;
        *shares = left;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let claimed = self.write(move |db| claim(db, &due, now)).await?;
        if claimed.is_empty() {
            return Ok(claimed);
        }
        let (whole, lost) = self
            .read_for_engine(move |db| {
                let (mut whole, mut lost) = (Vec::new(), Vec::new());
                for mut claimed in claimed {
                    match finished_steps(db, &spool, &key, claimed.lease.job) {
                        Ok(steps) => {
                            claimed.steps = steps;
                            claimed.large_body = large_body(db, claimed.event)?;
                            whole.push(claimed);
                        }
                        Err(error @ StoreError::Unusable(_)) => lost.push((claimed.lease, error)),
                        // It cannot be read for now: the job is taken again when its lease is over.
                        Err(error) => {
                            tracing::error!(job = %claimed.lease.job, %error, "a job cannot go on for now");
                        }
                    }
                }
                Ok((whole, lost))
            })
            .await?;
        // Not an error of the whole claim: it would keep every other job from its worker, again and again.
        for (lease, error) in lost {
            tracing::error!(job = %lease.job, %error, "a job cannot go on without the output of an earlier step");
            let error = StepError {
                code: "store.output_lost".to_owned(),
                description: format!("the output of an earlier step is lost ({error}); run the job again"),
                field: None,
                outcome_unknown: None,
            };
            match self.fail_job(lease, error).await {
                Ok(()) | Err(StoreError::Fenced) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(whole)
    }

    /// Decides on a deferred job: its condition `holds`, and it is shown from now on, or it does not, and it is gone.
    ///
    /// # Errors
    /// `Fenced` when another worker has the job now.
    pub async fn decide_deferred(&self, lease: Lease, holds: bool) -> Result<()> {
        self.write(move |db| {
            check_fence(db, lease)?;
            let sql = match holds {
                true => "UPDATE jobs SET is_deferred = 0 WHERE seq = ?1",
                false => "DELETE FROM jobs WHERE seq = ?1 AND is_deferred",
            };
            if !holds {
                keep_numbers(db)?;
            }
            db.prepare_cached(sql)?.execute([lease.job.seq().cast_signed()])?;
            Ok(())
        })
        .await
    }

    /// Renews leases; gives those that are lost.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn renew(&self, leases: Vec<Lease>) -> Result<Vec<Lease>> {
        let until = self.now().after(limits::LEASE);
        self.write(move |db| {
            let mut renew = db.prepare_cached(
                "UPDATE jobs SET lease_until = ?3 WHERE seq = ?1 AND lease = ?2 AND status = 'running'",
            )?;
            let mut lost = Vec::new();
            for lease in leases {
                if renew.execute(params![lease.job.seq().cast_signed(), lease.fence, until.as_micros()])? == 0 {
                    lost.push(lease);
                }
            }
            Ok(lost)
        })
        .await
    }

    /// Gives a job back without a result, to be taken again at once.
    ///
    /// # Errors
    /// `Fenced` when the lease is lost.
    pub async fn release(&self, lease: Lease) -> Result<()> {
        self.write(move |db| {
            let changed = db
                .prepare_cached(
                    "UPDATE jobs SET status = 'queued', lease_until = NULL, claims = claims - 1
                     WHERE seq = ?1 AND lease = ?2 AND status = 'running'",
                )?
                .execute(params![lease.job.seq().cast_signed(), lease.fence])?;
            if changed == 1 { Ok(()) } else { Err(StoreError::Fenced) }
        })
        .await?;
        self.tell_jobs();
        Ok(())
    }

    /// Puts jobs whose lease has run out back into the queue; gives how many. Those that are `held` by workers of this
    /// process are not among them, whatever the clock says.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn reclaim_expired(&self, held: &[Lease]) -> Result<usize> {
        let now = self.now();
        let held: HashSet<(i64, i64)> = held.iter().map(|lease| (lease.job.seq().cast_signed(), lease.fence)).collect();
        let count = self
            .write(move |db| {
                let mut expired = db.prepare_cached(
                    "SELECT seq, lease FROM jobs INDEXED BY jobs_by_status WHERE status = 'running' AND lease_until < ?1",
                )?;
                let expired: Vec<(i64, i64)> = expired
                    .query_map([now.as_micros()], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<rusqlite::Result<_>>()?;
                let mut reclaim =
                    db.prepare_cached("UPDATE jobs SET status = 'queued', lease_until = NULL WHERE seq = ?1")?;
                let mut count = 0;
                for lease in expired.iter().filter(|lease| !held.contains(lease)) {
                    count += reclaim.execute([lease.0])?;
                }
                Ok(count)
            })
            .await?;
        if count > 0 {
            self.tell_jobs();
        }
        Ok(count)
    }

    /// Brings what is due later than now by so much nearer, where the clock was set back: what waits must not wait
    /// longer for it.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn bring_forward(&self, by: Duration) -> Result<()> {
        let now = self.now().as_micros();
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        for status in ["queued", "waiting"] {
            let mut after = 0_i64;
            loop {
                let next = self
                    .write(move |db| {
                        let mut open = db.prepare_cached(
                            "SELECT seq, run_at FROM jobs INDEXED BY jobs_by_status
                             WHERE status = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
                        )?;
                        let open: Vec<(i64, i64)> = open
                            .query_map(params![status, after, AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?
                            .collect::<rusqlite::Result<_>>()?;
                        let mut set = db.prepare_cached("UPDATE jobs SET run_at = ?2 WHERE seq = ?1")?;
                        for (seq, at) in open.iter().filter(|(_, at)| *at > now) {
                            set.execute(params![seq, at.saturating_sub(by)])?;
                        }
                        Ok(open.last().filter(|_| open.len() == AT_ONCE as usize).map(|(seq, _)| *seq))
                    })
                    .await?;
                match next {
                    Some(seq) => after = seq,
                    None => break,
                }
            }
        }
        self.tell_jobs();
        Ok(())
    }

    /// Records a step and how the job goes on, durably. Where that fails for now (`DiskFull`, `Busy`), the step may be
    /// recorded again under the same lease.
    ///
    /// # Errors
    /// `Fenced` when another worker has the job now; then nothing is recorded.
    pub async fn record_step(&self, lease: Lease, step: impl Into<Arc<StepRecord>>, next: Next) -> Result<()> {
        let step = step.into();
        let now = self.now();
        let spool = self.spool_folder().clone();
        let (result, file) =
            self.place_result(&result_place(lease.job, step.position), step.result.as_deref(), &next).await?;
        let file = file.map(Arc::new);
        let named = file.clone();
        let recorded = self
            .write(move |db| {
                check_fence(db, lease)?;
                let mut files = replaced_result(db, lease.job, step.position)?;
                insert_step(db, lease.job, &step, result.as_deref(), named.as_deref())?;
                files.extend(go_on(db, lease.job, &next, now)?);
                Ok(files)
            })
            .await;
        if let (Err(StoreError::DiskFull | StoreError::Busy), Some(file)) = (&recorded, &file) {
            file.discard();
        }
        remove_spooled(spool, recorded?).await
    }

    /// Ends a job that could not come to a step: its event or recipe is gone.
    ///
    /// # Errors
    /// `Fenced` when another worker has the job now.
    pub async fn fail_job(&self, lease: Lease, error: StepError) -> Result<()> {
        let now = self.now();
        let spool = self.spool_folder().clone();
        let files = self
            .write(move |db| {
                check_fence(db, lease)?;
                end_job(db, lease.job, JobStatus::Failed, Some(&error), now)
            })
            .await?;
        remove_spooled(spool, files).await
    }

    /// A large result goes to a spool file first; one that no later step can need is not kept.
    async fn place_result(
        &self,
        place: &str,
        result: Option<&[u8]>,
        next: &Next,
    ) -> Result<(Option<Vec<u8>>, Option<SpoolFile>)> {
        let Some(result) = result.filter(|_| *next == Next::Continue) else { return Ok((None, None)) };
        // Unlike what is shown, it is not masked: an API may have echoed the credentials that it was sent.
        let sealed = self.key().seal(place, &SecretBytes::new(result))?;
        if sealed.len() > limits::INLINE_BODY_BYTES {
            return Ok((None, Some(self.spool_result(sealed.into()).await?)));
        }
        Ok((Some(sealed), None))
    }

    /// What a revision of a recipe said.
    ///
    /// # Errors
    /// `NotFound` when it is not kept.
    pub async fn recipe_revision(&self, recipe: i64, revision: u64) -> Result<Document> {
        self.read_for_engine(move |db| {
            let text: String = db
                .prepare_cached("SELECT document FROM recipe_revisions WHERE recipe = ?1 AND revision = ?2")?
                .query_row(params![recipe, revision.cast_signed()], |row| row.get(0))
                .optional()?
                .ok_or_else(|| StoreError::NotFound(format!("revision {revision} of the recipe")))?;
            Document::reread(&serde_json::from_str(&text)?).map_err(StoreError::Invalid)
        })
        .await
    }

    /// One job with its steps.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn job(&self, id: JobId) -> Result<Job> {
        self.read(move |db| {
            let sql = format!("SELECT {JOB} {JOB_FROM} WHERE j.seq = ?1");
            let job = db
                .prepare_cached(&sql)?
                .query_row([id.seq().cast_signed()], |row| Ok(job_of(row)))
                .optional()?
                .transpose()?
                .filter(|job| job.id == id);
            let mut job = job.ok_or_else(|| StoreError::NotFound(format!("job {id}")))?;
            job.steps = Some(steps(db, id)?);
            Ok(job)
        })
        .await
    }

    /// A page of jobs, newest first, without their steps.
    ///
    /// # Errors
    /// `NotFound` when there is no such recipe.
    pub async fn jobs(&self, filter: JobFilter) -> Result<JobPage> {
        self.read(move |db| list(db, &filter)).await
    }

    /// Jobs by status.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn open_jobs(&self) -> Result<Vec<(JobStatus, u64)>> {
        self.read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT status, count(*) FROM jobs INDEXED BY jobs_by_status
                 WHERE status IN ('queued', 'waiting', 'running') GROUP BY status",
            )?;
            let mut rows = statement.query([])?;
            let mut counts = Vec::new();
            while let Some(row) = rows.next()? {
                let status: String = row.get(0)?;
                counts.push((status_of(&status)?, row.get::<_, i64>(1)?.cast_unsigned()));
            }
            Ok(counts)
        })
        .await
    }
}

fn list(db: &Connection, filter: &JobFilter) -> Result<JobPage> {
    let recipe = match &filter.recipe {
        Some(name) => Some(crate::resource::recipe_with_jobs(db, name)?),
        None => None,
    };
    // The index that leaves the least to walk. What it cannot tell is looked at row by row.
    let status = filter.status.map(JobStatus::as_str);
    let event = filter.event.map(|event| event.seq().cast_signed());
    let (from, condition) = match (event, recipe, filter.status) {
        (Some(_), _, _) => ("jobs j INDEXED BY jobs_by_event", "j.event_seq = ?2 AND ?4 IS ?4"),
        (None, Some(_), Some(JobStatus::Failed)) => {
            ("jobs j INDEXED BY jobs_failed", "j.recipe = ?2 AND j.error IS NOT NULL AND ?4 IS ?4")
        }
        // Nearly all jobs succeed.
        (None, Some(_), None | Some(JobStatus::Succeeded)) => {
            ("jobs j INDEXED BY jobs_by_recipe", "j.recipe = ?2 AND ?4 IS ?4")
        }
        (None, _, Some(_)) => ("jobs j INDEXED BY jobs_by_status", "?2 IS ?2 AND j.status = ?4"),
        (None, None, None) => ("jobs j NOT INDEXED", "?2 IS ?4"),
    };
    let sql = format!(
        "SELECT {JOB}, j.recipe, j.is_deferred FROM {from} CROSS JOIN resources r ON r.id = j.recipe
         WHERE {condition} AND j.seq < ?1 ORDER BY j.seq DESC LIMIT ?3"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let before = filter.before.unwrap_or(i64::MAX as u64).min(i64::MAX as u64).cast_signed();
    let mut rows = statement.query(params![before, event.or(recipe), WALK_MAX, status])?;
    let mut page = JobPage::default();
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        seen += 1;
        let is_wanted = !row.get::<_, bool>(12)?
            && recipe.is_none_or(|recipe| row.get(11) == Ok(recipe))
            && status.is_none_or(|status| row.get_ref(5).is_ok_and(|found| found.as_str() == Ok(status)));
        if is_wanted || seen == WALK_MAX {
            let job = job_of(row)?;
            let is_last = seen == WALK_MAX || page.jobs.len() + 1 == filter.limit as usize;
            page.next = is_last.then_some(job.id);
            if is_wanted {
                page.jobs.push(job);
            }
            if is_last {
                break;
            }
        }
    }
    Ok(page)
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

fn salt_of(job: JobId) -> u16 {
    let bytes = job.as_bytes();
    u16::from_be_bytes([bytes[6] & 0x0f, bytes[7]])
}

pub(crate) fn position(db: &Connection, consumer: &str) -> Result<u64> {
    let seq: Option<i64> = db
        .prepare_cached("SELECT seq FROM positions WHERE consumer = ?1")?
        .query_row([consumer], |row| row.get(0))
        .optional()?;
    Ok(seq.unwrap_or(0).cast_unsigned())
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

/// Jobs that are due, and whether each was taken before: of each recipe in turn the oldest, as far as it may.
fn due(db: &Connection, mut shares: Shares, now: Timestamp) -> Result<(Vec<(i64, bool)>, Shares)> {
    let mut next_recipe = db.prepare_cached(
        "SELECT recipe FROM jobs INDEXED BY jobs_due
         WHERE status IN ('queued', 'waiting') AND recipe > ?1 ORDER BY recipe LIMIT 1",
    )?;
    let mut of_recipe = db.prepare_cached(
        "SELECT seq, status = 'queued' AND claims > 0 FROM jobs INDEXED BY jobs_due
         WHERE status IN ('queued', 'waiting') AND recipe = ?1 AND run_at <= ?2 ORDER BY run_at, seq LIMIT ?3",
    )?;
    shares.is_short = false;
    let mut queues: Vec<(i64, VecDeque<(i64, bool)>)> = Vec::new();
    let (began, mut recipe, mut wrapped, mut found) = (shares.last, shares.last, false, 0);
    for _ in 0..RECIPES_MAX {
        let next: Option<i64> = next_recipe.query_row([recipe], |row| row.get(0)).optional()?;
        match next {
            Some(next) if !wrapped || next <= began => recipe = next,
            None if !wrapped => {
                (recipe, wrapped) = (i64::MIN, true);
                continue;
            }
            _ => break,
        }
        let jobs =
            of_recipe.query_map(params![recipe, now.as_micros(), shares.most], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let jobs: VecDeque<(i64, bool)> = jobs.collect::<rusqlite::Result<_>>()?;
        if !jobs.is_empty() {
            found += 1;
            queues.push((recipe, jobs));
        }
        // Each of these can have one; the others come first the next time.
        if found >= shares.most {
            break;
        }
    }
    let mut due = Vec::new();
    let mut goes_on = true;
    while goes_on {
        goes_on = false;
        for (recipe, jobs) in &mut queues {
            if jobs.is_empty() || due.len() >= shares.most as usize {
                continue;
            }
            if shares.take(*recipe) {
                due.extend(jobs.pop_front());
                shares.last = *recipe;
                goes_on = true;
            } else {
                shares.is_short = true;
            }
        }
    }
    Ok((due, shares))
}

fn claim(db: &Connection, due: &[(i64, bool)], now: Timestamp) -> Result<Vec<Claimed>> {
    let mut take = db.prepare_cached(
        "UPDATE jobs SET claims = claims + (status = 'queued'), status = 'running', lease = lease + 1,
                lease_until = ?2, started_at = ifnull(started_at, ?3), waits_for = NULL
         WHERE seq = ?1 AND status IN ('queued', 'waiting')
         RETURNING created_at, salt, lease, recipe, recipe_revision, event_id, rerun_of, claims, is_deferred",
    )?;
    let until = now.after(limits::LEASE).as_micros();
    let mut claimed = Vec::new();
    for (seq, was_interrupted) in due {
        let taken = take.query_row(params![seq, until, now.as_micros()], |row| {
            let created_at = Timestamp::from_micros(row.get(0)?);
            Ok(Claimed {
                lease: Lease { job: JobId::new(created_at, seq.cast_unsigned(), row.get(1)?), fence: row.get(2)? },
                recipe: row.get(3)?,
                recipe_revision: row.get::<_, i64>(4)?.cast_unsigned(),
                event: EventId::from_bytes(row.get(5)?),
                rerun_of: row.get::<_, Option<[u8; 16]>>(6)?.map(JobId::from_bytes),
                claims: row.get(7)?,
                was_interrupted: *was_interrupted,
                created_at,
                is_deferred: row.get(8)?,
                large_body: None,
                steps: Vec::new(),
            })
        });
        // One that was canceled meanwhile is nobody's.
        claimed.extend(taken.optional()?);
    }
    Ok(claimed)
}

fn large_body(db: &Connection, event: EventId) -> Result<Option<u64>> {
    let size: Option<Option<i64>> = db
        .prepare_cached("SELECT (SELECT size FROM spool WHERE name = e.spool) FROM events e WHERE e.seq = ?1")?
        .query_row([event.seq().cast_signed()], |row| row.get(0))
        .optional()?;
    Ok(size.flatten().map(i64::cast_unsigned))
}

fn check_fence(db: &Connection, lease: Lease) -> Result<()> {
    let held = db
        .prepare_cached("SELECT 1 FROM jobs WHERE seq = ?1 AND lease = ?2 AND status = 'running'")?
        .exists(params![lease.job.seq().cast_signed(), lease.fence])?;
    if held { Ok(()) } else { Err(StoreError::Fenced) }
}

fn insert_step(
    db: &Connection,
    job: JobId,
    step: &StepRecord,
    result: Option<&[u8]>,
    file: Option<&SpoolFile>,
) -> Result<()> {
    let run = &step.run;
    db.prepare_cached(
        "INSERT OR REPLACE INTO steps (job, position, id, status, attempts, started_at, finished_at, retry_at, error,
                                       input, output, result, result_spool, resumed, attempt_log)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        job.seq().cast_signed(),
        step.position,
        run.id,
        run.status.as_str(),
        run.attempts,
        run.started_at.map(Timestamp::as_micros),
        run.finished_at.map(Timestamp::as_micros),
        run.retry_at.map(Timestamp::as_micros),
        run.error.as_ref().map(serde_json::to_string).transpose()?,
        run.input.as_ref().map(JsonText::as_str),
        run.output.as_ref().map(JsonText::as_str),
        result,
        file.map(SpoolFile::name),
        run.resumed,
        (!run.attempt_log.is_empty()).then(|| serde_json::to_string(&run.attempt_log)).transpose()?
    ])?;
    if let Some(file) = file {
        db.prepare_cached("INSERT INTO spool (name, size) VALUES (?1, ?2)")?
            .execute(params![file.name(), file.size().cast_signed()])?;
        file.keep();
    }
    Ok(())
}

/// Moves the job on; gives the spool files that nobody needs any more.
fn go_on(db: &Connection, job: JobId, next: &Next, now: Timestamp) -> Result<Vec<String>> {
    match next {
        Next::Continue => Ok(Vec::new()),
        Next::RetryAt(at) => {
            db.prepare_cached("UPDATE jobs SET status = 'waiting', run_at = ?2, lease_until = NULL WHERE seq = ?1")?
                .execute(params![job.seq().cast_signed(), at.as_micros()])?;
            Ok(Vec::new())
        }
        Next::WaitFor { until, connection } => {
            db.prepare_cached(
                "UPDATE jobs SET status = 'waiting', run_at = ?2, waits_for = ?3, lease_until = NULL WHERE seq = ?1",
            )?
            .execute(params![job.seq().cast_signed(), until.as_micros(), connection])?;
            Ok(Vec::new())
        }
        Next::Succeed => end_job(db, job, JobStatus::Succeeded, None, now),
        Next::Fail(error) => end_job(db, job, JobStatus::Failed, Some(error), now),
    }
}

fn end_job(
    db: &Connection,
    job: JobId,
    status: JobStatus,
    error: Option<&StepError>,
    now: Timestamp,
) -> Result<Vec<String>> {
    db.prepare_cached("UPDATE jobs SET status = ?2, finished_at = ?3, error = ?4, lease_until = NULL, waits_for = NULL WHERE seq = ?1")?
        .execute(params![
            job.seq().cast_signed(),
            status.as_str(),
            now.as_micros(),
            error.map(serde_json::to_string).transpose()?
        ])?;
    let files = spooled_results(db, job)?;
    db.prepare_cached(
        "UPDATE steps SET result = NULL, result_spool = NULL
         WHERE job = ?1 AND (result IS NOT NULL OR result_spool IS NOT NULL)",
    )?
    .execute([job.seq().cast_signed()])?;
    for file in &files {
        db.prepare_cached("DELETE FROM spool WHERE name = ?1")?.execute([file])?;
    }
    Ok(files)
}

/// The spool file of what an earlier attempt at the step left, which the next one takes the place of.
fn replaced_result(db: &Connection, job: JobId, position: u32) -> Result<Vec<String>> {
    let file: Option<String> = db
        .prepare_cached("SELECT result_spool FROM steps WHERE job = ?1 AND position = ?2 AND result_spool IS NOT NULL")?
        .query_row(params![job.seq().cast_signed(), position], |row| row.get(0))
        .optional()?;
    if let Some(file) = &file {
        db.prepare_cached("DELETE FROM spool WHERE name = ?1")?.execute([file])?;
    }
    Ok(file.into_iter().collect())
}

fn spooled_results(db: &Connection, job: JobId) -> Result<Vec<String>> {
    let mut statement =
        db.prepare_cached("SELECT result_spool FROM steps WHERE job = ?1 AND result_spool IS NOT NULL")?;
    let files = statement.query_map([job.seq().cast_signed()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(files)
}

async fn remove_spooled(spool: Spool, files: Vec<String>) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    crate::event::blocking(move || {
        files.iter().for_each(|file| spool.remove(file));
        Ok(())
    })
    .await
}

const STEP: &str = "id, status, attempts, started_at, finished_at, retry_at, error, input, output, resumed, \
                    attempt_log";

fn step_of(row: &Row<'_>) -> Result<StepRun> {
    let json = |text: Option<String>| text.map(JsonText::parse).transpose();
    let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    let status: String = row.get(1)?;
    let error: Option<String> = row.get(6)?;
    Ok(StepRun {
        id: row.get(0)?,
        status: status_of(&status)?,
        attempts: row.get(2)?,
        started_at: time(row.get(3)?),
        finished_at: time(row.get(4)?),
        retry_at: time(row.get(5)?),
        error: error.map(|text| serde_json::from_str(&text)).transpose()?,
        input: json(row.get(7)?)?,
        output: json(row.get(8)?)?,
        resumed: row.get(9)?,
        attempt_log: match row.get::<_, Option<String>>(10)? {
            Some(text) => serde_json::from_str(&text)?,
            None => Vec::new(),
        },
    })
}

fn steps(db: &Connection, job: JobId) -> Result<Vec<StepRun>> {
    let sql = format!("SELECT {STEP} FROM steps WHERE job = ?1 ORDER BY position");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query([job.seq().cast_signed()])?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        steps.push(step_of(row)?);
    }
    Ok(steps)
}

/// Where a step's sealed result belongs: it cannot be moved to another step or job.
fn result_place(job: JobId, position: u32) -> String {
    format!("steps/{job}/{position}")
}

fn finished_steps(db: &Connection, spool: &Spool, key: &MasterKey, job: JobId) -> Result<Vec<FinishedStep>> {
    let sql = format!("SELECT {STEP}, result, result_spool, position FROM steps WHERE job = ?1 ORDER BY position");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query([job.seq().cast_signed()])?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        let sealed = match (row.get::<_, Option<Vec<u8>>>(11)?, row.get::<_, Option<String>>(12)?) {
            (Some(inline), _) => Some(inline),
            (None, Some(file)) => Some(spool.read(&file)?),
            (None, None) => None,
        };
        let result = match sealed {
            Some(sealed) => {
                let result = key.open(&result_place(job, row.get(13)?), &sealed)?;
                Some(serde_json::from_slice(result.expose())?)
            }
            None => None,
        };
        steps.push(FinishedStep { run: step_of(row)?, result });
    }
    Ok(steps)
}

const JOB: &str = "j.seq, j.salt, r.name, j.recipe_revision, j.event_id, j.status, j.rerun_of, j.created_at, \
                   j.started_at, j.finished_at, j.error";
const JOB_FROM: &str = "FROM jobs j CROSS JOIN resources r ON r.id = j.recipe";

fn job_of(row: &Row<'_>) -> Result<Job> {
    let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    let created_at = Timestamp::from_micros(row.get(7)?);
    let name: String = row.get(2)?;
    let status: String = row.get(5)?;
    let error: Option<String> = row.get(10)?;
    Ok(Job {
        id: JobId::new(created_at, row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?),
        recipe: name.parse().map_err(|error| StoreError::Database(format!("{error}")))?,
        recipe_revision: row.get::<_, i64>(3)?.cast_unsigned(),
        event: EventId::from_bytes(row.get(4)?),
        status: status_of(&status)?,
        rerun_of: row.get::<_, Option<[u8; 16]>>(6)?.map(JobId::from_bytes),
        created_at,
        started_at: time(row.get(8)?),
        finished_at: time(row.get(9)?),
        error: error.map(|text| serde_json::from_str(&text)).transpose()?,
        steps: None,
    })
}

fn status_of(text: &str) -> Result<JobStatus> {
    text.parse().map_err(StoreError::Database)
}
