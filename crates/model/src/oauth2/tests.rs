use proptest::prelude::*;
use serde_json::{Value, json};

use std::time::Duration;

use super::answer::{AHEAD_MAX, SAID_CHARS};
use super::*;
use crate::{SecretBytes, limits};

fn read(body: impl AsRef<[u8]>) -> Result<Token, NoToken> {
    read_token(200, None, body.as_ref())
}

#[test]
fn reads_what_providers_give() {
    let hour = Some(Duration::from_secs(3600));
    for (body, refresh, life, scopes) in [
        (
            r#"{"access_token":"at","token_type":"Bearer","expires_in":3600,"refresh_token":"rt","scope":"a b"}"#,
            Some("rt"),
            hour,
            Some("a b"),
        ),
        (r#"{"access_token":"at","expires_in":"3600"}"#, None, hour, None),
        (r#"{"access_token":"at","expires_in":3600.0,"scope":["a","b"]}"#, None, hour, Some("a b")),
        (r#"{"access_token":"at","expires_in":3.6e3}"#, None, hour, None),
        (r#"{"access_token":"at","expires_in":"36E2"}"#, None, hour, None),
        (r#"{"access_token":"at","expires_in":" +03600.0 "}"#, None, hour, None),
        (r#"{"access_token":"at","expires_in":1e99}"#, None, None, None),
        (r#"{"access_token":"at","expires_in":0,"refresh_token":""}"#, None, None, None),
        (r#"{"access_token":"at","expires_in":"soon","refresh_token":null}"#, None, None, None),
        ("access_token=at&scope=a+b&token_type=bearer&expires=3600", None, hour, Some("a b")),
        ("\n{\"access_token\":\"at\",\"token_type\":\"BEARER\"}\n", None, None, None),
    ] {
        let token = read(body).unwrap();
        assert_eq!(token.access.expose(), b"at", "{body}");
        assert_eq!(token.refresh.as_ref().map(SecretBytes::expose), refresh.map(str::as_bytes), "{body}");
        assert_eq!((token.life, token.scopes.as_deref()), (life, scopes), "{body}");
        assert!(!format!("{token:?}").contains("at\""), "{token:?}");
    }
}

#[test]
fn takes_tokens_up_to_a_length_only() {
    let most = "A".repeat(limits::TOKEN_BYTES);
    assert!(read(json!({"access_token": most, "refresh_token": most}).to_string()).is_ok());
    for name in ["access_token", "refresh_token"] {
        let mut body = json!({"access_token": "at"});
        body[name] = json!(format!("{most}A"));
        let NoToken::Refused(reason) = read(body.to_string()).unwrap_err() else {
            panic!("{name} would be as long again")
        };
        assert!(reason.contains(name) && reason.contains("16385 bytes") && !reason.contains("AAAA"), "{reason}");
    }
}

#[test]
fn says_what_is_wrong() {
    let refused = |status, body: &str| match read_token(status, None, body.as_bytes()).unwrap_err() {
        NoToken::Refused(reason) => reason,
        other => panic!("{other:?}"),
    };
    let reason = refused(400, r#"{"error":"invalid_grant","error_description":"Token was\nrevoked"}"#);
    assert_eq!(
        reason,
        "what the token was asked for with is not valid any more, or not for this client (invalid_grant: Token was revoked)"
    );
    assert!(refused(401, r#"{"error":"invalid_client"}"#).contains("does not accept its secret (invalid_client)"));
    assert_eq!(refused(200, "error=bad_verification_code"), "bad_verification_code");
    assert!(refused(403, "<html>").contains("answered 403"));
    assert!(refused(200, r#"{"access_token":"at","token_type":"mac"}"#).contains("another type"));
    for (status, body) in
        [(503, ""), (429, "{}"), (500, r#"{"error":"invalid_grant"}"#), (400, r#"{"error":"temporarily_unavailable"}"#)]
    {
        assert!(matches!(read_token(status, None, body.as_bytes()), Err(NoToken::Unavailable(_))), "{status} {body}");
    }
    for (status, body) in
        [(200, ""), (200, "<p a=b>"), (200, "[]"), (200, r#"{"access_token":"a b"}"#), (502, ""), (504, "x")]
    {
        assert!(matches!(read_token(status, None, body.as_bytes()), Err(NoToken::Unreadable(_))), "{status} {body}");
    }
    // Whoever hides secrets in it sees it whole, and cuts it then.
    let long = refused(400, &json!({"error": "x".repeat(100_000)}).to_string());
    assert_eq!(long.len(), SAID_CHARS);
}

#[test]
fn refuses_what_cannot_work() {
    let spec = |more: Value| -> OAuth2Spec {
        let mut spec = json!({
            "grant": "client_credentials", "token_url": "https://id.test/token",
            "client_id": "robot", "client_secret": {"secret": "s"},
        });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    };
    assert_eq!(spec(json!({"scopes": ["a"], "token_params": {"resource": "x"}})).faults(), []);
    for (more, path) in [
        (json!({"token_url": "/token"}), "oauth2.token_url"),
        (json!({"token_url": "ftp://id.test"}), "oauth2.token_url"),
        (json!({"token_url": "https://a:b@id.test"}), "oauth2.token_url"),
        (json!({"token_url": "https://id.test/#x"}), "oauth2.token_url"),
        (json!({"grant": "password"}), "oauth2"),
        (json!({"username": "joe"}), "oauth2.username"),
        (json!({"password": {"secret": "p"}}), "oauth2.password"),
        (json!({"token_params": {"scope": "a"}}), "oauth2.token_params.scope"),
        (json!({"scopes": ["a", ""]}), "oauth2.scopes[1]"),
    ] {
        let faults = spec(more.clone()).faults();
        assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), [path], "{more}");
    }
    let user = json!({"grant": "password", "username": {"secret": "u"}, "password": {"secret": "p"}});
    let paths: Vec<String> = spec(user).secrets().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["oauth2.username", "oauth2.client_secret", "oauth2.password"]);
    assert_ne!(spec(json!({})).identity(), spec(json!({"scopes": ["a"]})).identity());
    assert_eq!(spec(json!({})).identity(), spec(json!({"client_auth": "body"})).identity());
}

#[test]
fn clients_prove_themselves_in_one_way() {
    const CERTIFICATE: &str = include_str!("../testdata/client.pem");
    let spec = |more: Value| -> OAuth2Spec {
        let mut spec =
            json!({"grant": "client_credentials", "token_url": "https://id.test/token", "client_id": "robot"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spec: OAuth2Spec = serde_json::from_value(spec.clone()).unwrap();
        let again = serde_json::to_value(&spec).unwrap();
        assert_eq!(serde_json::from_value::<OAuth2Spec>(again).unwrap(), spec);
        spec
    };
    let jwt = json!({"algorithm": "RS256", "key": {"secret": "k"}});
    let certificate = json!({"certificate": CERTIFICATE, "key": {"secret": "k"}});
    let secret = json!({"secret": "s"});
    for (more, auth) in [
        (json!({"client_secret": secret}), ClientAuth::Basic),
        (json!({"client_secret": secret, "client_certificate": certificate}), ClientAuth::Basic),
        (json!({"client_auth": "private_key_jwt", "client_assertion": jwt}), ClientAuth::PrivateKeyJwt),
        (json!({"client_auth": "tls", "client_certificate": certificate}), ClientAuth::Tls),
        (json!({"grant": "jwt_bearer", "assertion": jwt}), ClientAuth::None),
        (json!({"grant": "jwt_bearer", "assertion": jwt, "client_secret": secret}), ClientAuth::Basic),
    ] {
        let spec = spec(more.clone());
        assert_eq!((spec.faults(), spec.client_auth()), (vec![], auth), "{more}");
    }
    for (more, path) in [
        (json!({}), "oauth2"),
        (json!({"client_auth": "body"}), "oauth2"),
        (json!({"client_auth": "private_key_jwt"}), "oauth2"),
        (json!({"client_auth": "tls"}), "oauth2"),
        (json!({"client_auth": "none"}), "oauth2.client_auth"),
        (
            json!({"client_auth": "tls", "client_certificate": certificate, "client_secret": secret}),
            "oauth2.client_secret",
        ),
        (json!({"client_secret": secret, "client_assertion": jwt}), "oauth2.client_assertion"),
        (json!({"client_secret": secret, "assertion": jwt}), "oauth2.assertion"),
        (json!({"grant": "jwt_bearer"}), "oauth2"),
        (json!({"grant": "jwt_bearer", "client_id": null, "assertion": jwt}), "oauth2.assertion"),
        (json!({"client_id": null, "client_secret": secret}), "oauth2"),
        (
            json!({"client_secret": secret, "client_certificate": {"certificate": "x", "key": {"secret": "k"}}}),
            "oauth2.client_certificate.certificate",
        ),
        (
            json!({"grant": "jwt_bearer", "assertion": {"algorithm": "RS256", "key": {"secret": "k"}, "lifetime": "2d"}}),
            "oauth2.assertion.lifetime",
        ),
        (json!({"client_secret": secret, "tls": {"authorities": "x"}}), "oauth2.tls.authorities"),
        (json!({"client_secret": secret, "proxy": {"url": "x"}}), "oauth2.proxy.url"),
        (json!({"client_secret": secret, "token_params": {"assertion": "x"}}), "oauth2.token_params.assertion"),
    ] {
        let faults = spec(more.clone()).faults();
        assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), [path], "{more}");
    }
    // How the provider is asked does not change what it gave; whom the token is bound to does.
    let plain = spec(json!({"client_secret": secret}));
    for more in [json!({"proxy": {"url": "http://p"}}), json!({"tls": {"min_version": "1.3"}})] {
        let mut whole = json!({"client_secret": secret});
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(spec(whole).identity(), plain.identity(), "{more}");
    }
    assert_ne!(spec(json!({"client_secret": secret, "client_certificate": certificate})).identity(), plain.identity());
}

fn consent(authorize_url: &str) -> OAuth2Spec {
    serde_json::from_value(json!({
        "grant": "authorization_code", "authorize_url": authorize_url, "token_url": "https://id.test/token",
        "client_id": "robot", "client_secret": {"secret": "s"}, "scopes": ["a", "b/c"],
    }))
    .unwrap()
}

#[test]
fn authorization_url_keeps_the_given_query_and_adds_ours_once() {
    let ours = "response_type=code&client_id=my%20id&redirect_uri=https%3A%2F%2Fme.test%2Foauth%2Fcallback&state=st&scope=a%20b%2Fc";
    for (given, before) in [
        ("https://id.test/auth", ""),
        ("https://id.test/auth?", ""),
        ("https://id.test/auth?prompt=consent&access_type=offline", "prompt=consent&access_type=offline&"),
        (
            "https://id.test/auth?client_id=x&a=%2F&state=x&response_type=token&scope=y&redirect%5furi=z&a=b",
            "a=%2F&a=b&",
        ),
    ] {
        let spec = consent(given);
        assert_eq!(spec.faults(), []);
        let url = spec.authorization_url("my id", "https://me.test/oauth/callback", "st", None).unwrap();
        assert_eq!(url.as_str(), format!("https://id.test/auth?{before}{ours}"));
        let url = spec.authorization_url("my id", "https://me.test/oauth/callback", "st", Some("ch")).unwrap();
        assert!(url.as_str().ends_with("&code_challenge=ch&code_challenge_method=S256"), "{url}");
    }
    for wrong in ["/auth", "javascript:alert(1)", "https://a:b@id.test/"] {
        assert_eq!(consent(wrong).faults()[0].path, "oauth2.authorize_url", "{wrong}");
    }
}

#[test]
fn answers_of_another_issuer_are_refused() {
    let mut spec = consent("https://login.id.test/auth");
    for (issuer, iss, is_right) in [
        (None, None, true),
        (None, Some("https://id.test"), true),
        (None, Some("https://login.id.test/tenant"), true),
        (None, Some("https://evil.test"), false),
        (None, Some("no url"), false),
        (Some("https://id.test"), Some("https://id.test"), true),
        (Some("https://id.test"), Some("https://id.test/"), false),
        (Some("https://id.test"), None, false),
    ] {
        spec.issuer = issuer.map(str::to_owned);
        assert_eq!(spec.check_issuer(iss).is_ok(), is_right, "{issuer:?} {iss:?}");
    }
}

#[test]
fn challenge_is_that_of_the_rfc() {
    // RFC 7636, appendix B.
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(pkce_challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
}

proptest! {
    #[test]
    fn every_parameter_of_ours_stands_once(query in "[a-z_=&%0-9]{0,60}", state in ".{1,30}", client in ".{0,20}") {
        let Ok(given) = Url::parse(&format!("https://id.test/auth?{query}")) else { return Ok(()) };
        let url = consent(given.as_str()).authorization_url(&client, "https://me.test/cb", &state, Some("c")).unwrap();
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        for (name, value) in [("state", state.as_str()), ("client_id", &client), ("redirect_uri", "https://me.test/cb"), ("response_type", "code")] {
            let found: Vec<&str> = pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
            prop_assert_eq!(found, vec![value]);
        }
    }

    #[test]
    fn answers_never_panic_and_show_no_line_breaks(status in 100u16..600, body in ".{0,200}") {
        if let Err(error) = read_token(status, None, body.as_bytes()) {
            prop_assert!(!error.reason().contains('\n'));
        }
    }

    #[test]
    fn refresh_comes_within_the_life(life in 1u64..100_000_000, jitter in 0.0f64..1.0) {
        let life = Duration::from_secs(life);
        let after = refresh_after(Some(life), jitter).unwrap();
        prop_assert!(after >= life.mul_f64(0.399) && after < life);
        prop_assert!(life - after <= AHEAD_MAX.mul_f64(1.201));
    }
}

#[test]
fn a_life_is_any_number_of_json() {
    for (life, millis) in [
        ("3.6e3", Some(3_600_000)),
        ("1.0E7", Some(10_000_000_000)),
        ("36E+2", Some(3_600_000)),
        ("\"3.6e3\"", Some(3_600_000)),
        ("\" 3600 \"", Some(3_600_000)),
        ("0.5", Some(500)),
        ("3600.9", Some(3_600_900)),
        ("-1", None),
        ("0.0", None),
        ("1e12", None),
        ("1e400", None),
        ("\"inf\"", None),
        ("\"NaN\"", None),
    ] {
        let token = read(format!(r#"{{"access_token":"at","expires_in":{life}}}"#)).unwrap();
        assert_eq!(token.life, millis.map(Duration::from_millis), "{life}");
    }
}

#[test]
fn answers_say_their_character_set() {
    let latin = Some("application/json; charset=iso-8859-1");
    for (content_type, body) in [
        (None, &b"\xef\xbb\xbf{\"access_token\":\"at\",\"scope\":\"\xc3\xa9\"}"[..]),
        (latin, b"{\"access_token\":\"at\",\"scope\":\"\xe9\"}"),
        (Some("application/x-www-form-urlencoded; charset=latin1"), b"access_token=at&scope=%E9"),
        (None, br#"{"x":"\ud83d","access_token":"at","scope":"\u00e9"}"#),
    ] {
        let token = read_token(200, content_type, body).unwrap();
        assert_eq!((token.access.expose(), token.scopes.as_deref()), (&b"at"[..], Some("\u{e9}")), "{body:?}");
    }
}
