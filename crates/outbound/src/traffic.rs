//! How the traffic of connections is kept: rates, requests under way, breakers, what APIs ask for, retries.
//!
//! Everything that calls through a connection asks its [`Gate`] first and says afterwards what came of it, so that
//! all of them together keep to what the connection's document says. Guarantees that nobody waits here longer than
//! they are willing to; that few wait here at all, so that one slow API does not take every worker; and that a
//! gate outlives changes of the configuration, with what it has counted, where its own settings stay the same.
//!
//! A gate with neither rate nor bound of requests whose API is well is passed without a lock. The state is this
//! process's own: a restart begins with closed breakers and empty counts.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use linkspan_model::traffic::breaker::{self, Breaker};
use linkspan_model::traffic::budget::{Budget, FLOOR_PER_MINUTE};
use linkspan_model::traffic::learned::{Learned, learn};
use linkspan_model::traffic::rate::Rate;
use linkspan_model::traffic::{TrafficSettings, TrafficStatus};
use linkspan_model::{Name, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Exchange, Failed};

/// Most callers that wait at one gate; the next is put off at once. A quarter of the jobs that run at a time.
const WAITING_MAX: u32 = 16;

/// How far apart those who were put off by a breaker or by the API's wish come back, unless they are called before.
const SPACING: Duration = Duration::from_millis(10);

/// Requests under way with which an API begins that has just come back: each good response lets one more go, so that
/// they double in the time of one.
const RAMP_FROM: u32 = 2;

/// Requests under way from which on an API counts as well again.
const RAMP_TO: u32 = 64;

/// How much later than needed somebody in such a line comes back at most.
const LINE_MAX: Duration = Duration::from_secs(600);

/// Most of those who were put off that are called at a time.
const LINE_ROOM: u32 = 500;

/// How often it is looked whether a probe has come back.
const PROBE_POLL: Duration = Duration::from_millis(250);

/// The gates of all connections. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub struct Traffic(Arc<Gates>);

#[derive(Debug)]
struct Gates {
    origin: Instant,
    by_name: ArcSwap<HashMap<Name, Entry>>,
    lines: Arc<Notify>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// The revision of the configuration that the gate's settings come from.
    revision: u64,
    gate: Arc<Gate>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self(Arc::new(Gates { origin: Instant::now(), by_name: ArcSwap::default(), lines: Arc::default() }))
    }
}

impl Traffic {
    /// The gate of the connection `name`, whose settings these are at this revision of the configuration. Who works
    /// with an older revision gets the gate as it is by now.
    #[must_use]
    pub fn gate(&self, name: &Name, settings: TrafficSettings, revision: u64) -> Arc<Gate> {
        let is_current = |entry: &&Entry| entry.gate.settings == settings || entry.revision > revision;
        if let Some(entry) = self.0.by_name.load().get(name).filter(is_current) {
            return Arc::clone(&entry.gate);
        }
        let mut found = None;
        self.0.by_name.rcu(|gates| {
            let mut gates = HashMap::clone(gates);
            let old = gates.get(name);
            let gate = match old.filter(is_current) {
                Some(entry) => Arc::clone(&entry.gate),
                None => Arc::new(Gate::new(name.clone(), settings, &self.0, old.map(|entry| &*entry.gate))),
            };
            found = Some(Arc::clone(&gate));
            let revision = old.map_or(revision, |entry| entry.revision.max(revision));
            gates.insert(name.clone(), Entry { revision, gate });
            gates
        });
        found.unwrap_or_else(|| Arc::new(Gate::new(name.clone(), settings, &self.0, None)))
    }
}

impl Traffic {
    /// How many breakers are open or probe.
    #[must_use]
    pub fn open_breakers(&self) -> usize {
        let gates = self.0.by_name.load();
        let is_open = |entry: &&Entry| {
            !entry.gate.is_calm.load(Ordering::Acquire)
                && entry.gate.lock().breaker.as_ref().is_some_and(|breaker| breaker.state() != breaker::State::Closed)
        };
        gates.values().filter(is_open).count()
    }

    /// Waits until somebody was put off who would go before its time.
    pub async fn line_begun(&self) {
        self.0.lines.notified().await;
    }

    /// The connections for which callers wait who were put off, and how many of these can go now.
    #[must_use]
    pub fn lines(&self) -> Vec<(Arc<Gate>, u32)> {
        let gates = self.0.by_name.load();
        let with_line = gates.values().filter(|entry| entry.gate.has_line.load(Ordering::Acquire));
        with_line.map(|entry| (Arc::clone(&entry.gate), entry.gate.room())).collect()
    }

    /// Forgets the connections that are not there any more.
    pub fn keep(&self, is_there: impl Fn(&Name) -> bool) {
        if self.0.by_name.load().keys().all(&is_there) {
            return;
        }
        self.0.by_name.rcu(|gates| {
            let kept = gates.iter().filter(|(name, _)| is_there(name));
            kept.map(|(name, entry)| (name.clone(), entry.clone())).collect::<HashMap<_, _>>()
        });
    }
}

/// The way to the API of one connection.
#[derive(Debug)]
pub struct Gate {
    name: Name,
    settings: TrafficSettings,
    origin: Instant,
    /// Whether the breaker is closed, nothing has failed, and the API asks for no wait.
    is_calm: AtomicBool,
    /// First attempts since the state was last locked.
    started: AtomicU64,
    in_flight: Arc<AtomicU32>,
    waiting: AtomicU32,
    places: Option<Arc<Semaphore>>,
    /// Whether callers were put off who would go as soon as the API can be called again.
    has_line: AtomicBool,
    lines: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    rate: Option<Rate>,
    breaker: Option<Breaker>,
    budget: Option<Budget>,
    /// Until when the API asked to wait, and the header that said so.
    asked: Option<(Duration, &'static str)>,
    last_failure: Option<String>,
    /// The last turn that was given to somebody who was put off, but for the rate.
    line: Duration,
    /// How long requests take, smoothed: what a line for a place is spaced by.
    takes: Duration,
    /// Most requests under way, while an API that was away is tried with more and more of them.
    ramp: Option<u32>,
}

/// What a caller asks of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Longest time to wait here.
    pub patience: Duration,
    /// Whether the request is a further attempt.
    pub is_retry: bool,
    /// Whether the caller was put off before: its turn goes before those who come now.
    pub is_returning: bool,
    /// Whether the caller comes back when it is put off. One that does not keeps no place in the line from others.
    pub stays: Stays,
}

/// How long a caller that is put off stays in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// As long as it takes: a job.
    Always,
    /// Where its turn comes within this time, and never for a breaker: somebody who waits for an answer.
    AtMost(Duration),
}

impl Stays {
    fn is_for(self, after: Duration, why: &Why) -> bool {
        match self {
            Self::Always => true,
            Self::AtMost(longest) => after <= longest && !matches!(why, Why::Open { .. }),
        }
    }
}

/// The caller is put off: nothing was sent, and nothing counts as an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOff {
    /// When to come back, from now.
    pub after: Duration,
    /// Why.
    pub why: Why,
}

/// Why a request has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The connection's own rate.
    Rate {
        /// Most requests.
        limit: u32,
        /// In any span of this length.
        per: Duration,
    },
    /// As many requests are under way as may be.
    Busy {
        /// How many that is.
        most: u32,
    },
    /// The API asked for it.
    Asked {
        /// The header that did.
        by: &'static str,
    },
    /// The breaker is open.
    Open {
        /// Failures in a row.
        failures: u32,
        /// What failed last.
        last: String,
    },
    /// The budget of retries is spent.
    Budget {
        /// Retries in a hundred requests.
        percent: u8,
    },
}

impl Why {
    /// Whether it ends for everybody at once: whoever waits then goes on before its time.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Asked { .. } | Self::Open { .. })
    }

    /// The dotted slug.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Rate { .. } => "connection.rate",
            Self::Busy { .. } => "connection.busy",
            Self::Asked { .. } => "connection.asked_to_wait",
            Self::Open { .. } => "connection.breaker_open",
            Self::Budget { .. } => "connection.retry_budget",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate { limit, per } => {
                let per = linkspan_model::units::Duration::from_millis(per.as_millis().try_into().unwrap_or(u64::MAX));
                write!(f, "its rate of {limit} per {per} is used up")
            }
            Self::Busy { most } => write!(f, "{most} of its requests are under way, as many as may be"),
            Self::Asked { by } => write!(f, "the API asked to wait ({by})"),
            Self::Open { failures: 1, last } => write!(f, "its breaker is open after a failure: {last}"),
            Self::Open { failures, last } => {
                write!(f, "its breaker is open after {failures} failures in a row, the last one: {last}")
            }
            Self::Budget { percent } => {
                write!(f, "its budget of retries, {percent} % of its requests, is spent, so this one waits longer")
            }
        }
    }
}

impl Gate {
    fn new(name: Name, settings: TrafficSettings, gates: &Gates, old: Option<&Self>) -> Self {
        let (origin, lines) = (gates.origin, Arc::clone(&gates.lines));
        let now = origin.elapsed();
        let places = |most: u32| Arc::new(Semaphore::new(most as usize));
        let mut gate = Self {
            name,
            settings,
            origin,
            is_calm: AtomicBool::new(old.is_none()),
            started: AtomicU64::new(0),
            in_flight: Arc::default(),
            waiting: AtomicU32::new(0),
            places: settings.concurrency.map(places),
            has_line: AtomicBool::new(false),
            lines,
            state: Mutex::new(State {
                rate: settings.rate.map(|(limit, per)| Rate::new(limit, per)),
                breaker: settings.breaker.map(|(open_after, probe_after)| Breaker::new(open_after, probe_after)),
                budget: settings.budget.map(|percent| Budget::new(percent, now)),
                asked: None,
                last_failure: None,
                line: Duration::ZERO,
                takes: Duration::from_millis(100),
                ramp: None,
            }),
        };
        if let Some(old) = old {
            gate.carry_over(old);
        }
        gate
    }

    /// What was counted goes on where the settings stay the same.
    fn carry_over(&mut self, old: &Self) {
        let counted = old.lock().clone();
        self.in_flight = Arc::clone(&old.in_flight);
        if self.settings.concurrency == old.settings.concurrency {
            self.places.clone_from(&old.places);
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.settings.rate == old.settings.rate {
            state.rate = counted.rate;
        }
        if self.settings.breaker == old.settings.breaker {
            state.breaker = counted.breaker;
            state.last_failure = counted.last_failure;
        }
        if self.settings.budget == old.settings.budget {
            state.budget = counted.budget;
        }
        self.has_line = AtomicBool::new(old.has_line.load(Ordering::Acquire));
        if self.settings.target != old.settings.target {
            // What another server asked for, and how it failed, says nothing of this one.
            state.breaker =
                self.settings.breaker.map(|(open_after, probe_after)| Breaker::new(open_after, probe_after));
            state.last_failure = None;
            return;
        }
        state.asked = counted.asked.filter(|_| self.settings.learn);
        (state.line, state.takes, state.ramp) = (counted.line, counted.takes, counted.ramp);
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Counts requests that were sent in the turn of another: those that follow wait for them, too.
    fn sent_more(&self, requests: u32) {
        if requests == 0 || self.settings.rate.is_none() {
            return;
        }
        let now = self.now();
        if let Some(rate) = &mut self.lock().rate {
            (0..requests).for_each(|_| rate.take(now));
        }
    }

    /// The connection's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How many of those who were put off can go now.
    fn room(&self) -> u32 {
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        let now = self.now();
        let mut state = self.lock();
        let ask = Ask { patience: Duration::ZERO, is_retry: false, is_returning: true, stays: Stays::Always };
        let most = match (state.ramp, self.settings.concurrency) {
            (Some(ramp), Some(places)) => ramp.min(places),
            (Some(most), None) | (None, Some(most)) => most,
            (None, None) => LINE_ROOM,
        };
        if state.held(&self.settings, ask, now, in_flight).is_some() {
            0
        } else {
            most.saturating_sub(in_flight).min(LINE_ROOM)
        }
    }

    /// Nobody waits any more who was put off.
    pub fn end_line(&self) {
        self.has_line.store(false, Ordering::Release);
    }

    /// Puts off whoever comes when as many requests are under way as may hold a worker each.
    ///
    /// # Errors
    /// When to come back.
    pub fn check_share(&self, most: u32) -> Result<(), PutOff> {
        if self.in_flight.load(Ordering::Relaxed) < most {
            return Ok(());
        }
        let now = self.now();
        let mut state = self.lock();
        let spacing = state.takes / most;
        let until = now + Duration::from_secs(1);
        let put_off = state.put_off_by(now, until, spacing, Why::Busy { most }, Stays::Always);
        drop(state);
        self.begin_line();
        Err(put_off)
    }

    fn begin_line(&self) {
        if !self.has_line.swap(true, Ordering::AcqRel) {
            self.lines.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain values: a panic elsewhere leaves it whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = &mut state.budget {
            budget.earn(self.started.swap(0, Ordering::Relaxed));
        }
        state
    }

    /// Whether nothing is ever counted but failures.
    fn is_unbounded(&self) -> bool {
        self.settings.rate.is_none() && self.places.is_none()
    }

    /// Waits for a turn, at most as long as the caller is willing to.
    ///
    /// # Errors
    /// The turn comes later: when to come back, and why.
    pub async fn enter(self: &Arc<Self>, ask: Ask) -> Result<Pass, PutOff> {
        if self.is_unbounded() && !ask.is_retry && self.is_calm.load(Ordering::Acquire) {
            self.started.fetch_add(1, Ordering::Relaxed);
            return Ok(Pass::new(self, None, Duration::ZERO, false));
        }
        let now = self.now();
        if let Some(pass) = self.enter_at_once(ask, now) {
            return Ok(pass);
        }
        let deadline = now + ask.patience;
        self.wait_for_the_api(ask, deadline).await?;
        // The place first: a turn of the rate that waited for a place would be sent later than it was counted.
        let place = self.wait_for_a_place(ask, deadline).await?;
        self.wait_for_the_rate(ask, deadline).await?;

        let now = self.now();
        let mut state = self.lock();
        // The API may have gone down meanwhile.
        if let Some((until, why)) = state.held(&self.settings, ask, now, self.in_flight.load(Ordering::Relaxed)) {
            let put_off = state.put_off(now, until, why, ask.stays);
            drop(state);
            return Err(self.in_line(put_off, ask));
        }
        Ok(self.go(state, ask, place, now))
    }

    /// A turn where nothing has to be waited for.
    fn enter_at_once(self: &Arc<Self>, ask: Ask, now: Duration) -> Option<Pass> {
        let place = match &self.places {
            Some(places) => Some(Arc::clone(places).try_acquire_owned().ok()?),
            None => None,
        };
        let mut state = self.lock();
        if state.held(&self.settings, ask, now, self.in_flight.load(Ordering::Relaxed)).is_some() {
            return None;
        }
        if let Some(rate) = &mut state.rate {
            let is_overtaking = !ask.is_returning && rate.has_line(now);
            if is_overtaking || rate.next(now) > now {
                return None;
            }
            rate.take(now);
        }
        Some(self.go(state, ask, place, now))
    }

    fn go(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        ask: Ask,
        place: Option<OwnedSemaphorePermit>,
        now: Duration,
    ) -> Pass {
        let is_probe = state.breaker.as_mut().is_some_and(|breaker| breaker.go(now));
        match &mut state.budget {
            Some(budget) if ask.is_retry => budget.spend(),
            _ => {
                self.started.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(state);
        Pass::new(self, place, now, is_probe)
    }

    /// Waits while the breaker is open, the API asks for it, or there is no budget.
    async fn wait_for_the_api(&self, ask: Ask, deadline: Duration) -> Result<(), PutOff> {
        let mut waiting = None;
        loop {
            let now = self.now();
            let until = {
                let mut state = self.lock();
                let Some((until, why)) = state.held(&self.settings, ask, now, self.in_flight.load(Ordering::Relaxed))
                else {
                    return Ok(());
                };
                if until > deadline || !self.may_wait(&mut waiting) {
                    let put_off = state.put_off(now, until, why, ask.stays);
                    drop(state);
                    return Err(self.in_line(put_off, ask));
                }
                until
            };
            sleep(until.saturating_sub(now)).await;
        }
    }

    async fn wait_for_a_place(&self, ask: Ask, deadline: Duration) -> Result<Option<OwnedSemaphorePermit>, PutOff> {
        let (Some(places), Some(most)) = (&self.places, self.settings.concurrency) else { return Ok(None) };
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Ok(Some(place));
        }
        let mut waiting = None;
        if self.may_wait(&mut waiting) {
            let patience = deadline.saturating_sub(self.now());
            if let Ok(Ok(place)) = timeout(patience, Arc::clone(places).acquire_owned()).await {
                return Ok(Some(place));
            }
        }
        let now = self.now();
        let mut state = self.lock();
        // As many as may be come back in the time that one request takes.
        let spacing = state.takes / most;
        let until = now + Duration::from_secs(1);
        let put_off = state.put_off_by(now, until, spacing, Why::Busy { most }, ask.stays);
        drop(state);
        Err(self.in_line(put_off, ask))
    }

    /// Notes that somebody waits who was put off, if others' luck can end that.
    fn in_line(&self, put_off: PutOff, ask: Ask) -> PutOff {
        if put_off.why.is_shared() && ask.stays.is_for(put_off.after, &put_off.why) {
            self.begin_line();
        }
        put_off
    }

    async fn wait_for_the_rate(&self, ask: Ask, deadline: Duration) -> Result<(), PutOff> {
        let Some((limit, per)) = self.settings.rate else { return Ok(()) };
        let mut waiting = None;
        let (now, at) = {
            let mut state = self.lock();
            let now = self.now();
            let Some(rate) = &mut state.rate else { return Ok(()) };
            let at = rate.next(now);
            let is_overtaking = !ask.is_returning && rate.has_line(now);
            let fits = at <= now || at <= deadline && self.may_wait(&mut waiting);
            if is_overtaking || !fits {
                let turn = if ask.is_returning { at } else { rate.end_of_line(now) };
                let put_off = PutOff { after: turn.saturating_sub(now), why: Why::Rate { limit, per } };
                if !ask.is_returning && ask.stays.is_for(put_off.after, &put_off.why) {
                    rate.place(now);
                }
                return Err(put_off);
            }
            rate.take(at);
            (now, at)
        };
        if at > now {
            sleep(at - now).await;
        }
        Ok(())
    }

    /// Whether this caller may wait here; it counts among those who do until what this fills is dropped.
    fn may_wait<'a>(&'a self, waiting: &mut Option<Waiting<'a>>) -> bool {
        if waiting.is_none() {
            let before = self.waiting.fetch_add(1, Ordering::Relaxed);
            let counted = Waiting(&self.waiting);
            if before < WAITING_MAX {
                *waiting = Some(counted);
            }
        }
        waiting.is_some()
    }

    /// The API asks to wait.
    fn asked(&self, Learned { wait, by }: Learned) {
        let until = self.now() + wait;
        let mut state = self.lock();
        if state.asked.is_none_or(|(before, _)| before < until) {
            state.asked = Some((until, by));
            state.ramp = Some(RAMP_FROM);
            tracing::info!(connection = %self.name, seconds = wait.as_secs(), by, "an API asked to wait");
        }
        self.is_calm.store(false, Ordering::Release);
    }

    /// The server is there.
    fn answered(&self, was_probe: bool) {
        if self.is_calm.load(Ordering::Acquire) {
            return;
        }
        let now = self.now();
        let mut state = self.lock();
        let closed = state.breaker.as_mut().is_some_and(Breaker::succeeded);
        state.last_failure = None;
        state.ramp = match state.ramp {
            _ if closed => Some(RAMP_FROM),
            Some(ramp) if ramp < RAMP_TO => Some(ramp + 1),
            _ => None,
        };
        if closed {
            tracing::info!(connection = %self.name, was_probe, "a breaker closed");
        }
        self.is_calm.store(state.is_calm(now), Ordering::Release);
    }

    /// The server failed, with these words.
    fn failed(&self, was_probe: bool, words: String) {
        let now = self.now();
        let mut state = self.lock();
        state.ramp = state.ramp.map(|ramp| (ramp / 2).max(1));
        let Some(breaker) = &mut state.breaker else { return };
        let opened = breaker.failed(now, was_probe);
        if opened {
            tracing::warn!(connection = %self.name, reason = words, "a breaker opened");
        }
        state.last_failure = Some(words);
        self.is_calm.store(false, Ordering::Release);
    }

    /// How it stands; `now` is the time that its own moments are told in.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> TrafficStatus {
        let moment = self.now();
        let told = |at: Duration| now.after(at.saturating_sub(moment));
        let mut state = self.lock();
        let (breaker, probe_at) = match state.breaker.as_ref().map(Breaker::state) {
            None => ("none", None),
            Some(breaker::State::Closed) => ("closed", None),
            Some(breaker::State::Open(until)) => ("open", Some(told(until))),
            Some(breaker::State::Probing(_)) => ("probing", None),
        };
        let asked = state.asked.filter(|(until, _)| *until > moment);
        TrafficStatus {
            breaker: breaker.to_owned(),
            failures: state.breaker.as_ref().map_or(0, Breaker::failures),
            last_failure: state.last_failure.clone(),
            probe_at,
            waits_until: asked.map(|(until, _)| told(until)),
            waits_by: asked.map(|(_, by)| by.to_owned()),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            rate_used: state.rate.as_mut().map(|rate| rate.used(moment)),
        }
    }
}

impl State {
    fn is_calm(&self, now: Duration) -> bool {
        let is_closed = |breaker: &Breaker| breaker.state() == breaker::State::Closed && breaker.failures() == 0;
        self.breaker.as_ref().is_none_or(is_closed)
            && self.asked.is_none_or(|(until, _)| until <= now)
            && self.ramp.is_none()
    }

    /// Until when nothing may be sent, and why.
    fn held(&mut self, settings: &TrafficSettings, ask: Ask, now: Duration, in_flight: u32) -> Option<(Duration, Why)> {
        if let Some(breaker) = &self.breaker
            && let Err(until) = breaker.may_go(now)
        {
            let is_probing = matches!(breaker.state(), breaker::State::Probing(_));
            let until = if is_probing { until.min(now + PROBE_POLL) } else { until };
            let last = self.last_failure.clone().unwrap_or_default();
            return Some((until, Why::Open { failures: breaker.failures(), last }));
        }
        if let Some((until, by)) = self.asked.filter(|(until, _)| *until > now) {
            return Some((until, Why::Asked { by }));
        }
        if let Some(ramp) = self.ramp.filter(|ramp| in_flight >= *ramp) {
            return Some((now + (self.takes / ramp).max(Duration::from_millis(1)), Why::Busy { most: ramp }));
        }
        let (Some(budget), Some(percent)) = (&mut self.budget, settings.budget.filter(|_| ask.is_retry)) else {
            return None;
        };
        budget.may_spend(now).err().map(|wait| (now + wait, Why::Budget { percent }))
    }

    fn put_off(&mut self, now: Duration, until: Duration, why: Why, stays: Stays) -> PutOff {
        let spacing = match why {
            Why::Budget { .. } => Duration::from_secs(60) / FLOOR_PER_MINUTE,
            _ => SPACING,
        };
        self.put_off_by(now, until, spacing, why, stays)
    }

    /// Those who are put off together come back one after the other. Who does not come back is told when it is worth
    /// asking again.
    fn put_off_by(&mut self, now: Duration, until: Duration, spacing: Duration, why: Why, stays: Stays) -> PutOff {
        let turn = until.max(self.line + spacing).min(until + LINE_MAX);
        if !stays.is_for(turn.saturating_sub(now), &why) {
            return PutOff { after: until.saturating_sub(now), why };
        }
        self.line = turn;
        PutOff { after: turn.saturating_sub(now), why }
    }
}

/// One of those who wait at a gate.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to send one request. Say with [`Pass::ended`] what came of it; one that is dropped says nothing of the
/// API.
#[derive(Debug)]
#[must_use = "a pass that is dropped at once bounds nothing"]
pub struct Pass {
    gate: Arc<Gate>,
    _place: Option<OwnedSemaphorePermit>,
    /// When the turn came, by the gate's time; needed where places are counted.
    since: Duration,
    is_probe: bool,
    is_heard: bool,
}

impl Pass {
    fn new(gate: &Arc<Gate>, place: Option<OwnedSemaphorePermit>, since: Duration, is_probe: bool) -> Self {
        gate.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { gate: Arc::clone(gate), _place: place, since, is_probe, is_heard: false }
    }

    /// What came of the request, at this time of the clock that the API's dates are compared with.
    ///
    /// Failures that speak of the server count for the breaker: no connection, no answer in time, an answer of 500
    /// and above or one that is no valid HTTP. Any other answer shows that the server is there.
    pub fn ended(mut self, came: &Result<Exchange, Box<Failed>>, now: Timestamp) {
        match came {
            Ok(exchange) => {
                let status = exchange.status.as_u16();
                self.is_heard = true;
                self.gate.sent_more(exchange.requests.saturating_sub(1));
                if status >= 500 {
                    self.gate.failed(self.is_probe, format!("the API answered {status}"));
                } else {
                    self.gate.answered(self.is_probe);
                }
                if self.gate.settings.learn
                    && let Some(learned) = learn(status, &exchange.headers, now)
                {
                    self.gate.asked(learned);
                }
            }
            Err(failed) if failed.error.is_transient() => {
                self.is_heard = true;
                self.gate.failed(self.is_probe, failed.error.description());
            }
            // Nothing was sent, or what came was too much for us: neither speaks of the server.
            Err(_) => {}
        }
        if self.since > Duration::ZERO {
            let took = self.gate.now().saturating_sub(self.since);
            let mut state = self.gate.lock();
            state.takes = (state.takes * 7 + took) / 8;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.is_probe && !self.is_heard {
            let now = self.gate.now();
            if let Some(breaker) = &mut self.gate.lock().breaker {
                breaker.abandoned(now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
