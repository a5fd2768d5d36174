//! OAuth2 as a client (RFC 6749): what an account says, what is sent to a provider, and what its answers mean.
//!
//! Guarantees that the parts of a token are never printed, and that answers are read leniently in their form, because
//! providers differ, and strictly in what is made of them. Leaves sending, storing and the clock to others.

use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::account::Credential;
use crate::fault::Fault;
use crate::name::Name;
use crate::secret::{SecretBytes, SecretRef};

/// Longest time before its expiry at which a token is refreshed; half of its life when that is shorter.
const AHEAD_MAX: Duration = Duration::from_mins(10);

/// Longest text of a provider that is shown, in characters.
const SHOWN_CHARS: usize = 300;

/// An account whose token a provider gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OAuth2Spec {
    /// How the token is obtained.
    pub grant: Grant,
    /// Where tokens are given.
    pub token_url: String,
    /// The client's id at the provider.
    pub client_id: Credential,
    /// The client's secret.
    pub client_secret: SecretRef,
    /// How the client proves itself. Default basic, which RFC 6749 asks every provider to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// What the token should permit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// What the token is for, where the provider asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// More parameters of the requests for tokens.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub token_params: IndexMap<String, Credential>,
    /// Grant password: the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<Credential>,
    /// Grant password: the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
}

/// How a token is obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// By the client alone (RFC 6749, section 4.4).
    ClientCredentials,
    /// By a user's password (section 4.3). Legacy: RFC 9700 forbids it to new applications.
    Password,
}

/// How a client proves itself (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// In the header Authorization.
    #[default]
    Basic,
    /// In the body of the request.
    Body,
}

/// Parameters of token requests that are ours to set.
const OURS: [&str; 10] = [
    "grant_type",
    "client_id",
    "client_secret",
    "scope",
    "username",
    "password",
    "refresh_token",
    "code",
    "redirect_uri",
    "code_verifier",
];

impl OAuth2Spec {
    /// The secret documents that it refers to, each with its path relative to `spec`.
    #[must_use]
    pub fn secrets(&self) -> Vec<(String, &Name)> {
        let mut found = Vec::new();
        for (path, part) in [("client_id", Some(&self.client_id)), ("username", self.username.as_ref())] {
            if let Some(Credential::Secret(reference)) = part {
                found.push((format!("oauth2.{path}"), &reference.secret));
            }
        }
        found.push(("oauth2.client_secret".to_owned(), &self.client_secret.secret));
        found.extend(self.password.iter().map(|reference| ("oauth2.password".to_owned(), &reference.secret)));
        for (name, part) in &self.token_params {
            if let Credential::Secret(reference) = part {
                found.push((format!("oauth2.token_params.{name}"), &reference.secret));
            }
        }
        found
    }

    /// Everything that is wrong with it, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = url_fault("oauth2.token_url", &self.token_url).into_iter().collect();
        let is_password = self.grant == Grant::Password;
        if is_password && (self.username.is_none() || self.password.is_none()) {
            faults.push(Fault::new("oauth2", "grant password needs username and password"));
        }
        if !is_password {
            for (field, is_given) in [("username", self.username.is_some()), ("password", self.password.is_some())] {
                if is_given {
                    faults.push(Fault::new(format!("oauth2.{field}"), "only grant password has a user"));
                }
            }
        }
        for name in self.token_params.keys().filter(|name| OURS.contains(&name.as_str())) {
            faults.push(Fault::new(format!("oauth2.token_params.{name}"), "this parameter has a field of its own"));
        }
        for (n, scope) in self.scopes.iter().enumerate() {
            if scope.is_empty() || scope.chars().any(char::is_control) {
                faults.push(Fault::new(format!("oauth2.scopes[{n}]"), "a scope is a text without line breaks"));
            }
        }
        faults
    }

    /// What a token was obtained with, as a text to compare: a token of something else is not this account's, and
    /// must not be sent where this account's go.
    #[must_use]
    pub fn identity(&self) -> String {
        let mut whole = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = whole.as_object_mut() {
            fields.shift_remove("client_auth");
        }
        whole.to_string()
    }

    /// Whether something of it goes over plain HTTP.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        Url::parse(&self.token_url).is_ok_and(|url| url.scheme() == "http")
    }
}

fn url_fault(path: &str, text: &str) -> Option<Fault> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return Some(Fault::new(path, format_args!("`{}` is not a URL: {error}", text.escape_debug()))),
    };
    let reason = if !matches!(url.scheme(), "http" | "https") {
        "it starts with https:// or http://"
    } else if !url.username().is_empty() || url.password().is_some() {
        "a URL holds no credentials"
    } else if url.fragment().is_some() {
        // RFC 6749, sections 3.1 and 3.2.
        "it holds no fragment"
    } else {
        return None;
    };
    Some(Fault::new(path, reason))
}

/// A token as a provider gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What requests carry.
    pub access: SecretBytes,
    /// What the next token is obtained with; nothing when the provider gave none.
    pub refresh: Option<SecretBytes>,
    /// How long it lives; nothing when the provider does not say.
    pub life: Option<Duration>,
    /// What it permits; nothing when the provider does not say, which means what was asked for.
    pub scopes: Option<String>,
}

/// Why a provider's answer is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoToken {
    /// It refuses, and would refuse again.
    Refused(String),
    /// It cannot now.
    Unavailable(String),
    /// It gave an answer that cannot be read: whether it gave a token is unknown.
    Unreadable(String),
}

impl NoToken {
    /// What happened, in words. May quote the provider, and with it secrets: mask it.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(reason) | Self::Unavailable(reason) | Self::Unreadable(reason) => reason,
        }
    }
}

/// Reads the answer of a token endpoint (RFC 6749, sections 5.1 and 5.2): JSON, or a form as old providers give it.
///
/// # Errors
/// It holds no token; and what that means.
pub fn read_token(status: u16, body: &[u8]) -> Result<Token, NoToken> {
    let fields = fields(body);
    let text = |name: &str| match fields.as_ref()?.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    if let Some(error) = text("error") {
        let description = text("error_description").or_else(|| text("error_uri")).map(|text| shown(&text));
        let words = explain(&error);
        let said = description.map_or_else(|| shown(&error), |description| format!("{}: {description}", shown(&error)));
        let reason = words.map_or_else(|| said.clone(), |words| format!("{words} ({said})"));
        let is_temporary =
            matches!(error.as_str(), "temporarily_unavailable" | "server_error" | "slow_down") || status >= 500;
        return Err(if is_temporary { NoToken::Unavailable(reason) } else { NoToken::Refused(reason) });
    }
    match status {
        200..=299 => {}
        // Who asked too often, or too slowly, may ask again.
        408 | 425 | 429 => return Err(NoToken::Unavailable(format!("the provider answered {status}"))),
        // A gateway that gave up does not know what happened behind it.
        502 | 504 => return Err(NoToken::Unreadable(format!("the provider's gateway answered {status}"))),
        500..=599 => return Err(NoToken::Unavailable(format!("the provider answered {status}"))),
        _ => return Err(NoToken::Refused(format!("the provider answered {status} without saying why"))),
    }
    let unreadable = |reason: &str| NoToken::Unreadable(format!("the provider answered {status}, but {reason}"));
    let access = text("access_token").ok_or_else(|| unreadable("without a token"))?;
    if !access.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unreadable("its token holds characters that a token cannot"));
    }
    let kind = text("token_type");
    if kind.as_ref().is_some_and(|kind| !kind.to_ascii_lowercase().starts_with("bearer")) {
        return Err(NoToken::Refused("the provider gives tokens of another type than bearer".to_owned()));
    }
    let life = text("expires_in").or_else(|| text("expires")).and_then(|text| seconds(&text));
    let scopes = match fields.as_ref().and_then(|fields| fields.get("scope")) {
        Some(Value::String(scopes)) => Some(scopes.clone()),
        Some(Value::Array(scopes)) => Some(scopes.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        _ => None,
    };
    Ok(Token {
        access: SecretBytes::new(access),
        refresh: text("refresh_token").map(SecretBytes::new),
        life,
        scopes: scopes.map(|scopes| shown(&scopes)),
    })
}

/// The fields of an answer, whatever its content type says: providers label them wrongly.
fn fields(body: &[u8]) -> Option<serde_json::Map<String, Value>> {
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        return match value {
            Value::Object(fields) => Some(fields),
            _ => None,
        };
    }
    let text = std::str::from_utf8(body).ok()?;
    let looks_like_form = text.contains('=') && !text.trim_start().starts_with(['<', '{']);
    looks_like_form.then(|| {
        let pairs = url::form_urlencoded::parse(text.trim().as_bytes());
        pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect()
    })
}

/// A life as number or text; one that is not positive says nothing.
fn seconds(text: &str) -> Option<Duration> {
    let whole = text.trim().split('.').next()?.parse::<u64>().ok()?;
    // A hundred years: what is longer does not expire.
    (1..=3_155_760_000).contains(&whole).then(|| Duration::from_secs(whole))
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The error codes of RFC 6749, section 5.2, in words.
fn explain(error: &str) -> Option<&'static str> {
    Some(match error {
        "invalid_client" => "the provider does not know the client, or does not accept its secret",
        "invalid_grant" => "what the token was asked for with is not valid any more, or not for this client",
        "unauthorized_client" => "the provider does not let this client use this grant",
        "unsupported_grant_type" => "the provider does not know this grant",
        "invalid_scope" => "the provider does not give these scopes",
        "invalid_request" => "the provider cannot use the request",
        _ => return None,
    })
}

/// How long after it was obtained a token is refreshed; `jitter` from 0 to 1 spreads those that were obtained
/// together. Nothing for a token that does not say how long it lives.
#[must_use]
pub fn refresh_after(life: Option<Duration>, jitter: f64) -> Option<Duration> {
    let life = life?;
    let ahead = AHEAD_MAX.min(life / 2);
    // Up to a fifth earlier.
    Some(life - ahead - ahead.mul_f64(0.2 * jitter.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(body: impl AsRef<[u8]>) -> Result<Token, NoToken> {
        read_token(200, body.as_ref())
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
    fn says_what_is_wrong() {
        let refused = |status, body: &str| match read_token(status, body.as_bytes()).unwrap_err() {
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
        for (status, body) in [
            (503, ""),
            (429, "{}"),
            (500, r#"{"error":"invalid_grant"}"#),
            (400, r#"{"error":"temporarily_unavailable"}"#),
        ] {
            assert!(matches!(read_token(status, body.as_bytes()), Err(NoToken::Unavailable(_))), "{status} {body}");
        }
        for (status, body) in
            [(200, ""), (200, "<p a=b>"), (200, "[]"), (200, r#"{"access_token":"a b"}"#), (502, ""), (504, "x")]
        {
            assert!(matches!(read_token(status, body.as_bytes()), Err(NoToken::Unreadable(_))), "{status} {body}");
        }
        let long = refused(400, &json!({"error": "x".repeat(10_000)}).to_string());
        assert_eq!(long.len(), SHOWN_CHARS);
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

    proptest! {
        #[test]
        fn answers_never_panic_and_show_no_line_breaks(status in 100u16..600, body in ".{0,200}") {
            if let Err(error) = read_token(status, body.as_bytes()) {
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
}
