//! Work on the data of others that takes long, kept off the threads that others wait for.
//!
//! The runtime's threads serve probes, the operator API and all other jobs. What takes milliseconds of a processor
//! there holds all of them up.

use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Data from which on work on it counts as heavy, in bytes: 4 MiB, which takes tens of milliseconds to parse. Less is
/// not worth the memory that goes from thread to thread with it: pages of a list of 2 MiB took 15 MiB more.
const HEAVY_BYTES: usize = 4 << 20;

/// The length of data that nobody has measured.
pub(crate) const UNKNOWN: usize = HEAVY_BYTES;

/// Bodies from files that jobs hold at a time, in bytes: 32 MiB. What is made of one may take many times as much.
const BODIES_BYTES: u64 = 32 << 20;
/// The measure in which they are counted.
const UNIT: u64 = 64 << 10;

/// Room for the large bodies of events that jobs work on.
#[derive(Debug, Clone)]
pub struct LargeBodies(Arc<Semaphore>);

impl Default for LargeBodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(BODIES_BYTES / UNIT).unwrap_or(1))))
    }
}

impl LargeBodies {
    /// Waits for room for a body of so many bytes; one that is larger than all of it gets all of it.
    pub(crate) async fn room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.min(BODIES_BYTES).div_ceil(UNIT)).unwrap_or(u32::MAX);
        // It is never closed.
        Arc::clone(&self.0).acquire_many_owned(units).await.ok()
    }
}

/// Does work on so many bytes of data. If it is much, the thread's other tasks move to another thread meanwhile.
pub(crate) fn work_on<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let can_move = || Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if bytes >= HEAVY_BYTES && can_move() { tokio::task::block_in_place(work) } else { work() }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio_util::task::TaskTracker;

    use super::*;

    /// Whether another task of the runtime's only thread runs while work on so many bytes is under way.
    fn lets_others_run(bytes: usize) -> bool {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("threads");
        let heavy = runtime.spawn(async move {
            let (told, waits) = mpsc::channel();
            TaskTracker::new().spawn(async move { told.send(()) });
            // Only as long as it would have to be waited for in vain.
            let patience = if bytes < HEAVY_BYTES { Duration::from_millis(50) } else { Duration::from_secs(30) };
            work_on(bytes, || waits.recv_timeout(patience).is_ok())
        });
        runtime.block_on(heavy).expect("it does not panic")
    }

    #[test]
    fn heavy_work_holds_up_no_other_task() {
        assert!(lets_others_run(HEAVY_BYTES));
        assert!(!lets_others_run(HEAVY_BYTES - 1), "the instrument sees who waits");
    }

    #[tokio::test]
    async fn large_bodies_wait_for_room() {
        let bodies = LargeBodies::default();
        let all = bodies.room(1 << 40).await;
        assert!(tokio::time::timeout(Duration::from_millis(50), bodies.room(1)).await.is_err());
        drop(all);
        let _first = bodies.room(BODIES_BYTES - UNIT).await;
        let _second = bodies.room(UNIT).await;
        assert!(tokio::time::timeout(Duration::from_millis(50), bodies.room(1)).await.is_err());
    }

    #[test]
    fn works_without_a_runtime() {
        assert_eq!(work_on(HEAVY_BYTES, || 7), 7);
    }
}
