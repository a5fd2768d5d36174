//! Outbound over real sockets on loopback: what it reaches, what it refuses, and how it ends when others misbehave.

mod exchange;
mod guard;
mod limits;
mod operator;
mod redirects;
mod tls;
mod upstream;
