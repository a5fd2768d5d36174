//! What earlier versions have written is read by this one: `fixtures/data-0.1.0.tar.gz` is a data folder as the binary
//! of 0.1.0 left it, with the documents beside it, two finished jobs, one that waits, a large body and a loaded table.

use std::process::Command;

use serde_json::json;

use crate::harness::{Options, Reply, Server, Upstream, eventually, is_ended, repository};

fn unpacked(into: &std::path::Path) {
    let archive = repository().join("crates/app/tests/fixtures/data-0.1.0.tar.gz");
    let done = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into).arg("--strip-components=1").status();
    assert!(done.unwrap().success());
}

#[test]
fn a_data_folder_of_0_1_0_opens_in_place_with_nothing_lost() {
    let upstream = Upstream::start(|_, _| Reply::Json(200, json!({"id": 8})));
    // What waits is tried again at the start, a long time after its first attempt, and then no more.
    let folder = tempfile::tempdir().unwrap();
    let connection = folder.path().join("connection.yaml");
    let settings = format!("{{host: '{}'}}", upstream.url());
    let document =
        format!("kind: connection\nname: desk\nspec: {{connector: desk, account: desk, settings: {settings}}}\n");
    std::fs::write(&connection, document).unwrap();
    let options = Options::egress()
        .flag("--apply", connection.display())
        .flag("--keep-events", "36500d")
        .flag("--keep-jobs", "36500d")
        .flag("--keep-refusals", "36500d");
    let server = Server::start_on(&options, unpacked);

    let check = server.data("/api/v1/check");
    let findings = check["findings"].as_array().unwrap().iter();
    let errors: Vec<_> = findings.filter(|finding| finding["level"] == "error").collect();
    // The clock has gone on since it was packed, which no earlier version noted.
    assert!(errors.is_empty(), "{errors:#?}");
    let ids: Vec<String> = (1..=3).map(|n| format!("{n:0>2x}")).collect();
    let events = server.data("/api/v1/events?after=first");
    let events = events.as_array().unwrap();
    assert!(events.iter().zip(&ids).all(|(event, n)| event["id"].as_str().unwrap().ends_with(n)), "{events:#?}");
    assert_eq!(events[0]["body"], r#"{"id": 1, "title": "first", "amount": 12345678901234567890.10}"#);
    assert_eq!(events[1]["body"].as_str().unwrap().matches('x').count(), 100_000);
    assert_eq!(server.data("/api/v1/refusals")[0]["code"], "verify.failed");
    // The job that waited has gone on through the connection as it is now, from where it was.
    let done = eventually("every job has ended", || {
        let jobs = server.data("/api/v1/jobs");
        jobs.as_array().unwrap().iter().all(is_ended).then_some(jobs)
    });
    let done = done.as_array().unwrap();
    assert_eq!(done.iter().filter(|job| job["status"] == "succeeded").count(), 3, "{done:#?}");
    let waited = server.data(&format!("/api/v1/jobs/{}", done[0]["id"].as_str().unwrap()));
    assert_eq!(waited["steps"][0]["output"]["body"], json!({"id": 7}));
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].header("authorization"), &seen[0].body[..]), ("Bearer desk-token-value", &br#"{"of":7}"#[..]));
    let job = server.data(&format!("/api/v1/jobs/{}", done[2]["id"].as_str().unwrap()));
    assert_eq!(
        (&job["steps"][0]["output"]["body"], &job["steps"][1]["status"]),
        (&json!({"id": 7}), &json!("succeeded"))
    );
    // An id that was seen stays so, a secret verifies, and the table goes on.
    let again = server.cli_json(&["send", "hooks", "--body", r#"{"id": 1, "title": "first"}"#]);
    assert_eq!(again["data"]["duplicate"], true, "{again:#}");
    let run = server.cli_json(&["syncs", "run", "rows", "--wait"]);
    let tables = server.cli_json(&["tables", "show", "desk.hooks"]);
    assert_eq!(tables["data"]["total"], 3, "{run:#} {tables:#}");
}

#[test]
fn documents_of_0_1_0_change_nothing_where_they_were_applied() {
    let server = Server::start_on(&Options::egress(), unpacked);
    let documents = repository().join("crates/app/tests/fixtures/documents-0.1.0.yaml");
    let plan = server.cli_json(&["apply", "-f", documents.to_str().unwrap(), "--dry-run"]);
    let changes = plan["data"]["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 9);
    assert!(changes.iter().all(|change| change["action"] == "unchanged"), "{changes:#?}");
}
