//! One job, from its claim to its end.
//!
//! Guarantees: a step runs after the results of all earlier steps are durable; a job that is taken again goes
//! on after its last finished step, with the revision of the recipe that it began with.

use std::sync::Arc;
use std::time::Duration;

use linkspan_model::document::Spec;
use linkspan_model::event::Event;
use linkspan_model::fault::in_words;
use linkspan_model::job::{JobStatus, StepError};
use linkspan_model::recipe::Recipe;
use linkspan_model::template::Scope;
use linkspan_store::{Claimed, Lease, Next, Result, Snapshot, StepRecord, StoreError};
use metrics::counter;
use serde_json::Value;

use crate::step::{self, Earlier, StepContext};
use crate::{Engine, dispatch, heavy};

/// Most workers that may begin a job and go away before it fails.
const CLAIMS_MAX: u32 = 6;

/// Runs a job as far as it comes: to its end, or to a step that waits for another attempt.
pub(crate) async fn run_job(engine: &Engine, job: Claimed) -> Result<()> {
    let snapshot = Arc::clone(&engine.store.snapshot());
    let _room = match job.large_body {
        Some(bytes) => engine.large_bodies.room(bytes).await,
        None => None,
    };
    let (event, recipe) = match prepare(engine, &snapshot, &job).await {
        Ok(prepared) => prepared,
        Err(StoreError::NotFound(what)) => {
            let description = format!("{what} does not exist any more, so the job cannot run");
            return engine.store.fail_job(job.lease, failure("job.gone", description)).await;
        }
        Err(StoreError::Unusable(reason)) => {
            return engine.store.fail_job(job.lease, failure("event.body_lost", reason)).await;
        }
        // Another version of the product has stored it.
        Err(StoreError::Invalid(faults)) => {
            let reason = format!("the recipe cannot be used with this version: {}", in_words(&faults));
            return engine.store.fail_job(job.lease, failure("recipe.unusable", reason)).await;
        }
        Err(error) => return Err(error),
    };
    if job.claims > CLAIMS_MAX {
        let description =
            format!("{CLAIMS_MAX} workers have begun the job and went away; run it again when that is mended");
        return engine.store.fail_job(job.lease, failure("job.interrupted", description)).await;
    }
    // The first step that is not done is where a worker that went away may have been.
    let mut interrupted = job.was_interrupted;
    let format = snapshot.endpoint(&event.endpoint).and_then(|endpoint| endpoint.spec.format);
    let mut scope = Scope::of_event(&event, format);
    scope = scope
        .with("job.id", Value::from(job.lease.job.to_string()))
        .with("job.recipe", Value::from(recipe_name(&snapshot, &job)))
        .with("job.test", Value::from(false));
    // Of all that pills may name, in bytes.
    let mut data = event.body.len();
    if job.steps.is_empty() {
        let holds = heavy::work_on(data, || recipe.when(&scope));
        if job.is_deferred {
            let holds = !matches!(holds, Ok(false));
            engine.store.decide_deferred(job.lease, holds).await?;
            if !holds {
                return Ok(());
            }
        }
        if let Err(error) = holds {
            let description = format!("the trigger's condition cannot be evaluated: {error}");
            return engine.store.fail_job(job.lease, failure("recipe.condition", description)).await;
        }
    }
    let hops = engine.store.hops_key().next(&dispatch::hops_header(&event));
    for (position, step) in recipe.steps().iter().enumerate() {
        let recorded = job.steps.get(position);
        if let Some(finished) = recorded.filter(|recorded| recorded.run.status == JobStatus::Succeeded) {
            scope = with_result(scope, &step.id, finished.result.clone().unwrap_or(Value::Null));
            data = data.saturating_add(heavy::UNKNOWN);
            continue;
        }
        let earlier = Earlier {
            run: recorded.map(|recorded| &recorded.run),
            resumed: std::mem::take(&mut interrupted) || recorded.is_some_and(|recorded| recorded.run.resumed),
        };
        scope = scope.with("job.attempt", Value::from(earlier.attempts() + 1));
        let context = StepContext {
            engine,
            snapshot: &snapshot,
            lease: job.lease,
            position: u32::try_from(position).unwrap_or(u32::MAX),
            is_last: position + 1 == recipe.steps().len(),
            hops: &hops,
            data,
        };
        let (record, next, result) = step::run(&context, step, &scope, earlier).await;
        let ended = next != Next::Continue;
        data = data.saturating_add(record.result.as_ref().map_or(0, Vec::len));
        count(&next, record.run.attempts > earlier.attempts());
        record_surely(engine, job.lease, record, next).await?;
        match result {
            Some(result) if !ended => scope = with_result(scope, &step.id, result),
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Records a step, and tries again while that is not possible for now: what was sent must not be sent again because
/// the disk was full when the response came. The lease is renewed meanwhile.
async fn record_surely(engine: &Engine, lease: Lease, record: StepRecord, next: Next) -> Result<()> {
    let record = Arc::new(record);
    let mut pause = Duration::from_millis(100);
    loop {
        match engine.store.record_step(lease, Arc::clone(&record), next.clone()).await {
            Err(error @ (StoreError::DiskFull | StoreError::Busy | StoreError::Unusable(_))) => {
                tracing::warn!(job = %lease.job, %error, "a step could not be recorded; trying again");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(Duration::from_secs(5));
            }
            recorded => return recorded,
        }
    }
}

async fn prepare(engine: &Engine, snapshot: &Snapshot, job: &Claimed) -> Result<(Event, Arc<Recipe>)> {
    let event = engine.store.event(job.event).await?;
    let current = snapshot.recipes().find(|recipe| recipe.row == job.recipe && recipe.revision == job.recipe_revision);
    if let Some(current) = current {
        return Ok((event, Arc::clone(&current.recipe)));
    }
    let document = engine.store.recipe_revision(job.recipe, job.recipe_revision).await?;
    match document.spec {
        Spec::Recipe(spec) => Ok((event, Arc::new(Recipe::compile(&spec).map_err(StoreError::Invalid)?))),
        _ => Err(StoreError::Database("a recipe's revision is not a recipe".to_owned())),
    }
}

fn recipe_name(snapshot: &Snapshot, job: &Claimed) -> Option<String> {
    snapshot.recipes().find(|recipe| recipe.row == job.recipe).map(|recipe| recipe.name.to_string())
}

/// The root `steps` of pills, with one more step.
fn with_result(scope: Scope, id: &str, result: Value) -> Scope {
    let Value::Object(mut fields) = result else { return scope };
    let headers = fields.shift_remove("headers").unwrap_or_default();
    let at = |field: &str| format!("steps.{id}.{field}");
    scope
        .with(&at("status"), fields.shift_remove("status").unwrap_or_default())
        .with_headers(&at("headers"), headers)
        .with(&at("body"), fields.shift_remove("body").unwrap_or_default())
}

fn failure(code: &str, description: String) -> StepError {
    StepError { code: code.to_owned(), description, field: None, outcome_unknown: None }
}

fn count(next: &Next, was_made: bool) {
    match next {
        Next::Continue => {}
        Next::RetryAt(_) | Next::WaitFor { .. } if !was_made => counter!("linkspan_steps_put_off_total").increment(1),
        Next::RetryAt(_) | Next::WaitFor { .. } => counter!("linkspan_step_retries_total").increment(1),
        Next::Succeed => counter!("linkspan_jobs_total", "status" => "succeeded").increment(1),
        Next::Fail(_) => counter!("linkspan_jobs_total", "status" => "failed").increment(1),
    }
}
