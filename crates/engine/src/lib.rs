//! What happens later: dispatch, jobs, recipes, syncs, buckets, destinations, expiry.
//!
//! Nobody waits for this crate on a socket. Every loop here follows committed rows; a signal only wakes it,
//! so it can stop at any instruction and go on after a restart.

pub mod bucket;
pub mod destination;
pub mod dispatch;
mod run;
mod step;
pub mod sync;
pub mod upkeep;
pub mod worker;

use std::sync::Arc;

use linkspan_model::Clock;
use linkspan_outbound::{Outbound, Traffic};
use linkspan_store::Store;

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

/// A random number from 0 to 1, for jitter.
fn jitter() -> f64 {
    let mut bytes = [0; 4];
    if getrandom::fill(&mut bytes).is_err() {
        return 1.0;
    }
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
