//! What things are.
//!
//! Ids, documents, signature checks, templates and pills, retry maths and row shaping: everything whose
//! result depends only on its arguments. No async, no I/O, no clock and no environment.

pub mod account;
pub mod call;
pub mod charset;
pub mod coding;
pub mod connection;
pub mod connector;
pub mod destination;
pub mod digest;
pub mod document;
pub mod endpoint;
pub mod event;
pub mod fault;
pub mod form;
pub mod hops;
pub mod id;
pub mod import;
pub mod job;
pub mod json_text;
pub mod jwt;
pub mod key;
pub mod limits;
pub mod name;
pub mod naming;
mod number;
pub mod oauth2;
pub mod paginate;
pub mod place;
pub mod proxy;
mod reader;
pub mod recipe;
pub mod request;
pub mod response;
pub mod retry;
pub mod rows;
mod schema;
pub mod secret;
pub mod sigv4;
pub mod sync;
pub mod template;
pub mod time;
pub mod tls;
pub mod traffic;
pub mod tree;
pub mod units;
pub mod verify;
pub mod xml;
pub mod yaml;

pub use document::{Document, Kind, Spec};
pub use fault::Fault;
pub use id::{EventId, JobId};
pub use json_text::{JsonText, JsonWriter};
pub use name::Name;
pub use secret::{SecretBytes, SecretRef};
pub use time::{Clock, Timestamp};

/// Whether a field of a document need not be written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
