//! Backup of a running server, and restore into an empty folder.
//!
//! A backup is a folder with a copy of the database, the large bodies that it names, the objects of the bucket, copies
//! of the SQLite files below `destinations/`, and `manifest.json` with the SHA-256 of each. The database is copied
//! first: a destination that is ahead of it, and an object that it does not name yet, cost a restored server nothing,
//! the other way round something would be missing. What is not in it, the manifest says; the master key never is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use linkspan_model::Timestamp;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Store;
use crate::error::{Result, StoreError};
use crate::folder::make_durably;

/// What a backup holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupReport {
    /// Events in it.
    pub events: u64,
    /// Jobs in it.
    pub jobs: u64,
    /// Files by name, with their SHA-256 in hexadecimal.
    pub files: BTreeMap<String, String>,
    /// What is not in it.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// Something of the data folder that is not in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name in the data folder.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl BackupReport {
    /// Objects of the bucket in it.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.below(BUCKET)
    }

    /// SQLite destinations in it.
    #[must_use]
    pub fn destinations(&self) -> u64 {
        self.below(DESTINATIONS)
    }

    fn below(&self, folder: &str) -> u64 {
        self.files.keys().filter(|name| name.split('/').next() == Some(folder)).count() as u64
    }
}

const DATABASE: &str = "linkspan.db";
const SPOOL: &str = "spool";
const BUCKET: &str = "bucket";
const DESTINATIONS: &str = "destinations";
const MANIFEST: &str = "manifest.json";
/// What SQLite puts beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// How long a destination that others hold is waited for.
const DESTINATION_PATIENCE: Duration = Duration::from_secs(5);
/// How far positions jump over those that were given after the backup was made: what a bucket, a table or somebody
/// else's records hold under such a position must never mean another event. A year at 30,000 events a second.
const POSITIONS_SKIPPED: i64 = 1 << 40;
/// More events than come in a second.
const POSITIONS_PER_SECOND: i64 = 1 << 28;

impl Store {
    /// Writes a backup into `folder`, which must not exist. Everything acknowledged before the call is in it. When it
    /// fails, nothing is left of it.
    ///
    /// # Errors
    /// `Conflict` when the folder exists, or the disk has no room for it; else when the disk refuses.
    pub async fn backup(&self, folder: PathBuf) -> Result<BackupReport> {
        let store = self.clone();
        crate::event::blocking(move || {
            let above = folder.parent().unwrap_or(Path::new(".")).to_owned();
            make_durably(&above)?;
            fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| {
                StoreError::Conflict(format!(
                    "backup folder {}: {error}; name one that does not exist",
                    folder.display()
                ))
            })?;
            let written = write(&store, &folder);
            if written.is_err()
                && let Err(error) = fs::remove_dir_all(&folder)
            {
                tracing::warn!(folder = %folder.display(), %error, "what a failed backup left could not be removed");
            }
            let report = written?;
            File::open(above)?.sync_all()?;
            Ok(report)
        })
        .await
    }
}

fn write(store: &Store, folder: &Path) -> Result<BackupReport> {
    let data = store.database().parent().unwrap_or(Path::new(".")).to_owned();
    let spool = store.spool_folder();
    let mut left_out = always_left_out(&data);
    let objects = files_below(&data, BUCKET, &mut left_out)?;
    let destinations = files_below(&data, DESTINATIONS, &mut left_out)?;
    let mut bytes = size(store.database()) + folder_size(spool.folder())?;
    bytes += objects.iter().chain(&destinations).map(|name| size(&data.join(name))).sum::<u64>();
    store.disk().refuse_without_room(bytes)?;

    // Before the copy is made: every file that it names stays until it is copied too.
    let hold = spool.hold();
    let source = Connection::open(store.database())?;
    let copy = folder.join(DATABASE);
    source.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    fs::create_dir(folder.join(SPOOL))?;
    let copied = Connection::open(&copy)?;
    let mut names = vec![DATABASE.to_owned()];
    for name in spooled(&copied)? {
        fs::copy(spool.folder().join(&name), folder.join(SPOOL).join(&name)).map_err(|error| {
            StoreError::Unusable(format!("the large body in spool file {name} cannot be copied: {error}"))
        })?;
        names.push(format!("{SPOOL}/{name}"));
    }
    drop(hold);
    // Tables before the bucket: what they hold is in it by then.
    for name in destinations {
        match copy_destination(&data.join(&name), &folder.join(&name)) {
            Ok(()) => names.push(name),
            Err(reason) => {
                drop(fs::remove_file(folder.join(&name)));
                let reason = format!("{reason}; a sync fills it again from the bucket");
                left_out.push(LeftOut { name, reason });
            }
        }
    }
    // Listed again: what was put meanwhile may be in the database's copy.
    for name in files_below(&data, BUCKET, &mut Vec::new())? {
        let to = folder.join(&name);
        fs::create_dir_all(to.parent().unwrap_or(folder))?;
        match fs::copy(data.join(&name), to) {
            // One that was found damaged was made anew.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => {
                copied?;
                names.push(name);
            }
        }
    }
    let report = BackupReport {
        events: count(&copied, "events")?,
        jobs: count(&copied, "jobs")?,
        files: hashes(folder, names)?,
        left_out,
    };
    drop(copied);
    let manifest = serde_json::to_vec_pretty(&report)?;
    sync_all(folder)?;
    // Last: a folder without it is no backup.
    crate::folder::write_private(&folder.join(MANIFEST), &manifest)?;
    Ok(report)
}

fn always_left_out(data: &Path) -> Vec<LeftOut> {
    let key = "the master key opens the secrets of the backup; keep a copy elsewhere";
    let secrets = "files that secrets are read from; copy them yourself";
    [("key", key), ("secrets", secrets)]
        .into_iter()
        .filter(|(name, _)| *name == "key" || data.join(name).exists())
        .map(|(name, reason)| LeftOut { name: name.to_owned(), reason: reason.to_owned() })
        .collect()
}

/// The files in this folder of the data folder and below, by their names there; not what is being written.
fn files_below(data: &Path, folder: &str, left_out: &mut Vec<LeftOut>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(data.join(&folder)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type()?;
            let is_partial = name.ends_with(".part") || BESIDE.iter().any(|end| name.ends_with(end));
            match () {
                () if kind.is_dir() => folders.push(name),
                () if is_partial => {}
                () if !kind.is_file() => {
                    left_out.push(LeftOut { name, reason: "it is no file of this folder".to_owned() });
                }
                () if !is_ours(&name) => {
                    left_out.push(LeftOut { name, reason: "no destination and no object has such a name".to_owned() });
                }
                () => found.push(name),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A SQLite file as of one moment, while others may write it.
fn copy_destination(from: &Path, to: &Path) -> std::result::Result<(), String> {
    let copy = || -> Result<()> {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        source.busy_timeout(DESTINATION_PATIENCE)?;
        source.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
        Ok(())
    };
    copy().map_err(|error| format!("it cannot be copied: {error}"))?;
    if to.exists() { Ok(()) } else { Err("it is empty".to_owned()) }
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |found| found.len())
}

fn folder_size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        bytes += entry?.metadata().map_or(0, |found| found.len());
    }
    Ok(bytes)
}

/// Restores the backup in `from` into the data folder `to`, which holds no database yet. One that was cut short can
/// be made again.
///
/// # Errors
/// When the backup is incomplete or damaged, or `to` holds a database or the log of one, or other files of these names.
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
    check_target(&report, to)?;
    let whole = Connection::open_with_flags(from.join(DATABASE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
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
    make_durably(&to.join(SPOOL))?;
    for name in report.files.keys().filter(|name| *name != DATABASE) {
        let file = to.join(name);
        fs::create_dir_all(file.parent().unwrap_or(to))?;
        let mut partial = file.clone().into_os_string();
        partial.push(".part");
        fs::copy(from.join(name), &partial)?;
        fs::rename(&partial, file)?;
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

/// Nothing that is there may be replaced, or be taken for a part of what is restored.
fn check_target(report: &BackupReport, to: &Path) -> Result<()> {
    let conflict = |path: &Path| {
        StoreError::Conflict(format!("{} is there already; restore into an empty folder", path.display()))
    };
    let is_database = |name: &str| name == DATABASE || name.split('/').next() == Some(DESTINATIONS);
    for (name, wanted) in &report.files {
        let file = to.join(name);
        // The log of an earlier database would be taken for this one's.
        for end in BESIDE.iter().filter(|_| is_database(name)) {
            let beside = to.join(format!("{name}{end}"));
            if beside.exists() {
                return Err(conflict(&beside));
            }
        }
        if file.exists() && (name == DATABASE || hash(&file)? != *wanted) {
            return Err(conflict(&file));
        }
    }
    Ok(())
}

/// Whether a manifest may name this file: nothing outside the backup's folder.
fn is_ours(name: &str) -> bool {
    let is_plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.%".contains(&byte))
    };
    match name.split_once('/') {
        None => name == DATABASE,
        Some((SPOOL, file)) => {
            !file.is_empty() && file.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        }
        Some((BUCKET | DESTINATIONS, path)) => path.split('/').all(is_plain),
        Some(_) => false,
    }
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

fn hashes(folder: &Path, names: Vec<String>) -> Result<BTreeMap<String, String>> {
    names.into_iter().map(|name| hash(&folder.join(&name)).map(|hash| (name, hash))).collect()
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
