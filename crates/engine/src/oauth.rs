//! Tokens of OAuth2 accounts: obtained when they are needed, renewed ahead of their end, and once more when an API
//! does not accept one.
//!
//! Guarantees: however many requests need a token, one asks the provider, in this process by a lock for each account
//! and beside it by the store's lease; a new token is durable before it is used; a request that was refused with an
//! older token is repeated with the newer one and asks for no other; no word of a provider is shown before the
//! secrets in it are masked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use linkspan_model::account::Credential;
use linkspan_model::job::StepError;
use linkspan_model::oauth2::{
    ClientAuth, Grant, NoToken, OAuth2Spec, Token, consent_refused, pkce_challenge, read_token, refresh_after,
};
use linkspan_model::request::RequestSpec;
use linkspan_model::retry::Outcome;
use linkspan_model::{Name, SecretBytes, Timestamp};
use linkspan_outbound::{Credentials, Masker, Part, Reached, SendOptions};
use linkspan_store::{
    AccountView, Consent, NewToken, Snapshot, StoreError, StoredToken, TokenLease, TokenOutcome, TokenState, TokenTurn,
};
use tokio::time::Instant;
use url::form_urlencoded;

use crate::{Engine, failed, jitter};

/// Longest time of one request for a token.
const CALL: Duration = Duration::from_secs(15);
/// The lease on asking: longer than the two requests that one turn can make, or a second one would ask meanwhile.
const LEASE: Duration = Duration::from_secs(45);
/// How often somebody who waits for another process looks again.
const POLL: Duration = Duration::from_millis(100);
/// Longest answer of a token endpoint, in bytes.
const ANSWER_BYTES: u64 = 64 << 10;
/// How long a refusal counts before the provider is asked again, so that a flood of jobs does not become one of
/// requests for tokens.
const REFUSED: Duration = Duration::from_secs(30);
/// How long a provider that could not be asked is left alone: who waited behind a request that failed need not wait
/// for one of his own.
const UNAVAILABLE: Duration = Duration::from_secs(1);
/// How long after trouble a token that still works is used without asking for the next one.
const AHEAD_AGAIN: Duration = Duration::from_secs(30);
/// Requests without an answer after which a token for refreshing is not tried again: the first may have replaced it,
/// the second should have shown.
const LOST_MAX: u32 = 2;

/// The tokens that are in use.
#[derive(Debug, Clone, Default)]
pub struct TokenCache(Arc<Mutex<HashMap<i64, Entry>>>);

#[derive(Debug, Default)]
struct Entry {
    /// Held by the one that asks.
    turn: Arc<tokio::sync::Mutex<()>>,
    live: Option<Arc<Live>>,
    trouble: Option<Trouble>,
}

/// Why asking failed last, and how long that counts.
#[derive(Debug, Clone)]
struct Trouble {
    /// Of the account that asked: a changed one is asked for at once.
    basis: String,
    unready: Unready,
    at: Instant,
}

impl Trouble {
    /// Whether it still answers for the provider.
    fn counts(&self, account: &AccountView) -> bool {
        let is_final = self.unready.outcome.is_none();
        self.basis == account.basis && self.at.elapsed() < if is_final { REFUSED } else { UNAVAILABLE }
    }
}

/// A token in use.
#[derive(Debug)]
pub(crate) struct Live {
    identity: String,
    generation: u64,
    pub(crate) credentials: Credentials,
    refresh_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    /// Obtained because an API did not accept the one before, and not accepted yet: if it is not either, asking for
    /// another one changes nothing.
    is_suspect: AtomicBool,
}

impl Live {
    fn is_fresh(&self, now: Timestamp) -> bool {
        self.refresh_at.is_none_or(|at| now < at)
    }

    fn works(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }

    /// Notes that an API has taken it.
    pub(crate) fn accepted(&self) {
        self.is_suspect.store(false, Ordering::Relaxed);
    }
}

/// Why an account gives no credentials.
#[derive(Debug, Clone)]
pub(crate) struct Unready {
    pub(crate) error: StepError,
    /// What a retry depends on; nothing when it cannot help.
    pub(crate) outcome: Option<Outcome>,
}

impl From<StepError> for Unready {
    fn from(error: StepError) -> Self {
        Self { error, outcome: None }
    }
}

fn refused(account: &AccountView, reason: &str) -> Unready {
    if account.spec.oauth2().is_some_and(OAuth2Spec::needs_consent) {
        let name = &account.name;
        let description =
            format!("account `{name}` is not connected: {reason}; connect it: linkspan accounts connect {name}");
        return failed("account.not_connected", description, None).into();
    }
    failed("account.refused", format!("account `{}` gets no token: {reason}", account.name), None).into()
}

fn unavailable(account: &AccountView, reason: impl std::fmt::Display) -> Unready {
    let error = failed("account.unavailable", format!("account `{}` has no token now: {reason}", account.name), None);
    Unready { error, outcome: Some(Outcome::NotSent) }
}

fn unstored(account: &AccountView, error: &StoreError) -> Unready {
    tracing::error!(account = %account.name, %error, "a token could not be read or stored");
    unavailable(account, "it could not be read or stored; the server's log says why")
}

impl TokenCache {
    fn with<T>(&self, account: &AccountView, look: impl FnOnce(&mut Entry) -> T) -> T {
        look(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(account.row).or_default())
    }

    /// The token that requests can carry without asking for another one.
    fn usable(&self, account: &AccountView, identity: &str, now: Timestamp) -> Option<Arc<Live>> {
        let (live, trouble) = self.with(account, |entry| (entry.live.clone(), entry.trouble.clone()));
        let is_patient = trouble.is_some_and(|trouble| trouble.at.elapsed() < AHEAD_AGAIN);
        live.filter(|live| live.identity == identity && (live.is_fresh(now) || (is_patient && live.works(now))))
    }

    fn live(&self, account: &AccountView, identity: &str) -> Option<Arc<Live>> {
        self.with(account, |entry| entry.live.clone()).filter(|live| live.identity == identity)
    }

    fn keep(
        &self,
        account: &AccountView,
        identity: &str,
        token: StoredToken,
        is_suspect: bool,
    ) -> Result<Arc<Live>, Unready> {
        let credentials = Credentials::bearer(&token.access).map_err(|error| refused(account, &error.to_string()))?;
        let live = Arc::new(Live {
            identity: identity.to_owned(),
            generation: token.generation,
            credentials,
            refresh_at: token.refresh_at,
            expires_at: token.expires_at,
            is_suspect: AtomicBool::new(is_suspect),
        });
        self.with(account, |entry| {
            entry.live = Some(Arc::clone(&live));
            entry.trouble = None;
        });
        Ok(live)
    }
}

/// The token of an account, obtained or renewed where that is due.
pub(crate) async fn token(
    engine: &Engine,
    snapshot: &Snapshot,
    account: &AccountView,
    spec: &OAuth2Spec,
) -> Result<Arc<Live>, Unready> {
    let identity = spec.identity();
    let usable = || engine.tokens.usable(account, &identity, engine.clock.now());
    if let Some(live) = usable() {
        return Ok(live);
    }
    let turn = engine.tokens.with(account, |entry| Arc::clone(&entry.turn));
    let _turn = turn.lock().await;
    // Whoever had the turn before may have brought one.
    if let Some(live) = usable() {
        return Ok(live);
    }
    let stored =
        engine.store.oauth_token(account.row, identity.clone()).await.map_err(|error| unstored(account, &error))?;
    let known = engine.tokens.live(account, &identity);
    let (seen, live) = match (stored, known) {
        (Some(stored), Some(known)) if known.generation == stored.generation => (known.generation, Some(known)),
        (Some(stored), _) => (stored.generation, Some(engine.tokens.keep(account, &identity, stored, false)?)),
        (None, _) => (0, None),
    };
    if let Some(live) = live.as_ref().filter(|live| live.is_fresh(engine.clock.now())) {
        return Ok(Arc::clone(live));
    }
    let asking = Asking { engine, snapshot, account, spec, identity: &identity };
    match (asking.renew(seen, false).await, live) {
        // It was asked ahead of time: the token that there is still works.
        (Err(_), Some(live)) if live.works(engine.clock.now()) => Ok(live),
        (renewed, _) => renewed,
    }
}

/// The token to repeat a request with that was answered 401 when it carried `used`; nothing when there is no better
/// one.
pub(crate) async fn after_401(
    engine: &Engine,
    snapshot: &Snapshot,
    account: &AccountView,
    spec: &OAuth2Spec,
    used: &Live,
) -> Option<Arc<Live>> {
    let newer = || engine.tokens.live(account, &used.identity).filter(|live| live.generation > used.generation);
    if let Some(live) = newer() {
        return Some(live);
    }
    let turn = engine.tokens.with(account, |entry| Arc::clone(&entry.turn));
    let _turn = turn.lock().await;
    if let Some(live) = newer() {
        return Some(live);
    }
    if used.is_suspect.load(Ordering::Relaxed) {
        return None;
    }
    let asking = Asking { engine, snapshot, account, spec, identity: &used.identity };
    match asking.renew(used.generation, true).await {
        Ok(live) => Some(live),
        Err(unready) => {
            let reason = unready.error.description;
            tracing::warn!(account = %account.name, reason, "a token that an API does not accept could not be renewed");
            None
        }
    }
}

/// Where a user's browser goes to consent.
#[derive(Debug, Clone)]
pub struct ConsentAt {
    /// The provider's page, with everything that it is asked.
    pub url: String,
    /// Where the provider sends the browser back to; must be registered there.
    pub callback_url: String,
    /// Until when an answer is taken.
    pub expires_at: Timestamp,
}

/// Why a consent cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum ConsentError {
    /// There is no account of this name.
    #[error("the account does not exist")]
    Missing,
    /// The account's tokens do not come by a user's consent.
    #[error("only accounts with the grant authorization_code are connected by a user")]
    OtherGrant,
    /// The account cannot ask; why, in words.
    #[error("{0}")]
    NotReady(String),
    /// It was not stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the provider sent the browser back with.
#[derive(Debug, Clone, Default)]
pub struct ConsentAnswer {
    /// What it was sent there with.
    pub state: String,
    /// What a token is obtained with.
    pub code: Option<SecretBytes>,
    /// Why there is no code.
    pub error: Option<String>,
    /// The same in the provider's words.
    pub error_description: Option<String>,
    /// Who the provider says that it is (RFC 9207).
    pub iss: Option<String>,
}

/// Asks for a user's consent; `callback_url` is where the world reaches our callback.
///
/// # Errors
/// There is no such account, or it cannot ask.
pub async fn begin_consent(engine: &Engine, name: &Name, callback_url: &str) -> Result<ConsentAt, ConsentError> {
    let snapshot = engine.store.snapshot().clone();
    let account = snapshot.account(name).ok_or(ConsentError::Missing)?;
    let spec = account.spec.oauth2().filter(|spec| spec.needs_consent()).ok_or(ConsentError::OtherGrant)?;
    let asking = Asking { engine, snapshot: &snapshot, account, spec, identity: "" };
    let client_id = asking.value(&spec.client_id).map_err(ConsentError::NotReady)?;
    // Not known later than now, when the user has come back with a code.
    snapshot.secret(&spec.client_secret.secret).map_err(ConsentError::NotReady)?;
    let client_id =
        client_id.expose_str().ok_or_else(|| ConsentError::NotReady("its client id is no text".to_owned()))?;
    let consent = engine.store.begin_consent(account, callback_url.to_owned()).await?;
    let challenge = spec.has_pkce().then(|| pkce_challenge(&consent.verifier));
    let url = spec
        .authorization_url(client_id, callback_url, &consent.state, challenge.as_deref())
        .map_err(ConsentError::NotReady)?;
    Ok(ConsentAt { url: url.into(), callback_url: callback_url.to_owned(), expires_at: consent.expires_at })
}

/// Takes the answer to a consent, and obtains the account's token with it; gives the account.
///
/// # Errors
/// Why there is no token, in words that hold nothing of the answer's secrets.
pub async fn finish_consent(engine: &Engine, answer: ConsentAnswer) -> Result<Name, String> {
    const UNSTORED: &str = "the server could not read or store what it needs; its log says why";
    let unstored = |error: StoreError| {
        tracing::error!(%error, "a consent could not be read or stored");
        UNSTORED.to_owned()
    };
    // Before anything else: a state is good for one answer, whatever that says.
    let consent = engine.store.take_consent(&answer.state).await.map_err(unstored)?.ok_or_else(|| {
        "this answer belongs to no connection attempt: it was used already, took longer than 10 minutes, or was never asked for"
            .to_owned()
    })?;
    let snapshot = engine.store.snapshot().clone();
    let account = snapshot.accounts().find(|account| account.row == consent.account && account.basis == consent.basis);
    let Some(account) = account else {
        return Err("the account was changed or deleted meanwhile; connect it again".to_owned());
    };
    let outcome = match account.spec.oauth2() {
        Some(spec) => redeem(engine, &snapshot, account, spec, &consent, answer).await,
        None => Err("the account was changed meanwhile; connect it again".to_owned()),
    };
    match outcome {
        Ok(()) => {
            tracing::info!(account = %account.name, "a user has consented; the account is connected");
            Ok(account.name.clone())
        }
        Err(reason) => {
            tracing::warn!(account = %account.name, reason, "an account could not be connected");
            engine.store.consent_failed(account.row, reason.clone()).await.map_err(unstored)?;
            Err(format!("account {}: {reason}", account.name))
        }
    }
}

async fn redeem(
    engine: &Engine,
    snapshot: &Snapshot,
    account: &Arc<AccountView>,
    spec: &OAuth2Spec,
    consent: &Consent,
    answer: ConsentAnswer,
) -> Result<(), String> {
    spec.check_issuer(answer.iss.as_deref())?;
    if let Some(error) = &answer.error {
        return Err(consent_refused(error, answer.error_description.as_deref()));
    }
    let code = answer.code.ok_or("the provider gave neither a code nor an error")?;
    let identity = spec.identity();
    let asking = Asking { engine, snapshot, account, spec, identity: &identity };
    let turn = engine.tokens.with(account, |entry| Arc::clone(&entry.turn));
    let _turn = turn.lock().await;
    // Whatever token there is, the user wants another one.
    let lease = match asking.lease(u64::MAX).await.map_err(|unready| unready.error.description)? {
        Ok(lease) => lease,
        Err(_) => return Err("another token came first; connect again".to_owned()),
    };
    let (outcome, reason) = match asking.call(With::Code { code: &code, consent }).await {
        Answer::Token(token) => match asking.given(token, None, None) {
            TokenOutcome::Given(mut token) => {
                token.by_consent = true;
                (TokenOutcome::Given(token), None)
            }
            other => (other, None),
        },
        // What the token that there is can do has not changed.
        Answer::Refused(reason) | Answer::Unavailable(reason) | Answer::Lost(reason) => {
            (TokenOutcome::Unavailable, Some(reason))
        }
    };
    let stored = engine.store.end_token_call(*lease, account.basis.clone(), outcome).await;
    match stored {
        Ok(Some(token)) => {
            engine.tokens.keep(account, &identity, token, false).map_err(|unready| unready.error.description)?;
            Ok(())
        }
        Ok(None) => Err(reason.unwrap_or_else(|| "no token came".to_owned())),
        Err(error) => {
            tracing::error!(account = %account.name, %error, "a token could not be stored");
            Err("the token could not be stored; the server's log says why".to_owned())
        }
    }
}

/// One account in want of a token.
struct Asking<'a> {
    engine: &'a Engine,
    snapshot: &'a Snapshot,
    account: &'a AccountView,
    spec: &'a OAuth2Spec,
    identity: &'a str,
}

/// What came of one request.
enum Answer {
    Token(Token),
    Refused(String),
    Unavailable(String),
    Lost(String),
}

/// What a token is asked for with.
#[derive(Clone, Copy)]
enum With<'a> {
    Refresh(&'a SecretBytes),
    Code { code: &'a SecretBytes, consent: &'a Consent },
    Grant,
}

impl Asking<'_> {
    /// Obtains a token newer than generation `seen`. The caller holds the turn of this process.
    async fn renew(&self, seen: u64, is_suspect: bool) -> Result<Arc<Live>, Unready> {
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
    async fn lease(&self, seen: u64) -> Result<Result<Box<TokenLease>, StoredToken>, Unready> {
        let deadline = Instant::now() + LEASE + CALL;
        loop {
            let identity = self.identity.to_owned();
            match self.engine.store.begin_token_call(self.account.row, identity, seen, LEASE).await {
                Ok(TokenTurn::Yours(lease)) => return Ok(Ok(lease)),
                Ok(TokenTurn::Newer(token)) => return Ok(Err(token)),
                Ok(TokenTurn::Busy) if Instant::now() >= deadline => {
                    return Err(unavailable(self.account, "another process asks for it, and does not come to an end"));
                }
                Ok(TokenTurn::Busy) => tokio::time::sleep(POLL).await,
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
    fn given(&self, token: Token, refresh: Option<&SecretBytes>, before: Option<&String>) -> TokenOutcome {
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
    async fn call(&self, with: With<'_>) -> Answer {
        let form = match self.form(with) {
            Ok(form) => form,
            Err(reason) => return Answer::Refused(reason),
        };
        let shown = |reason: &str| form.masker.mask_text(reason).into_owned();
        let url = match self.spec.token_url.parse() {
            Ok(url) => url,
            Err(error) => return Answer::Refused(format!("its token_url: {error}")),
        };
        let headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (ACCEPT, HeaderValue::from_static("application/json")),
        ];
        let request = RequestSpec { method: http::Method::POST, url, headers, body: form.body.into() };
        let options = SendOptions { total: CALL, response_max_bytes: ANSWER_BYTES, ..SendOptions::default() };
        match self.engine.outbound.send(request, &form.credentials, &options).await {
            Ok(exchange) => match read_token(exchange.status.as_u16(), &exchange.body) {
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

    fn form(&self, with: With<'_>) -> Result<Form, String> {
        let spec = self.spec;
        let client_id = self.value(&spec.client_id)?;
        let client_secret = self.snapshot.secret(&spec.client_secret.secret)?.clone();
        let mut secrets = vec![client_secret.clone()];
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
        let credentials = match spec.client_auth.unwrap_or_default() {
            ClientAuth::Basic => {
                // RFC 6749, section 2.3.1: both are form-encoded first.
                let encoded =
                    |bytes: &SecretBytes| -> String { form_urlencoded::byte_serialize(bytes.expose()).collect() };
                let (user, password) = (encoded(&client_id), SecretBytes::new(encoded(&client_secret)));
                Credentials::basic(&Part::Plain(user), &Part::Secret(password)).map_err(|error| error.to_string())?
            }
            ClientAuth::Body => {
                pairs.push(("client_id", client_id));
                pairs.push(("client_secret", client_secret));
                Credentials::none()
            }
        };
        let encoded = |bytes: &[u8]| -> String { form_urlencoded::byte_serialize(bytes).collect() };
        let body: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name.as_bytes()), encoded(value.expose())))
            .collect();
        Ok(Form { body: body.join("&").into_bytes(), credentials, masker: Masker::new(&secrets) })
    }

    fn value(&self, credential: &Credential) -> Result<SecretBytes, String> {
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
