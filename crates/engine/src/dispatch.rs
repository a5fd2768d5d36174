//! Dispatch: follows the log from its position and turns events into jobs.
//!
//! Guarantees: the jobs of a stretch of the log and the position after it are one transaction, so every event
//! is looked at exactly once; an event whose condition cannot be evaluated starts a job that fails and says
//! why, instead of being dropped; an event that has come through recipes too often starts none, and is listed
//! among the refusals.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use linkspan_model::EventId;
use linkspan_model::event::Event;
use linkspan_model::hops::{self, HOPS_MAX, HopsKey};
use linkspan_model::template::Scope;
use linkspan_store::{
    Dispatched, LogRun, LostEvent, NewJob, NewRefusal, RecipeView, Result, Snapshot, StoreError, StoredEvent,
};
use metrics::counter;
use tokio_util::sync::CancellationToken;

use crate::{Engine, salt};

/// Most events of one stretch.
const STRETCH: u32 = 8_192;
/// Most events of a stretch that recipes wait for.
const AWAITED: usize = 1_024;
/// Pause after a stretch that started nothing, so that a flood of events nobody waits for is passed over in long
/// stretches instead of one after every commit.
const PAUSE: Duration = Duration::from_millis(20);

/// Follows the log until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match advance(&engine).await {
            Ok(Advance::Jobs) => {}
            Ok(Advance::Quiet) => tokio::time::sleep(PAUSE).await,
            Ok(Advance::End) => {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = engine.store.wait_for_events(Duration::from_secs(1)) => {}
                }
            }
            Err(error) => {
                tracing::error!(%error, "events could not be dispatched; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// What came of a stretch of the log.
enum Advance {
    /// It started jobs.
    Jobs,
    /// It started none.
    Quiet,
    /// There was none.
    End,
}

/// Dispatches the next stretch.
async fn advance(engine: &Engine) -> Result<Advance> {
    let after = engine.store.dispatch_position().await?;
    if after >= engine.store.last_seq() {
        return Ok(Advance::End);
    }
    let mut log = engine.store.log_after(after, STRETCH).await?;
    if log.is_empty() {
        return Ok(Advance::End);
    }
    let snapshot = Arc::clone(&engine.store.snapshot());
    let awaited = awaited(&snapshot, &log);
    if awaited.len() == AWAITED {
        awaited.last().into_iter().for_each(|last| cut(&mut log, *last));
    }
    let (mut events, mut lost) = (Vec::new(), Vec::new());
    if let Some(last) = awaited.last().copied() {
        (events, lost) = engine.store.events_at(awaited).await?;
        // Large bodies come in several reads: the stretch ends where this one did.
        let reached = events.last().map(|event| event.seq).max(lost.last().map(|event| event.seq));
        if let Some(reached) = reached.filter(|reached| *reached != last) {
            cut(&mut log, reached);
        }
    }
    let stretch = Stretch { after, log, events, lost };
    let key = engine.store.hops_key().clone();
    let (dispatched, looped) = tokio::task::spawn_blocking(move || plan(&snapshot, &key, &stretch))
        .await
        .map_err(|error| StoreError::Database(format!("dispatch ended early: {error}")))?;
    let jobs = dispatched.jobs.len();
    counter!("linkspan_jobs_queued_total").increment(jobs as u64);
    if !looped.is_empty()
        && let Err(error) = engine.store.record_refusals(looped).await
    {
        tracing::warn!(%error, "events that go round in a loop were not listed");
    }
    engine.store.dispatch(dispatched).await?;
    Ok(if jobs > 0 { Advance::Jobs } else { Advance::Quiet })
}

/// Takes the positions after `last` off a stretch.
fn cut(log: &mut Vec<LogRun>, last: u64) {
    log.retain(|run| run.first <= last);
    log.iter_mut().for_each(|run| run.last = run.last.min(last));
}

/// The positions of the first events that a recipe waits for.
fn awaited(snapshot: &Snapshot, log: &[LogRun]) -> Vec<u64> {
    let endpoints: HashSet<i64> = snapshot
        .recipes()
        .filter(|recipe| recipe.spec.is_enabled())
        .filter_map(|recipe| Some(snapshot.endpoint(recipe.spec.endpoint())?.row))
        .collect();
    let awaited = log.iter().filter(|run| endpoints.contains(&run.endpoint));
    awaited.flat_map(|run| run.first..=run.last).take(AWAITED).collect()
}

/// A stretch of the log.
struct Stretch {
    /// The position before it.
    after: u64,
    /// Whose events stand in it.
    log: Vec<LogRun>,
    /// The events that a recipe waits for.
    events: Vec<StoredEvent>,
    /// Those of them whose body cannot be read.
    lost: Vec<LostEvent>,
}

/// The jobs that a stretch starts, and what is refused because it goes round in a loop.
fn plan(snapshot: &Snapshot, key: &HopsKey, stretch: &Stretch) -> (Dispatched, Vec<NewRefusal>) {
    let Stretch { after, log, events, lost } = stretch;
    let mut dispatched = Dispatched {
        after: *after,
        up_to: log.last().map_or(*after, |run| run.last),
        runs: log.clone(),
        jobs: Vec::new(),
    };
    let mut looped = Vec::new();
    for StoredEvent { seq, endpoint, event } in events {
        let jobs = jobs_of(snapshot, *seq, event);
        if !jobs.is_empty() && key.count(&hops_header(event)) >= HOPS_MAX {
            looped.push(refusal(*endpoint, event));
        } else {
            dispatched.jobs.extend(jobs);
        }
    }
    for event in lost {
        // Their jobs fail and say why.
        let recipes = waiting(snapshot, event.seq).filter(|recipe| {
            snapshot.endpoint(recipe.spec.endpoint()).is_some_and(|endpoint| endpoint.row == event.endpoint)
        });
        dispatched.jobs.extend(recipes.map(|recipe| new_job(recipe, event.id)));
    }
    (dispatched, looped)
}

/// The recipes that an event at this position can start.
fn waiting(snapshot: &Snapshot, seq: u64) -> impl Iterator<Item = &Arc<RecipeView>> {
    snapshot.recipes().filter(move |recipe| recipe.spec.is_enabled() && recipe.from_seq < seq)
}

fn new_job(recipe: &RecipeView, event: EventId) -> NewJob {
    NewJob { recipe: recipe.row, recipe_revision: recipe.revision, event, salt: salt(), rerun_of: None }
}

fn jobs_of(snapshot: &Snapshot, seq: u64, event: &Event) -> Vec<NewJob> {
    let mut recipes = waiting(snapshot, seq).filter(|recipe| *recipe.spec.endpoint() == event.endpoint).peekable();
    if recipes.peek().is_none() {
        return Vec::new();
    }
    let format = snapshot.endpoint(&event.endpoint).and_then(|endpoint| endpoint.spec.format);
    let scope = Scope::of_event(event, format);
    recipes
        // What cannot be evaluated starts a job, which fails and shows why.
        .filter(|recipe| recipe.recipe.when(&scope).unwrap_or(true))
        .map(|recipe| new_job(recipe, event.id))
        .collect()
}

/// The marks with which an event came, checked or not.
pub(crate) fn hops_header(event: &Event) -> String {
    let values = event.head.headers.iter().filter(|(name, _)| name == hops::HEADER);
    values.filter_map(|(_, value)| std::str::from_utf8(value.as_bytes()).ok()).collect::<Vec<_>>().join(",")
}

fn refusal(endpoint: i64, event: &Event) -> NewRefusal {
    counter!("linkspan_loops_total").increment(1);
    NewRefusal {
        endpoint: Some(endpoint),
        at: event.received_at,
        status: 202,
        code: "recipe.loop".to_owned(),
        cause: format!(
            "event {} has come through recipes {HOPS_MAX} times and starts no more jobs; a recipe feeds its own endpoint",
            event.id
        ),
        method: event.head.method.clone(),
        remote: event.head.remote.clone(),
        headers: event.head.headers.clone(),
        body: Vec::new(),
        body_size: event.body.len() as u64,
    }
}
