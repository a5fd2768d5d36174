//! Imports: an API that others wrote down is called a minute later.

use serde_json::{Value, json};

use crate::harness::{Options, Ran, Reply, Server, Upstream, run};

/// A command without a server.
fn linkspan(args: &[&str]) -> Ran {
    run(args, &[("LINKSPAN_URL", "http://127.0.0.1:9")])
}

fn write(server: &Server, name: &str, text: &str) -> String {
    let path = server.folder().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn description(upstream: &Upstream) -> String {
    json!({
        "openapi": "3.1.0", "info": {"title": "Issue desk", "version": "2"},
        "servers": [{"url": format!("{}/api", upstream.url())}],
        "components": {"securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}}},
        "paths": {
            "/issues": {"get": {"operationId": "listIssues", "tags": ["issues"], "parameters": [
                {"name": "label", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
            ]}},
            "/issues/{number}": {"parameters": [{"name": "number", "in": "path", "required": true, "schema": {"type": "integer"}}],
                "patch": {"operationId": "changeIssue", "tags": ["issues"], "requestBody": {"content": {"application/json": {"schema": {
                    "type": "object", "properties": {"title": {"type": "string"}, "closed": {"type": "boolean"}},
                }}}}},
            },
            "/people": {"get": {"operationId": "listPeople", "tags": ["people"]}},
        },
    })
    .to_string()
}

#[test]
fn a_description_becomes_a_connector_whose_actions_are_called() {
    let upstream = Upstream::start(|_, _| Reply::Json(200, json!({"ok": true})));
    let server = Server::start(&Options::egress().env("LINKSPAN_SECRET_KEY", "canary-key"));
    let source = write(&server, "desk.json", &description(&upstream));
    let connector = server.folder().join("desk.yaml").to_str().unwrap().to_owned();
    // Without a server, and so without a word of it.
    let done = linkspan(&["connectors", "import", &source, "--only", "issues", "--name", "desk", "--out", &connector]);
    assert!(done.failure(0).contains("desk.yaml: 2 actions"));
    let checked = linkspan(&["connectors", "validate", &connector]).success();
    assert_eq!(checked, "desk: 2 actions, 0 streams, 0 webhooks, 0 cases\n");

    server.apply(&std::fs::read_to_string(&connector).unwrap());
    server.apply(
        "kind: secret\nname: key\nspec: {env: LINKSPAN_SECRET_KEY}\n---\nkind: account\nname: robot\n\
         spec: {headers: {X-Key: {secret: key}}}\n---\nkind: connection\nname: desk\nspec: {connector: desk, account: robot}\n",
    );
    server.cli(&["call", "desk.list_issues", "--set", "label=[\"a b\", \"c\"]"]).success();
    server.cli(&["call", "desk.change_issue", "--set", "number=7", "--set", "closed=true"]).success();
    let seen = upstream.seen();
    assert_eq!((seen[0].target.as_str(), seen[0].header("x-key")), ("/api/issues?label=a%20b&label=c", "canary-key"));
    assert_eq!((seen[1].target.as_str(), seen[1].body.as_slice()), ("/api/issues/7", br#"{"closed":true}"#.as_slice()));
}

#[test]
fn the_api_imports_as_the_command_does_and_stores_nothing() {
    let upstream = Upstream::start(|_, _| Reply::Json(200, json!({})));
    let server = Server::start(&Options::default());
    let import = |body: Value| server.api("POST", "/api/v1/connectors/import", Some(&body));
    let answer = import(json!({"source": description(&upstream), "only": ["people"]}));
    assert_eq!(answer.status, 200, "{answer:?}");
    let source = write(&server, "desk.json", &description(&upstream));
    let shown = linkspan(&["connectors", "import", &source, "--only", "people", "--output", "json"]).success();
    assert_eq!(answer.json(), serde_json::from_str::<Value>(&shown).unwrap());
    assert_eq!(answer.json()["data"]["document"]["labels"], json!({"api-version": "2"}));
    assert_eq!(server.data("/api/v1/connectors"), json!([]));

    for (wrong, path) in [
        (json!({"source": "a: 1"}), "source"),
        (json!({"source": description(&upstream), "only": ["peple"]}), "only[0]"),
        (json!({"source": "curl -k", "format": "curl"}), "source"),
    ] {
        let answer = import(wrong.clone());
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"]), (422, &json!("import.failed")), "{wrong}");
        assert_eq!(error["faults"][0]["path"], path, "{error}");
    }
    assert_eq!(import(json!({"sorce": ""})).status, 422);
    // The name that the route takes.
    let answer = server.api("POST", "/api/v1/connectors", Some(&json!({"name": "import", "spec": {}})));
    assert_eq!(answer.status, 422, "{answer:?}");
}

#[test]
fn a_pasted_command_leaves_its_secrets_behind() {
    let shown = linkspan(&["connectors", "import", "--curl", "curl -u me:canary https://api.desk.example/v1/me?x=1"]);
    assert!(!format!("{shown:?}").contains("canary"), "{shown:?}");
    let document = shown.success();
    assert!(document.contains("name: desk") && document.contains("path: /v1/me"), "{document}");
    let wrong = linkspan(&["connectors", "import", "--curl", "curl 'https://"]).failure(5);
    assert!(wrong.contains("line 1: a quotation that begins with ' has no end"), "{wrong}");
    linkspan(&["connectors", "import"]).failure(2);
}
