//! The whole product from outside: the real binary, real HTTP, real files.

mod api;
mod cli;
mod harness;
mod ingest;
mod lifecycle;
mod main_line;
mod slow;
mod sync;
mod tidy;
