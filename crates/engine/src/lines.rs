//! Jobs that were put off because of their connection go on when it can be called again, before their own time.
//!
//! A breaker that closes and a wait that ends do so for all jobs at once, and nobody knows before when that will be.
//! So jobs come back at times that lie far apart, and are called here, as many as the API is ready for.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Engine;

/// Between two looks while jobs wait.
const LOOK: Duration = Duration::from_millis(50);

/// Calls jobs that wait for connections until `stop`.
pub async fn run(engine: Engine, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = engine.traffic.line_begun() => {}
        }
        while call(&engine).await {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

/// Calls as many as can go now; gives whether anybody is left.
async fn call(engine: &Engine) -> bool {
    let snapshot = Arc::clone(&engine.store.snapshot());
    let mut left = false;
    for (gate, room) in engine.traffic.lines() {
        let Some(connection) = snapshot.connection(gate.name()) else {
            gate.end_line();
            continue;
        };
        left = true;
        if room == 0 {
            continue;
        }
        match engine.store.hasten(connection.row, room).await {
            Ok(0) => gate.end_line(),
            Ok(_) => {}
            Err(error) => tracing::warn!(connection = %gate.name(), %error, "jobs that wait were not called"),
        }
    }
    left
}
