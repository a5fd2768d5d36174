//! Refusals on their way to the store: rate-capped per endpoint, batched, and never in the caller's way.
//!
//! Guarantees that no secret of the configuration is kept in a readable form: a request may be refused because its
//! secret stands at a wrong place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use linkspan_model::event::HeaderText;
use linkspan_model::{Timestamp, limits};
use linkspan_outbound::Masker;
use linkspan_store::{NewRefusal, Snapshot, Store};
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
    /// How much of a body it takes, in bytes: more than it keeps, so that it sees a secret across the cut.
    pub const BODY_BYTES: usize = limits::REFUSAL_BODY_BYTES + (16 << 10);

    /// The log, and the task that writes it until `stop`.
    pub fn new(store: Store, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self { queue, rates: Mutex::default() }, write(store, waiting, stop))
    }

    /// Keeps a refusal, unless its endpoint has had too many this second; only then it is made.
    pub fn record(&self, endpoint: Option<i64>, at: Timestamp, refusal: impl FnOnce() -> NewRefusal) {
        if !self.is_within_rate(endpoint, at.as_secs()) || self.queue.try_send(refusal()).is_err() {
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
    let mut known = Known::default();
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
        known.learn(&store).await;
        let (masker, refusals) = (known.masker.clone(), std::mem::take(&mut batch));
        let masked =
            tokio::task::spawn_blocking(move || refusals.into_iter().map(|refusal| masked(&masker, refusal)).collect());
        match masked.await {
            Ok(refusals) => {
                if let Err(error) = store.record_refusals(refusals).await {
                    tracing::warn!(%error, "refusals were not kept");
                }
            }
            Err(error) => tracing::warn!(%error, "refusals were not kept"),
        }
        // One write for what comes in a moment.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The secrets of the configuration, as they were last.
#[derive(Default)]
struct Known {
    of: Weak<Snapshot>,
    masker: Masker,
}

impl Known {
    async fn learn(&mut self, store: &Store) {
        let snapshot = Arc::clone(&store.snapshot());
        if std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(&snapshot)) {
            return;
        }
        self.of = Arc::downgrade(&snapshot);
        // Of many secrets it takes some milliseconds.
        let masker = tokio::task::spawn_blocking(move || Masker::new(snapshot.secret_values())).await;
        self.masker = masker.unwrap_or_default();
    }
}

fn masked(masker: &Masker, refusal: NewRefusal) -> NewRefusal {
    let headers = refusal.headers.into_iter().map(|(name, value)| {
        let masked = masker.mask_bytes(value.as_bytes()).into_owned();
        (masker.mask_text(&name).into_owned(), HeaderText::new(masked))
    });
    NewRefusal {
        headers: headers.collect(),
        cause: masker.mask_text(&refusal.cause).into_owned(),
        body: masker.mask_beginning(&refusal.body, limits::REFUSAL_BODY_BYTES).into_owned(),
        ..refusal
    }
}

#[cfg(test)]
mod tests {
    use linkspan_model::{SecretBytes, Timestamp};

    use super::*;

    #[test]
    fn hides_secrets_in_what_is_kept() {
        let secret = "whsec_0123456789";
        let masker = Masker::new(&[SecretBytes::new(secret)]);
        let mut body = vec![b'x'; limits::REFUSAL_BODY_BYTES - 4];
        body.extend_from_slice(secret.as_bytes());
        let refusal = NewRefusal {
            endpoint: None,
            at: Timestamp::from_micros(0),
            status: 401,
            code: "verify.failed".to_owned(),
            cause: format!("no header {secret}"),
            method: "POST".to_owned(),
            remote: None,
            headers: vec![
                ("x-a".to_owned(), HeaderText::new(hex_of(secret))),
                ("x-b".to_owned(), HeaderText::new("b")),
            ],
            body_size: body.len() as u64,
            body,
        };
        let kept = masked(&masker, refusal);
        assert_eq!(kept.cause, "no header ••••••");
        assert_eq!(kept.headers[0].1.as_bytes(), "••••••".as_bytes());
        assert_eq!(kept.headers[1].1.as_bytes(), b"b");
        assert!(kept.body.ends_with("x••••••".as_bytes()));
    }

    fn hex_of(text: &str) -> String {
        text.bytes().map(|byte| format!("{byte:02x}")).collect()
    }
}
