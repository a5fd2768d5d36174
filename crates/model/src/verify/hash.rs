//! The hashes of keyed signatures, and their states that have taken a key.

use hmac::{Hmac, KeyInit as _, Mac as _};

use super::document::Algorithm;
use super::signature::Signature;

/// A hash that has been decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) const ALL: [Self; 6] = [Self::Sha256, Self::Sha1, Self::Sha512, Self::Sha384, Self::Sha224, Self::Md5];

    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA_1",
            Self::Sha224 => "SHA_224",
            Self::Sha256 => "SHA_256",
            Self::Sha384 => "SHA_384",
            Self::Sha512 => "SHA_512",
        }
    }

    /// The six lengths differ, so that a length names one hash.
    pub(super) fn of_length(bytes: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.bytes() == bytes)
    }

    /// The hash that a prefix names: `sha256`, `SHA_256`, `hmac-sha256`.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let mut plain = [0_u8; 10];
        let mut length = 0;
        for byte in name.bytes().filter(|byte| !matches!(byte, b'-' | b'_' | b' ')) {
            *plain.get_mut(length)? = byte.to_ascii_lowercase();
            length += 1;
        }
        let plain = &plain[..length];
        match plain.strip_prefix(b"hmac").unwrap_or(plain) {
            b"md5" => Some(Self::Md5),
            b"sha1" => Some(Self::Sha1),
            b"sha224" => Some(Self::Sha224),
            b"sha256" => Some(Self::Sha256),
            b"sha384" => Some(Self::Sha384),
            b"sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

impl Algorithm {
    pub(super) const fn hash(self) -> Option<Hash> {
        match self {
            Self::MD5 => Some(Hash::Md5),
            Self::SHA_1 => Some(Hash::Sha1),
            Self::SHA_224 => Some(Hash::Sha224),
            Self::SHA_256 => Some(Hash::Sha256),
            Self::SHA_384 => Some(Hash::Sha384),
            Self::SHA_512 => Some(Hash::Sha512),
            Self::INFER_FROM_HEADER => None,
        }
    }
}

/// Declares the keyed states of all hashes: six times the same four matches.
macro_rules! keyed {
    ($($hash:ident: $digest:ty),*) => {
        /// A hash state that has taken its key; cloning it saves hashing the key again for every request.
        #[derive(Clone)]
        pub(super) enum Keyed {
            $($hash(Hmac<$digest>),)*
        }

        impl Keyed {
            pub(super) fn new(hash: Hash, key: &[u8]) -> Self {
                match hash {
                    $(Hash::$hash => {
                        Self::$hash(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
                    })*
                }
            }

            pub(super) const fn hash(&self) -> Hash {
                match self {
                    $(Self::$hash(_) => Hash::$hash,)*
                }
            }

            pub(super) fn update(&mut self, bytes: &[u8]) {
                match self {
                    $(Self::$hash(state) => state.update(bytes),)*
                }
            }

            pub(super) fn finish(self) -> Signature {
                match self {
                    $(Self::$hash(state) => Signature::of(&state.finalize().into_bytes()),)*
                }
            }
        }
    };
}

keyed!(
    Md5: md5::Md5, Sha1: sha1::Sha1, Sha224: sha2::Sha224, Sha256: sha2::Sha256, Sha384: sha2::Sha384,
    Sha512: sha2::Sha512
);
