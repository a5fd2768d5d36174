//! Connectors: written down once, used by connections, called by people and by recipes.

use serde_json::{Value, json};

use crate::harness::{Options, Reply, Server, Upstream, open_endpoint, run};

/// A connector of an issue desk.
const DESK: &str = r#"kind: connector
name: desk
spec:
  version: 1.0.0
  title: Issue desk
  settings:
    type: object
    required: [tenant]
    properties: {tenant: {type: string}, beta: {type: string}}
  connection:
    base_url: "https://{{ settings.tenant }}.desk.example/api"
    headers: {X-Tenant: "{{ settings.tenant }}"}
    test: {path: /me}
    retry: {tries: 1}
  accounts:
    - {kind: bearer, title: Personal token}
  actions:
    get_issue:
      title: Get an issue
      input:
        type: object
        required: [number]
        properties: {number: {type: integer}, fields: {type: string}}
      request:
        method: GET
        path: /issues/{{ input.number }}
        query: {fields: "{{ input.fields }}", beta: "{{ settings.beta }}"}
        expect: body.ok
        message: body.error
    list_issues:
      title: List issues
      input: {type: object, properties: {state: {enum: [open, all], default: open}}}
      request: {method: GET, path: /issues, query: {state: "{{ input.state }}"}}
      paginate: {items: body.issues, next_url: body.next}
  streams:
    changes:
      title: Changed issues
      request: {method: GET, path: /changes}
      paginate: {items: body.issues, next_url: body.next}
      key: record.id
      cursor: {field: record.at, send: {query: since}, lookback: 10m}
  webhooks:
    issues:
      title: Issues
      help: Under Settings, Notifications.
      endpoint:
        format: json
        verify: {hmac: {header: X-Desk-Signature, prefix: "sha256=", encoding: HEXA_DECIMAL}}
        dedupe: {by: "header:X-Desk-Delivery"}
  tests:
    - name: reads what has changed, each issue once
      stream: changes
      settings: {tenant: acme}
      since: 2024-05-01T00:00:00Z
      exchanges:
        - sends: {method: GET, url: "https://acme.desk.example/api/changes?since=2024-04-30T23%3A50%3A00Z"}
          answers: {json: {issues: [{id: 1, at: "2024-05-01T00:00:00Z"}], next: /api/changes?page=2}}
        - sends: {method: GET, url: "https://acme.desk.example/api/changes?page=2"}
          answers: {json: {issues: [{id: 1, at: "2024-05-01T00:00:00Z"}, {id: 2}]}}
      gives: [{id: 1}, {id: 2}]
    - name: takes what is signed
      webhook: issues
      secret: It's a Secret to Everybody
      receives:
        headers:
          X-Desk-Signature: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17
          X-Desk-Delivery: a1
        text: Hello, World!
      fails: the body is not JSON
    - name: refuses what is not signed
      webhook: issues
      secret: It's a Secret to Everybody
      receives: {json: {id: 1}}
      fails: the header x-desk-signature is missing
    - name: reads an issue
      action: get_issue
      settings: {tenant: acme}
      input: {number: 7}
      exchanges:
        - sends: {method: GET, url: "https://acme.desk.example/api/issues/7", headers: {X-Tenant: acme}}
          answers: {json: {ok: true, title: one}}
      gives: {title: one}
"#;

/// A connection over it that goes to an upstream.
fn connection(upstream: &Upstream) -> String {
    format!(
        "kind: secret\nname: token\nspec: {{env: LINKSPAN_SECRET_DESK}}\n---\nkind: account\nname: robot\nspec: {{bearer: {{token: {{secret: token}}}}}}\n---\n\
         kind: connection\nname: acme\nspec: {{connector: desk, settings: {{tenant: acme}}, base_url: '{}/api', account: robot}}\n---\n",
        upstream.url()
    )
}

fn server(upstream: &Upstream) -> Server {
    let server = Server::start(&Options::egress().env("LINKSPAN_SECRET_DESK", "canary-desk-token"));
    server.apply(&(connection(upstream) + DESK));
    server
}

#[test]
fn an_action_is_called_with_what_it_asks_for() {
    let upstream = Upstream::start(|_, seen| match seen.target.as_str() {
        "/api/issues/9" => Reply::Json(200, json!({"ok": false, "error": "no such issue"})),
        "/api/me" => Reply::Json(200, json!({})),
        _ => Reply::Json(200, json!({"ok": true, "title": "one"})),
    });
    let server = server(&upstream);
    let answer = server.cli_json(&["call", "acme.get_issue", "--set", "number=7"]);
    assert_eq!(answer["data"]["title"], "one");
    let seen = &upstream.seen()[0];
    // Nothing is sent of what was not given.
    assert_eq!(seen.target, "/api/issues/7");
    assert_eq!((seen.header("x-tenant"), seen.header("authorization")), ("acme", "Bearer canary-desk-token"));

    let path = "/api/v1/connections/acme/call";
    let call = |call: Value| server.api("POST", path, Some(&call));
    let answer = call(json!({"action": "get_issue", "input": {"number": 7, "fields": "a,b"}}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(upstream.seen()[1].target, "/api/issues/7?fields=a%2Cb");
    // What the API says with a good status is an error all the same.
    let answer = call(json!({"action": "get_issue", "input": {"number": 9}}));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (502, &json!("response.unexpected")), "{answer:?}");
    assert_eq!(answer.json()["error"]["description"], "the API answered 200: no such issue");
    for (wrong, path) in [
        (json!({"action": "get_isue"}), "action"),
        (json!({"action": "get_issue"}), "input"),
        (json!({"action": "get_issue", "input": {"number": "7"}}), "input.number"),
        (json!({"action": "get_issue", "input": {"number": 7, "field": "a"}}), "input"),
        (json!({"action": "get_issue", "request": {"method": "GET", "path": "/"}}), ""),
    ] {
        let answer = call(wrong.clone());
        assert_eq!(answer.status, 422, "{wrong}: {answer:?}");
        assert_eq!(answer.json()["error"]["faults"][0]["path"], path, "{wrong}: {answer:?}");
    }
    assert_eq!(upstream.seen().len(), 3, "what is wrong is not sent");
    let said = server.cli(&["call", "acme.get_issue", "/x", "--set", "number=7"]).failure(1);
    assert!(said.contains("an action has its own"), "{said}");

    let test = server.cli(&["connections", "test", "acme"]).success();
    assert!(test.starts_with("connected"), "{test}");
    assert_eq!(upstream.seen()[3].header("x-tenant"), "acme");
    assert_eq!(server.data("/api/v1/connections/acme")["status"]["base_url"], format!("{}/api", upstream.url()));
}

#[test]
fn an_action_that_gives_a_list_is_read_to_its_end() {
    let upstream = Upstream::start(|_, seen| match seen.target.as_str() {
        "/api/issues?state=all" => Reply::Json(200, json!({"issues": [1, 2], "next": "/api/issues?page=2"})),
        _ => Reply::Json(200, json!({"issues": [3], "next": null})),
    });
    let server = server(&upstream);
    let shown = server.cli(&["call", "acme.list_issues", "--set", "state=all"]).success();
    assert_eq!(shown, "1\n2\n3\n");
    let first = server.cli_json(&["call", "acme.list_issues", "--set", "state=all", "--first-page"]);
    assert_eq!(first["data"]["issues"], json!([1, 2]));
}

#[test]
fn a_step_calls_an_action() {
    let upstream = Upstream::start(|_, _| Reply::Json(200, json!({"ok": true, "title": "one"})));
    let server = server(&upstream);
    let recipe = |input: &str| {
        format!(
            "{}---\nkind: recipe\nname: look\nspec:\n  trigger: {{webhook: {{endpoint: in}}}}\n  steps:\n    - id: issue\n      call: {{connection: acme, action: get_issue, input: {{{input}}}}}\n    - id: again\n      call: {{connection: acme, action: get_issue, input: {{number: 1, fields: '{{{{ steps.issue.body.title }}}}'}}}}\n",
            open_endpoint("in")
        )
    };
    server.apply(&recipe("number: '{{ trigger.body.n }}'"));
    let job = server.job_of(&server.accept(&server.path_of("in"), &json!({"n": 12})));
    assert_eq!(job["status"], "succeeded", "{job:#}");
    let targets: Vec<String> = upstream.seen().iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(targets, ["/api/issues/12", "/api/issues/1?fields=one"]);
    // What only shows with data is an error of the step, and nothing is sent.
    let job = server.job_of(&server.accept(&server.path_of("in"), &json!({"n": "twelve"})));
    assert_eq!(
        (&job["error"]["code"], &job["error"]["field"]),
        (&json!("input.invalid"), &json!("input.number")),
        "{job:#}"
    );
    assert_eq!(upstream.seen().len(), 2);

    // What shows before is refused with the document.
    for (input, path) in [
        ("nmber: 1", "steps[0].call.input"),
        ("number: 1, fields: '{{ steps.again.body }}'", "steps[0].call.input.fields"),
    ] {
        let said = server.cli_with_input(&["apply", "-f", "-"], &recipe(input)).failure(5);
        assert!(said.contains(path), "{said}");
    }
    let said = server
        .cli_with_input(&["apply", "-f", "-"], &recipe("number: 1").replace("action: get_issue", "action: get"))
        .failure(5);
    assert!(
        said.contains("standard input:11: recipe/look: spec.steps[0].call.action: the connector has no action `get`"),
        "{said}"
    );
}

#[test]
fn an_action_is_added_to_a_connector_that_comes_with_the_product() {
    let upstream = Upstream::ok();
    let server = Server::start(&Options::egress());
    server.apply(&format!(
        "kind: connector\nname: http\nspec:\n  extends: http\n  actions:\n    ping: {{title: Ping, request: {{method: GET, path: /ping}}}}\n---\n\
         kind: connection\nname: any\nspec: {{connector: http, settings: {{base_url: '{}/v1'}}}}\n",
        upstream.url()
    ));
    server.cli(&["call", "any.ping"]).success();
    server.cli(&["call", "any.get", "--set", "path=/things?limit=2"]).success();
    let targets: Vec<String> = upstream.seen().iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(targets, ["/v1/ping", "/v1/things?limit=2"]);
    let listed = server.cli_json(&["connectors", "list"]);
    let http = listed["data"].as_array().unwrap().iter().find(|entry| entry["name"] == "http").unwrap();
    assert_eq!((&http["origin"], &http["actions"]), (&json!("user"), &json!(6)));
    let shown = server.cli(&["connectors", "show", "http"]).success();
    assert!(shown.contains("ping: Ping") && shown.contains("* path (string)"), "{shown}");
    // What comes with the product can stand in for it, but only where nobody needs the action.
    let recipe = "kind: recipe\nname: r\nspec:\n  trigger: {webhook: {endpoint: e}}\n  steps: [{id: ping, call: {connection: any, action: ping}}]\n";
    server.apply(&format!("{}---\n{recipe}", open_endpoint("e")));
    let said = server.cli(&["connectors", "delete", "http"]).failure(1);
    assert!(
        said.contains("connector/http is used as it is: without it, recipe/r: spec.steps[0].call.action"),
        "{said}"
    );
    server.cli(&["recipes", "delete", "r"]).success();
    server.cli(&["connectors", "delete", "http"]).success();
    server.cli(&["call", "any.ping"]).failure(5);
    let document = server.cli(&["connectors", "show", "http", "--document"]).success();
    assert!(!document.contains("ping"), "{document}");
}

#[test]
fn settings_and_accounts_are_checked_when_they_are_applied() {
    let upstream = Upstream::ok();
    let server = server(&upstream);
    let apply = |spec: &str| {
        server
            .cli_with_input(&["apply", "-f", "-"], &format!("kind: connection\nname: other\nspec: {spec}\n"))
            .failure(5)
    };
    for (spec, said) in [
        (
            "{connector: dsk, settings: {tenant: a}}",
            "spec.connector: there is no connector `dsk` (did you mean `desk`?)",
        ),
        ("{connector: desk}", "spec.settings: `tenant` is missing"),
        ("{connector: desk, settings: {tenant: a, tenat: b}}", "spec.settings: `tenat` is not known"),
        ("{connector: desk, settings: {tenant: 'a/b'}}", "spec.settings: the connector's base_url"),
        (
            "{settings: {tenant: a}, base_url: 'https://a.test'}",
            "spec.settings: settings are what a connector asks for",
        ),
        ("{connector: desk, settings: {tenant: a}, headers: {Authorization: x}}", "spec.headers.Authorization"),
    ] {
        let refused = apply(spec);
        assert!(refused.contains(said), "{spec}: {refused}");
    }
    let text = "kind: account\nname: robot\nspec: {basic: {user: a}}\n";
    let refused = server.cli_with_input(&["apply", "-f", "-"], text).failure(5);
    assert!(
        refused.contains("connection/acme: spec.account: the connector takes an account of kind bearer, not basic"),
        "{refused}"
    );
    // A connector cannot become one that its connections and recipes do not fit any more.
    let refused = server
        .cli_with_input(&["apply", "-f", "-"], &DESK.replace("required: [tenant]", "required: [tenant, beta]"))
        .failure(5);
    assert!(refused.contains("connection/acme: spec.settings: `beta` is missing"), "{refused}");
}

#[test]
fn files_are_checked_and_their_cases_run_without_a_server() {
    let folder = tempfile::TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let file = write("desk.yaml", DESK);
    assert_eq!(
        run(&["connectors", "validate", &file], &[]).success(),
        "desk: 2 actions, 1 stream, 1 webhook, 4 cases\n"
    );
    assert_eq!(
        run(&["connectors", "test", &file, "http"], &[]).success().lines().next().unwrap(),
        "ok   desk: reads what has changed, each issue once"
    );
    let wrong = write("wrong.yaml", &DESK.replace("/issues/{{ input.number }}", "/issues/{{ input.nr }}"));
    let said = run(&["connectors", "validate", &wrong], &[]).failure(5);
    assert!(
        said.contains(&format!("{wrong}:26: connector/desk: spec.actions.get_issue.request.path: column 12: ")),
        "{said}"
    );
    let failing = write(
        "failing.yaml",
        &DESK.replace("title: one}}\n      gives: {title: one}", "title: two}}\n      gives: {title: one}"),
    );
    let ran = run(&["connectors", "test", &failing], &[]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, 1, "{said}");
    assert!(said.contains("FAIL desk: reads an issue\n     gives.title: \"two\" comes, not \"one\""), "{said}");
}

#[test]
fn what_a_connector_offers_is_shown_to_whoever_wants_to_use_it() {
    let upstream = Upstream::ok();
    let server = server(&upstream);
    let shown = server.cli(&["connectors", "show", "desk"]).success();
    for line in [
        "  * tenant (string)",
        "account bearer: Personal token",
        "list_issues (a list): List issues",
        "    state (open, all; open when left out)",
        "changes (a stream with a cursor): Changed issues",
        "issues (a webhook, verified by hmac): Issues",
        "    Under Settings, Notifications.",
    ] {
        assert!(shown.lines().any(|shown| shown.trim_end() == line), "{line}\n{shown}");
    }
    let shown = server.cli(&["connectors", "show", "desk.issues"]).success();
    assert!(shown.starts_with("issues (webhook): Issues\nUnder Settings, Notifications.\nendpoint\n"), "{shown}");
    let action = server.cli_json(&["connectors", "show", "github.create_issue"]);
    assert_eq!(action["data"]["name"], "create_issue");
    let said = server.cli(&["connectors", "show", "desk.nothing"]).failure(1);
    assert!(said.contains("connector desk has no action, stream or webhook `nothing`"), "{said}");
}

#[test]
fn a_stream_is_read_from_where_the_last_reading_ended() {
    let upstream = Upstream::start(|_, seen| match seen.target.as_str() {
        "/api/changes?page=2" => {
            let again = json!({"id": 2, "at": "2024-05-02T10:00:00Z"});
            Reply::Json(200, json!({"issues": [again, {"id": 1, "at": "2024-05-03T10:00:00Z"}], "next": null}))
        }
        "/api/changes" => {
            let issues = json!([{"id": 1, "at": "2024-05-01T10:00:00Z"}, {"id": 2, "at": "2024-05-02T10:00:00Z"}]);
            Reply::Json(200, json!({"issues": issues, "next": "/api/changes?page=2"}))
        }
        _ => Reply::Json(200, json!({"issues": []})),
    });
    let server = server(&upstream);
    let read = |body: Value| server.api("POST", "/api/v1/connections/acme/read", Some(&body));
    let answer = read(json!({"stream": "changes"}));
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<&Value> = lines.iter().filter_map(|line| line.get("item").map(|item| &item["id"])).collect();
    assert_eq!(ids, [&json!(1), &json!(2), &json!(1)], "each in each of its states, once");
    let end = json!({"pages": 2, "items": 3, "complete": true, "cursor": "2024-05-03T10:00:00Z"});
    assert_eq!(lines[3]["end"], end);

    let shown = server.cli(&["call", "acme.changes", "--since", "2024-05-03T10:00:00Z"]);
    assert_eq!(upstream.seen()[2].target, "/api/changes?since=2024-05-03T09%3A50%3A00Z");
    let said = shown.stderr.clone();
    assert_eq!(shown.success(), "", "there is nothing new");
    assert!(said.contains("the next reading begins with --since 2024-05-03T10:00:00Z"), "{said}");

    for (wrong, path) in [
        (json!({"stream": "chnges"}), "stream"),
        (json!({"stream": "changes", "action": "list_issues"}), ""),
        (json!({"action": "list_issues", "since": "a"}), "since"),
        (json!({"stream": "changes", "since": true}), "since"),
        (json!({"stream": "changes", "input": {"a": 1}}), "input"),
    ] {
        let answer = read(wrong.clone());
        assert_eq!(answer.status, 422, "{wrong}: {answer:?}");
        assert_eq!(answer.json()["error"]["faults"][0]["path"], path, "{wrong}: {answer:?}");
    }
    let answer = read(json!({"stream": "changes", "since": "yesterday"}));
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"], &error["field"]), (422, &json!("input.invalid"), &json!("since")));
    assert_eq!(upstream.seen().len(), 3, "what is wrong is not sent");
}

#[test]
fn an_endpoint_takes_a_connectors_webhook() {
    let upstream = Upstream::start(|_, _| Reply::Json(200, json!({})));
    let server = server(&upstream);
    let endpoint = "kind: secret\nname: desk-webhook\nspec: {value: canary-desk-webhook}\n---\nkind: endpoint\nname: issues\n\
                    spec: {connector: desk, webhook: issues, secrets: [{secret: desk-webhook}], limits: {body: 1MiB}}\n";
    server.apply(endpoint);
    let id = server.cli_with_input(&["send", "issues", "--file", "-"], r#"{"number": 7}"#).success();
    let event = server.data(&format!("/api/v1/events/{}", id.trim()));
    assert_eq!(event["verified"], json!({"by": "hmac", "ok": true}));
    let names: Vec<&str> =
        event["headers"].as_array().unwrap().iter().map(|header| header[0].as_str().unwrap()).collect();
    assert!(names.contains(&"x-desk-signature"), "{names:?}");
    let shown = server.data("/api/v1/endpoints/issues");
    assert_eq!((&shown["spec"]["webhook"], shown["spec"].get("verify")), (&json!("issues"), None));
    assert_eq!((&shown["status"]["ready"], &shown["status"]["unverified"]), (&json!(true), &json!(false)));
    let unsigned = server.post(&server.path_of("issues"), &[("content-type", "application/json")], b"{}");
    assert_eq!(unsigned.status, 401);

    // The documents stand beside each other: what does not fit is refused as a whole.
    for (spec, path) in [
        ("{connector: desk, webhook: issues}", "spec.secrets"),
        ("{connector: desk, webhook: isues, secrets: [{secret: desk-webhook}]}", "spec.webhook"),
        ("{connector: dsk, webhook: issues, secrets: [{secret: desk-webhook}]}", "spec.connector"),
        ("{connector: desk, secrets: [{secret: desk-webhook}]}", "spec.webhook"),
        ("{format: json}", "spec.verify"),
    ] {
        let document = format!("kind: endpoint\nname: issues\nspec: {spec}\n");
        let refused = server.cli_with_input(&["apply", "-f", "-"], &document).failure(5);
        assert!(refused.contains(&format!("{path}: ")), "{spec}: {refused}");
    }
    // A connector that an endpoint needs stays, and takes its webhook along only with the endpoint.
    let without = DESK.replace("    issues:\n      title: Issues\n", "    others:\n      title: Issues\n");
    let refused = server.cli_with_input(&["apply", "-f", "-"], &without).failure(5);
    assert!(refused.contains("webhook"), "{refused}");
    let refused = server.api("DELETE", "/api/v1/connectors/desk", None);
    assert_eq!(refused.status, 409, "{refused:?}");
}

/// A connector of a bank that says no with good statuses, and numbers its pages.
const BANK: &str = r#"kind: connector
name: bank
spec:
  settings: {type: object, properties: {tenant: {type: string}}}
  connection:
    base_url: https://bank.example
    headers: {X-Tenant: "{{ settings.tenant }}"}
    test: {path: /me}
    retry: {tries: 1}
  answers: {expect: body.ok != false, message: body.errors}
  actions:
    pay:
      input: {type: object, properties: {items: {type: array}, note: {type: string}}}
      request:
        method: POST
        path: /pay
        query: {expand: [a, b]}
        form: {currency: eur, items: "{{ input.items }}", meta: {note: "{{ input.note }}", by: linkspan}}
    list:
      request: {method: GET, path: /payments}
      paginate: {page: {send: {query: page}}, size: {send: {query: size}, value: 50}}
"#;

#[test]
fn a_connector_says_once_what_answers_must_be() {
    let upstream = Upstream::start(|_, seen| match seen.target.split('?').next() {
        Some("/me") => Reply::Json(200, json!({"ok": false, "errors": ["the token of canary-bank-token has ended"]})),
        Some("/pay") => Reply::Json(422, json!({"errors": ["no currency", "no items"]})),
        _ => Reply::Json(200, json!([])),
    });
    let server = Server::start(&Options::egress().env("LINKSPAN_SECRET_BANK", "canary-bank-token"));
    let connection = format!(
        "kind: secret\nname: token\nspec: {{env: LINKSPAN_SECRET_BANK}}\n---\nkind: account\nname: robot\nspec: {{bearer: {{token: {{secret: token}}}}}}\n---\n\
         kind: connection\nname: bank\nspec: {{connector: bank, base_url: '{}', account: robot}}\n---\n",
        upstream.url()
    );
    server.apply(&(connection + BANK));

    let input = json!({"items": [{"price": "p1", "count": 2}], "note": "é&"});
    let call = json!({"action": "pay", "input": input});
    let answer = server.api("POST", "/api/v1/connections/bank/call", Some(&call));
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"]), (502, &json!("response.status")));
    assert_eq!(error["description"], "the API answered 422 Unprocessable Entity: no currency; no items");
    let sent = &upstream.seen()[0];
    assert_eq!(sent.target, "/pay?expand=a&expand=b");
    let body = "currency=eur&items%5B0%5D%5Bprice%5D=p1&items%5B0%5D%5Bcount%5D=2&meta%5Bnote%5D=%C3%A9%26&meta%5Bby%5D=linkspan";
    assert_eq!(String::from_utf8_lossy(&sent.body), body);
    assert_eq!(sent.header("x-tenant"), "", "a header of a setting that is not given is left out");

    let failed = server.cli(&["connections", "test", "bank"]).failure(1);
    assert!(failed.contains("the API answered 200: the token of •••••• has ended"), "{failed}");
    let status = server.data("/api/v1/connections/bank")["status"].clone();
    assert_eq!((&status["state"], &status["code"]), (&json!("failed"), &json!("response.unexpected")), "{status}");

    // The first page of a list is asked for alike, whoever asks.
    server.cli(&["call", "bank.list", "--first-page"]).success();
    let recipe = "kind: recipe\nname: r\nspec:\n  trigger: {webhook: {endpoint: e}}\n  steps: [{id: list, call: {connection: bank, action: list}}]\n";
    server.apply(&format!("{}---\n{recipe}", open_endpoint("e")));
    let event = server.accept(&server.path_of("e"), &json!({}));
    assert_eq!(server.job_of(&event)["status"], "succeeded");
    server.cli(&["call", "bank.list"]).success();
    let targets: Vec<String> = upstream.seen()[2..].iter().map(|seen| seen.target.clone()).collect();
    assert_eq!(targets, ["/payments?page=1&size=50"; 3]);
}

#[test]
fn a_secret_longer_than_what_an_error_shows_is_hidden_whole() {
    let token: String = "canary-long-".chars().chain("0123456789abcdef".chars().cycle().take(600)).collect();
    let said = format!("the token is rejected: {token}, get another one");
    let upstream = Upstream::start(move |_, seen| match seen.target.as_str() {
        "/me" => Reply::Json(401, json!({"errors": said})),
        _ => Reply::Json(400, json!({"errors": [said]})),
    });
    let server = Server::start(&Options::egress().env("LINKSPAN_SECRET_BANK", &token));
    let connection = format!(
        "kind: secret\nname: token\nspec: {{env: LINKSPAN_SECRET_BANK}}\n---\nkind: account\nname: robot\nspec: {{bearer: {{token: {{secret: token}}}}}}\n---\n\
         kind: connection\nname: bank\nspec: {{connector: bank, base_url: '{}', account: robot}}\n---\n",
        upstream.url()
    );
    let recipe = "---\nkind: recipe\nname: r\nspec:\n  trigger: {webhook: {endpoint: e}}\n  steps: [{id: pay, call: {connection: bank, action: pay}}]\n---\n";
    server.apply(&(connection + BANK + recipe + &open_endpoint("e")));
    let call = server.api("POST", "/api/v1/connections/bank/call", Some(&json!({"action": "pay"}))).text();
    let test = server.cli(&["connections", "test", "bank"]).failure(1);
    let event = server.accept(&server.path_of("e"), &json!({}));
    let job = server.job_of(&event).to_string();
    let check = server.cli(&["check"]).success();
    for shown in [call, test, job, check, server.log()] {
        assert!(!shown.contains("canary-long"), "{shown}");
        assert!(!shown.contains("0123456789abcdef0123"), "{shown}");
    }
}
