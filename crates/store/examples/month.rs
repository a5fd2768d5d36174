//! Makes the month-old store below the folder that is given, unless it is there already, and prints where: for
//! benchmarks. `cargo run --release -p linkspan-store --example month -- target`
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of tests")]

#[path = "../tests/month/fixture.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod fixture;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

#[expect(clippy::disallowed_methods, reason = "the month ends now")]
fn main() {
    let target = std::env::args().nth(1).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = linkspan_model::Timestamp::from_micros(i64::try_from(now.as_micros()).unwrap());
    println!("{}", fixture::folder(Path::new(&target), now).display());
}
