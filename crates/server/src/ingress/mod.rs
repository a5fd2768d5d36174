//! What the world sends: webhooks, from the socket to the store.

pub(crate) mod body;
mod counters;
mod places;
mod receive;
mod refusals;
mod remote;
mod timer;

pub use counters::IngressMetrics;
pub use receive::{Delivery, Ingress, IngressLimits, Received};
pub use refusals::RefusalLog;
pub use remote::TrustedProxies;
