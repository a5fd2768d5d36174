//! How far a request has come: the link between a request and the connection that is made for it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use linkspan_model::request::Timings;
use tokio::time::Instant;

use crate::error::Timeout;

/// A stage of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Looking the host's name up.
    Dns,
    /// Connecting, or waiting for a connection that is being made.
    Connect,
    /// Connecting to the proxy, and waiting for its tunnel.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// Sending the request's body.
    Send,
    /// Waiting for the answer's head.
    FirstByte,
    /// Reading the answer's body.
    Body,
}

/// How far one request has come.
#[derive(Debug)]
pub(crate) struct Progress {
    connect_max: Duration,
    tls_max: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The stage of making a connection that has begun, and when.
    entered: Option<(Stage, Instant)>,
    dns: Option<Duration>,
    connect: Option<Duration>,
    tls: Option<Duration>,
    /// What the server said of our certificate on the connection that this request made, when it did not take it.
    refused: Option<String>,
    /// When the connection last took a piece of the body.
    body_taken: Option<Instant>,
    body_left: bool,
}

impl Progress {
    pub(crate) fn new(connect_max: Duration, tls_max: Duration) -> Self {
        Self { connect_max, tls_max, state: Mutex::default() }
    }

    pub(crate) fn connect_max(&self) -> Duration {
        self.connect_max
    }

    pub(crate) fn tls_max(&self) -> Duration {
        self.tls_max
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.state().entered = Some((stage, Instant::now()));
    }

    pub(crate) fn leave(&self, stage: Stage) {
        let mut state = self.state();
        let Some((_, since)) = state.entered else { return };
        let took = Some(since.elapsed());
        match stage {
            Stage::Dns => state.dns = took,
            Stage::Connect | Stage::Proxy => state.connect = took,
            Stage::Tls => state.tls = took,
            Stage::Send | Stage::FirstByte | Stage::Body => {}
        }
    }

    /// The server does not take our certificate.
    pub(crate) fn refused(&self, reason: String) {
        self.state().refused = Some(reason);
    }

    pub(crate) fn refusal(&self) -> Option<String> {
        self.state().refused.clone()
    }

    /// A request with a body begins.
    pub(crate) fn body_waits(&self) {
        self.state().body_left = true;
    }

    /// The connection took a piece of the body.
    pub(crate) fn body_taken(&self, left: usize) {
        let mut state = self.state();
        state.body_taken = Some(Instant::now());
        state.body_left = left > 0;
    }

    pub(crate) fn last_body_taken(&self) -> Option<Instant> {
        self.state().body_taken
    }

    pub(crate) fn is_body_left(&self) -> bool {
        self.state().body_left
    }

    /// The time for making a connection was over.
    pub(crate) fn timed_out_connecting(&self, after: Duration) -> Timeout {
        let stage = self.state().entered.map_or(Stage::Connect, |(stage, _)| stage);
        Timeout { stage, after, bytes_sent: false, status: None, timings: self.timings() }
    }

    /// The times of making the connection.
    pub(crate) fn timings(&self) -> Timings {
        let state = self.state();
        Timings {
            dns_us: state.dns.map(micros),
            connect_us: state.connect.map(micros),
            tls_us: state.tls.map(micros),
            ..Timings::default()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is plain values: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
