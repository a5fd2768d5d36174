//! Places of requests that are being stored: so many in all, and so many of one endpoint.
//!
//! Guarantees that an endpoint that gets more than it can store holds up only its own callers: they wait in the order
//! of their coming, and only those beyond a bound, or after a time, are turned away. To turn a caller away costs as
//! much as to store its event, and those that are turned away come again at once; those that wait cost nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use linkspan_model::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_of_one: usize,
    taken: AtomicUsize,
    /// By the row of the endpoint.
    of_one: Mutex<HashMap<i64, Arc<Line>>>,
}

/// The places of one endpoint, and who waits for one.
#[derive(Debug)]
struct Line {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    _one: OwnedSemaphorePermit,
    _all: Counted<'a>,
}

/// There is no place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// One in a count, as long as this lives.
#[derive(Debug)]
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn enter(count: &'a AtomicUsize, most: usize) -> Result<Self, Busy> {
        let entered = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) < most { Ok(entered) } else { Err(Busy) }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    /// `most` places, `most_of_one` for each endpoint.
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, taken: AtomicUsize::new(0), of_one: Mutex::default() }
    }

    /// A place for a request to this endpoint. Where all are taken it is waited for until `patience` ends; that is
    /// not asked for before.
    pub(super) async fn enter<P: Future<Output = ()>>(
        &self,
        endpoint: i64,
        patience: impl FnOnce() -> P,
    ) -> Result<Place<'_>, Busy> {
        let line = self.line(endpoint);
        let one = match Arc::clone(&line.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let _waits = Counted::enter(&line.waiting, limits::WAITING_PER_ENDPOINT)?;
                tokio::select! {
                    place = Arc::clone(&line.places).acquire_owned() => place.map_err(|_| Busy)?,
                    () = patience() => return Err(Busy),
                }
            }
        };
        let all = Counted::enter(&self.taken, self.most)?;
        Ok(Place { _one: one, _all: all })
    }

    fn line(&self, endpoint: i64) -> Arc<Line> {
        let mut lines = self.of_one.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(endpoint).or_insert_with(|| {
            Arc::new(Line { places: Arc::new(Semaphore::new(self.most_of_one)), waiting: AtomicUsize::new(0) })
        });
        Arc::clone(line)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::*;

    async fn soon() {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_waits_for_one_in_the_order_of_coming() {
        let places = Places::new(10, 1);
        let first = places.enter(1, pending).await.unwrap();
        let came = Mutex::new(Vec::new());
        let late = |n| {
            let (places, came) = (&places, &came);
            async move {
                let place = places.enter(1, soon).await.unwrap();
                came.lock().unwrap().push(n);
                drop(place);
            }
        };
        let release = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(first);
        };
        tokio::join!(late(1), late(2), late(3), release);
        assert_eq!(*came.lock().unwrap(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_the_line_is_bounded() {
        let places = Places::new(10, 1);
        let _first = places.enter(1, pending).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(places.enter(1, soon).await.unwrap_err(), Busy);
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        let line = places.line(1);
        assert_eq!(line.waiting.load(Ordering::Relaxed), 0);
        line.waiting.store(limits::WAITING_PER_ENDPOINT, Ordering::Relaxed);
        assert_eq!(places.enter(1, pending).await.unwrap_err(), Busy);
        assert_eq!(line.waiting.load(Ordering::Relaxed), limits::WAITING_PER_ENDPOINT);
    }

    #[tokio::test]
    async fn full_endpoint_takes_no_place_of_another() {
        let places = Places::new(2, 1);
        let _first = places.enter(1, pending).await.unwrap();
        let second = places.enter(2, pending).await.unwrap();
        assert_eq!(places.enter(3, pending).await.unwrap_err(), Busy, "there are two in all");
        drop(second);
        assert!(places.enter(3, pending).await.is_ok());
    }
}
