//! What becomes of a job: its steps with their sealed results, and its end.

use std::sync::Arc;

use linkspan_model::id::JobId;
use linkspan_model::job::{JobStatus, StepError, StepRun};
use linkspan_model::{JsonText, Name, SecretBytes, Timestamp, limits};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;

use super::list::{STEP, status_of, step_of};
use super::queue::{Lease, check_fence};
use super::salt_of;
use crate::Store;
use crate::error::{Result, StoreError};
use crate::seal::MasterKey;
use crate::spool::{Spool, SpoolFile};

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

/// Most jobs that one write cancels.
const CANCEL_AT_ONCE: u32 = 200;

impl Store {
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
        Next::Continue => {
            // It has come further: only workers that went away without that count against it.
            db.prepare_cached("UPDATE jobs SET claims = 1 WHERE seq = ?1 AND claims > 1")?
                .execute([job.seq().cast_signed()])?;
            Ok(Vec::new())
        }
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

/// Where a step's sealed result belongs: it cannot be moved to another step or job.
fn result_place(job: JobId, position: u32) -> String {
    format!("steps/{job}/{position}")
}

pub(super) fn finished_steps(db: &Connection, spool: &Spool, key: &MasterKey, job: JobId) -> Result<Vec<FinishedStep>> {
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
