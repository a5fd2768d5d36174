//! Packing: the events of a batch as one object in the bucket.

use std::io::Write;

use linkspan_model::event::Event;
use linkspan_store::StoredEvent;

use super::{SyncError, blocking};
use crate::bucket::{Bucket, write_lines};

/// Puts the object of a batch; gives its SHA-256. One that is there and cannot be read is replaced.
pub(super) async fn put(bucket: Bucket, object: String, events: &[StoredEvent]) -> Result<[u8; 32], SyncError> {
    let events = shared(events);
    blocking(move || {
        let content = |to: &mut dyn Write| write_lines(&events, to);
        match bucket.put(&object, &content) {
            Err(error) if error.is_lost() => Ok(bucket.put_again(&object, &content)?),
            other => Ok(other?),
        }
    })
    .await
}

/// Puts the object of a batch in the place of one that is lost or damaged; gives its SHA-256.
pub(super) async fn put_again(bucket: Bucket, object: String, events: &[StoredEvent]) -> Result<[u8; 32], SyncError> {
    let events = shared(events);
    blocking(move || Ok(bucket.put_again(&object, &|to| write_lines(&events, to))?)).await
}

/// The events with their bodies shared, not copied.
fn shared(events: &[StoredEvent]) -> Vec<Event> {
    events.iter().map(|stored| stored.event.clone()).collect()
}
