//! Jobs as they are shown: one with its steps, pages of them, how many are open.

use linkspan_model::id::{EventId, JobId};
use linkspan_model::job::{Job, JobStatus, StepRun};
use linkspan_model::{Document, JsonText, Name, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::Store;
use crate::error::{Result, StoreError};

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

pub(super) const STEP: &str = "id, status, attempts, started_at, finished_at, retry_at, error, input, output, resumed, \
                    attempt_log";

pub(super) fn step_of(row: &Row<'_>) -> Result<StepRun> {
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

pub(super) fn status_of(text: &str) -> Result<JobStatus> {
    text.parse().map_err(StoreError::Database)
}
