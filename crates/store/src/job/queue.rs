//! Jobs that wait: which are due, and whose they are under a lease.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use linkspan_model::id::{EventId, JobId};
use linkspan_model::job::StepError;
use linkspan_model::{Timestamp, limits};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::dispatch::keep_numbers;
use super::record::{FinishedStep, finished_steps};
use crate::Store;
use crate::error::{Result, StoreError};

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
    /// Whether more jobs may be due than were taken.
    pub are_more: bool,
    /// When the next job is due, or the next look pays, once all that are due have been taken.
    pub next_at: Option<Timestamp>,
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

/// Most jobs that one write looks at when the clock was set back.
const MOVED_AT_ONCE: u32 = 500;

/// Most recipes that one look for due jobs passes.
const RECIPES_MAX: usize = 2_000;

/// A worker's right to a job. Every record of the worker carries it; a later claim makes it void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    fence: i64,
}

impl Lease {
    /// Whether nobody had the job before, so that no step of it has been recorded.
    fn is_first(self) -> bool {
        self.fence == 1
    }
}

/// A job that can be taken now.
struct Due {
    seq: i64,
    event: i64,
    /// Whether the worker that had it last went away without a record.
    was_interrupted: bool,
    large_body: Option<u64>,
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
    /// How many workers have taken it since it last recorded a step; more than one: the earlier ones went away. A wait
    /// does not count.
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

impl Store {
    /// Takes due jobs for as long as a lease lasts: recipe by recipe, and of each the oldest first, as far as `shares`
    /// lets them. None while the disk is full, because what they bring could not be recorded.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn claim(&self, shares: &mut Shares) -> Result<Vec<Claimed>> {
        if self.refuse_when_full().is_err() {
            // Due jobs are left: whoever asks should wait for something to end, and not for their time.
            (shares.is_short, shares.are_more) = (true, false);
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
        let claimed = self.write(move |db| claim(db, due, now)).await?;
        let (mut whole, earlier): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|job| job.lease.is_first());
        if earlier.is_empty() {
            return Ok(whole);
        }
        let (taken_up, lost) = self
            .read_for_engine(move |db| {
                let (mut whole, mut lost) = (Vec::new(), Vec::new());
                for mut claimed in earlier {
                    match finished_steps(db, &spool, &key, claimed.lease.job) {
                        Ok(steps) => {
                            claimed.steps = steps;
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
        whole.extend(taken_up);
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
                            .query_map(params![status, after, MOVED_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?
                            .collect::<rusqlite::Result<_>>()?;
                        let mut set = db.prepare_cached("UPDATE jobs SET run_at = ?2 WHERE seq = ?1")?;
                        for (seq, at) in open.iter().filter(|(_, at)| *at > now) {
                            set.execute(params![seq, at.saturating_sub(by)])?;
                        }
                        Ok(open.last().filter(|_| open.len() == MOVED_AT_ONCE as usize).map(|(seq, _)| *seq))
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
}

/// Jobs that are due: of each recipe in turn the oldest, as far as it may.
fn due(db: &Connection, mut shares: Shares, now: Timestamp) -> Result<(Vec<Due>, Shares)> {
    let mut next_recipe = db.prepare_cached(
        "SELECT recipe FROM jobs INDEXED BY jobs_due
         WHERE status IN ('queued', 'waiting') AND recipe > ?1 ORDER BY recipe LIMIT 1",
    )?;
    let mut of_recipe = db.prepare_cached(
        "SELECT run_at, seq, event_seq, status = 'queued' AND claims > 0 FROM jobs INDEXED BY jobs_due
         WHERE status IN ('queued', 'waiting') AND recipe = ?1 ORDER BY run_at, seq LIMIT ?2",
    )?;
    (shares.is_short, shares.next_at) = (false, None);
    let mut queues: Vec<(i64, VecDeque<Due>)> = Vec::new();
    let (began, mut recipe, mut wrapped, mut found) = (shares.last, shares.last, false, 0);
    let mut passed = 0;
    while passed < RECIPES_MAX {
        passed += 1;
        let next: Option<i64> = next_recipe.query_row([recipe], |row| row.get(0)).optional()?;
        match next {
            Some(next) if !wrapped || next <= began => recipe = next,
            None if !wrapped => {
                (recipe, wrapped) = (i64::MIN, true);
                continue;
            }
            _ => break,
        }
        let mut jobs = VecDeque::new();
        let mut rows = of_recipe.query(params![recipe, shares.most])?;
        while let Some(row) = rows.next()? {
            let at = Timestamp::from_micros(row.get(0)?);
            if at > now {
                shares.next_at = Some(shares.next_at.map_or(at, |next| next.min(at)));
                break;
            }
            let (seq, event, was_interrupted) = (row.get(1)?, row.get(2)?, row.get(3)?);
            jobs.push_back(Due { seq, event, was_interrupted, large_body: None });
        }
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
    shares.are_more = due.len() >= shares.most as usize;
    if passed == RECIPES_MAX {
        // The recipes behind come the next time, soon.
        (shares.last, shares.next_at) = (recipe, Some(now));
    }
    for job in &mut due {
        job.large_body = large_body(db, job.event)?;
    }
    Ok((due, shares))
}

fn claim(db: &Connection, due: Vec<Due>, now: Timestamp) -> Result<Vec<Claimed>> {
    let mut take = db.prepare_cached(
        "UPDATE jobs SET claims = claims + (status = 'queued'), status = 'running', lease = lease + 1,
                lease_until = ?2, started_at = ifnull(started_at, ?3), waits_for = NULL
         WHERE seq = ?1 AND status IN ('queued', 'waiting')
         RETURNING created_at, salt, lease, recipe, recipe_revision, event_id, rerun_of, claims, is_deferred",
    )?;
    let until = now.after(limits::LEASE).as_micros();
    let mut claimed = Vec::new();
    for Due { seq, was_interrupted, large_body, .. } in due {
        let taken = take.query_row(params![seq, until, now.as_micros()], |row| {
            let created_at = Timestamp::from_micros(row.get(0)?);
            Ok(Claimed {
                lease: Lease { job: JobId::new(created_at, seq.cast_unsigned(), row.get(1)?), fence: row.get(2)? },
                recipe: row.get(3)?,
                recipe_revision: row.get::<_, i64>(4)?.cast_unsigned(),
                event: EventId::from_bytes(row.get(5)?),
                rerun_of: row.get::<_, Option<[u8; 16]>>(6)?.map(JobId::from_bytes),
                claims: row.get(7)?,
                was_interrupted,
                created_at,
                is_deferred: row.get(8)?,
                large_body,
                steps: Vec::new(),
            })
        });
        // One that was canceled meanwhile is nobody's.
        claimed.extend(taken.optional()?);
    }
    Ok(claimed)
}

fn large_body(db: &Connection, event: i64) -> Result<Option<u64>> {
    let size: Option<Option<i64>> = db
        .prepare_cached("SELECT (SELECT size FROM spool WHERE name = e.spool) FROM events e WHERE e.seq = ?1")?
        .query_row([event], |row| row.get(0))
        .optional()?;
    Ok(size.flatten().map(i64::cast_unsigned))
}

pub(super) fn check_fence(db: &Connection, lease: Lease) -> Result<()> {
    let held = db
        .prepare_cached("SELECT 1 FROM jobs WHERE seq = ?1 AND lease = ?2 AND status = 'running'")?
        .exists(params![lease.job.seq().cast_signed(), lease.fence])?;
    if held { Ok(()) } else { Err(StoreError::Fenced) }
}
