use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use linkspan_model::event::{EventHead, VerifiedBy};
use linkspan_model::rows::{Columns, rows};
use linkspan_model::secret::SecretSpec;
use linkspan_model::{Document, EventId, SecretBytes, limits};
use linkspan_store::{Dispatched, Durability, LogRun, MasterKey, NewEvent, SecretSource, Settings, SpoolFile, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::*;
use crate::destination::{self, Page};

struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

struct NoSecrets;

impl SecretSource for NoSecrets {
    fn value(&self, _: &SecretSpec) -> Result<Option<SecretBytes>, String> {
        Ok(None)
    }
}

/// A store with the endpoint `in`, and the sync `s` of it into `sales.orders`.
struct World {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Option<Store>,
    stop: CancellationToken,
    /// Every event appended, with its body.
    appended: Vec<(EventId, Bytes)>,
}

impl World {
    async fn new() -> Self {
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock(AtomicI64::new(1_800_000_000_000_000))),
            store: None,
            stop: CancellationToken::new(),
            appended: Vec::new(),
        };
        world.reopen();
        world
            .apply(json!([
                {"kind": "endpoint", "name": "in", "spec": {"verify": "none"}},
                {"kind": "endpoint", "name": "other", "spec": {"verify": "none"}},
                {"kind": "destination", "name": "warehouse", "spec": {"sqlite": {"path": "w.db"}}},
            ]))
            .await;
        world.apply(json!([sync("orders", "in")])).await;
        world
    }

    fn reopen(&mut self) {
        drop(self.store.take());
        let settings = Settings {
            database: self.folder.path().join("linkspan.db"),
            spool: self.folder.path().join("spool"),
            key: MasterKey::new(&[7; 32]),
            secrets: Arc::new(NoSecrets),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            durability: Durability::Off,
            disk_min_free: 0,
            statements: None,
        };
        self.store = Some(Store::open(settings).unwrap());
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    async fn apply(&self, documents: Value) {
        let documents = documents.as_array().unwrap().iter().map(|value| Document::read(value).unwrap()).collect();
        self.store().apply(documents, None, false, false).await.unwrap();
    }

    fn view(&self) -> Arc<SyncView> {
        Arc::clone(self.store().snapshot().sync(&"s".parse().unwrap()).unwrap())
    }

    /// Runs of two events a batch.
    fn runner(&self) -> SyncRunner {
        let (bucket, destinations) = (self.folder.path().join("bucket"), self.folder.path().join("destinations"));
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        SyncRunner { batch_events: 2, ..SyncRunner::below(self.store().clone(), bucket, destinations, clock) }
    }

    async fn append_to(&mut self, endpoint: &str, query: Option<&str>, body: &str) -> EventId {
        self.append_event(endpoint, query, Bytes::copy_from_slice(body.as_bytes()), None).await
    }

    async fn append_event(
        &mut self,
        endpoint: &str,
        query: Option<&str>,
        body: Bytes,
        spool: Option<SpoolFile>,
    ) -> EventId {
        let row = self.store().snapshot().endpoint(&endpoint.parse().unwrap()).unwrap().row;
        let head = EventHead {
            method: "POST".to_owned(),
            event_name: None,
            query: query.map(str::to_owned),
            headers: Vec::new(),
            remote: None,
            verified: VerifiedBy { by: "none".to_owned(), ok: false },
        };
        let event = NewEvent {
            endpoint: row,
            received_at: self.clock.now(),
            salt: 1,
            head: serde_json::to_vec(&head).unwrap(),
            body: body.clone(),
            spool,
            dedupe: None,
        };
        let patience = std::pin::pin!(tokio::time::sleep(limits::COMMIT_DEADLINE));
        let id = self.store().append(event, patience).await.unwrap().id;
        if endpoint == "in" {
            self.appended.push((id, body));
        }
        id
    }

    async fn append(&mut self, body: &str) -> EventId {
        self.append_to("in", None, body).await
    }

    async fn dispatch(&self) {
        let after = self.store().dispatch_position().await.unwrap();
        let events = self.store().events_after(after, u32::MAX).await.unwrap();
        let Some(last) = events.last() else { return };
        let runs = LogRun::of(events.iter().map(|stored| (stored.endpoint, stored.seq)));
        let dispatched = Dispatched { after, up_to: last.seq, runs, jobs: Vec::new() };
        self.store().dispatch(dispatched).await.unwrap();
    }

    async fn run(&self) -> Result<SyncOutcome, SyncError> {
        self.runner().run(&self.view(), &self.stop).await
    }

    /// A run that ends as if the process had died after `stage`.
    async fn run_cut(&self, stage: Stage) -> Result<SyncOutcome, SyncError> {
        let runner = self.runner();
        *runner.cut.lock().unwrap() = Some(stage);
        runner.run(&self.view(), &self.stop).await
    }

    async fn page_of(&self, table: &str) -> Option<Page> {
        let spec = serde_json::from_value(json!({"sqlite": {"path": "w.db"}})).unwrap();
        let table = TableName::new("sales", table).unwrap();
        destination::page(self.folder.path().join("destinations"), spec, table, 0, 10_000).await.unwrap()
    }

    /// The ids of the events in the table, in order of its rows.
    async fn loaded(&self, table: &str) -> Vec<String> {
        let page = self.page_of(table).await;
        page.map_or_else(Vec::new, |page| page.rows.iter().map(|row| row["_id"].as_str().unwrap().to_owned()).collect())
    }

    /// How often each event stands in the bucket.
    fn archived(&self) -> BTreeMap<EventId, usize> {
        let root = self.folder.path().join("bucket");
        let bucket = Bucket::own(root.clone());
        let mut found = BTreeMap::new();
        for path in files(&root) {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if name.ends_with(".part") {
                continue;
            }
            for event in bucket.read(&name, None).unwrap() {
                *found.entry(event.id).or_default() += 1;
            }
        }
        found
    }

    /// Table and bucket hold exactly what was appended.
    async fn check(&self) {
        let mut columns = Columns::new();
        let mut expected = Vec::new();
        for (id, body) in &self.appended {
            for row in rows(*id, self.clock.now(), None, body, linkspan_model::sync::SyncFormat::Unpacked).rows {
                columns.learn(&row);
                expected.push(row);
            }
        }
        let Some(page) = self.page_of("orders").await else {
            assert!(self.appended.is_empty());
            return;
        };
        let types: Vec<_> = page.columns.iter().skip(4).map(|column| (column.name.clone(), column.kind)).collect();
        let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
        // A batch that was set aside comes after those that went on.
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(types.iter().map(|(name, _)| name.clone()).collect()), sorted(names));
        assert_eq!(page.rows.len(), expected.len());
        let mut rows = page.rows;
        rows.sort_by_key(|row| (row["_id"].to_string(), row["_index"].as_u64()));
        for (found, row) in rows.iter().zip(&expected) {
            assert_eq!((&found["_id"], &found["_index"]), (&json!(row.id), &json!(row.index)));
            for column in columns.iter() {
                let text = row.cells.get(&column.source).and_then(|cell| cell.to_text());
                let found = match &found[&column.name] {
                    Value::Null => None,
                    Value::String(text) => Some(text.clone()),
                    other => Some(other.to_string()),
                };
                assert_eq!(found.as_deref(), text.as_deref(), "{}", column.name);
            }
        }
        let archived = self.archived();
        assert_eq!(archived.keys().copied().collect::<Vec<_>>(), self.appended_ids());
        assert!(archived.values().all(|times| *times == 1), "{archived:?}");
    }

    fn appended_ids(&self) -> Vec<EventId> {
        let mut ids: Vec<EventId> = self.appended.iter().map(|(id, _)| *id).collect();
        ids.sort();
        ids
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .collect()
}

fn sync(table: &str, endpoint: &str) -> Value {
    json!({"kind": "sync", "name": "s", "spec": {
        "from": {"endpoint": endpoint}, "to": {"destination": "warehouse", "schema": "sales", "table": table},
    }})
}

const STAGES: [Stage; 5] = [Stage::Begun, Stage::Put, Stage::Packed, Stage::Loaded, Stage::Noted];

#[tokio::test]
async fn loads_the_events_of_its_endpoint_in_batches() {
    let mut world = World::new().await;
    for n in 0..5 {
        world.append(&format!(r#"{{"n": {n}}}"#)).await;
        world.append_to("other", None, "{}").await;
    }
    assert_eq!(world.run().await.unwrap(), SyncOutcome::default(), "nothing is dispatched yet");
    world.dispatch().await;
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.batches, outcome.events, outcome.rows), (3, 5, 5));
    world.check().await;
    assert_eq!(world.run().await.unwrap(), SyncOutcome::default());
    let (state, open) = world.store().sync_state(world.view().row).await.unwrap();
    assert_eq!((state.position, state.events, state.rows, open), (9, 5, 5, None));
    assert!(state.succeeded_at.is_some() && state.error.is_none());
    let id = &world.view().id;
    let object = world.store().sync_batches(world.view().row, 0, 1).await.unwrap().remove(0).object;
    assert_eq!(object, format!("endpoints/in/syncs/{id}/2027/01/15/{:020}-{:020}.ndjson.zst", 0, 3));
}

#[tokio::test]
async fn goes_on_after_a_crash_at_any_stage() {
    for stage in STAGES {
        for restart in [false, true] {
            let mut world = World::new().await;
            for n in 0..3 {
                world.append(&format!(r#"[{{"n": {n}}}, {{"n": "{n}"}}]"#)).await;
            }
            world.dispatch().await;
            assert!(matches!(world.run_cut(stage).await, Err(SyncError::Cut)), "{stage:?}");
            if restart {
                world.reopen();
            }
            // What comes meanwhile does not change the batch that was begun.
            world.append(r#"{"n": 1.5}"#).await;
            world.dispatch().await;
            world.run().await.unwrap();
            world.check().await;
            let (state, _) = world.store().sync_state(world.view().row).await.unwrap();
            assert_eq!((state.events, state.rows), (4, 7), "{stage:?}");
        }
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Append(String),
    Dispatch,
    Run,
    Crash(Stage),
    Restart,
}

fn body() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        Just("1.10".to_owned()),
        Just("18446744073709551616".to_owned()),
        "[a-z]{0,3}".prop_map(|text| format!("\"{text}\"")),
        // As a page shows it, without spaces.
        Just("[1,2.0]".to_owned()),
    ];
    let fields = prop::collection::vec((prop::sample::select(vec!["a", "b", "aB", "_id"]), value), 0..4);
    let object = fields.prop_map(|fields| {
        let fields: Vec<String> = fields.into_iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        format!("{{{}}}", fields.join(", "))
    });
    prop_oneof![
        4 => object.clone(),
        2 => prop::collection::vec(object, 0..3).prop_map(|elements| format!("[{}]", elements.join(","))),
        1 => Just("no json".to_owned()),
        1 => Just(String::new()),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => body().prop_map(Deed::Append),
        2 => Just(Deed::Dispatch),
        1 => Just(Deed::Run),
        2 => prop::sample::select(STAGES.to_vec()).prop_map(Deed::Crash),
        1 => Just(Deed::Restart),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_every_event_once_under_any_crashes() {
    let runtime = tokio::runtime::Handle::current();
    let tested = tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(Config { cases: 16, failure_persistence: None, ..Config::default() });
        runner.run(&prop::collection::vec(deed(), 1..40), |deeds| {
            runtime.block_on(async {
                let mut world = World::new().await;
                for deed in deeds {
                    match deed {
                        Deed::Append(body) => drop(world.append(&body).await),
                        Deed::Dispatch => world.dispatch().await,
                        Deed::Run => drop(world.run().await.unwrap()),
                        Deed::Crash(stage) => match world.run_cut(stage).await {
                            Ok(_) | Err(SyncError::Cut) => {}
                            Err(error) => panic!("{error}"),
                        },
                        Deed::Restart => world.reopen(),
                    }
                }
                world.dispatch().await;
                world.run().await.unwrap();
                // What the process died of twice was set aside; who asks has it tried again.
                world.store().request_sync(world.view().row).await.unwrap();
                let outcome = world.run().await.unwrap();
                assert_eq!(outcome.aside, 0);
                world.check().await;
            });
            Ok(())
        })
    });
    tested.await.unwrap().unwrap();
}

#[tokio::test]
async fn fills_a_destination_that_lost_its_rows_from_the_bucket() {
    let mut world = World::new().await;
    for n in 0..5 {
        world.append(&format!(r#"{{"n": {n}}}"#)).await;
    }
    world.append_to("in", None, "\u{feff}[]").await;
    world.dispatch().await;
    world.run().await.unwrap();
    for file in files(&world.folder.path().join("destinations")) {
        fs::remove_file(file).unwrap();
    }
    world.append(r#"{"n": 5}"#).await;
    world.dispatch().await;
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.refilled, outcome.events), (3, 1));
    world.check().await;
    // Another table is such a destination too.
    world.apply(json!([sync("copies", "in")])).await;
    assert_eq!(world.run().await.unwrap().refilled, 4);
    assert_eq!(world.loaded("copies").await, world.loaded("orders").await);
    assert_eq!(world.run().await.unwrap().refilled, 0);
}

#[tokio::test]
async fn finishes_a_batch_with_the_endpoint_that_it_was_begun_with() {
    let mut world = World::new().await;
    let first = world.append("{}").await;
    world.dispatch().await;
    assert!(world.run_cut(Stage::Begun).await.is_err());
    world.apply(json!([sync("orders", "other")])).await;
    let second = world.append_to("other", None, "{}").await;
    world.dispatch().await;
    world.run().await.unwrap();
    assert_eq!(world.loaded("orders").await, [first.to_string(), second.to_string()]);
}

#[tokio::test]
async fn finishes_a_batch_whose_endpoint_is_gone() {
    for stage in [Stage::Begun, Stage::Put, Stage::Packed, Stage::Loaded] {
        let mut world = World::new().await;
        let first = world.append("{}").await;
        let foreign = world.append_to("other", None, "{}").await;
        let second = world.append("{}").await;
        world.dispatch().await;
        assert!(world.run_cut(stage).await.is_err());
        world.apply(json!([sync("orders", "other")])).await;
        let name = "in".parse().unwrap();
        world.store().delete(linkspan_model::Kind::Endpoint, name, linkspan_store::Precondition::None).await.unwrap();
        let third = world.append_to("other", None, "{}").await;
        world.dispatch().await;
        world.run().await.unwrap();
        let expected = [first, second, third].map(|id| id.to_string());
        assert_eq!(
            world.loaded("orders").await,
            expected,
            "{stage:?}: {foreign} came before the sync named its endpoint"
        );
    }
}

/// The last event of the log, and those before it, expire.
async fn forget_the_log(world: &World) {
    world.clock.0.fetch_add(365 * 86_400_000_000, Ordering::Relaxed);
    let mut sweep = linkspan_store::Sweep::default();
    world.store().expire(linkspan_store::Retention::default(), &mut sweep).await.unwrap();
}

#[tokio::test]
async fn sets_a_batch_aside_that_the_process_died_of_twice() {
    let mut world = World::new().await;
    let cursed = world.append("{}").await;
    world.dispatch().await;
    for _ in 0..2 {
        assert!(matches!(world.run_cut(Stage::Packed).await, Err(SyncError::Cut)));
        world.reopen();
    }
    let later = world.append("{}").await;
    world.dispatch().await;
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.aside, outcome.events), (1, 1));
    assert_eq!(world.loaded("orders").await, [later.to_string()]);
    let state = async |world: &World| world.store().sync_state(world.view().row).await.unwrap().0;
    let reason = state(&world).await.aside_reason.unwrap();
    assert!(reason.starts_with("the server ended 2 times while it loaded"), "{reason}");
    // By itself it is not tried again; who asks has it tried, and it may kill twice more.
    assert_eq!(world.run().await.unwrap(), SyncOutcome::default());
    world.store().request_sync(world.view().row).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(world.run_cut(Stage::Packed).await, Err(SyncError::Cut)));
        world.reopen();
    }
    assert_eq!(world.run().await.unwrap(), SyncOutcome::default());
    world.store().request_sync(world.view().row).await.unwrap();
    assert_eq!(world.run().await.unwrap().events, 1);
    assert_eq!(world.loaded("orders").await, [later.to_string(), cursed.to_string()]);
    assert_eq!((state(&world).await.aside, state(&world).await.events), (0, 2));
    world.check().await;
}

#[tokio::test]
async fn a_run_that_failed_is_no_death() {
    let mut world = World::new().await;
    world.append("{}").await;
    world.dispatch().await;
    let destinations = world.folder.path().join("destinations");
    assert!(matches!(world.run_cut(Stage::Begun).await, Err(SyncError::Cut)));
    fs::create_dir_all(&destinations).unwrap();
    for _ in 0..5 {
        fs::write(destinations.join("w.db"), "no database at all".repeat(100)).unwrap();
        assert!(world.run().await.is_err());
    }
    fs::remove_file(destinations.join("w.db")).unwrap();
    assert_eq!(world.run().await.unwrap().aside, 0);
    world.check().await;
}

#[tokio::test]
async fn fills_a_table_that_was_dropped_emptied_or_set_back() {
    for (sql, note) in [
        (r#"DROP TABLE "sales.orders""#, "was not there"),
        (r#"DELETE FROM "sales.orders""#, "was empty"),
        (r#"DELETE FROM "sales.orders" WHERE n > 2; UPDATE _linkspan_positions SET seq = 2"#, "was behind"),
        ("DELETE FROM _linkspan_positions", "was behind"),
    ] {
        let mut world = World::new().await;
        for n in 0..5 {
            world.append(&format!(r#"{{"n": {n}}}"#)).await;
        }
        world.dispatch().await;
        world.run().await.unwrap();
        let db = rusqlite::Connection::open(world.folder.path().join("destinations/w.db")).unwrap();
        db.execute_batch(sql).unwrap();
        let outcome = world.run().await.unwrap();
        assert!(outcome.refilled > 0 && outcome.note.as_ref().unwrap().contains(note), "{sql}: {outcome:?}");
        world.check().await;
        let (state, _) = world.store().sync_state(world.view().row).await.unwrap();
        assert_eq!((state.events, state.note), (5, outcome.note));
        assert_eq!(world.run().await.unwrap(), SyncOutcome::default(), "{sql}: it is as it was left now");
    }
}

#[tokio::test]
async fn passes_nothing_over_when_a_position_was_moved_ahead() {
    let mut world = World::new().await;
    world.append(r#"{"n": 0}"#).await;
    world.dispatch().await;
    world.run().await.unwrap();
    let db = rusqlite::Connection::open(world.folder.path().join("destinations/w.db")).unwrap();
    db.execute_batch("UPDATE _linkspan_positions SET seq = 3").unwrap();
    for n in 1..5 {
        world.append(&format!(r#"{{"n": {n}}}"#)).await;
    }
    world.dispatch().await;
    let outcome = world.run().await.unwrap();
    assert!(outcome.note.unwrap().contains("ahead of the 1 that this sync has come to"));
    world.check().await;
}

#[tokio::test]
async fn rebuilds_a_table_when_asked() {
    let mut world = World::new().await;
    for n in 0..5 {
        world.append(&format!(r#"{{"n": {n}}}"#)).await;
    }
    world.dispatch().await;
    world.run().await.unwrap();
    let db = rusqlite::Connection::open(world.folder.path().join("destinations/w.db")).unwrap();
    db.execute_batch(r#"DELETE FROM "sales.orders" WHERE n = 1; UPDATE "sales.orders" SET n = 9 WHERE n = 3"#).unwrap();
    assert_eq!(world.run().await.unwrap(), SyncOutcome::default(), "single rows are the reader's business");
    let row = world.view().row;
    let ticket = world.store().request_resync(row).await.unwrap();
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.refilled, outcome.events), (3, 0));
    assert!(world.store().sync_is_done(row, ticket).await.unwrap());
    world.check().await;
    assert_eq!(world.run().await.unwrap(), SyncOutcome::default());
    assert_eq!(world.store().sync_state(row).await.unwrap().0.events, 5);
}

#[tokio::test]
async fn an_object_that_is_damaged_or_gone_comes_from_the_log() {
    for damage in [true, false] {
        let mut world = World::new().await;
        for n in 0..5 {
            world.append(&format!(r#"{{"n": {n}}}"#)).await;
        }
        world.dispatch().await;
        world.run().await.unwrap();
        for object in files(&world.folder.path().join("bucket")).into_iter().take(2) {
            if damage {
                let mut bytes = fs::read(&object).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&object, bytes).unwrap();
            } else {
                fs::remove_file(&object).unwrap();
            }
        }
        fs::remove_dir_all(world.folder.path().join("destinations")).unwrap();
        let outcome = world.run().await.unwrap();
        assert_eq!((outcome.refilled, outcome.aside), (3, 0));
        for kept in files(&world.folder.path().join("bucket")) {
            if kept.extension().is_some_and(|end| end == "damaged") {
                fs::remove_file(kept).unwrap();
            }
        }
        // The archive is whole again.
        world.check().await;
    }
}

#[tokio::test]
async fn what_neither_bucket_nor_log_holds_is_set_aside() {
    let mut world = World::new().await;
    for n in 0..5 {
        world.append(&format!(r#"{{"n": {n}}}"#)).await;
    }
    world.dispatch().await;
    world.run().await.unwrap();
    forget_the_log(&world).await;
    let mut objects = files(&world.folder.path().join("bucket"));
    objects.sort();
    let hidden = objects[1].with_extension("hidden");
    fs::rename(&objects[1], &hidden).unwrap();
    fs::remove_dir_all(world.folder.path().join("destinations")).unwrap();
    world.append(r#"{"n": 5}"#).await;
    world.dispatch().await;
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.refilled, outcome.aside, outcome.events), (2, 1, 1));
    assert_eq!(world.loaded("orders").await.len(), 4);
    let row = world.view().row;
    let (state, _) = world.store().sync_state(row).await.unwrap();
    let reason = state.aside_reason.unwrap();
    assert!(reason.contains("after position 2 up to 4 are no longer in the log"), "{reason}");
    // It stays aside when it is asked for and still gone, and comes back with its object.
    world.store().request_sync(row).await.unwrap();
    assert_eq!(world.run().await.unwrap().aside, 1);
    fs::rename(&hidden, &objects[1]).unwrap();
    world.store().request_sync(row).await.unwrap();
    assert_eq!(world.run().await.unwrap().batches, 1);
    world.check().await;
    let (state, _) = world.store().sync_state(row).await.unwrap();
    assert_eq!((state.aside, state.events, state.error), (0, 6, None));
}

#[tokio::test]
async fn an_event_whose_body_is_lost_is_set_aside_until_it_is_back() {
    let mut world = World::new().await;
    let first = world.append(r#"{"n": 0}"#).await;
    let large = Bytes::from(format!(r#"{{"n": "{}"}}"#, "x".repeat(100_000)));
    let file = world.store().spool(large.clone()).await.unwrap();
    let lost = world.append_event("in", None, large, Some(file)).await;
    let last = world.append(r#"{"n": 2}"#).await;
    world.dispatch().await;
    let spooled = files(&world.folder.path().join("spool")).remove(0);
    let hidden = world.folder.path().join("hidden");
    fs::rename(&spooled, &hidden).unwrap();
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.aside, outcome.events), (1, 2));
    assert_eq!(world.loaded("orders").await, [first.to_string(), last.to_string()]);
    let row = world.view().row;
    let reason = world.store().sync_state(row).await.unwrap().0.aside_reason.unwrap();
    assert!(reason.contains("spool file"), "{reason}");
    fs::rename(&hidden, &spooled).unwrap();
    world.store().request_sync(row).await.unwrap();
    assert_eq!(world.run().await.unwrap().events, 1);
    assert_eq!(world.loaded("orders").await, [first, last, lost].map(|id| id.to_string()));
    world.check().await;
}

#[tokio::test]
async fn a_batch_is_bounded_by_the_bytes_of_heads_too() {
    let mut world = World::new().await;
    let query = format!("a={}", "x".repeat(60_000));
    for _ in 0..300 {
        world.append_to("in", Some(&query), "{}").await;
    }
    world.dispatch().await;
    let row = world.store().snapshot().endpoint(&"in".parse().unwrap()).unwrap().row;
    let found = world.store().endpoint_events_after(row, 0, u64::MAX, 5_000).await.unwrap();
    let bytes = found.events.len() * query.len();
    assert!((7 << 20..9 << 20).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn a_begun_batch_whose_events_expired_is_set_aside() {
    let mut world = World::new().await;
    world.append("{}").await;
    world.dispatch().await;
    assert!(world.run_cut(Stage::Begun).await.is_err());
    // The log loses the event by other hands: expiry waits for the sync.
    let db = rusqlite::Connection::open(world.folder.path().join("linkspan.db")).unwrap();
    db.execute_batch("DELETE FROM events").unwrap();
    drop(db);
    let later = world.append("{}").await;
    world.dispatch().await;
    assert_eq!(world.run().await.unwrap().aside, 1);
    assert_eq!(world.loaded("orders").await, [later.to_string()]);
}

#[tokio::test]
async fn notes_why_a_run_failed_and_goes_on_when_it_is_mended() {
    let mut world = World::new().await;
    world.append("{}").await;
    world.dispatch().await;
    let destinations = world.folder.path().join("destinations");
    fs::create_dir_all(&destinations).unwrap();
    fs::write(destinations.join("w.db"), "no database at all".repeat(100)).unwrap();
    assert!(matches!(world.run().await, Err(SyncError::Destination(_))));
    let (state, _) = world.store().sync_state(world.view().row).await.unwrap();
    assert!(state.error.unwrap().starts_with("destination w.db: "));
    assert!(state.failed_at.is_some());
    fs::remove_file(destinations.join("w.db")).unwrap();
    world.run().await.unwrap();
    world.check().await;
    assert_eq!(world.store().sync_state(world.view().row).await.unwrap().0.error, None);
}

#[tokio::test]
async fn refuses_to_replace_a_foreign_object() {
    let mut world = World::new().await;
    world.append("{}").await;
    world.dispatch().await;
    assert!(world.run_cut(Stage::Begun).await.is_err());
    let (_, open) = world.store().sync_state(world.view().row).await.unwrap();
    Bucket::own(world.folder.path().join("bucket")).put(&open.unwrap().object, &|to| to.write_all(b"{}\n")).unwrap();
    assert!(matches!(world.run().await, Err(SyncError::Bucket(BucketError::Other(_)))));
    assert_eq!(world.loaded("orders").await, Vec::<String>::new());
}

#[tokio::test]
async fn takes_the_query_of_a_request_without_body() {
    let mut world = World::new().await;
    world.append_to("in", Some("a=1&b=x%20y&a=2"), "").await;
    world.append_to("in", Some("a=ignored"), r#"{"b": 3}"#).await;
    world.dispatch().await;
    world.run().await.unwrap();
    let page = world.page_of("orders").await.unwrap();
    assert_eq!((&page.rows[0]["a"], &page.rows[0]["b"]), (&json!(["1", "2"]), &json!("x y")));
    assert_eq!((&page.rows[1]["a"], &page.rows[1]["b"]), (&json!(null), &json!("3")));
}

#[tokio::test]
async fn skips_what_is_not_its_own_so_that_it_can_expire() {
    let mut world = World::new().await;
    world.append("{}").await;
    for _ in 0..1_200 {
        world.append_to("other", None, "{}").await;
    }
    world.dispatch().await;
    world.run().await.unwrap();
    assert_eq!(world.store().sync_state(world.view().row).await.unwrap().0.position, 1_201);
    world.append("{}").await;
    world.dispatch().await;
    world.run().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn stops_between_batches_and_is_due_again() {
    let mut world = World::new().await;
    world.append("{}").await;
    world.dispatch().await;
    world.stop.cancel();
    assert!(world.run().await.unwrap().is_stopped);
    let (state, _) = world.store().sync_state(world.view().row).await.unwrap();
    assert!(state.finished_at.is_none() && state.error.is_none());
}

/// Whether the request is answered within 20 seconds.
async fn is_answered(world: &World, ticket: linkspan_store::SyncTicket) -> bool {
    for _ in 0..2_000 {
        if world.store().sync_is_done(world.view().row, ticket).await.unwrap() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_on_demand_with_the_events_that_came_before() {
    let mut world = World::new().await;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(schedule::run(world.runner(), world.stop.clone()));
    for n in 0..3 {
        world.append(&format!(r#"{{"n": {n}}}"#)).await;
        let ticket = world.store().request_sync(world.view().row).await.unwrap();
        // Dispatch comes late.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!world.store().sync_is_done(world.view().row, ticket).await.unwrap());
        world.dispatch().await;
        assert!(is_answered(&world, ticket).await);
        world.check().await;
        assert_eq!(world.loaded("orders").await.len(), n + 1);
    }
    world.stop.cancel();
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_syncs_beside_each_other_and_each_by_its_schedule() {
    let mut world = World::new().await;
    let mut documents = Vec::new();
    for n in 0..6 {
        let mut document = sync(&format!("copy_{n}"), "in");
        document["name"] = json!(format!("s-{n}"));
        document["spec"]["every"] = json!("1h");
        document["spec"]["enabled"] = json!(n != 5);
        documents.push(document);
    }
    world.apply(Value::Array(documents)).await;
    world.append("{}").await;
    world.dispatch().await;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(schedule::run(world.runner(), world.stop.clone()));
    for rows in 1..3 {
        for n in 0..5 {
            let mut tries = 0;
            while world.loaded(&format!("copy_{n}")).await.len() < rows {
                tries += 1;
                assert!(tries < 2_000, "copy_{n} was not loaded");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        world.append("{}").await;
        world.dispatch().await;
        world.clock.0.fetch_add(3_600_000_000, Ordering::Relaxed);
    }
    assert_eq!(world.page_of("copy_5").await, None, "it is switched off");
    assert_eq!(world.page_of("orders").await, None, "it runs on demand only");
    world.stop.cancel();
    tasks.join_all().await;
}
