//! Operator tokens: made once, shown once, kept as a hash.

use linkspan_model::Timestamp;
use rusqlite::{Connection, OpenFlags, params};
use sha2::{Digest as _, Sha256};

use crate::Store;
use crate::error::Result;
use crate::folder::DataFolder;
use crate::seal::random;

/// What an operator token begins with, so that it is recognised where it should not be.
const PREFIX: &str = "lso_";

/// The hash of a token: a plain SHA-256, because the token itself has 256 random bits.
fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn new_token() -> Result<String> {
    Ok(format!("{PREFIX}{}", hex::encode(random::<32>()?)))
}

impl Store {
    /// At the first run, makes an operator token and writes it to the data folder's `operator-token`
    /// (mode 0600). Does nothing when there is a token already.
    ///
    /// # Errors
    /// When the token cannot be stored or written.
    pub async fn ensure_operator_token(&self, folder: &DataFolder) -> Result<()> {
        let exists = self.read(|db| Ok(db.prepare("SELECT 1 FROM tokens")?.exists([])?)).await?;
        if exists {
            return Ok(());
        }
        // The file first: a token that is stored and in nobody's hands would lock the operator out.
        let token = new_token()?;
        crate::folder::write_private(&folder.operator_token(), token.as_bytes())?;
        self.store_operator_token(&token).await
    }

    /// Replaces every operator token by a new one, which is given only here.
    ///
    /// # Errors
    /// When the token cannot be stored.
    pub async fn rotate_operator_token(&self) -> Result<String> {
        let token = new_token()?;
        self.store_operator_token(&token).await?;
        Ok(token)
    }

    async fn store_operator_token(&self, token: &str) -> Result<()> {
        let (hash, now) = (hash(token), self.now());
        self.write(move |db| replace(db, hash, now)).await
    }

    /// Whether `token` is an operator token. The look-up is by hash, so its time tells nothing of the token.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_operator_token(&self, token: &str) -> Result<bool> {
        let hash = hash(token);
        self.read(move |db| Ok(db.prepare_cached("SELECT 1 FROM tokens WHERE hash = ?1")?.exists([hash])?)).await
    }
}

/// Replaces every operator token by a new one, for whoever has lost it: while no server runs, and without the master
/// key. Gives the token, and writes it to the data folder's `operator-token` (mode 0600).
///
/// # Errors
/// When the folder holds no database, or one of the two cannot be written.
pub fn reset_operator_token(folder: &DataFolder, now: Timestamp) -> Result<String> {
    let token = new_token()?;
    // Never makes a database: one without a key would keep the first run from making its own.
    let mut db = Connection::open_with_flags(
        folder.database(),
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let change = db.transaction()?;
    replace(&change, hash(&token), now)?;
    // Between change and commit: a database that cannot be written leaves the file as it is, and the other way round.
    crate::folder::write_private(&folder.operator_token(), token.as_bytes())?;
    change.commit()?;
    Ok(token)
}

/// Makes the token with this hash the only one.
fn replace(db: &Connection, hash: [u8; 32], now: Timestamp) -> Result<()> {
    db.execute("DELETE FROM tokens", [])?;
    db.execute(
        "INSERT INTO tokens (hash, name, created_at) VALUES (?1, 'operator', ?2)",
        params![hash, now.as_micros()],
    )?;
    Ok(())
}
