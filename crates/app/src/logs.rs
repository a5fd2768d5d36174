//! The log: lines on standard error that no request waits for.
//!
//! Guarantees that whoever logs never waits for whoever reads: lines go to a thread of their own through a buffer, and
//! what finds no room there is dropped, counted, and said as soon as something can be written again. An end that is
//! no kill waits a moment for the last lines.
//!
//! The usual crate for this (tracing-appender) bounds lines and not bytes, says nothing of what it dropped, and waits
//! for standard output when it cannot end; what is left of it is this page.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use linkspan_model::limits;
use metrics::counter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::LogFormat;

/// How long an end waits for a log that nobody reads.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Lines that were dropped because nobody read the log.
pub(crate) const DROPPED: &str = "linkspan_log_lines_dropped_total";

/// The log while it is written; its drop waits for the last lines.
pub(crate) struct Logs(Lines);

/// Where lines go. Cheap to clone; clones share it.
#[derive(Clone)]
struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something waits to be written.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    /// Lines that found no room, since this was last said.
    dropped: u64,
}

impl Logs {
    /// Logs from now on, to standard error.
    pub(crate) fn start(format: LogFormat) -> io::Result<Self> {
        let filter =
            EnvFilter::try_from_env("LINKSPAN_LOG").unwrap_or_else(|_| EnvFilter::new("info,refinery_core=warn"));
        let lines = Lines(Arc::default());
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(lines.clone())
            .with_ansi(io::stderr().is_terminal())
            .with_target(false);
        match format {
            LogFormat::Text => logs.init(),
            LogFormat::Json => logs.json().init(),
        }
        let writer = lines.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_on())?;
        let panics = lines.clone();
        // The usual hook writes to standard error itself, and waits for whoever reads it.
        std::panic::set_hook(Box::new(move |panic| {
            let backtrace = Backtrace::capture();
            let backtrace =
                (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
            tracing::error!(%panic, backtrace, "a thread or a task panicked");
            panics.wait_until_written(LAST_LINES);
        }));
        Ok(Self(lines))
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.0.wait_until_written(LAST_LINES);
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain values: a panic elsewhere leaves it whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes whatever comes, for ever: the thread ends with the process.
    fn write_on(&self) {
        let mut taken = Vec::new();
        loop {
            let mut state = self.lock();
            state.is_writing = false;
            while state.waiting.is_empty() {
                self.0.emptied.notify_all();
                state = self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.is_writing = true;
            taken.clear();
            std::mem::swap(&mut taken, &mut state.waiting);
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            if io::stderr().write_all(&taken).is_err() {
                // Nobody will ever read it; whoever looks at the metrics sees that.
                count_dropped(taken.iter().filter(|byte| **byte == b'\n').count() as u64);
            }
            if dropped > 0 {
                tracing::warn!(lines = dropped, "lines of the log were dropped, because what came before was not read");
            }
        }
    }

    fn wait_until_written(&self, longest: Duration) {
        let is_left = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        // One that is not written by then is lost: nobody reads.
        drop(self.0.emptied.wait_timeout_while(self.lock(), longest, is_left));
    }
}

fn count_dropped(lines: u64) {
    counter!(DROPPED).increment(lines);
}

/// Takes one line at a time, as the formatter writes them.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        if state.waiting.len() + line.len() <= limits::LOG_BUFFER_BYTES {
            state.waiting.extend_from_slice(line);
            drop(state);
            self.0.filled.notify_one();
        } else {
            state.dropped += 1;
            drop(state);
            count_dropped(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The last word of a server that ends with an error. One that nobody reads does not keep it from ending.
pub(crate) fn say_at_the_end(text: String) {
    let (said, is_said) = std::sync::mpsc::channel::<()>();
    let saying = std::thread::Builder::new().spawn(move || {
        crate::output::error(&text);
        drop(said);
    });
    if saying.is_ok() {
        let _said_or_late = is_said.recv_timeout(LAST_LINES);
    }
}
