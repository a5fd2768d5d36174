//! OAuth2 accounts against a provider that does what a test says: how tokens are asked for, how often, and what is
//! shown when none comes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Options, Reply, Seen, Server, Upstream, eventually, open_endpoint};

const CLIENT_SECRET: &str = "cl13nt&s=cret/+";

fn documents(url: &str, oauth2: &str) -> String {
    format!(
        "kind: secret
name: client
spec: {{value: '{CLIENT_SECRET}'}}
---
kind: secret
name: password
spec: {{value: us3r-passw0rd}}
---
kind: account
name: robot
spec: {{oauth2: {{token_url: '{url}/token?tenant=a', client_id: 'my client', client_secret: {{secret: client}}, {oauth2}}}}}
---
kind: connection
name: desk
spec: {{base_url: '{url}', account: robot, test: {{path: /me}}}}
---
kind: recipe
name: tell
spec:
  trigger: {{webhook: {{endpoint: in}}}}
  steps: [{{id: tell, request: {{connection: desk, method: POST, path: /api}}}}]
---
{}",
        open_endpoint("in")
    )
}

fn form(seen: &Seen) -> Vec<(String, String)> {
    let text = String::from_utf8(seen.body.clone()).unwrap();
    let decoded = |text: &str| {
        let bytes = text.replace('+', " ");
        percent_encoding::percent_decode_str(&bytes).decode_utf8().unwrap().into_owned()
    };
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn field(form: &[(String, String)], name: &str) -> String {
    form.iter().find(|(key, _)| key == name).map_or(String::new(), |(_, value)| value.clone())
}

fn is_token_call(seen: &Seen) -> bool {
    seen.target == "/token?tenant=a"
}

fn token_calls(upstream: &Upstream) -> Vec<Seen> {
    upstream.seen().into_iter().filter(is_token_call).collect()
}

fn account(server: &Server) -> Value {
    server.data("/api/v1/accounts/robot")["status"].clone()
}

/// Everything that is kept or shown, without these words in it.
fn assert_hidden(server: &Server, job: &Value, words: &[&str]) {
    let shown = [job.to_string(), server.log(), server.cli(&["export"]).success(), account(server).to_string()];
    for word in words {
        for text in &shown {
            assert!(!text.contains(word), "{word} stands in {text}");
        }
        assert_eq!(server.files_with(word), Vec::<std::path::PathBuf>::new(), "{word}");
    }
}

#[test]
fn client_credentials_go_by_header_or_body_and_the_token_is_kept() {
    for (client_auth, more) in [("basic", ""), ("body", "client_auth: body, ")] {
        let upstream = Upstream::start(|_, seen| {
            if is_token_call(seen) {
                let token = json!({"access_token": "s3cret-token-1", "token_type": "Bearer", "expires_in": "3600"});
                return Reply::Json(200, token);
            }
            Reply::Json(200, json!({"echo": seen.header("authorization")}))
        });
        let options = Options::egress().env("LINKSPAN_LOG", "trace");
        let server = Server::start(&options);
        let more = format!(
            "{more}grant: client_credentials, scopes: [read, write], audience: desk, token_params: {{resource: r&1}}"
        );
        server.apply(&documents(&upstream.url(), &more));
        assert_eq!(account(&server)["state"], "new");
        let path = server.path_of("in");
        let job = server.job_of(&server.accept(&path, &json!({})));
        assert_eq!(job["status"], "succeeded", "{job:#}");
        server.job_of(&server.accept(&path, &json!({})));

        let calls = token_calls(&upstream);
        assert_eq!((calls.len(), upstream.seen().len()), (1, 3));
        assert_eq!(
            (calls[0].method.as_str(), calls[0].header("content-type")),
            ("POST", "application/x-www-form-urlencoded")
        );
        let form = form(&calls[0]);
        for (name, value) in
            [("grant_type", "client_credentials"), ("scope", "read write"), ("audience", "desk"), ("resource", "r&1")]
        {
            assert_eq!(field(&form, name), value, "{form:?}");
        }
        match client_auth {
            // RFC 6749, section 2.3.1: form-encoded, then Basic: `my+client:cl13nt%26s%3Dcret%2F%2B`.
            "basic" => {
                assert_eq!(calls[0].header("authorization"), "Basic bXkrY2xpZW50OmNsMTNudCUyNnMlM0RjcmV0JTJGJTJC");
                assert_eq!(field(&form, "client_secret"), "");
            }
            _ => {
                assert_eq!(calls[0].header("authorization"), "");
                assert_eq!(
                    (field(&form, "client_id"), field(&form, "client_secret")),
                    ("my client".to_owned(), CLIENT_SECRET.to_owned())
                );
            }
        }
        assert!(
            upstream
                .seen()
                .iter()
                .filter(|seen| !is_token_call(seen))
                .all(|seen| seen.header("authorization") == "Bearer s3cret-token-1")
        );
        let status = account(&server);
        assert_eq!((&status["state"], &status["scopes"]), (&json!("connected"), &json!("read write")), "{status:#}");
        assert!(
            status["since"].is_string() && status["expires_at"].is_string() && status["reason"].is_null(),
            "{status:#}"
        );
        assert_hidden(&server, &job, &["s3cret-token-1", CLIENT_SECRET, "cl13nt%26", "czNjcmV0LXRva2VuLTE"]);

        let server = server.restart(&options);
        server.job_of(&server.accept(&path, &json!({})));
        assert_eq!(token_calls(&upstream).len(), 1, "the token outlives the process");
        assert_eq!(server.cli_json(&["connections", "test", "desk"])["data"]["state"], "connected");
    }
}

/// A provider that gives a new token for refreshing with every token and takes each once, and an API that takes the
/// newest token only.
#[derive(Default)]
struct Rotating {
    given: u32,
    refreshes: u32,
    reused: u32,
    /// What the next tokens say of their life, in seconds.
    lives: Vec<u32>,
    /// Token calls that are answered 502 although they were processed not at all.
    gateway: u32,
}

impl Rotating {
    fn start(lives: &[u32]) -> (Arc<Mutex<Self>>, Upstream) {
        let state = Arc::new(Mutex::new(Self { lives: lives.to_vec(), ..Self::default() }));
        let provider = Arc::clone(&state);
        let upstream = Upstream::start(move |_, seen| provider.lock().unwrap().reply(seen));
        (state, upstream)
    }

    fn reply(&mut self, seen: &Seen) -> Reply {
        if !is_token_call(seen) {
            let is_current = seen.header("authorization") == format!("Bearer access-{}", self.given);
            return Reply::Json(if is_current { 200 } else { 401 }, json!({"path": seen.target}));
        }
        let form = form(seen);
        if field(&form, "grant_type") == "refresh_token" {
            self.refreshes += 1;
            if self.gateway > 0 {
                self.gateway -= 1;
                return Reply::Json(502, json!({}));
            }
            if field(&form, "refresh_token") != format!("refresh-{}", self.given) {
                self.reused += 1;
                return Reply::Json(400, json!({"error": "invalid_grant"}));
            }
        }
        self.given += 1;
        let life = if self.lives.is_empty() { 3600 } else { self.lives.remove(0) };
        let mut token = json!({
            "access_token": format!("access-{}", self.given), "refresh_token": format!("refresh-{}", self.given),
        });
        if life > 0 {
            token["expires_in"] = life.into();
        }
        Reply::Json(200, token)
    }
}

const PASSWORD: &str = "grant: password, username: joe, password: {secret: password}";

/// Sends 50 events at once and waits for their jobs; all must succeed.
fn fifty_at_once(server: &Server) {
    let path = server.path_of("in");
    let events: Vec<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..50)
            .map(|n| {
                scope.spawn({
                    let path = &path;
                    move || server.accept(path, &json!({"n": n}))
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    for event in events {
        let job = server.job_of(&event);
        assert_eq!((&job["status"], &job["steps"][0]["attempts"]), (&json!("succeeded"), &json!(1)), "{job:#}");
    }
}

#[test]
fn a_token_that_nobody_uses_is_refreshed_before_the_provider_forgets_it() {
    let (provider, upstream) = Rotating::start(&[]);
    let server = Server::start(&Options::egress().flag("--token-keepalive", "400ms"));
    server.apply(&documents(&upstream.url(), PASSWORD));
    // An account that never had a token asks for none.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(provider.lock().unwrap().given, 0);
    server.cli(&["connections", "test", "desk"]).success();
    eventually("the token was refreshed twice", || (provider.lock().unwrap().refreshes >= 2).then_some(()));
    server.cli(&["connections", "test", "desk"]).success();
    assert_eq!(provider.lock().unwrap().reused, 0);
    // What is refused is left to whoever needs it.
    provider.lock().unwrap().given += 100;
    eventually("the provider has refused", || (provider.lock().unwrap().reused > 0).then_some(()));
    assert_eq!(account(&server)["state"], "connected", "the grant itself gives another one");
}

#[test]
fn fifty_calls_on_one_expired_rotating_token_refresh_it_once() {
    let (provider, upstream) = Rotating::start(&[2, 3600]);
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream.url(), PASSWORD));
    let job = server.job_of(&server.accept(&server.path_of("in"), &json!({})));
    assert_eq!(job["status"], "succeeded", "{job:#}");
    // The token's own life, which nothing else can shorten.
    std::thread::sleep(Duration::from_millis(2_100));
    fifty_at_once(&server);
    let provider = provider.lock().unwrap();
    assert_eq!((provider.given, provider.refreshes, provider.reused), (2, 1, 0));
    assert_hidden(&server, &job, &["access-1", "access-2", "refresh-1", "refresh-2", "us3r-passw0rd"]);
}

#[test]
fn fifty_calls_with_a_revoked_token_refresh_it_once() {
    let (provider, upstream) = Rotating::start(&[0, 0]);
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream.url(), PASSWORD));
    server.job_of(&server.accept(&server.path_of("in"), &json!({})));
    {
        // The API forgets the token, and the provider still takes the one for refreshing.
        let mut provider = provider.lock().unwrap();
        provider.given = 7;
    }
    server.job_of(&server.accept(&server.path_of("in"), &json!({})));
    let (given, refreshes) = {
        let provider = provider.lock().unwrap();
        (provider.given, provider.refreshes)
    };
    assert_eq!((given, refreshes), (8, 1), "refused, and asked anew by the grant");
    fifty_at_once(&server);
    assert_eq!(provider.lock().unwrap().refreshes, 1);
}

#[test]
fn refresh_without_an_answer_is_tried_once_more_with_the_same_token() {
    let (provider, upstream) = Rotating::start(&[1, 3600]);
    provider.lock().unwrap().gateway = 1;
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream.url(), PASSWORD));
    let path = server.path_of("in");
    server.job_of(&server.accept(&path, &json!({})));
    std::thread::sleep(Duration::from_millis(1_100));
    let event = server.accept(&path, &json!({}));
    let unknown =
        eventually("the state is unknown", || Some(account(&server)).filter(|status| status["state"] == "unknown"));
    assert!(unknown["reason"].as_str().unwrap().contains("gateway answered 502"), "{unknown:#}");
    let job = server.job_of(&event);
    assert_eq!(job["status"], "succeeded", "{job:#}");
    assert_eq!(account(&server)["state"], "connected");
    let provider = provider.lock().unwrap();
    assert_eq!((provider.refreshes, provider.reused, provider.given), (2, 0, 2));
}

#[test]
fn refusal_is_shown_and_a_changed_secret_tried_at_once() {
    let upstream = Upstream::start(|_, seen| {
        if !is_token_call(seen) {
            return Reply::Json(200, json!({}));
        }
        match field(&form(seen), "client_secret").as_str() {
            "right" => Reply::Json(200, json!({"access_token": "at"})),
            wrong => Reply::Json(401, json!({"error": "invalid_client", "error_description": format!("not {wrong}")})),
        }
    });
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream.url(), "grant: client_credentials, client_auth: body"));
    let path = server.path_of("in");
    for _ in 0..3 {
        let job = server.job_of(&server.accept(&path, &json!({})));
        assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("account.refused")), "{job:#}");
        assert_hidden(&server, &job, &[CLIENT_SECRET]);
    }
    assert_eq!(upstream.seen().len(), 1, "a refusal counts for a while");
    let status = account(&server);
    assert_eq!(status["state"], "failed", "{status:#}");
    assert!(
        status["reason"].as_str().unwrap().contains("does not accept its secret (invalid_client: not ••••••)"),
        "{status:#}"
    );
    let list = server.cli(&["accounts"]).success();
    assert!(list.contains("failed") && list.contains("does not know the client"), "{list}");
    assert!(server.cli(&["check"]).success().contains("does not accept its secret"));
    assert_eq!(server.cli_json_code(&["connections", "test", "desk"], 1)["data"]["code"], "account.refused");

    server.cli_with_input(&["secrets", "set", "client"], "right").success();
    let job = server.job_of(&server.accept(&path, &json!({})));
    assert_eq!(job["status"], "succeeded", "{job:#}");
    assert_eq!(account(&server)["state"], "connected");
}

#[test]
fn api_that_takes_no_token_is_not_answered_with_ever_new_ones() {
    let upstream = Upstream::start(|n, seen| match is_token_call(seen) {
        true => Reply::Json(200, json!({"access_token": format!("token-{n}")})),
        false => Reply::Json(401, json!({})),
    });
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream.url(), "grant: client_credentials"));
    let path = server.path_of("in");
    for _ in 0..3 {
        let job = server.job_of(&server.accept(&path, &json!({})));
        assert_eq!(job["error"]["code"], "response.status", "{job:#}");
    }
    assert_eq!(token_calls(&upstream).len(), 2);
    assert_eq!(upstream.seen().len(), 2 + 2 + 1 + 1, "the first request was repeated once");
}

#[test]
fn provider_that_cannot_be_reached_is_asked_again() {
    let upstream = Upstream::start(|n, seen| match is_token_call(seen) {
        true if n == 0 => Reply::Json(503, json!({})),
        true => Reply::Json(200, json!({"access_token": "at"})),
        false => Reply::Json(200, json!({})),
    });
    let server = Server::start(&Options::egress());
    server.apply(&documents(&upstream.url(), "grant: client_credentials"));
    let event = server.accept(&server.path_of("in"), &json!({}));
    let job = server.job_of(&event);
    assert_eq!(job["status"], "succeeded", "{job:#}");
    assert!(job["steps"][0]["attempts"].as_u64().unwrap() >= 2, "{job:#}");
}

#[test]
fn token_of_another_provider_is_not_used() {
    let (first, second) = (Rotating::start(&[]), Rotating::start(&[]));
    let server = Server::start(&Options::egress());
    server.apply(&documents(&first.1.url(), PASSWORD));
    let path = server.path_of("in");
    server.job_of(&server.accept(&path, &json!({})));
    server.apply(&documents(&second.1.url(), PASSWORD));
    assert_eq!(account(&server)["state"], "new");
    let job = server.job_of(&server.accept(&path, &json!({})));
    assert_eq!(job["status"], "succeeded", "{job:#}");
    let heard = second.1.seen();
    assert!(heard.iter().all(|seen| field(&form(seen), "grant_type") != "refresh_token"), "{heard:?}");
}
