//! The operator API: documents of every kind, and the checks that stand before every operation.

use serde_json::{Value, json};

use crate::harness::{Options, Server, open_endpoint, request};

/// For every kind: a document's spec and another one, each complete with what `GROUND` gives.
fn kinds() -> Vec<(&'static str, Value, Value)> {
    let recipe = |path: &str| {
        json!({
            "trigger": {"webhook": {"endpoint": "ground"}},
            "steps": [{"id": "a", "request": {"connection": "ground", "method": "GET", "path": path}}]
        })
    };
    let sync = |table: &str| json!({"from": {"endpoint": "ground"}, "to": {"destination": "ground", "schema": "s", "table": table}});
    vec![
        ("secrets", json!({"env": "LINKSPAN_SECRET_A"}), json!({"file": "a"})),
        ("accounts", json!({"none": {}}), json!({"headers": {"X-Key": {"secret": "ground"}}})),
        ("connections", json!({"base_url": "https://a.test"}), json!({"base_url": "https://b.test/api"})),
        ("endpoints", json!({"verify": "none"}), json!({"verify": "none", "format": "json"})),
        ("recipes", recipe("/a"), recipe("/b")),
        ("destinations", json!({"sqlite": {"path": "a.db"}}), json!({"sqlite": {"path": "b.db"}})),
        ("syncs", sync("a"), sync("b")),
    ]
}

/// What the documents of `kinds` refer to, each used by another one.
const GROUND: &str = "kind: secret
name: ground
spec: {value: hunter2}
---
kind: account
name: ground
spec: {headers: {X-Key: {secret: ground}}}
---
kind: connection
name: ground
spec: {base_url: 'https://a.test', account: ground}
---
kind: connection
name: to-endpoint
spec: {endpoint: target}
---
kind: endpoint
name: target
spec: {verify: none}
---
kind: endpoint
name: ground
spec: {verify: {token: {header: X-Key, secrets: [{secret: ground}]}}}
---
kind: destination
name: ground
spec: {sqlite: {path: ground.db}}
---
kind: recipe
name: ground
spec:
  trigger: {webhook: {endpoint: ground}}
  steps: [{id: a, request: {connection: ground, method: GET, path: /}}]
---
kind: sync
name: ground
spec: {from: {endpoint: ground}, to: {destination: ground, schema: s, table: t}}
";

fn server() -> Server {
    let server = Server::start(&Options::default());
    server.apply(GROUND);
    server
}

#[test]
fn document_of_every_kind_is_made_read_changed_and_deleted() {
    let server = server();
    for (plural, first, second) in kinds() {
        let all = format!("/api/v1/{plural}");
        let one = format!("{all}/mine");

        let made = server.api("POST", &all, Some(&json!({"name": "mine", "spec": first})));
        assert_eq!(made.status, 201, "{plural}: {made:?}");
        assert_eq!(made.header("etag"), "\"1\"", "{plural}");
        server.api("POST", &all, Some(&json!({"name": "mine", "spec": first}))).assert_error(409, "resource.conflict");

        let got = server.get(&one);
        assert_eq!((got.status, got.header("etag")), (200, "\"1\""), "{plural}");
        assert_eq!(got.json(), made.json(), "{plural}");
        let data = got.json()["data"].clone();
        assert_eq!((&data["name"], &data["spec"], &data["revision"]), (&json!("mine"), &first, &json!(1)), "{plural}");
        assert!(data["id"].is_string() && data["created_at"].is_string() && data["status"].is_object(), "{data:#}");

        let listed = server.data(&all);
        assert!(listed.as_array().unwrap().contains(&data), "{plural}: {listed:#}");

        let replaced = server.api_with("PUT", &one, &[("If-Match", "\"1\"")], Some(&json!({"spec": second})));
        assert_eq!((replaced.status, replaced.header("etag")), (200, "\"2\""), "{plural}: {replaced:?}");
        assert_eq!(replaced.json()["data"]["spec"], second, "{plural}");
        assert_eq!(replaced.json()["data"]["id"], data["id"], "{plural}");

        let patch = json!({"description": "mine", "labels": {"team": "a"}});
        server.api_with("PATCH", &one, &[("If-Match", "\"1\"")], Some(&patch)).assert_error(412, "resource.revision");
        server
            .api_with("PUT", &one, &[("If-Match", "\"9\"")], Some(&json!({"spec": first})))
            .assert_error(412, "resource.revision");
        server.api_with("DELETE", &one, &[("If-Match", "\"1\"")], None).assert_error(412, "resource.revision");
        let patched = server.api_with("PATCH", &one, &[("If-Match", "\"2\"")], Some(&patch)).json()["data"].clone();
        assert_eq!(patched["description"], "mine", "{plural}");
        assert_eq!((&patched["spec"], &patched["revision"]), (&second, &json!(3)), "{plural}");

        let unchanged = server.api("PUT", &one, Some(&patched));
        assert_eq!(unchanged.status, 200, "what was read can be written back: {unchanged:?}");

        let deleted = server.api("DELETE", &one, None);
        assert_eq!((deleted.status, deleted.body.len()), (204, 0), "{plural}");
        for method in ["GET", "PATCH", "DELETE"] {
            let body = (method == "PATCH").then(|| json!({}));
            server.api(method, &one, body.as_ref()).assert_error(404, "resource.not_found");
        }
        let made = server.api("PUT", &one, Some(&json!({"spec": first})));
        assert_eq!(made.status, 201, "PUT makes what is not there: {made:?}");
        server
            .api_with("PUT", &format!("{all}/other"), &[("If-Match", "\"1\"")], Some(&json!({"spec": first})))
            .assert_error(404, "resource.not_found");
    }
}

#[test]
fn document_that_another_one_uses_cannot_be_deleted() {
    let server = server();
    for (kind, by) in [
        ("secrets/ground", "account/ground"),
        ("accounts/ground", "connection/ground"),
        ("connections/ground", "recipe/ground"),
        ("endpoints/ground", "recipe/ground"),
        ("endpoints/target", "connection/to-endpoint"),
        ("destinations/ground", "sync/ground"),
    ] {
        let answer = server.api("DELETE", &format!("/api/v1/{kind}"), None);
        answer.assert_error(409, "resource.conflict");
        assert!(answer.text().contains(by), "{kind}: {answer:?}");
    }
}

#[test]
fn reference_to_nothing_is_refused_with_a_near_match() {
    let server = server();
    for (plural, spec, path) in [
        ("accounts", json!({"headers": {"X-Key": {"secret": "grond"}}}), "spec.headers.X-Key"),
        ("connections", json!({"base_url": "https://a.test", "account": "grond"}), "spec.account"),
        ("connections", json!({"endpoint": "grond"}), "spec.endpoint"),
        (
            "endpoints",
            json!({"verify": {"token": {"header": "X-Key", "secrets": [{"secret": "grond"}]}}}),
            "spec.verify.token.secrets[0]",
        ),
        (
            "syncs",
            json!({"from": {"endpoint": "grond"}, "to": {"destination": "ground", "schema": "s", "table": "u"}}),
            "spec.from.endpoint",
        ),
    ] {
        let answer = server.api("POST", &format!("/api/v1/{plural}"), Some(&json!({"name": "mine", "spec": spec})));
        answer.assert_error(422, "document.invalid");
        let fault = answer.json()["error"]["faults"][0].clone();
        assert_eq!(fault["path"], path, "{fault:#}");
        assert_eq!(fault["hint"], "did you mean `ground`?", "{fault:#}");
    }
}

#[test]
fn whole_answers_look_like_this() {
    let server = server();
    let steady = |mut value: Value| {
        for field in ["id", "created_at", "updated_at"] {
            value["data"][field] = field.to_ascii_uppercase().into();
        }
        serde_json::to_string_pretty(&value).unwrap()
    };
    insta::assert_snapshot!(steady(server.get("/api/v1/secrets/ground").json()), @r#"
    {
      "data": {
        "kind": "secret",
        "name": "ground",
        "spec": {},
        "labels": {},
        "id": "ID",
        "revision": 1,
        "created_at": "CREATED_AT",
        "updated_at": "UPDATED_AT",
        "status": {
          "has_value": true,
          "reason": null
        },
        "managed_by": "apply"
      }
    }
    "#);
    let path = server.path_of("ground");
    let endpoint = steady(server.get("/api/v1/endpoints/ground").json());
    insta::assert_snapshot!(endpoint.replace(&path, "/webhooks/KEY").replace(&server.public.to_string(), "PUBLIC"), @r#"
    {
      "data": {
        "kind": "endpoint",
        "name": "ground",
        "spec": {
          "verify": {
            "token": {
              "header": "X-Key",
              "secrets": [
                {
                  "secret": "ground"
                }
              ]
            }
          }
        },
        "labels": {},
        "id": "ID",
        "revision": 1,
        "created_at": "CREATED_AT",
        "updated_at": "UPDATED_AT",
        "status": {
          "url": "http://PUBLIC/webhooks/KEY",
          "ready": true,
          "reason": null,
          "unverified": false
        },
        "managed_by": "apply"
      }
    }
    "#);
    insta::assert_snapshot!(server.get("/api/v1/endpoints/nobody").text(), @r#"{"error":{"code":"resource.not_found","description":"endpoint/nobody does not exist"}}"#);
    let wrong = server.api("POST", "/api/v1/endpoints", Some(&json!({"name": "x", "spec": {"verfy": "none"}})));
    insta::assert_snapshot!(serde_json::to_string_pretty(&wrong.json()).unwrap(), @r#"
    {
      "error": {
        "code": "document.invalid",
        "description": "endpoint/x: spec.verfy: unknown field `verfy`, expected one of `connector`, `webhook`, `secrets`, `format`, `verify`, `dedupe`, `limits`, `enabled` (did you mean `verify`?)",
        "faults": [
          {
            "subject": "endpoint/x",
            "path": "spec.verfy",
            "reason": "unknown field `verfy`, expected one of `connector`, `webhook`, `secrets`, `format`, `verify`, `dedupe`, `limits`, `enabled`",
            "hint": "did you mean `verify`?"
          }
        ]
      }
    }
    "#);
    assert_eq!(wrong.status, 422);
}

/// Every operation of the API's description: method, a path with its parameters filled, the operation.
fn operations(server: &Server) -> Vec<(String, String, Value)> {
    let document = request(server.operator, "GET", "/openapi.json", &[], b"").json();
    let paths = document["paths"].as_object().unwrap();
    let mut operations = Vec::new();
    for (path, methods) in paths {
        let filled = path.replace("{name}", "ground").replace("{id}", "0").replace("{table}", "s.t");
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((method.to_ascii_uppercase(), filled.clone(), operation.clone()));
        }
    }
    operations
}

#[test]
fn every_operation_wants_a_token_unless_its_description_says_otherwise() {
    let server = server();
    let mut open = Vec::new();
    for (method, path, operation) in operations(&server) {
        if operation.get("security").is_none() {
            open.push(path);
            continue;
        }
        for headers in [&[][..], &[("Authorization", "Bearer wrong")], &[("Authorization", "Basic Og==")]] {
            let answer = request(server.operator, &method, &path, headers, b"");
            assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{method} {path}");
        }
    }
    assert_eq!(open, ["/livez", "/readyz", "/metrics", "/openapi.json"], "this list may only shrink");
}

#[test]
fn other_sites_and_names_cannot_use_a_browsers_reach() {
    let server = server();
    let own = format!("http://{}", server.operator);
    let port = server.operator.port();
    for (name, value) in [
        ("Host", "evil.test".to_owned()),
        ("Host", format!("evil.test:{port}")),
        ("Host", format!("127.0.0.1.evil.test:{port}")),
        ("Origin", "https://evil.test".to_owned()),
        ("Origin", "null".to_owned()),
        ("Origin", format!("http://127.0.0.1:{}", port.wrapping_add(1))),
    ] {
        for path in ["/api/v1/version", "/metrics", "/nothing"] {
            let answer = server.api_with("GET", path, &[(name, &value)], None);
            assert_eq!(answer.status, 403, "{name}: {value} {path}: {answer:?}");
        }
    }
    for (name, value) in [("Origin", own), ("Host", format!("localhost:{port}")), ("Host", format!("[::1]:{port}"))] {
        assert_eq!(server.api_with("GET", "/api/v1/version", &[(name, &value)], None).status, 200, "{name}: {value}");
    }
}

#[test]
fn unknown_query_parameter_is_refused_by_every_operation() {
    let server = server();
    for (method, path, _) in operations(&server) {
        let answer = server.api(&method, &format!("{path}?unknwon=1"), None);
        answer.assert_error(400, "query.unknown");
    }
}

#[test]
fn query_parameter_is_checked() {
    let server = server();
    for query in
        ["limit=0", "limit=1001", "limit=x", "limit=1&limit=2", "status=done", "event=x", "recipe=A", "cursor=x"]
    {
        server.get(&format!("/api/v1/jobs?{query}")).assert_error(400, "query.invalid");
    }
    server.get("/api/v1/jobs?recipe=caf%E9").assert_error(400, "query.invalid");
    server.get("/api/v1/export?defaults=maybe").assert_error(400, "query.invalid");
}

#[test]
fn body_must_be_json_and_say_so() {
    let server = server();
    let post = |content_type: &str, body: &str| {
        let bearer = format!("Bearer {}", server.token);
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", content_type)];
        request(server.operator, "POST", "/api/v1/endpoints", &headers, body.as_bytes())
    };
    post("text/plain", "{}").assert_error(415, "body.content_type");
    post("application/json", "{").assert_error(400, "body.malformed");
    post("application/json", "").assert_error(400, "body.missing");
    post("application/json", "[]").assert_error(422, "document.invalid");
    post("application/json", &format!("\"{}\"", "x".repeat(9 << 20))).assert_error(413, "body.too_large");
    server
        .api_with("PUT", "/api/v1/endpoints/a", &[("If-Match", "x")], Some(&json!({})))
        .assert_error(400, "request.if_match");
}

#[test]
fn a_body_may_be_compressed_or_in_another_character_set() {
    let server = server();
    let token = format!("Bearer {}", server.token);
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let headers: Vec<(&str, &str)> = [("Authorization", token.as_str())].iter().chain(headers).copied().collect();
        request(server.operator, "POST", "/api/v1/apply", &headers, body)
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, br#"{"documents": []}"#).unwrap();
    let packed = encoder.finish().unwrap();
    let json = ("Content-Type", "application/json");
    assert_eq!(post(&[json, ("Content-Encoding", "gzip")], &packed).status, 200);
    post(&[json, ("Content-Encoding", "gzip")], b"{}").assert_error(400, "body.malformed");
    post(&[json, ("Content-Encoding", "compress")], &packed).assert_error(415, "body.coding");
    assert_eq!(post(&[json], b"\xef\xbb\xbf{\"documents\": []}").status, 200);
    let latin = ("Content-Type", "application/json; charset=iso-8859-1");
    let answer = post(&[latin], b"{\"documents\": [], \"set\": \"caf\xe9\"}");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn what_is_not_there_is_404_and_a_wrong_method_405() {
    let server = server();
    for path in [
        "/api/v1/nothing",
        "/",
        "/api/v1/endpoints/NOT-A-NAME",
        "/api/v1/events/x",
        "/api/v1/jobs/x",
        "/api/v1/tables/a.b",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    server.api("DELETE", "/api/v1/version", None).assert_error(405, "request.method");
}

#[test]
fn lists_come_in_pages() {
    let server = server();
    for name in ["a", "b", "c"] {
        server.apply(&format!("kind: secret\nname: {name}\nspec: {{value: x}}\n"));
    }
    let mut names = Vec::new();
    let mut path = "/api/v1/secrets?limit=2".to_owned();
    loop {
        let page = server.get(&path).json();
        let items = page["data"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/secrets?limit=2&cursor={next}");
    }
    assert_eq!(names, ["a", "b", "c", "ground"]);
}

#[test]
fn event_whose_body_is_lost_is_shown_without_it() {
    let server = Server::start(&Options::default());
    server.apply(&open_endpoint("in"));
    let path = server.path_of("in");
    let large = json!({"n": "x".repeat(70_000)});
    let ids = [server.accept(&path, &json!(1)), server.accept(&path, &large), server.accept(&path, &json!(3))];
    server.dispatched();
    let whole = server.data(&format!("/api/v1/events/{}", ids[1]));
    assert!(whole.get("body_lost").is_none() && whole["body"].as_str() == Some(&large.to_string()));
    for file in std::fs::read_dir(server.data.join("spool")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }

    let lists = ["/api/v1/events", "/api/v1/events?endpoint=in", "/api/v1/events?after=first&endpoint=in"];
    for (path, order) in lists.into_iter().zip([[2, 1, 0], [2, 1, 0], [0, 1, 2]]) {
        let list = server.data(path);
        let listed: Vec<&str> = list.as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
        assert_eq!(listed, order.map(|n| ids[n].as_str()), "{path}");
        let lost = &list[1];
        assert!(lost["body_lost"].as_str().unwrap().contains("cannot be read"), "{lost}");
        assert_eq!((&lost["size"], lost.get("body"), lost.get("body_base64")), (&whole["size"], None, None));
        assert_eq!(lost["headers"], whole["headers"]);
        assert_eq!((list[0].get("body_lost"), &list[order[0]]["body"]), (None, &json!("1")));
    }
    let shown = server.data(&format!("/api/v1/events/{}", ids[1]));
    assert!(shown["body_lost"].is_string(), "{shown}");
    assert!(server.cli(&["events", "show", &ids[1]]).success().contains("body lost: the body in spool file"));
    server.api("POST", &format!("/api/v1/events/{}/replay", ids[1]), None).assert_error(409, "event.body_lost");
}

#[test]
fn events_come_newest_first_in_pages_without_gap_or_overlap() {
    let server = Server::start(&Options::default());
    server.apply("kind: endpoint\nname: in\nspec: {verify: none}\n");
    let path = server.path_of("in");
    let mut sent: Vec<String> = (0..7).map(|n| server.accept(&path, &json!(n))).collect();
    let read = |query: &str| {
        let mut read = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = server.get(&format!("/api/v1/events?limit=3{query}{cursor}")).json();
            read.extend(page["data"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { return read };
            cursor = format!("&cursor={next}");
        }
    };
    assert_eq!(read("&after=first"), sent);
    sent.reverse();
    assert_eq!(read(""), sent);
}
