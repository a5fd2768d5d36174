//! One account in want of a token: whose turn it is to ask, what the provider is asked, and what its answer changes.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use linkspan_model::SecretBytes;
use linkspan_model::account::Credential;
use linkspan_model::jwt::{JwtDefaults, JwtSpec};
use linkspan_model::oauth2::{ClientAuth, Grant, NoToken, OAuth2Spec, Token, read_token, refresh_after};
use linkspan_model::request::{RequestSpec, shortened};
use linkspan_outbound::{Credentials, Masker, Part, Reached, SendOptions};
use linkspan_store::{
    AccountView, Consent, NewToken, Snapshot, StoredToken, TokenLease, TokenOutcome, TokenState, TokenTurn,
};
use tokio::time::Instant;
use url::form_urlencoded;

use super::{Live, Trouble, Unready, refused, unavailable, unstored};
use crate::attempt::content_type_of;
use crate::transport::{OwnTransport, of_provider};
use crate::{Engine, jitter, random_id};

/// Longest time of one request for a token.
const CALL: Duration = Duration::from_secs(15);
/// The lease on asking: longer than the two requests that one turn can make, or a second one would ask meanwhile.
const LEASE: Duration = Duration::from_secs(45);
/// How often somebody who waits for somebody else's request looks again; one that ends in this process is heard of.
const POLL: Duration = Duration::from_secs(1);
/// Longest answer of a token endpoint, in bytes.
const ANSWER_BYTES: u64 = 64 << 10;
/// Requests without an answer after which a token for refreshing is not tried again: the first may have replaced it,
/// the second should have shown.
const LOST_MAX: u32 = 2;

/// The grant by an assertion (RFC 7523, section 2.1).
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// A client's proof by an assertion (RFC 7523, section 2.2).
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// One account in want of a token.
pub(super) struct Asking<'a> {
    pub(super) engine: &'a Engine,
    pub(super) snapshot: &'a Snapshot,
    pub(super) account: &'a AccountView,
    pub(super) spec: &'a OAuth2Spec,
    pub(super) identity: &'a str,
}

/// What came of one request.
pub(super) enum Answer {
    Token(Token),
    Refused(String),
    Unavailable(String),
    Lost(String),
}

/// What a token is asked for with.
#[derive(Clone, Copy)]
pub(super) enum With<'a> {
    Refresh(&'a SecretBytes),
    Code { code: &'a SecretBytes, consent: &'a Consent },
    Grant,
}

impl Asking<'_> {
    /// Obtains a token newer than generation `seen`. The caller holds the turn of this process.
    pub(super) async fn renew(&self, seen: u64, is_suspect: bool) -> Result<Arc<Live>, Unready> {
        let tokens = &self.engine.tokens;
        let trouble = tokens.with(self.account, |entry| entry.trouble.clone());
        if let Some(trouble) = trouble.filter(|trouble| trouble.counts(self.account)) {
            return Err(trouble.unready);
        }
        let renewed = self.renew_now(seen, is_suspect).await;
        if let Err(unready) = &renewed {
            let (basis, unready) = (self.account.basis.clone(), unready.clone());
            tokens.with(self.account, |entry| entry.trouble = Some(Trouble { basis, unready, at: Instant::now() }));
        }
        renewed
    }

    async fn renew_now(&self, seen: u64, is_suspect: bool) -> Result<Arc<Live>, Unready> {
        let tokens = &self.engine.tokens;
        let lease = match self.lease(seen).await? {
            Ok(lease) => lease,
            Err(newer) => return tokens.keep(self.account, self.identity, newer, is_suspect),
        };
        let (outcome, error) = self.ask(&lease).await;
        let stored = self.engine.store.end_token_call(*lease, self.account.basis.clone(), outcome).await;
        match (stored, error) {
            (Ok(Some(token)), _) => tokens.keep(self.account, self.identity, token, is_suspect),
            (Err(error), _) => Err(unstored(self.account, &error)),
            (Ok(None), error) => Err(error.unwrap_or_else(|| unavailable(self.account, "none came"))),
        }
    }

    /// The lease on asking, or the newer token that somebody else has brought.
    pub(super) async fn lease(&self, seen: u64) -> Result<Result<Box<TokenLease>, StoredToken>, Unready> {
        let deadline = Instant::now() + LEASE + CALL;
        let mut ended = self.engine.store.token_calls();
        loop {
            let identity = self.identity.to_owned();
            match self.engine.store.begin_token_call(self.account.row, identity, seen, LEASE).await {
                Ok(TokenTurn::Yours(lease)) => return Ok(Ok(lease)),
                Ok(TokenTurn::Newer(token)) => return Ok(Err(token)),
                Ok(TokenTurn::Busy) if Instant::now() >= deadline => {
                    return Err(unavailable(self.account, "another process asks for it, and does not come to an end"));
                }
                Ok(TokenTurn::Busy) => ended.wait(POLL).await,
                Err(error) => return Err(unstored(self.account, &error)),
            }
        }
    }

    /// Asks with what there is: the token for refreshing first, then the grant itself.
    async fn ask(&self, lease: &TokenLease) -> (TokenOutcome, Option<Unready>) {
        if self.spec.needs_consent()
            && let Some(reason) = self.wants_consent(lease)
        {
            let now = self.engine.clock.now();
            let has_ended = lease.token.as_ref().and_then(|token| token.expires_at).is_some_and(|at| at <= now);
            // An API's 401 alone does not show that a token has ended which says that it has not.
            return match has_ended {
                true => self.ends(reason),
                false => (TokenOutcome::Unavailable, Some(refused(self.account, &reason))),
            };
        }
        let refresh = lease.token.as_ref().and_then(|token| token.refresh.as_ref());
        if let Some(refresh) = refresh.filter(|_| lease.status.lost < LOST_MAX) {
            match self.call(With::Refresh(refresh)).await {
                Answer::Token(token) => return (self.given(token, Some(refresh), lease.status.scopes.as_ref()), None),
                Answer::Unavailable(reason) => {
                    return (TokenOutcome::Unavailable, Some(unavailable(self.account, reason)));
                }
                Answer::Lost(reason) => {
                    tracing::warn!(account = %self.account.name, reason, "the answer to a refresh was lost");
                    return (TokenOutcome::Lost(reason.clone()), Some(unavailable(self.account, reason)));
                }
                Answer::Refused(reason) if self.spec.needs_consent() => return self.ends(reason),
                Answer::Refused(reason) => {
                    tracing::info!(account = %self.account.name, reason, "a refresh was refused; asking anew");
                }
            }
        }
        if self.spec.needs_consent() {
            let reason =
                "two refreshes in a row got no answer, so whether the provider has replaced the token is unknown";
            return self.ends(reason.to_owned());
        }
        match self.call(With::Grant).await {
            Answer::Token(token) => (self.given(token, None, None), None),
            // Whether an earlier request was processed does not matter: each stands for itself.
            Answer::Unavailable(reason) | Answer::Lost(reason) => {
                (TokenOutcome::Unavailable, Some(unavailable(self.account, reason)))
            }
            Answer::Refused(reason) => self.ends(reason),
        }
    }

    /// The provider gives no token any more.
    fn ends(&self, reason: String) -> (TokenOutcome, Option<Unready>) {
        tracing::warn!(account = %self.account.name, reason, "the provider refuses a token");
        let unready = refused(self.account, &reason);
        (TokenOutcome::Refused(reason), Some(unready))
    }

    /// Why only a user can bring the next token.
    fn wants_consent(&self, lease: &TokenLease) -> Option<String> {
        let Some(token) = &lease.token else { return Some("no user has consented yet".to_owned()) };
        if token.refresh.is_none() {
            return Some("its token has ended, and the provider gave none for refreshing it".to_owned());
        }
        // A refusal stays one until something changes: what was refused once and is used again looks stolen.
        let is_refused = lease.status.state == TokenState::Refused && lease.status.basis == self.account.basis;
        is_refused.then(|| lease.status.reason.clone().unwrap_or_default())
    }

    /// A token as it is kept; `refresh` is what it was obtained with, and `before` what the one before permitted.
    pub(super) fn given(&self, token: Token, refresh: Option<&SecretBytes>, before: Option<&String>) -> TokenOutcome {
        let now = self.engine.clock.now();
        let asked = (!self.spec.scopes.is_empty()).then(|| self.spec.scopes.join(" "));
        // RFC 6749, sections 5.1 and 6: what a provider does not say again has not changed.
        TokenOutcome::Given(Box::new(NewToken {
            identity: self.identity.to_owned(),
            access: token.access,
            refresh: token.refresh.or_else(|| refresh.cloned()),
            scopes: token.scopes.or_else(|| before.cloned()).or(asked),
            refresh_at: refresh_after(token.life, jitter()).map(|after| now.after(after)),
            expires_at: token.life.map(|life| now.after(life)),
            by_consent: false,
        }))
    }

    /// One request to the token endpoint.
    pub(super) async fn call(&self, with: With<'_>) -> Answer {
        let (form, transport) = match self.prepare(with) {
            Ok(prepared) => prepared,
            Err(reason) => return Answer::Refused(reason),
        };
        let shown = |reason: &str| shortened(&form.masker.mask_text(reason));
        let url = match self.spec.token_url.parse() {
            Ok(url) => url,
            Err(error) => return Answer::Refused(format!("its token_url: {error}")),
        };
        let headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (ACCEPT, HeaderValue::from_static("application/json")),
        ];
        let request = RequestSpec { method: http::Method::POST, url, headers, body: form.body.into() };
        let options = SendOptions {
            total: CALL,
            response_max_bytes: ANSWER_BYTES,
            transport: transport.as_ref().map(|own| own.transport.clone()),
            ..SendOptions::default()
        };
        let credentials = OwnTransport::hide(transport.as_ref(), form.credentials.clone());
        match self.engine.outbound.send(request, &credentials, &options).await {
            Ok(exchange) => match read_token(exchange.status.as_u16(), content_type_of(&exchange), &exchange.body) {
                Ok(token) => Answer::Token(token),
                Err(NoToken::Refused(reason)) => Answer::Refused(shown(&reason)),
                Err(NoToken::Unavailable(reason)) => Answer::Unavailable(shown(&reason)),
                Err(NoToken::Unreadable(reason)) => Answer::Lost(shown(&reason)),
            },
            Err(failure) => {
                let (error, reason) = (&failure.error, shown(&failure.error.description()));
                match error.reached() {
                    Reached::No if error.is_transient() => Answer::Unavailable(reason),
                    Reached::No => Answer::Refused(reason),
                    Reached::Maybe | Reached::Yes => Answer::Lost(reason),
                }
            }
        }
    }

    fn prepare(&self, with: With<'_>) -> Result<(Form, Option<OwnTransport>), String> {
        Ok((self.form(with)?, of_provider(self.engine, self.snapshot, self.spec)?))
    }

    fn form(&self, with: With<'_>) -> Result<Form, String> {
        let spec = self.spec;
        let mut secrets = Vec::new();
        let mut pairs = Vec::new();
        match with {
            With::Refresh(refresh) => {
                pairs.push(("grant_type", SecretBytes::new("refresh_token")));
                pairs.push(("refresh_token", refresh.clone()));
                secrets.push(refresh.clone());
            }
            With::Code { code, consent } => {
                pairs.push(("grant_type", SecretBytes::new("authorization_code")));
                pairs.push(("code", code.clone()));
                // RFC 6749, section 4.1.3: the very text that the authorization was asked with.
                pairs.push(("redirect_uri", SecretBytes::new(consent.redirect_uri.as_str())));
                if spec.has_pkce() {
                    pairs.push(("code_verifier", consent.verifier.clone()));
                }
                secrets.extend([code.clone(), consent.verifier.clone()]);
            }
            With::Grant => {
                match spec.grant {
                    Grant::AuthorizationCode => return Err("only a user can consent to a token".to_owned()),
                    Grant::ClientCredentials => pairs.push(("grant_type", SecretBytes::new("client_credentials"))),
                    Grant::Password => {
                        let (Some(user), Some(password)) = (&spec.username, &spec.password) else {
                            return Err("grant password needs username and password".to_owned());
                        };
                        let password = self.snapshot.secret(&password.secret)?.clone();
                        pairs.push(("grant_type", SecretBytes::new("password")));
                        pairs.push(("username", self.value(user)?));
                        pairs.push(("password", password.clone()));
                        secrets.push(password);
                    }
                    Grant::JwtBearer => {
                        let assertion = spec.assertion.as_ref().ok_or("grant jwt_bearer needs an assertion")?;
                        let assertion = self.sign(assertion, &mut secrets, false)?;
                        pairs.push(("grant_type", SecretBytes::new(JWT_BEARER)));
                        pairs.push(("assertion", assertion));
                    }
                }
                if !spec.scopes.is_empty() {
                    pairs.push(("scope", SecretBytes::new(spec.scopes.join(" "))));
                }
                pairs.extend(spec.audience.as_ref().map(|audience| ("audience", SecretBytes::new(audience.as_str()))));
            }
        }
        for (name, value) in &spec.token_params {
            let secret = self.value(value)?;
            if matches!(value, Credential::Secret(_)) {
                secrets.push(secret.clone());
            }
            pairs.push((name.as_str(), secret));
        }
        let credentials = self.prove(&mut pairs, &mut secrets)?;
        let encoded = |bytes: &[u8]| -> String { form_urlencoded::byte_serialize(bytes).collect() };
        let body: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name.as_bytes()), encoded(value.expose())))
            .collect();
        Ok(Form { body: body.join("&").into_bytes(), credentials, masker: Masker::new(&secrets) })
    }

    /// Puts on a request what shows which client asks; gives what goes in its header.
    fn prove(
        &self,
        pairs: &mut Vec<(&str, SecretBytes)>,
        secrets: &mut Vec<SecretBytes>,
    ) -> Result<Credentials, String> {
        let spec = self.spec;
        let client_id = spec.client_id.as_ref().map(|id| self.value(id)).transpose()?;
        let client_secret = spec.client_secret.as_ref().map(|reference| self.snapshot.secret(&reference.secret));
        let client_secret = client_secret.transpose()?.cloned();
        secrets.extend(client_secret.clone());
        let auth = spec.client_auth();
        match (auth, client_id, client_secret) {
            (ClientAuth::Basic, Some(client_id), Some(client_secret)) => {
                // RFC 6749, section 2.3.1: both are form-encoded first.
                let encoded =
                    |bytes: &SecretBytes| -> String { form_urlencoded::byte_serialize(bytes.expose()).collect() };
                let (user, password) = (encoded(&client_id), SecretBytes::new(encoded(&client_secret)));
                Credentials::basic(&Part::Plain(user), &Part::Secret(password)).map_err(|error| error.to_string())
            }
            (ClientAuth::Body, Some(client_id), Some(client_secret)) => {
                pairs.extend([("client_id", client_id), ("client_secret", client_secret)]);
                Ok(Credentials::none())
            }
            (ClientAuth::PrivateKeyJwt, Some(client_id), _) => {
                let assertion = spec.client_assertion.as_ref().ok_or("there is no client_assertion")?;
                let assertion = self.sign(assertion, secrets, true)?;
                pairs.push(("client_id", client_id));
                pairs.push(("client_assertion_type", SecretBytes::new(CLIENT_ASSERTION)));
                pairs.push(("client_assertion", assertion));
                Ok(Credentials::none())
            }
            (ClientAuth::Tls | ClientAuth::None, client_id, _) => {
                pairs.extend(client_id.map(|client_id| ("client_id", client_id)));
                Ok(Credentials::none())
            }
            _ => Err("it does not say which client asks".to_owned()),
        }
    }

    /// An assertion (RFC 7523): of the client about itself, or as a grant.
    fn sign(&self, jwt: &JwtSpec, secrets: &mut Vec<SecretBytes>, is_clients: bool) -> Result<SecretBytes, String> {
        let key = self.snapshot.secret(&jwt.key.secret)?;
        let client_id = self.spec.client_id.as_ref().map(|id| self.value(id)).transpose()?;
        let client_id = client_id.as_ref().and_then(SecretBytes::expose_str);
        let defaults = JwtDefaults {
            issuer: client_id,
            // RFC 7523, section 3: a client that proves itself is whom it is about.
            subject: client_id.filter(|_| is_clients),
            audience: Some(&self.spec.token_url),
        };
        let signed = jwt.sign(key, defaults, self.engine.clock.now(), &random_id()?)?;
        secrets.push(signed.token.clone());
        if jwt.algorithm.is_shared() {
            secrets.push(key.clone());
        }
        Ok(signed.token)
    }

    pub(super) fn value(&self, credential: &Credential) -> Result<SecretBytes, String> {
        match credential {
            Credential::Text(text) => Ok(SecretBytes::new(text.as_str())),
            Credential::Secret(reference) => self.snapshot.secret(&reference.secret).cloned(),
        }
    }
}

/// A request for a token.
struct Form {
    body: Vec<u8>,
    credentials: Credentials,
    /// Hides what is sent where the provider repeats it.
    masker: Masker,
}
