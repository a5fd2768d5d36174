//! Upkeep: what is old goes, and the disk is watched.

use std::time::{Duration, Instant};

use linkspan_store::{Expired, Retention, Store, Sweep};
use tokio_util::sync::CancellationToken;

/// How often expiry looks.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// Between two rounds expiry rests so many times as long as a round took: it follows the load, and under load a round
/// takes longer because it waits its turn.
const PAUSE_SHARE: u32 = 3;
/// Shortest and longest rest.
const PAUSE_LEAST: Duration = Duration::from_millis(5);
const PAUSE_MOST: Duration = Duration::from_millis(200);
/// How often the disk is looked at.
const DISK_EVERY: Duration = Duration::from_millis(800);

/// Removes what is too old until `stop`, in small batches with pauses, so that ingest hardly notices.
pub async fn expire(store: Store, keep: Retention, stop: CancellationToken) {
    let mut pause = Duration::from_secs(5);
    let mut sweep = Sweep::default();
    let mut removed = Expired::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if let Err(error) = store.look_at_clock().await {
            tracing::warn!(%error, "jobs were not brought nearer after the clock was set back");
        }
        if store.clock_doubt().is_some() {
            pause = EXPIRE_EVERY;
            continue;
        }
        let began = Instant::now();
        pause = match store.expire(keep, &mut sweep).await {
            Ok(expired) if expired.any() || !sweep.is_whole() => {
                removed += expired;
                (began.elapsed() * PAUSE_SHARE).clamp(PAUSE_LEAST, PAUSE_MOST)
            }
            Ok(_) => {
                if removed.any() {
                    tracing::info!(?removed, "removed what was too old");
                    removed = Expired::default();
                }
                EXPIRE_EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "what is too old could not be removed");
                EXPIRE_EVERY
            }
        };
    }
}

/// Watches the disk until `stop`, and says when it begins and ends to be full.
pub async fn watch_disk(store: Store, stop: CancellationToken) {
    let mut was_full = false;
    loop {
        if let Err(error) = store.look_at_clock().await {
            tracing::warn!(%error, "jobs were not brought nearer after the clock was set back");
        }
        if let Err(error) = store.look_after_files().await {
            tracing::error!(%error, "the data folder is not what it was");
        }
        match store.check_disk().await {
            Ok(disk) if disk.full != was_full => {
                was_full = disk.full;
                if disk.full {
                    tracing::error!(free = disk.free, "the disk is full; events are refused until there is room");
                } else {
                    tracing::info!(free = disk.free, "the disk has room again; events are accepted");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the disk could not be looked at"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(DISK_EVERY) => {}
        }
    }
}
