//! Events on their way into tables.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{Options, Server, repository, run};

#[test]
fn first_hour_table_has_a_row_for_every_event_and_a_column_for_every_key() {
    let examples = repository().join("examples/first-hour");
    let server = Server::start(&Options::egress().flag("--apply", examples.display()));
    let payload = examples.join("payload.json");
    let id = server.cli(&["send", "github", "--file", payload.to_str().unwrap()]).success();
    server.cli(&["syncs", "run", "github-events", "--wait"]).success();
    let table = server.cli_json(&["tables", "show", "github.events"]);
    let rows = table["data"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{table:#}");
    assert_eq!(rows[0]["action"], "opened");
    assert_eq!(rows[0]["_id"], id.trim());
    assert_eq!(rows[0]["_index"], 0);
    assert!(rows[0].get("issue").is_some() && rows[0].get("sender").is_some(), "{table:#}");
}

#[test]
fn second_run_loads_only_what_is_new() {
    let examples = repository().join("examples/first-hour");
    let server = Server::start(&Options::egress().flag("--apply", examples.display()));
    for n in 1..=3 {
        let body = json!({"n": n}).to_string();
        server.cli(&["send", "github", "--body", &body]).success();
        server.cli(&["syncs", "run", "github-events", "--wait"]).success();
        let table = server.cli_json(&["tables", "show", "github.events"]);
        assert_eq!(table["data"]["total"], n, "{table:#}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The most memory that the server had resident at any time, in MiB.
fn peak_memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn hostile_keys_cost_little_memory_and_are_shown() {
    let documents = r#"
kind: endpoint
name: in
spec: {verify: none}
---
kind: destination
name: warehouse
spec: {sqlite: {path: w.db}}
---
kind: sync
name: s
spec: {from: {endpoint: in}, to: {destination: warehouse, schema: public, table: events}}
"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("documents.yaml");
    std::fs::write(&file, documents).unwrap();
    let server = Server::start(&Options::default().flag("--apply", file.display()));
    let path = server.path_of("in");
    for n in 0..20 {
        let body = format!(r#"{{"{}{n}": {n}}}"#, "k".repeat(4_900_000));
        assert_eq!(server.post(&path, &[], body.as_bytes()).status, 202);
    }
    assert_eq!(server.post(&path, &[], br#"{"honest": 1}"#).status, 202);
    server.cli(&["syncs", "run", "s", "--wait"]).success();
    let peak = peak_memory(&server);
    assert!(peak <= 200, "{peak} MiB");
    let status = &server.cli_json(&["syncs", "show", "s"])["data"]["status"];
    assert_eq!((&status["rows"], &status["left_out"], &status["aside"]), (&json!(21), &json!(20), &json!(0)));
    assert_eq!(status["left_out_keys"].as_array().unwrap().len(), 1, "{status:#}");
    let check = server.cli(&["check"]).stdout;
    assert!(check.contains("20 values have no column of their own"), "{check}");
    let table = server.cli_json(&["tables", "show", "public.events", "--cursor", "20"]);
    assert_eq!(table["data"]["rows"][0]["honest"], 1, "{table:#}");
    assert!(peak_memory(&server) <= 200);
}

#[test]
fn dropped_table_is_filled_again_and_a_changed_one_when_asked() {
    let examples = repository().join("examples/first-hour");
    let server = Server::start(&Options::egress().flag("--apply", examples.display()));
    for n in 1..=3 {
        server.cli(&["send", "github", "--body", &json!({"n": n}).to_string()]).success();
    }
    server.cli(&["syncs", "run", "github-events", "--wait"]).success();
    let db = || rusqlite::Connection::open(server.data.join("destinations/warehouse.db")).unwrap();
    db().execute_batch(r#"DROP TABLE "github.events""#).unwrap();
    let run = server.cli(&["syncs", "run", "github-events", "--wait"]);
    assert!(run.stderr.contains("the table was not there; it was filled again"), "{run:?}");
    let total = || server.cli_json(&["tables", "show", "github.events"])["data"]["total"].clone();
    assert_eq!(total(), 3);
    db().execute_batch(r#"DELETE FROM "github.events" WHERE n = 2"#).unwrap();
    server.cli(&["syncs", "run", "github-events", "--wait"]).success();
    assert_eq!(total(), 2);
    server.cli(&["syncs", "resync", "github-events", "--wait"]).success();
    assert_eq!(total(), 3);
}

#[test]
fn table_that_cannot_be_read_says_why_in_time() {
    let examples = repository().join("examples/first-hour");
    let server = Server::start(&Options::egress().flag("--apply", examples.display()));
    server.cli(&["send", "github", "--body", "{}"]).success();
    server.cli(&["syncs", "run", "github-events", "--wait"]).success();
    let file = server.data.join("destinations/warehouse.db");
    let locked = rusqlite::Connection::open(&file).unwrap();
    locked.execute_batch("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE").unwrap();
    let began = std::time::Instant::now();
    for path in ["/api/v1/tables", "/api/v1/tables/github.events"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (503, Some("destination.busy")));
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(8));
    drop(locked);
    std::fs::write(&file, "no database at all, and long enough to be taken for one".repeat(30)).unwrap();
    for path in ["/api/v1/tables", "/api/v1/tables/github.events"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (409, Some("destination.unusable")));
        assert!(answer.json()["error"]["description"].as_str().unwrap().contains("not a database"));
    }
    let check = server.cli(&["check", "--integrity"]);
    assert!(check.code == 1 && check.stdout.contains("destination/warehouse"), "{check:?}");
    std::fs::remove_file(&file).unwrap();
    server.cli(&["syncs", "run", "github-events", "--wait"]).success();
    assert!(server.cli(&["check", "--integrity"]).stdout.contains("it is whole"));
}

#[test]
fn a_restored_server_goes_on_with_everything() {
    let documents = r#"
kind: secret
name: value
spec: {value: s3cret-of-a-restored-server}
---
kind: endpoint
name: in
spec: {verify: {token: {header: X-Key, secrets: [{secret: value}]}}}
---
kind: destination
name: warehouse
spec: {sqlite: {path: w.db}}
---
kind: sync
name: ahead
spec: {from: {endpoint: in}, to: {destination: warehouse, schema: public, table: ahead}}
---
kind: sync
name: behind
spec: {from: {endpoint: in}, to: {destination: warehouse, schema: public, table: behind}}
---
kind: recipe
name: r
spec:
  trigger: {webhook: {endpoint: in}}
  steps: [{id: call, request: {method: GET, url: "http://127.0.0.1:9/"}}]
"#;
    let server = Server::start(&Options::default());
    server.apply(documents);
    let path = server.path_of("in");
    let send = |server: &Server, n: u32| {
        let answer = server.post(&path, &[("X-Key", "s3cret-of-a-restored-server")], json!({"n": n}).to_string());
        assert_eq!(answer.status, 202, "{answer:?}");
    };
    for n in 0..4 {
        send(&server, n);
    }
    server.cli(&["syncs", "run", "ahead", "--wait"]).success();
    server.cli(&["syncs", "run", "behind", "--wait"]).success();
    send(&server, 4);
    server.cli(&["syncs", "run", "ahead", "--wait"]).success();
    let backup = server.cli(&["backup"]);
    assert!(backup.stderr.contains("not in it: key"), "{backup:?}");
    let backup = backup.success().trim().to_owned();
    // What happens afterwards is not in it, and disturbs nothing.
    send(&server, 5);
    server.cli(&["syncs", "run", "behind", "--wait"]).success();

    let no = server.folder().join("no");
    for lost in files(&PathBuf::from(&backup)) {
        let hidden = server.folder().join("hidden");
        std::fs::rename(&lost, &hidden).unwrap();
        let refused = run(&["restore", &backup, "--data", no.to_str().unwrap()], &[]);
        assert!(refused.code == 1 && !no.join("linkspan.db").exists(), "half a backup: {refused:?}");
        std::fs::rename(&hidden, &lost).unwrap();
    }

    let new = server.folder().join("new");
    run(&["restore", &backup, "--data", new.to_str().unwrap()], &[]).success();
    std::fs::copy(server.data.join("key"), new.join("key")).unwrap();
    let mut other = server.beside(&new, &Options::default());
    other.token.clone_from(&server.token);
    assert_eq!(other.data("/api/v1/events").as_array().unwrap().len(), 5);
    assert_eq!(other.data("/api/v1/jobs").as_array().unwrap().len(), 5);
    let tables = ["public.ahead", "public.behind"];
    let totals = |server: &Server| tables.map(|table| server.data(&format!("/api/v1/tables/{table}"))["total"].clone());
    assert_eq!(totals(&other), [json!(5), json!(4)]);
    send(&other, 6);
    for sync in ["ahead", "behind"] {
        other.cli(&["syncs", "run", sync, "--wait"]).success();
        other.cli(&["syncs", "resync", sync, "--wait"]).success();
    }
    assert_eq!(totals(&other), [json!(6), json!(6)]);
    for sync in ["ahead", "behind"] {
        let status = &other.data(&format!("/api/v1/syncs/{sync}"))["status"];
        assert_eq!((&status["error"], &status["aside"]), (&json!(null), &json!(0)), "{status:#}");
    }
    let check = other.cli(&["check"]);
    assert!(!check.stdout.contains("sync/"), "{check:?}");
}
