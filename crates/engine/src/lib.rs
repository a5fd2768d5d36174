//! What happens later: dispatch, jobs, recipes, syncs, buckets, destinations, expiry.
//!
//! Nobody waits for this crate on a socket. Every loop here follows committed rows; a signal only wakes it,
//! so it can stop at any instruction and go on after a restart.

mod attempt;
pub mod bucket;
pub mod call;
mod connection;
pub mod connection_test;
pub mod destination;
pub mod dispatch;
mod heavy;
pub mod lines;
pub mod oauth;
mod run;
mod step;
pub mod sync;
mod transport;
pub mod upkeep;
pub mod worker;

use std::sync::Arc;

pub use connection::CredentialCache;
pub use heavy::LargeBodies;
use linkspan_model::Clock;
use linkspan_model::job::StepError;
use linkspan_outbound::{Outbound, Traffic};
use linkspan_store::Store;
pub use oauth::TokenCache;
pub use transport::TransportCache;

/// What the loops work with.
#[derive(Clone)]
pub struct Engine {
    /// The store.
    pub store: Store,
    /// The door to others.
    pub outbound: Outbound,
    /// Whose turn it is at each connection.
    pub traffic: Traffic,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where this server reaches its own public listener: `http://127.0.0.1:8080`.
    pub own_url: Arc<str>,
    /// The credentials of accounts, as they were built last.
    pub credentials: CredentialCache,
    /// The ways of connections that are not the ordinary one, as they were made last.
    pub transports: TransportCache,
    /// The tokens of OAuth2 accounts that are in use.
    pub tokens: TokenCache,
    /// Room for the large bodies of events.
    pub large_bodies: LargeBodies,
}

fn failed(code: &str, description: impl Into<String>, field: Option<String>) -> StepError {
    StepError { code: code.to_owned(), description: description.into(), field, outcome_unknown: None }
}

/// Twelve random bits for an id.
fn salt() -> u16 {
    let mut bytes = [0; 2];
    // Without them ids still differ by time and position.
    if getrandom::fill(&mut bytes).is_err() {
        return 0;
    }
    u16::from_le_bytes(bytes) & 0x0fff
}

/// 128 random bits as text, for an id that nobody else may have.
fn random_id() -> Result<String, String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system gives no randomness: {error}"))?;
    Ok(hex::encode(bytes))
}

/// A random number from 0 to 1, for jitter.
fn jitter() -> f64 {
    let mut bytes = [0; 4];
    if getrandom::fill(&mut bytes).is_err() {
        return 1.0;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
