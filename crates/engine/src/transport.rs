//! Ways that connections are made where a document wants another than the ordinary one: by TLS settings, an account's
//! certificate.
//!
//! Guarantees that the ordinary connection pays nothing for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use linkspan_model::job::StepError;
use linkspan_model::oauth2::OAuth2Spec;
use linkspan_model::tls::{ClientCertificate, TlsSpec};
use linkspan_model::{Name, SecretBytes};
use linkspan_outbound::{Transport, TransportSettings};
use linkspan_store::{ConnectionView, Snapshot};

use crate::{Engine, failed};

/// The ways of connections that are not the ordinary one, as they were made last.
#[derive(Debug, Clone, Default)]
pub struct TransportCache(Arc<Mutex<HashMap<Name, Made>>>);

/// A way, and the connection in the snapshot that it was made of: another snapshot may hold another one.
#[derive(Debug)]
struct Made {
    of: Weak<ConnectionView>,
    way: Transport,
}

impl TransportCache {
    /// The way of a connection; nothing when it is the ordinary one.
    pub(crate) fn of(
        &self,
        engine: &Engine,
        snapshot: &Snapshot,
        connection: &Arc<ConnectionView>,
    ) -> Result<Option<Transport>, StepError> {
        let spec = &connection.spec;
        let certificate = connection.account.as_ref().and_then(|account| account.spec.client_certificate());
        if spec.tls.is_none() && certificate.is_none() {
            return Ok(None);
        }
        let is_of = |made: &&Made| std::ptr::eq(made.of.as_ptr(), Arc::as_ptr(connection));
        if let Some(made) = self.lock().get(&connection.name).filter(is_of) {
            return Ok(Some(made.way.clone()));
        }
        let name = &connection.name;
        let not_ready = |code: &str, reason: String| failed(code, format!("connection `{name}`: {reason}"), None);
        let key = certificate.map(|certificate| key(snapshot, certificate)).transpose();
        let key = key.map_err(|reason| not_ready("account.not_ready", reason))?;
        // Whatever can be wrong with documents was found when they were applied; what is left lies in secrets.
        let code = if key.is_some() { "account.not_ready" } else { "connection.not_ready" };
        let way = make(engine, spec.tls.as_ref(), key).map_err(|reason| not_ready(code, reason))?;
        let mut kept = self.lock();
        kept.retain(|_, made| made.of.strong_count() > 0);
        kept.insert(name.clone(), Made { of: Arc::downgrade(connection), way: way.clone() });
        Ok(Some(way))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the provider of an account; nothing when it is the ordinary one.
pub(crate) fn of_provider(
    engine: &Engine,
    snapshot: &Snapshot,
    spec: &OAuth2Spec,
) -> Result<Option<Transport>, String> {
    if spec.tls.is_none() && spec.client_certificate.is_none() {
        return Ok(None);
    }
    let key = spec.client_certificate.as_ref().map(|certificate| key(snapshot, certificate)).transpose()?;
    make(engine, spec.tls.as_ref(), key).map(Some)
}

type WithKey<'a> = (&'a ClientCertificate, &'a SecretBytes);

fn key<'a>(snapshot: &'a Snapshot, certificate: &'a ClientCertificate) -> Result<WithKey<'a>, String> {
    Ok((certificate, snapshot.secret(&certificate.key.secret)?))
}

fn make(engine: &Engine, tls: Option<&TlsSpec>, client_certificate: Option<WithKey<'_>>) -> Result<Transport, String> {
    engine.outbound.transport(&TransportSettings { tls, client_certificate })
}
