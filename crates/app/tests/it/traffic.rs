//! How a connection treats the API it calls: rates, what the API asks for, breakers, retries, and their records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use crate::harness::{Options, Reply, Server, Upstream, eventually, open_endpoint};

/// A server with an endpoint `in`, a recipe `tell` of one GET, and a connection `desk` with these lines.
fn server_with(upstream: &Upstream, lines: &[&str]) -> (Server, String) {
    let server = Server::start(&Options::egress());
    server.apply(&documents(upstream, lines));
    let path = server.path_of("in");
    (server, path)
}

fn documents(upstream: &Upstream, lines: &[&str]) -> String {
    let recipe = "kind: recipe
name: tell
spec:
  trigger: {webhook: {endpoint: in}}
  steps:
    - id: tell
      request: {connection: desk, method: GET, path: /}
";
    let mut connection = format!("kind: connection\nname: desk\nspec:\n  base_url: {}\n", upstream.url());
    for line in lines {
        connection += &format!("  {line}\n");
    }
    [open_endpoint("in"), connection, recipe.to_owned()].join("---\n")
}

fn traffic(server: &Server) -> Value {
    server.data("/api/v1/connections/desk")["status"]["traffic"].clone()
}

/// The job that an event started, once it waits.
fn put_off(server: &Server, event: &str) -> Value {
    server.job_when("tell", |job| job["event"] == event && job["status"] == "waiting")
}

#[test]
fn rate_puts_a_job_off_without_an_attempt_and_outlives_an_apply() {
    let upstream = Upstream::ok();
    let (server, path) = server_with(&upstream, &["rate: {limit: 1, per: 7s}"]);
    assert_eq!(server.job_of(&server.accept(&path, &json!({})))["status"], "succeeded");
    server.apply(&open_endpoint("other"));
    let event = server.accept(&path, &json!({}));
    let job = put_off(&server, &event);
    let step = &job["steps"][0];
    assert_eq!((&step["status"], &step["attempts"], &step["input"]), (&json!("waiting"), &json!(0), &Value::Null));
    assert_eq!(step["error"]["code"], "connection.rate");
    assert_eq!(step["error"]["description"], "connection `desk`: its rate of 1 per 7s is used up");
    assert!(step["retry_at"].is_string() && step["attempt_log"].is_null(), "{step:#}");
    assert_eq!((upstream.seen().len(), traffic(&server)["rate_used"].as_u64()), (1, Some(1)));
    let job = server.job_of(&event);
    assert_eq!((&job["status"], &job["steps"][0]["attempts"]), (&json!("succeeded"), &json!(1)));
    assert_eq!(job["steps"][0]["error"], Value::Null);
    assert!(server.get("/metrics").text().contains("linkspan_steps_put_off_total 1"));
}

#[test]
fn what_a_success_says_of_its_limit_holds_the_next_request() {
    let upstream = Upstream::start(|_, _| {
        Reply::Raw(200, "X-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 600\r\n", b"ok".to_vec())
    });
    let (server, path) = server_with(&upstream, &[]);
    assert_eq!(server.job_of(&server.accept(&path, &json!({})))["status"], "succeeded");
    let status = traffic(&server);
    assert_eq!(status["waits_by"], "X-RateLimit-Reset");
    let job = put_off(&server, &server.accept(&path, &json!({})));
    assert_eq!(job["steps"][0]["error"]["code"], "connection.asked_to_wait");
    assert_eq!(upstream.seen().len(), 1);
    // A connection that is told not to listen forgets it.
    server.apply(&documents(&upstream, &["rate: {learn: false}"]));
    assert_eq!(server.job_of(&server.accept(&path, &json!({})))["status"], "succeeded");
}

#[test]
fn breaker_opens_holds_jobs_and_closes_after_a_probe() {
    let status = Arc::new(AtomicU16::new(500));
    let replied = Arc::clone(&status);
    let upstream = Upstream::start(move |_, _| Reply::Json(replied.load(Ordering::Relaxed), json!({})));
    let lines = ["breaker: {open_after: 2, probe_after: 7s}", "retry: {tries: 1}"];
    let (server, path) = server_with(&upstream, &lines);
    for _ in 0..2 {
        let job = server.job_of(&server.accept(&path, &json!({})));
        assert_eq!(job["status"], "failed");
        let said = job["steps"][0]["error"]["description"].as_str().unwrap().to_owned();
        assert!(said.ends_with("; not repeated: attempts made: 1, as many as are allowed"), "{said}");
    }
    let event = server.accept(&path, &json!({}));
    let job = put_off(&server, &event);
    let error = &job["steps"][0]["error"];
    assert_eq!(error["code"], "connection.breaker_open");
    let said = "connection `desk`: its breaker is open after 2 failures in a row, the last one: the API answered 500";
    assert_eq!(error["description"], said);
    assert_eq!(job["steps"][0]["attempts"], 0);
    let stands = traffic(&server);
    assert_eq!((&stands["breaker"], &stands["failures"]), (&json!("open"), &json!(2)));
    assert!(stands["probe_at"].is_string(), "{stands:#}");
    assert!(server.get("/metrics").text().contains("linkspan_breakers_open 1"));

    status.store(200, Ordering::Relaxed);
    assert_eq!(server.job_of(&event)["status"], "succeeded");
    assert_eq!(traffic(&server)["breaker"], "closed");
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn every_attempt_is_recorded_with_what_followed() {
    let upstream = Upstream::start(|n, _| match n {
        0 => Reply::Json(503, json!({"n": 0})),
        1 => Reply::Json(409, json!({"n": "1".repeat(5_000)})),
        _ => Reply::Json(404, json!({"n": 2})),
    });
    let retry = "retry: {tries: 4, backoff: {from: 1ms, to: 5ms}, statuses: [409, 5xx]}";
    let (server, path) = server_with(&upstream, &[retry]);
    let job = server.job_of(&server.accept(&path, &json!({})));
    let step = &job["steps"][0];
    assert_eq!((&step["status"], &step["attempts"]), (&json!("failed"), &json!(3)));
    let log = step["attempt_log"].as_array().unwrap();
    // What was sent and what came: of the last attempt beside the list, of the others in it.
    assert_eq!(log[0]["input"], step["input"]);
    assert_eq!((&log[0]["output"]["status"], &log[0]["output"]["body"]), (&json!(503), &json!({"n": 0})));
    assert_eq!((&log[1]["output"]["status"], &log[1]["output"]["body"]), (&json!(409), &json!({"cut": true})));
    assert_eq!((&step["output"]["body"], &log[2].get("output")), (&json!({"n": 2}), &None));
    let lines: Vec<_> = log
        .iter()
        .map(|attempt| {
            let fields = ["number", "status", "decision", "reason"].map(|field| attempt[field].to_string());
            format!("{} {}", fields.join(" "), attempt["error"]["code"])
        })
        .collect();
    assert_eq!(
        lines,
        [
            r#"1 503 "retry" null "response.status""#,
            r#"2 409 "retry" null "response.status""#,
            r#"3 404 "stop" "the answer is final" "response.status""#,
        ]
    );
    assert!(log.iter().all(|attempt| attempt["timings"]["total_us"].as_u64() > Some(0)), "{log:#?}");
    assert!(log[0]["timings"]["connect_us"].is_u64() && log[0]["retry_at"].is_string());
    let shown = server.cli(&["jobs", "show", job["id"].as_str().unwrap()]).success();
    let attempts: Vec<_> = shown.lines().filter(|line| line.starts_with("  attempt ")).collect();
    assert_eq!(attempts.len(), 3, "{shown}");
    assert!(attempts[0].contains("  503  response.status  connect ") && attempts[0].contains("  again at "), "{shown}");
    assert!(attempts[2].ends_with("  not repeated: the answer is final"), "{shown}");
}

#[test]
fn settings_that_cannot_be_kept_are_refused() {
    let upstream = Upstream::ok();
    let server = Server::start(&Options::egress());
    let lines = ["rate: {limit: 5}", "breaker: {open_after: 0}", "limits: {concurrency: 0}", "retry: {tries: 21}"];
    let file = server.folder().join("wrong.yaml");
    std::fs::write(&file, documents(&upstream, &lines)).unwrap();
    let said = server.cli(&["apply", "-f", file.to_str().unwrap()]).failure(5);
    for path in ["spec.rate", "spec.breaker.open_after", "spec.limits.concurrency", "spec.retry.tries"] {
        assert!(said.contains(path), "{path}: {said}");
    }
}

#[test]
fn connection_that_was_removed_begins_anew() {
    let upstream = Upstream::start(|_, _| Reply::Json(500, json!({})));
    let (server, path) = server_with(&upstream, &["breaker: {open_after: 1, probe_after: 10m}", "retry: {tries: 1}"]);
    server.accept(&path, &json!({}));
    eventually("the breaker opens", || (traffic(&server)["breaker"] == "open").then_some(()));
    for kind in ["recipes/tell", "connections/desk"] {
        assert_eq!(server.api("DELETE", &format!("/api/v1/{kind}"), None).status, 204);
    }
    // Nothing tells when it is forgotten but that it is; nobody reads the metrics meanwhile.
    eventually("what was counted is forgotten", || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        server.apply(&documents(&upstream, &["breaker: {open_after: 1, probe_after: 10m}", "retry: {tries: 1}"]));
        let breaker = traffic(&server)["breaker"].clone();
        for kind in ["recipes/tell", "connections/desk"] {
            assert_eq!(server.api("DELETE", &format!("/api/v1/{kind}"), None).status, 204);
        }
        (breaker == "closed").then_some(())
    });
}
