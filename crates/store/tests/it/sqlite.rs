//! What only the files of SQLite can show: what stands in them, who may open them, and what a backup holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use linkspan_model::job::JobStatus;
use linkspan_model::{EventId, limits};
use linkspan_store::{Beginning, DataFolder, Next, Retention, StepRecord, StoreError, Sweep, restore};
use rusqlite::Connection;
use serde_json::json;

use crate::harness::{World, append_within, endpoint, name, recipe, step_run, sync};

const NOW: linkspan_model::Timestamp = linkspan_model::Timestamp::from_micros(1_700_000_000_000_000);

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn holds(folder: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = files(folder);
    // The reserve holds room and nothing else, and 64 MiB of it are slow to search.
    found.retain(|path| {
        path.file_name().unwrap() != "reserve"
            && fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
    });
    found
}

fn pragma(world: &World, name: &str) -> String {
    let db = Connection::open(world.folder().join("linkspan.db")).unwrap();
    db.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
        .map(|value| format!("{value:?}"))
        .unwrap()
}

/// Stores an event with a body in a spool file.
async fn append_large(world: &World, fill: u8) -> EventId {
    let body = Bytes::from(vec![fill; limits::INLINE_BODY_BYTES + 1]);
    let mut event = world.event(body.clone());
    event.spool = Some(world.store().spool(body).await.unwrap());
    append_within(world.store(), event, limits::COMMIT_DEADLINE).await.unwrap().id
}

#[tokio::test]
async fn keeps_a_durable_log_of_large_pages() {
    let world = World::on_sqlite().await;
    assert_eq!(pragma(&world, "journal_mode"), r#"Text("wal")"#);
    assert_eq!(pragma(&world, "page_size"), "Integer(8192)");
    assert_eq!(pragma(&world, "auto_vacuum"), "Integer(0)");
}

#[tokio::test]
async fn folds_the_log_into_the_database_when_it_closes() {
    let mut world = World::on_sqlite().await;
    world.append("{}").await;
    assert!(world.store().wal_bytes() > 0);
    world.close();
    assert!(!world.folder().join("linkspan.db-wal").exists());
}

/// The log of a store that is written to all the time starts from its beginning again, instead of growing for ever.
#[tokio::test]
async fn folds_the_log_beside_the_writer() {
    const WRITTEN: usize = 96 << 20;
    let world = World::on_sqlite().await;
    let body = Bytes::from(vec![b'x'; limits::INLINE_BODY_BYTES - 1]);
    let mut written = 0;
    while written < WRITTEN {
        let append = || world.append(body.clone());
        tokio::join!(append(), append(), append(), append(), append(), append(), append(), append());
        written += 8 * body.len();
    }
    let database = std::fs::metadata(world.folder().join("linkspan.db")).unwrap().len();
    assert!(database > WRITTEN as u64 / 2, "only {database} bytes have reached the database");
    let log = world.store().wal_bytes();
    assert!(log < WRITTEN as u64 / 2, "the log has grown to {log} bytes");
}

#[tokio::test]
async fn writes_freed_pages_again() {
    let world = World::on_sqlite().await;
    let hundred = async || {
        for _ in 0..100 {
            world.append(vec![b'x'; limits::INLINE_BODY_BYTES]).await;
        }
    };
    hundred().await;
    let up_to = world.store().last_seq();
    world.store().dispatch(linkspan_store::Dispatched { up_to, ..Default::default() }).await.unwrap();
    let before: i64 = pages(&world);
    world.clock.advance(Duration::from_secs(31 * 86_400));
    assert_eq!(world.store().expire(Retention::default(), &mut Sweep::default()).await.unwrap().events, 100);
    hundred().await;
    assert!(pages(&world) <= before + 8, "{before} pages before, {} after", pages(&world));
}

fn pages(world: &World) -> i64 {
    let db = Connection::open(world.folder().join("linkspan.db")).unwrap();
    db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn never_writes_a_secret_in_clear() {
    let mut world = World::on_sqlite().await;
    let value = "correct horse battery staple";
    world.apply(json!([{"kind": "secret", "name": "s", "spec": {"value": value}}])).await;
    let token = world.store().rotate_operator_token().await.unwrap();
    for needle in [value.as_bytes(), token.as_bytes(), &token.as_bytes()[4..]] {
        assert_eq!(holds(world.folder(), needle), Vec::<PathBuf>::new());
    }
    assert!(!holds(world.folder(), b"\"kind\":\"secret\"").is_empty(), "the search finds what is there");
    world.close();
    for needle in [value.as_bytes(), token.as_bytes()] {
        assert_eq!(holds(world.folder(), needle), Vec::<PathBuf>::new());
    }
}

#[tokio::test]
async fn sets_bodies_without_an_event_aside_when_it_opens() {
    let mut world = World::on_sqlite().await;
    let kept = append_large(&world, b'a').await;
    world.close();
    fs::write(world.folder().join("spool/left-over"), "x").unwrap();
    fs::write(world.folder().join("spool/left-over.part"), "x").unwrap();
    world.reopen();
    // What was never written to its end is gone; of the other nobody knows whose it was.
    let mut left = world.spooled();
    left.sort();
    assert_eq!((left.len(), left[1].as_str()), (2, "unknown"));
    assert_eq!(fs::read_to_string(world.folder().join("spool/unknown/left-over")).unwrap(), "x");
    world.store().event(kept).await.unwrap();
    // It is forgotten when it is as old as events become.
    let keep = Retention { events: Duration::ZERO, ..Retention::default() };
    world.store().expire(keep, &mut Sweep::default()).await.unwrap();
    assert!(!world.folder().join("spool/unknown/left-over").exists());
}

#[tokio::test]
async fn never_takes_a_damaged_body_for_the_real_one() {
    let world = World::on_sqlite().await;
    let id = append_large(&world, b'a').await;
    let file = world.folder().join("spool").join(&world.spooled()[0]);
    let mut body = fs::read(&file).unwrap();
    body[1_000] ^= 1;
    fs::write(&file, body).unwrap();
    let shown = world.store().shown_event(id).await.unwrap();
    assert!(shown.body.unwrap_err().reason.contains("does not match its checksum"));
}

#[tokio::test]
async fn waits_out_a_process_that_holds_the_database() {
    let world = World::on_sqlite().await;
    let other = Connection::open(world.folder().join("linkspan.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = append_within(world.store(), world.event("{}"), limits::COMMIT_DEADLINE).await;
    assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    other.execute_batch("COMMIT").unwrap();
    world.append("{}").await;
}

#[tokio::test]
async fn stops_when_its_files_are_others() {
    for what in ["linkspan.db", "linkspan.db-wal"] {
        let world = World::on_sqlite().await;
        world.append("{}").await;
        world.store().look_after_files().await.unwrap();
        let file = world.folder().join(what);
        fs::rename(&file, world.folder().join("elsewhere")).unwrap();
        let fault = world.store().look_after_files().await.unwrap_err().to_string();
        assert!(fault.contains(what) && fault.contains("nothing is accepted"), "{fault}");
        let refused = append_within(world.store(), world.event("{}"), limits::COMMIT_DEADLINE).await;
        assert!(matches!(refused, Err(StoreError::Poisoned)));
        fs::rename(world.folder().join("elsewhere"), &file).unwrap();
    }
}

#[tokio::test]
async fn says_that_the_end_of_the_log_is_missing() {
    let mut world = World::on_sqlite().await;
    for _ in 0..3 {
        world.append("{}").await;
    }
    world.store().look_after_files().await.unwrap();
    assert_eq!(world.store().lost_events(), None);
    world.close();
    // As a damaged frame of the log does: what comes after it is not there for the database.
    let db = Connection::open(world.folder().join("linkspan.db")).unwrap();
    db.execute("DELETE FROM events WHERE seq > 1", []).unwrap();
    drop(db);
    world.reopen();
    let lost = world.store().lost_events().unwrap();
    assert_eq!((lost.first, lost.last), (2, 3));
    // Their positions are not given again.
    assert_eq!(world.append("{}").await.seq(), 4);
}

#[tokio::test]
async fn gives_back_the_log_that_a_long_read_kept() {
    let world = World::on_sqlite().await;
    let reader = Connection::open(world.folder().join("linkspan.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let _: i64 = reader.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    let body = Bytes::from(vec![b'x'; 60_000]);
    for _ in 0..1_200 {
        world.append(body.clone()).await;
    }
    let grown = world.store().wal_bytes();
    assert!(grown > 60 << 20, "{grown}");
    reader.execute_batch("COMMIT").unwrap();
    for _ in 0..1_200 {
        world.append(body.clone()).await;
        if world.store().wal_bytes() <= 33 << 20 {
            return;
        }
    }
    panic!("the log still has {} bytes", world.store().wal_bytes());
}

#[tokio::test]
async fn finds_damage_in_the_database() {
    let mut world = World::on_sqlite().await;
    for n in 0..500 {
        world.append(format!("{n:0>3000}")).await;
    }
    assert!(world.store().check_integrity().await.unwrap().is_empty());
    world.close();
    let path = world.folder().join("linkspan.db");
    let mut pages = fs::read(&path).unwrap();
    let middle = pages.len() / 8_192 / 2 * 8_192;
    pages[middle..middle + 8_192].fill(0);
    fs::write(&path, pages).unwrap();
    world.reopen();
    assert!(!world.store().check_integrity().await.unwrap().is_empty());
}

#[test]
fn refuses_a_folder_whose_database_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::lock(&folder.path().join("data")).unwrap();
    data.check_beginning(Beginning::Usual).unwrap();
    // A first run that was cut short before there was a database.
    data.master_key(None).unwrap();
    data.check_beginning(Beginning::Usual).unwrap();
    let key = fs::read(data.path().join("key.new")).unwrap();
    data.master_key(None).unwrap();
    fs::write(data.database(), "a database").unwrap();
    data.settle_key().unwrap();
    assert_eq!(fs::read(data.path().join("key")).unwrap(), key);
    data.check_beginning(Beginning::Usual).unwrap();
    for end in ["", "of a database that is gone"] {
        match end {
            "" => fs::write(data.database(), "").unwrap(),
            _ => fs::remove_file(data.database()).unwrap(),
        }
        let fault = data.check_beginning(Beginning::Usual).unwrap_err().to_string();
        assert!(fault.contains("missing or empty") && fault.contains("--begin-anew"), "{fault}");
        data.check_beginning(Beginning::Anew).unwrap();
    }
    // A key that is kept elsewhere leaves other signs.
    fs::remove_file(data.path().join("key")).unwrap();
    data.check_beginning(Beginning::Usual).unwrap();
    fs::create_dir_all(data.spool()).unwrap();
    fs::write(data.spool().join("body"), "x").unwrap();
    assert!(data.check_beginning(Beginning::Usual).is_err());
}

#[tokio::test]
async fn removes_a_body_whose_caller_went_away() {
    let world = World::on_sqlite().await;
    let body = Bytes::from(vec![b'x'; limits::INLINE_BODY_BYTES + 1]);
    drop(world.store().spool(body).await.unwrap());
    assert!(world.spooled().is_empty());
}

/// A step's output that cannot be read any more must not keep other jobs from their workers.
#[tokio::test]
async fn fails_a_job_whose_output_is_lost_and_claims_the_others() {
    let world = World::on_sqlite().await;
    let damaged = world.claimed().await;
    let run = step_run(JobStatus::Succeeded);
    let result = Some(serde_json::to_vec(&json!("x".repeat(limits::INLINE_BODY_BYTES))).unwrap());
    let step = StepRecord { position: 0, run, result };
    world.store().record_step(damaged.lease, step, Next::Continue).await.unwrap();
    world.store().release(damaged.lease).await.unwrap();
    for file in world.spooled() {
        fs::remove_file(world.folder().join("spool").join(file)).unwrap();
    }
    world.append("whole").await;
    world.dispatch_all().await;
    let claimed = world.claim(10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_ne!(claimed[0].lease.job, damaged.lease.job);
    let job = world.store().job(damaged.lease.job).await.unwrap();
    assert_eq!(job.status, JobStatus::Failed);
    assert_eq!(job.error.unwrap().code, "store.output_lost");
}

#[tokio::test]
async fn restores_a_backup_that_was_made_while_writing() {
    let world = World::on_sqlite().await;
    let mut acknowledged = Vec::new();
    for n in 0..20 {
        acknowledged.push(world.append(format!("{n}")).await);
        acknowledged.push(append_large(&world, n).await);
    }
    world.dispatch_all().await;
    let target = tempfile::tempdir().unwrap();
    let folder = target.path().join("backup");
    let writes = async {
        for n in 20..60 {
            append_large(&world, n).await;
        }
    };
    let (report, ()) = tokio::join!(world.store().backup(folder.clone()), writes);
    let report = report.unwrap();
    assert!(report.events >= 40 && report.jobs == 40, "{report:?}");
    assert!(report.files.len() > 20);
    assert!(matches!(world.store().backup(folder.clone()).await, Err(StoreError::Conflict(_))));

    let mut other = World::empty();
    other.close();
    for file in files(other.folder()) {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(restore(&folder, other.folder(), NOW).unwrap().events, report.events);
    assert!(matches!(restore(&folder, other.folder(), NOW), Err(StoreError::Conflict(_))));
    other.reopen();
    for id in acknowledged {
        assert_eq!(other.store().event(id).await.unwrap().body, world.store().event(id).await.unwrap().body);
    }
    assert_eq!(other.jobs().await.len(), 40);
    assert_eq!(other.store().events_after(0, 1_000).await.unwrap().len() as u64, report.events);
    // What was accepted after the backup is lost, but its ids and positions are not given again.
    let new = other.append("new").await;
    assert!(new.seq() > world.store().last_seq() + 1_000_000);
    other.dispatch_all().await;
    assert_eq!(other.jobs().await.len() as u64, 41 + report.events - 40);
}

#[tokio::test]
async fn holds_bodies_back_until_the_backup_has_them() {
    let world = World::on_sqlite().await;
    for n in 0..40 {
        append_large(&world, n).await;
    }
    let up_to = world.store().last_seq();
    world.store().dispatch(linkspan_store::Dispatched { up_to, ..Default::default() }).await.unwrap();
    world.clock.advance(Duration::from_secs(31 * 86_400));
    let target = tempfile::tempdir().unwrap();
    let folder = target.path().join("backup");
    let mut sweep = Sweep::default();
    let expire = world.store().expire(Retention::default(), &mut sweep);
    let (report, expired) = tokio::join!(world.store().backup(folder), expire);
    let report = report.unwrap();
    assert_eq!(expired.unwrap().events, 40);
    assert!(report.files.len() as u64 == 1 + report.events, "{report:?}");
    assert!(world.spooled().is_empty());
}

/// A world with a bucket of two objects and a SQLite destination beside its database.
async fn world_with_tables() -> World {
    let world = World::on_sqlite().await;
    append_large(&world, b'a').await;
    let data = world.folder().to_owned();
    fs::create_dir_all(data.join("bucket/endpoints/in%20x")).unwrap();
    fs::write(data.join("bucket/endpoints/in%20x/0-7.ndjson.zst"), "object").unwrap();
    fs::write(data.join("bucket/endpoints/in%20x/7-9.ndjson.zst"), "another").unwrap();
    fs::write(data.join("bucket/endpoints/in%20x/9-11.ndjson.part"), "half").unwrap();
    fs::create_dir_all(data.join("destinations/deep")).unwrap();
    let db = rusqlite::Connection::open(data.join("destinations/deep/w.db")).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)").unwrap();
    // Its log stays beside it, as when a sync holds it open.
    std::mem::forget(db);
    world
}

#[tokio::test]
async fn backs_up_the_bucket_and_the_tables_and_says_what_it_leaves_out() {
    let world = world_with_tables().await;
    let data = world.folder().to_owned();
    fs::write(data.join("destinations/broken.db"), "no database at all".repeat(300)).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", data.join("destinations/link.db")).unwrap();
    fs::create_dir_all(data.join("secrets")).unwrap();
    let target = tempfile::tempdir().unwrap();
    let folder = target.path().join("above/backup");
    let report = world.store().backup(folder.clone()).await.unwrap();
    assert_eq!((report.objects(), report.destinations()), (2, 1), "{report:?}");
    let left_out: Vec<_> = report.left_out.iter().map(|left| left.name.as_str()).collect();
    assert_eq!(left_out, ["key", "secrets", "destinations/link.db", "destinations/broken.db"]);
    assert!(report.left_out[3].reason.contains("not a database"), "{:?}", report.left_out);

    let restored = target.path().join("new/restored");
    restore(&folder, &restored, NOW).unwrap();
    assert_eq!(fs::read(restored.join("bucket/endpoints/in%20x/0-7.ndjson.zst")).unwrap(), b"object");
    let db = rusqlite::Connection::open(restored.join("destinations/deep/w.db")).unwrap();
    let sum: i64 = db.query_row("SELECT sum(a) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(sum, 3);
}

#[tokio::test]
async fn restores_again_what_was_cut_short_and_replaces_nothing() {
    let world = world_with_tables().await;
    let target = tempfile::tempdir().unwrap();
    let folder = target.path().join("backup");
    world.store().backup(folder.clone()).await.unwrap();
    let restored = target.path().join("restored");
    restore(&folder, &restored, NOW).unwrap();
    // As a restore leaves it that was cut short: without its database, which comes last.
    fs::remove_file(restored.join("linkspan.db")).unwrap();
    restore(&folder, &restored, NOW).unwrap();
    fs::remove_file(restored.join("linkspan.db")).unwrap();
    for (name, content) in [("destinations/deep/w.db", "another"), ("destinations/deep/w.db-wal", "a log")] {
        let path = restored.join(name);
        let before = fs::read(&path).ok();
        fs::write(&path, content).unwrap();
        match restore(&folder, &restored, NOW) {
            Err(StoreError::Conflict(reason)) => assert!(reason.contains(name), "{reason}"),
            other => panic!("{other:?}"),
        }
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    restore(&folder, &restored, NOW).unwrap();
}

#[tokio::test]
async fn a_backup_that_fails_leaves_nothing() {
    let world = World::on_sqlite().await;
    append_large(&world, b'a').await;
    for file in world.spooled() {
        fs::remove_file(world.folder().join("spool").join(file)).unwrap();
    }
    let target = tempfile::tempdir().unwrap();
    let folder = target.path().join("backup");
    let failed = world.store().backup(folder.clone()).await;
    assert!(matches!(&failed, Err(StoreError::Unusable(reason)) if reason.contains("cannot be copied")), "{failed:?}");
    assert!(!folder.exists());
}

#[tokio::test]
async fn refuses_a_damaged_backup() {
    let world = world_with_tables().await;
    let target = tempfile::tempdir().unwrap();
    let folder = target.path().join("backup");
    let report = world.store().backup(folder.clone()).await.unwrap();
    assert_eq!(report.files.len(), 5);
    let restored = target.path().join("restored");
    let refused = || match restore(&folder, &restored, NOW) {
        Err(StoreError::Unusable(reason)) => {
            assert!(!restored.join("linkspan.db").exists());
            reason
        }
        other => panic!("{other:?}"),
    };
    for name in report.files.keys() {
        let path = folder.join(name);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs::write(&path, &flipped).unwrap();
        assert!(refused().contains(name));
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(refused().contains(name));
        fs::remove_file(&path).unwrap();
        assert!(refused().contains("incomplete"));
        fs::write(&path, &whole).unwrap();
    }
    let manifest = fs::read_to_string(folder.join("manifest.json")).unwrap();
    fs::write(folder.join("manifest.json"), manifest.replace("spool/", "../")).unwrap();
    refused();
    fs::remove_file(folder.join("manifest.json")).unwrap();
    assert!(refused().contains("no whole backup"));
    fs::write(folder.join("manifest.json"), manifest).unwrap();
    // The log of another database must not be taken for this one's.
    fs::create_dir_all(&restored).unwrap();
    fs::write(restored.join("linkspan.db-wal"), "x").unwrap();
    assert!(matches!(restore(&folder, &restored, NOW), Err(StoreError::Conflict(_))));
    fs::remove_file(restored.join("linkspan.db-wal")).unwrap();
    restore(&folder, &restored, NOW).unwrap();
}

#[test]
fn lets_one_server_at_a_time_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let first = DataFolder::lock(&path).unwrap();
    match DataFolder::lock(&path) {
        Err(StoreError::Unusable(reason)) => assert!(reason.contains("in use by another linkspan"), "{reason}"),
        other => panic!("{other:?}"),
    }
    drop(first);
    DataFolder::lock(&path).unwrap();
}

#[test]
fn makes_a_master_key_at_the_first_run_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let data = DataFolder::lock(&folder.path().join("data")).unwrap();
    data.master_key(None).unwrap();
    data.settle_key().unwrap();
    let written = fs::read_to_string(data.path().join("key")).unwrap();
    assert_eq!(fs::metadata(data.path().join("key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(data.path()).unwrap().permissions().mode() & 0o777, 0o700);
    data.master_key(None).unwrap();
    assert_eq!(fs::read_to_string(data.path().join("key")).unwrap(), written);
    // A database without its key is not given another one.
    fs::write(data.database(), "a database").unwrap();
    fs::rename(data.path().join("key"), folder.path().join("elsewhere")).unwrap();
    assert!(matches!(data.master_key(None), Err(StoreError::Unusable(_))));
    data.master_key(Some(&folder.path().join("elsewhere"))).unwrap();
    fs::write(folder.path().join("elsewhere"), "no key").unwrap();
    assert!(matches!(data.master_key(Some(&folder.path().join("elsewhere"))), Err(StoreError::Unusable(_))));
}

#[tokio::test]
async fn writes_the_first_operator_token_once() {
    let world = World::empty();
    let data = DataFolder::lock(&world.folder().join("data")).unwrap();
    world.store().ensure_operator_token(&data).await.unwrap();
    let token = fs::read_to_string(data.operator_token()).unwrap();
    assert!(world.store().is_operator_token(&token).await.unwrap());
    fs::remove_file(data.operator_token()).unwrap();
    world.store().ensure_operator_token(&data).await.unwrap();
    assert!(!data.operator_token().exists());
    assert!(world.store().is_operator_token(&token).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_beside_a_document_that_it_cannot_read() {
    let mut world = World::on_sqlite().await;
    world.apply(sync("load")).await;
    world.close();
    let db = rusqlite::Connection::open(world.folder().join("linkspan.db")).unwrap();
    let later = "UPDATE resources SET document = json_set(document, '$.spec.of_a_later_version', 1)";
    db.execute(&format!("{later} WHERE name IN ('in', 'load', 'act')"), []).unwrap();
    drop(db);
    world.reopen();
    let snapshot = Arc::clone(&world.store().snapshot());
    let unusable: Vec<String> = snapshot.all_unusable().map(|(kind, name, _)| format!("{kind}/{name}")).collect();
    assert_eq!(unusable, ["endpoint/in", "recipe/act", "sync/load"]);
    let reason = snapshot.unusable(linkspan_model::Kind::Sync, &name("load")).unwrap();
    assert!(reason.contains("of_a_later_version") && reason.contains("this version"), "{reason}");
    // Its senders are told to try again, not that the URL is unknown.
    assert!(snapshot.endpoint(&name("in")).unwrap().verifier.is_err());
    assert!(snapshot.sync(&name("load")).is_none() && snapshot.recipe(&name("act")).is_none());
    // What refers to it stays as it is, others are changed, and an apply replaces it.
    let row = snapshot.endpoint(&name("in")).unwrap().row;
    world.apply(serde_json::json!([endpoint("other")])).await;
    world.apply(serde_json::json!([endpoint("in"), recipe("act", "in")])).await;
    world.apply(sync("load")).await;
    let snapshot = world.store().snapshot();
    assert_eq!(snapshot.all_unusable().count(), 0);
    assert_eq!(snapshot.endpoint(&name("in")).unwrap().row, row);
    world.append("{}").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_what_was_compiled_of_documents_that_did_not_change() {
    let world = World::on_sqlite().await;
    let connector = serde_json::json!({"kind": "connector", "name": "api", "spec": {
        "connection": {"base_url": "https://a.test"},
        "actions": {"get": {"request": {"method": "GET", "path": "/"}}},
    }});
    let connection = serde_json::json!({"kind": "connection", "name": "api", "spec": {"connector": "api"}});
    world.apply(serde_json::json!([connector.clone(), connection])).await;
    let before = Arc::clone(&world.store().snapshot());
    world.apply(serde_json::json!([endpoint("other")])).await;
    let after = Arc::clone(&world.store().snapshot());
    let of_act = |snapshot: &linkspan_store::Snapshot| Arc::clone(&snapshot.recipe(&name("act")).unwrap().recipe);
    assert!(Arc::ptr_eq(&of_act(&before), &of_act(&after)));
    let compiled = |snapshot: &linkspan_store::Snapshot| {
        let connection = snapshot.connection(&name("api")).unwrap();
        Arc::clone(&connection.connector.as_ref().unwrap().0)
    };
    assert!(Arc::ptr_eq(&compiled(&before), &compiled(&after)));
    let mut changed = connector;
    changed["spec"]["actions"]["get"]["request"]["path"] = "/other".into();
    world.apply(serde_json::json!([changed])).await;
    assert!(!Arc::ptr_eq(&compiled(&after), &compiled(&world.store().snapshot())));
}
