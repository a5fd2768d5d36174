//! Secrets at rest: XChaCha20-Poly1305 under a master key that stays outside the database.
//!
//! A sealed value is `1 | nonce (24 bytes) | ciphertext and tag`. The row it belongs to is authenticated
//! with it, so that a value cannot be moved to another row.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use linkspan_model::SecretBytes;
use linkspan_model::hops::HopsKey;

use crate::error::{Result, StoreError};

const VERSION: u8 = 1;
const NONCE: usize = 24;

/// The key that all secrets at rest are sealed under, and what else follows from it.
#[derive(Clone)]
pub struct MasterKey {
    cipher: XChaCha20Poly1305,
    hops: HopsKey,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

impl MasterKey {
    /// The key with these 32 bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self { cipher: XChaCha20Poly1305::new(bytes.into()), hops: HopsKey::derive(bytes) }
    }

    /// Reads a key as it is written in a key file: 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn from_hex(text: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes)
            .map_err(|_| StoreError::Unusable("the master key is not 64 hexadecimal digits".to_owned()))?;
        Ok(Self::new(&bytes))
    }

    /// A new random key as it is written in a key file.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate_hex() -> Result<String> {
        Ok(hex::encode(random::<32>()?))
    }

    /// The key of the loop guard's marks.
    pub(crate) fn hops(&self) -> &HopsKey {
        &self.hops
    }

    /// Seals a value for the row `place`.
    pub(crate) fn seal(&self, place: &str, value: &SecretBytes) -> Result<Vec<u8>> {
        let nonce = random::<NONCE>()?;
        let payload = Payload { msg: value.expose(), aad: place.as_bytes() };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| StoreError::Unusable("a secret could not be sealed".to_owned()))?;
        Ok([&[VERSION][..], &nonce, &sealed].concat())
    }

    /// Opens a value that was sealed for the row `place`.
    pub(crate) fn open(&self, place: &str, sealed: &[u8]) -> Result<SecretBytes> {
        let wrong = || {
            StoreError::Unusable(
                "a stored secret does not open with this master key; start with the key it was sealed with".to_owned(),
            )
        };
        let (version, rest) = sealed.split_first().ok_or_else(wrong)?;
        if *version != VERSION || rest.len() < NONCE {
            return Err(wrong());
        }
        let (nonce, ciphertext) = rest.split_at(NONCE);
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| wrong())?;
        let payload = Payload { msg: ciphertext, aad: place.as_bytes() };
        self.cipher.decrypt(&XNonce::from(nonce), payload).map(SecretBytes::new).map_err(|_| wrong())
    }
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| StoreError::Unusable(format!("the operating system gives no random bytes: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_its_key_at_its_place() {
        let key = MasterKey::new(&[7; 32]);
        let sealed = key.seal("secret/1", &SecretBytes::new("hunter2")).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(key.open("secret/1", &sealed).unwrap().expose(), b"hunter2");
        assert!(key.open("secret/2", &sealed).is_err());
        assert!(MasterKey::new(&[8; 32]).open("secret/1", &sealed).is_err());
        assert!(key.open("secret/1", &sealed[..10]).is_err());
    }
}
