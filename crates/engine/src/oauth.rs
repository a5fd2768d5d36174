//! Tokens of OAuth2 accounts: obtained when they are needed, renewed ahead of their end, and once more when an API
//! does not accept one.
//!
//! Guarantees: however many requests need a token, one asks the provider, in this process by a lock for each account
//! and beside it by the store's lease; a new token is durable before it is used; a request that was refused with an
//! older token is repeated with the newer one and asks for no other; no word of a provider is shown before the
//! secrets in it are masked.

mod asking;
mod consent;
mod keeping;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use linkspan_model::Timestamp;
use linkspan_model::job::StepError;
use linkspan_model::oauth2::OAuth2Spec;
use linkspan_model::retry::Outcome;
use linkspan_outbound::Credentials;
use linkspan_store::{AccountView, Snapshot, StoreError, StoredToken};
use tokio::time::Instant;

use self::asking::Asking;
pub use self::consent::{ConsentError, begin_consent, finish_consent};
pub use self::keeping::keep_alive;
use crate::{Engine, failed, heavy};

/// How long a refusal counts before the provider is asked again, so that a flood of jobs does not become one of
/// requests for tokens.
const REFUSED: Duration = Duration::from_secs(30);
/// How long a provider that could not be asked is left alone: who waited behind a request that failed need not wait
/// for one of his own.
const UNAVAILABLE: Duration = Duration::from_secs(1);
/// How long after trouble a token that still works is used without asking for the next one.
const AHEAD_AGAIN: Duration = Duration::from_secs(30);

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
        // The masker of a long token takes some milliseconds to be built.
        let credentials = heavy::work_on(heavy::UNKNOWN, || Credentials::bearer(&token.access))
            .map_err(|error| refused(account, &error.to_string()))?;
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
