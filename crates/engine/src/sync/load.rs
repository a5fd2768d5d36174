//! Loading: the events of a batch as rows in the destination, with its position.

use std::path::PathBuf;

use linkspan_model::destination::DestinationSpec;
use linkspan_model::endpoint::Format;
use linkspan_model::event::{Content, Headers};
use linkspan_model::rows::{Row, rows, xml_rows};
use linkspan_model::sync::SyncFormat;
use linkspan_model::{EventId, Timestamp, form};
use linkspan_store::{StoredEvent, SyncView};

use super::{SyncError, blocking};
use crate::bucket::{ArchivedEvent, BucketError};
use crate::destination::{self, Destination, LoadBatch, Loaded, TableName};

/// An open destination that takes the batches of one run.
pub(super) struct Loading {
    destination: Box<dyn Destination>,
    sync: String,
    table: TableName,
    shape: Shape,
    position: u64,
    synced_at: Timestamp,
}

/// What a run of a sync knows beside its document.
pub(super) struct Run {
    /// Where the rows go.
    pub(super) table: TableName,
    /// What the endpoint declares its bodies to be.
    pub(super) declared: Option<Format>,
    /// When it began.
    pub(super) synced_at: Timestamp,
}

/// What rows are made of.
#[derive(Debug, Clone, Copy)]
struct Shape {
    format: SyncFormat,
    declared: Option<Format>,
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
        run: Run,
    ) -> Result<Self, SyncError> {
        let Run { table, declared, synced_at } = run;
        let (id, shape) = (sync.id.clone(), Shape { format: sync.spec.format, declared });
        blocking(move || {
            let mut destination = destination::open(&folder, &spec)?;
            let position = destination.position(&id, &table)?;
            Ok(Self { destination, sync: id, table, shape, position, synced_at })
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
                let came = Came {
                    id: event.id,
                    received_at: event.received_at,
                    query: event.head.query.as_deref(),
                    headers: &event.head.headers,
                    body: &event.body,
                };
                shaped.add(&came, self.shape);
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
                let came = Came {
                    id: event.id,
                    received_at: event.received_at,
                    query: event.query.as_deref(),
                    headers: &event.headers,
                    body: &body,
                };
                shaped.add(&came, self.shape);
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

/// An event, from the log or from an object.
struct Came<'a> {
    id: EventId,
    received_at: Timestamp,
    query: Option<&'a str>,
    headers: &'a Headers,
    body: &'a [u8],
}

impl Shaped {
    fn add(&mut self, came: &Came<'_>, shape: Shape) {
        let Came { id, received_at, body, .. } = *came;
        let content = Content::of(came.headers);
        // What cannot be unpacked stays as it came, in base64.
        let unpacked = content.unpacked(body);
        let (content_type, body) = match &unpacked {
            Ok(unpacked) => (content.content_type(), &unpacked[..]),
            Err(_) => (None, body),
        };
        let shaped = match (came.query, shape) {
            // A request without a body carries its data in the query: an object of texts.
            (Some(query), _) if body.is_empty() && !query.is_empty() => {
                let fields = form::parse_query(query).to_string();
                rows(id, received_at, None, fields.as_bytes(), shape.format)
            }
            (_, Shape { format: SyncFormat::Unpacked, declared: Some(Format::Xml) }) => {
                xml_rows(id, received_at, content_type, body)
            }
            _ => rows(id, received_at, content_type, body, shape.format),
        };
        self.counts.events += 1;
        self.counts.unparsed += u64::from(shaped.unparsed.is_some());
        self.rows.extend(shaped.rows);
    }
}
