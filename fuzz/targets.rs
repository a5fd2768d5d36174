//! What is fuzzed: functions of the model over bytes that others choose. Each returns whatever the bytes are; a panic,
//! a hang or memory out of proportion is a bug. `cargo fuzz` runs them, and so does the model's test over the seeds in
//! `corpus/`, so that a target that does not compile, or a seed that fails, fails the usual tests.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use linkspan_model::digest::Challenge;
use linkspan_model::import::{Format, ImportSpec};
use linkspan_model::template::{Expression, Scope, Template};
use linkspan_model::traffic::learned::learn;
use linkspan_model::verify::{Verifier, Verify};
use linkspan_model::yaml::{self, RepeatedKeys};
use linkspan_model::{SecretBytes, Timestamp, form, retry, tree, units, xml};
use serde_json::json;

/// A target: its name, which is that of its folder in `corpus/`, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("templates", templates),
    ("signatures", signatures),
    ("challenges", challenges),
    ("xml", xml),
    ("json", json),
    ("yaml", yaml),
    ("forms", forms),
    ("curl", curl),
    ("openapi", openapi),
    ("dates", dates),
];

/// The wall clock of every target: 2023-11-14T22:13:20Z.
const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// Templates and expressions, parsed, and rendered where they are right.
pub fn templates(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let body =
        json!({"a": {"b": [1, 2.50, "three", null, true]}, "text": "caf\u{e9} & <x>", "n": 7, "list": [3, 1, 2]});
    let scope = Scope::new().with("trigger.body", body);
    if let Ok(template) = Template::parse(text) {
        // What cannot be rendered says so.
        drop(template.render_value(&scope));
        drop(template.render_text(&scope));
        drop(template.render_header(&scope));
        drop(template.render_url_path(&scope));
        drop(template.render_url(&scope));
    }
    if let Ok(expression) = Expression::parse(text) {
        drop(expression.evaluate(&scope));
        drop(expression.holds(&scope));
    }
}

/// Headers of keyed signatures: a line of the signature, one of the time, and the body.
pub fn signatures(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let (signature, time) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let body = parts.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-signature", signature), ("x-time", time)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let secrets = json!([{"secret": "a"}]);
    for (way, unit) in [("HEXA_DECIMAL", "s"), ("BASE64", "ms"), ("BASE64URL", "iso")] {
        let plain =
            json!({"hmac": {"header": "X-Signature", "prefix": "sha256=", "encoding": way, "secrets": secrets}});
        let pairs = json!({"hmac": {"header": "X-Signature", "item": ",", "pair": "=", "field": "v1", "encoding": way,
            "message": "{timestamp}.{body}", "timestamp": {"from": "field:t", "unit": unit}, "secrets": secrets}});
        let listed = json!({"hmac": {"header": "X-Signature", "item": " ", "pair": ",", "field": "v1", "encoding": way,
            "message": "{header:X-Signature}.{timestamp}.{body}",
            "timestamp": {"from": "header:X-Time", "unit": unit}, "secrets": secrets}});
        let inferred = json!({"hmac": {"header": "X-Signature", "algorithm": "INFER_FROM_HEADER", "encoding": way,
            "secrets": secrets}});
        for document in [plain, pairs, listed, inferred] {
            let verify: Verify = serde_json::from_value(document).expect("written above");
            let verifier = Verifier::compile(&verify, |_| Some(SecretBytes::new("key".to_owned())));
            let Ok(verifier) = verifier else { panic!("a verification of the fuzz target is not right: {verifier:?}") };
            drop(verifier.verify(&headers, body, NOW));
        }
    }
}

/// Challenges of Digest authentication.
pub fn challenges(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(Challenge::read(text.lines()));
    }
}

/// XML: what the check lets through can be read, and what was read is written again.
pub fn xml(bytes: &[u8]) {
    drop(xml::check(None, bytes));
    if let Ok(tree) = xml::read(None, bytes) {
        drop(xml::write(&tree));
    }
}

/// JSON: its measure, the tree, and the check of a webhook's body.
pub fn json(bytes: &[u8]) {
    let measured = tree::measure(bytes);
    let parsed = tree::parse_json(bytes);
    assert!(parsed.is_err() || measured.is_ok(), "a tree was made of what is too large");
    drop(tree::check(Some(linkspan_model::endpoint::Format::Json), None, bytes));
}

/// YAML of documents: what is written of a value reads as the same value.
pub fn yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    drop(yaml::read(text, RepeatedKeys::Join));
    if let Ok(read) = yaml::read(text, RepeatedKeys::Refuse) {
        let written = yaml::write(&read.value);
        let again = yaml::read(&written, RepeatedKeys::Refuse).map(|read| read.value);
        assert_eq!(again.as_ref(), Ok(&read.value), "{written}");
    }
}

/// Forms and queries.
pub fn forms(bytes: &[u8]) {
    drop(form::parse(bytes, None));
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(form::parse_query(text));
    }
}

/// Commands of curl, imported; what cookies they carry is read with them.
pub fn curl(bytes: &[u8]) {
    import(bytes, Format::Curl);
}

/// Descriptions of APIs, imported.
pub fn openapi(bytes: &[u8]) {
    import(bytes, Format::OpenApi);
}

fn import(bytes: &[u8], format: Format) {
    if let Ok(source) = std::str::from_utf8(bytes) {
        drop(ImportSpec { source: source.to_owned(), format: Some(format), ..ImportSpec::default() }.import());
    }
}

/// Times and dates as documents, headers and APIs write them.
pub fn dates(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(time) = text.parse::<Timestamp>() {
        let _written = (time.to_string(), time.after(Duration::MAX), time.before(Duration::MAX), time.since(NOW));
    }
    drop(text.parse::<units::Duration>());
    let _wait = retry::parse_retry_after(text, NOW);
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        for name in ["retry-after", "x-ratelimit-reset", "ratelimit", "ratelimit-reset", "x-rate-limit-reset"] {
            let headers = HeaderMap::from_iter([
                (HeaderName::from_static(name), value.clone()),
                (HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from_static("0")),
            ]);
            let _learnt = learn(429, &headers, NOW);
        }
    }
}
