//! Vectors here were computed with Python's `hmac`; those of GitHub, Slack and Standard Webhooks are the
//! ones that their makers publish.

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::check::Scheme;
use super::*;
use crate::fault::Fault;
use crate::secret::SecretBytes;
use crate::time::Timestamp;

const SECRET: &str = "My$ecret@12345678";
const BODY: &[u8] = br#"{"id":1,"name":"Wing"}"#;
const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// Algorithm, its signature of `BODY` by `SECRET` in hexadecimal digits and in base64.
const VECTORS: [(Algorithm, &str, &str); 6] = [
    (Algorithm::MD5, "d21a1caf54ad7409734ca5eed711e34c", "0hocr1StdAlzTKXu1xHjTA=="),
    (Algorithm::SHA_1, "af71863fd0f86f28d18a48f1fcbbbbe83f530cb6", "r3GGP9D4byjRikjx/Lu76D9TDLY="),
    (
        Algorithm::SHA_224,
        "162be4867ff0898cf384c72191dab3465b960536293698591dfda830",
        "Fivkhn/wiYzzhMchkdqzRluWBTYpNphZHf2oMA==",
    ),
    (
        Algorithm::SHA_256,
        "f528d3fe3f9d3398cb89b23c9997cfa7990429c2c63193af93f033a62ae089b0",
        "9SjT/j+dM5jLibI8mZfPp5kEKcLGMZOvk/AzpirgibA=",
    ),
    (
        Algorithm::SHA_384,
        "3224226afba666d7d310f1dd0b1285bf2290dfccccb5f3e3e8eef622e4c723fb431331d1d2b1c679ef748e42e59724f3",
        "MiQiavumZtfTEPHdCxKFvyKQ38zMtfPj6O72IuTHI/tDEzHR0rHGee90jkLllyTz",
    ),
    (
        Algorithm::SHA_512,
        "aa447a8fdfbb8b132baa05a66c2af2d3cc147e70b55e5f5050457278fe71f1c8f6507c1e88776222118bb99e4099695d277d1f2a766550544bc52212ff6faa64",
        "qkR6j9+7ixMrqgWmbCry08wUfnC1Xl9QUEVyeP5x8cj2UHweiHdiIhGLuZ5AmWldJ30fKnZlUFRLxSIS/2+qZA==",
    ),
];

fn verifier(verify: &str, secrets: &[(&str, &str)]) -> Result<Verifier, Vec<Fault>> {
    let verify: Verify = serde_json::from_str(verify).unwrap();
    Verifier::compile(&verify, |name| {
        secrets.iter().find(|(known, _)| *known == name.as_str()).map(|(_, value)| SecretBytes::new(*value))
    })
}

fn hmac(algorithm: &str, encoding: &str, more: &str) -> Verifier {
    let spec = format!(
        r#"{{"hmac": {{"header": "X-Sig", "algorithm": "{algorithm}", "encoding": "{encoding}", "secrets": [{{"secret": "a"}}]{more}}}}}"#
    );
    verifier(&spec, &[("a", SECRET)]).unwrap()
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

#[track_caller]
fn check(verifier: &Verifier, pairs: &[(&str, &str)], body: &[u8]) -> Result<Proof, VerifyError> {
    verifier.verify(&headers(pairs), body, NOW)
}

#[test]
fn accepts_the_vectors_of_every_algorithm_in_every_form() {
    let mut tried = 0;
    for (algorithm, hex, base64) in VECTORS {
        let word = serde_json::to_value(algorithm).unwrap();
        let word = word.as_str().unwrap();
        let plain = word.replace('_', "").to_lowercase();
        for (encoding, signature) in [("HEXA_DECIMAL", hex), ("BASE64", base64)] {
            let fixed = hmac(word, encoding, "");
            let inferred = hmac("INFER_FROM_HEADER", encoding, "");
            let prefixed = hmac("INFER_FROM_HEADER", encoding, &format!(r#", "prefix": "{plain}=""#));
            let cases = [
                (&fixed, signature.to_owned()),
                (&inferred, signature.to_owned()),
                (&inferred, format!("{plain}={signature}")),
                (&inferred, format!("{word}={signature}")),
                (&inferred, format!("hmac-{plain}={signature}")),
                (&prefixed, format!("{plain}={signature}")),
            ];
            for (verifier, value) in cases {
                let proof =
                    check(verifier, &[("X-Sig", &value)], BODY).unwrap_or_else(|error| panic!("{value}: {error}"));
                assert_eq!(proof, Proof { by: "hmac", ok: true, credential_header: None });
                assert!(check(verifier, &[("X-Sig", &value)], b"{}").is_err(), "{value}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 72);
}

#[test]
fn takes_base64_without_padding_url_safe_and_hex_of_either_case() {
    let (_, hex, base64) = VECTORS[3];
    let verifier = hmac("SHA_256", "BASE64", "");
    for value in [base64.trim_end_matches('='), &base64.replace('+', "-").replace('/', "_")] {
        check(&verifier, &[("X-Sig", value)], BODY).unwrap();
    }
    check(&hmac("SHA_256", "HEXA_DECIMAL", ""), &[("X-Sig", &hex.to_uppercase())], BODY).unwrap();
}

#[test]
fn names_what_is_wrong() {
    let (_, hex, base64) = VECTORS[3];
    let verifier = hmac("SHA_256", "HEXA_DECIMAL", "");
    let code = |pairs: &[(&str, &str)], body| check(&verifier, pairs, body).unwrap_err().code();
    assert_eq!(code(&[], BODY), "verify.missing_header");
    assert_eq!(code(&[("X-Sig", "")], BODY), "verify.unreadable_signature");
    assert_eq!(code(&[("X-Sig", base64)], BODY), "verify.unreadable_signature");
    assert_eq!(code(&[("X-Sig", &hex[..62])], BODY), "verify.unreadable_signature");
    assert_eq!(code(&[("X-Sig", &hex[..63])], BODY), "verify.unreadable_signature");
    assert_eq!(code(&[("X-Sig", VECTORS[1].1)], BODY), "verify.unreadable_signature");
    assert_eq!(code(&[("X-Sig", &format!("sha256={hex}"))], BODY), "verify.unreadable_signature");
    assert_eq!(code(&[("X-Sig", &"0".repeat(9_000))], BODY), "verify.unreadable_signature");
    assert_eq!(code(&[("X-Sig", hex)], b"{}"), "verify.mismatch");
    let error = check(&verifier, &[("X-Sig", base64)], BODY).unwrap_err().to_string();
    assert!(error.contains("32 bytes (SHA_256) in hexadecimal digits"), "{error}");
}

#[test]
fn infers_nothing_that_prefix_and_length_do_not_agree_on() {
    let (_, hex, _) = VECTORS[3];
    let verifier = hmac("INFER_FROM_HEADER", "HEXA_DECIMAL", "");
    for value in [format!("sha1={hex}"), format!("sha3={hex}"), format!("={hex}")] {
        assert_eq!(check(&verifier, &[("X-Sig", &value)], BODY).unwrap_err().code(), "verify.unreadable_signature");
    }
}

#[test]
fn tries_every_occurrence_and_item_up_to_sixteen() {
    let (_, hex, _) = VECTORS[3];
    let wrong = "0".repeat(64);
    let verifier = hmac("SHA_256", "HEXA_DECIMAL", r#", "item": ",""#);
    check(&verifier, &[("X-Sig", &wrong), ("X-Sig", hex)], BODY).unwrap();
    check(&verifier, &[("X-Sig", &format!("garbage, {wrong} ,{hex}"))], BODY).unwrap();
    let many = |n: usize| format!("{}{hex}", format!("{wrong},").repeat(n));
    check(&verifier, &[("X-Sig", &many(15))], BODY).unwrap();
    assert_eq!(check(&verifier, &[("X-Sig", &many(16))], BODY).unwrap_err().code(), "verify.mismatch");
}

#[test]
fn tries_every_live_secret() {
    let spec = r#"{"hmac": {"header": "X-Sig", "encoding": "HEXA_DECIMAL", "secrets": [{"secret": "new"}, {"secret": "old"}]}}"#;
    let verifier = verifier(spec, &[("new", "other"), ("old", SECRET)]).unwrap();
    check(&verifier, &[("X-Sig", VECTORS[3].1)], BODY).unwrap();
}

#[test]
fn agrees_with_github() {
    let spec = r#"{"hmac": {"header": "X-Hub-Signature-256", "prefix": "sha256=", "algorithm": "SHA_256",
        "encoding": "HEXA_DECIMAL", "secrets": [{"secret": "a"}]}}"#;
    let verifier = verifier(spec, &[("a", "It's a Secret to Everybody")]).unwrap();
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    check(&verifier, &[("x-hub-signature-256", signature)], b"Hello, World!").unwrap();
    assert_eq!(verifier.sign(b"Hello, World!", NOW, "")[0].1, signature);
}

const STRIPE: &str = r#"{"hmac": {"header": "Stripe-Signature", "item": ",", "pair": "=", "field": "v1",
    "encoding": "HEXA_DECIMAL", "message": "{timestamp}.{body}", "timestamp": {"from": "field:t"},
    "secrets": [{"secret": "a"}]}}"#;

#[test]
fn agrees_with_stripe_and_refuses_stale_and_future_stamps() {
    let verifier = verifier(STRIPE, &[("a", "whsec_test_secret")]).unwrap();
    let signature = "f4618843b8b8e5230a54093db9dfe35271d363916894c6cc5ad86b46b2274895";
    let value = format!("t=1700000000,v1={},v1={signature},v0=00", "0".repeat(64));
    let headers = headers(&[("stripe-signature", &value)]);
    let at = |seconds: i64| Timestamp::from_micros((1_700_000_000 + seconds) * 1_000_000);
    for seconds in [-300, 0, 300] {
        verifier.verify(&headers, BODY, at(seconds)).unwrap();
    }
    let late = verifier.verify(&headers, BODY, at(301)).unwrap_err();
    assert_eq!(late, VerifyError::Stale { age_secs: 301, tolerance_secs: 300 });
    let early = verifier.verify(&headers, BODY, at(-301)).unwrap_err();
    assert_eq!(early, VerifyError::Stale { age_secs: -301, tolerance_secs: 300 });
    assert!(early.to_string().contains("ahead of our clock"));
    // Freshness is told only to those who hold the secret.
    assert_eq!(verifier.verify(&headers, b"{}", at(900)).unwrap_err().code(), "verify.mismatch");
    let unstamped = format!("v1={signature}");
    assert_eq!(
        check(&verifier, &[("Stripe-Signature", &unstamped)], BODY).unwrap_err().code(),
        "verify.missing_timestamp"
    );
    assert_eq!(verifier.sign(BODY, NOW, "")[0].1, format!("t=1700000000,v1={signature}"));
}

#[test]
fn agrees_with_slack() {
    let spec = r#"{"hmac": {"header": "X-Slack-Signature", "prefix": "v0=", "encoding": "HEXA_DECIMAL",
        "message": "v0:{timestamp}:{body}", "timestamp": {"from": "header:X-Slack-Request-Timestamp"},
        "secrets": [{"secret": "a"}]}}"#;
    let verifier = verifier(spec, &[("a", "8f742231b10e8888abcd99yyyzzz85a5")]).unwrap();
    let body = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let at = Timestamp::from_micros(1_531_420_618_000_000);
    let signature = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    let sent = headers(&[("X-Slack-Signature", signature), ("X-Slack-Request-Timestamp", "1531420618")]);
    verifier.verify(&sent, body, at).unwrap();
    let missing = headers(&[("X-Slack-Signature", signature)]);
    assert_eq!(verifier.verify(&missing, body, at).unwrap_err().code(), "verify.missing_timestamp");
    let signed = verifier.sign(body, at, "");
    assert_eq!(signed[0].1, signature);
    assert_eq!(signed[1].1, "1531420618");
}

#[test]
fn agrees_with_standard_webhooks() {
    let spec = r#"{"hmac": {"header": "webhook-signature", "item": " ", "pair": ",", "field": "v1",
        "message": "{header:webhook-id}.{timestamp}.{body}", "timestamp": {"from": "header:webhook-timestamp"},
        "key": {"strip": "whsec_", "encoding": "base64"}, "secrets": [{"secret": "a"}]}}"#;
    let verifier = verifier(spec, &[("a", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]).unwrap();
    let body = br#"{"test": 2432232314}"#;
    let at = Timestamp::from_micros(1_614_265_330_000_000);
    let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    let value = format!("v2,AAAA v1,AAAA {signature}");
    let sent = headers(&[("webhook-id", id), ("webhook-timestamp", "1614265330"), ("webhook-signature", &value)]);
    verifier.verify(&sent, body, at).unwrap();
    let signed = verifier.sign(body, at, id);
    assert_eq!(signed[0].1, signature);
    let unnamed = headers(&[("webhook-timestamp", "1614265330"), ("webhook-signature", signature)]);
    assert_eq!(verifier.verify(&unnamed, body, at).unwrap_err().code(), "verify.missing_header");
}

#[test]
fn says_that_a_signed_time_stamp_cannot_be_read() {
    let spec = r#"{"hmac": {"header": "X-Sig", "encoding": "HEXA_DECIMAL", "message": "{timestamp}.{body}",
        "timestamp": {"from": "header:X-Time", "unit": "iso"}, "secrets": [{"secret": "a"}]}}"#;
    let iso = verifier(spec, &[("a", SECRET)]).unwrap();
    let ms = verifier(&spec.replace("iso", "ms"), &[("a", SECRET)]).unwrap();
    let signed: HeaderMap = iso.sign(BODY, NOW, "").into_iter().collect();
    iso.verify(&signed, BODY, NOW).unwrap();
    assert_eq!(ms.verify(&signed, BODY, NOW).unwrap_err().code(), "verify.bad_timestamp");
}

#[test]
fn compares_tokens() {
    let spec = r#"{"token": {"header": "X-Token", "secrets": [{"secret": "a"}, {"secret": "b"}]}}"#;
    let tokens = verifier(spec, &[("a", "one"), ("b", "two")]).unwrap();
    let proof = check(&tokens, &[("X-Token", "two")], BODY).unwrap();
    assert_eq!(proof.credential_header.unwrap(), "x-token");
    check(&tokens, &[("X-Token", "wrong"), ("X-Token", "Bearer one")], BODY).unwrap();
    for wrong in ["", "on", "onee", "One", "Bearer", "Basic one"] {
        assert_eq!(check(&tokens, &[("X-Token", wrong)], BODY).unwrap_err().code(), "verify.wrong_token", "{wrong}");
    }
    assert_eq!(check(&tokens, &[], BODY).unwrap_err().code(), "verify.missing_header");

    let spec = r#"{"token": {"header": "Authorization", "prefix": "Token ", "secrets": [{"secret": "a"}]}}"#;
    let prefixed = verifier(spec, &[("a", "one")]).unwrap();
    check(&prefixed, &[("Authorization", "Token one")], BODY).unwrap();
    assert!(check(&prefixed, &[("Authorization", "one")], BODY).is_err());
    assert!(check(&prefixed, &[("Authorization", "Bearer one")], BODY).is_err());
    let spec = r#"{"token": {"header": "Authorization", "secrets": [{"secret": "a"}]}}"#;
    let whole = verifier(spec, &[("a", "Bearer one")]).unwrap();
    check(&whole, &[("Authorization", "Bearer one")], BODY).unwrap();
    assert!(check(&whole, &[("Authorization", "one")], BODY).is_err());
    assert!(check(&whole, &[("Authorization", "Bearer Bearer one")], BODY).is_err());
}

#[test]
fn asks_nothing_where_the_document_says_none() {
    let verifier = verifier(r#""none""#, &[]).unwrap();
    assert_eq!(check(&verifier, &[], BODY).unwrap(), Proof { by: "none", ok: false, credential_header: None });
    assert!(verifier.sign(BODY, NOW, "").is_empty());
}

#[test]
fn refuses_specs_that_cannot_work() {
    let cases = [
        (r#"{"token": {"header": "bad name", "secrets": []}}"#, "token.header token.secrets"),
        (r#"{"hmac": {"header": "", "secrets": []}}"#, "hmac.secrets hmac.header"),
        (r#"{"hmac": {"header": "a", "field": "v1", "secrets": [{"secret": "a"}]}}"#, "hmac.field"),
        (r#"{"hmac": {"header": "a", "pair": "=", "secrets": [{"secret": "a"}]}}"#, "hmac.pair"),
        (r#"{"hmac": {"header": "a", "prefix": "", "secrets": [{"secret": "a"}]}}"#, "hmac.prefix"),
        (r#"{"hmac": {"header": "a", "prefix": "sha1=", "secrets": [{"secret": "a"}]}}"#, "hmac.prefix"),
        (r#"{"hmac": {"header": "a", "message": "{bdy}", "secrets": [{"secret": "a"}]}}"#, "hmac.message"),
        (r#"{"hmac": {"header": "a", "message": "{body", "secrets": [{"secret": "a"}]}}"#, "hmac.message"),
        (r#"{"hmac": {"header": "a", "message": "x", "secrets": [{"secret": "a"}]}}"#, "hmac.message"),
        (r#"{"hmac": {"header": "a", "message": "{timestamp}{body}", "secrets": [{"secret": "a"}]}}"#, "hmac.message"),
        (
            r#"{"hmac": {"header": "a", "timestamp": {"from": "header:T"}, "secrets": [{"secret": "a"}]}}"#,
            "hmac.message",
        ),
        (
            r#"{"hmac": {"header": "a", "timestamp": {"from": "field:t"}, "secrets": [{"secret": "a"}]}}"#,
            "hmac.timestamp.from",
        ),
        (
            r#"{"hmac": {"header": "a", "timestamp": {"from": "t", "tolerance": "61m"}, "secrets": [{"secret": "a"}]}}"#,
            "hmac.timestamp.tolerance hmac.timestamp.from",
        ),
    ];
    for (spec, paths) in cases {
        let verify: Verify = serde_json::from_str(spec).unwrap();
        let faults = verify.faults();
        let found: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(found.join(" "), paths, "{spec}: {faults:?}");
        assert_eq!(Verifier::compile(&verify, |_| Some(SecretBytes::new("x"))).unwrap_err(), faults);
    }
}

#[test]
fn refuses_secrets_that_are_unknown_empty_or_written_otherwise() {
    let spec = r#"{"hmac": {"header": "a", "key": {"encoding": "hex"}, "secrets": [{"secret": "a"}, {"secret": "b"}, {"secret": "c"}]}}"#;
    let faults = verifier(spec, &[("b", ""), ("c", "xyz")]).unwrap_err();
    let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "hmac.secrets[0]: the secret `a` has no value",
            "hmac.secrets[1]: the secret `b` is empty",
            "hmac.secrets[2]: the secret `c` is not hexadecimal, as `key` says",
        ]
    );
}

#[test]
fn shows_nothing_of_its_secrets() {
    assert_eq!(format!("{:?}", hmac("SHA_256", "BASE64", "")), r#"Verifier("hmac")"#);
}

fn any_form() -> impl Strategy<Value = Verifier> {
    let algorithm =
        prop::sample::select(vec!["MD5", "SHA_1", "SHA_224", "SHA_256", "SHA_384", "SHA_512", "INFER_FROM_HEADER"]);
    let encoding = prop::sample::select(vec!["HEXA_DECIMAL", "BASE64", "BASE64URL"]);
    let more = prop::sample::select(vec![
        "",
        r#", "prefix": "v0=""#,
        r#", "item": ",", "pair": "=", "field": "v1""#,
        r#", "item": ",", "pair": "=", "field": "v1", "message": "{timestamp}.{body}", "timestamp": {"from": "field:t"}"#,
        r#", "message": "{{}}{header:X-Id}.{timestamp}.{body}", "timestamp": {"from": "header:X-T", "unit": "ms"}"#,
    ]);
    (algorithm, encoding, more).prop_map(|(algorithm, encoding, more)| hmac(algorithm, encoding, more))
}

proptest! {
    #[test]
    fn accepts_what_it_signs_and_nothing_that_was_changed(
        verifier in any_form(), body in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(),
        bit in 0..7_u8,
    ) {
        let signed = verifier.sign(&body, NOW, "evt_1");
        let map: HeaderMap = signed.iter().cloned().collect();
        prop_assert!(verifier.verify(&map, &body, NOW).is_ok());

        if !body.is_empty() {
            let mut changed = body.clone();
            changed[at.index(body.len())] ^= 1 << bit;
            prop_assert!(verifier.verify(&map, &changed, NOW).is_err());
        }

        let value = signed[0].1.as_bytes();
        let mut changed = value.to_vec();
        let place = at.index(value.len());
        changed[place] ^= 1 << bit;
        // These write the same signature in another way: case of hexadecimal digits, the other base64
        // alphabet, white space for padding.
        let folded = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('-', "+").replace('_', "/");
        let same = folded(value).eq_ignore_ascii_case(&folded(&changed))
            && (hex_form(&verifier) || folded(value) == folded(&changed));
        if !same && let Ok(changed) = HeaderValue::from_bytes(&changed) {
            let mut map = map.clone();
            map.insert(signed[0].0.clone(), changed);
            prop_assert!(verifier.verify(&map, &body, NOW).is_err());
        }
    }

    #[test]
    fn never_panics_on_what_callers_send(
        verifier in any_form(), value in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let mut map = HeaderMap::new();
            map.insert("x-sig", value.clone());
            map.insert("x-t", value);
            prop_assert!(verifier.verify(&map, b"", NOW).is_err());
        }
    }
}

fn hex_form(verifier: &Verifier) -> bool {
    matches!(&verifier.0, Scheme::Hmac(check) if check.shape.encoding == Encoding::HEXA_DECIMAL)
}

#[test]
fn the_name_of_a_scheme_has_no_case_and_any_number_of_blanks() {
    let verifier = |prefix: Option<&str>| {
        let spec = json!({"token": {"header": "Authorization", "prefix": prefix, "secrets": [{"secret": "s"}]}});
        let spec: Verify = serde_json::from_value(spec).unwrap();
        Verifier::compile(&spec, |_| Some(SecretBytes::new("t0k"))).unwrap()
    };
    let is_live = |prefix: Option<&str>, value: &str| {
        let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())]);
        verifier(prefix).verify(&headers, b"", NOW).is_ok()
    };
    for prefix in [Some("Bearer "), Some("bearer  "), None] {
        for (value, expected) in [
            ("Bearer t0k", true),
            ("bearer t0k", true),
            ("BEARER \t t0k", true),
            ("Bearert0k", false),
            ("Bearer T0K", false),
            ("Bearers t0k", false),
            ("Bearer", false),
            ("Basic t0k", false),
        ] {
            assert_eq!(is_live(prefix, value), expected, "{prefix:?} {value}");
        }
    }
    // What is no scheme is text.
    assert!(is_live(Some("key="), "key=t0k"));
    assert!(!is_live(Some("key="), "KEY=t0k"));
}
