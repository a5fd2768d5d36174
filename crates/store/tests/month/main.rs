//! Every operation of the store on a month-old one: its work is bounded by what SQLite counts, never by the clock. An
//! operation that is added and walks what is stored fails here; one that is added and not tried here, too.
//!
//! Takes minutes the first time, for the store is made; so it is left out unless it is asked for:
//! `cargo nextest run --profile month`.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail the test")]

mod fixture;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use linkspan_model::event::{EventHead, HeaderText, VerifiedBy};
use linkspan_model::id::EventId;
use linkspan_model::job::{JobStatus, StepError, StepRun};
use linkspan_model::{Document, Kind, Name};
use linkspan_store::{
    BatchOutcome, BatchState, ConnectionTest, DedupeKey, Dispatched, EventFilter, JobFilter, LogRun, NewBatch,
    NewEvent, NewJob, NewRefusal, NewToken, Next, Precondition, RefusalFilter, Retention, Shares, StatementWork,
    StepRecord, Store, Sweep, TokenOutcome, TokenTurn,
};
use serde_json::{Value, json};

/// The work that one operation may take, as SQLite counts it.
#[derive(Clone, Copy)]
struct Bound {
    /// Steps of the virtual machine in the writer, where everybody waits.
    written: u64,
    /// Steps of the virtual machine elsewhere: a page of a hundred rows takes a few thousand.
    read: u64,
    /// Rows that are passed in scans of whole tables.
    scanned: u64,
}

/// Of most operations.
const USUAL: Bound = Bound { written: 2_000, read: 30_000, scanned: 1_100 };
/// A page of jobs that looks at ten thousand of them, because few are what was asked for.
const WALK: Bound = Bound { written: 0, read: 400_000, scanned: 10_000 };
/// Changes of the configuration look at every document's state, beside the writer.
const CONFIGURATION: Bound = Bound { written: 2_000, read: 100_000, scanned: 0 };
/// A round deletes up to five hundred rows of a kind, and looks at five thousand ids.
const EXPIRY: Bound = Bound { written: 100_000, read: 200_000, scanned: 2_000 };

/// Operations that read everything because that is what they are for, or that touch no database.
const NOT_TRIED: [&str; 5] = ["backup", "check_integrity", "commit_here", "look_after_files", "stopped"];

/// The store, and what its statements did since the last look.
struct Month {
    store: Store,
    clock: Arc<fixture::ManualClock>,
    work: Arc<Mutex<Vec<StatementWork>>>,
    tried: BTreeSet<&'static str>,
    failed: Vec<String>,
}

impl Month {
    /// Runs an operation and bounds what it took.
    async fn within<T>(&mut self, name: &'static str, bound: Bound, run: impl AsyncFnOnce(&Store) -> T) -> T {
        self.tried.insert(name);
        self.work.lock().unwrap().clear();
        let done = run(&self.store).await;
        let work = std::mem::take(&mut *self.work.lock().unwrap());
        let sum = |count: &dyn Fn(&StatementWork) -> u64| work.iter().map(count).sum::<u64>();
        let written = sum(&|work| if work.by_writer { work.steps } else { 0 });
        let (read, scanned) = (sum(&|work| work.steps) - written, sum(&|work| work.scanned));
        let sorts = sum(&|work| work.sorts);
        if written > bound.written || read > bound.read || scanned > bound.scanned || sorts > 0 {
            let most = work.iter().max_by_key(|work| (work.sorts, work.scanned, work.steps)).unwrap();
            self.failed.push(format!(
                "{name}: {written} steps in the writer, {read} elsewhere, {scanned} rows scanned, {sorts} sorts, most of it in\n    {most:?}",
            ));
        }
        done
    }

    async fn bounded<T>(&mut self, name: &'static str, run: impl AsyncFnOnce(&Store) -> T) -> T {
        self.within(name, USUAL, run).await
    }
}

#[test]
fn no_operation_walks_what_is_stored() {
    let folder = copy();
    tokio::runtime::Runtime::new().unwrap().block_on(try_everything(&folder));
}

async fn try_everything(folder: &tempfile::TempDir) {
    let now = fixture::end_of_month(folder.path());
    let clock = fixture::ManualClock::at(now);
    let work = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&work);
    let watch = move |work: StatementWork| seen.lock().unwrap().push(work);
    let store = fixture::open(folder.path(), Arc::clone(&clock) as _, Some(Arc::new(watch)));
    let mut month = Month { store, clock, work, tried: BTreeSet::new(), failed: Vec::new() };
    log(&mut month).await;
    jobs(&mut month).await;
    syncs(&mut month).await;
    accounts(&mut month).await;
    documents(&mut month).await;
    retention(&mut month).await;
    let untried: Vec<String> = operations().into_iter().filter(|name| !month.tried.contains(name.as_str())).collect();
    assert!(untried.is_empty(), "operations that are not tried here: {untried:?}");
    assert!(month.failed.is_empty(), "{}", month.failed.join("\n"));
}

/// A copy of the fixture: what is tried changes it.
fn copy() -> tempfile::TempDir {
    let target = std::env!("CARGO_MANIFEST_DIR");
    let target = PathBuf::from(target).join("../../target");
    let made = fixture::folder(&target, now());
    let copy = tempfile::tempdir_in(&target).unwrap();
    for entry in std::fs::read_dir(made).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

#[expect(clippy::disallowed_methods, reason = "the fixture's month ends when it is made")]
fn now() -> linkspan_model::Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    linkspan_model::Timestamp::from_micros(i64::try_from(now.as_micros()).unwrap())
}

/// Every asynchronous operation that the store offers, by what its source says.
fn operations() -> Vec<String> {
    let mut found = Vec::new();
    for source in sources(&Path::new(std::env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(source).unwrap();
        for part in text.split("impl Store {").skip(1) {
            let part = part.split("\n}").next().unwrap();
            let names = part.split("    pub async fn ").skip(1).map(|rest| rest.split(['(', '<']).next().unwrap());
            found.extend(names.map(str::to_owned).filter(|name| !NOT_TRIED.contains(&name.as_str())));
        }
    }
    assert!(found.len() > 60, "{found:?}");
    found
}

/// The files of Rust in a folder and all below it.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn document(value: &Value) -> Document {
    Document::read(value).unwrap()
}

fn event(month: &Month, endpoint: &str) -> NewEvent {
    let head = EventHead {
        method: "POST".to_owned(),
        event_name: None,
        query: None,
        headers: vec![("content-type".to_owned(), HeaderText::new("application/json"))],
        remote: None,
        verified: VerifiedBy { by: "none".to_owned(), ok: false },
    };
    NewEvent {
        endpoint: month.store.snapshot().endpoint(&name(endpoint)).unwrap().row,
        received_at: linkspan_model::Clock::now(month.clock.as_ref()),
        salt: 1,
        head: serde_json::to_vec(&head).unwrap(),
        body: r#"{"action": "opened"}"#.into(),
        spool: None,
        dedupe: Some(DedupeKey::new(b"an id", linkspan_model::Clock::now(month.clock.as_ref()))),
    }
}

async fn log(month: &mut Month) {
    let new = event(month, "in-7");
    let wait = Duration::from_secs(20);
    let appended = month
        .bounded("append", async |store| store.append(new, std::pin::pin!(tokio::time::sleep(wait))).await.unwrap())
        .await;
    month.bounded("spool", async |store| store.spool("body".into()).await.unwrap()).await;
    let after = month.bounded("dispatch_position", async |store| store.dispatch_position().await.unwrap()).await;
    month.bounded("log_after", async |store| store.log_after(after - 1_000, 1_000).await.unwrap()).await;
    month.bounded("events_at", async |store| store.events_at((after - 100..after).collect()).await.unwrap()).await;
    month.bounded("events_after", async |store| store.events_after(after - 100, 100).await.unwrap()).await;
    let endpoint = month.store.snapshot().endpoint(&name("in-7")).unwrap().row;
    for from in [0, after / 2, after - 10] {
        month
            .bounded("endpoint_events_after", async |store| {
                store.endpoint_events_after(endpoint, from, after, 100).await.unwrap()
            })
            .await;
    }
    month.bounded("event", async |store| store.event(appended.id).await.unwrap()).await;
    month.bounded("shown_event", async |store| store.shown_event(appended.id).await.unwrap()).await;
    for endpoint in [None, Some(name("in-7"))] {
        for (before, since) in [(None, None), (Some(after / 2), None), (None, Some(0)), (None, Some(after / 2))] {
            let filter = EventFilter { endpoint: endpoint.clone(), before, after: since, limit: 100 };
            let found = month.bounded("events", async |store| store.events(filter).await.unwrap()).await;
            assert_eq!(found.len(), 100);
        }
    }
    let refusal = NewRefusal {
        endpoint: Some(endpoint),
        at: linkspan_model::Clock::now(month.clock.as_ref()),
        status: 401,
        code: "webhook.signature".to_owned(),
        cause: "wrong".to_owned(),
        method: "POST".to_owned(),
        remote: None,
        headers: Vec::new(),
        body: Vec::new(),
        body_size: 0,
    };
    let refusing = Bound { written: 4_000, ..USUAL };
    month
        .within("record_refusals", refusing, async |store| store.record_refusals(vec![refusal; 10]).await.unwrap())
        .await;
    for endpoint in [None, Some(name("in-7"))] {
        for before in [None, Some(50_000)] {
            let filter = RefusalFilter { endpoint: endpoint.clone(), before, limit: 100 };
            let found = month.bounded("refusals", async |store| store.refusals(filter).await.unwrap()).await;
            assert_eq!(found.len(), 100);
        }
    }
    month.bounded("check_disk", async |store| store.check_disk().await.unwrap()).await;
    month.bounded("heartbeat", async |store| store.heartbeat().await.unwrap()).await;
}

fn step(status: JobStatus) -> StepRun {
    StepRun {
        id: "tell".to_owned(),
        status,
        attempts: 1,
        attempt_log: Vec::new(),
        resumed: false,
        input: None,
        output: None,
        error: None,
        retry_at: None,
        started_at: None,
        finished_at: None,
    }
}

async fn jobs(month: &mut Month) {
    let snapshot = Arc::clone(&month.store.snapshot());
    let recipe = snapshot.recipe(&name("recipe-7")).unwrap();
    let after = month.store.dispatch_position().await.unwrap();
    let (event, endpoint) = (month.store.events_after(after, 1).await.unwrap().remove(0).event.id, recipe.row);
    let new = |event: EventId| NewJob {
        recipe: recipe.row,
        recipe_revision: recipe.revision,
        event,
        salt: 1,
        rerun_of: None,
        is_deferred: false,
    };
    let dispatched = Dispatched {
        after,
        up_to: after + 1,
        runs: vec![LogRun { endpoint, first: after + 1, last: after + 1 }],
        jobs: vec![new(event)],
    };
    month.bounded("dispatch", async |store| store.dispatch(dispatched).await.unwrap()).await;
    let more = vec![new(event), new(event), new(event)];
    let queued = month.bounded("queue_jobs", async |store| store.queue_jobs(more).await.unwrap()).await;
    month.bounded("hasten", async |store| store.hasten(1, 500).await.unwrap()).await;
    month.bounded("cancel", async |store| store.cancel(queued[0]).await.unwrap()).await;
    month.bounded("rerun", async |store| store.rerun(queued[0], 1).await.unwrap()).await;
    let mut claimed = month.bounded("claim", async |store| store.claim(&mut Shares::of(32)).await.unwrap()).await;
    assert_eq!(claimed.len(), 4);
    let leases = claimed.iter().map(|job| job.lease).collect();
    month.bounded("renew", async |store| store.renew(leases).await.unwrap()).await;
    let last = claimed.remove(3);
    let third = claimed.remove(2);
    month.bounded("decide_deferred", async |store| store.decide_deferred(third.lease, true).await.unwrap()).await;
    month.bounded("release", async |store| store.release(last.lease).await.unwrap()).await;
    month.bounded("dispatch_began", async |store| store.dispatch_began().await.unwrap()).await;
    month.bounded("dispatch_goes_on", async |store| store.dispatch_goes_on().await.unwrap()).await;
    month.bounded("open_jobs_of", async |store| store.open_jobs_of(name("recipe-9")).await.unwrap()).await;
    month.bounded("cancel_all", async |store| store.cancel_all(name("recipe-9")).await.unwrap()).await;
    let ahead = Duration::from_secs(1);
    month.bounded("bring_forward", async |store| store.bring_forward(ahead).await.unwrap()).await;
    month.bounded("look_at_clock", async |store| store.look_at_clock().await.unwrap()).await;
    month.bounded("reclaim_expired", async |store| store.reclaim_expired(&[]).await.unwrap()).await;
    let error = || StepError {
        code: "response.status".to_owned(),
        description: "404".to_owned(),
        field: None,
        outcome_unknown: None,
    };
    let record = |status| StepRecord { position: 0, run: step(status), result: Some(b"{}".to_vec()) };
    let lease = claimed[0].lease;
    let (middle, end) = (record(JobStatus::Succeeded), record(JobStatus::Succeeded));
    month.bounded("record_step", async |store| store.record_step(lease, middle, Next::Continue).await.unwrap()).await;
    month.bounded("record_step", async |store| store.record_step(lease, end, Next::Succeed).await.unwrap()).await;
    let lease = claimed[1].lease;
    month.bounded("fail_job", async |store| store.fail_job(lease, error()).await.unwrap()).await;
    month
        .bounded("recipe_revision", async |store| store.recipe_revision(recipe.row, recipe.revision).await.unwrap())
        .await;
    month.bounded("job", async |store| store.job(queued[0]).await.unwrap()).await;
    month.bounded("open_jobs", async |store| store.open_jobs().await.unwrap()).await;
    let states = [None, Some(JobStatus::Queued), Some(JobStatus::Waiting), Some(JobStatus::Running)];
    let ends = [Some(JobStatus::Succeeded), Some(JobStatus::Failed), Some(JobStatus::Canceled)];
    for status in states.into_iter().chain(ends) {
        for recipe in [None, Some(name("recipe-7"))] {
            for event in [None, Some(event)] {
                for before in [None, Some(1_000_000)] {
                    let bound = if event.is_none() && status.is_some() { WALK } else { USUAL };
                    let filter = JobFilter { recipe: recipe.clone(), status, event, before, limit: 100 };
                    month.within("jobs", bound, async |store| store.jobs(filter).await.unwrap()).await;
                }
            }
        }
    }
}

async fn syncs(month: &mut Month) {
    let sync = month.store.snapshot().sync(&name("sync-3")).unwrap().row;
    let (state, _) = month.bounded("sync_state", async |store| store.sync_state(sync).await.unwrap()).await;
    month.bounded("sync_states", async |store| store.sync_states().await.unwrap()).await;
    for after in [0, state.position / 2, state.position] {
        month.bounded("sync_batches", async |store| store.sync_batches(sync, after, 100).await.unwrap()).await;
    }
    let ticket = month.bounded("request_sync", async |store| store.request_sync(sync).await.unwrap()).await;
    month.bounded("sync_is_done", async |store| store.sync_is_done(sync, ticket).await.unwrap()).await;
    month.bounded("sync_started", async |store| store.sync_started(sync).await.unwrap()).await;
    let from = state.position;
    month.bounded("skip_events", async |store| store.skip_events(sync, from, from + 1).await.unwrap()).await;
    let new = NewBatch { after: from + 1, last: from + 2, object: "object".to_owned(), endpoint: 1, events: 1 };
    let batch = month.bounded("begin_batch", async |store| store.begin_batch(sync, new).await.unwrap()).await;
    assert_eq!(batch.state, BatchState::Begun);
    month.bounded("batch_attempted", async |store| store.batch_attempted(sync, batch.number).await.unwrap()).await;
    month
        .bounded("batch_packed", async |store| store.batch_packed(sync, batch.number, vec![0; 32]).await.unwrap())
        .await;
    let aside = batch.clone();
    month
        .bounded("set_batch_aside", async |store| {
            store.set_batch_aside(sync, aside, "reason".to_owned()).await.unwrap();
        })
        .await;
    month.bounded("request_resync", async |store| store.request_resync(sync).await.unwrap()).await;
    month.bounded("resync_begun", async |store| store.resync_begun(sync).await.unwrap()).await;
    let due = month
        .bounded("sync_batches_aside", async |store| store.sync_batches_aside(sync, 0, 2, 10).await.unwrap())
        .await;
    assert_eq!(due.len(), 1);
    let outcome = BatchOutcome { events: 1, rows: 1, ..BatchOutcome::default() };
    month.bounded("batch_loaded", async |store| store.batch_loaded(sync, batch, outcome).await.unwrap()).await;
    month.bounded("sync_finished", async |store| store.sync_finished(sync, None, None).await.unwrap()).await;
}

async fn accounts(month: &mut Month) {
    let snapshot = Arc::clone(&month.store.snapshot());
    let account = Arc::clone(snapshot.account(&name("api")).unwrap());
    let connection = Arc::clone(snapshot.connection(&name("api")).unwrap());
    let test = ConnectionTest {
        tested_at: linkspan_model::Clock::now(month.clock.as_ref()),
        duration: Duration::from_millis(1),
        http_status: Some(200),
        failure: None,
    };
    month
        .bounded("record_connection_test", async |store| store.record_connection_test(&connection, test).await.unwrap())
        .await;
    month.bounded("connection_test", async |store| store.connection_test(&connection).await.unwrap()).await;
    let asked = |store: &Store| (store.clone(), "https://auth.example.com".to_owned());
    let consent = month
        .bounded("begin_consent", async |store| {
            store.begin_consent(&account, "https://a.test/".to_owned()).await.unwrap()
        })
        .await;
    month.bounded("take_consent", async |store| store.take_consent(&consent.state).await.unwrap()).await;
    month
        .bounded("consent_failed", async |store| store.consent_failed(account.row, "no".to_owned()).await.unwrap())
        .await;
    let (_, identity) = asked(&month.store);
    let turn = month
        .bounded("begin_token_call", async |store| {
            store.begin_token_call(account.row, identity.clone(), 0, Duration::from_secs(30)).await.unwrap()
        })
        .await;
    let TokenTurn::Yours(lease) = turn else { panic!("{turn:?}") };
    let token = NewToken {
        identity: identity.clone(),
        access: linkspan_model::SecretBytes::new("token"),
        refresh: None,
        scopes: None,
        refresh_at: None,
        expires_at: None,
        by_consent: false,
    };
    let outcome = TokenOutcome::Given(Box::new(token));
    month
        .bounded("end_token_call", async |store| {
            store.end_token_call(*lease, account.basis.clone(), outcome).await.unwrap()
        })
        .await;
    month.bounded("oauth_token", async |store| store.oauth_token(account.row, identity).await.unwrap()).await;
    month.bounded("oauth_status", async |store| store.oauth_status(account.row).await.unwrap()).await;
    let place = tempfile::tempdir().unwrap();
    let folder = linkspan_store::DataFolder::lock(place.path()).unwrap();
    month.bounded("ensure_operator_token", async |store| store.ensure_operator_token(&folder).await.unwrap()).await;
    let token =
        month.bounded("rotate_operator_token", async |store| store.rotate_operator_token().await.unwrap()).await;
    month.bounded("is_operator_token", async |store| store.is_operator_token(&token).await.unwrap()).await;
}

async fn documents(month: &mut Month) {
    month.bounded("resource", async |store| store.resource(Kind::Recipe, name("recipe-7")).await.unwrap()).await;
    for (kind, after) in [(None, None), (Some(Kind::Recipe), None), (Some(Kind::Recipe), Some(name("recipe-5")))] {
        month.bounded("resources", async |store| store.resources(kind, after, 100).await.unwrap()).await;
    }
    let new = document(&json!({"kind": "endpoint", "name": "new", "spec": {"verify": "none"}}));
    for dry_run in [true, false] {
        let documents = vec![new.clone()];
        month
            .within("apply", CONFIGURATION, async |store| store.apply(documents, None, false, dry_run).await.unwrap())
            .await;
    }
    let secret = document(&json!({"kind": "secret", "name": "token", "spec": {"value": "another"}}));
    month.within("put", CONFIGURATION, async |store| store.put(secret, Precondition::None).await.unwrap()).await;
    month
        .within("rotate_endpoint_key", CONFIGURATION, async |store| {
            store.rotate_endpoint_key(name("in-7")).await.unwrap()
        })
        .await;
    month
        .bounded("delete", async |store| store.delete(Kind::Endpoint, name("new"), Precondition::None).await.unwrap())
        .await;
    month.within("reload", CONFIGURATION, async |store| store.reload().await.unwrap()).await;
    let sync = name("sync-9");
    month
        .within("delete", CONFIGURATION, async |store| {
            store.delete(Kind::Sync, sync, Precondition::None).await.unwrap()
        })
        .await;
}

/// A month later everything is old: each round is bounded, and rounds get there.
async fn retention(month: &mut Month) {
    let mut sweep = Sweep::default();
    month.within("expire", EXPIRY, async |store| store.expire(Retention::default(), &mut sweep).await.unwrap()).await;
    month.clock.advance(Duration::from_secs(40 * 86_400));
    for _ in 0..20 {
        let expire = async |store: &Store| store.expire(Retention::default(), &mut sweep).await.unwrap();
        let round = month.within("expire", EXPIRY, expire).await;
        assert!(round.jobs > 0 && round.events > 0 && round.refusals > 0, "{round:?}");
    }
}
