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
    /// Grant `authorization_code`: where the user consents; its own query is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorize_url: Option<String>,
    /// Grant `authorization_code`: whether the code is bound to this client by PKCE (RFC 7636, S256). Default auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkce: Option<Pkce>,
    /// Grant `authorization_code`: what the provider calls itself in `iss` (RFC 9207); an answer of anybody else is
    /// refused then, and one without `iss` too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
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
    /// By a user's consent in the browser (RFC 6749, section 4.1).
    AuthorizationCode,
    /// By the client alone (RFC 6749, section 4.4).
    ClientCredentials,
    /// By a user's password (section 4.3). Legacy: RFC 9700 forbids it to new applications.
    Password,
}

/// Whether an authorization code is bound to the client that asked for it (RFC 7636).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pkce {
    /// As `on`: RFC 9700 asks for it, and a provider that does not know its parameters ignores them.
    #[default]
    Auto,
    /// It is.
    On,
    /// It is not, for a provider that refuses what it does not know.
    Off,
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
        let has_consent = self.grant == Grant::AuthorizationCode;
        match &self.authorize_url {
            Some(url) if has_consent => faults.extend(url_fault("oauth2.authorize_url", url)),
            None if has_consent => faults.push(Fault::new("oauth2", "grant authorization_code needs authorize_url")),
            _ => {}
        }
        let given = [
            ("authorize_url", self.authorize_url.is_some()),
            ("pkce", self.pkce.is_some()),
            ("issuer", self.issuer.is_some()),
        ];
        for (field, _) in given.iter().filter(|(_, is_given)| *is_given && !has_consent) {
            faults.push(Fault::new(format!("oauth2.{field}"), "only grant authorization_code has it"));
        }
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
            if self.grant == Grant::AuthorizationCode {
                // A user's consent need not be asked for again because the next one would be asked otherwise.
                fields.retain(|name, _| matches!(name.as_str(), "grant" | "token_url" | "client_id"));
            }
        }
        whole.to_string()
    }

    /// Whether a user must consent before there is a token.
    #[must_use]
    pub fn needs_consent(&self) -> bool {
        self.grant == Grant::AuthorizationCode
    }

    /// Where the user's browser goes to consent (RFC 6749, section 4.1.1). The query of `authorize_url` stays; what
    /// is ours to set takes the place of parameters of the same names. `challenge` is the PKCE challenge.
    ///
    /// # Errors
    /// There is no `authorize_url`, or it is none.
    pub fn authorization_url(
        &self,
        client_id: &str,
        redirect_uri: &str,
        state: &str,
        challenge: Option<&str>,
    ) -> Result<Url, String> {
        let text = self.authorize_url.as_deref().ok_or("the account has no authorize_url")?;
        let mut url = Url::parse(text).map_err(|error| format!("authorize_url: {error}"))?;
        let scope = self.scopes.join(" ");
        let mut ours =
            vec![("response_type", "code"), ("client_id", client_id), ("redirect_uri", redirect_uri), ("state", state)];
        if !scope.is_empty() {
            ours.push(("scope", &scope));
        }
        ours.extend(self.audience.as_deref().map(|audience| ("audience", audience)));
        if let Some(challenge) = challenge {
            ours.extend([("code_challenge", challenge), ("code_challenge_method", "S256")]);
        }
        let is_ours = |pair: &&str| {
            let name = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(name, _)| name.into_owned());
            name.is_some_and(|name| ours.iter().any(|(own, _)| *own == name))
        };
        let query = url.query().unwrap_or_default();
        let mut pairs: Vec<String> =
            query.split('&').filter(|pair| !pair.is_empty() && !is_ours(pair)).map(str::to_owned).collect();
        for (name, value) in &ours {
            let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            // Some providers do not know a plus for a blank.
            pairs.push(format!("{name}={}", value.replace('+', "%20")));
        }
        url.set_query(Some(&pairs.join("&")));
        Ok(url)
    }

    /// Whether an answer in the browser is the provider's own, by what it calls itself there (RFC 9207): a provider
    /// must not hand in the code of another one.
    ///
    /// # Errors
    /// It is not, or does not say so although the account expects it; in words.
    pub fn check_issuer(&self, iss: Option<&str>) -> Result<(), String> {
        let said = |iss: &str| format!("the answer says that it comes from {}", shown(iss));
        match (&self.issuer, iss) {
            (None, None) => Ok(()),
            (Some(issuer), Some(iss)) if issuer == iss => Ok(()),
            (Some(issuer), Some(iss)) => Err(format!("{}, not from {issuer}", said(iss))),
            (Some(issuer), None) => Err(format!("the answer does not say that it comes from {issuer}")),
            (None, Some(iss)) => {
                let host = |text: &str| Url::parse(text).ok()?.host_str().map(str::to_owned);
                let urls = std::iter::once(&self.token_url).chain(&self.authorize_url);
                let is_known = host(iss).is_some_and(|iss| urls.filter_map(|url| host(url)).any(|own| own == iss));
                if is_known {
                    Ok(())
                } else {
                    Err(format!("{}, another host than the account's; when that is right, set `issuer`", said(iss)))
                }
            }
        }
    }

    /// Whether PKCE is used.
    #[must_use]
    pub fn has_pkce(&self) -> bool {
        self.pkce.unwrap_or_default() != Pkce::Off
    }

    /// Whether something of it goes over plain HTTP.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let urls = std::iter::once(&self.token_url).chain(&self.authorize_url);
        urls.filter_map(|text| Url::parse(text).ok()).any(|url| url.scheme() == "http")
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

/// What a provider's answer in the browser said no with (RFC 6749, section 4.1.2.1), in words.
#[must_use]
pub fn consent_refused(error: &str, description: Option<&str>) -> String {
    let said = match description {
        Some(description) => format!("{}: {}", shown(error), shown(description)),
        None => shown(error),
    };
    let words = match error {
        "access_denied" => "the user or the provider did not consent",
        other => match explain(other) {
            Some(words) => words,
            None => return said,
        },
    };
    format!("{words} ({said})")
}

/// The PKCE challenge of a verifier: BASE64URL(SHA256(verifier)), RFC 7636, section 4.2.
#[must_use]
pub fn pkce_challenge(verifier: &str) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(verifier.as_bytes()))
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
