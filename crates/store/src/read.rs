//! Reading: a few connections beside the writer's, each used by one read at a time.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Result, StoreError};

/// Connections that read. More would not read faster from one disk.
const READERS: usize = 4;

/// The connections that read.
#[derive(Debug)]
pub(crate) struct Readers {
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
}

impl Readers {
    /// Opens the connections with `open`.
    pub(crate) fn open(open: impl Fn() -> Result<Connection>) -> Result<Self> {
        let idle = (0..READERS).map(|_| open()).collect::<Result<Vec<_>>>()?;
        Ok(Self { idle: Mutex::new(idle), free: Arc::new(Semaphore::new(READERS)) })
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
        // One transaction: what a read sees in several statements belongs together.
        let outcome = connection.unchecked_transaction().map_err(StoreError::from).and_then(|view| read(&view));
        self.lock().push(connection);
        drop(permit);
        outcome
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
