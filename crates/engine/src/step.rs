//! One step of a job: from its templates to its record.
//!
//! Guarantees: every attempt of a step carries the same idempotency key; what is not safe to repeat is not
//! repeated, and the record says so; the record holds the request as it was sent, secrets masked, and every attempt.
//! A step that its connection puts off has made no attempt.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use linkspan_model::hops::HEADER as HOPS_HEADER;
use linkspan_model::job::{AttemptDecision, AttemptRun, JobStatus, StepError, StepRun};
use linkspan_model::limits;
use linkspan_model::recipe::{CompiledStep, Work};
use linkspan_model::request::{Effect, RequestPlan, RequestSpec};
use linkspan_model::retry::{Attempts, RetryPolicy};
use linkspan_model::template::Scope;
use linkspan_outbound::{Ask, Pass, PutOff, Stays};
use linkspan_store::{Lease, Next, Snapshot, StepRecord};
use serde_json::Value;

use crate::attempt::{Attempt, attempt, judge};
use crate::call::first_page;
use crate::connection::{Way, connect};
use crate::{Engine, failed, heavy, worker};

/// Most workers that wait for the responses of one connection.
const CONNECTION_SHARE: u32 = (worker::CONCURRENCY / 2) as u32;

/// Where a step runs.
pub(crate) struct StepContext<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) lease: Lease,
    pub(crate) position: u32,
    pub(crate) is_last: bool,
    /// What the request says of how often it has come through recipes.
    pub(crate) hops: &'a str,
    /// The length of all that pills may name, in bytes.
    pub(crate) data: usize,
}

/// What earlier work on the step has recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Earlier<'a> {
    pub(crate) run: Option<&'a StepRun>,
    pub(crate) resumed: bool,
}

impl Earlier<'_> {
    /// The attempts made.
    pub(crate) fn attempts(&self) -> u32 {
        self.run.map_or(0, |run| run.attempts)
    }
}

/// What a step needs to make an attempt.
struct Prepared {
    way: Way,
    plan: Arc<RequestPlan>,
    request: RequestSpec,
}

/// Runs one attempt of a step; gives its record, how the job goes on, and the output for later steps.
pub(crate) async fn run(
    context: &StepContext<'_>,
    step: &CompiledStep,
    scope: &Scope,
    earlier: Earlier<'_>,
) -> (StepRecord, Next, Option<Value>) {
    let clock = &context.engine.clock;
    let mut began_at = clock.now();
    let prepared = heavy::work_on(context.data, || prepare(context, step, scope));
    let (plan, retry) = match &prepared {
        Ok(prepared) => (Some(Arc::clone(&prepared.plan)), prepared.way.spec.retry.clone()),
        Err(_) => (None, None),
    };
    let effect = plan.as_ref().map_or(Effect::Read, |plan| plan.effect);
    let made = match prepared {
        Err(error) => Attempt::not_begun(error),
        Ok(prepared) => match pass(context, step, &prepared.way, earlier).await {
            Err(put_off) => return wait(context, step, prepared.way.row, earlier, &put_off),
            Ok(pass) => {
                began_at = clock.now();
                let Prepared { mut way, plan, request } = prepared;
                attempt(context.engine, context.snapshot, &plan, &mut way, request, pass, true).await
            }
        },
    };
    let started_at = earlier.run.and_then(|run| run.started_at).unwrap_or(began_at);
    let attempts = earlier.attempts() + 1;
    let now = clock.now();

    let mut error = None;
    let mut retry_at = None;
    let mut reason = None;
    let next = match &made.result {
        Ok(_) if context.is_last => Next::Succeed,
        Ok(_) => Next::Continue,
        Err(failed) => {
            let own = plan.as_ref().and_then(|plan| plan.retry.as_ref());
            let policy = RetryPolicy::new(retry.as_ref(), own);
            let so_far = Attempts { made: attempts, first_at: started_at };
            let verdict = judge(failed.clone(), made.outcome, &policy, effect, so_far, now);
            retry_at = verdict.retry_at;
            reason = verdict.reason;
            error = Some(verdict.error.clone());
            match retry_at {
                Some(at) => Next::RetryAt(at),
                None => Next::Fail(verdict.error),
            }
        }
    };
    let status = match next {
        Next::Continue | Next::Succeed => JobStatus::Succeeded,
        Next::RetryAt(_) | Next::WaitFor { .. } => JobStatus::Waiting,
        Next::Fail(_) => JobStatus::Failed,
    };
    let mut attempt_log = earlier.run.map_or_else(Vec::new, |run| run.attempt_log.clone());
    if let (Some(run), Some(last)) = (earlier.run, attempt_log.last_mut()) {
        last.keep(run.input.clone(), run.output.clone());
    }
    attempt_log.push(AttemptRun {
        number: attempts,
        started_at: began_at,
        timings: made.timings,
        status: made.status,
        error: error.clone(),
        decision: match next {
            Next::Continue | Next::Succeed => AttemptDecision::Succeeded,
            Next::RetryAt(_) | Next::WaitFor { .. } => AttemptDecision::Retry,
            Next::Fail(_) => AttemptDecision::Stop,
        },
        reason,
        retry_at,
        input: None,
        output: None,
    });
    let unlisted = attempt_log.len().saturating_sub(limits::STEP_ATTEMPTS_MAX as usize);
    attempt_log.drain(..unlisted);
    let run = StepRun {
        id: step.id.clone(),
        status,
        attempts,
        attempt_log,
        input: made.input,
        output: made.output,
        error,
        resumed: earlier.resumed,
        retry_at,
        started_at: Some(started_at),
        finished_at: (retry_at.is_none()).then_some(now),
    };
    let result = made.result.ok();
    let bytes = result.as_ref().and_then(|result| serde_json::to_vec(result).ok());
    (StepRecord { position: context.position, run, result: bytes }, next, result)
}

/// The record of a step that its connection puts off: what earlier attempts left, and what it waits for.
fn wait(
    context: &StepContext<'_>,
    step: &CompiledStep,
    connection_row: Option<i64>,
    earlier: Earlier<'_>,
    put_off: &PutOff,
) -> (StepRecord, Next, Option<Value>) {
    let at = context.engine.clock.now().after(put_off.after);
    let connection = step.connection.as_ref().map_or_else(String::new, |name| format!("connection `{name}`: "));
    let mut run = earlier.run.cloned().unwrap_or_else(|| StepRun {
        id: step.id.clone(),
        status: JobStatus::Waiting,
        attempts: 0,
        attempt_log: Vec::new(),
        input: None,
        output: None,
        error: None,
        resumed: false,
        retry_at: None,
        started_at: None,
        finished_at: None,
    });
    run.status = JobStatus::Waiting;
    run.error = Some(failed(put_off.why.code(), format!("{connection}{}", put_off.why), None));
    run.resumed = earlier.resumed;
    run.retry_at = Some(at);
    // Its turn at a rate, or after a retry budget, is its own; the rest ends for all that wait.
    let next = match connection_row.filter(|_| put_off.why.is_shared()) {
        Some(connection) => Next::WaitFor { until: at, connection },
        None => Next::RetryAt(at),
    };
    (StepRecord { position: context.position, run, result: None }, next, None)
}

/// Asks the connection for a turn; a step without one has its turn at once.
async fn pass(
    context: &StepContext<'_>,
    step: &CompiledStep,
    way: &Way,
    earlier: Earlier<'_>,
) -> Result<Option<Pass>, PutOff> {
    let (Some(name), Some(row)) = (&step.connection, way.row) else { return Ok(None) };
    let gate = context.engine.traffic.gate(name, way.spec.traffic(row), context.snapshot.revision);
    let ask = Ask {
        patience: limits::TURN_PATIENCE,
        is_retry: earlier.attempts() > 0,
        is_returning: earlier.run.is_some_and(|run| run.retry_at.is_some()),
        stays: Stays::Always,
    };
    // Many recipes may call one slow API: together they do not take every worker either.
    gate.check_share(CONNECTION_SHARE)?;
    gate.enter(ask).await.map(Some)
}

fn prepare(context: &StepContext<'_>, step: &CompiledStep, scope: &Scope) -> Result<Prepared, StepError> {
    let way = connect(context.engine, context.snapshot, step.connection.as_ref())?;
    let (plan, mut request) = match &step.work {
        Work::Request(plan) => (Arc::clone(plan), way.render(plan, scope)?),
        Work::Call(call) => {
            let input = call.render(scope)?;
            let (action, scope) = way.action(&call.action, input)?;
            let request = way.render(&action.plan, &scope)?;
            (Arc::clone(&action.plan), first_page(action.paginate.as_deref(), request)?)
        }
    };
    add_own_headers(&mut request, context, step, plan.effect);
    Ok(Prepared { way, plan, request })
}

/// The idempotency key, the same on every attempt and after a crash, and the count that ends loops.
fn add_own_headers(request: &mut RequestSpec, context: &StepContext<'_>, step: &CompiledStep, effect: Effect) {
    let name = HeaderName::from_static("idempotency-key");
    let is_set = request.headers.iter().any(|(set, _)| *set == name);
    if effect != Effect::Read
        && !is_set
        && let Ok(value) = HeaderValue::from_str(&format!("{}-{}", context.lease.job, step.id))
    {
        request.headers.push((name, value));
    }
    // A recipe cannot take itself out of the loop guard.
    request.headers.retain(|(name, _)| *name != HOPS_HEADER);
    if let Ok(value) = HeaderValue::from_str(context.hops) {
        request.headers.push((HeaderName::from_static(HOPS_HEADER), value));
    }
}
