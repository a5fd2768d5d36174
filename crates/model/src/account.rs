//! Accounts: stored credentials of one auth type, used by one or more connections.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::fault::{Fault, bad_header_name};
use crate::jwt::{Algorithm, JwtSpec};
use crate::name::Name;
use crate::oauth2::OAuth2Spec;
use crate::secret::{SecretBytes, SecretRef};
use crate::time::Timestamp;
use crate::tls::ClientCertificate;

/// The `spec` of an account document: one key that names the auth type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum AccountSpec {
    /// No credentials.
    None {},
    /// HTTP Basic (RFC 7617).
    Basic(BasicSpec),
    /// One or several headers, sent as typed.
    Headers(IndexMap<String, Credential>),
    /// One or several query parameters, percent-encoded and appended to the URL.
    Query(IndexMap<String, Credential>),
    /// A token in `Authorization: Bearer …` (RFC 6750, section 2.1).
    Bearer(BearerSpec),
    /// Basic, headers, query parameters and a client certificate together.
    Custom(Box<CustomSpec>),
    /// HTTP Digest (RFC 7616): proves the password without sending it.
    Digest(BasicSpec),
    /// Requests signed with an AWS key (Signature Version 4).
    #[serde(rename = "aws_sigv4")]
    AwsSigv4(AwsSigv4Spec),
    /// A certificate that is shown in the TLS handshake (mutual TLS).
    #[serde(rename = "client_certificate")]
    ClientCertificate(ClientCertificate),
    /// A token that is signed here, for a short while each, in `Authorization: Bearer …` (RFC 7519).
    Jwt(Box<JwtSpec>),
    /// A token that a provider gives and renews (RFC 6749).
    OAuth2(Box<OAuth2Spec>),
}

/// User and password; both may be empty, and the password may hold colons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicSpec {
    /// The user; without colons.
    pub user: Credential,
    /// The password; left out: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
}

/// A bearer token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BearerSpec {
    /// The token, without the word `Bearer`.
    pub token: SecretRef,
}

/// An AWS key, and what is called with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsSigv4Spec {
    /// Which key it is.
    pub access_key_id: Credential,
    /// The key.
    pub secret_access_key: SecretRef,
    /// The token of a temporary key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretRef>,
    /// The region that is called: `eu-central-1`.
    pub region: String,
    /// The service that is called, as AWS abbreviates it: `s3`, `sqs`, `execute-api`.
    pub service: String,
}

/// Any mix of the simple ways; at least one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomSpec {
    /// HTTP Basic (RFC 7617).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicSpec>,
    /// Headers, sent as typed.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, Credential>,
    /// Query parameters, percent-encoded and appended to the URL.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub query: IndexMap<String, Credential>,
    /// A certificate that is shown in the TLS handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
}

/// A part of credentials: plain text, or `{secret: NAME}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Credential {
    /// Stands in the document as it is.
    Text(String),
    /// Stands in a secret document.
    Secret(SecretRef),
}

impl<'de> Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrReference;

        impl<'de> Visitor<'de> for TextOrReference {
            type Value = Credential;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or {secret: NAME}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Credential, E> {
                Ok(Credential::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Credential, A::Error> {
                SecretRef::deserialize(de::value::MapAccessDeserializer::new(map)).map(Credential::Secret)
            }
        }

        deserializer.deserialize_any(TextOrReference)
    }
}

impl AccountSpec {
    /// Whether requests carry anything of it.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        !matches!(self, Self::None {})
    }

    /// What it says, when its token is obtained from a provider.
    #[must_use]
    pub fn oauth2(&self) -> Option<&OAuth2Spec> {
        match self {
            Self::OAuth2(spec) => Some(spec),
            _ => None,
        }
    }

    /// The certificate that it shows in TLS handshakes.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        match self {
            Self::ClientCertificate(certificate) => Some(certificate),
            Self::Custom(custom) => custom.client_certificate.as_ref(),
            Self::OAuth2(oauth2) => oauth2.client_certificate.as_ref(),
            _ => None,
        }
    }

    /// The secrets that must hold keys of a certain kind, each with its path relative to `spec`.
    #[must_use]
    pub fn keys(&self) -> Vec<(String, &Name, KeyUse<'_>)> {
        let certificate = self.client_certificate().map(|certificate| {
            let path = match self {
                Self::ClientCertificate(_) => "client_certificate.key".to_owned(),
                other => format!("{}.client_certificate.key", other.kind()),
            };
            (path, &certificate.key.secret, KeyUse::Certificate(certificate))
        });
        let tokens: Vec<(&str, &JwtSpec)> = match self {
            Self::Jwt(jwt) => vec![("jwt", jwt)],
            Self::OAuth2(oauth2) => oauth2.jwts(),
            _ => Vec::new(),
        };
        let signed = tokens
            .into_iter()
            .map(|(path, jwt)| (format!("{path}.key"), &jwt.key.secret, KeyUse::Signature(jwt.algorithm)));
        certificate.into_iter().chain(signed).collect()
    }

    /// What is to be said of its certificate at this time, and of others that it trusts.
    #[must_use]
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let certificate = self.client_certificate().map(|certificate| certificate.warnings(now));
        let trusted = self.oauth2().and_then(|oauth2| oauth2.tls.as_ref()).map(|tls| tls.warnings(now));
        certificate.into_iter().chain(trusted).flatten().collect()
    }

    /// The secret documents that this account refers to, each with its path relative to `spec`.
    #[must_use]
    pub fn secrets(&self) -> Vec<(String, &Name)> {
        match self {
            Self::None {} => Vec::new(),
            Self::Basic(basic) => basic.secrets("basic").collect(),
            Self::Digest(digest) => digest.secrets("digest").collect(),
            Self::Headers(headers) => secrets_of("headers", headers).collect(),
            Self::Query(query) => secrets_of("query", query).collect(),
            Self::Bearer(bearer) => vec![("bearer.token".to_owned(), &bearer.token.secret)],
            Self::AwsSigv4(aws) => aws.secrets(),
            Self::ClientCertificate(_) | Self::Jwt(_) => self.key_secrets().collect(),
            Self::OAuth2(oauth2) => oauth2.secrets().into_iter().chain(self.key_secrets()).collect(),
            Self::Custom(custom) => {
                let basic = custom.basic.iter().flat_map(|basic| basic.secrets("custom.basic"));
                let headers = secrets_of("custom.headers", &custom.headers);
                let query = secrets_of("custom.query", &custom.query);
                basic.chain(headers).chain(query).chain(self.key_secrets()).collect()
            }
        }
    }

    /// Everything that is wrong with this spec on its own, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        match self {
            Self::None {} | Self::Bearer(_) => Vec::new(),
            Self::Basic(basic) => basic.fault("basic").into_iter().collect(),
            Self::Digest(digest) => digest.fault("digest").into_iter().collect(),
            Self::Headers(headers) if headers.is_empty() => vec![Fault::new("headers", "name at least one header")],
            Self::Headers(headers) => headers_faults("headers", headers),
            Self::Query(query) if query.is_empty() => vec![Fault::new("query", "name at least one parameter")],
            Self::Query(query) => query_faults("query", query),
            Self::Custom(custom) => custom.faults(),
            Self::AwsSigv4(aws) => aws.faults(),
            Self::ClientCertificate(certificate) => {
                certificate.fault().map(|fault| fault.under("client_certificate")).into_iter().collect()
            }
            Self::Jwt(jwt) => jwt.faults().into_iter().map(|fault| fault.under("jwt")).collect(),
            Self::OAuth2(oauth2) => oauth2.faults(),
        }
    }

    fn key_secrets(&self) -> impl Iterator<Item = (String, &Name)> {
        self.keys().into_iter().map(|(path, name, _)| (path, name))
    }
}

/// What a key is for.
#[derive(Debug, Clone, Copy)]
pub enum KeyUse<'a> {
    /// Showing this certificate.
    Certificate(&'a ClientCertificate),
    /// Signing tokens.
    Signature(Algorithm),
}

impl KeyUse<'_> {
    /// Whether a key can do that.
    ///
    /// # Errors
    /// Why not, in words that hold nothing of the key.
    pub fn check(&self, key: &SecretBytes) -> Result<(), String> {
        match self {
            Self::Certificate(certificate) => certificate.check_key(key),
            Self::Signature(algorithm) => algorithm.check_key(key),
        }
    }
}

impl BasicSpec {
    fn secrets(&self, path: &str) -> impl Iterator<Item = (String, &Name)> {
        let user = self.user.secret().map(|name| (format!("{path}.user"), name));
        let password = self.password.as_ref().map(|reference| (format!("{path}.password"), &reference.secret));
        user.into_iter().chain(password)
    }

    fn fault(&self, path: &str) -> Option<Fault> {
        let Credential::Text(user) = &self.user else { return None };
        let reason = if user.contains(':') {
            "a user name cannot hold a colon (RFC 7617, RFC 7616)"
        } else if user.chars().any(char::is_control) {
            "a user name cannot hold line breaks or control characters"
        } else {
            return None;
        };
        Some(Fault::new(format!("{path}.user"), reason))
    }
}

impl AwsSigv4Spec {
    fn secrets(&self) -> Vec<(String, &Name)> {
        let id = self.access_key_id.secret().map(|name| ("aws_sigv4.access_key_id".to_owned(), name));
        let key = ("aws_sigv4.secret_access_key".to_owned(), &self.secret_access_key.secret);
        let token = self.session_token.as_ref();
        let token = token.map(|reference| ("aws_sigv4.session_token".to_owned(), &reference.secret));
        id.into_iter().chain([key]).chain(token).collect()
    }

    fn faults(&self) -> Vec<Fault> {
        let is_word = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let mut faults = Vec::new();
        if matches!(&self.access_key_id, Credential::Text(id) if !is_access_key_id(id)) {
            let reason = "an access key id is letters, digits and underscores, such as AKIAIOSFODNN7EXAMPLE";
            faults.push(Fault::new("aws_sigv4.access_key_id", reason));
        }
        if !is_word(&self.region) {
            faults.push(Fault::new("aws_sigv4.region", "a region is written as eu-central-1"));
        }
        if !is_word(&self.service) {
            faults.push(Fault::new(
                "aws_sigv4.service",
                "a service is written as AWS abbreviates it: s3, sqs, execute-api",
            ));
        }
        faults
    }
}

/// Whether a text can be an access key id; it stands in a header between commas and slashes.
#[must_use]
pub fn is_access_key_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl AccountSpec {
    /// The kinds of accounts.
    pub const KINDS: [&str; 11] = [
        "none",
        "basic",
        "headers",
        "query",
        "bearer",
        "custom",
        "digest",
        "aws_sigv4",
        "client_certificate",
        "jwt",
        "oauth2",
    ];

    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::None {} => "none",
            Self::Basic(_) => "basic",
            Self::Headers(_) => "headers",
            Self::Query(_) => "query",
            Self::Bearer(_) => "bearer",
            Self::Custom(_) => "custom",
            Self::Digest(_) => "digest",
            Self::AwsSigv4(_) => "aws_sigv4",
            Self::ClientCertificate(_) => "client_certificate",
            Self::Jwt(_) => "jwt",
            Self::OAuth2(_) => "oauth2",
        }
    }
}

impl CustomSpec {
    fn faults(&self) -> Vec<Fault> {
        let certificate = self.client_certificate.as_ref();
        if self.basic.is_none() && self.headers.is_empty() && self.query.is_empty() && certificate.is_none() {
            return vec![Fault::new("custom", "give at least one of basic, headers, query and client_certificate")];
        }
        let mut faults: Vec<Fault> = self.basic.iter().filter_map(|basic| basic.fault("custom.basic")).collect();
        faults.extend(headers_faults("custom.headers", &self.headers));
        faults.extend(query_faults("custom.query", &self.query));
        let fault = certificate.and_then(ClientCertificate::fault);
        faults.extend(fault.map(|fault| fault.under("custom.client_certificate")));
        if self.basic.is_some() {
            let twice = self.headers.keys().find(|name| name.eq_ignore_ascii_case("authorization"));
            faults.extend(
                twice.map(|name| Fault::new(format!("custom.headers.{name}"), "basic is sent in this header already")),
            );
        }
        faults
    }
}

impl Credential {
    fn secret(&self) -> Option<&Name> {
        match self {
            Self::Text(_) => None,
            Self::Secret(reference) => Some(&reference.secret),
        }
    }
}

fn secrets_of<'a>(
    path: &'a str,
    parts: &'a IndexMap<String, Credential>,
) -> impl Iterator<Item = (String, &'a Name)> + 'a {
    parts.iter().filter_map(move |(name, value)| Some((format!("{path}.{name}"), value.secret()?)))
}

/// Headers that are not an account's: those that frame the message, and the mark of the loop guard.
const NOT_AN_ACCOUNTS: [&str; 8] =
    ["host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", crate::hops::HEADER];

fn headers_faults(path: &str, headers: &IndexMap<String, Credential>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut seen = Vec::with_capacity(headers.len());
    for (written, value) in headers {
        let Ok(name) = http::HeaderName::from_bytes(written.as_bytes()) else {
            faults.push(bad_header_name(path, written));
            continue;
        };
        let path = format!("{path}.{written}");
        if NOT_AN_ACCOUNTS.contains(&name.as_str()) {
            faults.push(Fault::new(&path, "this header is set when the request is sent"));
        }
        if seen.contains(&name) {
            faults.push(Fault::new(&path, "this header is given twice"));
        }
        if matches!(value, Credential::Text(text) if http::HeaderValue::from_str(text).is_err()) {
            faults.push(Fault::new(path, "a header value cannot hold line breaks or control characters"));
        }
        seen.push(name);
    }
    faults
}

fn query_faults(path: &str, query: &IndexMap<String, Credential>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, value) in query {
        if name.is_empty() || name.chars().any(char::is_control) {
            let reason = "a parameter's name is not empty and holds no line breaks or control characters";
            faults.push(Fault::new(path, reason));
        }
        // Percent-encoded it could be sent, but here it is a pasted one.
        if matches!(value, Credential::Text(text) if text.chars().any(char::is_control)) {
            let reason = "a parameter's value cannot hold line breaks or control characters";
            faults.push(Fault::new(format!("{path}.{name}"), reason));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CERTIFICATE: &str = include_str!("testdata/client.pem");

    fn read(spec: Value) -> AccountSpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn names_the_secrets_of_every_way() {
        for (spec, paths) in [
            (json!({"none": {}}), vec![]),
            (
                json!({"basic": {"user": {"secret": "s"}, "password": {"secret": "s"}}}),
                vec!["basic.user", "basic.password"],
            ),
            (json!({"digest": {"user": "a", "password": {"secret": "s"}}}), vec!["digest.password"]),
            (json!({"headers": {"X-Key": {"secret": "s"}, "X-Tenant": "acme"}}), vec!["headers.X-Key"]),
            (json!({"query": {"key": {"secret": "s"}, "v": "2"}}), vec!["query.key"]),
            (json!({"bearer": {"token": {"secret": "s"}}}), vec!["bearer.token"]),
            (
                json!({"aws_sigv4": {
                    "access_key_id": "AKIDEXAMPLE", "secret_access_key": {"secret": "s"},
                    "session_token": {"secret": "s"}, "region": "eu-central-1", "service": "s3",
                }}),
                vec!["aws_sigv4.secret_access_key", "aws_sigv4.session_token"],
            ),
            (
                json!({"oauth2": {
                    "grant": "client_credentials", "token_url": "https://id.test/token",
                    "client_id": "robot", "client_secret": {"secret": "s"},
                }}),
                vec!["oauth2.client_secret"],
            ),
            (
                json!({"custom": {
                    "basic": {"user": "a", "password": {"secret": "s"}},
                    "headers": {"X-Key": {"secret": "s"}},
                    "query": {"key": {"secret": "s"}},
                    "client_certificate": {"certificate": CERTIFICATE, "key": {"secret": "s"}},
                }}),
                vec![
                    "custom.basic.password",
                    "custom.headers.X-Key",
                    "custom.query.key",
                    "custom.client_certificate.key",
                ],
            ),
            (
                json!({"client_certificate": {"certificate": CERTIFICATE, "key": {"secret": "s"}}}),
                vec!["client_certificate.key"],
            ),
            (json!({"jwt": {"algorithm": "RS256", "key": {"secret": "s"}, "issuer": "app"}}), vec!["jwt.key"]),
        ] {
            let account = read(spec.clone());
            assert_eq!(account.secrets().iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), paths, "{spec}");
            assert_eq!(account.faults(), [], "{spec}");
            assert_eq!(serde_json::to_value(&account).unwrap(), spec);
        }
    }

    fn aws(id: &str, region: &str, service: &str) -> Value {
        let key = json!({"secret": "s"});
        json!({"aws_sigv4": {"access_key_id": id, "secret_access_key": key, "region": region, "service": service}})
    }

    #[test]
    fn refuses_what_cannot_be_sent() {
        for (spec, path) in [
            (json!({"basic": {"user": "a:b"}}), "basic.user"),
            (json!({"basic": {"user": "a\r\nb"}}), "basic.user"),
            (json!({"digest": {"user": "a:b"}}), "digest.user"),
            (json!({"headers": {}}), "headers"),
            (json!({"headers": {"X Key": "a"}}), "headers.X Key"),
            (json!({"headers": {"X-Key:": "a"}}), "headers.X-Key:"),
            (json!({"headers": {"X-Key": "a\r\nX-Evil: 1"}}), "headers.X-Key"),
            (json!({"headers": {"X-Key": "a", "x-key": "b"}}), "headers.x-key"),
            (json!({"headers": {"Host": "a"}}), "headers.Host"),
            (json!({"headers": {"Linkspan-Hops": "0"}}), "headers.Linkspan-Hops"),
            (json!({"query": {}}), "query"),
            (json!({"query": {"": "a"}}), "query"),
            (json!({"query": {"key": "a\n"}}), "query.key"),
            (aws("AKID/EXAMPLE", "eu-central-1", "s3"), "aws_sigv4.access_key_id"),
            (aws("AKID", "Frankfurt am Main", "s3"), "aws_sigv4.region"),
            (aws("AKID", "eu-central-1", ""), "aws_sigv4.service"),
            (json!({"custom": {}}), "custom"),
            (
                json!({"custom": {"client_certificate": {"certificate": "", "key": {"secret": "s"}}}}),
                "custom.client_certificate.certificate",
            ),
            (
                json!({"client_certificate": {"certificate": "x", "key": {"secret": "s"}}}),
                "client_certificate.certificate",
            ),
            (json!({"jwt": {"algorithm": "RS256", "key": {"secret": "s"}, "claims": {"exp": 1}}}), "jwt.claims.exp"),
            (json!({"custom": {"headers": {"X Key": "a"}}}), "custom.headers.X Key"),
            (
                json!({"custom": {"basic": {"user": "a"}, "headers": {"authorization": "b"}}}),
                "custom.headers.authorization",
            ),
        ] {
            let faults = read(spec.clone()).faults();
            assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), [path], "{spec}");
        }
    }
}
