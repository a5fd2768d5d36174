//! Loading: the events of a batch as rows in the destination, with its position.

use std::path::PathBuf;

use linkspan_model::destination::DestinationSpec;
use linkspan_model::rows::{Row, rows};
use linkspan_model::sync::SyncFormat;
use linkspan_model::{EventId, Timestamp, tree};
use linkspan_store::{StoredEvent, SyncView};

use super::{SyncError, blocking};
use crate::bucket::{ArchivedEvent, BucketError};
use crate::destination::{self, Destination, LoadBatch, Loaded, TableName};

/// An open destination that takes the batches of one run.
pub(super) struct Loading {
    destination: Box<dyn Destination>,
    sync: String,
    table: TableName,
    format: SyncFormat,
    position: u64,
    synced_at: Timestamp,
}

/// What a batch came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) events: u64,
    pub(super) rows: u64,
    pub(super) unparsed: u64,
}

impl Loading {
    pub(super) async fn open(
        folder: PathBuf,
        spec: DestinationSpec,
        sync: &SyncView,
        table: TableName,
        synced_at: Timestamp,
    ) -> Result<Self, SyncError> {
        let (id, format) = (sync.id.clone(), sync.spec.format);
        blocking(move || {
            let mut destination = destination::open(&folder, &spec)?;
            let position = destination.position(&id, &table)?;
            Ok(Self { destination, sync: id, table, format, position, synced_at })
        })
        .await
    }

    /// The destination's own position when it was opened.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// Loads the events of the log up to `last`.
    pub(super) async fn load(self, events: Vec<StoredEvent>, last: u64) -> Result<(Self, Loaded, Counts), SyncError> {
        blocking(move || {
            let mut shaped = Shaped::default();
            for StoredEvent { event, .. } in &events {
                shaped.add(event.id, event.received_at, event.head.query.as_deref(), &event.body, self.format);
            }
            self.load_rows(&shaped, last)
        })
        .await
    }

    /// Loads the events of an object up to `last`.
    pub(super) async fn refill(self, events: Vec<ArchivedEvent>, last: u64) -> Result<Self, SyncError> {
        blocking(move || {
            let mut shaped = Shaped::default();
            for event in &events {
                let body = event
                    .bytes()
                    .map_err(|error| BucketError::Damaged { name: event.id.to_string(), reason: error.to_string() })?;
                shaped.add(event.id, event.received_at, event.query.as_deref(), &body, self.format);
            }
            Ok(self.load_rows(&shaped, last)?.0)
        })
        .await
    }

    fn load_rows(mut self, shaped: &Shaped, last: u64) -> Result<(Self, Loaded, Counts), SyncError> {
        let loaded = self.destination.load(&LoadBatch {
            sync: &self.sync,
            table: &self.table,
            last,
            rows: &shaped.rows,
            synced_at: self.synced_at,
        })?;
        let counts = Counts { rows: shaped.rows.len() as u64, ..shaped.counts };
        Ok((self, loaded, counts))
    }
}

#[derive(Default)]
struct Shaped {
    rows: Vec<Row>,
    counts: Counts,
}

impl Shaped {
    fn add(&mut self, id: EventId, received_at: Timestamp, query: Option<&str>, body: &[u8], format: SyncFormat) {
        let shaped = match query {
            // A request without a body carries its data in the query: an object of texts.
            Some(query) if body.is_empty() && !query.is_empty() => {
                let fields = tree::parse_query(query).to_string();
                rows(id, received_at, fields.as_bytes(), format)
            }
            _ => rows(id, received_at, body, format),
        };
        self.counts.events += 1;
        self.counts.unparsed += u64::from(shaped.unparsed.is_some());
        self.rows.extend(shaped.rows);
    }
}
