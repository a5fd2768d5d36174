//! Jobs: made by dispatch, claimed under a lease, recorded step by step.
//!
//! Guarantees: a job row and the position of dispatch that made it are one transaction, so no event is
//! missed and none starts a recipe twice; a worker that lost its lease records nothing; a step's result is
//! durable before the next step starts.

mod dispatch;
mod list;
mod queue;
mod record;

use linkspan_model::id::JobId;

pub(crate) use dispatch::keep_numbers;
pub use dispatch::{Care, Dispatched, NewJob};
pub use list::{JobFilter, JobPage};
pub use queue::{Claimed, Lease, Shares};
pub use record::{FinishedStep, Next, StepRecord};

fn salt_of(job: JobId) -> u16 {
    let bytes = job.as_bytes();
    u16::from_be_bytes([bytes[6] & 0x0f, bytes[7]])
}
