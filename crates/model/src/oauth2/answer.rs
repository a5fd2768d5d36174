//! What a token endpoint's answers mean.
//!
//! Guarantees that the parts of a token are never printed, and that answers are read leniently in their form, because
//! providers differ, and strictly in what is made of them.

use std::time::Duration;

use serde_json::Value;

use crate::secret::SecretBytes;
use crate::{charset, form, limits, tree};

/// Longest time before its expiry at which a token is refreshed; half of its life when that is shorter.
pub(super) const AHEAD_MAX: Duration = Duration::from_mins(10);

/// Longest text of a provider that is shown, in characters.
pub(super) const SHOWN_CHARS: usize = 300;

/// Longest text of a provider's answer that is taken along, in characters: far more than is shown.
pub(super) const SAID_CHARS: usize = 16 << 10;

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
pub fn read_token(status: u16, content_type: Option<&str>, body: &[u8]) -> Result<Token, NoToken> {
    let fields = fields(content_type, body);
    let text = |name: &str| match fields.as_ref()?.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    if let Some(error) = text("error") {
        let description = text("error_description").or_else(|| text("error_uri")).map(|text| said(&text));
        let words = explain(&error);
        let code = said(&error);
        let said = description.map_or_else(|| code.clone(), |description| format!("{code}: {description}"));
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
    let refresh = text("refresh_token");
    for (name, token) in [("access_token", Some(&access)), ("refresh_token", refresh.as_ref())] {
        if let Some(token) = token.filter(|token| token.len() > limits::TOKEN_BYTES) {
            return Err(NoToken::Refused(format!(
                "the {name} that the provider gave has {} bytes, and at most {} KiB are taken; ask for fewer scopes or claims",
                token.len(),
                limits::TOKEN_BYTES >> 10
            )));
        }
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
        refresh: refresh.map(SecretBytes::new),
        life,
        scopes: scopes.map(|scopes| shown(&scopes)),
    })
}

/// The fields of an answer, whatever kind its content type says: providers label them wrongly.
fn fields(content_type: Option<&str>, body: &[u8]) -> Option<serde_json::Map<String, Value>> {
    let text = tree::text_of_json(content_type, body).ok()?;
    if let Ok(value) = tree::json_text(&text) {
        return match value {
            Value::Object(fields) => Some(fields),
            _ => None,
        };
    }
    let looks_like_form = text.contains('=') && !text.trim_start().starts_with(['<', '{']);
    if !looks_like_form {
        return None;
    }
    match form::parse(text.trim().as_bytes(), charset::declared(content_type)) {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

/// A life as number or text; one that is not positive says nothing. Any number of JSON (RFC 8259, section 6): `3.6e3`
/// is an hour.
fn seconds(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse::<f64>().ok()?;
    // A hundred years: what is longer does not expire.
    (seconds > 0.0 && seconds <= 3_155_760_000.0).then(|| Duration::from_secs_f64(seconds))
}

pub(super) fn shown(text: &str) -> String {
    beginning(text, SHOWN_CHARS)
}

/// The words of a provider in which secrets are still to be hidden: a part of one could not be told any more.
fn said(text: &str) -> String {
    beginning(text, SAID_CHARS)
}

fn beginning(text: &str, chars: usize) -> String {
    text.chars().take(chars).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The error codes of RFC 6749, section 5.2, in words.
pub(super) fn explain(error: &str) -> Option<&'static str> {
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
