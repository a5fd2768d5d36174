//! What ingest counts: registered once, so that a request costs an atomic addition.

use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};

/// Counters of the ingest path.
#[derive(Clone)]
pub struct IngressMetrics {
    accepted: Counter,
    duplicate: Counter,
    ack_seconds: Histogram,
}

impl Default for IngressMetrics {
    fn default() -> Self {
        Self {
            accepted: counter!("linkspan_ingest_requests_total", "code" => "202"),
            duplicate: counter!("linkspan_ingest_duplicates_total"),
            ack_seconds: histogram!("linkspan_ack_seconds"),
        }
    }
}

impl IngressMetrics {
    /// When a request began, for the one in eight that is timed: enough for a histogram, and the clock and the
    /// histogram's lock stay off the way of the others. `number` is any number that runs on with the requests.
    pub(super) fn begin(number: u16) -> Option<Instant> {
        number.is_multiple_of(8).then(Instant::now)
    }

    /// An event was stored and acknowledged; it `began` when its head had come.
    pub(super) fn accepted(&self, began: Option<Instant>) {
        self.accepted.increment(1);
        if let Some(began) = began {
            self.ack_seconds.record(began.elapsed().as_secs_f64());
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
