//! A store in a folder of its own, with a clock that is moved by hand and secrets from a map.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use linkspan_model::event::{EventHead, HeaderText, VerifiedBy};
use linkspan_model::job::{AttemptDecision, AttemptRun, JobStatus, StepRun};
use linkspan_model::request::Timings;
use linkspan_model::secret::SecretSpec;
use linkspan_model::{Clock, Document, EventId, JobId, JsonText, Name, SecretBytes, Timestamp, limits};
use linkspan_store::{
    Appended, Change, Claimed, DedupeKey, Dispatched, Durability, LogRun, MasterKey, NewEvent, NewJob, Result,
    SecretSource, Settings, Store,
};
use serde_json::{Value, json};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    pub fn set_back(&self, by: Duration) {
        self.0.fetch_sub(i64::try_from(by.as_micros()).unwrap(), Ordering::Relaxed);
    }

    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Secrets that stand outside the store, by variable or file.
#[derive(Debug, Default)]
pub struct OutsideSecrets(Mutex<HashMap<String, String>>);

impl OutsideSecrets {
    pub fn set(&self, place: &str, value: &str) {
        self.0.lock().unwrap().insert(place.to_owned(), value.to_owned());
    }
}

impl SecretSource for OutsideSecrets {
    fn value(&self, spec: &SecretSpec) -> std::result::Result<Option<SecretBytes>, String> {
        let Some(place) = spec.env.as_ref().or(spec.file.as_ref()) else { return Ok(None) };
        match self.0.lock().unwrap().get(place) {
            Some(value) => Ok(Some(SecretBytes::new(value.as_bytes()))),
            None => Err(format!("{place} is not set")),
        }
    }
}

/// A store and what stands round it.
pub struct World {
    folder: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub outside: Arc<OutsideSecrets>,
    pub key: MasterKey,
    pub disk_min_free: u64,
    pub durability: Durability,
    store: Option<Store>,
}

impl World {
    /// A new store on SQLite, with the endpoint `in` and the recipe `act` on it.
    pub async fn on_sqlite() -> Self {
        let world = Self::empty();
        world.apply(json!([endpoint("in"), recipe("act", "in")])).await;
        world
    }

    /// A new store on the same backend, with the same documents.
    pub async fn another(&self) -> Self {
        Self::on_sqlite().await
    }

    /// A new store on SQLite without documents.
    pub fn empty() -> Self {
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock(AtomicI64::new(1_800_000_000_000_000))),
            outside: Arc::default(),
            key: MasterKey::new(&[7; 32]),
            disk_min_free: 0,
            durability: Durability::Full,
            store: None,
        };
        world.store = Some(world.open().unwrap());
        world
    }

    /// The folder that everything stands in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Opens the store; it must not be open.
    pub fn open(&self) -> Result<Store> {
        Store::open(Settings {
            database: self.folder().join("linkspan.db"),
            spool: self.folder().join("spool"),
            key: self.key.clone(),
            secrets: Arc::clone(&self.outside) as Arc<dyn SecretSource>,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            durability: self.durability,
            disk_min_free: self.disk_min_free,
            statements: None,
        })
    }

    /// The open store.
    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Closes the store; no clone of it may be left.
    pub fn close(&mut self) {
        drop(self.store.take());
    }

    /// Closes the store and opens it again.
    pub fn reopen(&mut self) {
        self.close();
        self.store = Some(self.open().unwrap());
    }

    /// Applies documents.
    pub async fn apply(&self, documents: Value) -> Vec<Change> {
        self.store().apply(read(documents), None, false, false).await.unwrap()
    }

    /// The row of an endpoint.
    pub fn endpoint(&self, name: &str) -> i64 {
        self.store().snapshot().endpoint(&name.parse().unwrap()).unwrap().row
    }

    /// Row and revision of a recipe.
    pub fn recipe(&self, name: &str) -> (i64, u64) {
        let snapshot = self.store().snapshot();
        let recipe = snapshot.recipe(&name.parse().unwrap()).unwrap();
        (recipe.row, recipe.revision)
    }

    /// The row of a sync.
    pub fn sync(&self, name: &str) -> i64 {
        self.store().snapshot().sync(&name.parse().unwrap()).unwrap().row
    }

    /// An event of the endpoint `in` that is not stored yet.
    pub fn event(&self, body: impl Into<Bytes>) -> NewEvent {
        NewEvent {
            endpoint: self.endpoint("in"),
            received_at: self.clock.now(),
            salt: 0x5a5,
            head: serde_json::to_vec(&head()).unwrap(),
            body: body.into(),
            spool: None,
            dedupe: None,
        }
    }

    /// Stores an event of the endpoint `in`.
    pub async fn append(&self, body: impl Into<Bytes>) -> EventId {
        let appended = append_within(self.store(), self.event(body), limits::COMMIT_DEADLINE).await.unwrap();
        assert!(!appended.duplicate);
        appended.id
    }

    /// Stores an event that its sender names `id`, remembered for `within`.
    pub async fn append_once(&self, endpoint: &str, id: &str, within: Duration) -> Appended {
        let mut event = self.event(id.to_owned());
        event.endpoint = self.endpoint(endpoint);
        event.dedupe = Some(DedupeKey::new(id.as_bytes(), self.clock.now().after(within)));
        append_within(self.store(), event, limits::COMMIT_DEADLINE).await.unwrap()
    }

    /// Dispatches the log from where dispatch is, with a job of `act` for each event.
    pub async fn dispatch_all(&self) {
        let after = self.store().dispatch_position().await.unwrap();
        let events = self.store().events_after(after, u32::MAX).await.unwrap();
        let jobs = events.iter().map(|stored| self.job_for(stored.event.id)).collect();
        let runs = LogRun::of(events.iter().map(|stored| (stored.endpoint, stored.seq)));
        let up_to = events.last().map_or(after, |stored| stored.seq);
        self.store().dispatch(Dispatched { after, up_to, runs, jobs }).await.unwrap();
    }

    /// A job of `act` on an event.
    pub fn job_for(&self, event: EventId) -> NewJob {
        let (recipe, recipe_revision) = self.recipe("act");
        NewJob { recipe, recipe_revision, event, salt: 0xabc, rerun_of: None, is_deferred: false }
    }

    /// Stores an event, dispatches it and takes its job.
    pub async fn claimed(&self) -> Claimed {
        self.claimed_of(1).await.remove(0)
    }

    /// Stores one more event, dispatches what waits and takes the jobs, of which there are `jobs`.
    pub async fn claimed_of(&self, jobs: usize) -> Vec<Claimed> {
        self.append("work").await;
        self.dispatch_all().await;
        let claimed = self.claim(10).await.unwrap();
        assert_eq!(claimed.len(), jobs);
        claimed
    }

    /// Takes up to `most` due jobs.
    pub async fn claim(&self, most: u32) -> Result<Vec<Claimed>> {
        self.store().claim(&mut linkspan_store::Shares::of(most)).await
    }

    /// The ids of all jobs, oldest first.
    pub async fn jobs(&self) -> Vec<JobId> {
        let filter = linkspan_store::JobFilter { limit: 100_000, ..Default::default() };
        let mut jobs: Vec<JobId> = self.store().jobs(filter).await.unwrap().jobs.iter().map(|job| job.id).collect();
        jobs.reverse();
        jobs
    }

    /// The names of the files in the spool.
    pub fn spooled(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder().join("spool")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Appends an event that the writer must take before `deadline`.
pub async fn append_within(store: &Store, event: NewEvent, deadline: Duration) -> Result<Appended> {
    store.append(event, std::pin::pin!(tokio::time::sleep(deadline))).await
}

/// Reads documents.
pub fn read(documents: Value) -> Vec<Document> {
    documents.as_array().unwrap().iter().map(|document| Document::read(document).unwrap()).collect()
}

/// A name.
pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The head of an event.
pub fn head() -> EventHead {
    EventHead {
        method: "POST".to_owned(),
        event_name: Some("käse/1".to_owned()),
        query: Some("a=1&a=%20".to_owned()),
        headers: vec![
            ("content-type".to_owned(), HeaderText::new("application/json")),
            ("x-bytes".to_owned(), HeaderText::new(vec![0xff, 0x00, 0x80])),
            ("x-text".to_owned(), HeaderText::new("grüße")),
            ("x-text".to_owned(), HeaderText::new("")),
        ],
        remote: Some("192.0.2.7".to_owned()),
        verified: VerifiedBy { by: "none".to_owned(), ok: false },
    }
}

/// A step after its first attempt.
pub fn step_run(status: JobStatus) -> StepRun {
    StepRun {
        id: "tell".to_owned(),
        status,
        attempts: 1,
        attempt_log: vec![AttemptRun {
            number: 1,
            started_at: Timestamp::from_micros(1_700_000_000_000_001),
            timings: Some(Timings { total_us: 12, ..Timings::default() }),
            status: Some(200),
            error: None,
            decision: AttemptDecision::Succeeded,
            reason: None,
            retry_at: None,
            input: Some(JsonText::of("as sent").unwrap()),
            output: None,
        }],
        resumed: false,
        input: None,
        output: None,
        error: None,
        retry_at: None,
        started_at: None,
        finished_at: None,
    }
}

/// A document of an endpoint that asks for no proof.
pub fn endpoint(name: &str) -> Value {
    json!({"kind": "endpoint", "name": name, "spec": {"verify": "none"}})
}

/// A document of a recipe on an endpoint.
pub fn recipe(name: &str, endpoint: &str) -> Value {
    json!({"kind": "recipe", "name": name, "spec": {
        "trigger": {"webhook": {"endpoint": endpoint}},
        "steps": [{"id": "tell", "request": {"method": "POST", "url": "https://api.example.com/tickets"}}],
    }})
}

/// Documents of a destination and a sync of the endpoint `in`.
pub fn sync(name: &str) -> Value {
    json!([
        {"kind": "destination", "name": "warehouse", "spec": {"sqlite": {"path": "warehouse.db"}}},
        {"kind": "sync", "name": name, "spec": {
            "from": {"endpoint": "in"},
            "to": {"destination": "warehouse", "schema": "sales", "table": "orders"},
        }},
    ])
}
