//! Secret values that stand outside the database: environment variables and files below the data folder.

use std::path::PathBuf;

use linkspan_model::secret::SecretSpec;
use linkspan_model::{SecretBytes, limits};
use linkspan_store::SecretSource;

/// Reads values from the environment and from the data folder's `secrets/`.
pub(crate) struct Outside {
    /// The folder of secret files.
    pub(crate) folder: PathBuf,
}

impl SecretSource for Outside {
    #[expect(clippy::disallowed_methods, reason = "this is the executable; the name's prefix was checked")]
    fn value(&self, spec: &SecretSpec) -> Result<Option<SecretBytes>, String> {
        if let Some(name) = &spec.env {
            return match std::env::var(name) {
                Ok(value) if value.len() > limits::SECRET_BYTES => {
                    Err(format!("the variable {name} is longer than {} bytes", limits::SECRET_BYTES))
                }
                Ok(value) => Ok(Some(SecretBytes::new(value))),
                Err(_) => Err(format!("the server's environment has no variable {name}")),
            };
        }
        let Some(file) = &spec.file else { return Ok(None) };
        let path = self.folder.join(file);
        let unreadable = |reason: String| format!("secret file {} cannot be read: {reason}", path.display());
        let real = path.canonicalize().map_err(|error| unreadable(error.to_string()))?;
        let folder = self.folder.canonicalize().map_err(|error| unreadable(error.to_string()))?;
        if !real.starts_with(&folder) {
            return Err(unreadable("it lies outside the secrets folder".to_owned()));
        }
        let size = real.metadata().map_err(|error| unreadable(error.to_string()))?.len();
        if usize::try_from(size).map_or(true, |size| size > limits::SECRET_BYTES) {
            return Err(unreadable(format!("it is longer than {} bytes", limits::SECRET_BYTES)));
        }
        let mut value = std::fs::read(&real).map_err(|error| unreadable(error.to_string()))?;
        if value.ends_with(b"\n") {
            value.pop();
            if value.ends_with(b"\r") {
                value.pop();
            }
        }
        Ok(Some(SecretBytes::new(value)))
    }
}
