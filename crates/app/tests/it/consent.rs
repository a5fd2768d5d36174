//! Accounts that a user connects: the provider's page, the callback, and every answer that must not be taken.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::harness::{Ending, Options, Reply, Response, Seen, Server, Upstream, eventually, open_endpoint, request};

fn documents(provider: &str, more: &str) -> String {
    format!(
        "kind: secret
name: client
spec: {{value: cl13nt-secret}}
---
kind: account
name: robot
spec:
  oauth2:
    grant: authorization_code
    authorize_url: '{provider}/auth?prompt=consent'
    token_url: '{provider}/token'
    client_id: linkspan
    client_secret: {{secret: client}}
    scopes: [read, write]
{more}---
kind: connection
name: desk
spec: {{base_url: '{provider}', account: robot, test: {{path: /me}}}}
---
kind: recipe
name: tell
spec:
  trigger: {{webhook: {{endpoint: in}}}}
  steps: [{{id: tell, request: {{connection: desk, method: GET, path: /api}}}}]
---
{}",
        open_endpoint("in")
    )
}

fn field(seen: &Seen, name: &str) -> String {
    let text = String::from_utf8(seen.body.clone()).unwrap();
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    percent_encoding::percent_decode_str(found).decode_utf8().unwrap().into_owned()
}

/// A provider that takes the code `right-code` and refreshes `refresh-1` to nothing but a refusal.
fn provider() -> Upstream {
    let refused = Mutex::new(false);
    Upstream::start(move |_, seen| match (seen.target.as_str(), field(seen, "grant_type").as_str()) {
        ("/token", "authorization_code") if field(seen, "code") == "right-code" => {
            let life = if std::mem::replace(&mut *refused.lock().unwrap(), true) { 3600 } else { 1 };
            Reply::Json(
                200,
                json!({"access_token": "s3cret-access", "refresh_token": "s3cret-refresh", "expires_in": life, "scope": "read"}),
            )
        }
        ("/token", _) => Reply::Json(400, json!({"error": "invalid_grant", "error_description": "no s3cret-refresh"})),
        _ if seen.header("authorization") == "Bearer s3cret-access" => Reply::Json(200, json!({})),
        _ => Reply::Json(401, json!({})),
    })
}

fn account(server: &Server) -> Value {
    server.data("/api/v1/accounts/robot")["status"].clone()
}

/// Asks for a consent; gives the URL of the provider's page and its query.
fn connect(server: &Server) -> (String, Vec<(String, String)>) {
    let answer = server.api("POST", "/api/v1/accounts/robot/connect", None);
    assert_eq!(answer.status, 200, "{answer:?}");
    let url = answer.json()["data"]["authorize_url"].as_str().unwrap().to_owned();
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let query = url.split_once('?').unwrap().1.split('&').filter_map(|pair| pair.split_once('='));
    let query = query.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
    (url, query)
}

fn of(query: &[(String, String)], name: &str) -> String {
    query.iter().find(|(key, _)| key == name).map_or(String::new(), |(_, value)| value.clone())
}

/// What the browser is sent back with.
fn callback(server: &Server, query: &str) -> Response {
    request(server.public, "GET", &format!("/oauth/callback?{query}"), &[], b"")
}

#[test]
fn consent_connects_the_account() {
    let upstream = provider();
    let options = Options::egress().env("LINKSPAN_LOG", "trace");
    let server = Server::start(&options);
    server.apply(&documents(&upstream.url(), ""));
    let path = server.path_of("in");
    let before = account(&server);
    let callback_url = format!("http://{}/oauth/callback", server.public);
    assert_eq!((&before["state"], &before["callback_url"]), (&json!("new"), &json!(callback_url)), "{before:#}");
    let job = server.job_of(&server.accept(&path, &json!({})));
    assert_eq!(job["error"]["code"], "account.not_connected", "{job:#}");
    assert!(job["error"]["description"].as_str().unwrap().contains("linkspan accounts connect robot"), "{job:#}");
    assert!(upstream.seen().is_empty());

    let (url, query) = connect(&server);
    assert!(
        url.starts_with(&format!("{}/auth?prompt=consent&response_type=code&client_id=linkspan&", upstream.url())),
        "{url}"
    );
    assert_eq!((of(&query, "redirect_uri"), of(&query, "scope")), (callback_url.clone(), "read write".to_owned()));
    assert_eq!((of(&query, "code_challenge_method"), of(&query, "code_challenge").len()), ("S256".to_owned(), 43));
    let state = of(&query, "state");
    assert_eq!(state.len(), 64);
    assert_eq!(server.files_with(&state), Vec::<std::path::PathBuf>::new(), "only its hash is kept");

    let page = callback(&server, &format!("code=right-code&state={state}"));
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{page:?}");
    assert!(page.text().contains("Account robot is connected"), "{page:?}");
    for (name, value) in [("cache-control", "no-store"), ("referrer-policy", "no-referrer")] {
        assert_eq!(page.header(name), value, "{page:?}");
    }
    let call = upstream.seen().remove(0);
    assert_eq!(
        (field(&call, "grant_type"), field(&call, "redirect_uri")),
        ("authorization_code".to_owned(), callback_url)
    );
    assert_eq!(call.header("authorization"), "Basic bGlua3NwYW46Y2wxM250LXNlY3JldA==");
    let verifier = field(&call, "code_verifier");
    assert_eq!(verifier.len(), 64);

    let status = account(&server);
    assert_eq!((&status["state"], &status["scopes"]), (&json!("connected"), &json!("read")), "{status:#}");
    assert!(status["consented_at"].is_string() && status["consent_error"].is_null(), "{status:#}");
    let again = callback(&server, &format!("code=right-code&state={state}"));
    assert_eq!(again.status, 400, "a state is good once");

    // The token has ended after a second, and the provider refuses to refresh it.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    for _ in 0..2 {
        let job = server.job_of(&server.accept(&path, &json!({})));
        assert_eq!(job["error"]["code"], "account.not_connected", "{job:#}");
    }
    let status = account(&server);
    assert_eq!(status["state"], "reconnect", "{status:#}");
    assert!(
        status["reason"].as_str().unwrap().contains("(invalid_grant: no ••••••)") && status["since"].is_string(),
        "{status:#}"
    );
    let server = server.restart(&options);
    server.job_of(&server.accept(&path, &json!({})));
    let refreshes = upstream.seen().iter().filter(|seen| field(seen, "grant_type") == "refresh_token").count();
    assert_eq!(refreshes, 1, "what was refused is not used again");

    let (_, query) = connect(&server);
    assert_eq!(callback(&server, &format!("code=right-code&state={}", of(&query, "state"))).status, 200);
    let job = server.job_of(&server.accept(&path, &json!({})));
    assert_eq!(job["status"], "succeeded", "{job:#}");
    assert_eq!(server.cli_json(&["connections", "test", "desk"])["data"]["state"], "connected");
    for word in
        ["s3cret-access", "s3cret-refresh", "right-code", &verifier, &state, &of(&query, "state"), "cl13nt-secret"]
    {
        assert_eq!(server.files_with(word), Vec::<std::path::PathBuf>::new(), "{word}");
        for text in [job.to_string(), server.log(), page.text(), again.text(), account(&server).to_string()] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
}

#[test]
fn token_that_ends_without_one_for_refreshing_needs_the_user_again() {
    let upstream = Upstream::start(|_, seen| match seen.target.as_str() {
        "/token" => Reply::Json(200, json!({"access_token": "s3cret-access", "expires_in": 1})),
        _ => Reply::Json(200, json!({})),
    });
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream.url(), ""));
    let path = server.path_of("in");
    let (_, query) = connect(&server);
    assert_eq!(callback(&server, &format!("code=a&state={}", of(&query, "state"))).status, 200);
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let job = server.job_of(&server.accept(&path, &json!({})));
    assert_eq!(job["error"]["code"], "account.not_connected", "{job:#}");
    let status = account(&server);
    assert_eq!(status["state"], "reconnect", "{status:#}");
    assert!(status["reason"].as_str().unwrap().contains("gave none for refreshing"), "{status:#}");
    assert!(server.cli(&["check"]).success().contains("gave none for refreshing"));
}

#[test]
fn answers_that_are_not_ours_are_refused() {
    let upstream = provider();
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream.url(), "    issuer: https://id.example.com\n"));
    let state = || of(&connect(&server).1, "state");
    let unknown = "0".repeat(64);
    for (query, reason) in [
        (String::new(), "without an answer"),
        ("code=right-code".to_owned(), "without an answer"),
        ("code=right-code&state=short".to_owned(), "belongs to no connection attempt"),
        (format!("code=right-code&state={unknown}"), "belongs to no connection attempt"),
        (format!("code=a&code=b&state={}", state()), "gives a parameter twice"),
        (format!("code=right-code&state={}", state()), "does not say that it comes from https://id.example.com"),
        (
            format!("code=right-code&iss=https%3A%2F%2Fevil.test&state={}", state()),
            "comes from https://evil.test, not from",
        ),
        (
            format!(
                "iss=https%3A%2F%2Fid.example.com&error=access_denied&error_description=%3Cb%3Eno%3C%2Fb%3E&state={}",
                state()
            ),
            "did not consent (access_denied: &lt;b&gt;no&lt;/b&gt;)",
        ),
        (format!("iss=https%3A%2F%2Fid.example.com&state={}", state()), "neither a code nor an error"),
        (
            format!("iss=https%3A%2F%2Fid.example.com&code=wrong-code&state={}", state()),
            "not valid any more, or not for this client",
        ),
    ] {
        let page = callback(&server, &query);
        assert_eq!(page.status, 400, "{query}: {page:?}");
        assert!(page.text().contains(reason), "{query}: {page:?}");
        assert!(!page.text().contains("-code") && !page.text().contains("state="), "{page:?}");
    }
    let status = account(&server);
    assert_eq!(status["state"], "new", "{status:#}");
    assert!(status["consent_failed_at"].is_string(), "{status:#}");
    assert!(status["consent_error"].as_str().unwrap().contains("not valid any more"), "{status:#}");
    assert_eq!(upstream.seen().len(), 1, "only the last one had a code to try");

    let state = state();
    server.apply(&documents(&upstream.url(), "    issuer: https://id.example.com\n    pkce: 'off'\n"));
    let page = callback(&server, &format!("iss=https%3A%2F%2Fid.example.com&code=right-code&state={state}"));
    assert!(page.status == 400 && page.text().contains("was changed or deleted meanwhile"), "{page:?}");
    assert_eq!(
        connect(&server).1.iter().filter(|(name, _)| name.starts_with("code_challenge")).count(),
        0,
        "PKCE is off"
    );

    let post = request(server.public, "POST", "/oauth/callback", &[], b"");
    assert_eq!((post.status, post.header("allow")), (405, "GET"), "{post:?}");
}

#[test]
fn accounts_that_no_user_connects_say_so() {
    let server = Server::start(&Options::default());
    server.apply("kind: account\nname: plain\nspec: {none: {}}\n");
    server.api("POST", "/api/v1/accounts/plain/connect", None).assert_error(422, "account.other_grant");
    server.api("POST", "/api/v1/accounts/nobody/connect", None).assert_error(404, "resource.not_found");
    server.apply(&documents("https://id.example.com", "").replace("value: cl13nt-secret", "env: LINKSPAN_SECRET_X"));
    server.api("POST", "/api/v1/accounts/robot/connect", None).assert_error(409, "account.not_ready");
    server.cli(&["accounts", "connect", "plain"]).failure(5);
}

#[test]
fn callback_works_behind_a_proxy_with_a_prefix() {
    let upstream = provider();
    let folder = tempfile::TempDir::new().unwrap();
    let public = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let operator = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // The harness reads addresses from what is announced, and here that is the proxy's.
    let options = Options::egress()
        .flag("--public", public)
        .flag("--operator", operator)
        .flag("--public-url", "https://hooks.example.com/span/");
    let _server = Ending(Server::command(folder.path(), &options).stdout(Stdio::null()).spawn().unwrap());
    let token = eventually("there is a token", || std::fs::read_to_string(folder.path().join("operator-token")).ok());
    let authorization = format!("Bearer {}", token.trim());
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    eventually("it listens", || std::net::TcpStream::connect(operator).ok());
    let documents = json!({"documents": [
        {"kind": "secret", "name": "client", "spec": {"value": "cl13nt-secret"}},
        {"kind": "account", "name": "robot", "spec": {"oauth2": {
            "grant": "authorization_code", "authorize_url": format!("{}/auth", upstream.url()),
            "token_url": format!("{}/token", upstream.url()), "client_id": "linkspan", "client_secret": {"secret": "client"},
        }}},
    ]});
    let applied = request(operator, "POST", "/api/v1/apply", &headers, documents.to_string().as_bytes());
    assert_eq!(applied.status, 200, "{applied:?}");
    // With the prefix, as a proxy that leaves paths alone sends it, and without.
    for path in ["/span/oauth/callback", "/oauth/callback"] {
        let asked = request(operator, "POST", "/api/v1/accounts/robot/connect", &headers, b"").json();
        assert_eq!(asked["data"]["callback_url"], "https://hooks.example.com/span/oauth/callback");
        let url = asked["data"]["authorize_url"].as_str().unwrap();
        assert!(url.contains("redirect_uri=https%3A%2F%2Fhooks.example.com%2Fspan%2Foauth%2Fcallback&"), "{url}");
        let state = url.split("state=").nth(1).unwrap().split('&').next().unwrap();
        let page = request(public, "GET", &format!("{path}?code=right-code&state={state}"), &[], b"");
        assert_eq!(page.status, 200, "{page:?}");
    }
}

#[test]
fn command_prints_the_page_and_waits_for_the_consent() {
    let upstream = provider();
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream.url(), ""));
    for (answer, code, said) in
        [("code=right-code", 0, "connected, scopes: read"), ("error=access_denied", 1, "did not consent")]
    {
        let command = Command::new(env!("CARGO_BIN_EXE_linkspan"))
            .args(["accounts", "connect", "robot", "--url", &format!("http://{}", server.operator), "--data"])
            .arg(&server.data)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut command = Ending(command);
        let mut url = String::new();
        BufReader::new(command.0.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with(&format!("{}/auth?", upstream.url())), "{url}");
        let state = url.split("state=").nth(1).unwrap().split('&').next().unwrap();
        callback(&server, &format!("{answer}&state={state}"));
        let mut stderr = String::new();
        command.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(command.0.wait().unwrap().code(), Some(code), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
}
