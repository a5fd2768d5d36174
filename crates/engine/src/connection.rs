//! Ways to outside APIs: a connection with its base URL, its credentials and its limits, ready for requests.
//!
//! Guarantees that a request with credentials goes to the connection's hosts only, and that the credentials of an
//! account are built once for each state of the configuration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::{HeaderName, StatusCode};
use indexmap::IndexMap;
use linkspan_model::account::{AccountSpec, BasicSpec, Credential};
use linkspan_model::connection::ConnectionSpec;
use linkspan_model::connector::{Action, Connector};
use linkspan_model::job::StepError;
use linkspan_model::jwt::{JwtDefaults, JwtSpec};
use linkspan_model::request::{RequestPlan, RequestSpec};
use linkspan_model::template::Scope;
use linkspan_model::{Name, SecretRef, Timestamp, limits};
use linkspan_outbound::{AuthError, AwsKey, Credentials, Exchange, Failed, Part, RedirectScope, SendOptions};
use linkspan_store::{AccountView, Snapshot};
use serde_json::{Map, Value};
use url::Url;

use crate::oauth::{self, Unready};
use crate::transport::OwnTransport;
use crate::{Engine, failed, heavy, random_id};

/// The credentials of accounts, as they were built last. Building them builds an automaton for their masker, which
/// costs more than many a step.
#[derive(Debug, Clone, Default)]
pub struct CredentialCache(Arc<Mutex<HashMap<Name, Built>>>);

/// Credentials, and the account in the snapshot that they were built of: another snapshot holds other accounts, also
/// when only a secret outside the database has changed.
#[derive(Debug)]
struct Built {
    of: Weak<AccountView>,
    credentials: Credentials,
    /// Until when they are used; nothing: as long as the account stays what it is.
    until: Option<Timestamp>,
}

impl CredentialCache {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Built>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credentials of an account of this snapshot.
    fn of(&self, snapshot: &Snapshot, account: &Arc<AccountView>, now: Timestamp) -> Result<Credentials, String> {
        let is_of = |built: &&Built| {
            std::ptr::eq(built.of.as_ptr(), Arc::as_ptr(account)) && built.until.is_none_or(|until| now < until)
        };
        if let Some(built) = self.lock().get(&account.name).filter(is_of) {
            return Ok(built.credentials.clone());
        }
        // A masker of long secrets takes some milliseconds to be built, and so does a signature.
        let (credentials, until) = heavy::work_on(heavy::UNKNOWN, || match &account.spec {
            AccountSpec::Jwt(jwt) => signed(snapshot, jwt, now).map(|(token, until)| (token, Some(until))),
            other => credentials(snapshot, other).map(|credentials| (credentials, None)),
        })?;
        let built = Built { of: Arc::downgrade(account), credentials: credentials.clone(), until };
        let mut kept = self.lock();
        // What accounts of the past held need not stay in memory.
        kept.retain(|_, built| built.of.strong_count() > 0);
        kept.insert(account.name.clone(), built);
        Ok(credentials)
    }
}

/// What requests through a connection are made with.
pub(crate) struct Way {
    /// The connection's row.
    pub(crate) row: Option<i64>,
    pub(crate) spec: Arc<ConnectionSpec>,
    /// What request paths are appended to.
    pub(crate) base: Option<Url>,
    /// What requests carry; of an OAuth2 account what the last one has carried.
    pub(crate) credentials: Credentials,
    /// The account, when its token is obtained or signed as requests are sent.
    account: Option<Arc<AccountView>>,
    /// How connections are made, when it is not the ordinary way.
    transport: Option<OwnTransport>,
    /// The connector and the connection's settings there.
    connector: Option<(Arc<Connector>, Arc<Value>)>,
}

/// Why no usable answer came.
pub(crate) enum NoAnswer {
    /// The account gives no credentials, so nothing was sent.
    Unready(Unready),
    /// The request failed.
    Failed(Box<Failed>),
}

impl Way {
    /// Sends a request with the account's credentials. One that is answered 401 is repeated once with a renewed
    /// token, where the account has one, or with the answer to the server's challenge, where it can give one.
    pub(crate) async fn send(
        &mut self,
        engine: &Engine,
        snapshot: &Snapshot,
        request: RequestSpec,
        options: &SendOptions,
    ) -> Result<Exchange, NoAnswer> {
        let options = &SendOptions { at: Some(engine.clock.now()), ..options.clone() };
        let account = self.account.clone();
        let Some((account, spec)) = account.as_deref().and_then(|account| Some((account, account.spec.oauth2()?)))
        else {
            if let Some(account) = &account {
                // Whoever holds this way for long outlives the token that it began with.
                self.credentials = self.account_credentials(engine, snapshot, account).map_err(NoAnswer::Unready)?;
            }
            let send = |request| engine.outbound.send(request, &self.credentials, options);
            let again = self.credentials.answers_challenges().then(|| request.clone());
            let exchange = send(request).await.map_err(NoAnswer::Failed)?;
            // Who asks for an answer to a challenge has not processed the request.
            return match again {
                Some(again)
                    if exchange.status == StatusCode::UNAUTHORIZED
                        && self.credentials.take_challenge(&exchange.headers) =>
                {
                    send(again).await.map(|second| second.after(exchange.requests)).map_err(NoAnswer::Failed)
                }
                _ => Ok(exchange),
            };
        };
        let live = oauth::token(engine, snapshot, account, spec).await.map_err(NoAnswer::Unready)?;
        self.credentials = OwnTransport::hide(self.transport.as_ref(), live.credentials.clone());
        let exchange =
            engine.outbound.send(request.clone(), &self.credentials, options).await.map_err(NoAnswer::Failed)?;
        if exchange.status != StatusCode::UNAUTHORIZED {
            live.accepted();
            return Ok(exchange);
        }
        let Some(renewed) = oauth::after_401(engine, snapshot, account, spec, &live).await else { return Ok(exchange) };
        self.credentials = OwnTransport::hide(self.transport.as_ref(), renewed.credentials.clone());
        let before = exchange.requests;
        let exchange = engine.outbound.send(request, &self.credentials, options).await.map_err(NoAnswer::Failed)?;
        let exchange = exchange.after(before);
        if exchange.status != StatusCode::UNAUTHORIZED {
            renewed.accepted();
        }
        Ok(exchange)
    }

    fn account_credentials(
        &self,
        engine: &Engine,
        snapshot: &Snapshot,
        account: &Arc<AccountView>,
    ) -> Result<Credentials, Unready> {
        let credentials = engine
            .credentials
            .of(snapshot, account, engine.clock.now())
            .map_err(|reason| failed("account.not_ready", format!("account `{}`: {reason}", account.name), None))?;
        Ok(OwnTransport::hide(self.transport.as_ref(), credentials))
    }

    /// An action of the connection's connector, and what its pills see.
    ///
    /// # Errors
    /// There is no such action, or what it is given is not what it asks for.
    pub(crate) fn action(&self, name: &str, input: Map<String, Value>) -> Result<(Arc<Action>, Scope), StepError> {
        let (connector, settings) = self.connector.as_ref().ok_or_else(|| {
            failed("action.missing", "the connection has no connector, and so no actions".to_owned(), None)
        })?;
        let action = connector.action(name).map_err(|fault| failed("action.missing", fault.to_string(), None))?;
        let scope = action.scope(connector, settings, input)?;
        Ok((Arc::clone(action), scope))
    }

    /// Makes the request of a plan.
    ///
    /// # Errors
    /// Which field gives no value, or where the request may not go.
    pub(crate) fn render(&self, plan: &RequestPlan, scope: &Scope) -> Result<RequestSpec, StepError> {
        let mut request = plan.request.render(scope, self.base.as_ref())?;
        self.check(&request.url)?;
        self.spec.add_headers(&mut request);
        Ok(request)
    }

    /// Whether a request may go to this URL.
    ///
    /// # Errors
    /// `request.url`: it is none of the connection's hosts.
    pub(crate) fn check(&self, url: &Url) -> Result<(), StepError> {
        if self.spec.admits(self.base.as_ref(), url) {
            return Ok(());
        }
        // Else the account's credentials would go to whoever a pill names.
        let description = format!("{} is none of the connection's hosts", url.origin().ascii_serialization());
        Err(failed("request.url", description, Some("url".to_owned())))
    }

    /// The limits of an exchange; `timeout` is the step's own.
    pub(crate) fn options(&self, timeout: Option<Duration>) -> SendOptions {
        let stages = self.spec.timeouts.clone().unwrap_or_default();
        let stage = |set: Option<linkspan_model::units::Duration>, default| set.map_or(default, |set| set.get());
        SendOptions {
            connect: stage(stages.connect, limits::CONNECT_TIMEOUT),
            tls: stage(stages.tls, limits::CONNECT_TIMEOUT),
            first_byte: stage(stages.first_byte, limits::FIRST_BYTE_TIMEOUT),
            total: timeout.unwrap_or_else(|| self.spec.total_timeout()),
            response_max_bytes: self.spec.response_max_bytes(),
            redirects: self.spec.redirects.unwrap_or(0),
            redirect_scope: if self.spec.names_hosts() { RedirectScope::SameOrigin } else { RedirectScope::Anywhere },
            header_case: self.spec.header_case.unwrap_or_default(),
            at: None,
            transport: self.transport.as_ref().map(|own| own.transport.clone()),
        }
    }
}

/// The way of a connection; without one, whole URLs are called with no credentials.
pub(crate) fn connect(engine: &Engine, snapshot: &Snapshot, name: Option<&Name>) -> Result<Way, StepError> {
    let Some(name) = name else {
        let (spec, credentials) = (Arc::default(), Credentials::none());
        return Ok(Way { row: None, spec, base: None, credentials, account: None, transport: None, connector: None });
    };
    let view = snapshot
        .connection(name)
        .ok_or_else(|| failed("connection.missing", format!("connection `{name}` does not exist any more"), None))?;
    if let Some(reason) = &view.unusable {
        return Err(failed("connection.not_ready", format!("connection `{name}`: {reason}"), None));
    }
    let transport = engine.transports.of(engine, snapshot, view)?;
    let (later, now) = match &view.account {
        Some(account) if matches!(account.spec, AccountSpec::OAuth2(_) | AccountSpec::Jwt(_)) => (Some(account), None),
        other => (None, other.as_ref()),
    };
    let credentials = match now {
        Some(account) => engine
            .credentials
            .of(snapshot, account, engine.clock.now())
            .map_err(|reason| failed("account.not_ready", format!("connection `{name}`: {reason}"), None))?,
        None => Credentials::none(),
    };
    Ok(Way {
        row: Some(view.row),
        base: base(engine, snapshot, &view.spec)?,
        spec: Arc::clone(&view.spec),
        credentials: OwnTransport::hide(transport.as_ref(), credentials),
        account: later.cloned(),
        transport,
        connector: view.connector.clone(),
    })
}

/// What request paths are appended to: the connection's base URL, or that of an endpoint of this server.
fn base(engine: &Engine, snapshot: &Snapshot, connection: &ConnectionSpec) -> Result<Option<Url>, StepError> {
    let Some(name) = &connection.endpoint else { return Ok(connection.base()) };
    let endpoint = snapshot
        .endpoint(name)
        .ok_or_else(|| failed("endpoint.missing", format!("endpoint `{name}` does not exist any more"), None))?;
    let url = format!("{}/webhooks/{}", engine.own_url, endpoint.key);
    Url::parse(&url).map(Some).map_err(|error| failed("request.url", format!("{url}: {error}"), None))
}

fn credentials(snapshot: &Snapshot, account: &AccountSpec) -> Result<Credentials, String> {
    let in_words = |error: AuthError| error.to_string();
    match account {
        AccountSpec::None {} => Ok(Credentials::none()),
        AccountSpec::OAuth2(_) | AccountSpec::Jwt(_) => Err("its token is obtained when it is used".to_owned()),
        // Shown in the handshake, not in requests.
        AccountSpec::ClientCertificate(_) => Ok(Credentials::none()),
        AccountSpec::Basic(basic) => {
            let (user, password) = pair(snapshot, basic)?;
            Credentials::basic(&user, &password).map_err(in_words)
        }
        AccountSpec::Digest(digest) => {
            let (user, password) = pair(snapshot, digest)?;
            Credentials::digest(&user, &password).map_err(in_words)
        }
        AccountSpec::Headers(headers) => Credentials::headers(header_parts(snapshot, headers)?).map_err(in_words),
        AccountSpec::Query(query) => Credentials::custom(None, [], parts(snapshot, query)?).map_err(in_words),
        AccountSpec::Bearer(bearer) => Credentials::bearer(snapshot.secret(&bearer.token.secret)?).map_err(in_words),
        AccountSpec::AwsSigv4(aws) => {
            let session_token = aws.session_token.as_ref().map(|reference| snapshot.secret(&reference.secret));
            let key = AwsKey {
                access_key_id: part(snapshot, &aws.access_key_id)?,
                secret_access_key: snapshot.secret(&aws.secret_access_key.secret)?.clone(),
                session_token: session_token.transpose()?.cloned(),
                region: aws.region.clone(),
                service: aws.service.clone(),
            };
            Credentials::aws(key).map_err(in_words)
        }
        AccountSpec::Custom(custom) => {
            let basic = custom.basic.as_ref().map(|basic| pair(snapshot, basic)).transpose()?;
            let basic = basic.as_ref().map(|(user, password)| (user, password));
            let headers = header_parts(snapshot, &custom.headers)?;
            Credentials::custom(basic, headers, parts(snapshot, &custom.query)?).map_err(in_words)
        }
    }
}

/// A token that is signed here, and when another one takes its place.
fn signed(snapshot: &Snapshot, jwt: &JwtSpec, now: Timestamp) -> Result<(Credentials, Timestamp), String> {
    let key = snapshot.secret(&jwt.key.secret)?;
    let signed = jwt.sign(key, JwtDefaults::default(), now, &random_id()?)?;
    let credentials = Credentials::bearer(&signed.token).map_err(|error| error.to_string())?;
    // A private key never leaves this process, so nothing can repeat it; a masker of so long a text takes as long as
    // many a request.
    let credentials = if jwt.algorithm.is_shared() { credentials.hiding([key]) } else { credentials };
    Ok((credentials, signed.renew_at))
}

fn secret(snapshot: &Snapshot, reference: &SecretRef) -> Result<Part, String> {
    snapshot.secret(&reference.secret).cloned().map(Part::Secret)
}

fn part(snapshot: &Snapshot, credential: &Credential) -> Result<Part, String> {
    match credential {
        Credential::Text(text) => Ok(Part::Plain(text.clone())),
        Credential::Secret(reference) => secret(snapshot, reference),
    }
}

/// User and password.
fn pair(snapshot: &Snapshot, basic: &BasicSpec) -> Result<(Part, Part), String> {
    let password = match &basic.password {
        Some(reference) => secret(snapshot, reference)?,
        None => Part::Plain(String::new()),
    };
    Ok((part(snapshot, &basic.user)?, password))
}

fn parts(snapshot: &Snapshot, named: &IndexMap<String, Credential>) -> Result<Vec<(String, Part)>, String> {
    named.iter().map(|(name, value)| Ok((name.clone(), part(snapshot, value)?))).collect()
}

fn header_parts(
    snapshot: &Snapshot,
    headers: &IndexMap<String, Credential>,
) -> Result<Vec<(HeaderName, Part)>, String> {
    let named = |(name, part): (String, Part)| {
        HeaderName::from_bytes(name.as_bytes()).map(|name| (name, part)).map_err(|error| error.to_string())
    };
    parts(snapshot, headers)?.into_iter().map(named).collect()
}
