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
    Care, Dispatched, LogRun, LoggedEvent, NewJob, NewRefusal, RecipeView, Result, Snapshot, StoreError, StoredEvent,
};
use metrics::counter;
use tokio_util::sync::CancellationToken;

use crate::{Engine, salt};

/// Most events of one stretch.
const STRETCH: u32 = 8_192;
/// Most events of a stretch that recipes wait for.
const AWAITED: usize = 1_024;
/// Jobs from which on a stretch ends, so that the writer makes no more of them at a time than there are recipes on
/// one endpoint.
const JOBS: usize = 512;
/// Pause after a stretch that started nothing, so that a flood of events nobody waits for is passed over in long
/// stretches instead of one after every commit.
const PAUSE: Duration = Duration::from_millis(20);

/// Follows the log until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    let mut appends = engine.store.appends();
    let mut care = begin(&engine).await;
    let mut has_begun = true;
    let mut careful_until = 0;
    let mut position = None;
    while !stop.is_cancelled() {
        let advanced = advance(&engine, care, &mut position).await;
        if care != Care::Usual && advanced.is_ok() {
            // Past the stretch in which processes have ended.
            let at = position.unwrap_or_default();
            careful_until = if careful_until == 0 { at + AWAITED as u64 } else { careful_until };
            care = if at > careful_until { Care::Usual } else { Care::StepByStep };
        }
        // Once, when it has come past the place where it began.
        if care == Care::Usual
            && advanced.is_ok()
            && std::mem::take(&mut has_begun)
            && let Err(error) = engine.store.dispatch_goes_on().await
        {
            tracing::warn!(%error, "that dispatch goes on was not noted");
        }
        match advanced {
            Ok(Advance::Jobs) => {}
            Ok(Advance::Quiet) => tokio::time::sleep(PAUSE).await,
            Ok(Advance::End) => {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = appends.wait(Duration::from_secs(1)) => {}
                }
            }
            Err(error) => {
                tracing::error!(%error, "events could not be dispatched; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// How careful dispatch has to be: an event that ends the process must not do so at every start.
async fn begin(engine: &Engine) -> Care {
    match engine.store.dispatch_began().await {
        Ok(Care::Usual) => Care::Usual,
        Ok(care) => {
            tracing::error!(
                "the server has ended several times while it dispatched the next events; they are looked at one by one"
            );
            care
        }
        Err(error) => {
            tracing::warn!(%error, "that dispatch begins was not noted");
            Care::Usual
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

/// Dispatches the stretch behind `position`, which is that in the store where it is not known; whether it holds is seen
/// in the transaction.
async fn advance(engine: &Engine, care: Care, position: &mut Option<u64>) -> Result<Advance> {
    let after = match position.take() {
        Some(after) => after,
        None => engine.store.dispatch_position().await?,
    };
    let (advanced, reached) = dispatch_after(engine, care, after).await?;
    *position = Some(reached);
    Ok(advanced)
}

/// Dispatches the stretch of the log behind `after`; gives where it ended too.
async fn dispatch_after(engine: &Engine, care: Care, after: u64) -> Result<(Advance, u64)> {
    if after >= engine.store.last_seq() {
        return Ok((Advance::End, after));
    }
    let mut log = engine.store.log_after(after, STRETCH).await?;
    if log.is_empty() {
        return Ok((Advance::End, after));
    }
    let snapshot = Arc::clone(&engine.store.snapshot());
    let most = if care == Care::Usual { AWAITED } else { 1 };
    let awaited = awaited(&snapshot, &log, most);
    if awaited.len() == most {
        awaited.last().into_iter().for_each(|last| cut(&mut log, *last));
    }
    let mut events = Vec::new();
    if let Some(last) = awaited.last().copied() {
        events = engine.store.events_at(awaited).await?;
        // What is much comes in several reads: the stretch ends where this one did.
        let reached = events.last().map(|event| event.stored.seq);
        if let Some(reached) = reached.filter(|reached| *reached != last) {
            cut(&mut log, reached);
        }
    }
    if care == Care::SetAside
        && let Some(LoggedEvent { stored: event, .. }) = events.pop()
    {
        tracing::error!(event = %event.event.id, "an event was set aside: the server ended each time it was dispatched");
        engine.store.record_refusals(vec![set_aside(&event)]).await?;
    }
    let stretch = Stretch { after, log, events };
    let key = engine.store.hops_key().clone();
    let (dispatched, looped) = tokio::task::spawn_blocking(move || plan(&snapshot, &key, &stretch))
        .await
        .map_err(|error| StoreError::Database(format!("dispatch ended early: {error}")))?;
    let (jobs, up_to) = (dispatched.jobs.len(), dispatched.up_to);
    counter!("linkspan_jobs_queued_total").increment(jobs as u64);
    if !looped.is_empty()
        && let Err(error) = engine.store.record_refusals(looped).await
    {
        tracing::warn!(%error, "events that go round in a loop were not listed");
    }
    engine.store.dispatch(dispatched).await?;
    Ok((if jobs > 0 { Advance::Jobs } else { Advance::Quiet }, up_to))
}

/// Takes the positions after `last` off a stretch.
fn cut(log: &mut Vec<LogRun>, last: u64) {
    log.retain(|run| run.first <= last);
    log.iter_mut().for_each(|run| run.last = run.last.min(last));
}

/// The positions of the first events that a recipe waits for.
fn awaited(snapshot: &Snapshot, log: &[LogRun], most: usize) -> Vec<u64> {
    let endpoints: HashSet<i64> = snapshot.awaited_endpoints().map(|endpoint| endpoint.row).collect();
    let awaited = log.iter().filter(|run| endpoints.contains(&run.endpoint));
    awaited.flat_map(|run| run.first..=run.last).take(most).collect()
}

/// A stretch of the log.
struct Stretch {
    /// The position before it.
    after: u64,
    /// Whose events stand in it.
    log: Vec<LogRun>,
    /// The events that a recipe waits for.
    events: Vec<LoggedEvent>,
}

/// The jobs that a stretch starts, and what is refused because it goes round in a loop.
fn plan(snapshot: &Snapshot, key: &HopsKey, stretch: &Stretch) -> (Dispatched, Vec<NewRefusal>) {
    let Stretch { after, log, events } = stretch;
    let mut dispatched = Dispatched {
        after: *after,
        up_to: log.last().map_or(*after, |run| run.last),
        runs: log.clone(),
        jobs: Vec::new(),
    };
    let mut looped = Vec::new();
    let mut cut_at = None;
    for LoggedEvent { stored: StoredEvent { seq, endpoint, event }, is_large } in events {
        let jobs = if *is_large { jobs_of_large(snapshot, *seq, event) } else { jobs_of(snapshot, *seq, event) };
        if !jobs.is_empty() && key.count(&hops_header(event)) >= HOPS_MAX {
            looped.push(refusal(*endpoint, event));
        } else {
            dispatched.jobs.extend(jobs);
        }
        if dispatched.jobs.len() >= JOBS {
            cut_at = Some(*seq);
            break;
        }
    }
    if let Some(last) = cut_at {
        cut(&mut dispatched.runs, last);
        dispatched.up_to = last;
    }
    (dispatched, looped)
}

fn new_job(recipe: &RecipeView, event: EventId) -> NewJob {
    NewJob {
        recipe: recipe.row,
        recipe_revision: recipe.revision,
        event,
        salt: salt(),
        rerun_of: None,
        is_deferred: false,
    }
}

/// The jobs of an event whose body is long: what a condition takes of it may be long too, so that it is a worker's,
/// among whom recipes take turns. Here everybody would wait for it.
fn jobs_of_large(snapshot: &Snapshot, seq: u64, event: &Event) -> Vec<NewJob> {
    let recipes = snapshot.recipes_on(&event.endpoint).iter().filter(|recipe| recipe.from_seq < seq);
    let job =
        |recipe: &Arc<RecipeView>| NewJob { is_deferred: recipe.recipe.has_condition(), ..new_job(recipe, event.id) };
    recipes.map(job).collect()
}

fn jobs_of(snapshot: &Snapshot, seq: u64, event: &Event) -> Vec<NewJob> {
    let mut recipes = snapshot.recipes_on(&event.endpoint).iter().filter(|recipe| recipe.from_seq < seq).peekable();
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
    let cause = format!(
        "event {} has come through recipes {HOPS_MAX} times and starts no more jobs; a recipe feeds its own endpoint",
        event.id
    );
    not_dispatched(endpoint, event, "recipe.loop", cause)
}

fn set_aside(event: &StoredEvent) -> NewRefusal {
    let cause = format!(
        "event {} starts no jobs: the server ended each time it was dispatched; look at its body, and replay it when \
         the cause is gone",
        event.event.id
    );
    not_dispatched(event.endpoint, &event.event, "event.set_aside", cause)
}

/// An event that was accepted and starts no job, as the list of refusals shows it.
fn not_dispatched(endpoint: i64, event: &Event, code: &str, cause: String) -> NewRefusal {
    NewRefusal {
        endpoint: Some(endpoint),
        at: event.received_at,
        status: 202,
        code: code.to_owned(),
        cause,
        method: event.head.method.clone(),
        remote: event.head.remote.clone(),
        headers: event.head.headers.clone(),
        body: Vec::new(),
        body_size: event.body.len() as u64,
    }
}
