//! Calls: requests through a connection that somebody waits for, one by one or page by page.
//!
//! They take the same door and the same turn as those of steps. What is tried again, and when, is the connection's
//! to say; only the waiting is bounded, because somebody waits (`CALL_WAITS`, `PAGE_WAITS`). What they give holds no
//! secret of the account.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use linkspan_model::call::{Called, CompiledCall, CompiledRead, Piece};
use linkspan_model::job::{AttemptDecision, AttemptRun, StepError};
use linkspan_model::paginate::{NextPage, PageFault, Paginate};
use linkspan_model::request::{Effect, RequestSpec};
use linkspan_model::retry::{Attempts, RetryPolicy};
use linkspan_model::{Name, limits, units};
use linkspan_outbound::{Ask, Pass, PutOff, Stays, Why};
use linkspan_store::Snapshot;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::attempt::{Attempt, Verdict, attempt, judge};
use crate::connection::{Way, connect};
use crate::{Engine, failed, heavy};

/// Makes a call; `connection` is one of `snapshot`.
pub async fn call(engine: &Engine, snapshot: &Snapshot, connection: &Name, call: &CompiledCall) -> Called {
    let begun = Caller::new(engine, snapshot, connection, call);
    let begun = begun.and_then(|(caller, request)| Ok((caller, first_page(call.list.as_deref(), request)?)));
    match begun {
        Ok((mut caller, request)) => {
            let mut called = caller.send(request, &mut { limits::CALL_WAITS }).await;
            // An API may give back what it was sent.
            let masker = caller.way.credentials.masker();
            called.result = called.result.map(|answer| heavy::work_on(heavy::UNKNOWN, || masker.mask_value(answer)));
            called
        }
        Err(error) => Called::not_made(error),
    }
}

/// Reads a list page by page, and hands its items on as they come, one page at a time. Ends early when nobody takes
/// them any more.
pub async fn read(
    engine: &Engine,
    snapshot: &Snapshot,
    connection: &Name,
    list: &CompiledRead,
    pieces: mpsc::Sender<Piece>,
) {
    let last = match Caller::new(engine, snapshot, connection, &list.call) {
        Ok((caller, request)) => pages(caller, request, list, &pieces).await,
        Err(error) => Some(Piece::Failed(Box::new(Called::not_made(error)))),
    };
    if let Some(last) = last {
        // Whoever has gone away does not miss it.
        drop(pieces.send(last).await);
    }
}

/// Reads all pages; gives what is to be said last, unless nobody listens any more.
async fn pages(
    mut caller: Caller<'_>,
    mut request: RequestSpec,
    list: &CompiledRead,
    pieces: &mpsc::Sender<Piece>,
) -> Option<Piece> {
    let failed = |error: StepError| Piece::Failed(Box::new(Called::not_made(error)));
    let begun = list.stream.as_ref();
    let begun = begun.map(|stream| stream.begin(&mut request, &list.call.scope, list.since.as_ref())).transpose();
    let mut reading = match begun {
        Ok(reading) => reading,
        Err(fault) => return Some(failed(crate::failed("input.invalid", fault.to_string(), Some("since".to_owned())))),
    };
    let mut pages = list.rule.pages();
    let mut request = match pages.first(&request) {
        Ok(request) => request,
        Err(fault) => return Some(failed(page_error(&fault))),
    };
    let mut waits = limits::CALL_WAITS;
    loop {
        if let Err(error) = caller.way.check(&request.url) {
            return Some(failed(error));
        }
        // A page is asked for when there is room for its items, so that at most one waits beside the one being taken.
        let room = pieces.reserve().await.ok()?;
        let mut called = caller.send(request.clone(), &mut waits).await;
        let answer = match &mut called.result {
            Ok(answer) => answer,
            Err(_) => return Some(Piece::Failed(Box::new(called))),
        };
        let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
        let (headers, body) = (answer["headers"].take(), answer["body"].take());
        let page = pages.turn(&request, status, headers, body);
        let page = page.and_then(|page| {
            let items = match &mut reading {
                Some(reading) => reading.take(page.items)?,
                None => page.items,
            };
            Ok((items, page.next))
        });
        let (items, next) = match page {
            Ok(page) => page,
            Err(fault) => {
                called.result = Err(page_error(&fault));
                return Some(Piece::Failed(Box::new(called)));
            }
        };
        if !items.is_empty() {
            let masker = caller.way.credentials.masker();
            let items = items.into_iter().map(|item| masker.mask_value(item)).collect();
            room.send(Piece::Items(items));
            waits = limits::PAGE_WAITS;
        }
        match next {
            Ok(NextPage::Request(next)) => request = *next,
            Ok(end @ (NextPage::End | NextPage::Capped)) => {
                let complete = matches!(end, NextPage::End);
                // Lists that begin with the newest have not given what is older: the next reading must.
                let cursor = reading.filter(|_| complete).and_then(|reading| reading.newest().cloned());
                return Some(Piece::End { pages: pages.read(), complete, cursor });
            }
            Err(fault) => {
                called.result = Err(page_error(&fault));
                return Some(Piece::Failed(Box::new(called)));
            }
        }
    }
}

/// The request as a list wants it for its first page.
pub(crate) fn first_page(list: Option<&Paginate>, request: RequestSpec) -> Result<RequestSpec, StepError> {
    match list {
        Some(list) => list.pages().first(&request).map_err(|fault| page_error(&fault)),
        None => Ok(request),
    }
}

fn page_error(fault: &PageFault) -> StepError {
    failed("response.page", format!("the list cannot be read on: {fault}"), None)
}

/// What makes requests through a connection, for as long as somebody waits.
struct Caller<'a> {
    engine: &'a Engine,
    snapshot: &'a Snapshot,
    connection: &'a Name,
    call: &'a CompiledCall,
    way: Way,
    /// What tells this call from all others, the same on every attempt; of a call that reads, nothing.
    key: Option<HeaderValue>,
}

impl<'a> Caller<'a> {
    /// A caller, and the request that the call asks for.
    fn new(
        engine: &'a Engine,
        snapshot: &'a Snapshot,
        connection: &'a Name,
        call: &'a CompiledCall,
    ) -> Result<(Self, RequestSpec), StepError> {
        let way = connect(engine, snapshot, Some(connection))?;
        let request = way.render(&call.plan, &call.scope)?;
        let key = (call.plan.effect != Effect::Read).then(idempotency_key).flatten();
        Ok((Self { engine, snapshot, connection, call, way, key }, request))
    }

    /// Sends a request until it is answered for good, or waiting for the next attempt would take too long; `waits` is
    /// the longest time for all waiting together, and less by what was waited afterwards.
    async fn send(&mut self, mut request: RequestSpec, waits: &mut Duration) -> Called {
        let name = HeaderName::from_static("idempotency-key");
        if let Some(key) = &self.key
            && !request.headers.iter().any(|(set, _)| *set == name)
        {
            request.headers.push((name, key.clone()));
        }
        let clock = &self.engine.clock;
        let first_at = clock.now();
        let mut log: Vec<AttemptRun> = Vec::new();
        loop {
            let made = u32::try_from(log.len()).unwrap_or(u32::MAX);
            let turn_asked = Instant::now();
            let turn = self.turn(made > 0, *waits).await;
            *waits = waits.saturating_sub(turn_asked.elapsed());
            let pass = match turn {
                Ok(pass) => pass,
                Err(put_off) => {
                    let result = Err(failed(put_off.why.code(), put_off_words(self.connection, &put_off, made), None));
                    return Called { result, retry_after: Some(put_off.after), request: None, attempts: log };
                }
            };
            let began_at = clock.now();
            let plan = &*self.call.plan;
            let Attempt { input, output, result, outcome, status, timings } =
                attempt(self.engine, self.snapshot, plan, &mut self.way, request.clone(), Some(pass), false).await;
            let policy = RetryPolicy::new(self.way.spec.retry.as_ref(), plan.retry.as_ref());
            let mut run = AttemptRun {
                number: made + 1,
                started_at: began_at,
                timings,
                status,
                error: None,
                decision: AttemptDecision::Succeeded,
                reason: None,
                retry_at: None,
                input: None,
                output: None,
            };
            let error = match result {
                Ok(answer) => {
                    log.push(run);
                    return Called { result: Ok(answer), retry_after: None, request: input, attempts: log };
                }
                Err(error) => error,
            };
            let now = clock.now();
            let attempts = Attempts { made: made + 1, first_at };
            let Verdict { error, retry_at: at, reason } = judge(error, outcome, &policy, plan.effect, attempts, now);
            let wait = at.map(|at| at.since(now));
            let is_waited = wait.is_some_and(|wait| wait <= *waits);
            run.error = Some(error.clone());
            run.decision = if is_waited { AttemptDecision::Retry } else { AttemptDecision::Stop };
            run.retry_at = at.filter(|_| is_waited);
            run.reason = reason.or_else(|| {
                let wait = wait.filter(|_| !is_waited)?;
                Some(format!("the next attempt would be in {} s, and nobody waits so long", wait.as_secs()))
            });
            run.keep(input.clone().filter(|_| is_waited), output);
            log.push(run);
            match wait {
                Some(wait) if is_waited => {
                    tokio::time::sleep(wait).await;
                    *waits = waits.saturating_sub(wait);
                }
                wait => return Called { result: Err(error), retry_after: wait, request: input, attempts: log },
            }
        }
    }

    /// Waits for a turn, at most for `waits`. That an API is down is told as soon as it is known to last: a breaker's
    /// next probe is no answer to somebody who waits for one.
    async fn turn(&self, is_retry: bool, waits: Duration) -> Result<Pass, PutOff> {
        let gate = self.engine.traffic.gate(
            self.connection,
            self.way.spec.traffic(self.way.row.unwrap_or_default()),
            self.snapshot.revision,
        );
        let deadline = Instant::now() + waits;
        let mut is_returning = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let ask =
                Ask { patience: limits::TURN_PATIENCE.min(left), is_retry, is_returning, stays: Stays::AtMost(left) };
            match gate.enter(ask).await {
                Err(PutOff { why: why @ Why::Open { .. }, after }) => return Err(PutOff { why, after }),
                Err(put_off) if Instant::now() + put_off.after <= deadline => {
                    tokio::time::sleep(put_off.after).await;
                    is_returning = true;
                }
                turn => return turn,
            }
        }
    }
}

/// What somebody is told whose request was put off after so many attempts.
fn put_off_words(connection: &Name, PutOff { after, why }: &PutOff, made: u32) -> String {
    let sent = match made {
        0 => "nothing was sent".to_owned(),
        1 => "no further attempt was made after the first".to_owned(),
        made => format!("no further attempt was made after {made}"),
    };
    let seconds = after.as_millis().div_ceil(1_000).max(1);
    let when = units::Duration::from_secs(u32::try_from(seconds).unwrap_or(u32::MAX).into());
    let next = if matches!(why, Why::Open { .. }) { "the breaker lets a request try" } else { "its turn comes" };
    format!(
        "connection `{connection}`: {why}; {sent}; {next} in {when}: ask again then, or look at `linkspan connections \
         show {connection}`"
    )
}

fn idempotency_key() -> Option<HeaderValue> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    HeaderValue::from_str(&hex::encode(bytes)).ok()
}
