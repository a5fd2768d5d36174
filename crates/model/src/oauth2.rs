//! OAuth2 as a client (RFC 6749): what an account says, what a user is asked, and what a provider's answers mean.
//! Leaves sending, storing and the clock to others.

mod answer;
mod consent;
#[cfg(test)]
mod tests;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::account::Credential;
use crate::fault::{Fault, quoted};
use crate::jwt::JwtSpec;
use crate::name::Name;
use crate::proxy::ProxySpec;
use crate::secret::SecretRef;
use crate::tls::{ClientCertificate, TlsSpec};

use self::answer::shown;

pub use self::answer::{NoToken, Token, read_token, refresh_after};
pub use self::consent::{ConsentAnswer, ConsentAt, consent_refused, pkce_challenge};

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
    /// The client's id at the provider; of grant `jwt_bearer` only where the provider asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Credential>,
    /// The client's secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretRef>,
    /// How the client proves itself. Default basic, which RFC 6749 asks every provider to take; of grant `jwt_bearer`
    /// without a client's secret none, for there the assertion is the proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// Client authentication `private_key_jwt`: what is signed. Issuer and subject are the client's id, the audience is
    /// `token_url`, unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_assertion: Option<JwtSpec>,
    /// Grant `jwt_bearer`: what is signed. The issuer is the client's id, the audience is `token_url`, unless it says
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<JwtSpec>,
    /// A certificate that is shown in TLS handshakes, with the provider and with the API (RFC 8705).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
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
    /// TLS with the provider; with the API it is the connection's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// The proxy through which the provider is asked; the API's is the connection's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySpec>,
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
    /// By an assertion that is signed here (RFC 7523, section 2.1): service accounts of Google, Salesforce and others.
    JwtBearer,
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

/// How a client proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// By its secret, in the header Authorization (RFC 6749, section 2.3.1).
    Basic,
    /// By its secret, in the body of the request.
    Body,
    /// By an assertion that it has signed (RFC 7523, section 2.2).
    PrivateKeyJwt,
    /// By its certificate, in the TLS handshake (RFC 8705, section 2).
    Tls,
    /// Not at all.
    None,
}

impl ClientAuth {
    const fn word(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Body => "body",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }
}

/// Parameters of token requests that are ours to set.
const OURS: [&str; 13] = [
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
    "assertion",
    "client_assertion",
    "client_assertion_type",
];

impl OAuth2Spec {
    /// The secret documents that it refers to but for keys, each with its path relative to `spec`.
    pub(crate) fn secrets(&self) -> Vec<(String, &Name)> {
        let mut found = Vec::new();
        for (path, part) in [("client_id", self.client_id.as_ref()), ("username", self.username.as_ref())] {
            if let Some(Credential::Secret(reference)) = part {
                found.push((format!("oauth2.{path}"), &reference.secret));
            }
        }
        for (path, reference) in [("client_secret", &self.client_secret), ("password", &self.password)] {
            found.extend(reference.iter().map(|reference| (format!("oauth2.{path}"), &reference.secret)));
        }
        for (name, part) in &self.token_params {
            if let Credential::Secret(reference) = part {
                found.push((format!("oauth2.token_params.{name}"), &reference.secret));
            }
        }
        let proxy = self.proxy.iter().flat_map(ProxySpec::secrets);
        found.extend(proxy.map(|(path, name)| (format!("oauth2.proxy.{path}"), name)));
        found
    }

    /// What is signed for it, each with its path relative to `spec`.
    pub(crate) fn jwts(&self) -> Vec<(&'static str, &JwtSpec)> {
        let named = [("oauth2.client_assertion", &self.client_assertion), ("oauth2.assertion", &self.assertion)];
        named.into_iter().filter_map(|(path, jwt)| Some((path, jwt.as_ref()?))).collect()
    }

    /// How the client proves itself.
    #[must_use]
    pub fn client_auth(&self) -> ClientAuth {
        let is_proved = self.grant == Grant::JwtBearer && self.client_secret.is_none();
        self.client_auth.unwrap_or(if is_proved { ClientAuth::None } else { ClientAuth::Basic })
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
        faults.extend(self.client_faults());
        for (path, jwt) in self.jwts() {
            faults.extend(jwt.faults().into_iter().map(|fault| fault.under(path)));
        }
        let (tls, proxy) = (self.tls.iter().flat_map(TlsSpec::faults), self.proxy.iter().flat_map(ProxySpec::faults));
        faults.extend(tls.map(|fault| fault.under("oauth2.tls")));
        faults.extend(proxy.map(|fault| fault.under("oauth2.proxy")));
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

    /// What is wrong with how the client says who it is.
    fn client_faults(&self) -> Vec<Fault> {
        let auth = self.client_auth();
        let needed = |field: &str, by: &str| Fault::new("oauth2", format_args!("{by} needs {field}"));
        let superfluous =
            |field: &str, by: &str| Fault::new(format!("oauth2.{field}"), format_args!("only {by} has it"));
        let mut faults = Vec::new();
        let by_auth = format!("client_auth {}", auth.word());
        let has_secret = matches!(auth, ClientAuth::Basic | ClientAuth::Body);
        match &self.client_secret {
            None if has_secret => faults.push(needed("client_secret", &by_auth)),
            Some(_) if !has_secret => faults.push(superfluous("client_secret", "client_auth basic or body")),
            _ => {}
        }
        match &self.client_assertion {
            None if auth == ClientAuth::PrivateKeyJwt => faults.push(needed("client_assertion", &by_auth)),
            Some(_) if auth != ClientAuth::PrivateKeyJwt => {
                faults.push(superfluous("client_assertion", "client_auth private_key_jwt"));
            }
            _ => {}
        }
        match &self.assertion {
            None if self.grant == Grant::JwtBearer => faults.push(needed("assertion", "grant jwt_bearer")),
            Some(_) if self.grant != Grant::JwtBearer => faults.push(superfluous("assertion", "grant jwt_bearer")),
            // RFC 7523, section 3: who made it must stand in it.
            Some(assertion) if assertion.issuer.is_none() && self.client_id.is_none() => {
                faults.push(Fault::new("oauth2.assertion", "it needs an issuer, or the account a client_id"));
            }
            _ => {}
        }
        if auth == ClientAuth::Tls && self.client_certificate.is_none() {
            faults.push(needed("client_certificate", &by_auth));
        }
        if self.client_id.is_none() && !(self.grant == Grant::JwtBearer && auth == ClientAuth::None) {
            faults.push(needed("client_id", "an OAuth2 account"));
        }
        if auth == ClientAuth::None && self.grant == Grant::ClientCredentials {
            // RFC 6749, section 4.4.
            faults.push(Fault::new("oauth2.client_auth", "with grant client_credentials a client proves itself"));
        }
        let fault = self.client_certificate.as_ref().and_then(ClientCertificate::fault);
        faults.extend(fault.map(|fault| fault.under("oauth2.client_certificate")));
        faults
    }

    /// What a token was obtained with, as a text to compare: a token of something else is not this account's, and
    /// must not be sent where this account's go.
    #[must_use]
    pub fn identity(&self) -> String {
        let mut whole = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = whole.as_object_mut() {
            // How the provider is asked: what it gave stays what it is.
            for way in ["client_auth", "client_assertion", "tls", "proxy"] {
                fields.shift_remove(way);
            }
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
        Err(error) => return Some(Fault::new(path, format_args!("{} is not a URL: {error}", quoted(text)))),
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
