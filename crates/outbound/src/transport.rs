//! Ways that connections are made, where a connection's TLS, its account's certificate or a proxy make it another one
//! than the ordinary.
//!
//! Guarantees that connections and TLS sessions are shared by those only who ask for exactly the same, and that a way
//! that nobody holds any more is forgotten, with its keys. The ordinary way is none of these and pays nothing for them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use linkspan_model::connection::HeaderCase;
use linkspan_model::proxy::ProxySpec;
use linkspan_model::secret::SecretBytes;
use linkspan_model::tls::{ClientCertificate, TlsSpec};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::auth::Part;
use crate::connector::Connector;
use crate::pool::Pool;
use crate::proxy::Proxy;
use crate::tls::Tls;

/// How long a way that nobody holds is kept: longer than its idle connections live, so that a change of other
/// documents, after which each is asked for anew, closes none.
const UNHELD: Duration = Duration::from_secs(60);

/// What makes a way another one than the ordinary.
#[derive(Debug, Clone, Copy, Default)]
pub struct TransportSettings<'a> {
    /// TLS with the target.
    pub tls: Option<&'a TlsSpec>,
    /// The certificate that is shown to a target that asks, with its key.
    pub client_certificate: Option<(&'a ClientCertificate, &'a SecretBytes)>,
    /// The proxy, and who we are there.
    pub proxy: Option<(&'a ProxySpec, Option<&'a ProxyLogin>)>,
}

/// A user of a proxy.
#[derive(Debug, Clone)]
pub struct ProxyLogin {
    /// The user.
    pub user: Part,
    /// The password, perhaps empty.
    pub password: SecretBytes,
}

impl ProxyLogin {
    /// What must not be shown of it.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretBytes> {
        self.user.secret().into_iter().chain([&self.password])
    }
}

/// A way that connections are made. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Transport(Arc<Pools>);

impl Transport {
    pub(crate) fn pools(&self) -> &Pools {
        &self.0
    }
}

impl PartialEq for Transport {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Transport {}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

/// The connections of one way.
#[derive(Debug, Clone)]
pub(crate) struct Pools {
    lower: Pool,
    /// For connections that want names of headers in title case: the library decides that for a whole pool.
    title: Pool,
}

impl Pools {
    pub(crate) fn new(connector: &Connector) -> Self {
        let of = |case| Pool::new(connector.clone(), case);
        Self { lower: of(HeaderCase::Lower), title: of(HeaderCase::Title) }
    }

    pub(crate) fn of(&self, case: HeaderCase) -> &Pool {
        match case {
            HeaderCase::Lower => &self.lower,
            HeaderCase::Title => &self.title,
        }
    }
}

/// The ways that were asked for.
#[derive(Clone)]
pub(crate) struct Transports {
    /// The ordinary one, behind whose guard all of them are.
    ordinary: Connector,
    known: Arc<Mutex<HashMap<[u8; 32], Known>>>,
}

struct Known {
    transport: Transport,
    held_at: Instant,
}

impl Transports {
    pub(crate) fn new(ordinary: Connector) -> Self {
        Self { ordinary, known: Arc::default() }
    }

    pub(crate) fn get(&self, settings: &TransportSettings<'_>) -> Result<Transport, String> {
        let digest = digest(settings);
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| {
            if Arc::strong_count(&known.transport.0) > 1 {
                known.held_at = now;
            }
            now.duration_since(known.held_at) < UNHELD
        });
        if let Some(known) = known.get_mut(&digest) {
            known.held_at = now;
            return Ok(known.transport.clone());
        }
        let transport = self.make(settings)?;
        known.insert(digest, Known { transport: transport.clone(), held_at: now });
        Ok(transport)
    }

    fn make(&self, settings: &TransportSettings<'_>) -> Result<Transport, String> {
        let tls = Tls::new(self.ordinary.roots(), settings.tls, settings.client_certificate)?;
        let proxy = settings.proxy.map(|(spec, login)| Proxy::new(spec, login)).transpose();
        let proxy = proxy.map_err(|reason| format!("proxy: {reason}"))?;
        Ok(Transport(Arc::new(Pools::new(&self.ordinary.beside(tls, proxy)))))
    }
}

impl fmt::Debug for Transports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transports")
    }
}

/// Tells settings apart. Every part goes in with its length, so that no two ways of cutting a text are one.
fn digest(settings: &TransportSettings<'_>) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |part: Option<&[u8]>| {
        let size = part.map_or(u64::MAX, |part| u64::try_from(part.len()).unwrap_or(u64::MAX));
        digest.update(size.to_be_bytes());
        digest.update(part.unwrap_or_default());
    };
    let tls = settings.tls.map(|tls| serde_json::to_vec(tls).unwrap_or_default());
    add(tls.as_deref());
    add(settings.client_certificate.map(|(certificate, _)| certificate.certificate.as_bytes()));
    add(settings.client_certificate.map(|(_, key)| key.expose()));
    let proxy = settings.proxy.map(|(proxy, _)| serde_json::to_vec(proxy).unwrap_or_default());
    add(proxy.as_deref());
    let login = settings.proxy.and_then(|(_, login)| login);
    add(login.map(|login| login.user.expose()));
    add(login.map(|login| login.password.expose()));
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connector::{Guard, Resolver};
    use crate::policy::Policy;
    use crate::tls::Roots;

    fn transports() -> Transports {
        let guard = Guard::Policy(Arc::new(Policy::default()));
        Transports::new(Connector::new(guard, Resolver::System, Roots::system()))
    }

    fn known(transports: &Transports) -> usize {
        transports.known.lock().unwrap().len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_way_that_nobody_holds_is_forgotten() {
        let transports = transports();
        let [one, two]: [TlsSpec; 2] =
            ["1.2", "1.3"].map(|version| serde_json::from_value(json!({"min_version": version})).unwrap());
        let get = |tls| transports.get(&TransportSettings { tls: Some(tls), ..TransportSettings::default() }).unwrap();
        let held = get(&one);
        assert_ne!(get(&two), held);
        tokio::time::advance(UNHELD / 2).await;
        assert_eq!((get(&one), known(&transports)), (held.clone(), 2), "soon after nothing is lost");
        tokio::time::advance(UNHELD * 2).await;
        assert_eq!((get(&one), known(&transports)), (held.clone(), 1), "what is held stays");
        drop(held);
        tokio::time::advance(UNHELD * 2).await;
        drop(get(&two));
        assert_eq!(known(&transports), 1);
    }

    #[test]
    fn everything_that_matters_tells_settings_apart() {
        let proxy: ProxySpec = serde_json::from_value(json!({"url": "http://p"})).unwrap();
        let login = |user: &str, password: &str| ProxyLogin { user: user.into(), password: SecretBytes::new(password) };
        let certificate = |pem: &str| -> ClientCertificate {
            serde_json::from_value(json!({"certificate": pem, "key": {"secret": "k"}})).unwrap()
        };
        let (one, other) = (certificate("a"), certificate("b"));
        let (key, other_key) = (SecretBytes::new("k"), SecretBytes::new("l"));
        let logins = [login("ab", "c"), login("a", "bc")];
        let plain = TransportSettings::default();
        let settings = [
            plain,
            TransportSettings { client_certificate: Some((&one, &key)), ..plain },
            TransportSettings { client_certificate: Some((&other, &key)), ..plain },
            TransportSettings { client_certificate: Some((&one, &other_key)), ..plain },
            TransportSettings { proxy: Some((&proxy, None)), ..plain },
            TransportSettings { proxy: Some((&proxy, Some(&logins[0]))), ..plain },
            TransportSettings { proxy: Some((&proxy, Some(&logins[1]))), ..plain },
        ];
        let digests: std::collections::HashSet<_> = settings.iter().map(digest).collect();
        assert_eq!(digests.len(), settings.len());
    }
}
