//! The certificate of the public listener, read again while the server runs.
//!
//! Guarantees that a handshake has a chain and a key that belong together: what cannot be read, or does not, is said
//! in the log, and the certificate from before goes on. Connections that stand keep theirs.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(2);

/// The certificate. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct Certificate(Arc<Files>);

struct Files {
    chain: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

/// What tells a file from the one that replaced it, for both files.
type Stamp = [Option<(u64, u64, i64, i64)>; 2];

impl Certificate {
    /// Reads a chain and its key, both in PEM.
    pub(crate) fn read(chain: PathBuf, key: PathBuf) -> Result<Self> {
        let current = RwLock::new(Arc::new(certified(&chain, &key)?));
        Ok(Self(Arc::new(Files { chain, key, current })))
    }

    /// What shakes hands with it, for HTTP/2 and HTTP/1.1.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&self.0) as _;
        let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Reads the files again, off the threads that serve.
    pub(crate) async fn read_again(&self) {
        let Self(files) = self.clone();
        let read = tokio::task::spawn_blocking(move || match certified(&files.chain, &files.key) {
            Ok(new) => {
                *files.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                tracing::info!("the certificate was read again");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the certificate could not be read again; the one from before goes on");
            }
        });
        // Fails only when the server is at its end.
        drop(read.await);
    }

    /// Reads the files again when they change, until `stop`.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        let mut known = self.stamp().await;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            // Taken before the files are read: what changes meanwhile is read again.
            let stamp = self.stamp().await;
            if stamp != known {
                known = stamp;
                self.read_again().await;
            }
        }
    }

    async fn stamp(&self) -> Stamp {
        let of = |found: Metadata| (found.ino(), found.size(), found.mtime(), found.mtime_nsec());
        let Files { chain, key, .. } = &*self.0;
        [tokio::fs::metadata(chain).await.ok().map(of), tokio::fs::metadata(key).await.ok().map(of)]
    }
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("chain", &self.chain).field("key", &self.key).finish_non_exhaustive()
    }
}

fn certified(chain: &std::path::Path, key: &std::path::Path) -> Result<CertifiedKey> {
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect)
        .with_context(|| format!("--tls-cert {}", chain.display()))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("--tls-key {}", key.display()))?;
    CertifiedKey::from_der(certificates, key, &default_provider()).context("TLS")
}
