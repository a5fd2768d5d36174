//! Outbound over real sockets on loopback: what it reaches, what it refuses, and how it ends when others misbehave.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail the test")]

mod coding;
mod exchange;
mod guard;
mod limits;
mod operator;
mod proxy;
mod redirects;
mod tls;
mod transport;
mod upstream;
