//! What ingest counts: registered once, so that a request costs an atomic addition.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

/// Counters of the ingest path.
#[derive(Clone)]
pub struct IngressMetrics {
    accepted: Counter,
    duplicate: Counter,
    ack_seconds: Histogram,
    sampled: Arc<std::sync::atomic::AtomicU64>,
}

impl Default for IngressMetrics {
    fn default() -> Self {
        Self {
            accepted: counter!("linkspan_ingest_requests_total", "code" => "202"),
            duplicate: counter!("linkspan_ingest_duplicates_total"),
            ack_seconds: histogram!("linkspan_ack_seconds"),
            sampled: Arc::default(),
        }
    }
}

impl IngressMetrics {
    /// An event was stored and acknowledged, `took` after its head had come.
    pub(super) fn accepted(&self, took: Duration) {
        self.accepted.increment(1);
        // Every eighth is enough for a histogram and keeps its lock off the path of the others.
        if self.sampled.fetch_add(1, std::sync::atomic::Ordering::Relaxed).is_multiple_of(8) {
            self.ack_seconds.record(took.as_secs_f64());
        }
    }

    /// An event was acknowledged that had been stored before.
    pub(super) fn duplicate(&self) {
        self.duplicate.increment(1);
    }

    /// A request was refused.
    pub(super) fn refused(&self, status: u16, code: &str) {
        counter!("linkspan_ingest_requests_total", "code" => status.to_string()).increment(1);
        counter!("linkspan_refusals_total", "cause" => code.to_owned()).increment(1);
    }
}
