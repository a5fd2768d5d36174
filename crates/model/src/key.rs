//! Private keys: read from PEM, told apart, and what is signed with them.
//!
//! Guarantees that no error repeats anything of a key. Signatures by RSA-PSS and by elliptic curves draw randomness
//! inside the library, so they differ each time; what they are of does not.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{Error as PemError, PemObject as _};

use crate::secret::{MASK, SecretBytes};

/// Longest text that holds a key, in bytes: an RSA key of 8192 bits takes 6.5 KiB.
const KEY_BYTES: usize = 32 << 10;

/// A private key.
pub struct PrivateKey(Pair);

enum Pair {
    Rsa(RsaKeyPair),
    Ec(Curve, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A curve of elliptic curve keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    /// JOSE fixes the hash for each curve (RFC 7518, section 3.4), and wants both numbers at their full length.
    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }
}

/// What kind of key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, of 2048 to 8192 bits.
    Rsa,
    /// An elliptic curve.
    Ec(Curve),
    /// Ed25519.
    Ed25519,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa => "RSA",
            Self::Ec(Curve::P256) => "EC P-256",
            Self::Ec(Curve::P384) => "EC P-384",
            Self::Ec(Curve::P521) => "EC P-521",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// How a signature is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    RsaPkcs1(Digest),
    RsaPss(Digest),
    Ec(Curve),
    Ed25519,
}

/// The digest of an RSA signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

impl Scheme {
    /// The kind of key that it takes.
    pub(crate) fn key_kind(self) -> KeyKind {
        match self {
            Self::RsaPkcs1(_) | Self::RsaPss(_) => KeyKind::Rsa,
            Self::Ec(curve) => KeyKind::Ec(curve),
            Self::Ed25519 => KeyKind::Ed25519,
        }
    }
}

impl PrivateKey {
    /// The first private key of a PEM text: PKCS#8, PKCS#1 or SEC1, not encrypted.
    ///
    /// # Errors
    /// What is wrong with it, in words that hold nothing of the key.
    pub fn read(pem: &SecretBytes) -> Result<Self, String> {
        if pem.expose().len() > KEY_BYTES {
            return Err(format!("it is longer than {} KiB, which no key is", KEY_BYTES >> 10));
        }
        let der = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|error| no_key(&error, pem))?;
        let pair = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok().map(Pair::Rsa),
            PrivateKeyDer::Sec1(der) => {
                ec(|curve| EcdsaKeyPair::from_private_key_der(curve.signing(), der.secret_sec1_der()).ok())
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let rsa = RsaKeyPair::from_pkcs8(der).ok().map(Pair::Rsa);
                rsa.or_else(|| ec(|curve| EcdsaKeyPair::from_pkcs8(curve.signing(), der).ok()))
                    .or_else(|| Ed25519KeyPair::from_pkcs8(der).ok().map(Pair::Ed25519))
            }
            _ => None,
        };
        pair.map(Self).ok_or_else(|| {
            "it is no private key that can be used: RSA of 2048 to 8192 bits, EC on P-256, P-384 or P-521, or Ed25519"
                .to_owned()
        })
    }

    /// What kind of key it is.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match &self.0 {
            Pair::Rsa(_) => KeyKind::Rsa,
            Pair::Ec(curve, _) => KeyKind::Ec(*curve),
            Pair::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    /// Its public half as certificates carry it: the content of `subjectPublicKey` (RFC 5280, section 4.1).
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        match &self.0 {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::Ec(_, pair) => pair.public_key().as_ref(),
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
        }
    }

    /// Signs a message, as JSON Web Signatures have it (RFC 7518, section 3).
    ///
    /// # Errors
    /// The scheme wants another kind of key.
    pub(crate) fn sign(&self, scheme: Scheme, message: &[u8]) -> Result<Vec<u8>, String> {
        let random = SystemRandom::new();
        let failed = |_| "the key cannot sign".to_owned();
        match (&self.0, scheme) {
            (Pair::Rsa(pair), Scheme::RsaPkcs1(_) | Scheme::RsaPss(_)) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding(scheme), &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            (Pair::Ec(curve, pair), Scheme::Ec(wanted)) if *curve == wanted => {
                pair.sign(&random, message).map(|signature| signature.as_ref().to_vec()).map_err(failed)
            }
            (Pair::Ed25519(pair), Scheme::Ed25519) => Ok(pair.sign(message).as_ref().to_vec()),
            _ => Err(format!("the key is {}, and {} is wanted", self.kind(), scheme.key_kind())),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

fn ec(read: impl Fn(Curve) -> Option<EcdsaKeyPair>) -> Option<Pair> {
    Curve::ALL.into_iter().find_map(|curve| read(curve).map(|pair| Pair::Ec(curve, pair)))
}

fn encoding(scheme: Scheme) -> &'static dyn RsaEncoding {
    match scheme {
        Scheme::RsaPss(Digest::Sha256) => &RSA_PSS_SHA256,
        Scheme::RsaPss(Digest::Sha384) => &RSA_PSS_SHA384,
        Scheme::RsaPss(Digest::Sha512) => &RSA_PSS_SHA512,
        Scheme::RsaPkcs1(Digest::Sha384) => &RSA_PKCS1_SHA384,
        Scheme::RsaPkcs1(Digest::Sha512) => &RSA_PKCS1_SHA512,
        _ => &RSA_PKCS1_SHA256,
    }
}

/// Why a text holds no key. The parser's own words quote lines of it.
fn no_key(error: &PemError, pem: &SecretBytes) -> String {
    let holds = |label: &str| {
        let mark = format!("-----BEGIN {label}-----");
        pem.expose().windows(mark.len()).any(|window| window == mark.as_bytes())
    };
    let reason = match error {
        PemError::NoItemsFound if holds("ENCRYPTED PRIVATE KEY") => {
            "the key is encrypted; take that off first: openssl pkey -in KEY -out PLAIN"
        }
        PemError::NoItemsFound if holds("CERTIFICATE") => "it holds a certificate and no private key",
        PemError::NoItemsFound => "it holds no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----",
        _ => "its PEM is damaged; set the whole text of the key file, line breaks included",
    };
    reason.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The keys in `testdata` were made for these tests and open nothing.
    fn read(pem: &str) -> Result<KeyKind, String> {
        PrivateKey::read(&SecretBytes::new(pem)).map(|key| key.kind())
    }

    #[test]
    fn tells_kinds_and_containers_apart() {
        for (pem, kind) in [
            (include_str!("testdata/rsa-pkcs8.pem"), KeyKind::Rsa),
            (include_str!("testdata/rsa-pkcs1.pem"), KeyKind::Rsa),
            (include_str!("testdata/p256-pkcs8.pem"), KeyKind::Ec(Curve::P256)),
            (include_str!("testdata/p256-sec1.pem"), KeyKind::Ec(Curve::P256)),
            (include_str!("testdata/p384-sec1.pem"), KeyKind::Ec(Curve::P384)),
            (include_str!("testdata/p521-pkcs8.pem"), KeyKind::Ec(Curve::P521)),
            (include_str!("testdata/ed25519-pkcs8.pem"), KeyKind::Ed25519),
        ] {
            assert_eq!(read(pem).unwrap(), kind);
            // Files that were edited elsewhere.
            assert_eq!(read(&format!("some words\n{}", pem.replace('\n', "\r\n"))).unwrap(), kind);
        }
    }

    #[test]
    fn says_what_is_wrong_and_nothing_of_the_key() {
        let key = include_str!("testdata/rsa-pkcs8.pem");
        let line = key.lines().nth(1).unwrap();
        for (pem, words) in [
            (String::new(), "no private key in PEM"),
            ("hunter2".to_owned(), "no private key in PEM"),
            (key.replace("PRIVATE", "ENCRYPTED PRIVATE"), "is encrypted"),
            (key.replace("PRIVATE KEY", "CERTIFICATE"), "a certificate and no private key"),
            (key.replace('\n', " "), "damaged"),
            (key.replace("-----END", "----END"), "damaged"),
            (key.replacen(line, "", 1), "no private key that can be used"),
            (key.repeat(40), "longer than 32 KiB"),
        ] {
            let error = read(&pem).unwrap_err();
            assert!(error.contains(words) && !error.contains(line), "{words}: {error}");
        }
        let key = PrivateKey::read(&SecretBytes::new(key)).unwrap();
        assert_eq!(format!("{key:?}"), MASK);
    }
}
