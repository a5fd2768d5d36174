//! The whole product from outside: the real binary, real HTTP, real files.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]
#![expect(clippy::print_stderr, reason = "the log of a server whose test fails")]

mod api;
mod cli;
mod formats;
mod harness;
mod ingest;
mod lifecycle;
mod main_line;
mod slow;
mod sync;
mod tidy;
mod traffic;
