//! Refusals on their way to the store: rate-capped per endpoint, batched, and never in the caller's way.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use linkspan_model::limits;
use linkspan_store::{NewRefusal, Store};
use metrics::counter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Refusals that wait for the store; what comes beyond is counted and not kept.
const QUEUE: usize = 512;
/// Endpoints whose rate is remembered before the memory is begun anew.
const ENDPOINTS: usize = 10_000;

/// Takes refusals.
#[derive(Debug)]
pub struct RefusalLog {
    queue: mpsc::Sender<NewRefusal>,
    rates: Mutex<HashMap<Option<i64>, (i64, u32)>>,
}

impl RefusalLog {
    /// The log, and the task that writes it until `stop`.
    pub fn new(store: Store, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self { queue, rates: Mutex::default() }, write(store, waiting, stop))
    }

    /// Keeps a refusal, unless its endpoint has had too many this second.
    pub fn record(&self, refusal: NewRefusal) {
        if !self.is_within_rate(refusal.endpoint, refusal.at.as_secs()) || self.queue.try_send(refusal).is_err() {
            counter!("linkspan_refusals_not_kept_total").increment(1);
        }
    }

    fn is_within_rate(&self, endpoint: Option<i64>, second: i64) -> bool {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() > ENDPOINTS {
            rates.clear();
        }
        let (at, count) = rates.entry(endpoint).or_insert((second, 0));
        if *at != second {
            (*at, *count) = (second, 0);
        }
        *count += 1;
        *count <= limits::REFUSALS_PER_SECOND
    }
}

async fn write(store: Store, mut waiting: mpsc::Receiver<NewRefusal>, stop: CancellationToken) {
    let mut batch = Vec::new();
    loop {
        let received = tokio::select! {
            received = waiting.recv_many(&mut batch, QUEUE) => received,
            () = stop.cancelled() => {
                waiting.close();
                waiting.recv_many(&mut batch, QUEUE).await
            }
        };
        if received == 0 {
            return;
        }
        if let Err(error) = store.record_refusals(std::mem::take(&mut batch)).await {
            tracing::warn!(%error, "refusals were not kept");
        }
        // One write for what comes in a moment.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
