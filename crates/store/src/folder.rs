//! The data folder: everything that a server remembers, under one lock.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Result, StoreError};
use crate::seal::MasterKey;

/// A locked data folder. While it lives, no second server opens the same folder.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder when it is not there, and locks it.
    ///
    /// # Errors
    /// `Unusable` when it cannot be made, or another process holds it.
    pub fn lock(path: &Path) -> Result<Self> {
        let unusable = |what: &str, error: &dyn std::fmt::Display| {
            StoreError::Unusable(format!("data folder {}: {what}: {error}", path.display()))
        };
        make_durably(path).map_err(|error| unusable("cannot be made", &error))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|error| unusable("cannot be closed to others", &error))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))
            .map_err(|error| unusable("lock file", &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Unusable(format!(
                "data folder {} is in use by another linkspan; stop it, or give this one its own --data",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(unusable("cannot be locked", &error)),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join("linkspan.db")
    }

    /// The folder of large bodies.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// The own bucket.
    #[must_use]
    pub fn bucket(&self) -> PathBuf {
        self.path.join("bucket")
    }

    /// The folder of SQLite destinations.
    #[must_use]
    pub fn destinations(&self) -> PathBuf {
        self.path.join("destinations")
    }

    /// The folder of secrets that documents may read by `file`.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.path.join("secrets")
    }

    /// The file with the operator token of the first run.
    #[must_use]
    pub fn operator_token(&self) -> PathBuf {
        self.path.join("operator-token")
    }

    /// Reads the master key from `key_file`, or from the folder's own `key`, which is made at first run.
    ///
    /// # Errors
    /// `Unusable` when the file cannot be read or made, or holds no key.
    pub fn master_key(&self, key_file: Option<&Path>) -> Result<MasterKey> {
        let own = self.path.join("key");
        let path = key_file.unwrap_or(&own);
        match fs::read_to_string(path) {
            Ok(text) => MasterKey::from_hex(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && key_file.is_none() => {
                if self.database().exists() {
                    return Err(StoreError::Unusable(format!(
                        "{} is missing, and the database was made with it; put it back, or name it with --key-file",
                        path.display()
                    )));
                }
                let text = MasterKey::generate_hex()?;
                write_private(path, text.as_bytes())?;
                MasterKey::from_hex(&text)
            }
            Err(error) => Err(StoreError::Unusable(format!("key file {}: {error}", path.display()))),
        }
    }
}

/// Makes a folder, and those above it that are missing, so that their names outlive a power cut: a folder is
/// durable only once the one above it is synced.
pub(crate) fn make_durably(path: &Path) -> std::io::Result<()> {
    let above = match path.parent() {
        None => return Ok(()),
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
    };
    let made = match fs::create_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            make_durably(above)?;
            fs::create_dir(path)?;
            true
        }
        Err(error) => return Err(error),
    };
    match File::open(above) {
        Ok(above) => above.sync_all(),
        // It was there before, and we may not look above it: whoever made it answers for its name.
        Err(_) if !made => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a file that only its owner can read, durably and in one piece.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let partial = path.with_extension("part");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
