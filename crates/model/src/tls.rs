//! TLS as documents say it: whom a connection trusts, and with which certificate a client shows who it is.
//!
//! Reads certificates and checks them on their own. Handshakes and what they verify are others' work.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{Error as PemError, PemObject as _, SectionKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_cert::der::Decode as _;

use crate::fault::Fault;
use crate::key::PrivateKey;
use crate::limits;
use crate::secret::{SecretBytes, SecretRef};
use crate::time::Timestamp;

/// What TLS connections are made with, where that is not the ordinary way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSpec {
    /// Certificates of private authorities in PEM, trusted besides those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// Whether only `authorities` are trusted, and none of the system's. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_these: Option<bool>,
    /// The oldest version of TLS that is spoken: `1.2`, the default, or `1.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// The name that the server's certificate is for, and that is sent ahead (SNI), where it is another one than the
    /// URL's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    Tls13,
}

impl TlsSpec {
    /// Everything that is wrong with it, paths relative to it.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(pem) = &self.authorities {
            faults.extend(certificates(pem).err().map(|reason| Fault::new("authorities", reason)));
        }
        if self.only_these.is_some() && self.authorities.is_none() {
            faults.push(Fault::new("only_these", "there are no authorities that it could be about"));
        }
        if let Some(name) = &self.server_name
            && rustls_pki_types::ServerName::try_from(name.as_str()).is_err()
        {
            let reason = format!("`{}` is no name that a certificate can be for", name.escape_debug());
            faults.push(Fault::new("server_name", reason).hint("write a host's name, such as api.example.com"));
        }
        faults
    }

    /// What is to be said of its certificates at this time.
    #[must_use]
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        warnings("tls.authorities", self.authorities.as_deref().unwrap_or_default(), now)
    }
}

/// A certificate that a client shows in the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// The certificate in PEM, and behind it those that lead to an authority, where the server needs them.
    pub certificate: String,
    /// Its private key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: SecretRef,
}

impl ClientCertificate {
    /// What is wrong with it on its own, its path relative to it.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        certificates(&self.certificate).err().map(|reason| Fault::new("certificate", reason))
    }

    /// What is wrong with a key for it, in words that hold nothing of the key.
    ///
    /// # Errors
    /// The key cannot be read, or is that of another certificate.
    pub fn check_key(&self, key: &SecretBytes) -> Result<(), String> {
        let key = PrivateKey::read(key)?;
        let chain = certificates(&self.certificate)?;
        match chain.first() {
            Some(own) if own.public_key != key.public_key() => Err(format!(
                "it is not the key of the certificate ({}); the client's own certificate comes first",
                own.subject
            )),
            _ => Ok(()),
        }
    }

    /// What is to be said of it at this time.
    #[must_use]
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        warnings("client_certificate", &self.certificate, now)
    }
}

/// What is to be said at this time of the certificates of a field.
fn warnings(field: &str, pem: &str, now: Timestamp) -> Vec<String> {
    let found = certificates(pem).unwrap_or_default();
    found.iter().filter_map(|certificate| Some(format!("{field}: {}", certificate.warning(now)?))).collect()
}

/// A certificate, as far as it is looked at here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// Whose it is: `CN=robot,O=Example`.
    pub subject: String,
    /// From when on it is valid.
    pub begins_at: Timestamp,
    /// Until when it is valid.
    pub ends_at: Timestamp,
    /// The content of its `subjectPublicKey`.
    public_key: Vec<u8>,
}

impl Certificate {
    fn read(der: &[u8]) -> Option<Self> {
        let read = x509_cert::Certificate::from_der(der).ok()?;
        let read = read.tbs_certificate();
        let at = |time: x509_cert::time::Time| {
            Timestamp::from_micros(i64::try_from(time.to_unix_duration().as_micros()).unwrap_or(i64::MAX))
        };
        Some(Self {
            der: der.to_vec(),
            subject: read.subject().to_string(),
            begins_at: at(read.validity().not_before),
            ends_at: at(read.validity().not_after),
            public_key: read.subject_public_key_info().subject_public_key.raw_bytes().to_vec(),
        })
    }

    /// What is to be said of it at this time.
    fn warning(&self, now: Timestamp) -> Option<String> {
        let Self { subject, begins_at, ends_at, .. } = self;
        if *ends_at < now {
            Some(format!("the certificate of {subject} has expired, at {}", to_the_second(*ends_at)))
        } else if now < *begins_at {
            Some(format!("the certificate of {subject} is not valid yet, before {}", to_the_second(*begins_at)))
        } else if *ends_at < now.after(limits::CERTIFICATE_NOTICE) {
            Some(format!("the certificate of {subject} expires soon, at {}", to_the_second(*ends_at)))
        } else {
            None
        }
    }
}

/// The certificates of a PEM text, in their order: at least one.
///
/// # Errors
/// What is wrong with it, in words; nothing of it is repeated, for a private key may stand in the wrong place.
pub fn certificates(pem: &str) -> Result<Vec<Certificate>, String> {
    if pem.len() > limits::CERTIFICATES_BYTES {
        return Err(format!("it is longer than {} KiB", limits::CERTIFICATES_BYTES >> 10));
    }
    // By the text: sections that the reader does not know it passes over, encrypted keys among them.
    let labels = || pem.lines().filter_map(|line| Some(line.trim().strip_prefix("-----BEGIN ")?.trim_end_matches('-')));
    if labels().any(|label| label.contains("PRIVATE KEY")) {
        return Err("a private key stands in it; a key belongs into a secret".to_owned());
    }
    if let Some(label) = labels().find(|label| !matches!(*label, "CERTIFICATE" | "X509 CERTIFICATE")) {
        let label: String = label.chars().take(40).filter(|c| !c.is_control()).collect();
        return Err(format!("something else than certificates stands in it: {label}"));
    }
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
        match section {
            Ok((SectionKind::Certificate, der)) => {
                let n = found.len() + 1;
                let read = Certificate::read(&der);
                found.push(read.ok_or_else(|| format!("certificate {n} in it cannot be read; is it cut off?"))?);
            }
            Ok(_) => {}
            Err(PemError::NoItemsFound) => break,
            Err(_) => {
                return Err("its PEM is damaged; give the whole text of the file, line breaks included".to_owned());
            }
        }
    }
    if found.is_empty() {
        return Err("it holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(found)
}

/// Certificates in DER, as handshakes want them.
///
/// # Errors
/// See [`certificates`].
pub fn certificates_in_der(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    Ok(certificates(pem)?.into_iter().map(|certificate| CertificateDer::from(certificate.der)).collect())
}

fn to_the_second(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.as_secs()).map_or_else(|_| at.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    // An authority and a client's certificate of it, each valid from 2026 until 2126, and the client's key.
    const AUTHORITY: &str = include_str!("testdata/authority.pem");
    const CLIENT: &str = include_str!("testdata/client.pem");
    const CLIENT_KEY: &str = include_str!("testdata/p256-sec1.pem");

    fn tls(spec: Value) -> TlsSpec {
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn reads_bundles_and_gives_them_back() {
        let bundle = format!("Example's own\n{AUTHORITY}\nand a client's\n{CLIENT}");
        let read = certificates(&bundle).unwrap();
        let subjects: Vec<&str> = read.iter().map(|certificate| certificate.subject.as_str()).collect();
        assert_eq!(subjects, ["CN=Example authority", "CN=robot,O=Example"]);
        let spec = json!({"authorities": bundle, "only_these": true, "min_version": "1.3", "server_name": "a.test"});
        assert_eq!(tls(spec.clone()).faults(), []);
        assert_eq!(serde_json::to_value(tls(spec.clone())).unwrap(), spec);
    }

    #[test]
    fn says_what_is_wrong_and_repeats_nothing() {
        let body = AUTHORITY.lines().nth(1).unwrap();
        for (pem, words) in [
            (String::new(), "holds no certificate in PEM"),
            ("/etc/ssl/ca.pem".to_owned(), "holds no certificate in PEM"),
            (format!("{AUTHORITY}{CLIENT_KEY}"), "a private key stands in it"),
            (AUTHORITY.replacen(body, "", 1), "certificate 1 in it cannot be read"),
            (format!("{CLIENT}{}", AUTHORITY.replacen(body, "", 1)), "certificate 2 in it cannot be read"),
            (AUTHORITY.replace("-----END", "----END"), "damaged"),
            (AUTHORITY.repeat(1_000), "longer than 256 KiB"),
        ] {
            let faults = tls(json!({"authorities": pem})).faults();
            assert_eq!((faults.len(), faults[0].path.as_str()), (1, "authorities"));
            assert!(faults[0].reason.contains(words), "{faults:?}");
            assert!(!faults[0].reason.contains(body) && !faults[0].reason.contains(CLIENT_KEY.lines().nth(4).unwrap()));
        }
        for (spec, path) in [
            (json!({"only_these": true}), "only_these"),
            (json!({"server_name": "a b"}), "server_name"),
            (json!({"server_name": ""}), "server_name"),
        ] {
            let faults = tls(spec.clone()).faults();
            assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), [path], "{spec}");
        }
        assert!(serde_json::from_value::<TlsSpec>(json!({"min_version": "1.1"})).is_err());
    }

    #[test]
    fn the_end_of_a_certificate_is_told() {
        let spec = tls(json!({"authorities": AUTHORITY}));
        let ends_at = certificates(AUTHORITY).unwrap()[0].ends_at;
        assert_eq!(spec.warnings(ends_at.before(limits::CERTIFICATE_NOTICE)), Vec::<String>::new());
        let day = std::time::Duration::from_secs(86_400);
        let soon = spec.warnings(ends_at.before(day));
        assert!(
            soon[0].starts_with("tls.authorities: the certificate of CN=Example authority expires soon, at 21"),
            "{soon:?}"
        );
        let over = spec.warnings(ends_at.after(day));
        assert!(over[0].contains("has expired, at 21") && over[0].ends_with('Z'), "{over:?}");
        let early = spec.warnings(Timestamp::from_micros(0));
        assert!(early[0].contains("is not valid yet"), "{early:?}");
    }

    #[test]
    fn a_key_fits_its_certificate() {
        let certificate = |pem: &str| ClientCertificate {
            certificate: pem.to_owned(),
            key: serde_json::from_value(json!({"secret": "k"})).unwrap(),
        };
        let key = SecretBytes::new(CLIENT_KEY);
        assert_eq!(certificate(&format!("{CLIENT}{AUTHORITY}")).check_key(&key), Ok(()));
        let error = certificate(&format!("{AUTHORITY}{CLIENT}")).check_key(&key).unwrap_err();
        assert!(error.contains("not the key of the certificate (CN=Example authority)"), "{error}");
        let other = SecretBytes::new(include_str!("testdata/rsa-pkcs8.pem"));
        assert!(certificate(CLIENT).check_key(&other).unwrap_err().contains("not the key of the certificate"));
        assert_eq!(certificate("x").fault().unwrap().path, "certificate");
    }
}
