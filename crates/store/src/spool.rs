//! Large bodies: files beside the database, so that its log keeps small pages.
//!
//! A file is written, synced, renamed and its folder synced before the row that names it is committed.
//! A file whose row never came is removed when the store is opened.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::error::{Result, StoreError};

/// The folder of large bodies.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    folder: PathBuf,
    held: Arc<Mutex<Held>>,
}

/// Files whose rows are gone while a backup that still knows the rows is being made.
#[derive(Debug, Default)]
struct Held {
    holders: usize,
    files: Vec<String>,
}

/// Holds removals back while it lives.
#[derive(Debug)]
pub(crate) struct SpoolHold(Spool);

impl Drop for SpoolHold {
    fn drop(&mut self) {
        let mut held = self.0.held();
        held.holders -= 1;
        let files = if held.holders == 0 { std::mem::take(&mut held.files) } else { Vec::new() };
        drop(held);
        files.iter().for_each(|name| self.0.remove(name));
    }
}

/// A synced file that waits for its row; removed when dropped before that.
#[derive(Debug)]
pub struct SpoolFile {
    path: PathBuf,
    name: String,
    size: u64,
    kept: AtomicBool,
}

impl SpoolFile {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The row that names the file is written.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The row that names the file was not kept after all.
    pub(crate) fn discard(&self) {
        self.kept.store(false, Ordering::Relaxed);
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a spool file without an event could not be removed");
        }
    }
}

impl Spool {
    /// Opens the folder, making it when it is not there.
    pub(crate) fn open(folder: PathBuf) -> Result<Self> {
        crate::folder::make_durably(&folder)?;
        Ok(Self { folder, held: Arc::default() })
    }

    /// Holds removals back until the hold is dropped.
    pub(crate) fn hold(&self) -> SpoolHold {
        self.held().holders += 1;
        SpoolHold(self.clone())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a body durably. Blocks on the disk.
    pub(crate) fn write(&self, body: &[u8]) -> Result<SpoolFile> {
        let name = format!("{}-{}", uuid::Uuid::new_v4().simple(), checksum(body));
        let path = self.folder.join(&name);
        let partial = self.folder.join(format!("{name}.part"));
        let mut file = match File::create_new(&partial) {
            // Somebody has removed the folder.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                crate::folder::make_durably(&self.folder)?;
                File::create_new(&partial)?
            }
            other => other?,
        };
        let written = file.write_all(body).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&partial, &path));
        if let Err(error) = written {
            // The first fault is the one to tell; the left-over is removed at the next start at the latest.
            drop(fs::remove_file(&partial));
            return Err(error.into());
        }
        File::open(&self.folder)?.sync_all()?;
        Ok(SpoolFile { path, name, size: body.len() as u64, kept: AtomicBool::new(false) })
    }

    /// Reads a body back. Blocks on the disk.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let unusable = |what: String| StoreError::Unusable(format!("the body in spool file {name} {what}"));
        let body = match fs::read(self.folder.join(name)) {
            Ok(body) => body,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(unusable(format!("cannot be read: {error}")));
            }
            // Too many open files, a disk that does not answer: that passes, and the body is there.
            Err(error) => return Err(StoreError::Database(format!("spool file {name} cannot be read now: {error}"))),
        };
        // Files of the first release have none.
        if let Some((_, wanted)) = name.split_once('-')
            && checksum(&body) != wanted
        {
            return Err(unusable("is damaged: it does not match its checksum".to_owned()));
        }
        Ok(body)
    }

    /// Removes a body whose row is gone, or has it removed when nothing holds it back any more.
    pub(crate) fn remove(&self, name: &str) {
        let mut held = self.held();
        if held.holders > 0 {
            held.files.push(name.to_owned());
            return;
        }
        drop(held);
        if let Err(error) = fs::remove_file(self.folder.join(name)) {
            tracing::warn!(name, %error, "a spool file could not be removed");
        }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sets every file aside that `is_known` does not know, and removes what was never written to its end. A file
    /// without a row is the body of an event that was never acknowledged, or of one whose row was lost: nobody can
    /// tell, so [`Self::forget`] removes it only later.
    pub(crate) fn sweep(&self, mut is_known: impl FnMut(&str) -> Result<bool>) -> Result<()> {
        let mut count = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                continue;
            }
            let name = entry.file_name();
            let known = match name.to_str() {
                Some(name) => is_known(name)?,
                None => false,
            };
            if known {
                continue;
            }
            if name.to_string_lossy().ends_with(".part") {
                fs::remove_file(entry.path())?;
                continue;
            }
            fs::create_dir_all(self.unknown())?;
            fs::rename(entry.path(), self.unknown().join(name))?;
            count += 1;
        }
        if count > 0 {
            tracing::warn!(count, folder = %self.unknown().display(), "large bodies without an event were set aside");
        }
        Ok(())
    }

    fn unknown(&self) -> PathBuf {
        self.folder.join("unknown")
    }

    /// Removes files that were set aside and are older than `age`, at most `most` of them.
    pub(crate) fn forget(&self, age: std::time::Duration, most: usize) -> Result<()> {
        let Ok(entries) = fs::read_dir(self.unknown()) else { return Ok(()) };
        for entry in entries.take(most) {
            let entry = entry?;
            // Of the file system's own clock, as its times are.
            let is_old = entry.metadata()?.modified()?.elapsed().is_ok_and(|passed| passed > age);
            if is_old {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// The beginning of the body's SHA-256, as the end of its file's name.
fn checksum(body: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(body).into();
    hex::encode(&hash[..8])
}
