//! Tokens of OAuth2 accounts, sealed, and whose turn it is to ask for the next one.
//!
//! Guarantees: one asks at a time, in this process and beside it, by a lease that ends by itself; a new token is
//! stored only in place of the one that it was asked for with (compare-and-swap on a generation number), and before
//! anyone uses it; nothing is ever deleted because a provider said no.

use std::time::Duration;

use linkspan_model::{SecretBytes, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sha2::{Digest as _, Sha256};

use crate::Store;
use crate::error::{Result, StoreError};
use crate::seal::{MasterKey, random};
use crate::snapshot::AccountView;

/// A token as it is kept.
#[derive(Debug, Clone)]
pub struct StoredToken {
    /// Counts the account's tokens from 1.
    pub generation: u64,
    /// What requests carry.
    pub access: SecretBytes,
    /// What the next token is obtained with.
    pub refresh: Option<SecretBytes>,
    /// When it should be renewed; nothing when it does not say how long it lives.
    pub refresh_at: Option<Timestamp>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
}

/// A token that a provider has just given.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What it was obtained with; see `OAuth2Spec::identity`.
    pub identity: String,
    /// What requests carry.
    pub access: SecretBytes,
    /// What the next token is obtained with.
    pub refresh: Option<SecretBytes>,
    /// What it permits, as far as that is known.
    pub scopes: Option<String>,
    /// When it should be renewed.
    pub refresh_at: Option<Timestamp>,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// Whether a user has just consented to it.
    pub by_consent: bool,
}

/// A consent that was asked for.
#[derive(Debug, Clone)]
pub struct Consent {
    /// The row of the account.
    pub account: i64,
    /// What the account said then; see `AccountView::basis`.
    pub basis: String,
    /// The PKCE verifier.
    pub verifier: SecretBytes,
    /// Where the provider was told to send the browser back to.
    pub redirect_uri: String,
}

/// A consent that is asked for now: what goes through the browser, and when it ends.
#[derive(Debug)]
pub struct NewConsent {
    /// The state: 256 random bits, good for one answer.
    pub state: String,
    /// The PKCE verifier (RFC 7636, section 4.1).
    pub verifier: String,
    /// Until when an answer is taken.
    pub expires_at: Timestamp,
}

/// How the token of an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    /// None was ever obtained.
    New,
    /// The last one was obtained, and nothing speaks against it.
    Connected,
    /// A request for the next one got no answer: whether the provider has replaced it is unknown.
    Unknown,
    /// The provider refuses to give one.
    Refused,
}

impl TokenState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Connected => "connected",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
        }
    }

    fn of(text: &str) -> Self {
        [Self::Connected, Self::Unknown, Self::Refused]
            .into_iter()
            .find(|state| state.as_str() == text)
            .unwrap_or(Self::New)
    }
}

/// How the token of an account stands, without the token.
#[derive(Debug, Clone)]
pub struct TokenStatus {
    /// The state.
    pub state: TokenState,
    /// Since when.
    pub since: Timestamp,
    /// Why, unless connected.
    pub reason: Option<String>,
    /// Counts the account's tokens from 1.
    pub generation: u64,
    /// What the token was obtained with.
    pub identity: String,
    /// Row and revision of the documents of the last request for a token; see `AccountView::basis`.
    pub basis: String,
    /// What the token permits, as far as that is known.
    pub scopes: Option<String>,
    /// When the token was obtained.
    pub obtained_at: Option<Timestamp>,
    /// When the token expires.
    pub expires_at: Option<Timestamp>,
    /// Requests in a row that got no answer.
    pub lost: u32,
    /// When a user last consented.
    pub consented_at: Option<Timestamp>,
    /// When a consent last came to nothing, and why; nothing once a later one was given.
    pub consent_failed: Option<(Timestamp, String)>,
}

/// Whose turn it is to ask for a token.
#[derive(Debug)]
pub enum TokenTurn {
    /// Somebody else asks.
    Busy,
    /// There is a newer token than the caller has seen.
    Newer(StoredToken),
    /// The caller's, until its lease ends.
    Yours(Box<TokenLease>),
}

/// The right to ask for a token.
#[derive(Debug)]
pub struct TokenLease {
    account: i64,
    fence: i64,
    /// The generation that the new token takes the place of.
    generation: u64,
    /// How the token stands.
    pub status: TokenStatus,
    /// The token as it is; nothing when there is none, or it was obtained with something else.
    pub token: Option<StoredToken>,
}

/// What came of asking.
#[derive(Debug, Clone)]
pub enum TokenOutcome {
    /// A token.
    Given(Box<NewToken>),
    /// No answer: the request may have been processed.
    Lost(String),
    /// A refusal that asking again does not change.
    Refused(String),
    /// Nothing was sent, or the provider cannot answer now.
    Unavailable,
}

impl Store {
    /// The token of an account, unless it was obtained with something else than `identity`.
    ///
    /// # Errors
    /// When the database cannot be read or the token does not open.
    pub async fn oauth_token(&self, account: i64, identity: String) -> Result<Option<StoredToken>> {
        let key = self.key().clone();
        self.read_for_engine(move |db| match find(db, account)? {
            Some(found) if found.status.identity == identity => found.open(&key, account),
            _ => Ok(None),
        })
        .await
    }

    /// How the token of an account stands; nothing when none was ever asked for.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn oauth_status(&self, account: i64) -> Result<Option<TokenStatus>> {
        self.read(move |db| Ok(find(db, account)?.map(|found| found.status))).await
    }

    /// Notes that a consent is asked for.
    ///
    /// # Errors
    /// When the database refuses or there are no random bytes.
    pub async fn begin_consent(&self, account: &AccountView, redirect_uri: String) -> Result<NewConsent> {
        let (key, now, row, basis) = (self.key().clone(), self.now(), account.row, account.basis.clone());
        let (state, verifier) = (hex::encode(random::<32>()?), hex::encode(random::<32>()?));
        let expires_at = now.after(CONSENT);
        let consent = NewConsent { state, verifier, expires_at };
        let (hash, both) = (hash(&consent.state), SecretBytes::new(format!("{}\n{redirect_uri}", consent.verifier)));
        self.write(move |db| {
            db.prepare_cached("DELETE FROM oauth_consents WHERE expires_at <= ?1")?.execute([now.as_micros()])?;
            let sealed = key.seal(&consent_place(&hash), &both)?;
            db.prepare_cached(
                "INSERT INTO oauth_consents (hash, account, basis, sealed, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![hash, row, basis, sealed, expires_at.as_micros()])?;
            Ok(())
        })
        .await?;
        Ok(consent)
    }

    /// Takes a consent out by its state, so that the state is good for one answer; nothing when there is none or its
    /// time is over.
    ///
    /// # Errors
    /// When the database refuses or what is kept does not open.
    pub async fn take_consent(&self, state: &str) -> Result<Option<Consent>> {
        let (key, now, hash) = (self.key().clone(), self.now(), hash(state));
        // Whoever guesses costs a read and no commit.
        let is_known = self
            .read(move |db| Ok(db.prepare_cached("SELECT 1 FROM oauth_consents WHERE hash = ?1")?.exists([hash])?));
        if !is_known.await? {
            return Ok(None);
        }
        self.write(move |db| {
            let found: Option<(i64, String, Vec<u8>, i64)> = db
                .prepare_cached(
                    "DELETE FROM oauth_consents WHERE hash = ?1 RETURNING account, basis, sealed, expires_at",
                )?
                .query_row([hash], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
                .optional()?;
            let Some((account, basis, sealed, expires_at)) = found else { return Ok(None) };
            if expires_at <= now.as_micros() {
                return Ok(None);
            }
            let both = key.open(&consent_place(&hash), &sealed)?;
            let (verifier, redirect_uri) = both.expose_str().and_then(|both| both.split_once('\n')).unwrap_or_default();
            let verifier = SecretBytes::new(verifier);
            Ok(Some(Consent { account, basis, verifier, redirect_uri: redirect_uri.to_owned() }))
        })
        .await
    }

    /// Notes that a consent came to nothing.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn consent_failed(&self, account: i64, reason: String) -> Result<()> {
        let now = self.now();
        self.write(move |db| {
            db.prepare_cached(
                "INSERT INTO oauth_tokens
                        (account, generation, identity, basis, state, since, lease, lost, consent_failed_at, consent_error)
                 VALUES (?1, 0, '', '', 'new', ?2, 0, 0, ?2, ?3)
                 ON CONFLICT (account) DO UPDATE SET consent_failed_at = ?2, consent_error = ?3",
            )?
            .execute(params![account, now.as_micros(), reason])?;
            Ok(())
        })
        .await
    }

    /// Takes the turn to ask for a token newer than generation `seen`, for at most `lease`.
    ///
    /// # Errors
    /// When the database refuses or the token does not open.
    pub async fn begin_token_call(
        &self,
        account: i64,
        identity: String,
        seen: u64,
        lease: Duration,
    ) -> Result<TokenTurn> {
        let (key, now) = (self.key().clone(), self.now());
        self.write(move |db| {
            db.prepare_cached(
                "INSERT OR IGNORE INTO oauth_tokens (account, generation, identity, basis, state, since, lease, lost)
                 VALUES (?1, 0, '', '', 'new', ?2, 0, 0)",
            )?
            .execute(params![account, now.as_micros()])?;
            let Some(mut found) = find(db, account)? else {
                return Err(StoreError::Database("a row that was just made is not there".to_owned()));
            };
            let token = if found.status.identity == identity { found.open(&key, account)? } else { None };
            if let Some(newer) = token.as_ref().filter(|token| token.generation > seen) {
                return Ok(TokenTurn::Newer(newer.clone()));
            }
            if found.lease_until.is_some_and(|until| until > now) {
                return Ok(TokenTurn::Busy);
            }
            if found.lease_until.is_some() {
                // Whoever had the turn went away: what it has sent is unknown.
                found.status.lost += 1;
                found.status.state = TokenState::Unknown;
                found.status.reason = Some("the server ended while it waited for the provider's answer".to_owned());
                found.status.since = now;
            }
            let (fence, status) = (found.lease + 1, &found.status);
            db.prepare_cached(
                "UPDATE oauth_tokens SET lease = ?2, lease_until = ?3, lost = ?4, state = ?5, reason = ?6, since = ?7
                 WHERE account = ?1",
            )?
            .execute(params![
                account,
                fence,
                now.after(lease).as_micros(),
                status.lost,
                status.state.as_str(),
                status.reason,
                status.since.as_micros()
            ])?;
            let generation = found.status.generation;
            Ok(TokenTurn::Yours(Box::new(TokenLease { account, fence, generation, status: found.status, token })))
        })
        .await
    }

    /// Stores what came of asking, and ends the turn; `basis` is that of the account that asked. Gives the token
    /// when there is one.
    ///
    /// # Errors
    /// `Conflict` when another token was stored or another turn was given meanwhile; then this one must not be used.
    pub async fn end_token_call(
        &self,
        lease: TokenLease,
        basis: String,
        outcome: TokenOutcome,
    ) -> Result<Option<StoredToken>> {
        let (key, now) = (self.key().clone(), self.now());
        let ended = self
            .write(move |db| match outcome {
                TokenOutcome::Given(token) => keep(db, &key, &lease, &basis, *token, now).map(Some),
                TokenOutcome::Lost(reason) => {
                    fail(db, &lease, &basis, Some((TokenState::Unknown, reason)), now).map(|()| None)
                }
                TokenOutcome::Refused(reason) => {
                    fail(db, &lease, &basis, Some((TokenState::Refused, reason)), now).map(|()| None)
                }
                TokenOutcome::Unavailable => fail(db, &lease, &basis, None, now).map(|()| None),
            })
            .await;
        self.tell_token_call();
        ended
    }
}

fn keep(
    db: &Connection,
    key: &MasterKey,
    lease: &TokenLease,
    basis: &str,
    token: NewToken,
    now: Timestamp,
) -> Result<StoredToken> {
    let generation = lease.generation + 1;
    let refresh = token.refresh.as_ref().map_or(&[][..], SecretBytes::expose);
    // A token of visible ASCII holds no line break, whatever the one for refreshing holds.
    let both = SecretBytes::new([token.access.expose(), b"\n", refresh].concat());
    let sealed = key.seal(&place(lease.account, generation), &both)?;
    let changed = db
        .prepare_cached(
            "UPDATE oauth_tokens SET generation = ?3, identity = ?4, basis = ?5, sealed = ?6, scopes = ?7,
                    refresh_at = ?8, expires_at = ?9, obtained_at = ?10, lease_until = NULL, lost = 0, reason = NULL,
                    consented_at = iif(?11, ?10, consented_at),
                    consent_failed_at = iif(?11, NULL, consent_failed_at),
                    since = iif(state = 'connected' AND identity = ?4, since, ?10), state = 'connected'
             WHERE account = ?1 AND generation = ?2 AND lease = ?12",
        )?
        .execute(params![
            lease.account,
            lease.generation.cast_signed(),
            generation.cast_signed(),
            token.identity,
            basis,
            sealed,
            token.scopes,
            token.refresh_at.map(Timestamp::as_micros),
            token.expires_at.map(Timestamp::as_micros),
            now.as_micros(),
            token.by_consent,
            lease.fence
        ])?;
    if changed == 0 {
        return Err(StoreError::Conflict("another token was stored meanwhile".to_owned()));
    }
    Ok(StoredToken {
        generation,
        access: token.access,
        refresh: token.refresh,
        refresh_at: token.refresh_at,
        expires_at: token.expires_at,
    })
}

/// Ends a turn without a token; a turn that was lost meanwhile is left alone.
fn fail(
    db: &Connection,
    lease: &TokenLease,
    basis: &str,
    state: Option<(TokenState, String)>,
    now: Timestamp,
) -> Result<()> {
    let is_lost = matches!(&state, Some((TokenState::Unknown, _)));
    let (state, reason) = state.map_or((None, None), |(state, reason)| (Some(state.as_str()), Some(reason)));
    db.prepare_cached(
        "UPDATE oauth_tokens SET lease_until = NULL, basis = ?3, lost = lost + ?4, reason = ifnull(?6, reason),
                since = iif(?5 IS NULL OR (state = ?5 AND basis = ?3), since, ?7), state = ifnull(?5, state)
         WHERE account = ?1 AND lease = ?2",
    )?
    .execute(params![lease.account, lease.fence, basis, is_lost, state, reason, now.as_micros()])?;
    Ok(())
}

/// How long a consent may take: the time to log in at the provider and to find one's second factor.
const CONSENT: Duration = Duration::from_mins(10);

/// Only the hash of a state is kept: who reads the database cannot answer in a user's place.
fn hash(state: &str) -> [u8; 32] {
    Sha256::digest(state.as_bytes()).into()
}

fn consent_place(hash: &[u8; 32]) -> String {
    format!("oauth_consents/{}", hex::encode(hash))
}

struct Found {
    status: TokenStatus,
    sealed: Option<Vec<u8>>,
    refresh_at: Option<Timestamp>,
    lease: i64,
    lease_until: Option<Timestamp>,
}

impl Found {
    fn open(&self, key: &MasterKey, account: i64) -> Result<Option<StoredToken>> {
        let Some(sealed) = &self.sealed else { return Ok(None) };
        let both = key.open(&place(account, self.status.generation), sealed)?;
        let bytes = both.expose();
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let refresh = bytes.get(end + 1..).filter(|refresh| !refresh.is_empty());
        Ok(Some(StoredToken {
            generation: self.status.generation,
            access: SecretBytes::new(bytes.get(..end).unwrap_or_default()),
            refresh: refresh.map(SecretBytes::new),
            refresh_at: self.refresh_at,
            expires_at: self.status.expires_at,
        }))
    }
}

/// Where a sealed token belongs: an older one cannot be put in the place of a newer one.
fn place(account: i64, generation: u64) -> String {
    format!("oauth_tokens/{account}/{generation}")
}

fn find(db: &Connection, account: i64) -> Result<Option<Found>> {
    let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);
    let found = |row: &Row<'_>| {
        let state: String = row.get("state")?;
        Ok(Found {
            status: TokenStatus {
                state: TokenState::of(&state),
                since: Timestamp::from_micros(row.get("since")?),
                reason: row.get("reason")?,
                generation: row.get::<_, i64>("generation")?.cast_unsigned(),
                identity: row.get("identity")?,
                basis: row.get("basis")?,
                scopes: row.get("scopes")?,
                obtained_at: time(row.get("obtained_at")?),
                expires_at: time(row.get("expires_at")?),
                lost: row.get("lost")?,
                consented_at: time(row.get("consented_at")?),
                consent_failed: time(row.get("consent_failed_at")?).zip(row.get::<_, Option<String>>("consent_error")?),
            },
            sealed: row.get("sealed")?,
            refresh_at: time(row.get("refresh_at")?),
            lease: row.get("lease")?,
            lease_until: time(row.get("lease_until")?),
        })
    };
    Ok(db.prepare_cached("SELECT * FROM oauth_tokens WHERE account = ?1")?.query_row([account], found).optional()?)
}
