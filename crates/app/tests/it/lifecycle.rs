//! Starting, draining, being killed, and starting again.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{
    Options, Reply, Server, Upstream, Wire, connection, eventually, open_endpoint, raw, request, request_bytes,
};

const RECIPE: &str = "---
kind: recipe
name: tell
spec:
  trigger: {webhook: {endpoint: in}}
  steps:
    - id: first
      request: {connection: desk, method: POST, path: /first, json: {n: '{{ trigger.body.n }}'}}
    - id: second
      request: {connection: desk, method: POST, path: /second, json: {n: '{{ trigger.body.n }}'}}
";

fn documents(upstream: &Upstream) -> String {
    [open_endpoint("in"), connection("desk", &upstream.url())].join("---\n") + RECIPE
}

#[test]
fn termination_lets_requests_finish_and_ends_with_0() {
    let mut server = Server::start(&Options::default());
    server.apply(&open_endpoint("in"));
    let path = server.path_of("in");
    let mut wire = Wire::open(server.public);
    wire.write(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(wire.response().unwrap().status, 100);
    server.signal(Signal::TERM);
    eventually("the log says so", || server.log().contains("draining").then_some(()));
    wire.write("{}");
    assert_eq!(wire.response().expect("a request under way is answered").status, 202);
    assert_eq!(wire.rest(), b"");
    assert_eq!(server.wait(), Some(0));

    let server = server.restart(&Options::default());
    assert_eq!(server.data("/api/v1/events")[0]["body"], "{}");
}

#[test]
fn job_under_way_still_reaches_endpoints_of_a_server_that_ends() {
    let barrier = Arc::new(Barrier::new(2));
    let gate = Arc::clone(&barrier);
    let upstream = Upstream::start(move |_, _| Reply::At(Arc::clone(&gate)));
    let mut server = Server::start(&Options::egress());
    let own = "kind: connection\nname: own\nspec: {endpoint: out}\n".to_owned();
    let recipe = RECIPE.replacen(
        "connection: desk, method: POST, path: /second",
        "connection: own, method: POST, path: /told",
        1,
    );
    server.apply(
        &([open_endpoint("in"), open_endpoint("out"), connection("desk", &upstream.url()), own].join("---\n")
            + &recipe),
    );
    let event = server.accept(&server.path_of("in"), &json!({"n": 1}));
    upstream.wait_for(1);
    server.signal(Signal::TERM);
    eventually("the log says so", || server.log().contains("draining").then_some(()));
    barrier.wait();
    assert_eq!(server.wait(), Some(0));

    let server = server.restart(&Options::egress());
    let job = server.job_of(&event);
    assert_eq!((&job["status"], &job["steps"][1]["attempts"]), (&json!("succeeded"), &json!(1)), "{job:#}");
    // Listed by endpoint once dispatch has looked at it.
    server.dispatched();
    assert_eq!(server.data("/api/v1/events?endpoint=out")[0]["body"], r#"{"n":1}"#);
}

#[test]
fn a_crash_leaves_no_core_dump() {
    let core = |server: &Server| {
        let limits = server.proc("limits");
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        line.split_whitespace().skip(4).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let allowing = Server::start(&Options::default().env("LINKSPAN_CORE_DUMPS", "true"));
    let inherited = std::fs::read_to_string("/proc/self/limits").unwrap();
    assert!(inherited.contains("Max core file size"));
    let own = inherited.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core(&allowing), own.split_whitespace().skip(4).take(2).collect::<Vec<_>>());
    let mut server = Server::start(&Options::default());
    assert_eq!(core(&server), ["0", "0"]);
    server.signal(Signal::ABORT);
    assert!(!server.leaves_core_dump());
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let mut server = Server::start(&Options::default());
    server.apply(&open_endpoint("in"));
    let mut idle = Wire::open(server.public);
    idle.write(request_bytes(server.public, "POST", &server.path_of("in"), &[], b"{}"));
    assert_eq!(idle.response().unwrap().status, 202);
    let _silent = Wire::open(server.public);
    let began = std::time::Instant::now();
    server.signal(Signal::INT);
    assert_eq!(server.wait(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn draining_server_is_not_ready_and_still_accepts_until_its_delay_is_over() {
    let mut server = Server::start(&Options::default().flag("--drain-delay", "10s"));
    server.apply(&open_endpoint("in"));
    let path = server.path_of("in");
    assert_eq!(request(server.operator, "GET", "/readyz", &[], b"").status, 200);
    server.signal(Signal::TERM);
    let answer = eventually("it is not ready", || {
        Some(request(server.operator, "GET", "/readyz", &[], b"")).filter(|answer| answer.status == 503)
    });
    answer.assert_error(503, "server.not_ready");
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(request(server.operator, "GET", "/livez", &[], b"").status, 200);
    server.accept(&path, &json!({}));
    // A second signal does not wait for the delay.
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn second_server_on_the_same_folder_is_refused() {
    let server = Server::start(&Options::default());
    let second = Server::command(&server.data, &Options::default()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let complaint = String::from_utf8(second.stderr).unwrap();
    assert!(complaint.contains("another") && complaint.contains(server.data.to_str().unwrap()), "{complaint}");
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn address_in_use_is_named_with_the_flag_that_changes_it() {
    let server = Server::start(&Options::default());
    let other = server.folder().join("other");
    let taken = server.public.to_string();
    let output = Server::command(&other, &Options::default().flag("--public", &taken)).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains(&taken) && complaint.contains("--public"), "{complaint}");
}

#[test]
fn restart_keeps_events_jobs_and_urls() {
    let upstream = Upstream::ok();
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream));
    let path = server.path_of("in");
    let id = server.accept(&path, &json!({"n": 1}));
    let job = server.job_of(&id);
    let (event, export) = (server.data(&format!("/api/v1/events/{id}")), server.cli(&["export"]).success());

    let server = server.restart(&Options::egress());
    assert_eq!(server.data(&format!("/api/v1/events/{id}")), event);
    assert_eq!(server.data(&format!("/api/v1/jobs/{}", job["id"].as_str().unwrap())), job);
    assert_eq!(server.cli(&["export"]).success(), export);
    let next = server.accept(&path, &json!({"n": 2}));
    assert!(next > id, "{next} follows {id}");
    assert_eq!(server.job_of(&next)["status"], "succeeded");
    // Nothing was done twice.
    assert_eq!(upstream.seen().len(), 4);
}

#[test]
fn job_killed_in_the_middle_of_a_step_goes_on_with_the_same_key() {
    let upstream = Upstream::start(|n, _| match n {
        1 => Reply::Hang,
        _ => Reply::Json(200, json!({"ok": true})),
    });
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream));
    let event = server.accept(&server.path_of("in"), &json!({"n": 1}));
    upstream.wait_for(2);
    server.signal(Signal::KILL);

    let server = server.restart(&Options::egress());
    let job = server.job_of(&event);
    assert_eq!(job["status"], "succeeded", "{job:#}");
    let seen = upstream.seen();
    let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(targets, ["/first", "/second", "/second"], "a finished step is not run again");
    let key = format!("{}-second", job["id"].as_str().unwrap());
    assert_eq!((seen[1].header("idempotency-key"), seen[2].header("idempotency-key")), (key.as_str(), key.as_str()));
    assert_eq!(job["steps"][1]["resumed"], true, "{job:#}");
    assert_eq!(job["steps"][0].get("resumed"), None);
}

#[test]
fn acknowledged_events_survive_a_kill() {
    let server = Server::start(&Options::default());
    server.apply(&open_endpoint("in"));
    let path = server.path_of("in");
    let bodies = [json!({"n": 1}), json!({"text": "x".repeat(100_000)})];
    let ids: Vec<String> = (0..20).map(|n| server.accept(&path, &bodies[n % 2])).collect();
    server.signal(Signal::KILL);
    let server = server.restart(&Options::default());
    for (n, id) in ids.iter().enumerate() {
        let event = server.data(&format!("/api/v1/events/{id}"));
        let body: serde_json::Value = serde_json::from_str(event["body"].as_str().unwrap()).unwrap();
        assert!(body == bodies[n % 2], "event {n} came back otherwise");
    }
}

#[test]
fn metrics_are_what_a_scraper_reads() {
    let server = Server::start(&Options::default());
    server.apply(&open_endpoint("in"));
    let path = server.path_of("in");
    server.accept(&path, &json!({}));
    server.post(&path, &[], "nonsense").assert_error(400, "body.malformed");
    server.dispatched();
    let answer = request(server.operator, "GET", "/metrics", &[], b"");
    assert!(answer.header("content-type").starts_with("text/plain"), "{answer:?}");
    let text = answer.text();
    let mut names = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("linkspan_") && name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{line}");
        names.push(name);
    }
    for wanted in ["linkspan_store_events_total", "linkspan_disk_free_bytes", "linkspan_jobs", "linkspan_rss_bytes"] {
        assert!(names.contains(&wanted), "{wanted} is missing:\n{text}");
    }
    assert!(text.contains("linkspan_ingest_requests_total{code=\"202\"} 1\n"), "{text}");
    assert!(text.contains("linkspan_refusals_total{cause=\"body.malformed\"} 1\n"), "{text}");
}

#[test]
fn hangup_reads_secrets_outside_the_database_again() {
    let server = Server::start(&Options::default());
    std::fs::create_dir_all(server.data.join("secrets")).unwrap();
    std::fs::write(server.data.join("secrets/key"), "one\n").unwrap();
    server.apply(
        "kind: secret
name: key
spec: {file: key}
---
kind: endpoint
name: in
spec: {verify: {token: {header: X-Key, secrets: [{secret: key}]}}}
",
    );
    let path = server.path_of("in");
    assert_eq!(server.post(&path, &[("X-Key", "one")], "").status, 202);
    std::fs::write(server.data.join("secrets/key"), "two\n").unwrap();
    server.signal(Signal::HUP);
    eventually("the new token is accepted", || {
        (server.post(&path, &[("X-Key", "two")], "").status == 202).then_some(())
    });
    assert_eq!(server.post(&path, &[("X-Key", "one")], "").status, 401);
}

#[test]
fn asking_for_readiness_costs_hardly_any_commit() {
    let server = Server::start(&Options::default());
    let commits = || -> u64 {
        let metrics = server.get("/metrics").text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("linkspan_store_commits_total "));
        line.unwrap().parse().unwrap()
    };
    let before = commits();
    for _ in 0..100 {
        assert_eq!(request(server.operator, "GET", "/readyz", &[], b"").status, 200);
    }
    let more = commits() - before;
    assert!(more < 20, "100 probes made {more} commits");
}

#[test]
fn limit_of_the_size_of_files_does_not_end_the_process_by_a_signal() {
    let mut server = Server::start(&Options::default());
    server.apply(&open_endpoint("in"));
    let path = server.path_of("in");
    server.limit_files(1 << 20);
    let large = json!({ "text": "x".repeat(60_000) });
    let refused = (0..200).find_map(|_| {
        let request = request_bytes(server.public, "POST", &path, &[], large.to_string().as_bytes());
        match raw(server.public, request) {
            Some(answer) if answer.status == 202 => None,
            answer => Some(answer.map(|answer| answer.status)),
        }
    });
    assert!(matches!(refused, Some(None | Some(503))), "{refused:?}");
    // It ends as it does after any failed write, or goes on where that left nothing in doubt; a signal gives no code.
    if let Some(ended) = server.has_ended() {
        assert_eq!(ended.code(), Some(1), "{ended:?}");
    }
}
