//! Tests of connections: what each outcome looks like, and what makes a connection untested again.

use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::harness::{Options, Reply, Server, Upstream};

fn documents(connection: &str) -> String {
    format!(
        "kind: secret
name: key
spec: {{value: hunter2!}}
---
kind: account
name: robot
spec: {{query: {{key: {{secret: key}}}}}}
---
kind: connection
name: desk
spec: {connection}
"
    )
}

fn with_account(base: &str, test: &str) -> String {
    documents(&format!("{{base_url: '{base}', account: robot, test: {test}}}"))
}

fn status(server: &Server) -> Value {
    server.data("/api/v1/connections/desk")["status"].clone()
}

/// Tests connection `desk` by the API; gives its status.
fn test(server: &Server) -> Value {
    let answer = server.api("POST", "/api/v1/connections/desk/test", None);
    assert_eq!(answer.status, 200, "{answer:?}");
    let data = answer.json()["data"].clone();
    assert_eq!(data, status(server), "what the call answers is kept");
    data
}

/// An address where nobody listens.
fn unheard() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn works_and_is_shown_as_connected() {
    let upstream = Upstream::ok();
    let server = Server::start(&Options::egress());
    server.apply(&with_account(&format!("{}/api", upstream.url()), "{path: '/users/me?x=1', expect: [200]}"));
    let before = status(&server);
    assert_eq!((&before["state"], &before["tested_at"]), (&json!("untested"), &Value::Null), "{before:#}");

    let after = test(&server);
    assert_eq!((&after["state"], &after["http_status"]), (&json!("connected"), &json!(200)), "{after:#}");
    assert!(after["tested_at"].is_string() && after["duration_ms"].is_u64() && after["reason"].is_null(), "{after:#}");
    assert_eq!(upstream.seen()[0].method, "GET");
    assert_eq!(upstream.seen()[0].target, "/api/users/me?x=1&key=hunter2%21");

    let said = server.cli(&["connections", "test", "desk"]).success();
    assert!(said.starts_with("connected: status 200 in "), "{said}");
    assert_eq!(server.cli_json(&["connections", "test", "desk"])["data"]["state"], "connected");
    let list = server.cli(&["connections"]).success();
    assert!(list.contains("STATE") && list.contains("connected"), "{list}");
}

#[test]
fn failure_says_why() {
    let upstream = Upstream::start(|_, seen| match seen.target.split(['/', '?']).nth(1) {
        Some("hang") => Reply::Hang,
        // Who sends no password is not told of it.
        Some(status) if seen.target.ends_with("?nobody") => Reply::Json(status.parse().unwrap(), json!({})),
        Some(status) => Reply::Json(status.parse().unwrap(), json!({"error": "no, hunter2! is wrong"})),
        None => unreachable!(),
    });
    let server = Server::start(&Options::egress());
    let url = upstream.url();
    let nobody = format!("http://{}", unheard());
    let tls = url.replace("http://", "https://");
    for (base, test_spec, code, reason) in [
        (
            &url,
            "{path: /401}",
            "response.status",
            "answered 401 Unauthorized: it does not accept the account's credentials",
        ),
        (&url, "{path: /403}", "response.status", "answered 403 Forbidden: it does not let these credentials"),
        (&url, "{path: /500}", "response.status", "answered 500 Internal Server Error; 2xx was expected"),
        (&url, "{path: /200, expect: [204, 3xx]}", "response.status", "answered 200 OK; 204 or 3xx was expected"),
        (&url, "{path: /302}", "response.status", "a redirect, which is not followed"),
        (&nobody, "{path: /}", "outbound.connect", "cannot connect to"),
        (&tls, "{path: /}", "outbound.tls", "cannot set up TLS with"),
        (&"http://10.1.2.3".to_owned(), "{path: /}", "outbound.refused", "10.1.2.3 is not called"),
    ] {
        server.apply(&with_account(base, test_spec));
        let failed = test(&server);
        assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!(code)), "{failed:#}");
        assert!(failed["reason"].as_str().unwrap().contains(reason), "{failed:#}");
        let is_answered = code == "response.status";
        assert_eq!(failed["http_status"].is_u64(), is_answered, "{failed:#}");
        assert_eq!(
            failed["answer"].as_str().is_some_and(|text| text.contains("no, •••••• is wrong")),
            is_answered,
            "{failed:#}"
        );

        let said = server.cli(&["connections", "test", "desk"]).failure(1);
        assert!(said.contains("connection desk does not work: ") && said.contains(reason), "{said}");
        let json = server.cli(&["connections", "test", "desk", "--output", "json"]);
        assert_eq!(json.code, 1);
        assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap()["data"]["state"], "failed");
        assert!(!format!("{failed} {said} {json:?} {}", server.log()).contains("hunter2"), "{failed:#}");
        let check = server.cli(&["check"]).success();
        assert!(check.contains("connection/desk") && check.contains(reason), "{check}");
    }

    let connection = "{base_url: URL, timeout: 200ms, timeout_message: The desk is away., test: {path: /hang}}";
    server.apply(&documents(&connection.replace("URL", &url)));
    let failed = test(&server);
    assert_eq!(failed["code"], "outbound.timeout", "{failed:#}");
    assert!(failed["reason"].as_str().unwrap().starts_with("The desk is away. (no answer from"), "{failed:#}");
    assert!(failed["duration_ms"].as_u64().unwrap() >= 200, "{failed:#}");

    server.apply(&documents(&format!("{{base_url: '{url}', test: {{path: /401?nobody}}}}")));
    assert!(test(&server)["reason"].as_str().unwrap().contains("the connection has no account"));
}

#[test]
fn changes_make_it_untested_again() {
    let upstream = Upstream::ok();
    let server = Server::start(&Options::egress());
    let documents = with_account(&upstream.url(), "{path: /me}");
    server.apply(&documents);
    let connected = |server: &Server| assert_eq!(test(server)["state"], "connected");
    let untested = |server: &Server, why: &str| assert_eq!(status(server)["state"], "untested", "{why}");

    connected(&server);
    server.apply(&documents);
    assert_eq!(status(&server)["state"], "connected", "nothing has changed");
    server.cli_with_input(&["secrets", "set", "key"], "another").success();
    untested(&server, "the secret");
    connected(&server);
    server.apply(&documents.replace("key: {secret", "token: {secret"));
    untested(&server, "the account");
    connected(&server);
    server.apply(&documents.replace("path: /me", "path: /you"));
    untested(&server, "the connection");
    connected(&server);

    let server = server.restart(&Options::egress());
    assert_eq!(status(&server)["state"], "connected", "it is kept");
    server.cli(&["connections", "delete", "desk"]).success();
    server.apply(&documents);
    untested(&server, "a connection of the same name");
}

#[test]
fn without_a_test_only_reaching_can_be_seen() {
    let upstream = Upstream::start(|_, _| Reply::Json(404, json!({})));
    let server = Server::start(&Options::egress());
    let base = format!("base_url: '{}/api'", upstream.url());
    for account in ["", ", account: plain"] {
        server.apply(&format!(
            "kind: account\nname: plain\nspec: {{none: {{}}}}\n---\n{}",
            documents(&format!("{{{base}{account}}}"))
        ));
        let status = test(&server);
        assert_eq!((&status["state"], &status["http_status"]), (&json!("connected"), &json!(404)), "{status:#}");
        assert_eq!(upstream.seen().last().unwrap().target, "/api");
    }
    for connection in [format!("{{{base}, account: robot}}"), "{hosts: [desk.example.com]}".to_owned(), "{}".to_owned()]
    {
        server.apply(&documents(&connection));
        let refused = server.api("POST", "/api/v1/connections/desk/test", None);
        refused.assert_error(422, "connection.no_test");
        assert!(refused.text().contains("`test: {"), "{refused:?}");
        server.cli(&["connections", "test", "desk"]).failure(5);
        assert_eq!(status(&server)["state"], "untested");
    }
    server.api("POST", "/api/v1/connections/nobody/test", None).assert_error(404, "resource.not_found");
    server.cli(&["connections", "test", "nobody"]).failure(3);
}

#[test]
fn account_that_cannot_be_used_is_a_failure() {
    let server = Server::start(&Options::egress());
    server.apply(
        &with_account("https://desk.example.com", "{path: /}").replace("value: hunter2!", "env: LINKSPAN_SECRET_X"),
    );
    let failed = test(&server);
    assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!("account.not_ready")), "{failed:#}");
}

#[test]
fn change_during_a_test_leaves_it_untested() {
    let upstream = Upstream::start(|_, _| Reply::Hang);
    let server = Server::start(&Options::egress());
    let documents = documents(&format!("{{base_url: '{}', timeout: 1s, test: {{path: /}}}}", upstream.url()));
    server.apply(&documents);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| server.api("POST", "/api/v1/connections/desk/test", None));
        upstream.wait_for(1);
        server.apply(&documents.replace("timeout: 1s", "timeout: 2s"));
        let answer = call.join().unwrap();
        assert_eq!(answer.json()["data"]["state"], "untested", "{answer:?}");
    });
}
