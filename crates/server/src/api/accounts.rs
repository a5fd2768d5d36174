//! Accounts: how their tokens stand.

use linkspan_model::Timestamp;
use linkspan_store::{AccountView, TokenState};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Api, internal};
use crate::problem::Problem;

/// How the token of an OAuth2 account stands.
#[derive(Serialize, JsonSchema)]
struct AccountStatus {
    /// `new`: none was obtained yet. `connected`: there is one, and nothing speaks against it. `unknown`: a refresh got
    /// no answer. `failed`: the provider refuses to give one.
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
    /// What is allowed and should not stay so.
    warnings: Vec<String>,
}

/// How an account stands, as its document's status; other accounts than those with tokens have none.
pub(super) async fn status(api: &Api, account: &AccountView) -> Result<Value, Problem> {
    let Some(spec) = account.spec.oauth2() else { return Ok(json!({})) };
    let found = api.store.oauth_status(account.row).await?;
    // A token of another provider or client is not this account's.
    let of_this = found.as_ref().filter(|status| status.generation > 0 && status.identity == spec.identity());
    let state = match (&found, of_this) {
        (Some(status), _) if status.state == TokenState::Refused && status.basis == account.basis => "failed",
        (Some(status), Some(_)) if status.state == TokenState::Unknown => "unknown",
        (_, Some(_)) => "connected",
        _ => "new",
    };
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
        warnings: warnings(account),
    };
    serde_json::to_value(status).map_err(|error| internal(&error))
}

/// What is allowed and should not stay so, in words.
fn warnings(account: &AccountView) -> Vec<String> {
    let mut warnings = Vec::new();
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
        findings.extend(warnings(account).into_iter().map(|warning| (subject.clone(), warning)));
    }
    Ok(findings)
}
