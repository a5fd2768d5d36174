//! Connections: how they stand, and tests on demand.

use std::convert::Infallible;

use http::{Method, StatusCode};
use linkspan_model::account::AccountSpec;
use linkspan_model::call::{Called, CompiledCall, CompiledRead, Piece};
use linkspan_model::oauth2::{ConsentAnswer, ConsentAt};
use linkspan_model::traffic::TrafficStatus;
use linkspan_model::{Kind, Name, Timestamp};
use linkspan_store::{ConnectionView, Snapshot, StoreError};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::accounts::ConsentRefused;
use super::call::{Answer, Call};
use super::route::{Route, data, run};
use super::{Api, internal};
use crate::problem::Problem;

/// Tests connections, makes calls through them, and connects their accounts. This crate dials nobody, so the executable fills it in.
pub trait Connections: Send + Sync + 'static {
    /// Tests a connection and stores what that shows; a connection that does not work is no error.
    fn test(&self, connection: Name) -> ConnectionsFuture<'_, (), TestRefused>;
    /// Makes a call through a connection.
    fn call(&self, connection: Name, call: CompiledCall) -> ConnectionsFuture<'_, Called, Infallible>;
    /// Reads a list through a connection; its pieces come as long as they are taken.
    fn read(&self, connection: Name, list: CompiledRead) -> mpsc::Receiver<Piece>;
    /// Asks for a user's consent to an account's token; the callback URL is ours.
    fn begin_consent(&self, account: Name, callback_url: String) -> ConnectionsFuture<'_, ConsentAt, ConsentRefused>;
    /// Takes what the provider sent the user's browser back with; gives the account, or says why it is not connected.
    fn finish_consent(&self, answer: ConsentAnswer) -> ConnectionsFuture<'_, Name, String>;
}

/// What comes of something that calls others.
pub type ConnectionsFuture<'a, T, E> = std::pin::Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Why a connection was not tested.
#[derive(Debug, Clone)]
pub enum TestRefused {
    /// It does not exist.
    Missing,
    /// Its document does not say how; what is missing, in words.
    NoTest(String),
    /// The result was not stored.
    Store(StoreError),
}

/// How a connection stands.
#[derive(Serialize, JsonSchema)]
struct ConnectionStatus {
    /// What its last test has shown. A changed connection, account or secret makes it untested again.
    state: ConnectionState,
    /// When it was tested.
    tested_at: Option<Timestamp>,
    /// The status of the answer, when one came.
    http_status: Option<u16>,
    /// How long the exchange took, in milliseconds.
    duration_ms: Option<u64>,
    /// The code of the failure.
    code: Option<String>,
    /// Why it does not work.
    reason: Option<String>,
    /// The beginning of an answer that was not expected, secrets masked.
    answer: Option<String>,
    /// What is allowed and should not stay so.
    warnings: Vec<String>,
    /// The base URL of its requests, also where its connector says it.
    base_url: Option<String>,
    /// How requests of it are let through now.
    traffic: TrafficStatus,
}

/// What the last test has shown.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ConnectionState {
    /// Nothing yet, or something has changed since.
    Untested,
    /// It works.
    Connected,
    /// It does not work.
    Failed,
}

#[derive(Serialize, JsonSchema)]
struct ConnectionAnswer {
    data: ConnectionStatus,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/api/v1/connections/{name}/test", "test_connection", run!(test))
            .about("connections", "Tests a connection now, and gives how it stands.")
            .path_parameter("name", "The name of the connection.")
            .gives::<ConnectionAnswer>()
            .problems(&[422])
            .of(Kind::Connection),
    ]
}

async fn test(api: Api, call: Call) -> Result<Answer, Problem> {
    let name = call.name()?;
    let missing = || Problem::not_found(format!("connection/{name} does not exist"));
    api.connections.test(name.clone()).await.map_err(|refused| match refused {
        TestRefused::Missing => missing(),
        TestRefused::NoTest(reason) => {
            let description = format!("connection/{name} does not say how it is tested: {reason}");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "connection.no_test", description)
        }
        TestRefused::Store(error) => error.into(),
    })?;
    let snapshot = api.store.snapshot().clone();
    data(read_status(&api, &snapshot, snapshot.connection(&name).ok_or_else(missing)?).await?)
}

/// How a connection stands, as its document's status.
pub(super) async fn status(api: &Api, snapshot: &Snapshot, connection: &ConnectionView) -> Result<Value, Problem> {
    serde_json::to_value(read_status(api, snapshot, connection).await?).map_err(|error| internal(&error))
}

async fn read_status(api: &Api, snapshot: &Snapshot, connection: &ConnectionView) -> Result<ConnectionStatus, Problem> {
    let test = api.store.connection_test(connection).await?;
    let failure = test.as_ref().and_then(|test| test.failure.clone());
    let state = match (&test, &failure) {
        (None, _) => ConnectionState::Untested,
        (Some(_), None) => ConnectionState::Connected,
        (Some(_), Some(_)) => ConnectionState::Failed,
    };
    let milliseconds = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(ConnectionStatus {
        state,
        tested_at: test.as_ref().map(|test| test.tested_at),
        http_status: test.as_ref().and_then(|test| test.http_status),
        duration_ms: test.as_ref().map(|test| milliseconds(test.duration)),
        code: failure.as_ref().map(|failure| failure.code.clone()),
        reason: failure.as_ref().map(|failure| failure.reason.clone()),
        answer: failure.and_then(|failure| failure.answer),
        warnings: warnings(snapshot, connection, api.clock.now()),
        base_url: connection.spec.base_url.clone(),
        traffic: api
            .traffic
            .gate(&connection.name, connection.spec.traffic(connection.row), snapshot.revision)
            .status(api.clock.now()),
    })
}

/// What is to be said of connections when the set-up is checked: subject and message.
pub(super) async fn findings(api: &Api) -> Result<Vec<(String, String)>, Problem> {
    let snapshot = api.store.snapshot().clone();
    let mut findings = Vec::new();
    for connection in snapshot.connections() {
        let subject = format!("connection/{}", connection.name);
        let test = api.store.connection_test(connection).await?;
        if let Some((at, failure)) = test.and_then(|test| Some((test.tested_at, test.failure?))) {
            findings.push((subject.clone(), format!("its test at {at} failed: {}", failure.reason)));
        }
        let warnings = warnings(&snapshot, connection, api.clock.now());
        findings.extend(warnings.into_iter().map(|warning| (subject.clone(), warning)));
    }
    Ok(findings)
}

/// What is allowed and should not stay so, in words.
fn warnings(snapshot: &Snapshot, connection: &ConnectionView, now: Timestamp) -> Vec<String> {
    let mut warnings: Vec<String> =
        connection.unusable.iter().map(|reason| format!("it cannot be used: {reason}")).collect();
    warnings.extend(connection.spec.tls.iter().flat_map(|tls| tls.warnings(now)));
    let account = connection.account.as_ref().filter(|account| account.spec.has_credentials());
    let Some(account) = account else { return warnings };
    let is_plain = |url: &str| url.trim_start().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    if connection.spec.base_url.as_deref().is_some_and(is_plain) {
        let is_shown = !matches!(account.spec, AccountSpec::ClientCertificate(_));
        warnings.push(match is_shown {
            true => "its account's credentials go over plain http; use https://".to_owned(),
            false => "its account's certificate is not shown over plain http; use https://".to_owned(),
        });
    }
    for recipe in snapshot.recipes() {
        for step in &recipe.spec.steps {
            let is_ours = step.connection() == Some(&connection.name);
            let url = step.request.as_ref().and_then(|request| request.url.as_deref());
            if is_ours && url.is_some_and(is_plain) {
                let (recipe, step) = (&recipe.name, &step.id);
                warnings.push(format!(
                    "its account's credentials go over plain http in step `{step}` of recipe/{recipe}; use https://"
                ));
            }
        }
    }
    warnings
}
