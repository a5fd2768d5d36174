//! Metrics that are read where they stand when somebody asks, instead of being counted as they change.

use linkspan_model::job::JobStatus;
use linkspan_outbound::Traffic;
use linkspan_store::Store;
use metrics::{counter, gauge};

/// Brings the gauges up to date.
#[expect(clippy::cast_precision_loss, reason = "gauges are floating-point numbers")]
pub(crate) async fn observe(store: &Store, traffic: &Traffic) {
    let (waiting, bytes) = store.queue_depth();
    gauge!("linkspan_store_queue_depth").set(waiting as f64);
    gauge!("linkspan_store_queue_bytes").set(bytes as f64);
    let (commits, events, micros) = store.commit_counts();
    counter!("linkspan_store_commits_total").absolute(commits);
    counter!("linkspan_store_events_total").absolute(events);
    counter!("linkspan_store_commit_microseconds_total").absolute(micros);
    gauge!("linkspan_store_swift").set(if store.is_swift() { 1.0 } else { 0.0 });
    let (free, full) = store.disk_free();
    gauge!("linkspan_disk_free_bytes").set(free as f64);
    gauge!("linkspan_disk_full").set(if full { 1.0 } else { 0.0 });
    gauge!("linkspan_wal_bytes").set(store.wal_bytes() as f64);
    if let Ok(position) = store.dispatch_position().await {
        gauge!("linkspan_dispatch_lag_events").set(store.last_seq().saturating_sub(position) as f64);
    }
    if let Ok(counts) = store.open_jobs().await {
        for status in [JobStatus::Queued, JobStatus::Waiting, JobStatus::Running] {
            let count = counts.iter().find(|(of, _)| *of == status).map_or(0, |(_, count)| *count);
            gauge!("linkspan_jobs", "status" => status.as_str()).set(count as f64);
        }
    }
    gauge!("linkspan_breakers_open").set(traffic.open_breakers() as f64);
    if let Some(rss) = resident_bytes() {
        gauge!("linkspan_rss_bytes").set(rss as f64);
    }
}

/// Resident memory of this process, where the platform tells.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4_096)
}
