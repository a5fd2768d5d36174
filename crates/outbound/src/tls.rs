//! TLS settings: which certificates are trusted.
//!
//! Guarantees that certificates are always verified. The system's store decides; where it holds none, as in
//! empty containers, Mozilla's roots that are built in do.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// Whom we trust to name others.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    extra: Vec<CertificateDer<'static>>,
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
        Self { extra: extra.into_iter().map(CertificateDer::from).collect() }
    }

    /// The client's settings. Reads files, off the runtime's threads.
    pub(crate) async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let extra = self.extra.clone();
        tokio::task::spawn_blocking(move || config(extra).map_err(|error| error.to_string()))
            .await
            .map_err(|error| format!("the TLS settings could not be built: {error}"))?
    }
}

fn config(extra: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, rustls::Error> {
    // Named, not the process's default: another library may install another one.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = verifier(extra, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn verifier(
    extra: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    // Asked without the extra roots first: with them, an empty system store would not be noticed.
    match Verifier::new(Arc::clone(provider)) {
        Ok(verifier) if extra.is_empty() => Ok(Arc::new(verifier)),
        Ok(_) => Ok(Arc::new(Verifier::new_with_extra_roots(extra, Arc::clone(provider))?)),
        Err(error) => {
            tracing::warn!(%error, "the system has no CA certificates; trusting the built-in ones");
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
            for root in extra {
                roots.add(root)?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            Ok(verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?)
        }
    }
}
