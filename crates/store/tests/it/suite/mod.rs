//! The behaviours that every backend has.

pub mod dedupe;
pub mod documents;
pub mod events;
pub mod jobs;
pub mod model;
pub mod overload;
pub mod refusals;
pub mod retention;
pub mod seats;
pub mod secrets;
pub mod syncs;
