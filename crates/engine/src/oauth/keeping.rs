//! Tokens that nobody uses are renewed from time to time: some providers forget a grant whose token for refreshing lies
//! for days or weeks.

use std::sync::Arc;
use std::time::Duration;

use linkspan_store::AccountView;
use tokio_util::sync::CancellationToken;

use super::{Asking, Unready, unstored};
use crate::Engine;

/// Most that a look at all accounts lets pass before the next one.
const LOOK_EVERY: Duration = Duration::from_mins(15);

/// Renews tokens that were obtained longer than `after` ago, when they can be refreshed, until `stop`.
pub async fn keep_alive(engine: Engine, after: Duration, stop: CancellationToken) {
    let pause = (after / 4).clamp(Duration::from_millis(100), LOOK_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let snapshot = engine.store.snapshot().clone();
        for account in snapshot.accounts().filter(|account| account.spec.oauth2().is_some()) {
            if stop.is_cancelled() {
                return;
            }
            if let Err(unready) = keep(&engine, &snapshot, account, after).await {
                let reason = unready.error.description;
                tracing::warn!(account = %account.name, reason, "a token that lay unused could not be renewed");
            }
        }
    }
}

async fn keep(
    engine: &Engine,
    snapshot: &linkspan_store::Snapshot,
    account: &Arc<AccountView>,
    after: Duration,
) -> Result<(), Unready> {
    let Some(spec) = account.spec.oauth2() else { return Ok(()) };
    let identity = spec.identity();
    let turn = engine.tokens.with(account, |entry| Arc::clone(&entry.turn));
    let _turn = turn.lock().await;
    let read = |error| unstored(account, &error);
    let Some(status) = engine.store.oauth_status(account.row).await.map_err(read)? else { return Ok(()) };
    let is_old = status.obtained_at.is_some_and(|at| engine.clock.now().since(at) >= after);
    // What was refused, or got no answer, waits for whoever needs it.
    if !is_old || status.reason.is_some() {
        return Ok(());
    }
    match engine.store.oauth_token(account.row, identity.clone()).await.map_err(read)? {
        Some(token) if token.refresh.is_some() => {
            let asking = Asking { engine, snapshot, account, spec, identity: &identity };
            asking.renew(token.generation, false).await.map(drop)
        }
        _ => Ok(()),
    }
}
