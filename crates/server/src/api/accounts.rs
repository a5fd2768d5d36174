//! Accounts: how their tokens stand, and consents that are asked for.

use http::{Method, StatusCode};
use linkspan_model::oauth2::ConsentAt;
use linkspan_model::{Kind, Timestamp};
use linkspan_store::{AccountView, Snapshot, StoreError, TokenState};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::route::{Route, data, run};
use super::{Api, internal};
use crate::callback::CALLBACK_PATH;
use crate::problem::Problem;

/// Why a consent cannot be asked for.
#[derive(Debug, Clone)]
pub enum ConsentRefused {
    /// The account does not exist.
    Missing,
    /// Its tokens do not come by a user's consent.
    OtherGrant,
    /// It cannot ask; why, in words.
    NotReady(String),
    /// It was not stored.
    Store(StoreError),
}

#[derive(Serialize, JsonSchema)]
struct ConsentAnswerBody {
    data: ConsentAt,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/api/v1/accounts/{name}/connect", "connect_account", run!(connect))
            .about("accounts", "Asks for a user's consent: gives the provider's page to open in a browser.")
            .path_parameter("name", "The name of the account.")
            .gives::<ConsentAnswerBody>()
            .problems(&[409, 422])
            .of(Kind::Account),
    ]
}

async fn connect(api: Api, call: Call) -> Result<Answer, Problem> {
    let name = call.name()?;
    let at =
        api.connections.begin_consent(name.clone(), callback_url(&api)).await.map_err(|refused| match refused {
            ConsentRefused::Missing => Problem::not_found(format!("account/{name} does not exist")),
            ConsentRefused::OtherGrant => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "account.other_grant",
                format!("account/{name} needs no user: only grant authorization_code is connected so"),
            ),
            ConsentRefused::NotReady(reason) => {
                Problem::new(StatusCode::CONFLICT, "account.not_ready", format!("account/{name} cannot ask: {reason}"))
            }
            ConsentRefused::Store(error) => error.into(),
        })?;
    data(at)
}

/// Where the world reaches our callback.
fn callback_url(api: &Api) -> String {
    format!("{}{CALLBACK_PATH}", api.exposure.public_url.trim_end_matches('/'))
}

/// How the token of an OAuth2 account stands.
#[derive(Serialize, JsonSchema)]
struct AccountStatus {
    /// `new`: none was obtained yet. `connected`: there is one, and nothing speaks against it. `unknown`: a refresh got
    /// no answer. `failed`: the provider refuses to give one. `reconnect`: it refuses, and only a user's consent
    /// helps.
    state: &'static str,
    /// Since when.
    since: Option<Timestamp>,
    /// Why, unless connected.
    reason: Option<String>,
    /// What the token permits, as far as the provider says.
    scopes: Option<String>,
    /// When the token was obtained.
    obtained_at: Option<Timestamp>,
    /// When it expires; nothing when the provider does not say.
    expires_at: Option<Timestamp>,
    /// Grant `authorization_code`: the URL to register at the provider.
    callback_url: Option<String>,
    /// Grant `authorization_code`: when a user last consented.
    consented_at: Option<Timestamp>,
    /// When a consent last came to nothing; nothing once a later one was given.
    consent_failed_at: Option<Timestamp>,
    /// Why it came to nothing.
    consent_error: Option<String>,
    /// What is allowed and should not stay so.
    warnings: Vec<String>,
}

/// How an account stands, as its document's status; of other accounts than those with tokens only what is to be said
/// of keys and certificates.
pub(super) async fn status(api: &Api, account: &AccountView) -> Result<Value, Problem> {
    let warnings = warnings(&api.store.snapshot(), account, api.clock.now());
    let Some(spec) = account.spec.oauth2() else { return Ok(json!({"warnings": warnings})) };
    let found = api.store.oauth_status(account.row).await?;
    // A token of another provider or client is not this account's.
    let of_this = found.as_ref().filter(|status| status.generation > 0 && status.identity == spec.identity());
    let state = match (&found, of_this) {
        (Some(status), Some(_)) if status.state == TokenState::Refused && spec.needs_consent() => "reconnect",
        (Some(status), _)
            if status.state == TokenState::Refused && status.basis == account.basis && !spec.needs_consent() =>
        {
            "failed"
        }
        (Some(status), Some(_)) if status.state == TokenState::Unknown => "unknown",
        (_, Some(_)) => "connected",
        _ => "new",
    };
    let failed = found.as_ref().and_then(|status| status.consent_failed.clone());
    let status = AccountStatus {
        state,
        since: found.as_ref().filter(|_| state != "new").map(|status| status.since),
        reason: found
            .as_ref()
            .filter(|_| !matches!(state, "new" | "connected"))
            .and_then(|status| status.reason.clone()),
        scopes: of_this.and_then(|status| status.scopes.clone()),
        obtained_at: of_this.and_then(|status| status.obtained_at),
        expires_at: of_this.and_then(|status| status.expires_at),
        callback_url: spec.needs_consent().then(|| callback_url(api)),
        consented_at: of_this.and_then(|status| status.consented_at),
        consent_failed_at: failed.as_ref().map(|(at, _)| *at),
        consent_error: failed.map(|(_, error)| error),
        warnings,
    };
    serde_json::to_value(status).map_err(|error| internal(&error))
}

/// What is allowed and should not stay so, in words.
fn warnings(snapshot: &Snapshot, account: &AccountView, now: Timestamp) -> Vec<String> {
    let mut warnings = account.spec.warnings(now);
    for (path, secret, wanted) in account.spec.keys() {
        if let Some(reason) = snapshot.secret(secret).ok().and_then(|value| wanted.check(value).err()) {
            warnings.push(format!("{path}: the value of secret `{secret}` does not do: {reason}"));
        }
    }
    if let Some(spec) = account.spec.oauth2() {
        if spec.is_plain() {
            warnings.push("its client secret and tokens go over plain http; use https://".to_owned());
        }
        if spec.grant == linkspan_model::oauth2::Grant::Password {
            warnings.push("grant password is legacy (RFC 9700): the provider should offer another one".to_owned());
        }
    }
    warnings
}

/// What is to be said of accounts when the set-up is checked: subject and message.
pub(super) async fn findings(api: &Api) -> Result<Vec<(String, String)>, Problem> {
    let snapshot = api.store.snapshot().clone();
    let mut findings = Vec::new();
    for account in snapshot.accounts() {
        let subject = format!("account/{}", account.name);
        let status = status(api, account).await?;
        if let Some(reason) = status["reason"].as_str() {
            findings.push((subject.clone(), format!("{}: {reason}", status["state"].as_str().unwrap_or_default())));
        }
        let warnings = warnings(&snapshot, account, api.clock.now());
        findings.extend(warnings.into_iter().map(|warning| (subject.clone(), warning)));
    }
    Ok(findings)
}
