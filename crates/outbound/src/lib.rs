//! How we call others: the only HTTP client, its address guard, TLS and credentials.
//!
//! - [`policy`]: which addresses we connect to.
//! - [`client`]: a request, its limits and redirects, and what came of it.
//! - [`transport`]: TLS settings, client certificates and proxies of connections.
//! - [`traffic`]: whose turn it is: rates, breakers, what APIs ask for.
//! - [`auth`] and [`mask`]: what an account adds, and how it stays secret.
//! - [`operator`]: the command line's way to our own API, the one without a guard.

pub mod auth;
pub mod client;
mod connector;
pub mod error;
pub mod mask;
pub mod operator;
pub mod policy;
mod pool;
mod progress;
pub mod proxy;
mod shown;
mod stream;
mod tls;
pub mod traffic;
pub mod transport;
mod wire;

pub use auth::{AuthError, AwsKey, Credentials, Part};
pub use client::{Exchange, Failed, Outbound, RedirectScope, SendOptions};
pub use connector::{LookUp, Resolver};
pub use error::{Reached, SendError, SendErrorKind, Timeout};
pub use mask::Masker;
pub use operator::{OperatorClient, OperatorError};
pub use policy::{Allowance, AllowanceError, Policy, Refused};
pub use progress::Stage;
pub use proxy::{ProxyError, ProxyWhy};
pub use shown::ReadBody;
pub use tls::Roots;
pub use traffic::{Ask, Gate, Pass, PutOff, Stays, Traffic, Why};
pub use transport::{ProxyLogin, Transport, TransportSettings};
