//! Reading: a few connections beside the writer's, each used by one read at a time.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Result, StoreError};

/// Connections that read for whoever asks the API. More would not read faster from one disk.
pub(crate) const READERS: usize = 4;
/// Connections that read for dispatch, workers, syncs and expiry: whatever the API is asked, these go on.
pub(crate) const ENGINE_READERS: usize = 2;

/// The connections that read.
#[derive(Debug)]
pub(crate) struct Readers {
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
}

impl Readers {
    /// Opens so many connections with `open`.
    pub(crate) fn open(count: usize, open: impl Fn() -> Result<Connection>) -> Result<Self> {
        let idle = (0..count).map(|_| open()).collect::<Result<Vec<_>>>()?;
        Ok(Self { idle: Mutex::new(idle), free: Arc::new(Semaphore::new(count)) })
    }

    /// Waits for a free connection. The permit goes with the read, not with its caller: a caller that goes
    /// away does not free the connection that its read still uses.
    pub(crate) async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_owned().await.map_err(|_| StoreError::Poisoned)
    }

    /// Runs a read on a free connection.
    pub(crate) fn with<T>(
        &self,
        permit: OwnedSemaphorePermit,
        read: impl FnOnce(&Connection) -> Result<T>,
    ) -> Result<T> {
        let connection = self.lock().pop().ok_or(StoreError::Poisoned)?;
        let taken = Taken { readers: self, connection: Some(connection), _permit: permit };
        // One transaction: what a read sees in several statements belongs together. A read that panics rolls it back
        // before the connection goes back, because it is dropped first.
        let view = taken.connection()?.unchecked_transaction()?;
        read(&view)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use. It goes back to the others however its read ends: after reads that panic there must not be
/// fewer. The permit goes after it.
struct Taken<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Taken<'_> {
    fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or(StoreError::Poisoned)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.readers.lock().extend(self.connection.take());
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[tokio::test]
    async fn keeps_its_connections_when_reads_panic() {
        let readers = Readers::open(READERS, || Ok(Connection::open_in_memory()?)).unwrap();
        for _ in 0..READERS {
            let permit = readers.permit().await.unwrap();
            let read = |db: &Connection| -> Result<()> {
                db.prepare_cached("SELECT 1")?.query([])?.next()?;
                panic!("on purpose")
            };
            assert!(catch_unwind(AssertUnwindSafe(|| readers.with(permit, read))).is_err());
        }
        assert_eq!((readers.lock().len(), readers.free.available_permits()), (READERS, READERS));
        for _ in 0..READERS {
            let permit = readers.permit().await.unwrap();
            let in_transaction = readers.with(permit, |db| Ok(!db.is_autocommit())).unwrap();
            assert!(in_transaction);
        }
        assert!(readers.lock().iter().all(Connection::is_autocommit));
    }
}
