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
    _locks: [File; 2],
}

/// What a server expects of its data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// The database of an earlier run, or a folder in which none has ever run.
    Usual,
    /// A new database, whatever lies beside it.
    Anew,
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
        // The folder itself too: a lock file can be removed, and another one made in its place.
        let folder = File::open(path).map_err(|error| unusable("cannot be opened", &error))?;
        match lock.try_lock().and_then(|()| folder.try_lock()) {
            Ok(()) => Ok(Self { path: path.to_owned(), _locks: [lock, folder] }),
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

    /// Refuses a folder without a database in which a server has run: to begin anew would lose what is left of it.
    ///
    /// # Errors
    /// `Unusable`, naming what was found.
    pub fn check_beginning(&self, beginning: Beginning) -> Result<()> {
        let is_empty = |path: &Path| fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
        let has_database = fs::metadata(self.database()).is_ok_and(|file| file.len() > 0);
        if has_database || beginning == Beginning::Anew {
            return Ok(());
        }
        let files = ["key", "operator-token", "position", "linkspan.db-wal"].map(|name| self.path.join(name));
        let folders = [self.spool(), self.bucket(), self.destinations()];
        let left =
            files.into_iter().filter(|file| file.exists()).chain(folders.into_iter().filter(|path| !is_empty(path)));
        match left.map(|path| path.display().to_string()).next() {
            None => Ok(()),
            Some(left) => Err(StoreError::Unusable(format!(
                "{} is missing or empty, and {left} shows that a server has run here; put the database back, restore a \
                 backup, or start with --begin-anew to leave the old data behind",
                self.database().display()
            ))),
        }
    }

    /// Gives the key that the first run made its lasting name. Called when the database is there: a key alone then
    /// shows that one was lost.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn settle_key(&self) -> Result<()> {
        let made = self.path.join(NEW_KEY);
        if made.exists() {
            fs::rename(made, self.path.join("key"))?;
            File::open(&self.path)?.sync_all()?;
        }
        Ok(())
    }

    /// Reads the master key from `key_file`, or from the folder's own `key`, which is made at first run; see
    /// [`Self::settle_key`].
    ///
    /// # Errors
    /// `Unusable` when the file cannot be read or made, or holds no key.
    pub fn master_key(&self, key_file: Option<&Path>) -> Result<MasterKey> {
        let (own, made) = (self.path.join("key"), self.path.join(NEW_KEY));
        // A first run that was cut short.
        let own = if !own.exists() && made.exists() { made } else { own };
        let path = key_file.unwrap_or(&own);
        match fs::read_to_string(path) {
            Ok(text) => MasterKey::from_hex(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && key_file.is_none() => {
                if fs::metadata(self.database()).is_ok_and(|file| file.len() > 0) {
                    return Err(StoreError::Unusable(format!(
                        "{} is missing, and the database was made with it; put it back, or name it with --key-file",
                        path.display()
                    )));
                }
                let text = MasterKey::generate_hex()?;
                write_private(&self.path.join(NEW_KEY), text.as_bytes())?;
                MasterKey::from_hex(&text)
            }
            Err(error) => Err(StoreError::Unusable(format!("key file {}: {error}", path.display()))),
        }
    }
}

/// The key of a first run whose database is not there yet.
const NEW_KEY: &str = "key.new";

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
