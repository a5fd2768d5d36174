//! The yardstick of outgoing requests: the HTTP library's own client, with nothing around it.
//!
//! `bare-client URL SECONDS IN_FLIGHT` sends GET requests, reads their answers, and prints how many it were.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

/// As the product has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let uri: Uri = arguments.next().and_then(|url| url.parse().ok()).expect("a URL comes first");
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).expect("then how many seconds");
    let in_flight: usize = arguments.next().and_then(|number| number.parse().ok()).expect("then how many in flight");

    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let answered = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let (client, uri, answered) = (client.clone(), uri.clone(), Arc::clone(&answered));
        callers.spawn(async move {
            while Instant::now() < end {
                let request = Request::get(uri.clone()).body(Empty::new()).expect("the parts are valid");
                let answer = client.request(request).await.expect("the server answers");
                assert!(answer.status().is_success(), "{}", answer.status());
                let mut body = answer.into_body();
                while let Some(frame) = body.frame().await {
                    frame.expect("the body is whole");
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    callers.join_all().await;
    report(answered.load(Ordering::Relaxed), began.elapsed());
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn report(answered: u64, took: Duration) {
    println!("{answered} {}", took.as_secs_f64());
}
