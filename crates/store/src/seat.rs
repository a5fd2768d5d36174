//! Seats: the threads that serve requests, where commits are made as long as the disk is swift.
//!
//! Handing an event to another thread and its answer back costs more than a commit that hardly waits. So whoever
//! sits at a seat commits what has been queued, by anybody, when nothing else is ready to run there. Answers to
//! what was queued at another seat go there in one piece, because waking a thread costs as much for one as for all.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use crate::error::Result;
use crate::event::Appended;

/// What somebody who has appended an event waits for.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: oneshot::Sender<Result<Appended>>,
    pub(crate) outcome: Result<Appended>,
    /// What was stored goes back to be freed where it was made: memory that another thread frees is dear.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn give(self) {
        // The caller may have gone away; the event stands all the same.
        let Self { reply, outcome, head, body } = self;
        drop((reply.send(outcome), head, body));
    }
}

/// The seats of a store, in the order in which they were taken.
#[derive(Debug)]
pub(crate) struct Seats {
    seats: Box<[Seat]>,
    taken: AtomicUsize,
    left: AtomicUsize,
    /// Whose turn it is to commit what was queued at no seat.
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct Seat {
    bell: Notify,
    /// Rung, and not yet waiting again: it will look at everything. Waking a thread that is awake costs a call of the
    /// system too.
    is_awake: AtomicBool,
    /// Answers from other threads. None when nobody sits here.
    mail: Mutex<Option<Vec<Answer>>>,
    /// Had something to commit while somebody else did.
    waits: AtomicBool,
}

thread_local! {
    /// The seat that this thread has taken: of which store (an address), and its number.
    static HERE: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

impl Seat {
    fn ring(&self) {
        if !self.is_awake.swap(true, Ordering::SeqCst) {
            self.bell.notify_one();
        }
    }

    fn mail(&self) -> MutexGuard<'_, Option<Vec<Answer>>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// As many seats as there are processors.
    pub(crate) fn new() -> Self {
        let many = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            seats: (0..many).map(|_| Seat::default()).collect(),
            taken: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
        }
    }

    /// The seat of the thread that asks.
    pub(crate) fn here(&self) -> Option<usize> {
        HERE.get().filter(|(store, _)| *store == self.address()).map(|(_, seat)| seat)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.seats.len()
    }

    /// Takes a seat for this thread, until what is given back is dropped; nothing when all are taken.
    pub(crate) fn take(&self) -> Option<Sitting<'_>> {
        let number = self
            .taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| (taken < self.seats.len()).then_some(taken + 1));
        let number = number.ok()?;
        *self.seats[number].mail() = Some(Vec::new());
        HERE.set(Some((self.address(), number)));
        Some(Sitting { seats: self, number })
    }

    /// Whether commits can be made at seats: somebody sits, and nobody has left.
    pub(crate) fn are_taken(&self) -> bool {
        self.taken.load(Ordering::SeqCst) > 0 && self.left.load(Ordering::SeqCst) == 0
    }

    /// Tells a seat that something waits: the one where it was queued, otherwise any. False when nobody sits, or one
    /// has left: then the store is about to close.
    pub(crate) fn ring(&self, seat: Option<usize>) -> bool {
        if !self.are_taken() {
            return false;
        }
        let taken = self.taken.load(Ordering::SeqCst);
        let seat = seat.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed) % taken);
        self.seats[seat].ring();
        true
    }

    /// A seat that asked for its turn.
    pub(crate) fn next_turn(&self) -> Option<usize> {
        self.seats.iter().position(|seat| seat.waits.load(Ordering::SeqCst) && seat.waits.swap(false, Ordering::SeqCst))
    }

    /// Brings answers to the seat where they are waited for. Leaves `answers` empty.
    pub(crate) fn post(&self, seat: usize, answers: &mut Vec<Answer>) {
        let Some(seat) = self.seats.get(seat) else { return answers.drain(..).for_each(Answer::give) };
        match seat.mail().as_mut() {
            Some(mail) => mail.append(answers),
            None => answers.drain(..).for_each(Answer::give),
        }
        seat.ring();
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// A thread that sits at a seat.
#[derive(Debug)]
pub(crate) struct Sitting<'a> {
    seats: &'a Seats,
    pub(crate) number: usize,
}

impl Sitting<'_> {
    /// Waits until the seat's bell is rung.
    pub(crate) async fn rung(&self) {
        self.seat().bell.notified().await;
        self.seat().waits.store(false, Ordering::SeqCst);
    }

    /// Has the bell be rung again. To be followed by a last look at what has come: whatever comes later rings.
    pub(crate) fn listen(&self) {
        self.seat().is_awake.store(false, Ordering::SeqCst);
    }

    fn seat(&self) -> &Seat {
        &self.seats.seats[self.number]
    }

    /// Has whoever commits now hand over afterwards.
    pub(crate) fn ask_for_turn(&self) {
        self.seat().waits.store(true, Ordering::SeqCst);
    }

    /// Gives the answers that have come from other threads.
    pub(crate) fn give_mail(&self) {
        let answers = self.seat().mail().as_mut().map(std::mem::take);
        answers.into_iter().flatten().for_each(Answer::give);
    }
}

impl Drop for Sitting<'_> {
    fn drop(&mut self) {
        HERE.set(None);
        self.seats.left.fetch_add(1, Ordering::SeqCst);
        let answers = self.seat().mail().take();
        answers.into_iter().flatten().for_each(Answer::give);
    }
}
