//! A user's consent: asked for, and turned into an account's token.

use std::sync::Arc;

use linkspan_model::Name;
use linkspan_model::oauth2::{ConsentAnswer, ConsentAt, OAuth2Spec, consent_refused, pkce_challenge};
use linkspan_store::{AccountView, Consent, Snapshot, StoreError, TokenOutcome};

use super::asking::{Answer, Asking, With};
use crate::Engine;

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

/// Asks for a user's consent; `callback_url` is where the world reaches our callback.
///
/// # Errors
/// There is no such account, or it cannot ask.
pub async fn begin_consent(engine: &Engine, name: &Name, callback_url: &str) -> Result<ConsentAt, ConsentError> {
    let snapshot = engine.store.snapshot().clone();
    let account = snapshot.account(name).ok_or(ConsentError::Missing)?;
    let spec = account.spec.oauth2().filter(|spec| spec.needs_consent()).ok_or(ConsentError::OtherGrant)?;
    let asking = Asking { engine, snapshot: &snapshot, account, spec, identity: "" };
    // Not known later than now, when the user has come back with a code.
    for (_, secret) in account.spec.secrets() {
        snapshot.secret(secret).map_err(ConsentError::NotReady)?;
    }
    let client_id = spec.client_id.as_ref().ok_or_else(|| ConsentError::NotReady("it has no client id".to_owned()))?;
    let client_id = asking.value(client_id).map_err(ConsentError::NotReady)?;
    let client_id =
        client_id.expose_str().ok_or_else(|| ConsentError::NotReady("its client id is no text".to_owned()))?;
    let consent = engine.store.begin_consent(account, callback_url.to_owned()).await?;
    let challenge = spec.has_pkce().then(|| pkce_challenge(&consent.verifier));
    let url = spec
        .authorization_url(client_id, callback_url, &consent.state, challenge.as_deref())
        .map_err(ConsentError::NotReady)?;
    Ok(ConsentAt { authorize_url: url.into(), callback_url: callback_url.to_owned(), expires_at: consent.expires_at })
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
