//! Opening the store: pragmas set and read back, migrations, the writer and the readers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use linkspan_model::secret::SecretSpec;
use linkspan_model::{Clock, SecretBytes};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};
use tokio::sync::watch;

use crate::clock::{ClockWatch, Jump};
use crate::disk::DiskGuard;
use crate::error::{Result, StoreError};
use crate::files::{Files, LostStretch, Mark};
use crate::read::{ENGINE_READERS, READERS, Readers};
use crate::seal::MasterKey;
use crate::signal::{Listener, Signal};
use crate::snapshot::Snapshot;
use crate::spool::Spool;
use crate::work::{StatementWatch, watch_statements};
use crate::writer::Writer;

mod embedded {
    refinery::embed_migrations!("src/sql/sqlite");
}

/// The oldest SQLite whose write-ahead log is safe for us (a WAL-reset fault was repaired in 3.51.3).
const SQLITE_MIN: i32 = 3_051_003;

/// Size that the file of the write-ahead log keeps when the log begins anew: 32 MiB, twice what is folded at once.
const LOG_BYTES: i64 = 32 << 20;
/// How long the writer waits for a process that holds the database. Longer, and whoever is served by the same thread
/// would wait with it.
const BUSY: std::time::Duration = std::time::Duration::from_millis(200);

/// How often a change is planned when others change the configuration meanwhile.
const PLANS_MAX: usize = 10;

/// Where secret values that stand outside the database come from: environment and files, which only the
/// executable may read. `Ok(None)` when the document names neither.
pub trait SecretSource: Send + Sync {
    /// The value that a secret document points at.
    ///
    /// # Errors
    /// A sentence that names the variable or file and what is wrong with it.
    fn value(&self, spec: &SecretSpec) -> std::result::Result<Option<SecretBytes>, String>;
}

/// How hard a commit is pushed to the disk. Anything but `Full` breaks the promise of a 2xx and exists only
/// so that the crash check can prove that it would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Synced at every commit.
    Full,
    /// Synced at checkpoints.
    Normal,
    /// Never synced.
    Off,
}

impl Durability {
    const fn pragma(self) -> i64 {
        match self {
            Self::Off => 0,
            Self::Normal => 1,
            Self::Full => 2,
        }
    }
}

/// What a store is opened with.
pub struct Settings {
    /// The database file.
    pub database: PathBuf,
    /// The folder of large bodies.
    pub spool: PathBuf,
    /// The key that secrets are sealed under.
    pub key: MasterKey,
    /// Where other secret values come from.
    pub secrets: Arc<dyn SecretSource>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// How hard a commit is pushed to the disk.
    pub durability: Durability,
    /// Free bytes on the disk below which events are refused.
    pub disk_min_free: u64,
    /// Is told how much work every statement does; for tests.
    pub statements: Option<StatementWatch>,
}

/// Everything that is remembered.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    // Before the writer: the connection that closes last folds the log into the database, and only the writer's may.
    readers: Readers,
    engine_readers: Readers,
    writer: Writer,
    spool: Spool,
    database: PathBuf,
    key: MasterKey,
    secrets: Arc<dyn SecretSource>,
    clock: Arc<dyn Clock>,
    snapshot: ArcSwap<Snapshot>,
    /// Held while the configuration changes: whoever plans then plans on what is there.
    configuring: tokio::sync::Mutex<()>,
    reloading: tokio::sync::Mutex<()>,
    changed: watch::Sender<u64>,
    dispatched: Signal,
    jobs: Signal,
    sync_requests: Signal,
    sync_ends: Signal,
    token_calls: Signal,
    disk: DiskGuard,
    files: Files,
    mark: Mark,
    clock_watch: ClockWatch,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("database", &self.0.database).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store, bringing its schema up to date. Blocks on the disk.
    ///
    /// # Errors
    /// `Unusable` when the database, its settings or the key are not what they must be.
    pub fn open(settings: Settings) -> Result<Self> {
        let Settings { database, spool, key, secrets, clock, durability, disk_min_free, statements } = settings;
        if rusqlite::version_number() < SQLITE_MIN {
            return Err(StoreError::Unusable(format!(
                "SQLite {} is too old; at least 3.51.3 is needed",
                rusqlite::version()
            )));
        }
        let disk = DiskGuard::open(&database, disk_min_free)?;
        let mut db = Connection::open(&database)?;
        watch_statements(&mut db, true, statements.as_ref())?;
        configure_writer(&db, durability)?;
        embedded::migrations::runner().run(&mut db).map_err(|error| {
            StoreError::Unusable(format!("the database's schema cannot be brought up to date: {error}"))
        })?;
        check_key(&db, &key)?;
        let spool = Spool::open(spool)?;
        spool.sweep(|name| {
            let mut known = db.prepare_cached("SELECT 1 FROM spool WHERE name = ?1")?;
            Ok(known.exists([name])?)
        })?;
        // Whoever held leases is gone: the folder's lock is ours.
        db.execute("UPDATE jobs SET status = 'queued', lease_until = NULL WHERE status = 'running'", [])?;
        // And whoever asked for a token is gone too: what was sent is unknown, and the next one may ask at once.
        db.execute(
            "UPDATE oauth_tokens SET lease_until = min(lease_until, ?1) WHERE lease_until IS NOT NULL",
            [clock.now().as_micros()],
        )?;
        let last_seq = last_seq(&db)?;
        let snapshot = Snapshot::load(&db, &key, secrets.as_ref(), &Snapshot::default())?;
        let revision = snapshot.revision;
        let readers = Readers::open(READERS, || open_reader(&database, statements.as_ref()))?;
        let engine_readers = Readers::open(ENGINE_READERS, || open_reader(&database, statements.as_ref()))?;
        let beside = Connection::open(&database)?;
        configure_writer(&beside, durability)?;
        let folder = database.parent().unwrap_or(Path::new(".")).to_owned();
        let files = Files::look(&database, &folder)?;
        let mark = Mark::open(&folder, last_seq)?;
        let (clock_watch, jump) = ClockWatch::new(mark.time(), clock.now(), std::time::Instant::now());
        if let Jump::Back(by) = jump {
            tracing::warn!(seconds = by.as_secs(), "the clock was set back; what is due comes nearer by as much");
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            db.execute(
                "UPDATE jobs SET run_at = run_at - ?1 WHERE status IN ('queued', 'waiting') AND run_at > ?2",
                params![by, clock.now().as_micros()],
            )?;
        }
        tell_of_doubt(jump);
        if let Some(lost) = mark.lost() {
            tracing::error!(
                first = lost.first,
                last = lost.last,
                "acknowledged events are missing at the end of the log: its file was damaged or an older one put in its place"
            );
        }
        // What was given once is never given again, also where it was lost.
        let last_seq = last_seq.max(mark.position());
        for db in [&db, &beside] {
            db.busy_timeout(BUSY)?;
        }
        let writer = Writer::start(db, beside, last_seq)?;
        Ok(Self(Arc::new(Inner {
            readers,
            engine_readers,
            writer,
            spool,
            database,
            key,
            secrets,
            clock,
            snapshot: ArcSwap::from_pointee(snapshot),
            configuring: tokio::sync::Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(revision),
            dispatched: Signal::default(),
            jobs: Signal::default(),
            sync_requests: Signal::default(),
            sync_ends: Signal::default(),
            token_calls: Signal::default(),
            disk,
            files,
            mark,
            clock_watch,
        })))
    }

    /// What is configured, as of the last change: immutable, and free of queries.
    #[must_use]
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.0.snapshot.load()
    }

    /// The key that the loop guard's marks are written and checked with.
    #[must_use]
    pub fn hops_key(&self) -> &linkspan_model::hops::HopsKey {
        self.0.key.hops()
    }

    /// Tells of every change of the configuration.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Resolves when a write to the disk has failed and the process must start again from the log.
    pub async fn stopped(&self) {
        let mut stopped = self.0.writer.shared.stopped.listen();
        while !self.0.writer.is_poisoned() {
            stopped.wait(std::time::Duration::from_secs(1)).await;
        }
    }

    /// Reads the configuration again, after secrets outside the database may have changed.
    ///
    /// # Errors
    /// When the database cannot be read or a secret does not open.
    pub async fn reload(&self) -> Result<()> {
        // One at a time: of two that overlap, the one that read first could otherwise be stored last.
        let _turn = self.0.reloading.lock().await;
        let store = self.clone();
        let load = move |db: &Connection| {
            let earlier = store.snapshot();
            Snapshot::load(db, &store.0.key, store.0.secrets.as_ref(), &earlier)
        };
        let snapshot = self.read_for_engine(load).await?;
        let revision = snapshot.revision;
        self.0.snapshot.store(Arc::new(snapshot));
        self.0.changed.send_replace(revision);
        Ok(())
    }

    /// Looks whether the files are still those that were opened, and notes how far the log has come. Where somebody has
    /// moved or removed one, what is written goes nowhere: the store stops.
    ///
    /// # Errors
    /// `Unusable`, naming the file.
    pub async fn look_after_files(&self) -> Result<()> {
        let store = self.clone();
        crate::event::blocking(move || {
            if let Err(error) = store.0.files.check() {
                store.0.writer.shared.poison();
                return Err(error);
            }
            // On a full disk the mark stays where it was; it says less then.
            match store.0.mark.note(store.last_seq(), store.now()) {
                Err(StoreError::DiskFull) => Ok(()),
                noted => noted,
            }
        })
        .await
    }

    /// Looks whether the clock has jumped. Where it was set back, what is due comes nearer by as much; where it went
    /// ahead, [`Self::clock_doubt`] says so for a day.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn look_at_clock(&self) -> Result<()> {
        let jump = self.0.clock_watch.look(self.now(), std::time::Instant::now());
        tell_of_doubt(jump);
        if let Jump::Back(by) = jump {
            tracing::warn!(seconds = by.as_secs(), "the clock was set back; what is due comes nearer by as much");
            self.bring_forward(by).await?;
        }
        Ok(())
    }

    /// By how much the clock went ahead at once, until a day has passed since or somebody has confirmed it. Nothing
    /// should expire meanwhile.
    #[must_use]
    pub fn clock_doubt(&self) -> Option<std::time::Duration> {
        self.0.clock_watch.doubt(std::time::Instant::now())
    }

    /// Somebody says that the clock is right.
    pub fn confirm_clock(&self) {
        self.0.clock_watch.confirm();
    }

    /// The acknowledged events that were found missing at the end of the log when it was opened.
    #[must_use]
    pub fn lost_events(&self) -> Option<LostStretch> {
        self.0.mark.lost()
    }

    /// Whether the database is whole, as far as its structure shows; what is not is said. Reads all of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn check_integrity(&self) -> Result<Vec<String>> {
        let database = self.0.database.clone();
        crate::event::blocking(move || {
            // On a connection of its own: the others must not wait for minutes.
            let db = open_reader(&database, None)?;
            let mut check = db.prepare("PRAGMA quick_check(20)")?;
            let mut faults = Vec::new();
            for found in check.query_map([], |row| row.get::<_, String>(0))? {
                match found {
                    Ok(found) => faults.extend((found != "ok").then_some(found)),
                    // It goes no further than this.
                    Err(error) => {
                        faults.push(error.to_string());
                        break;
                    }
                }
            }
            Ok(faults)
        })
        .await
    }

    /// Operations that wait for the writer, and their bytes.
    #[must_use]
    pub fn queue_depth(&self) -> (usize, usize) {
        self.0.writer.depth()
    }

    /// Commits, events committed, and microseconds spent in commits since the start.
    #[must_use]
    pub fn commit_counts(&self) -> (u64, u64, u64) {
        let shared = &self.0.writer.shared;
        (
            shared.commits.load(Ordering::Relaxed),
            shared.committed_events.load(Ordering::Relaxed),
            shared.commit_micros.load(Ordering::Relaxed),
        )
    }

    /// Whether commits hardly wait for the disk, so that those who serve requests make them.
    #[must_use]
    pub fn is_swift(&self) -> bool {
        self.0.writer.shared.commits_at_seats()
    }

    /// Proves that a change can be made durable: a commit of one row.
    ///
    /// # Errors
    /// Whatever stands in the way.
    pub async fn heartbeat(&self) -> Result<()> {
        let now = self.now();
        self.write(move |db| {
            db.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES ('heartbeat', ?1)")?
                .execute([now.as_micros()])?;
            Ok(())
        })
        .await
    }

    /// Commits on the thread that runs this, in place of the writer's, as long as commits hardly wait for the disk:
    /// handing each of them over and back would cost more than it does. For threads that have a runtime of their own
    /// and serve requests with it, as many as there are processors; what they append is told apart by the thread.
    /// Ends when the store has failed or there are enough. When one of them is dropped, the writer's thread commits for
    /// all of them from then on: the server is about to stop.
    pub async fn commit_here(&self) {
        self.0.writer.commit_here().await;
    }

    /// Size of the write-ahead log in bytes.
    #[must_use]
    pub fn wal_bytes(&self) -> u64 {
        let mut path = self.0.database.clone().into_os_string();
        path.push("-wal");
        std::fs::metadata(path).map_or(0, |meta| meta.len())
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.0.writer
    }

    pub(crate) fn spool_folder(&self) -> &Spool {
        &self.0.spool
    }

    pub(crate) fn key(&self) -> &MasterKey {
        &self.0.key
    }

    pub(crate) fn disk(&self) -> &DiskGuard {
        &self.0.disk
    }

    pub(crate) fn database(&self) -> &Path {
        &self.0.database
    }

    /// Hears of events that were appended.
    #[must_use]
    pub fn appends(&self) -> Listener {
        self.0.writer.shared.events.listen()
    }

    /// Hears of events that dispatch has passed, so that they are found by their endpoint.
    #[must_use]
    pub fn dispatches(&self) -> Listener {
        self.0.dispatched.listen()
    }

    /// Hears of jobs that may be due.
    #[must_use]
    pub fn job_arrivals(&self) -> Listener {
        self.0.jobs.listen()
    }

    /// Hears of runs of syncs that were asked for.
    #[must_use]
    pub fn sync_requests(&self) -> Listener {
        self.0.sync_requests.listen()
    }

    /// Hears of runs of syncs that have ended.
    #[must_use]
    pub fn sync_ends(&self) -> Listener {
        self.0.sync_ends.listen()
    }

    /// Hears of requests for tokens that have ended.
    #[must_use]
    pub fn token_calls(&self) -> Listener {
        self.0.token_calls.listen()
    }

    pub(crate) fn tell_token_call(&self) {
        self.0.token_calls.give();
    }

    pub(crate) fn tell_dispatched(&self) {
        self.0.dispatched.give();
    }

    pub(crate) fn tell_jobs(&self) {
        self.0.jobs.give();
    }

    pub(crate) fn tell_sync_request(&self) {
        self.0.sync_requests.give();
    }

    pub(crate) fn tell_sync_end(&self) {
        self.0.sync_ends.give();
    }

    pub(crate) fn now(&self) -> linkspan_model::Timestamp {
        self.0.clock.now()
    }

    /// Runs a whole operation in the writer's batch.
    pub(crate) async fn write<T, F>(&self, run: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        self.0.writer.run(run).await
    }

    /// Changes the configuration: `plan` finds out beside the writer what there is to do, `perform` does it there,
    /// unless the configuration is another by then, and it is read again. A caller that goes away in between does not
    /// keep the change from the data plane.
    pub(crate) async fn reconfigure<P, T, F, G>(&self, plan: F, perform: G) -> Result<T>
    where
        P: Send + 'static,
        T: Send + 'static,
        F: Fn(&Connection, &Snapshot) -> Result<P> + Send + Sync + 'static,
        G: Fn(&Connection, P) -> Result<T> + Send + Sync + 'static,
    {
        let store = self.clone();
        let (plan, perform) = (Arc::new(plan), Arc::new(perform));
        let change = async move {
            let _turn = store.0.configuring.lock().await;
            for _ in 0..PLANS_MAX {
                let (snapshot, plan, perform) =
                    (Arc::clone(&store.snapshot()), Arc::clone(&plan), Arc::clone(&perform));
                let revision = snapshot.revision;
                let planned = store.read_for_engine(move |db| plan(db, &snapshot)).await?;
                let done = store.write(move |db| {
                    if current_revision(db)? != revision {
                        return Ok(None);
                    }
                    let done = perform(db, planned)?;
                    bump_revision(db)?;
                    Ok(Some(done))
                });
                let done = done.await?;
                store.reload().await?;
                if let Some(done) = done {
                    return Ok(done);
                }
            }
            Err(StoreError::Conflict("the configuration changes all the time; try again".to_owned()))
        };
        #[expect(clippy::disallowed_methods, reason = "short, and must go on when its caller goes away")]
        let change = tokio::spawn(change);
        change.await.unwrap_or_else(|error| Err(StoreError::Database(format!("a change ended early: {error}"))))
    }

    /// Runs a read beside the writer.
    pub(crate) async fn read<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let permit = self.0.readers.permit().await?;
        let store = self.clone();
        crate::event::blocking(move || store.0.readers.with(permit, read)).await
    }

    /// The same for what works later, which must not wait behind those who look.
    pub(crate) async fn read_for_engine<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let permit = self.0.engine_readers.permit().await?;
        let store = self.clone();
        crate::event::blocking(move || store.0.engine_readers.with(permit, read)).await
    }
}

fn tell_of_doubt(jump: Jump) {
    if let Jump::Ahead(by) = jump {
        tracing::error!(
            hours = by.as_secs() / 3_600,
            "the clock is further than it was expected to be; nothing expires until it has run for a day, or \
             `linkspan check --confirm-clock` says that it is right"
        );
    }
}

/// Counts the changes of the configuration.
pub(crate) fn current_revision(db: &Connection) -> Result<u64> {
    let revision: i64 = db
        .prepare_cached("SELECT ifnull((SELECT value FROM meta WHERE key = 'revision'), 0)")?
        .query_row([], |row| row.get(0))?;
    Ok(revision.cast_unsigned())
}

fn bump_revision(db: &Connection) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO meta (key, value) VALUES ('revision', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1",
    )?
    .execute([])?;
    Ok(())
}

fn configure_writer(db: &Connection, durability: Durability) -> Result<()> {
    keep_plans(db)?;
    // Measured: 8 KiB pages cost a quarter less CPU per row than 4 KiB. Takes effect on a new file only.
    db.pragma_update(None, "page_size", 8192)?;
    // Not even incrementally: the map that it needs is one more page in most commits, measured as a tenth of the CPU
    // of an event. Pages that expiry frees are written again.
    db.pragma_update(None, "auto_vacuum", "NONE")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", durability.pragma())?;
    // A reader that holds the log open lets it grow; once it can begin anew, it is given back.
    db.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    db.pragma_update(None, "cache_size", -16_384)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    // On platforms where fsync does not reach the platter unless asked.
    db.pragma_update(None, "fullfsync", true)?;
    db.pragma_update(None, "checkpoint_fullfsync", true)?;
    db.pragma_update(None, "trusted_schema", false)?;
    db.set_prepared_statement_cache_capacity(64);
    must_read_back(db, "journal_mode", "wal")?;
    must_read_back(db, "synchronous", &durability.pragma().to_string())
}

/// Lets a statement keep its plan whatever is bound to it. Otherwise most of those in the cache are compiled again
/// at every use: a new value might suit another plan, and values are cleared in between.
fn keep_plans(db: &Connection) -> Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// What a pragma was set to is not always what it is.
fn must_read_back(db: &Connection, pragma: &str, wanted: &str) -> Result<()> {
    let found: String = db.pragma_query_value(None, pragma, |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        })
    })?;
    if found == wanted {
        Ok(())
    } else {
        Err(StoreError::Unusable(format!(
            "the database's {pragma} is {found} and cannot be set to {wanted}; is it on a network file system?"
        )))
    }
}

fn open_reader(database: &Path, watch: Option<&StatementWatch>) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(database, flags)?;
    watch_statements(&mut db, false, watch)?;
    keep_plans(&db)?;
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "cache_size", -1_024)?;
    db.pragma_update(None, "query_only", true)?;
    Ok(db)
}

/// The highest position ever given, also when its event has expired since.
pub(crate) fn last_seq(db: &Connection) -> Result<u64> {
    let seq: i64 = db.query_row(
        "SELECT max(ifnull((SELECT max(seq) FROM events), 0), ifnull((SELECT max(seq) FROM positions WHERE consumer <> 'jobs'), 0))",
        [],
        |row| row.get(0),
    )?;
    Ok(seq.cast_unsigned())
}

/// A wrong key must be found at the start, not when the first secret is needed.
fn check_key(db: &Connection, key: &MasterKey) -> Result<()> {
    use rusqlite::OptionalExtension as _;
    const PLACE: &str = "meta/key";
    let sealed: Option<Vec<u8>> =
        db.query_row("SELECT value FROM meta WHERE key = 'key'", [], |row| row.get(0)).optional()?;
    match sealed {
        Some(sealed) => key.open(PLACE, &sealed).map(drop).map_err(|_| {
            StoreError::Unusable("the database was made with another master key; start with that key".to_owned())
        }),
        None => {
            let sealed = key.seal(PLACE, &SecretBytes::new("linkspan"))?;
            db.execute("INSERT INTO meta (key, value) VALUES ('key', ?1)", params![sealed])?;
            Ok(())
        }
    }
}
