//! TLS settings: which certificates are trusted, which one is shown, and what a failed handshake means.
//!
//! Guarantees that certificates are always verified. The system's store decides; where it holds none, as in
//! empty containers, Mozilla's roots that are built in do. A connection may add authorities, or trust only these.

use std::io;
use std::sync::Arc;

use linkspan_model::secret::SecretBytes;
use linkspan_model::tls::{ClientCertificate, TlsSpec, TlsVersion, certificates_in_der};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio::sync::OnceCell;

/// Whom we trust to name others. Clones share what was read of the system.
#[derive(Debug, Clone, Default)]
pub struct Roots(Arc<Trusted>);

#[derive(Debug, Default)]
struct Trusted {
    extra: Vec<CertificateDer<'static>>,
    /// Built at the first use: reading the system's certificates takes time and memory that a server without
    /// outbound calls need not spend.
    verifier: OnceCell<Arc<dyn ServerCertVerifier>>,
}

impl Roots {
    /// The system's roots.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// The system's roots and these, in DER.
    #[must_use]
    pub fn with_extra(extra: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let extra = extra.into_iter().map(CertificateDer::from).collect();
        Self(Arc::new(Trusted { extra, verifier: OnceCell::new() }))
    }

    async fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let read = || off_the_runtime(self.0.extra.clone(), verifier);
        self.0.verifier.get_or_try_init(read).await.cloned()
    }
}

/// What handshakes of one kind are made with.
pub(crate) struct Tls {
    roots: Roots,
    /// Of authorities that a connection names besides.
    authorities: Vec<CertificateDer<'static>>,
    only_these: bool,
    min_version: TlsVersion,
    server_name: Option<ServerName<'static>>,
    /// What is shown to a server that asks.
    identity: Option<Arc<CertifiedKey>>,
    configs: OnceCell<Configs>,
}

struct Configs {
    target: Arc<ClientConfig>,
    /// A proxy is not shown whom the target knows, and speaks HTTP/1.
    proxy: Arc<ClientConfig>,
}

impl Tls {
    /// The ordinary way.
    pub(crate) fn ordinary(roots: Roots) -> Self {
        Self {
            roots,
            authorities: Vec::new(),
            only_these: false,
            min_version: TlsVersion::default(),
            server_name: None,
            identity: None,
            configs: OnceCell::new(),
        }
    }

    /// As a connection and its account say.
    ///
    /// # Errors
    /// Why it cannot be, in words that hold nothing of the key.
    pub(crate) fn new(
        roots: Roots,
        spec: Option<&TlsSpec>,
        certificate: Option<(&ClientCertificate, &SecretBytes)>,
    ) -> Result<Self, String> {
        let identity = certificate.map(|(certificate, key)| identity(certificate, key)).transpose()?;
        let mut tls = Self { identity, ..Self::ordinary(roots) };
        let Some(spec) = spec else { return Ok(tls) };
        let authorities = spec.authorities.as_deref().map(certificates_in_der).transpose();
        tls.authorities = authorities.map_err(|reason| format!("tls.authorities: {reason}"))?.unwrap_or_default();
        tls.only_these = spec.only_these.unwrap_or(false);
        tls.min_version = spec.min_version.unwrap_or_default();
        let name = spec.server_name.clone().map(ServerName::try_from).transpose();
        tls.server_name = name.map_err(|_| "tls.server_name cannot stand in a certificate".to_owned())?;
        Ok(tls)
    }

    pub(crate) fn roots(&self) -> Roots {
        self.roots.clone()
    }

    /// The client's settings for the target of a request. Reads files, off the runtime's threads.
    pub(crate) async fn target(&self) -> Result<&Arc<ClientConfig>, String> {
        self.configs().await.map(|configs| &configs.target)
    }

    /// The client's settings for a proxy.
    pub(crate) async fn proxy(&self) -> Result<&Arc<ClientConfig>, String> {
        self.configs().await.map(|configs| &configs.proxy)
    }

    async fn configs(&self) -> Result<&Configs, String> {
        self.configs.get_or_try_init(|| self.build()).await
    }

    async fn build(&self) -> Result<Configs, String> {
        let verifier = if self.authorities.is_empty() {
            self.roots.verifier().await?
        } else if self.only_these {
            only(self.authorities.clone()).map_err(|error| error.to_string())?
        } else {
            let authorities = [self.roots.0.extra.clone(), self.authorities.clone()].concat();
            off_the_runtime(authorities, verifier).await?
        };
        let versions: &[_] = match self.min_version {
            TlsVersion::Tls12 => rustls::DEFAULT_VERSIONS,
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let config = |identity: Option<&Arc<CertifiedKey>>| {
            let builder = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&verifier));
            Ok(match identity {
                None => builder.with_no_client_auth(),
                Some(identity) => {
                    builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(identity))))
                }
            })
        };
        let in_words = |error: Error| error.to_string();
        let mut target = config(self.identity.as_ref()).map_err(in_words)?;
        target.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let proxy = config(None).map_err(in_words)?;
        Ok(Configs { target: Arc::new(target), proxy: Arc::new(proxy) })
    }

    /// The name that the certificate of a host must be for.
    pub(crate) fn name_for(&self, host: &str) -> Result<ServerName<'static>, String> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => server_name(host),
        }
    }
}

/// A host as certificates name it.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    let name = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    ServerName::try_from(name.to_owned()).map_err(|_| "the host's name cannot stand in a certificate".to_owned())
}

// Named, not the process's default: another library may install another one.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

async fn off_the_runtime<T: Send + 'static>(
    authorities: Vec<CertificateDer<'static>>,
    read: fn(Vec<CertificateDer<'static>>) -> Result<T, Error>,
) -> Result<T, String> {
    tokio::task::spawn_blocking(move || read(authorities).map_err(|error| error.to_string()))
        .await
        .map_err(|error| format!("the TLS settings could not be built: {error}"))?
}

fn verifier(extra: Vec<CertificateDer<'static>>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    // Asked without the extra roots first: with them, an empty system store would not be noticed.
    match Verifier::new(provider()) {
        Ok(verifier) if extra.is_empty() => Ok(Arc::new(verifier)),
        Ok(_) => Ok(Arc::new(Verifier::new_with_extra_roots(extra, provider())?)),
        Err(error) => {
            tracing::warn!(%error, "the system has no CA certificates; trusting the built-in ones");
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
            trusting(roots, extra)
        }
    }
}

fn only(authorities: Vec<CertificateDer<'static>>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    trusting(RootCertStore::empty(), authorities)
}

fn trusting(
    mut roots: RootCertStore,
    more: Vec<CertificateDer<'static>>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    for root in more {
        roots.add(root)?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    Ok(verifier.build().map_err(|error| Error::General(error.to_string()))?)
}

/// A certificate with its key.
fn identity(certificate: &ClientCertificate, key: &SecretBytes) -> Result<Arc<CertifiedKey>, String> {
    let of_key = |reason: String| format!("its client certificate's key: {reason}");
    certificate.check_key(key).map_err(of_key)?;
    let chain =
        certificates_in_der(&certificate.certificate).map_err(|reason| format!("its client certificate: {reason}"))?;
    let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| of_key("it cannot be read".to_owned()))?;
    let identity = CertifiedKey::from_der(chain, key, &provider());
    identity.map(Arc::new).map_err(|error| format!("its client certificate cannot be used: {error}"))
}

/// Why a handshake failed, as people say it.
pub(crate) fn in_words(error: &io::Error) -> String {
    match cause(error) {
        Some(Error::InvalidCertificate(why)) => of_certificate(why),
        Some(Error::AlertReceived(AlertDescription::HandshakeFailure)) => {
            "the server ended the handshake: there is no version or cipher in common, or it wants a client certificate"
                .to_owned()
        }
        Some(Error::AlertReceived(alert)) => {
            refusal(*alert).map_or_else(|| format!("the server ended the handshake ({alert:?})"), str::to_owned)
        }
        Some(Error::PeerIncompatible(why)) => format!("the two sides have no version or cipher in common ({why:?})"),
        Some(Error::InvalidMessage(_)) => "what answers there does not speak TLS".to_owned(),
        Some(error) => error.to_string(),
        None => crate::connector::in_words(error),
    }
}

fn of_certificate(why: &CertificateError) -> String {
    let at = |at: &UnixTime| {
        let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
        linkspan_model::Timestamp::from_micros(seconds.saturating_mul(1_000_000)).to_string()
    };
    let why = match why {
        CertificateError::UnknownIssuer => {
            "it is of no authority that is trusted here; a private authority belongs into the connection's \
             `tls.authorities`"
                .to_owned()
        }
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!("it has expired, at {}", at(not_after)),
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is not valid before {}", at(not_before))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        CertificateError::Revoked => "it was revoked".to_owned(),
        // The library's own words are those of its code.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is that of an authority, which a server cannot show; make one for the server, signed by it".to_owned()
        }
        other => other.to_string(),
    };
    format!("its certificate is not accepted: {why}")
}

/// What a server says of our certificate, when it does not let us in.
fn refusal(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateRequired => {
            "the server wants a client certificate; give the account a client_certificate"
        }
        AlertDescription::UnknownCA => "the server does not know the authority of our client certificate",
        AlertDescription::CertificateExpired => "our client certificate has expired, says the server",
        AlertDescription::CertificateRevoked => "our client certificate was revoked, says the server",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "the server does not accept our client certificate",
        _ => return None,
    })
}

/// What a server says of our certificate on a connection that seemed to stand: with TLS 1.3 a client hears it only
/// when it reads. Nothing was processed then.
pub(crate) fn refused(error: &io::Error) -> Option<String> {
    match cause(error) {
        Some(Error::AlertReceived(alert)) => refusal(*alert).map(str::to_owned),
        _ => None,
    }
}

fn cause(error: &io::Error) -> Option<&Error> {
    let inner = error.get_ref()?;
    inner.downcast_ref().or_else(|| inner.source()?.downcast_ref())
}
