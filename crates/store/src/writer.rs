//! The single writer: one queue, one transaction for whatever waits, answers after the commit.
//!
//! Who commits is whoever holds the [`Committer`]: a thread of the writer's own, or, as long as the disk is swift, the
//! threads that serve requests, by turns (`seat`).
//!
//! Guarantees: an operation's future resolves with success only after the transaction that holds it is
//! durable (WAL, synchronous=FULL); operations take effect in the order in which they were queued; an
//! operation that fails leaves no trace, and does not disturb the others of its batch. After the first
//! failed write nothing is acknowledged any more: what a failed fsync left in the page cache is unknown,
//! so the process must start again from the log. Nothing lingers: a lone operation commits at once, and
//! batches form by themselves while the disk is busy.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, TryLockError, mpsc};
use std::task::Poll;
use std::thread::{JoinHandle, Thread};

use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::checkpoint::Checkpoints;
use crate::commit::{Committer, Turn};
use crate::error::{Result, StoreError};
use crate::event::{Appended, LogTail, NewEvent};
use crate::seat::Seats;
use crate::signal::Signal;

/// Most operations that wait for the writer.
const QUEUE_MAX: usize = 8_192;
/// Most bytes of events that wait for the writer: 64 MiB.
const QUEUE_BYTES: usize = 64 << 20;
/// How often a seat lets others queue before it commits, at most.
const QUEUE_ROUNDS: usize = 4;
/// Operations that are worth a commit without waiting for more.
const QUEUE_ENOUGH: usize = 64;
const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// What the writer and its callers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) queued: AtomicUsize,
    pub(crate) queued_bytes: AtomicUsize,
    pub(crate) poisoned: AtomicBool,
    /// Commits hardly wait for the disk.
    pub(crate) is_swift: AtomicBool,
    pub(crate) last_seq: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) committed_events: AtomicU64,
    pub(crate) commit_micros: AtomicU64,
    pub(crate) tail: LogTail,
    pub(crate) events: Signal,
    pub(crate) stopped: Signal,
    pub(crate) seats: Seats,
    thread: OnceLock<Thread>,
}

/// The handle through which operations reach the writer.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Work>>,
    pub(crate) shared: Arc<Shared>,
    committer: Arc<Mutex<Committer>>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) enum Work {
    Append(Append),
    Run(Box<dyn Operation>),
}

pub(crate) struct Append {
    pub(crate) event: NewEvent,
    /// The seat where it was queued, and its answer is waited for.
    pub(crate) seat: Option<usize>,
    taken: Arc<AtomicU8>,
    pub(crate) reply: oneshot::Sender<Result<Appended>>,
}

/// An operation other than an append: runs inside a savepoint of the batch's transaction.
pub(crate) trait Operation: Send {
    fn run(&mut self, db: &Connection) -> Result<()>;
    fn finish(self: Box<Self>, commit: Result<()>);
}

struct Closure<F, T> {
    run: Option<F>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Operation for Closure<F, T>
where
    F: FnOnce(&Connection) -> Result<T> + Send,
    T: Send,
{
    fn run(&mut self, db: &Connection) -> Result<()> {
        let outcome = self.run.take().map_or(Err(StoreError::Poisoned), |run| run(db));
        let failed = outcome.as_ref().err().cloned();
        self.outcome = Some(outcome);
        failed.map_or(Ok(()), Err)
    }

    fn finish(self: Box<Self>, commit: Result<()>) {
        let Self { outcome, reply, .. } = *self;
        let outcome = match (outcome, commit) {
            (Some(Ok(_)) | None, Err(error)) => Err(error),
            (Some(outcome), _) => outcome,
            (None, Ok(())) => Err(StoreError::Poisoned),
        };
        // The caller may have gone away; the operation stands all the same.
        drop(reply.send(outcome));
    }
}

impl Writer {
    /// Starts the writer on its own connection; `last_seq` is the highest position in the log.
    pub(crate) fn start(mut db: Connection, beside: Connection, last_seq: u64) -> Result<Self> {
        let (queue, work) = mpsc::channel();
        let shared = Arc::new(Shared::new(last_seq));
        let state = Arc::clone(&shared);
        let poisoned = Arc::clone(&shared);
        let checkpoints = Checkpoints::start(&mut db, beside, move || poisoned.poison())?;
        let committer = Arc::new(Mutex::new(Committer::new(db, checkpoints, work, last_seq + 1, shared.seats.count())));
        let held = Arc::clone(&committer);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || commit_until_closed(&held, &state))?;
        shared.thread.get_or_init(|| thread.thread().clone());
        Ok(Self { queue: Some(queue), shared, committer, thread: Some(thread) })
    }

    /// Takes a seat: commits on this thread, in place of the writer's, as long as commits hardly wait for the disk.
    pub(crate) async fn commit_here(&self) {
        let shared = &self.shared;
        let _thread = ThreadGoesOn(shared);
        let Some(sitting) = shared.seats.take() else { return };
        loop {
            sitting.rung().await;
            sitting.give_mail();
            let mut turn = Turn::Idle;
            if shared.commits_at_seats() {
                self.let_others_queue().await;
                sitting.give_mail();
                turn = self.turn_at(sitting.number);
            }
            if turn == Turn::Over {
                return;
            }
            // From here on the bell rings again; then the last look, for what came before.
            sitting.listen();
            if turn == Turn::Others {
                sitting.ask_for_turn();
            }
            sitting.give_mail();
            // Whoever holds the committer looks again afterwards.
            if shared.is_something_queued() && self.committer.try_lock().is_ok() {
                shared.ring(Some(shared.seats.next_turn().unwrap_or(sitting.number)));
            }
        }
    }

    /// Commits what waits, unless somebody else does.
    fn turn_at(&self, seat: usize) -> Turn {
        if !self.shared.is_something_queued() {
            return Turn::Idle;
        }
        match self.committer.try_lock() {
            Ok(mut committer) => committer.turn(&self.shared, Some(seat)),
            Err(TryLockError::WouldBlock) => Turn::Others,
            Err(TryLockError::Poisoned(_)) => Turn::Over,
        }
    }

    /// Lets what is ready to run on this thread, and what comes meanwhile, share the commit. Once in any case: the
    /// connections must have their turn between two commits.
    async fn let_others_queue(&self) {
        let mut seen = 0;
        for _ in 0..QUEUE_ROUNDS {
            let queued = self.shared.queued.load(Ordering::SeqCst);
            if queued <= seen || (seen > 0 && queued >= QUEUE_ENOUGH) {
                return;
            }
            seen = queued;
            tokio::task::yield_now().await;
        }
    }

    /// Queues an event and waits until it is durable.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full; `Deadline` when the writer had not taken it when `patience` ended, and
    /// then it is withdrawn. Once taken, its commit is waited for.
    pub(crate) async fn append(&self, event: NewEvent, mut patience: Pin<&mut Sleep>) -> Result<Appended> {
        let taken = Arc::new(AtomicU8::new(WAITING));
        let (reply, mut answer) = oneshot::channel();
        let seat = self.shared.seats.here();
        self.queue(event.size(), Work::Append(Append { event, seat, taken: Arc::clone(&taken), reply }), seat)?;
        let answered = poll_fn(|cx| match Pin::new(&mut answer).poll(cx) {
            Poll::Ready(answered) => Poll::Ready(Some(answered)),
            Poll::Pending => patience.as_mut().poll(cx).map(|()| None),
        });
        if let Some(answered) = answered.await {
            return answered.unwrap_or(Err(StoreError::Poisoned));
        }
        match taken.compare_exchange(WAITING, WITHDRAWN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Err(StoreError::Deadline),
            Err(_) => answer.await.unwrap_or(Err(StoreError::Poisoned)),
        }
    }

    /// Queues an operation and waits until it is durable.
    pub(crate) async fn run<T, F>(&self, run: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue(0, Work::Run(Box::new(Closure { run: Some(run), outcome: None, reply })), None)?;
        answer.await.unwrap_or(Err(StoreError::Poisoned))
    }

    fn queue(&self, bytes: usize, work: Work, seat: Option<usize>) -> Result<()> {
        let shared = &self.shared;
        if shared.poisoned.load(Ordering::Acquire) {
            return Err(StoreError::Poisoned);
        }
        // Engine operations are few and bounded by their callers; only events are turned away by count.
        let is_event = matches!(work, Work::Append(_));
        if is_event
            && (shared.queued.load(Ordering::Relaxed) >= QUEUE_MAX
                || shared.queued_bytes.load(Ordering::Relaxed).saturating_add(bytes) > QUEUE_BYTES)
        {
            return Err(StoreError::Overloaded);
        }
        shared.queued.fetch_add(1, Ordering::SeqCst);
        shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let queue = self.queue.as_ref().ok_or(StoreError::Poisoned)?;
        queue.send(work).map_err(|_| StoreError::Poisoned)?;
        shared.ring(seat);
        Ok(())
    }

    /// Whether an event would be taken now.
    pub(crate) fn admits(&self) -> Result<()> {
        if self.is_poisoned() {
            return Err(StoreError::Poisoned);
        }
        let (queued, bytes) = self.depth();
        if queued >= QUEUE_MAX || bytes > QUEUE_BYTES { Err(StoreError::Overloaded) } else { Ok(()) }
    }

    /// Operations that wait, and their bytes.
    pub(crate) fn depth(&self) -> (usize, usize) {
        (self.shared.queued.load(Ordering::Relaxed), self.shared.queued_bytes.load(Ordering::Relaxed))
    }

    /// Whether a write has failed.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.shared.poisoned.load(Ordering::Acquire)
    }
}

impl Drop for Writer {
    /// Lets the writer finish what waits, and its connection fold the log into the database.
    fn drop(&mut self) {
        drop(self.queue.take());
        self.shared.wake_thread();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer ended in a panic");
        }
    }
}

impl Shared {
    fn new(last_seq: u64) -> Self {
        Self {
            queued: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
            is_swift: AtomicBool::new(false),
            last_seq: AtomicU64::new(last_seq),
            commits: AtomicU64::new(0),
            committed_events: AtomicU64::new(0),
            commit_micros: AtomicU64::new(0),
            tail: LogTail::default(),
            events: Signal::default(),
            stopped: Signal::default(),
            seats: Seats::new(),
            thread: OnceLock::new(),
        }
    }

    pub(crate) fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
        self.stopped.give();
    }

    /// Whether commits hardly wait for the disk and are made at seats.
    pub(crate) fn commits_at_seats(&self) -> bool {
        self.is_swift.load(Ordering::SeqCst) && self.seats.are_taken()
    }

    /// Tells whoever commits that something waits, which was queued at `seat` or at none.
    fn ring(&self, seat: Option<usize>) {
        if !(self.is_swift.load(Ordering::SeqCst) && self.seats.ring(seat)) {
            self.wake_thread();
        }
    }

    fn wake_thread(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Whether something waits. Who has let go of the committer must ask: others, who could not have it meanwhile, rely
    /// on that. The fence stands between their queueing and their try, and between the letting go and this look.
    fn is_something_queued(&self) -> bool {
        fence(Ordering::SeqCst);
        self.queued.load(Ordering::SeqCst) > 0
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Append(_)) { "Append" } else { "Run" })
    }
}

impl Append {
    /// Takes it for a transaction; false when its caller has withdrawn it.
    pub(crate) fn take(&self) -> bool {
        self.taken.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Work {
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Append(append) => append.event.size(),
            Self::Run(_) => 0,
        }
    }
}

/// Has the writer's thread look at the queue when a seat is left.
struct ThreadGoesOn<'a>(&'a Shared);

impl Drop for ThreadGoesOn<'_> {
    fn drop(&mut self) {
        self.0.wake_thread();
    }
}

fn commit_until_closed(committer: &Mutex<Committer>, shared: &Shared) {
    loop {
        // Poisoned only after a panic, which has poisoned the store too.
        let turn = committer.lock().map_or(Turn::Over, |mut committer| committer.turn(shared, None));
        if turn == Turn::Over {
            return;
        }
        let is_queued = shared.is_something_queued();
        if is_queued && shared.is_swift.load(Ordering::SeqCst) && shared.seats.ring(None) {
            std::thread::park();
        } else if turn == Turn::Idle && !is_queued {
            // Only after a look that found nothing and an open queue: when it is closed later, that wakes.
            std::thread::park();
        } else if turn == Turn::Idle {
            // Counted already, and not yet in the queue.
            std::thread::yield_now();
        }
    }
}
