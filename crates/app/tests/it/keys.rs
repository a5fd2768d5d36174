//! Keys, certificates and proxies, as those meet them who write documents: what is refused and how it is said, what is
//! warned of, and that no key is shown.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Options, Reply, Server, Upstream};

// A client's certificate and its key, another key, and an authority that expired with the year 2020.
const CERTIFICATE: &str = include_str!("certificates/client.pem");
const KEY: &str = include_str!("certificates/client-key.pem");
const OTHER_KEY: &str = include_str!("certificates/other-key.pem");
const EXPIRED: &str = include_str!("certificates/expired-authority.pem");

fn secret(name: &str, value: &str) -> Value {
    json!({"kind": "secret", "name": name, "spec": {"value": value}})
}

fn account(spec: Value) -> Value {
    json!({"kind": "account", "name": "robot", "spec": spec})
}

fn connection(spec: Value) -> Value {
    json!({"kind": "connection", "name": "desk", "spec": spec})
}

fn certificate(pem: &str) -> Value {
    json!({"certificate": pem, "key": {"secret": "key"}})
}

fn apply(server: &Server, documents: &[Value]) -> Result<(), Value> {
    let answer = server.api("POST", "/api/v1/apply", Some(&json!({"documents": documents})));
    match answer.status {
        200 => Ok(()),
        _ => Err(answer.json()["error"]["faults"].clone()),
    }
}

/// A line of a key, which must stand nowhere.
fn line(key: &str) -> &str {
    key.lines().rev().nth(2).unwrap()
}

fn assert_hidden(server: &Server, shown: &Value) {
    let exported = server.cli(&["export"]).success();
    let check = server.cli(&["check", "--output", "json"]);
    for key in [KEY, OTHER_KEY] {
        for text in [&shown.to_string(), &exported, &check.stdout, &server.log()] {
            assert!(!text.contains(line(key)), "{text}");
        }
        assert_eq!(server.files_with(line(key)), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn what_cannot_be_used_is_refused_with_its_field_and_the_reason() {
    let server = Server::start(&Options::default().env("LINKSPAN_LOG", "trace"));
    let base = "https://desk.example.com";
    for (document, path, words) in [
        (connection(json!({"base_url": base, "tls": {"authorities": "x"}})), "spec.tls.authorities", "no certificate"),
        (
            connection(json!({"base_url": base, "tls": {"authorities": format!("{EXPIRED}{KEY}")}})),
            "spec.tls.authorities",
            "a private key stands in it",
        ),
        (
            connection(json!({"base_url": base, "tls": {"authorities": EXPIRED.replacen("MII", "MIX", 1)}})),
            "spec.tls.authorities",
            "certificate 1 in it cannot be read",
        ),
        (connection(json!({"base_url": base, "tls": {"min_version": "1.1"}})), "spec.tls.min_version", "1.1"),
        (connection(json!({"base_url": base, "proxy": {"url": "proxy:3128"}})), "spec.proxy.url", "http://"),
        (
            connection(json!({"base_url": base, "proxy": {"url": "http://p", "password": {"secret": "key"}}})),
            "spec.proxy.user",
            "user",
        ),
        (connection(json!({"proxy": {"url": "http://p", "resolve": "proxy"}})), "spec.proxy.resolve", "names"),
        (
            account(json!({"client_certificate": certificate(KEY)})),
            "spec.client_certificate.certificate",
            "private key",
        ),
        (
            account(json!({"client_certificate": certificate(CERTIFICATE)})),
            "spec.client_certificate.key",
            "it is not the key of the certificate (CN=robot,O=Example)",
        ),
        (
            account(json!({"custom": {"client_certificate": certificate(CERTIFICATE)}})),
            "spec.custom.client_certificate.key",
            "not the key of the certificate",
        ),
        (
            account(json!({"jwt": {"algorithm": "ES256", "key": {"secret": "key"}, "issuer": "a"}})),
            "spec.jwt.key",
            "ES256 is signed with a key of EC P-256, and this one is EC P-384",
        ),
        (account(json!({"jwt": {"algorithm": "none", "key": {"secret": "key"}}})), "spec.jwt.algorithm", "none"),
    ] {
        let faults = apply(&server, &[secret("key", OTHER_KEY), document.clone()]).unwrap_err();
        assert_eq!((faults.as_array().unwrap().len(), &faults[0]["path"]), (1, &json!(path)), "{faults:#}");
        assert!(faults[0]["reason"].as_str().unwrap().contains(words), "{faults:#}");
        assert_hidden(&server, &faults);
    }
}

#[test]
fn a_key_and_its_certificate_are_changed_one_after_the_other() {
    let server = Server::start(&Options::default());
    let robot = account(json!({"client_certificate": certificate(CERTIFICATE)}));
    let desk = connection(json!({"base_url": "https://desk.example.com", "account": "robot"}));
    apply(&server, &[secret("key", KEY), robot.clone(), desk]).unwrap();
    assert_eq!(server.data("/api/v1/accounts/robot")["status"], json!({"warnings": []}));
    // A document that stays as it was is checked with the value that is stored.
    apply(&server, std::slice::from_ref(&robot)).unwrap();
    server.cli_with_input(&["secrets", "set", "key"], OTHER_KEY).success();
    let warnings = server.data("/api/v1/accounts/robot")["status"]["warnings"].clone();
    assert!(warnings[0].as_str().unwrap().contains("not the key of the certificate"), "{warnings}");
    assert!(server.cli(&["check"]).success().contains("not the key of the certificate"));
    let called = server.cli(&["call", "desk", "/"]).failure(1);
    assert!(called.contains("not the key of the certificate (CN=robot,O=Example)"), "{called}");
    assert_eq!(apply(&server, &[robot]).unwrap_err()[0]["path"], "spec.client_certificate.key");
    assert_hidden(&server, &warnings);
}

#[test]
fn certificates_that_end_are_warned_of() {
    let server = Server::start(&Options::default());
    let tls = json!({"authorities": EXPIRED});
    let oauth2 = json!({"oauth2": {
        "grant": "client_credentials", "token_url": "https://id.example.com/token", "client_id": "a",
        "client_secret": {"secret": "key"}, "tls": tls,
    }});
    let desk = connection(json!({"base_url": "https://desk.example.com", "tls": tls, "account": "robot"}));
    apply(&server, &[secret("key", "x"), account(oauth2), desk]).unwrap();
    let said = "tls.authorities: the certificate of CN=Old authority has expired, at 2021-01-01T00:00:00Z";
    for path in ["/api/v1/connections/desk", "/api/v1/accounts/robot"] {
        assert_eq!(server.data(path)["status"]["warnings"], json!([said]), "{path}");
    }
    let check = server.cli(&["check"]).success();
    assert!(check.contains("connection/desk") && check.matches("has expired, at 2021-01-01").count() == 2, "{check}");
}

#[test]
fn signed_tokens_say_what_their_document_says() {
    let upstream = Upstream::start(|_, seen| Reply::Json(200, json!({"echo": seen.header("authorization")})));
    let server = Server::start(&Options::egress().env("LINKSPAN_LOG", "trace"));
    let jwt = json!({"jwt": {
        "algorithm": "ES256", "key": {"secret": "key"}, "key_id": "k1", "issuer": "app-7", "lifetime": "10m",
    }});
    let desk = connection(json!({"base_url": upstream.url(), "account": "robot"}));
    apply(&server, &[secret("key", KEY), account(jwt.clone()), desk]).unwrap();
    let answers: Vec<Value> = (0..2).map(|_| server.cli_json(&["call", "desk", "/"])).collect();
    let tokens: Vec<String> = upstream.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(tokens[0], tokens[1]);
    let parts: Vec<&str> = tokens[0].strip_prefix("Bearer ").unwrap().split('.').collect();
    let decoded = |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    assert_eq!((parts.len(), decoded(parts[0])), (3, json!({"typ": "JWT", "alg": "ES256", "kid": "k1"})));
    let claims = decoded(parts[1]);
    assert_eq!(
        (&claims["iss"], claims["exp"].as_u64().unwrap()),
        (&json!("app-7"), claims["iat"].as_u64().unwrap() + 600)
    );
    for answer in &answers {
        let call = answer["call"].to_string();
        assert!(!call.contains(parts[2]) && call.contains("••••••"), "{call}");
    }
    assert_hidden(&server, &answers[0]["call"]);
    assert_eq!(server.files_with(parts[2]), Vec::<std::path::PathBuf>::new());
    assert!(!server.log().contains(parts[2]));

    // A changed document gives another token at once.
    let mut changed = jwt;
    changed["jwt"]["issuer"] = "app-8".into();
    apply(&server, &[account(changed)]).unwrap();
    server.cli_json(&["call", "desk", "/"]);
    let claims = upstream.seen()[2].header("authorization").split('.').nth(1).map(decoded);
    assert_eq!(claims.unwrap()["iss"], "app-8");
}

#[test]
fn a_proxy_that_is_down_is_named() {
    let server = Server::start(&Options::egress());
    let proxy = json!({"url": "http://127.0.0.1:1", "user": "robot", "password": {"secret": "key"}});
    let desk = json!({"base_url": "http://127.0.0.1:2", "proxy": proxy, "timeout_message": "The desk is away."});
    apply(&server, &[secret("key", "pr0xy-passw0rd"), connection(desk)]).unwrap();
    let tested = server.cli_json_code(&["connections", "test", "desk"], 1)["data"].clone();
    assert_eq!(tested["code"], "outbound.proxy", "{tested:#}");
    let reason = tested["reason"].as_str().unwrap();
    let words =
        "The desk is away. (cannot reach 127.0.0.1:2: the proxy 127.0.0.1:1 cannot be connected to: connection refused";
    assert!(reason.starts_with(words), "{reason}");
    // A changed secret of the proxy makes the connection untested again.
    server.cli_with_input(&["secrets", "set", "key"], "an0ther-passw0rd").success();
    assert_eq!(server.data("/api/v1/connections/desk")["status"]["state"], "untested");
    assert!(!server.cli(&["export"]).success().contains("passw0rd") && !server.log().contains("passw0rd"));
}
