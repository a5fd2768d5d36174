//! Accounts: what they add to requests, where that may go, and that it is shown nowhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Options, Seen, Server, Upstream, open_endpoint};

/// The value of the secret `key` in every test here.
const KEY: &str = "k3y/with+signs & blank-free";

fn documents(account: &str, connection: &str, step: &str) -> String {
    format!(
        "kind: secret
name: key
spec: {{value: '{KEY}'}}
---
kind: secret
name: token
spec: {{value: mF_9.B5f-4.1JqM}}
---
kind: account
name: robot
spec: {account}
---
kind: connection
name: desk
spec: {connection}
---
kind: recipe
name: tell
spec:
  trigger: {{webhook: {{endpoint: in}}}}
  steps: [{{id: tell, request: {{connection: desk, method: GET, {step}}}}}]
---
{}",
        open_endpoint("in")
    )
}

/// One request of a recipe through an account of this kind: what the upstream saw, and the job.
fn call(account: &str, path: &str) -> (Server, Seen, Value) {
    let upstream = Upstream::start(|_, seen| {
        let echo: Vec<_> = seen.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        crate::harness::Reply::Json(200, json!({"target": seen.target, "headers": echo}))
    });
    let server = Server::start(&Options::egress().env("LINKSPAN_LOG", "trace"));
    let connection = format!("{{base_url: {}, account: robot}}", upstream.url());
    server.apply(&documents(account, &connection, &format!("path: '{path}'")));
    let job = server.job_of(&server.accept(&server.path_of("in"), &json!({})));
    assert_eq!(job["status"], "succeeded", "{job:#}");
    let seen = upstream.seen().remove(0);
    (server, seen, job)
}

/// Nothing that a person or a backup sees holds the secret in any form.
fn assert_hidden(server: &Server, job: &Value) {
    let exported = server.cli(&["export"]).success();
    for form in [KEY, "k3y/with", "k3y%2Fwith", "azN5L3dpdGg", "mF_9.B5f", "bUZfOS5CNWY"] {
        for (place, text) in [("job", job.to_string()), ("log", server.log()), ("export", exported.clone())] {
            assert!(!text.contains(form), "{form} stands in the {place}");
        }
        assert_eq!(server.files_with(form), Vec::<std::path::PathBuf>::new(), "{form}");
    }
}

#[test]
fn query_is_sent_encoded_and_shown_nowhere() {
    let (server, seen, job) = call("{query: {api key: {secret: key}, v: '2'}}", "/a?q=1&v=mine");
    assert_eq!(seen.target, "/a?q=1&api%20key=k3y%2Fwith%2Bsigns%20%26%20blank-free&v=2");
    let shown = job["steps"][0]["input"]["url"].as_str().unwrap();
    assert!(shown.ends_with("/a?q=1&api%20key=••••••&v=2"), "{shown}");
    assert_hidden(&server, &job);
}

#[test]
fn bearer_is_sent_as_one_token_and_shown_nowhere() {
    let (server, seen, job) = call("{bearer: {token: {secret: token}}}", "/a");
    assert_eq!(seen.header("authorization"), "Bearer mF_9.B5f-4.1JqM");
    assert_hidden(&server, &job);
}

/// A bearer token, and what others make of it: in hexadecimal digits, percent-encoded, as references and escapes, in
/// base64 within a longer text.
const TOKEN: &str = "Kx7/pQ+2vR=9wLaZ";

fn forms() -> Vec<String> {
    let each = |write: fn(u8) -> String| TOKEN.bytes().map(write).collect::<String>();
    let mut forms = vec![
        TOKEN.to_owned(),
        TOKEN.to_uppercase(),
        TOKEN.to_lowercase(),
        hex::encode(TOKEN),
        hex::encode_upper(TOKEN),
        each(|byte| format!("%{byte:02X}")),
        TOKEN.replace('+', "%2B").replace('=', "%3D"),
        each(|byte| format!("&#{byte};")),
        each(|byte| format!("&#x{byte:x};")),
        each(|byte| format!("\\u{byte:04x}")),
    ];
    forms.extend(["", "a", "ab"].map(|before| STANDARD.encode(format!("{before}{TOKEN} and more"))));
    forms
}

#[test]
fn no_form_that_apis_and_filters_make_of_a_token_is_shown() {
    let upstream = Upstream::start(|n, _| match n {
        0 => crate::harness::Reply::Json(200, json!({"plain": TOKEN, "forms": forms()})),
        _ => crate::harness::Reply::Json(200, json!({})),
    });
    let server = Server::start(&Options::egress().env("LINKSPAN_LOG", "trace"));
    server.apply(&format!(
        "kind: secret
name: token
spec: {{value: '{TOKEN}'}}
---
kind: account
name: robot
spec: {{bearer: {{token: {{secret: token}}}}}}
---
kind: connection
name: desk
spec: {{base_url: {}, account: robot}}
---
kind: recipe
name: tell
spec:
  trigger: {{webhook: {{endpoint: in}}}}
  steps:
    - {{id: one, request: {{connection: desk, method: GET, path: /a}}}}
    - id: two
      request:
        connection: desk
        method: POST
        path: /b
        json:
          hex: '{{{{ steps.one.body | json | hex }}}}'
          base64: \"{{{{ ('x' ~ steps.one.body.plain ~ 'y') | base64 }}}}\"
          upper: '{{{{ steps.one.body.plain | upper }}}}'
          url: '{{{{ steps.one.body.plain | url_encode }}}}'
---
{}",
        upstream.url(),
        open_endpoint("in")
    ));
    let job = server.job_of(&server.accept(&server.path_of("in"), &json!({})));
    assert_eq!(job["status"], "succeeded", "{job:#}");
    // What was sent did hold it: the filters have run.
    let sent = upstream.seen()[1].json();
    assert!(sent["hex"].as_str().unwrap().contains(&hex::encode(TOKEN)) && sent["upper"] == TOKEN.to_uppercase());
    let shown = job.to_string();
    for form in forms() {
        // The ends of a longer text in base64 are not the secret's.
        let middle = &form[4..form.len() - 16.min(form.len() / 2)];
        assert!(!shown.contains(middle), "{form}");
        assert!(!server.log().contains(middle), "{form}");
    }
    for name in ["hex", "base64", "upper", "url"] {
        let text = job["steps"][1]["input"]["body"]["text"].as_str().unwrap_or_else(|| panic!("{job:#}"));
        let body: Value = serde_json::from_str(text).unwrap();
        assert!(body[name].as_str().unwrap().contains("••••••"), "{name}: {body:#}");
    }
}

#[test]
fn custom_sends_basic_headers_and_query_together() {
    let account = "{custom: {basic: {user: joe, password: {secret: key}}, headers: {X-Key: {secret: token}, X-T: acme}, \
                   query: {k: {secret: key}}}}";
    let (server, seen, job) = call(account, "/a");
    assert!(seen.header("authorization").starts_with("Basic am9lOmszeS93aXRoK3NpZ25z"), "{seen:?}");
    assert_eq!((seen.header("x-key"), seen.header("x-t")), ("mF_9.B5f-4.1JqM", "acme"));
    assert_eq!(seen.target, "/a?k=k3y%2Fwith%2Bsigns%20%26%20blank-free");
    assert_hidden(&server, &job);
}

#[test]
fn account_needs_hosts_and_never_leaves_them() {
    let (upstream, other) = (Upstream::ok(), Upstream::ok());
    let server = Server::start(&Options::egress());
    let step = "url: '{{ trigger.body.url }}'";
    let refused = server.cli_with_input(
        &["apply", "-f", "-"],
        &documents("{headers: {X-Key: {secret: token}}}", "{account: robot}", step),
    );
    let complaint = refused.failure(5);
    assert!(complaint.contains("connection/desk: spec.account: an account needs hosts"), "{complaint}");
    assert!(complaint.contains("give base_url, or hosts"), "{complaint}");

    for connection in [
        format!("{{hosts: ['{}'], account: robot}}", upstream.address),
        format!("{{base_url: 'https://api.example.com', hosts: ['{}'], account: robot}}", upstream.address),
        format!("{{base_url: '{}/api', account: robot}}", upstream.url()),
    ] {
        server.apply(&documents("{headers: {X-Key: {secret: token}}}", &connection, step));
        let path = server.path_of("in");
        let before = upstream.seen().len();
        let job = server.job_of(&server.accept(&path, &json!({"url": format!("{}/x", upstream.url())})));
        assert_eq!(job["status"], "succeeded", "{connection}: {job:#}");
        assert_eq!(upstream.seen()[before].header("x-key"), "mF_9.B5f-4.1JqM");

        let evil = format!("http://localhost:{}/x", upstream.address.port());
        for url in [format!("{}/x", other.url()), evil] {
            let job = server.job_of(&server.accept(&path, &json!({"url": url})));
            assert_eq!(job["status"], "failed", "{connection} {url}: {job:#}");
            assert_eq!(job["error"]["code"], "request.url", "{job:#}");
            assert_eq!(job["error"]["field"], "url", "{job:#}");
        }
        assert_eq!((upstream.seen().len(), other.seen().len()), (before + 1, 0), "nothing was sent");
    }
}

#[test]
fn credentials_over_plain_http_are_warned_of() {
    let server = Server::start(&Options::default());
    let account = "{headers: {X-Key: {secret: token}}}";
    server.apply(&documents(account, "{base_url: 'HTTP://desk.example.com', account: robot}", "path: /"));
    let warnings = &server.data("/api/v1/connections/desk")["status"]["warnings"];
    assert!(warnings[0].as_str().unwrap().contains("go over plain http"), "{warnings}");
    let check = server.cli(&["check"]).success();
    assert!(check.lines().any(|line| line.contains("connection/desk") && line.contains("plain http")), "{check}");

    server.apply(&documents(account, "{hosts: [desk.example.com], account: robot}", "url: 'http://desk.example.com/'"));
    let warnings = &server.data("/api/v1/connections/desk")["status"]["warnings"];
    assert!(warnings[0].as_str().unwrap().contains("step `tell` of recipe/tell"), "{warnings}");

    for (account, base) in [(account, "https://desk.example.com"), ("{none: {}}", "http://desk.example.com")] {
        server.apply(&documents(account, &format!("{{base_url: '{base}', account: robot}}"), "path: /"));
        assert_eq!(server.data("/api/v1/connections/desk")["status"]["warnings"], json!([]), "{base}");
    }
}

#[test]
fn changed_secret_is_used_at_once() {
    let upstream = Upstream::ok();
    let server = Server::start(&Options::egress());
    let connection = format!("{{base_url: {}, account: robot}}", upstream.url());
    server.apply(&documents("{bearer: {token: {secret: token}}}", &connection, "path: /"));
    let path = server.path_of("in");
    for token in ["mF_9.B5f-4.1JqM", "second-token", "third-token"] {
        server.cli_with_input(&["secrets", "set", "token"], token).success();
        // Twice: once built, once remembered.
        for _ in 0..2 {
            server.job_of(&server.accept(&path, &json!({})));
            assert_eq!(upstream.seen().last().unwrap().header("authorization"), format!("Bearer {token}"));
        }
    }
    server.cli_with_input(&["secrets", "set", "token"], "two words").success();
    let job = server.job_of(&server.accept(&path, &json!({})));
    assert_eq!(job["error"]["code"], "account.not_ready", "{job:#}");
    assert!(!job.to_string().contains("two words"), "{job:#}");
}
