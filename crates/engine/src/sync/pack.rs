//! Packing: the events of a batch as one object in the bucket.

use linkspan_model::event::Event;
use linkspan_store::StoredEvent;

use super::{SyncError, blocking};
use crate::bucket::{Bucket, lines};

/// Puts the object of a batch; gives its SHA-256.
pub(super) async fn put(bucket: Bucket, object: String, events: &[StoredEvent]) -> Result<[u8; 32], SyncError> {
    // Bodies are shared, not copied.
    let events: Vec<Event> = events.iter().map(|stored| stored.event.clone()).collect();
    blocking(move || Ok(bucket.put(&object, &lines(&events))?)).await
}
