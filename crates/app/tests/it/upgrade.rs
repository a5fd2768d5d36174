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
    let options = Options::egress()
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
    let done = server.data("/api/v1/jobs?status=succeeded");
    assert_eq!(done.as_array().unwrap().len(), 2, "{done:#}");
    let job = server.data(&format!("/api/v1/jobs/{}", done[1]["id"].as_str().unwrap()));
    assert_eq!(
        (&job["steps"][0]["output"]["body"], &job["steps"][1]["status"]),
        (&json!({"id": 7}), &json!("succeeded"))
    );
    let tables = server.cli_json(&["tables", "show", "desk.hooks"]);
    assert_eq!(tables["data"]["total"], 2, "{tables:#}");

    // An id that was seen stays so, a secret verifies, and what waits goes on through the connection as it is now.
    let again = server.cli_json(&["send", "hooks", "--body", r#"{"id": 1, "title": "first"}"#]);
    assert_eq!(again["data"]["duplicate"], true, "{again:#}");
    server.apply(&format!(
        "kind: connection\nname: desk\nspec: {{connector: desk, account: desk, settings: {{host: '{}'}}}}\n",
        upstream.url()
    ));
    let waited = done.as_array().unwrap().len();
    let ended = eventually("the job that waited ends", || {
        let jobs = server.data("/api/v1/jobs");
        let jobs = jobs.as_array().unwrap();
        jobs.iter().all(is_ended).then(|| jobs.iter().filter(|job| job["status"] == "succeeded").count())
    });
    assert_eq!(ended, waited + 1);
    assert_eq!(upstream.seen()[0].header("authorization"), "Bearer desk-token-value");
    server.cli(&["syncs", "run", "rows", "--wait"]).success();
    assert_eq!(server.cli_json(&["tables", "show", "desk.hooks"])["data"]["total"], 3);
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
