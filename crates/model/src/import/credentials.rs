//! What in a source is a secret, by its name or its look.

use serde_json::Value;
use url::Url;

/// Ends of names that credentials have, letters and digits only.
const SECRET_ENDS: &[&str] = &[
    "apikey",
    "appkey",
    "apitoken",
    "accesskey",
    "accesstoken",
    "authtoken",
    "authkey",
    "authorization",
    "bearer",
    "bearertoken",
    "clientsecret",
    "connectionstring",
    "cookie",
    "credential",
    "credentials",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "privatekey",
    "privatetoken",
    "pwd",
    "refreshtoken",
    "secret",
    "secretkey",
    "secrets",
    "sessionid",
    "signingkey",
    "subscriptionkey",
    "usertoken",
];

/// Beginnings of credentials that are known by their look.
const SECRET_BEGINNINGS: &[&str] = &[
    "AIza",
    "AKIA",
    "ASIA",
    "Basic ",
    "Bearer ",
    "SG.",
    "eyJ",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "pk_live_",
    "rk_live_",
    "sk-",
    "sk_live_",
    "sk_test_",
    "whsec_",
    "xoxa-",
    "xoxb-",
    "xoxp-",
];

fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether a field, a variable or a parameter of this name holds a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = letters(name);
    let is_token = name.ends_with("token") && !is_page_token(&name);
    is_token
        || matches!(name.as_str(), "pass" | "passcode" | "pin" | "otp" | "session" | "sid")
        || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

/// Whether a parameter of this name is a credential, when it is known that it was given a value by hand.
pub(super) fn is_secret_parameter(name: &str) -> bool {
    let letters = letters(name);
    let is_known = matches!(letters.as_str(), "key" | "auth" | "sig" | "accesskeyid");
    // `X-Amz-Signature` and `X-Goog-Signature` too: whoever has a signed URL needs no more.
    is_known || letters.ends_with("signature") || is_secret_name(name)
}

/// Whether a header of this name is a credential.
pub(super) fn is_secret_header(name: &str) -> bool {
    let letters = letters(name);
    let is_key = letters.ends_with("key") && !letters.contains("idempotency");
    is_key || letters.ends_with("auth") || letters.ends_with("session") || is_secret_name(name)
}

fn is_page_token(letters: &str) -> bool {
    ["pagetoken", "nexttoken", "continuationtoken", "synctoken", "skiptoken"].iter().any(|end| letters.ends_with(end))
}

/// Whether a parameter that an API describes is there for a credential; `place` is `query` or `header`.
pub(super) fn is_credential_parameter(place: &str, name: &str, description: &str) -> bool {
    let ends = |ends: &[&str]| ends.iter().any(|end| letters(name).ends_with(end));
    if ends(&["apikey", "apitoken", "accesstoken", "authtoken", "sessiontoken", "subscriptionkey", "authorization"]) {
        return true;
    }
    if place == "header" {
        return is_secret_header(name);
    }
    // Names that pages and objects have too.
    let is_open = matches!(letters(name).as_str(), "token" | "key" | "auth");
    let description = description.to_lowercase();
    is_open
        && ["authentic", "api key", "api token", "access token", "credential"]
            .iter()
            .any(|words| description.contains(words))
}

/// Whether a value is a URL with a user and a password in it.
fn has_user_info(value: &str) -> bool {
    let authority = value.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let user = authority.and_then(|authority| authority.rsplit_once('@')).map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':') && user != ":")
}

/// Whether a value is a URL with a credential in its query.
fn has_secret_query(value: &str) -> bool {
    let is_url = value.contains("://") && value.contains('?');
    let url = is_url.then(|| Url::parse(value.trim()).ok()).flatten();
    url.is_some_and(|url| url.query_pairs().any(|(name, value)| !value.is_empty() && is_secret_parameter(&name)))
}

/// Whether a text gives something that is called like a secret a value: `password: "…"`, `{"pin": 7}`, `pwd=…`.
fn assigns_secret(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.match_indices([':', '=']).any(|(at, sign)| {
        let before = text[..at].trim_end_matches([' ', '"', '\'', '\\']);
        let name = &before[before.trim_end_matches(is_part).len()..];
        let after = &text[at + 1..];
        // What follows a colon may be a type, or a sentence.
        let is_value = match sign {
            ":" => {
                let after = after.trim_start();
                let value = after.trim_start_matches(['"', '\'', '\\']);
                let is_quoted = value.len() < after.len() && !value.starts_with([',', '}', ')', ']', '\n', '&']);
                is_quoted && !value.is_empty() || value.starts_with(|c: char| c.is_ascii_digit())
            }
            _ => after.starts_with(|c: char| !c.is_whitespace() && !matches!(c, '&' | ';' | '=' | '>' | '"' | '\'')),
        };
        is_value && is_secret_name(name)
    })
}

/// Whether a value looks like a credential, or has one in it.
pub(super) fn looks_secret(value: &str) -> bool {
    let is_known = value.len() >= 16 && SECRET_BEGINNINGS.iter().any(|beginning| value.starts_with(beginning));
    is_known || has_user_info(value) || has_secret_query(value) || assigns_secret(value)
}

/// Whether a segment of a path looks like a credential: known by its look, or long and without a meaning. Ids in
/// hexadecimal digits are none.
pub(super) fn is_secret_segment(segment: &str) -> bool {
    let has = |wanted: fn(char) -> bool| segment.contains(wanted);
    let is_id = segment.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let is_one_word = segment.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':'));
    let is_mixed = has(|c| c.is_ascii_digit()) && has(|c| c.is_ascii_uppercase()) && has(|c| c.is_ascii_lowercase());
    looks_secret(segment) || (segment.len() >= 20 && is_one_word && is_mixed && !is_id)
}

/// Whether a text that is no data, such as XML, speaks of secrets.
pub(super) fn speaks_of_secrets(text: &str) -> bool {
    let lower = text.to_lowercase();
    let names = ["password", "passwd", "secret", "api_key", "apikey", "access_token", "accesstoken"];
    names.iter().any(|name| lower.contains(name)) || has_secret_words(text)
}

/// Whether a text has a word in it that looks like a secret, or gives one a value.
pub(super) fn has_secret_words(text: &str) -> bool {
    let mut words = text.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '=' | ','));
    looks_secret(text) || words.any(looks_secret)
}

/// Whether a text is a secret, or one of several lines that has some.
fn is_secret_text(text: &str) -> bool {
    has_secret_words(text) || (text.contains('\n') && speaks_of_secrets(text))
}

/// Whether an example value holds a secret anywhere. What stands below the name of a secret is one, whatever it is.
pub(super) fn holds_secret(value: &Value) -> bool {
    match value {
        Value::String(text) => is_secret_text(text),
        Value::Array(items) => items.iter().any(holds_secret),
        Value::Object(map) => map
            .iter()
            .any(|(key, item)| (is_secret_name(key) && !item.is_boolean() && !item.is_null()) || holds_secret(item)),
        _ => false,
    }
}

/// The same value with three dots in the place of every secret.
pub(super) fn scrubbed(value: &Value) -> Value {
    match value {
        Value::String(text) if is_secret_text(text) => "…".into(),
        Value::Array(items) => items.iter().map(scrubbed).collect(),
        Value::Object(map) => {
            let fields = map.iter().map(|(key, item)| {
                let item = if is_secret_name(key) { hidden(item) } else { scrubbed(item) };
                (key.clone(), item)
            });
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

/// Three dots in the place of every text and number; the shape stays.
fn hidden(value: &Value) -> Value {
    match value {
        Value::String(_) | Value::Number(_) => "…".into(),
        Value::Array(items) => items.iter().map(hidden).collect(),
        Value::Object(map) => map.iter().map(|(key, item)| (key.clone(), hidden(item))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in ["X-Api-Key", "Authorization", "PRIVATE-TOKEN", "X-Vault-Token", "Cookie", "x-functions-key"] {
            assert!(is_secret_header(name), "{name}");
        }
        for name in ["Accept", "Idempotency-Key", "X-Page-Token", "X-Request-Id"] {
            assert!(!is_secret_header(name), "{name}");
        }
        assert!(is_secret_parameter("key") && !is_credential_parameter("query", "key", "The key of the project."));
        assert!(is_credential_parameter("query", "token", "Authentication token."));
        assert!(is_credential_parameter("query", "api_key", ""));
        assert!(is_credential_parameter("header", "X-Vault-Token", ""));
        assert!(
            !is_credential_parameter("query", "pageToken", "")
                && !is_credential_parameter("query", "client_secret", "")
        );
    }

    #[test]
    fn secrets_are_known_by_their_look() {
        for segment in ["bot123456:AAbbCCddEEffGGhh", "T0abCDefGHijKLmnOPqrST9x", "ghp_abcdefabcdefabcdef"] {
            assert!(is_secret_segment(segment), "{segment}");
        }
        for segment in [
            "users",
            "3f60af14-60f3-4474-a3db-4b7998ce87db",
            "507f1f77bcf86cd799439011",
            "list-of-all-the-things",
            "v1",
        ] {
            assert!(!is_secret_segment(segment), "{segment}");
        }
        assert!(speaks_of_secrets("<Password>x</Password>") && speaks_of_secrets("a=sk_live_0123456789abc"));
        assert!(!speaks_of_secrets("<order><id>7</id></order>"));
        for value in [
            "https://app.test/?access_token=abc",
            "https://app.test/a?x=1&X-Amz-Signature=abc",
            "login(password: \"abc\")",
            "{\"otp\": 123456}",
            "{\\\"otp\\\": \\\"abc\\\"}",
            "Server=db;Pwd=abc;",
            "https://bob:abc@a.test",
        ] {
            assert!(looks_secret(value), "{value}");
        }
        for value in [
            "https://app.test/?page=2",
            "login($password: String!)",
            "https://a.test/?token=",
            "a session: now",
            "{\"token\": \"\"}",
        ] {
            assert!(!looks_secret(value), "{value}");
        }
    }

    #[test]
    fn samples_are_scrubbed() {
        let sample =
            json!({"id": 7, "access_token": "abc", "nested": [{"password": "x", "n": "ghp_0123456789abcdef"}]});
        assert!(holds_secret(&sample));
        let scrubbed = scrubbed(&sample);
        assert_eq!(scrubbed, json!({"id": 7, "access_token": "…", "nested": [{"password": "…", "n": "…"}]}));
        let sample = json!({
            "otp": 123456, "credentials": {"value": "a", "on": true}, "secrets": ["b"], "password": ["c", null],
            "note": "one\nmy secret is x",
        });
        for (key, value) in sample.as_object().unwrap() {
            assert!(holds_secret(&json!({key: value})), "{key}");
        }
        assert_eq!(
            super::scrubbed(&sample),
            json!({
                "otp": "…", "credentials": {"value": "…", "on": true}, "secrets": ["…"], "password": ["…", null],
                "note": "…",
            })
        );
        assert!(!holds_secret(&json!({"token": null, "password": true})));
    }
}
