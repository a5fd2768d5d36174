//! Ways that connections are made where a document wants another than the ordinary one: by TLS settings, an account's
//! certificate, a proxy.
//!
//! Guarantees that the ordinary connection pays nothing for them, and that what a way holds of secrets is known to who
//! hides them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use linkspan_model::account::Credential;
use linkspan_model::job::StepError;
use linkspan_model::oauth2::OAuth2Spec;
use linkspan_model::proxy::ProxySpec;
use linkspan_model::tls::{ClientCertificate, TlsSpec};
use linkspan_model::{Name, SecretBytes};
use linkspan_outbound::{Credentials, Part, ProxyLogin, Transport, TransportSettings};
use linkspan_store::{ConnectionView, Snapshot};

use crate::{Engine, failed};

/// The ways of connections that are not the ordinary one, as they were made last.
#[derive(Debug, Clone, Default)]
pub struct TransportCache(Arc<Mutex<HashMap<Name, Made>>>);

/// A way, and the connection in the snapshot that it was made of: another snapshot may hold another one.
#[derive(Debug)]
struct Made {
    of: Weak<ConnectionView>,
    way: OwnTransport,
}

/// A way of its own, and the secrets that are used on it.
#[derive(Debug, Clone)]
pub(crate) struct OwnTransport {
    pub(crate) transport: Transport,
    hidden: Vec<SecretBytes>,
    /// The credentials that were used last, as they were given and with this way's secrets hidden: building a masker
    /// costs more than many a request.
    last: Arc<Mutex<Option<(Credentials, Credentials)>>>,
}

impl OwnTransport {
    /// The credentials, with a masker that hides this way's secrets too.
    pub(crate) fn hide(way: Option<&Self>, credentials: Credentials) -> Credentials {
        match way {
            Some(way) if !way.hidden.is_empty() => way.hiding(credentials),
            _ => credentials,
        }
    }

    fn hiding(&self, credentials: Credentials) -> Credentials {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((given, hidden)) = &*last
            && given.is_same(&credentials)
        {
            return hidden.clone();
        }
        let hidden = credentials.hiding(&self.hidden);
        *last = Some((credentials, hidden.clone()));
        hidden
    }
}

impl TransportCache {
    /// The way of a connection; nothing when it is the ordinary one.
    pub(crate) fn of(
        &self,
        engine: &Engine,
        snapshot: &Snapshot,
        connection: &Arc<ConnectionView>,
    ) -> Result<Option<OwnTransport>, StepError> {
        let spec = &connection.spec;
        let certificate = connection.account.as_ref().and_then(|account| account.spec.client_certificate());
        if spec.tls.is_none() && spec.proxy.is_none() && certificate.is_none() {
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
        let proxy = spec.proxy.as_ref().map(|proxy| with_login(snapshot, proxy)).transpose();
        let proxy = proxy.map_err(|reason| not_ready("connection.not_ready", format!("proxy: {reason}")))?;
        // Whatever can be wrong with documents was found when they were applied; what is left lies in secrets.
        let code = if key.is_some() { "account.not_ready" } else { "connection.not_ready" };
        let way = make(engine, spec.tls.as_ref(), key, proxy).map_err(|reason| not_ready(code, reason))?;
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
) -> Result<Option<OwnTransport>, String> {
    if spec.tls.is_none() && spec.proxy.is_none() && spec.client_certificate.is_none() {
        return Ok(None);
    }
    let key = spec.client_certificate.as_ref().map(|certificate| key(snapshot, certificate)).transpose()?;
    let proxy = spec.proxy.as_ref().map(|proxy| with_login(snapshot, proxy)).transpose()?;
    make(engine, spec.tls.as_ref(), key, proxy).map(Some)
}

type WithKey<'a> = (&'a ClientCertificate, &'a SecretBytes);

fn key<'a>(snapshot: &'a Snapshot, certificate: &'a ClientCertificate) -> Result<WithKey<'a>, String> {
    Ok((certificate, snapshot.secret(&certificate.key.secret)?))
}

type WithLogin<'a> = (&'a ProxySpec, Option<ProxyLogin>);

fn with_login<'a>(snapshot: &Snapshot, proxy: &'a ProxySpec) -> Result<WithLogin<'a>, String> {
    let user = match &proxy.user {
        None => return Ok((proxy, None)),
        Some(Credential::Text(user)) => Part::Plain(user.clone()),
        Some(Credential::Secret(reference)) => Part::Secret(snapshot.secret(&reference.secret)?.clone()),
    };
    let password = match &proxy.password {
        None => SecretBytes::new(""),
        Some(reference) => snapshot.secret(&reference.secret)?.clone(),
    };
    Ok((proxy, Some(ProxyLogin { user, password })))
}

fn make(
    engine: &Engine,
    tls: Option<&TlsSpec>,
    client_certificate: Option<WithKey<'_>>,
    proxy: Option<WithLogin<'_>>,
) -> Result<OwnTransport, String> {
    let login = proxy.as_ref().and_then(|(_, login)| login.as_ref());
    let settings =
        TransportSettings { tls, client_certificate, proxy: proxy.as_ref().map(|(proxy, _)| (*proxy, login)) };
    let transport = engine.outbound.transport(&settings)?;
    let hidden = login.into_iter().flat_map(ProxyLogin::secrets).cloned().collect();
    Ok(OwnTransport { transport, hidden, last: Arc::default() })
}
