//! The whole product from outside: the real binary, real HTTP, real files.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]
#![expect(clippy::print_stderr, reason = "the log of a server whose test fails")]

mod accounts;
mod api;
mod calls;
mod cli;
mod connections;
mod connectors;
mod consent;
mod formats;
mod harness;
mod http2;
mod imports;
mod ingest;
mod keys;
mod lifecycle;
mod logs;
mod lossless;
mod main_line;
mod oauth;
mod slow;
mod sync;
mod tidy;
mod traffic;
mod upgrade;
