//! Gates under a clock that stands still until everybody waits.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use linkspan_model::JsonText;
use linkspan_model::request::Timings;

use super::*;
use crate::error::{SendError, SendErrorKind};

const WALL: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn settings() -> TrafficSettings {
    TrafficSettings::new(None, None, None, None)
}

fn name() -> Name {
    "desk".parse().unwrap()
}

fn gate(settings: TrafficSettings) -> Arc<Gate> {
    Traffic::default().gate(&name(), settings, 1)
}

fn first() -> Ask {
    Ask { patience: s(5), is_retry: false, is_returning: false, stays: Stays::Always }
}

fn sent() -> JsonText {
    JsonText::of("GET http://a.test/").unwrap()
}

fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Result<Exchange, Box<Failed>> {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    Ok(Exchange {
        sent: sent(),
        status: StatusCode::from_u16(status).unwrap(),
        headers,
        body: Bytes::new(),
        undecoded: None,
        requests: 1,
        timings: Timings::default(),
    })
}

fn failure(kind: SendErrorKind) -> Result<Exchange, Box<Failed>> {
    Err(Box::new(Failed { error: SendError::new(kind, "a.test".to_owned(), 0), sent: sent() }))
}

fn refused() -> Result<Exchange, Box<Failed>> {
    failure(SendErrorKind::Connect("connection refused".to_owned()))
}

async fn send(gate: &Arc<Gate>, came: &Result<Exchange, Box<Failed>>) -> Result<(), PutOff> {
    gate.enter(first()).await?.ended(came, WALL);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn waits_a_little_for_the_rate_and_puts_off_beyond() {
    let gate = gate(TrafficSettings { rate: Some((2, s(4))), ..settings() });
    let began = Instant::now();
    let mut turns = Vec::new();
    for _ in 0..4 {
        send(&gate, &answer(200, &[])).await.unwrap();
        turns.push(began.elapsed().as_secs());
    }
    assert_eq!(turns, [0, 0, 4, 4]);
    let hasty = Ask { patience: s(1), ..first() };
    let off = gate.enter(hasty).await.unwrap_err();
    assert_eq!((off.after, off.why.code()), (s(4), "connection.rate"));
    assert_eq!(off.why.to_string(), "its rate of 2 per 4s is used up");
    assert_eq!(gate.enter(hasty).await.unwrap_err().after, s(6));
    // Who was put off goes before who comes now.
    tokio::time::sleep(s(4)).await;
    assert_eq!(gate.enter(hasty).await.unwrap_err().why.code(), "connection.rate");
    let pass = gate.enter(Ask { is_returning: true, ..hasty }).await.unwrap();
    assert_eq!(gate.status(WALL).in_flight, 1);
    drop(pass);
    assert_eq!(gate.status(WALL).rate_used, Some(1));
}

#[tokio::test(start_paused = true)]
async fn bounds_requests_under_way_in_the_order_of_arrival() {
    let gate = gate(TrafficSettings { concurrency: Some(1), ..settings() });
    let held = gate.enter(first()).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..3 {
        let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
        callers.spawn(async move {
            let _pass = gate.enter(first()).await.unwrap();
            order.lock().unwrap().push(n);
        });
        tokio::task::yield_now().await;
    }
    assert_eq!(gate.status(WALL).waiting, 3);
    tokio::time::sleep(s(1)).await;
    held.ended(&answer(200, &[]), WALL);
    callers.join_all().await;
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);

    let _held = gate.enter(first()).await.unwrap();
    let began = Instant::now();
    let off = gate.enter(first()).await.unwrap_err();
    assert_eq!((began.elapsed(), off.why), (s(5), Why::Busy { most: 1 }));
}

#[tokio::test(start_paused = true)]
async fn few_wait_at_one_gate() {
    let gate = gate(TrafficSettings { concurrency: Some(1), ..settings() });
    let _held = gate.enter(first()).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let gate = Arc::clone(&gate);
        callers.spawn(async move {
            let began = Instant::now();
            let off = gate.enter(first()).await.unwrap_err();
            (began.elapsed(), off.after)
        });
    }
    let mut ended = callers.join_all().await;
    ended.sort();
    assert_eq!(ended.iter().filter(|(waited, _)| waited.is_zero()).count(), 100 - 16);
    // They do not come back together.
    assert!(ended[83].1 > s(5), "{:?}", ended[83]);
}

#[tokio::test(start_paused = true)]
async fn what_an_api_asks_for_holds_the_next_request() {
    let gate = gate(settings());
    send(&gate, &answer(200, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "60")])).await.unwrap();
    let off = send(&gate, &answer(200, &[])).await.unwrap_err();
    assert_eq!((off.after, off.why.to_string()), (s(60), "the API asked to wait (X-RateLimit-Reset)".to_owned()));
    let status = gate.status(WALL);
    assert_eq!(status.waits_until, Some(WALL.after(s(60))));
    tokio::time::sleep(s(60)).await;
    send(&gate, &answer(429, &[("retry-after", "3")])).await.unwrap();
    let began = Instant::now();
    send(&gate, &answer(200, &[])).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 3);
    assert_eq!(gate.status(WALL).waits_until, None);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_comes_back_is_tried_with_more_and_more_requests() {
    let gate = gate(TrafficSettings { breaker: Some((1, s(30))), ..settings() });
    send(&gate, &refused()).await.unwrap();
    assert_eq!(send(&gate, &answer(200, &[])).await.unwrap_err().why.code(), "connection.breaker_open");
    assert_eq!(gate.room(), 0);
    tokio::time::sleep(s(30)).await;
    send(&gate, &answer(200, &[])).await.unwrap();
    let hurried = Ask { patience: Duration::ZERO, ..first() };
    let mut most = Vec::new();
    for _ in 0..7 {
        let mut passes = Vec::new();
        while let Ok(pass) = gate.enter(hurried).await {
            passes.push(pass);
            if passes.len() > 100 {
                break;
            }
        }
        most.push(passes.len());
        passes.into_iter().for_each(|pass| pass.ended(&answer(200, &[]), WALL));
    }
    // Twice as many each time, and then no bound.
    assert_eq!(most, [2, 4, 8, 16, 32, 64, 101]);
    assert!(gate.is_calm.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn whoever_was_put_off_is_known_until_nobody_is_left() {
    let traffic = Traffic::default();
    let gate = traffic.gate(&name(), TrafficSettings { breaker: Some((1, s(30))), ..settings() }, 1);
    send(&gate, &refused()).await.unwrap();
    assert!(traffic.lines().is_empty());
    send(&gate, &answer(200, &[])).await.unwrap_err();
    timeout(s(1), traffic.line_begun()).await.unwrap();
    assert_eq!(traffic.lines().iter().map(|(_, room)| *room).collect::<Vec<_>>(), [0]);
    tokio::time::sleep(s(30)).await;
    send(&gate, &answer(200, &[])).await.unwrap();
    assert_eq!(traffic.lines()[0].1, RAMP_FROM);
    gate.end_line();
    assert!(traffic.lines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_connection_does_not_hold_every_worker() {
    let gate = gate(settings());
    let mut passes = Vec::new();
    for _ in 0..64 {
        passes.push(gate.enter(first()).await.unwrap());
    }
    assert_eq!(gate.check_share(64).unwrap_err().why, Why::Busy { most: 64 });
    assert!(gate.check_share(65).is_ok());
    drop(passes);
    assert!(gate.check_share(64).is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_one_server_asked_for_says_nothing_of_another() {
    let traffic = Traffic::default();
    let settings = TrafficSettings { rate: Some((5, s(3_600))), breaker: Some((1, s(30))), ..settings() };
    let gate = traffic.gate(&name(), settings, 1);
    send(&gate, &answer(429, &[("retry-after", "21600")])).await.unwrap();
    send(&gate, &answer(200, &[])).await.unwrap_err();
    let same = traffic.gate(&name(), TrafficSettings { budget: Some(7), ..settings }, 2);
    send(&same, &answer(200, &[])).await.unwrap_err();
    let other = traffic.gate(&name(), TrafficSettings { target: 1, ..settings }, 3);
    send(&other, &answer(200, &[])).await.unwrap();
    // What it has sent counts on: the rate is the connection's own.
    assert_eq!(other.status(WALL).rate_used, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_learn_does_not_wait() {
    let gate = gate(TrafficSettings { learn: false, ..settings() });
    send(&gate, &answer(503, &[("retry-after", "600")])).await.unwrap();
    send(&gate, &answer(200, &[])).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn opens_after_failures_and_closes_after_a_probe() {
    let gate = gate(TrafficSettings { breaker: Some((3, s(30))), ..settings() });
    send(&gate, &refused()).await.unwrap();
    send(&gate, &answer(500, &[])).await.unwrap();
    // A 4xx shows that the server is there.
    send(&gate, &answer(404, &[])).await.unwrap();
    assert_eq!(gate.status(WALL).failures, 0);
    for _ in 0..3 {
        send(&gate, &refused()).await.unwrap();
    }
    let off = send(&gate, &answer(200, &[])).await.unwrap_err();
    assert_eq!((off.after, off.why.code()), (s(30), "connection.breaker_open"));
    let words = off.why.to_string();
    assert!(
        words.starts_with("its breaker is open after 3 failures in a row, the last one: cannot connect"),
        "{words}"
    );
    assert_eq!(gate.status(WALL).breaker, "open");

    tokio::time::sleep(s(30)).await;
    let probe = gate.enter(first()).await.unwrap();
    assert_eq!(gate.status(WALL).breaker, "probing");
    // Who comes meanwhile waits for what the probe brings.
    let mut waiting = tokio::task::JoinSet::new();
    waiting.spawn({
        let gate = Arc::clone(&gate);
        async move { send(&gate, &answer(200, &[])).await }
    });
    tokio::time::sleep(s(1)).await;
    probe.ended(&answer(200, &[]), WALL);
    waiting.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(gate.status(WALL).breaker, "closed");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_says_nothing_leaves_its_place_to_the_next() {
    let gate = gate(TrafficSettings { breaker: Some((1, s(30))), ..settings() });
    send(&gate, &refused()).await.unwrap();
    tokio::time::sleep(s(30)).await;
    drop(gate.enter(first()).await.unwrap());
    let redirect = failure(SendErrorKind::Redirect("it leads to another origin".to_owned()));
    gate.enter(first()).await.unwrap().ended(&redirect, WALL);
    send(&gate, &answer(200, &[])).await.unwrap();
    assert_eq!(gate.status(WALL).breaker, "closed");
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_their_budget_and_first_attempts_earn_it() {
    let gate = gate(TrafficSettings { budget: Some(20), breaker: None, ..settings() });
    let retry = Ask { is_retry: true, ..first() };
    for _ in 0..50 {
        gate.enter(retry).await.unwrap().ended(&answer(503, &[]), WALL);
    }
    let off = gate.enter(retry).await.unwrap_err();
    assert!(off.after >= s(6), "{off:?}");
    assert_eq!(off.why.code(), "connection.retry_budget");
    for _ in 0..5 {
        send(&gate, &answer(503, &[])).await.unwrap();
    }
    gate.enter(retry).await.unwrap().ended(&answer(503, &[]), WALL);
    assert!(gate.enter(retry).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_gate_outlives_changes_of_the_configuration() {
    let traffic = Traffic::default();
    let limited = TrafficSettings { rate: Some((1, s(3_600))), breaker: Some((1, s(30))), ..settings() };
    let gate = traffic.gate(&name(), limited, 1);
    send(&gate, &refused()).await.unwrap();
    assert!(Arc::ptr_eq(&gate, &traffic.gate(&name(), limited, 2)));
    // Without the breaker the rate goes on counting.
    let changed = traffic.gate(&name(), TrafficSettings { breaker: None, ..limited }, 3);
    assert_eq!(send(&changed, &answer(200, &[])).await.unwrap_err().why.code(), "connection.rate");
    // A job that began before the change gets what holds now.
    assert!(Arc::ptr_eq(&changed, &traffic.gate(&name(), limited, 2)));
    let new = traffic.gate(&name(), TrafficSettings { rate: Some((2, s(3_600))), ..limited }, 4);
    assert_eq!(new.status(WALL).rate_used, Some(0));
}

#[tokio::test(start_paused = true)]
#[expect(clippy::await_holding_lock, reason = "that it is held is the test")]
async fn what_is_not_configured_takes_no_lock() {
    let gate = gate(settings());
    let locked = gate.state.lock().unwrap();
    let pass = gate.enter(first());
    let pass = timeout(s(1), pass).await.unwrap().unwrap();
    pass.ended(&answer(200, &[]), WALL);
    drop(locked);
}

#[tokio::test(start_paused = true)]
async fn requests_that_were_repeated_count_for_the_rate() {
    let gate = gate(TrafficSettings { rate: Some((4, s(10))), ..settings() });
    for _ in 0..2 {
        send(&gate, &answer(200, &[]).map(|exchange| exchange.after(1))).await.unwrap();
    }
    let off = gate.enter(first()).await.unwrap_err();
    assert!(matches!(off.why, Why::Rate { .. }), "{off:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_come_back_keeps_no_place_in_the_line() {
    let gone = Ask { patience: Duration::ZERO, stays: Stays::AtMost(s(40)), ..first() };
    let rated = gate(TrafficSettings { rate: Some((1, s(60))), ..settings() });
    send(&rated, &answer(200, &[])).await.unwrap();
    for _ in 0..3 {
        assert_eq!(rated.enter(gone).await.unwrap_err().after, s(60));
    }
    assert_eq!(rated.enter(first()).await.unwrap_err().after, s(60));
    assert_eq!(rated.enter(gone).await.unwrap_err().after, s(120));

    let broken = gate(TrafficSettings { breaker: Some((1, s(30))), ..settings() });
    send(&broken, &refused()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(broken.enter(gone).await.unwrap_err().after, s(30));
    }
    assert!(!broken.has_line.load(Ordering::Acquire));
    assert_eq!(broken.enter(first()).await.unwrap_err().after, s(30));
    assert!(broken.has_line.load(Ordering::Acquire));
}
