//! Callers that take their time, by intent or not: each is cut within its limit, and service goes on.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Options, PATIENCE, Server, Wire, eventually, open_endpoint, request_bytes};

const HEAD: Duration = Duration::from_millis(300);
const IDLE: Duration = Duration::from_millis(400);
const BODY: Duration = Duration::from_millis(900);
const GRACE: Duration = Duration::from_millis(300);

fn server_with(options: Options) -> Server {
    let server = Server::start(
        &options
            .flag("--head-timeout", "300ms")
            .flag("--idle-timeout", "400ms")
            .flag("--body-timeout", "900ms")
            .flag("--body-grace", "300ms"),
    );
    server.apply(&open_endpoint("in"));
    server
}

fn server() -> Server {
    server_with(Options::default())
}

/// Writes `piece` again and again until the other side stops taking it.
fn drip(wire: &mut Wire, piece: &str, pause: Duration) {
    let deadline = Instant::now() + PATIENCE;
    while wire.write(piece) {
        assert!(Instant::now() < deadline, "the drip was never cut");
        // The pace is what this is about.
        std::thread::sleep(pause);
    }
}

/// Checks that what began at `began` ended not before `limit`, and not much later.
#[track_caller]
fn within(began: Instant, limit: Duration) {
    let took = began.elapsed();
    assert!(took + Duration::from_millis(50) >= limit, "cut after {took:?}, before its limit of {limit:?}");
    assert!(took < limit + Duration::from_secs(5), "cut only after {took:?}; its limit is {limit:?}");
}

#[test]
fn connection_without_a_first_byte_is_closed() {
    let server = server();
    let began = Instant::now();
    assert_eq!(Wire::open(server.public).rest(), b"");
    within(began, HEAD);
}

#[test]
fn dripping_head_is_cut() {
    let server = server();
    let mut wire = Wire::open(server.public);
    let began = Instant::now();
    wire.write("POST / HTTP/1.1\r\n");
    drip(&mut wire, "X-A: b\r\n", Duration::from_millis(40));
    within(began, HEAD);
    server.accept(&server.path_of("in"), &json!({}));
}

#[test]
fn idle_connection_is_closed_after_its_last_answer() {
    let server = server();
    let mut wire = Wire::open(server.public);
    wire.write(request_bytes(server.public, "POST", &server.path_of("in"), &[], b"{}"));
    assert_eq!(wire.response().unwrap().status, 202);
    let began = Instant::now();
    assert_eq!(wire.rest(), b"");
    within(began, IDLE);
}

#[test]
fn connection_in_use_outlives_every_limit_of_one_request() {
    let server = server();
    let bytes = request_bytes(server.public, "POST", &server.path_of("in"), &[], b"{}");
    let mut wire = Wire::open(server.public);
    let began = Instant::now();
    while began.elapsed() < 4 * HEAD {
        wire.write(&bytes);
        assert_eq!(wire.response().expect("the connection stays open").status, 202);
        std::thread::sleep(HEAD / 3);
    }
}

#[test]
fn stalled_body_is_answered_and_cut() {
    let server = server();
    let mut wire = Wire::open(server.public);
    let began = Instant::now();
    wire.write(format!("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{{", server.path_of("in")));
    wire.response().expect("an answer").assert_error(408, "body.too_slow");
    within(began, GRACE);
    assert_eq!(wire.rest(), b"");
    let refusal = server.refusal("body.too_slow");
    assert_eq!((&refusal["body"], &refusal["endpoint"]), (&json!("{"), &json!("in")));
}

#[test]
fn stalled_body_of_an_operator_is_answered_and_cut() {
    let server = server();
    let mut wire = Wire::open(server.operator);
    let began = Instant::now();
    let token = &server.token;
    wire.write(format!(
        "POST /api/v1/apply HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 10\r\n\r\n{{"
    ));
    wire.response().expect("an answer").assert_error(408, "body.too_slow");
    within(began, GRACE);
}

#[test]
fn dripping_body_is_cut_however_long_it_goes_on() {
    let server = server();
    let mut wire = Wire::open(server.public);
    let began = Instant::now();
    wire.write(format!("POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", server.path_of("in")));
    drip(&mut wire, "1\r\n1\r\n", Duration::from_millis(30));
    within(began, GRACE);
    server.refusal("body.too_slow");
    assert_eq!(server.data("/api/v1/events"), json!([]));
}

#[test]
fn body_that_is_fast_enough_on_average_still_ends_at_the_whole_limit() {
    let server = server();
    let mut wire = Wire::open(server.public);
    let began = Instant::now();
    wire.write(format!("POST {} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", server.path_of("in")));
    drip(&mut wire, &format!("400\r\n{}\r\n", "1".repeat(1_024)), Duration::from_millis(30));
    within(began, BODY);
    server.refusal("body.too_slow");
}

#[test]
fn caller_that_does_not_read_is_cut() {
    let server = server();
    let mut wire = Wire::open(server.public);
    // So that few answers fill what the system buffers.
    rustix::net::sockopt::set_socket_recv_buffer_size(wire.stream(), 4 << 10).unwrap();
    let many = "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1_000);
    let began = Instant::now();
    while wire.write(&many) {
        assert!(began.elapsed() < PATIENCE, "a caller that never reads was served on and on");
    }
    server.accept(&server.path_of("in"), &json!({}));
}

#[test]
fn many_slow_callers_do_not_hold_up_others() {
    let server = server();
    let mut slow: Vec<Wire> = (0..100).map(|_| Wire::open(server.public)).collect();
    for wire in &mut slow {
        wire.write("POST /webhooks/x HTTP/1.1\r\nX-");
    }
    server.accept(&server.path_of("in"), &json!({}));
    for wire in &mut slow {
        assert_eq!(wire.rest(), b"");
    }
}

#[test]
fn beyond_the_most_connections_the_one_idle_longest_goes() {
    let server = server_with(Options::default().flag("--connections", 3));
    let path = server.path_of("in");
    let bytes = request_bytes(server.public, "POST", &path, &[], b"{}");
    let mut open: Vec<Wire> = (0..3)
        .map(|_| {
            let mut wire = Wire::open(server.public);
            wire.write(&bytes);
            assert_eq!(wire.response().unwrap().status, 202);
            // The listener counts idle time in milliseconds.
            std::thread::sleep(Duration::from_millis(5));
            wire
        })
        .collect();
    server.accept(&path, &json!({"n": 4}));
    let began = Instant::now();
    assert_eq!(open[0].rest(), b"");
    assert!(began.elapsed() < IDLE / 2, "it was closed for idling, not to make room");
    for wire in &mut open[1..] {
        wire.write(&bytes);
        assert_eq!(wire.response().expect("a newer connection stays open").status, 202);
    }
}

#[test]
fn connection_under_way_is_not_closed_to_make_room() {
    let server = server_with(Options::default().flag("--connections", 1));
    let path = server.path_of("in");
    let mut busy = Wire::open(server.public);
    busy.write(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
    // The server asks for the body, so it is at work on this request.
    assert_eq!(busy.response().unwrap().status, 100);
    assert_eq!(Wire::open(server.public).rest(), b"");
    busy.write("{}");
    assert_eq!(busy.response().unwrap().status, 202);
    drop(busy);
    eventually("there is room again", || {
        let mut wire = Wire::open(server.public);
        wire.write(request_bytes(server.public, "POST", &path, &[], b"{}"));
        wire.response().filter(|answer| answer.status == 202)
    });
}
