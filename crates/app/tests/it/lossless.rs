//! Digits, bytes and texts from one end to the other: files, the API, exports, imports, calls.

use serde_json::{Value, json};

use crate::harness::{Options, Server, Upstream};

fn write(server: &Server, name: &str, text: &str) -> String {
    let path = server.folder().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Exports, and applies the export without doing it.
fn assert_export_changes_nothing(server: &Server, least: usize) {
    let exported = server.cli(&["export"]).success();
    let file = write(server, "exported.yaml", &exported);
    let again = server.cli_json(&["apply", "-f", &file, "--dry-run"]);
    let changes = again["data"]["changes"].as_array().unwrap();
    let changed: Vec<&Value> = changes.iter().filter(|change| change["action"] != "unchanged").collect();
    assert!(changes.len() >= least && changed.is_empty(), "{changed:#?}");
}

const NUMBERS: &str = r#"{"id":76159173374952512310,"price":1.10,"zero":-0.0,"big":123456789012345678901234567890,"power":1e+2,"tiny":1.50e-7}"#;

/// A document of every kind, numbers wherever one may stand.
fn documents(url: &str) -> String {
    format!(
        r#"kind: secret
name: key
spec: {{}}
---
kind: account
name: me
spec: {{basic: {{user: "007", password: {{secret: key}}}}}}
---
kind: connector
name: desk
spec:
  connection: {{base_url: '{url}', limits: {{response: 25MiB}}, redirects: 2, timeouts: {{first_byte: 20s}}}}
  settings: {{type: object, properties: {{n: {{default: 76159173374952512310, maximum: 1e30}}, zip: {{default: "01234"}}}}}}
  actions:
    send: {{request: {{method: POST, path: /send, query: {{v: 1.10}}, json: {NUMBERS}}}}}
  webhooks:
    events: {{endpoint: {{format: json, verify: none, limits: {{body: 25MiB}}}}}}
---
kind: connection
name: desk
spec: {{connector: desk, settings: {{n: 76159173374952512310.10}}}}
---
kind: endpoint
name: in
spec: {{connector: desk, webhook: events}}
---
kind: recipe
name: tell
labels: {{version: "1.10", enabled: "yes"}}
spec:
  trigger: {{webhook: {{endpoint: in}}}}
  steps:
    - {{id: tell, request: {{connection: desk, method: POST, path: /tell, json: {NUMBERS}}}}}
---
kind: destination
name: warehouse
spec: {{sqlite: {{path: w.db}}}}
---
kind: sync
name: all
spec: {{from: {{endpoint: in}}, to: {{destination: warehouse, schema: s, table: t}}}}
"#
    )
}

#[test]
fn every_digit_of_a_file_arrives() {
    let upstream = Upstream::ok();
    let server = Server::start(&Options::egress());
    let file = write(&server, "all.yaml", &documents(&upstream.url()));
    server.cli(&["apply", "-f", &file]).success();
    server.cli(&["call", "desk.send"]).success();
    let seen = upstream.wait_for(1).remove(0);
    assert_eq!((seen.target.as_str(), seen.body.as_slice()), ("/send?v=1.10", NUMBERS.as_bytes()));

    let call = format!(r#"{{"request": {{"method": "POST", "path": "/call", "json": {NUMBERS}}}}}"#);
    for name in ["call.json", "call.yaml"] {
        let file = write(&server, name, &call);
        server.cli(&["call", "desk", "--file", &file]).success();
        assert_eq!(upstream.seen().pop().unwrap().body, NUMBERS.as_bytes(), "{name}");
    }
    server.accept(&server.path_of("in"), &json!({}));
    assert_eq!(upstream.wait_for(4).pop().unwrap().body, NUMBERS.as_bytes());

    let curl = format!("curl {}/curl -H 'Content-Type: application/json' -d '{NUMBERS}'", upstream.url());
    let source = write(&server, "source.sh", &curl);
    let imported = server.cli(&["connectors", "import", &source, "--name", "curled"]).success();
    server.apply(&format!("{imported}\n---\nkind: connection\nname: curled\nspec: {{connector: curled}}\n"));
    server.cli(&["call", "curled.post_curl"]).success();
    assert_eq!(upstream.seen().pop().unwrap().body, NUMBERS.as_bytes());
}

#[test]
fn an_export_of_every_kind_and_connector_changes_nothing() {
    let server = Server::start(&Options::default());
    let file = write(&server, "all.yaml", &documents("https://desk.test"));
    server.cli(&["apply", "-f", &file]).success();
    let catalog = server.cli_json(&["connectors", "list"]);
    let mut count = 8;
    for connector in catalog["data"].as_array().unwrap().iter().filter(|one| one["origin"] != "yours") {
        let name = connector["name"].as_str().unwrap();
        let document = server.cli(&["connectors", "show", name, "--document"]).success();
        let renamed = document.replacen(&format!("name: {name}\n"), &format!("name: own-{name}\n"), 1);
        if renamed == document {
            continue;
        }
        let file = write(&server, "one.yaml", &renamed);
        server.cli(&["apply", "-f", &file]).success();
        count += 1;
    }
    assert!(count >= 18, "{catalog:#}");
    assert_export_changes_nothing(&server, count);
    // The same as JSON.
    let exported = server.cli_json(&["export"]);
    for document in exported["data"]["documents"].as_array().unwrap() {
        let file = write(&server, "one.json", &document.to_string());
        let again = server.cli_json(&["apply", "-f", &file, "--dry-run"]);
        assert_eq!(again["data"]["changes"][0]["action"], "unchanged", "{document:#}: {again:#}");
    }
}

#[test]
fn defaults_that_are_written_out_are_those_in_force() {
    let server = Server::start(&Options::default());
    let file = write(&server, "all.yaml", &documents("https://desk.test"));
    server.cli(&["apply", "-f", &file]).success();
    let defaults = server.cli(&["export", "--defaults"]).success();
    for line in ["body: 25MiB", "response: 25MiB", "redirects: 2", "first_byte: 20s"] {
        assert!(defaults.matches(line).count() >= 2, "{line}\n{defaults}");
    }
    let file = write(&server, "defaults.yaml", &defaults);
    server.cli(&["apply", "-f", &file]).success();
    let six = json!({"text": "x".repeat(6 << 20)});
    server.accept(&server.path_of("in"), &six);
    assert_eq!(server.cli(&["export", "--defaults"]).success(), defaults);
}
