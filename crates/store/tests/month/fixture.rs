//! A store as a month leaves it, made once and kept below `target/`: what is fast on an empty store and walks a table
//! shows here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use linkspan_model::id::EventId;
use linkspan_model::secret::SecretSpec;
use linkspan_model::{Clock, Document, SecretBytes, Timestamp};
use linkspan_store::{Durability, MasterKey, SecretSource, Settings, StatementWatch, Store};
use rusqlite::{Connection, params};
use serde_json::{Value, json};

/// Counts the changes of what is made here: an older fixture is made anew.
const VERSION: u32 = 7;
pub const EVENTS: i64 = 5_000_000;
pub const JOBS: i64 = 2_000_000;
pub const DEDUPE_KEYS: i64 = 1_000_000;
pub const REFUSALS: i64 = 100_000;
pub const RECIPES: usize = 1_000;
pub const ENDPOINTS: usize = 300;
pub const CONNECTORS: usize = 3;
pub const ACTIONS: usize = 1_100;
/// Of so many jobs one failed.
const FAILS: i64 = 50;
/// Events of one endpoint that stand together in the log.
const RUN: i64 = 7;
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// The fixture's folder, made when it is not there, for a month that ends `now`.
pub fn folder(target: &Path, now: Timestamp) -> PathBuf {
    let folder = target.join(format!("month-{VERSION}"));
    if !folder.exists() {
        // Those of earlier versions are of no use any more, and large.
        for earlier in 1..VERSION {
            drop(std::fs::remove_dir_all(target.join(format!("month-{earlier}"))));
        }
        let partial = target.join(format!("month-{VERSION}.part"));
        drop(std::fs::remove_dir_all(&partial));
        std::fs::create_dir_all(&partial).unwrap();
        std::fs::write(partial.join("key"), "07".repeat(32)).unwrap();
        documents(&partial, now);
        rows(&partial.join("linkspan.db"), now).unwrap();
        std::fs::rename(&partial, &folder).unwrap();
    }
    folder
}

/// When the fixture's month ended.
pub fn end_of_month(folder: &Path) -> Timestamp {
    let db = Connection::open(folder.join("linkspan.db")).unwrap();
    let at = db.query_row("SELECT received_at FROM events ORDER BY seq DESC LIMIT 1", [], |row| row.get(0)).unwrap();
    Timestamp::from_micros(at)
}

/// A clock that stands until it is set.
pub struct ManualClock(AtomicI64);

impl ManualClock {
    pub fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(now.as_micros())))
    }

    #[allow(clippy::allow_attributes, dead_code, reason = "not every user of the fixture lets time pass")]
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::Relaxed);
    }
}

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

/// Opens the store in a folder.
pub fn open(folder: &Path, clock: Arc<dyn Clock>, statements: Option<StatementWatch>) -> Store {
    Store::open(Settings {
        database: folder.join("linkspan.db"),
        spool: folder.join("spool"),
        key: MasterKey::new(&[7; 32]),
        secrets: Arc::new(NoSecrets),
        clock,
        durability: Durability::Off,
        disk_min_free: 0,
        statements,
    })
    .unwrap()
}

fn documents(folder: &Path, now: Timestamp) {
    let store = open(folder, ManualClock::at(now.before(MONTH)), None);
    let mut documents = vec![
        json!({"kind": "secret", "name": "token", "spec": {"value": "a-secret-token"}}),
        json!({"kind": "account", "name": "api", "spec": {"bearer": {"token": {"secret": "token"}}}}),
        json!({"kind": "connection", "name": "api", "spec": {"base_url": "https://api.example.com", "account": "api"}}),
        json!({"kind": "destination", "name": "rows", "spec": {"sqlite": {"path": "rows.db"}}}),
    ];
    documents.extend(
        (0..ENDPOINTS).map(
            |n| json!({"kind": "endpoint", "name": format!("in-{n}"), "spec": {"verify": "none", "format": "json"}}),
        ),
    );
    documents.extend((0..CONNECTORS).map(connector));
    documents.extend((0..CONNECTORS).map(|n| {
        json!({"kind": "connection", "name": format!("large-{n}"),
               "spec": {"connector": format!("large-{n}"), "account": "api"}})
    }));
    documents.extend((0..RECIPES).map(recipe));
    documents.extend((0..10).map(|n| {
        json!({"kind": "sync", "name": format!("sync-{n}"), "spec": {
            "from": {"endpoint": format!("in-{n}")},
            "to": {"destination": "rows", "schema": "month", "table": format!("events_{n}")},
        }})
    }));
    let documents: Vec<Document> = documents.iter().map(|document| Document::read(document).unwrap()).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.apply(documents, Some("month".to_owned()), false, false)).unwrap();
}

/// As an import makes of a large description: more than a thousand actions with schemas.
fn connector(n: usize) -> Value {
    let text = |what: &str| json!({"type": "string", "maxLength": 200, "description": format!("The {what} of the object, as the provider's own page describes it.")});
    let action = |action: usize| {
        let input = json!({
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": text("identifier"), "name": text("name"), "state": {"type": "string", "enum": ["open", "closed", "draft"]},
                "amount": {"type": "integer", "minimum": 0}, "currency": {"type": "string", "pattern": "^[a-z]{3}$"},
                "lines": {"type": "array", "items": {"type": "object", "properties": {
                    "sku": text("article"), "quantity": {"type": "integer"}, "note": text("note"),
                }}},
                "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        });
        let request = json!({
            "method": "POST", "path": format!("/v1/things_{action}/{{{{ input.id }}}}"),
            "json": {"name": "{{ input.name }}", "state": "{{ input.state }}", "amount": "{{ input.amount }}",
                     "currency": "{{ input.currency }}", "lines": "{{ input.lines }}", "metadata": "{{ input.metadata }}"},
        });
        (
            format!("update_thing_{action}"),
            json!({
                "title": format!("Update thing {action}"), "description": "Changes what is given and leaves the rest as it was.",
                "input": input, "request": request,
            }),
        )
    };
    let actions: serde_json::Map<String, Value> = (0..ACTIONS).map(action).collect();
    json!({"kind": "connector", "name": format!("large-{n}"), "spec": {
        "version": "1.0.0", "connection": {"base_url": "https://large.example.com"}, "actions": actions,
    }})
}

fn recipe(n: usize) -> Value {
    let step = match n % 10 {
        0 => json!({"id": "tell", "call": {
            "connection": format!("large-{}", n % CONNECTORS), "action": format!("update_thing_{}", n % ACTIONS),
            "input": {"id": "{{ trigger.body.number }}", "name": "{{ trigger.body.title }}"},
        }}),
        _ => json!({"id": "tell", "request": {
            "connection": "api", "method": "POST", "path": "/tickets", "json": {"title": "{{ trigger.body.title }}"},
        }}),
    };
    json!({"kind": "recipe", "name": format!("recipe-{n}"), "spec": {
        "trigger": {"webhook": {"endpoint": format!("in-{}", n % ENDPOINTS), "when": "trigger.body.action == 'opened'"}},
        "steps": [step],
    }})
}

/// Rows by SQL: a tenth of the time that the store itself would take.
fn rows(database: &Path, now: Timestamp) -> rusqlite::Result<()> {
    let db = Connection::open(database)?;
    db.pragma_update(None, "journal_mode", "OFF")?;
    db.pragma_update(None, "synchronous", 0)?;
    db.pragma_update(None, "cache_size", -400_000)?;
    // Made again afterwards, each in one sort.
    let indexes: Vec<(String, String)> = db
        .prepare("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name IN ('jobs', 'refusals') AND sql IS NOT NULL")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (name, _) in &indexes {
        db.execute(&format!("DROP INDEX {name}"), [])?;
    }
    db.execute_batch("BEGIN")?;
    let first_endpoint: i64 =
        db.query_row("SELECT min(id) FROM resources WHERE kind = 'endpoint'", [], |row| row.get(0))?;
    let first_recipe: i64 =
        db.query_row("SELECT min(id) FROM resources WHERE kind = 'recipe'", [], |row| row.get(0))?;
    let began = now.before(MONTH).as_micros();
    let step = i64::try_from(MONTH.as_micros()).unwrap() / EVENTS;
    let endpoint = format!("{first_endpoint} + (seq / {RUN}) % {ENDPOINTS}");
    let head = json!({
        "method": "POST", "headers": [["content-type", "application/json"], ["user-agent", "sender/1.0"]],
        "remote": "192.0.2.7", "verified": {"by": "none", "ok": false},
    });
    db.execute(
        &format!(
            "WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < {EVENTS})
             INSERT INTO events (seq, endpoint, received_at, salt, spool, head, body)
             SELECT seq, {endpoint}, {began} + seq * {step}, seq % 4096, NULL, CAST(?1 AS BLOB),
                    CAST(format('{{\"action\":\"%s\",\"number\":%d,\"title\":\"Something has happened to thing %d\",\"sender\":{{\"login\":\"user-%d\",\"id\":%d,\"site_admin\":false}},\"labels\":[\"bug\",\"urgent\",\"customer\"],\"note\":\"%s\"}}',
                                iif(seq % 3, 'edited', 'opened'), seq, seq % 977, seq % 5003, seq % 5003, '{note}') AS BLOB)
             FROM n",
            note = "what the sender has to say about it, in so many words ".repeat(2),
        ),
        [head.to_string()],
    )?;
    db.execute(
        &format!(
            "WITH RECURSIVE n(run) AS (SELECT 0 UNION ALL SELECT run + 1 FROM n WHERE run < {})
             INSERT INTO event_runs (endpoint, first, last)
             SELECT {first_endpoint} + run % {ENDPOINTS} AS endpoint, max(1, run * {RUN}), min({EVENTS}, run * {RUN} + {RUN} - 1) AS last
             FROM n ORDER BY endpoint, last",
            EVENTS / RUN
        ),
        [],
    )?;
    db.execute("INSERT OR REPLACE INTO positions (consumer, seq) VALUES ('dispatch', ?1)", [EVENTS])?;
    db.execute(
        "INSERT INTO sync_states (sync, position, batch) SELECT id, ?1, 40000 FROM resources WHERE kind = 'sync'",
        [EVENTS],
    )?;
    db.execute(
        "WITH RECURSIVE n(batch) AS (SELECT 1 UNION ALL SELECT batch + 1 FROM n WHERE batch < 40000)
         INSERT INTO sync_batches (sync, batch, after_seq, last_seq, object, sha256, state)
         SELECT id, batch, (batch - 1) * 125, batch * 125, format('batch-%d', batch), zeroblob(32), 'loaded'
         FROM resources, n WHERE kind = 'sync' ORDER BY id, batch",
        [],
    )?;
    jobs(&db, first_recipe, began, step)?;
    db.execute(
        &format!(
            "WITH RECURSIVE n(key) AS (SELECT 1 UNION ALL SELECT key + 1 FROM n WHERE key < {DEDUPE_KEYS})
             INSERT INTO dedupe (endpoint, key, event_id, expires_at)
             SELECT {first_endpoint} + key % {ENDPOINTS} AS endpoint, randomblob(16) AS id, zeroblob(16), ?1 + (key % 14) * 86400000000
             FROM n ORDER BY endpoint, id"
        ),
        [now.as_micros()],
    )?;
    db.execute(
        &format!(
            "WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < {REFUSALS})
             INSERT INTO refusals (seq, endpoint, at, status, code, cause, method, remote, headers, body, body_size)
             SELECT seq, {first_endpoint} + seq % {ENDPOINTS}, ?1 - ({REFUSALS} - seq) * 1000000, 401, 'webhook.signature',
                    'the signature is wrong', 'POST', '192.0.2.8', CAST('[]' AS BLOB), zeroblob(300), 300 FROM n"
        ),
        [now.as_micros()],
    )?;
    db.execute_batch("COMMIT")?;
    for (_, sql) in &indexes {
        db.execute(sql, [])?;
    }
    db.pragma_update(None, "journal_mode", "WAL")?;
    Ok(())
}

fn jobs(db: &Connection, first_recipe: i64, began: i64, step: i64) -> rusqlite::Result<()> {
    let mut job = db.prepare(
        "INSERT INTO jobs (seq, salt, recipe, recipe_revision, event_id, event_seq, status, run_at, claims, lease,
                           created_at, started_at, finished_at, error)
         VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7, 1, 1, ?7, ?7 + 1000, ?7 + 50000, ?8)",
    )?;
    let mut first_step = db.prepare(
        "INSERT INTO steps (job, position, id, status, attempts, resumed, started_at, finished_at, error, input, output)
         VALUES (?1, 0, 'tell', ?2, 1, 0, ?3, ?3 + 49000, ?4, '{\"method\":\"POST\",\"url\":\"https://api.example.com/tickets\"}', '{\"status\":200}')",
    )?;
    let error = json!({"code": "response.status", "description": "the API answered 404 Not Found"}).to_string();
    for seq in 1..=JOBS {
        // The second half of the month has twice the jobs: what is older has expired.
        let event = EVENTS - (JOBS - seq);
        let at = began + event * step;
        let id = EventId::new(Timestamp::from_micros(at), event.cast_unsigned(), u16::try_from(event % 4096).unwrap());
        let (status, error) = if seq % FAILS == 0 { ("failed", Some(&error)) } else { ("succeeded", None) };
        let recipe = first_recipe + seq % i64::try_from(RECIPES).unwrap();
        job.execute(params![seq, seq % 4096, recipe, id.as_bytes(), event, status, at, error])?;
        first_step.execute(params![seq, status, at, error])?;
    }
    Ok(())
}
