//! Backup of a running server, and restore into an empty folder.
//!
//! A backup is a folder with a copy of the database, the large bodies that it names, and `manifest.json`
//! with their SHA-256. The master key is never in it: keep that elsewhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use linkspan_model::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Store;
use crate::error::{Result, StoreError};

/// What a backup holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupReport {
    /// Events in it.
    pub events: u64,
    /// Jobs in it.
    pub jobs: u64,
    /// Files by name, with their SHA-256 in hexadecimal.
    pub files: BTreeMap<String, String>,
}

const DATABASE: &str = "linkspan.db";
const SPOOL: &str = "spool";
const MANIFEST: &str = "manifest.json";
/// How far positions jump over those that were given after the backup was made: what a bucket, a table or somebody
/// else's records hold under such a position must never mean another event. A year at 30,000 events a second.
const POSITIONS_SKIPPED: i64 = 1 << 40;
/// More events than come in a second.
const POSITIONS_PER_SECOND: i64 = 1 << 28;

impl Store {
    /// Writes a backup into `folder`, which must not exist. Everything acknowledged before the call is in it.
    ///
    /// # Errors
    /// When the folder exists or the disk refuses.
    pub async fn backup(&self, folder: std::path::PathBuf) -> Result<BackupReport> {
        let database = self.database().to_owned();
        let spool = self.spool_folder().clone();
        crate::event::blocking(move || {
            fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| {
                StoreError::Conflict(format!(
                    "backup folder {}: {error}; name one that does not exist",
                    folder.display()
                ))
            })?;
            // Before the copy is made: every file that it names stays until it is copied too.
            let hold = spool.hold();
            let source = Connection::open(&database)?;
            let copy = folder.join(DATABASE);
            source.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
            fs::create_dir(folder.join(SPOOL))?;
            let copied = Connection::open(&copy)?;
            let names = spooled(&copied)?;
            for name in &names {
                fs::copy(spool.folder().join(name), folder.join(SPOOL).join(name)).map_err(|error| {
                    StoreError::Unusable(format!("the large body in spool file {name} cannot be copied: {error}"))
                })?;
            }
            drop(hold);
            let report = BackupReport {
                events: count(&copied, "events")?,
                jobs: count(&copied, "jobs")?,
                files: hashes(&folder, &names)?,
            };
            drop(copied);
            let manifest = serde_json::to_vec_pretty(&report)?;
            crate::folder::write_private(&folder.join(MANIFEST), &manifest)?;
            sync_all(&folder)?;
            Ok(report)
        })
        .await
    }
}

/// Restores the backup in `from` into the data folder `to`, which holds no database yet.
///
/// # Errors
/// When the backup is incomplete or damaged, or `to` holds a database or the log of one.
pub fn restore(from: &Path, to: &Path, now: Timestamp) -> Result<BackupReport> {
    let manifest = fs::read(from.join(MANIFEST)).map_err(|error| {
        StoreError::Unusable(format!("{} holds no whole backup: {MANIFEST}: {error}", from.display()))
    })?;
    let report: BackupReport = serde_json::from_slice(&manifest)?;
    for (name, wanted) in &report.files {
        if !is_ours(name) {
            return Err(StoreError::Unusable(format!("the backup is damaged: its manifest names {name}")));
        }
        if hash(&from.join(name))? != *wanted {
            return Err(StoreError::Unusable(format!("the backup is damaged: {name} is not what its manifest says")));
        }
    }
    // The log of an earlier database would be taken for this one's.
    if let Some(left) = ["", "-wal", "-shm", "-journal"]
        .map(|end| to.join(format!("{DATABASE}{end}")))
        .iter()
        .find(|path| path.exists())
    {
        return Err(StoreError::Conflict(format!("{} is there already; restore into an empty folder", left.display())));
    }
    let whole = Connection::open_with_flags(from.join(DATABASE), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let integrity: String = whole.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if integrity != "ok" {
        return Err(StoreError::Unusable(format!("the backup's database is damaged: {integrity}")));
    }
    for name in spooled(&whole)? {
        if !report.files.contains_key(&format!("{SPOOL}/{name}")) {
            return Err(StoreError::Unusable(format!("the backup is incomplete: large body {name} is not in it")));
        }
    }
    drop(whole);
    fs::create_dir_all(to.join(SPOOL))?;
    for name in report.files.keys().filter(|name| *name != DATABASE) {
        fs::copy(from.join(name), to.join(name))?;
    }
    // The database last, in one piece: an interrupted restore leaves a folder without one.
    let partial = to.join(format!("{DATABASE}.part"));
    fs::copy(from.join(DATABASE), &partial)?;
    skip_positions(&partial, now)?;
    sync_all(to)?;
    fs::rename(&partial, to.join(DATABASE))?;
    File::open(to)?.sync_all()?;
    Ok(report)
}

/// Whether a manifest may name this file: nothing outside the backup's folder.
fn is_ours(name: &str) -> bool {
    let is_plain =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    name == DATABASE || name.strip_prefix("spool/").is_some_and(is_plain)
}

/// The positions of a restored log begin far behind those of the backup, and further with every second, so that
/// two restores of one backup do not give out the same ones.
fn skip_positions(database: &Path, now: Timestamp) -> Result<()> {
    let db = Connection::open(database)?;
    let last = crate::open::last_seq(&db)?.cast_signed();
    db.execute(
        "INSERT OR REPLACE INTO positions (consumer, seq) VALUES ('restore', ?1)",
        [last.saturating_add(POSITIONS_SKIPPED).max(now.as_secs().saturating_mul(POSITIONS_PER_SECOND))],
    )?;
    Ok(())
}

fn count(db: &Connection, table: &str) -> Result<u64> {
    let count: i64 = db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

fn spooled(db: &Connection) -> Result<Vec<String>> {
    let mut names = db.prepare("SELECT name FROM spool")?;
    Ok(names.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

fn hashes(folder: &Path, spooled: &[String]) -> Result<BTreeMap<String, String>> {
    let names = std::iter::once(DATABASE.to_owned()).chain(spooled.iter().map(|name| format!("{SPOOL}/{name}")));
    names.map(|name| hash(&folder.join(&name)).map(|hash| (name, hash))).collect()
}

fn hash(path: &Path) -> Result<String> {
    let mut file = File::open(path)
        .map_err(|error| StoreError::Unusable(format!("the backup is incomplete: {}: {error}", path.display())))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut HashWriter(&mut hasher))?;
    Ok(hex::encode(hasher.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn sync_all(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            File::open(&path)?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()?;
    Ok(())
}
