//! Events on their way into tables.

use serde_json::json;

use crate::harness::{Options, Server, repository};

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
