//! Loading: the events of a batch as rows in the destination, with its position.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use linkspan_model::destination::DestinationSpec;
use linkspan_model::endpoint::Format;
use linkspan_model::event::Content;
use linkspan_model::rows::{Rows, rows, xml_rows};
use linkspan_model::sync::SyncFormat;
use linkspan_model::{Timestamp, form};
use linkspan_store::{StoredEvent, SyncView};

use super::{SyncError, blocking};
use crate::bucket::ArchivedEvent;
use crate::destination::{self, Destination, LoadBatch, Position, TableName, Turn};

/// An open destination that takes the batches of one run.
pub(super) struct Loading {
    destination: Box<dyn Destination>,
    sync: String,
    table: TableName,
    shape: Shape,
    position: Position,
    synced_at: Timestamp,
}

/// The events of a batch.
pub(super) enum Events {
    /// As they stand in the log.
    Log(Vec<StoredEvent>),
    /// As they stand in an object of the bucket.
    Object(Vec<ArchivedEvent>),
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) events: u64,
    pub(super) rows: u64,
    pub(super) unparsed: u64,
    pub(super) left_out: u64,
    pub(super) left_out_keys: BTreeSet<String>,
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

    /// What the destination itself said when it was opened.
    pub(super) const fn position(&self) -> Position {
        self.position
    }

    /// Has the table filled again from the beginning.
    pub(super) async fn forget_position(mut self) -> Result<Self, SyncError> {
        blocking(move || {
            self.destination.forget_position(&self.sync, &self.table)?;
            self.position.seq = 0;
            Ok(self)
        })
        .await
    }

    /// Loads the events of a batch up to `last`.
    pub(super) async fn load(mut self, events: Events, last: u64, turn: Turn) -> Result<(Self, Came), SyncError> {
        blocking(move || {
            let shape = self.shape;
            let unparsed = Cell::new(0);
            // The rows of one event at a time: a body may have as many elements as it has bytes.
            let rows_of = |at: usize| {
                if at == 0 {
                    unparsed.set(0);
                }
                let rows = events.rows(at, shape)?;
                unparsed.set(unparsed.get() + u64::from(rows.unparsed.is_some()));
                Some(rows.rows)
            };
            let loaded = self.destination.load(&LoadBatch {
                sync: &self.sync,
                table: &self.table,
                last,
                turn,
                rows_of: &rows_of,
                synced_at: self.synced_at,
            })?;
            let came = Came {
                events: events.len() as u64,
                rows: loaded.rows,
                unparsed: unparsed.get(),
                left_out: loaded.left_out,
                left_out_keys: loaded.left_out_keys,
            };
            Ok((self, came))
        })
        .await
    }
}

impl Events {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Log(events) => events.len(),
            Self::Object(events) => events.len(),
        }
    }

    /// The rows of the event at this place; `None` after the last one.
    fn rows(&self, at: usize, shape: Shape) -> Option<Rows> {
        let body: Cow<'_, [u8]>;
        let (id, received_at, query, headers) = match self {
            Self::Log(events) => {
                let StoredEvent { event, .. } = events.get(at)?;
                body = Cow::Borrowed(&event.body);
                (event.id, event.received_at, event.head.query.as_deref(), &event.head.headers)
            }
            Self::Object(events) => {
                let event = events.get(at)?;
                body = event.bytes();
                (event.id, event.received_at, event.query.as_deref(), &event.headers)
            }
        };
        let content = Content::of(headers);
        // What cannot be unpacked stays as it came, in base64.
        let unpacked = content.unpacked(&body);
        let (content_type, body) = match &unpacked {
            Ok(unpacked) => (content.content_type(), &unpacked[..]),
            Err(_) => (None, &body[..]),
        };
        Some(match (query, shape) {
            // A request without a body carries its data in the query: an object of texts.
            (Some(query), _) if body.is_empty() && !query.is_empty() => {
                let fields = form::parse_query(query).to_string();
                rows(id, received_at, None, fields.as_bytes(), shape.format)
            }
            (_, Shape { format: SyncFormat::Unpacked, declared: Some(Format::Xml) }) => {
                xml_rows(id, received_at, content_type, body)
            }
            _ => rows(id, received_at, content_type, body, shape.format),
        })
    }
}
