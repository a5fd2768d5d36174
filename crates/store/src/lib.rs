//! What is remembered: all SQL of our own database, secrets at rest, the spool of large bodies.
//!
//! The store offers whole operations; no transaction and no connection leaves it. Every change goes through
//! one writer that commits whatever waits in one durable transaction; reads run beside it on connections of
//! their own and never block it. The interface is asynchronous and free of SQLite's terms, so that
//! PostgreSQL can stand behind it too.

mod backup;
mod checkpoint;
mod clock;
mod commit;
mod connection;
mod connector;
mod disk;
mod error;
mod event;
mod files;
mod folder;
mod job;
mod oauth;
mod open;
mod pace;
mod read;
mod refusal;
mod resource;
mod retention;
mod seal;
mod seat;
mod signal;
mod snapshot;
mod spool;
mod sync;
mod token;
mod work;
mod writer;

pub use backup::{BackupReport, LeftOut, restore};
pub use connection::{ConnectionTest, TestFailure};
pub use disk::DiskState;
pub use error::{Result, StoreError};
pub use event::{
    Appended, DedupeKey, EndpointEvents, EventFilter, LogRun, LoggedEvent, LostBody, NewEvent, ShownEvent, StoredEvent,
};
pub use files::LostStretch;
pub use folder::{Beginning, DataFolder};
pub use job::{Care, Claimed, Dispatched, FinishedStep, JobFilter, JobPage, Lease, NewJob, Next, Shares, StepRecord};
pub use oauth::{
    Consent, NewConsent, NewToken, StoredToken, TokenLease, TokenOutcome, TokenState, TokenStatus, TokenTurn,
};
pub use open::{Durability, SecretSource, Settings, Store};
pub use refusal::{NewRefusal, Refusal, RefusalFilter};
pub use resource::{Action, Change, Precondition, Resource};
pub use retention::{Expired, Retention, Sweep};
pub use seal::MasterKey;
pub use signal::Listener;
pub use snapshot::{
    AccountView, ConnectionView, ConnectorView, DestinationView, EndpointView, RecipeView, Snapshot, SyncView,
};
pub use spool::SpoolFile;
pub use sync::{Batch, BatchOutcome, BatchState, NewBatch, SyncState, SyncTicket};
pub use token::reset_operator_token;
pub use work::{StatementWatch, StatementWork};
