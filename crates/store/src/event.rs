//! The log of events: appended by ingest, read by position.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use linkspan_model::event::{Event, EventHead};
use linkspan_model::id::EventId;
use linkspan_model::{Name, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sha2::{Digest as _, Sha256};

use crate::Store;
use crate::error::{Result, StoreError};
use crate::spool::{Spool, SpoolFile};

/// An accepted request on its way into the log.
#[derive(Debug)]
pub struct NewEvent {
    /// The endpoint's row.
    pub endpoint: i64,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// Twelve bits that make ids of one microsecond and position differ between histories.
    pub salt: u16,
    /// The `EventHead` as JSON.
    pub head: Vec<u8>,
    /// The body; what stands in a spool file is not written again.
    pub body: Bytes,
    /// The spool file of a large body.
    pub spool: Option<SpoolFile>,
    /// The sender's id of the event.
    pub dedupe: Option<DedupeKey>,
}

impl NewEvent {
    pub(crate) fn size(&self) -> usize {
        self.head.len() + if self.spool.is_some() { 0 } else { self.body.len() } + 128
    }
}

/// The sender's id of an event, hashed so that the table stays narrow.
#[derive(Debug)]
pub struct DedupeKey {
    pub(crate) key: [u8; 16],
    pub(crate) expires_at: Timestamp,
}

impl DedupeKey {
    /// The id `value`, remembered until `expires_at`.
    #[must_use]
    pub fn new(value: &[u8], expires_at: Timestamp) -> Self {
        let hash: [u8; 32] = Sha256::digest(value).into();
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Self { key, expires_at }
    }
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The event's id; of a duplicate the id of the first.
    pub id: EventId,
    /// Whether the sender's id was seen before, and nothing was stored.
    pub duplicate: bool,
}

/// A stretch of the log whose events all belong to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRun {
    /// The endpoint's row.
    pub endpoint: i64,
    /// Position of its first event.
    pub first: u64,
    /// Position of its last event.
    pub last: u64,
}

impl LogRun {
    /// The runs of events given as endpoint and position, in the order of the log.
    #[must_use]
    pub fn of(events: impl IntoIterator<Item = (i64, u64)>) -> Vec<Self> {
        let mut runs = Vec::new();
        events.into_iter().for_each(|(endpoint, seq)| Self::extend(&mut runs, endpoint, seq));
        runs
    }

    /// Adds an event to the last of `runs`, or begins another one.
    pub(crate) fn extend(runs: &mut Vec<Self>, endpoint: i64, seq: u64) {
        match runs.last_mut() {
            Some(run) if run.endpoint == endpoint && run.last + 1 == seq => run.last = seq,
            _ => runs.push(Self { endpoint, first: seq, last: seq }),
        }
    }
}

/// The end of the log in memory, so that whoever follows it closely needs not read it.
#[derive(Debug, Default)]
pub(crate) struct LogTail(Mutex<VecDeque<LogRun>>);

/// Most runs that the tail keeps.
const TAIL_RUNS: usize = 4_096;

impl LogTail {
    /// Adds what a commit has appended.
    pub(crate) fn push(&self, runs: impl IntoIterator<Item = LogRun>) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(runs);
        let surplus = tail.len().saturating_sub(TAIL_RUNS);
        tail.drain(..surplus);
    }

    /// At most `limit` events after position `after`; nothing when the tail begins later.
    fn after(&self, after: u64, limit: u64) -> Option<Vec<LogRun>> {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.front()?.first > after + 1 {
            return None;
        }
        let mut left = limit;
        let mut found = Vec::new();
        for run in tail.range(tail.partition_point(|run| run.last <= after)..) {
            let first = run.first.max(after + 1);
            let last = run.last.min(first.saturating_add(left).saturating_sub(1));
            if last < first {
                break;
            }
            left -= last - first + 1;
            found.push(LogRun { endpoint: run.endpoint, first, last });
        }
        Some(found)
    }
}

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only of this endpoint.
    pub endpoint: Option<Name>,
    /// Only older than this event: newest first.
    pub before: Option<u64>,
    /// Only newer than this event: oldest first. Takes the place of `before`.
    pub after: Option<u64>,
    /// Most events.
    pub limit: u32,
}

/// Most bytes of bodies that one read by position gives: 8 MiB, and always at least one event.
const READ_BYTES: usize = 8 << 20;

const COLUMNS: &str = "e.seq, e.received_at, e.salt, e.spool, e.head, e.body, r.name";
const FROM: &str = "FROM events e JOIN resources r ON r.id = e.endpoint";

impl Store {
    /// Whether an event would be taken now: asked before any work is done for it.
    ///
    /// # Errors
    /// `DiskFull`, `Overloaded` or `Poisoned`, as an append would give.
    pub fn admits(&self) -> Result<()> {
        self.refuse_when_full()?;
        self.writer().admits()
    }

    /// Appends an event; resolves after it is durable. `patience` ends the wait for the writer, not that for the
    /// disk; a timer that is set again and again costs much less than one for each event.
    ///
    /// # Errors
    /// `Overloaded`, `Deadline` and `DiskFull` mean that nothing was stored and the sender should try again.
    pub async fn append(&self, event: NewEvent, patience: Pin<&mut tokio::time::Sleep>) -> Result<Appended> {
        self.refuse_when_full()?;
        self.writer().append(event, patience).await
    }

    /// Writes a large body durably, ahead of the event that will name it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn spool(&self, body: Bytes) -> Result<SpoolFile> {
        self.refuse_when_full()?;
        self.spool_result(body).await
    }

    /// The same for the result of a step, which uses the room that is kept back: its request is out already.
    pub(crate) async fn spool_result(&self, body: Bytes) -> Result<SpoolFile> {
        let spool = self.spool_folder().clone();
        blocking(move || spool.write(&body)).await
    }

    /// The highest position in the log.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.writer().shared.last_seq.load(std::sync::atomic::Ordering::Acquire)
    }

    /// The positions after `after`, oldest first, and whose events stand there, `limit` events at most: what is
    /// needed to pass over events that nobody waits for.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn log_after(&self, after: u64, limit: u32) -> Result<Vec<LogRun>> {
        if let Some(runs) = self.writer().shared.tail.after(after, u64::from(limit)) {
            return Ok(runs);
        }
        self.read_for_engine(move |db| {
            let mut statement =
                db.prepare_cached("SELECT seq, endpoint FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let mut rows = statement.query(params![after.cast_signed(), limit])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                LogRun::extend(&mut found, row.get(1)?, row.get::<_, i64>(0)?.cast_unsigned());
            }
            Ok(found)
        })
        .await
    }

    /// The events at these positions, in their order; fewer when there is much of them. Bodies that stand in files are
    /// not read: whoever goes along the log must not wait for them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events_at(&self, positions: Vec<u64>) -> Result<Vec<LoggedEvent>> {
        self.read_for_engine(move |db| {
            let sql = format!("SELECT {COLUMNS}, e.endpoint {FROM} WHERE e.seq = ?1");
            let mut statement = db.prepare_cached(&sql)?;
            let mut events = Vec::new();
            let mut bytes = 0;
            for position in positions {
                let found = statement.query_row([position.cast_signed()], |row| Ok(logged_event(row))).optional()?;
                let Some(event) = found.transpose()? else { continue };
                bytes += event.stored.event.body.len();
                events.push(event);
                if bytes >= READ_BYTES {
                    break;
                }
            }
            Ok(events)
        })
        .await
    }

    /// The events after position `after`, oldest first; fewer than `limit` when their bodies are large.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn events_after(&self, after: u64, limit: u32) -> Result<Vec<StoredEvent>> {
        let spool = self.spool_folder().clone();
        self.read_for_engine(move |db| {
            let sql = format!("SELECT {COLUMNS}, e.endpoint {FROM} WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?2");
            let mut statement = db.prepare_cached(&sql)?;
            let mut rows = statement.query(params![after.cast_signed(), limit])?;
            bounded(&mut rows, &spool)
        })
        .await
    }

    /// The events of one endpoint after position `after`, as far as dispatch has come, oldest first; fewer than `limit`
    /// when they are large, and those before the first whose body is lost.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn endpoint_events_after(
        &self,
        endpoint: i64,
        after: u64,
        up_to: u64,
        limit: u32,
    ) -> Result<EndpointEvents> {
        let spool = self.spool_folder().clone();
        self.read_for_engine(move |db| {
            let sql = format!(
                "SELECT {COLUMNS}, e.endpoint FROM event_runs i JOIN events e ON e.seq BETWEEN i.first AND i.last
                 JOIN resources r ON r.id = e.endpoint
                 WHERE i.endpoint = ?1 AND i.last > ?2 AND i.first <= ?3 AND e.seq > ?2 AND e.seq <= ?3
                 ORDER BY i.last, e.seq LIMIT ?4"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let mut rows = statement.query(params![
                endpoint,
                after.cast_signed(),
                up_to.min(i64::MAX as u64).cast_signed(),
                limit
            ])?;
            let mut found = EndpointEvents::default();
            let mut bytes = 0;
            while bytes < READ_BYTES
                && let Some(row) = rows.next()?
            {
                match stored(row, &spool) {
                    Ok((event, size)) => {
                        bytes += size;
                        found.events.push(event);
                    }
                    Err(StoreError::Unusable(reason)) => {
                        found.lost = Some((row.get::<_, i64>(0)?.cast_unsigned(), reason));
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(found)
        })
        .await
    }

    /// One event.
    ///
    /// # Errors
    /// `NotFound` when there is none with this id (any more), `Unusable` when its body is lost.
    pub async fn event(&self, id: EventId) -> Result<Event> {
        let spool = self.spool_folder().clone();
        let found = self.read_for_engine(move |db| event_by_id(db, id, &spool)).await?;
        found.whole().map_err(|lost| StoreError::Unusable(lost.reason))
    }

    /// One event, also when its body is lost.
    ///
    /// # Errors
    /// `NotFound` when there is none with this id (any more).
    pub async fn shown_event(&self, id: EventId) -> Result<ShownEvent> {
        let spool = self.spool_folder().clone();
        self.read(move |db| event_by_id(db, id, &spool)).await
    }

    /// A page of events. One whose body is lost is among them: it must not hide the others.
    ///
    /// # Errors
    /// `NotFound` when there is no such endpoint.
    pub async fn events(&self, filter: EventFilter) -> Result<Vec<ShownEvent>> {
        let spool = self.spool_folder().clone();
        self.read(move |db| list(db, &filter, &spool)).await
    }
}

/// An event to be looked at: what is left of one whose body is lost is shown too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownEvent {
    /// Its id, which holds its position in the log.
    pub id: EventId,
    /// The endpoint that accepted it.
    pub endpoint: Name,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// Method, headers and the rest of the head.
    pub head: EventHead,
    /// The body, byte for byte, or why it cannot be read any more.
    pub body: std::result::Result<Bytes, LostBody>,
}

impl ShownEvent {
    /// The event with its body.
    ///
    /// # Errors
    /// When the body is lost.
    pub fn whole(self) -> std::result::Result<Event, LostBody> {
        let Self { id, endpoint, received_at, head, body } = self;
        Ok(Event { id, endpoint, received_at, head, body: body? })
    }
}

/// A body that cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostBody {
    /// Its size in bytes.
    pub size: u64,
    /// Why it cannot be read.
    pub reason: String,
}

/// An event as dispatch meets it.
#[derive(Debug, Clone)]
pub struct LoggedEvent {
    /// The event; without its body when that stands in a file.
    pub stored: StoredEvent,
    /// Whether its body stands in a file.
    pub is_large: bool,
}

fn logged_event(row: &Row<'_>) -> Result<LoggedEvent> {
    let (id, received_at) = id_of(row)?;
    let is_large = row.get::<_, Option<String>>(3)?.is_some();
    let body = row.get::<_, Option<Vec<u8>>>(5)?.unwrap_or_default().into();
    let event = Event { id, endpoint: endpoint_of(row)?, received_at, head: head_of(row)?, body };
    Ok(LoggedEvent { stored: StoredEvent { seq: id.seq(), endpoint: row.get(7)?, event }, is_large })
}

/// An event with its place in the log.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its position.
    pub seq: u64,
    /// The endpoint's row.
    pub endpoint: i64,
    /// The event.
    pub event: Event,
}

/// Events of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct EndpointEvents {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// The position of the event that follows, and why its body cannot be read, when that ended the reading.
    pub lost: Option<(u64, String)>,
}

/// An event with its place in the log, and its bytes: those of its head too, which are the sender's choice as well.
fn stored(row: &Row<'_>, spool: &Spool) -> Result<(StoredEvent, usize)> {
    let event = event_of(row, spool)?;
    let head = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?.len();
    let size = event.body.len() + head;
    Ok((StoredEvent { seq: event.id.seq(), endpoint: row.get(7)?, event }, size))
}

fn bounded(rows: &mut rusqlite::Rows<'_>, spool: &Spool) -> Result<Vec<StoredEvent>> {
    let mut events = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let (event, size) = stored(row, spool)?;
        bytes += size;
        events.push(event);
        if bytes >= READ_BYTES {
            break;
        }
    }
    Ok(events)
}

fn list(db: &Connection, filter: &EventFilter, spool: &Spool) -> Result<Vec<ShownEvent>> {
    // Only what dispatch has put into the index is found by endpoint; without one the log itself is read.
    let source = match &filter.endpoint {
        Some(_) => {
            "FROM event_runs i JOIN events e ON e.seq BETWEEN i.first AND i.last JOIN resources r ON r.id = e.endpoint"
        }
        None => FROM,
    };
    let endpoint = match &filter.endpoint {
        Some(name) => crate::resource::row_of(db, linkspan_model::Kind::Endpoint, name)?,
        None => 0,
    };
    let by = match (&filter.endpoint, filter.after) {
        (Some(_), Some(_)) => "i.endpoint = ?1 AND i.last > ?2 AND e.seq",
        // Up to the run that the bound lies in.
        (Some(_), None) => {
            "i.endpoint = ?1 AND i.last <= ifnull((SELECT min(last) FROM event_runs
                                                   WHERE endpoint = ?1 AND last >= ?2), 9223372036854775807) AND e.seq"
        }
        (None, _) => "?1 = 0 AND e.seq",
    };
    let (bound, direction, order) = match (filter.after, filter.before) {
        (Some(after), _) => (after, ">", "ASC"),
        (None, before) => (before.unwrap_or(i64::MAX as u64), "<", "DESC"),
    };
    let order_by = if filter.endpoint.is_some() { format!("i.last {order}, e.seq") } else { "e.seq".to_owned() };
    let sql = format!("SELECT {COLUMNS} {source} WHERE {by} {direction} ?2 ORDER BY {order_by} {order} LIMIT ?3");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params![endpoint, bound.min(i64::MAX as u64).cast_signed(), filter.limit])?;
    let mut events = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let event = shown_event(db, row, spool)?;
        bytes += event.body.as_ref().map_or(0, Bytes::len);
        events.push(event);
        if bytes >= READ_BYTES {
            break;
        }
    }
    Ok(events)
}

fn event_by_id(db: &Connection, id: EventId, spool: &Spool) -> Result<ShownEvent> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE e.seq = ?1");
    let found = db
        .prepare_cached(&sql)?
        .query_row([id.seq().cast_signed()], |row| Ok(shown_event(db, row, spool)))
        .optional()?
        .transpose()?;
    found.filter(|event| event.id == id).ok_or_else(|| StoreError::NotFound(format!("event {id}")))
}

fn event_of(row: &Row<'_>, spool: &Spool) -> Result<Event> {
    let (id, received_at) = id_of(row)?;
    Ok(Event { id, endpoint: endpoint_of(row)?, received_at, head: head_of(row)?, body: body_of(row, spool)? })
}

fn shown_event(db: &Connection, row: &Row<'_>, spool: &Spool) -> Result<ShownEvent> {
    let (id, received_at) = id_of(row)?;
    let body = match body_of(row, spool) {
        Ok(body) => Ok(body),
        Err(StoreError::Unusable(reason)) => {
            tracing::error!(event = %id, reason, "the body of an event is lost");
            let mut sizes = db.prepare_cached("SELECT size FROM spool WHERE name = ?1")?;
            let size: i64 = sizes.query_row([row.get::<_, String>(3)?], |row| row.get(0)).optional()?.unwrap_or(0);
            Err(LostBody { size: size.cast_unsigned(), reason })
        }
        Err(error) => return Err(error),
    };
    Ok(ShownEvent { id, endpoint: endpoint_of(row)?, received_at, head: head_of(row)?, body })
}

fn id_of(row: &Row<'_>) -> Result<(EventId, Timestamp)> {
    let seq: i64 = row.get(0)?;
    let received_at = Timestamp::from_micros(row.get(1)?);
    Ok((EventId::new(received_at, seq.cast_unsigned(), row.get(2)?), received_at))
}

fn endpoint_of(row: &Row<'_>) -> Result<Name> {
    let name: String = row.get(6)?;
    name.parse().map_err(|error| StoreError::Database(format!("{error}")))
}

fn head_of(row: &Row<'_>) -> Result<EventHead> {
    Ok(serde_json::from_slice(row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?)?)
}

/// The body; `Unusable` when its file cannot be read.
fn body_of(row: &Row<'_>, spool: &Spool) -> Result<Bytes> {
    let body = match row.get::<_, Option<String>>(3)? {
        Some(name) => spool.read(&name)?,
        None => row.get::<_, Option<Vec<u8>>>(5)?.unwrap_or_default(),
    };
    Ok(body.into())
}

/// Runs what blocks on the disk away from the threads that serve requests.
pub(crate) async fn blocking<T: Send + 'static>(run: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(run)
        .await
        .unwrap_or_else(|error| Err(StoreError::Database(format!("a read ended early: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_where_the_endpoint_or_the_position_jumps() {
        let run = |endpoint, first, last| LogRun { endpoint, first, last };
        assert_eq!(
            LogRun::of([(1, 1), (1, 2), (2, 3), (1, 4), (1, 6)]),
            [run(1, 1, 2), run(2, 3, 3), run(1, 4, 4), run(1, 6, 6)]
        );
    }

    #[test]
    fn the_tail_gives_what_follows_a_position_or_says_that_it_begins_later() {
        let run = |endpoint, first, last| LogRun { endpoint, first, last };
        let tail = LogTail::default();
        assert_eq!(tail.after(0, 10), None);
        tail.push([run(1, 5, 9), run(2, 10, 10), run(1, 11, 20)]);
        assert_eq!(tail.after(3, 10), None);
        assert_eq!(tail.after(4, 100), Some(vec![run(1, 5, 9), run(2, 10, 10), run(1, 11, 20)]));
        assert_eq!(tail.after(7, 4), Some(vec![run(1, 8, 9), run(2, 10, 10), run(1, 11, 11)]));
        assert_eq!(tail.after(20, 4), Some(vec![]));
        tail.push((0..TAIL_RUNS as u64).map(|n| run(3, 21 + n, 21 + n)));
        assert_eq!(tail.after(19, 4), None);
        assert_eq!(tail.after(20, 1), Some(vec![run(3, 21, 21)]));
    }
}
