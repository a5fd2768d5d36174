//! Outgoing requests as recipes send them: through the address guard, with an account's credentials, in the turn
//! that rate, bound and breaker of a connection give, and with the record that a job's history keeps.
//!
//! `door URL SECONDS IN_FLIGHT [read]` sends GET requests, reads their answers, and prints how many it were; with `read`
//! each answer becomes data too, as the steps after it want it.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use linkspan_model::request::RequestSpec;
use linkspan_model::response::{self, Answer};
use linkspan_model::traffic::TrafficSettings;
use linkspan_model::{SecretBytes, Timestamp, limits};
use linkspan_outbound::{Ask, Credentials, Exchange, Gate, Outbound, Policy, ReadBody, SendOptions, Stays, Traffic};
use tokio::task::JoinSet;
use url::Url;

/// As the product has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url: Url = arguments.next().and_then(|url| url.parse().ok()).expect("a URL comes first");
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).expect("then how many seconds");
    let in_flight: u32 = arguments.next().and_then(|number| number.parse().ok()).expect("then how many in flight");
    let is_read = arguments.next().is_some();

    let allowance = format!("127.0.0.1/32:{}", url.port().expect("the URL has a port"));
    let policy = Policy::new(vec![allowance.parse().expect("an allowance")], Vec::new());
    let outbound = Outbound::new(policy);
    let user = SecretBytes::new("bench-user").into();
    let credentials = Arc::new(Credentials::basic(&user, &SecretBytes::new("bench-password").into()).expect("ASCII"));
    let settings = TrafficSettings {
        // Kept, and out of reach: a fast machine sends more than a connection's limit in a second.
        rate: Some((limits::RATE_LIMIT_MAX, Duration::from_millis(100))),
        concurrency: Some(in_flight),
        ..TrafficSettings::new(None, None, None, None)
    };
    let gate = Traffic::default().gate(&"bench".parse().expect("a name"), settings, 1);

    let answered = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let (outbound, credentials, gate) = (outbound.clone(), Arc::clone(&credentials), Arc::clone(&gate));
        let (url, answered) = (url.clone(), Arc::clone(&answered));
        callers.spawn(async move {
            while Instant::now() < end {
                let exchange = send(&outbound, &credentials, &gate, url.clone()).await;
                record(&exchange, &credentials, is_read);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    callers.join_all().await;
    report(answered.load(Ordering::Relaxed), began.elapsed());
}

async fn send(outbound: &Outbound, credentials: &Credentials, gate: &Arc<Gate>, url: Url) -> Exchange {
    let ask = Ask { patience: limits::TURN_PATIENCE, is_retry: false, is_returning: false, stays: Stays::Always };
    let pass = gate.enter(ask).await.expect("a turn comes");
    let request = RequestSpec { method: http::Method::GET, url, headers: Vec::new(), body: Bytes::new() };
    let came = outbound.send(request, credentials, &SendOptions::default()).await;
    pass.ended(&came, Timestamp::default());
    let exchange = came.expect("the server answers");
    assert!(exchange.status.is_success(), "{}", exchange.status);
    exchange
}

/// What a job's record holds of an exchange; of the request it is made already.
fn record(exchange: &Exchange, credentials: &Credentials, is_read: bool) {
    if !is_read {
        black_box((exchange.received(None, credentials), &exchange.sent));
        return;
    }
    let content_type = exchange.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let answer = Answer { status: exchange.status.as_u16(), content_type, packed: None, body: &exchange.body };
    let value = response::read(None, answer).expect("any answer is something");
    let read = ReadBody { value: &value, json: response::json_text(None, answer, &value) };
    black_box((exchange.received(Some(read), credentials), &exchange.sent, value));
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn report(answered: u64, took: Duration) {
    println!("{answered} {}", took.as_secs_f64());
}
