//! How we call others: the only HTTP client, its address guard, TLS and credentials.

pub mod auth;
pub mod mask;
pub mod policy;
mod shown;
