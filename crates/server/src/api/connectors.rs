//! Connectors: what there is to connect to, of users and of the product.

use http::{Method, StatusCode};
use linkspan_model::connector::{
    AccountChoice, ActionSpec, ConnectorSpec, Intake, OutputSpec, StreamSpec, WebhookSpec,
};
use linkspan_model::import::{ImportSpec, Imported};
use linkspan_model::{Fault, Kind, Name};
use linkspan_store::{ConnectorView, Snapshot};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Api;
use super::call::{Answer, Call};
use super::route::{Route, data, page, run};
use crate::problem::Problem;

/// A connector that can be used.
#[derive(Serialize, JsonSchema)]
struct CatalogEntry {
    /// Its name, as connections say it.
    name: Name,
    /// What people call the API.
    title: Option<String>,
    /// Its version.
    version: Option<String>,
    /// Where it comes from.
    origin: Origin,
    /// How many actions it has.
    actions: usize,
    /// How many streams it has.
    streams: usize,
    /// How many webhooks it has.
    webhooks: usize,
    /// Why it cannot be used.
    reason: Option<String>,
}

/// Where a connector comes from.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Origin {
    /// It is one of the workspace's documents.
    User,
    /// It comes with the product.
    Bundled,
}

#[derive(Serialize, JsonSchema)]
struct Catalog {
    data: Vec<CatalogEntry>,
    /// The cursor of the next page.
    next: Option<String>,
}

/// Everything that there is to know of a connector before it is used.
#[derive(Serialize, JsonSchema)]
struct CatalogDetail {
    /// Its name.
    name: Name,
    /// Where it comes from.
    origin: Origin,
    /// What people call the API.
    title: Option<String>,
    /// Its version.
    version: Option<String>,
    /// The page of the API's own documentation.
    documentation: Option<String>,
    /// What a connection says of itself, as a JSON Schema.
    settings: Option<Value>,
    /// The kinds of accounts that the API takes; empty: any, or none.
    accounts: Vec<AccountChoice>,
    /// What it offers.
    actions: Vec<ActionDetail>,
    /// Its lists that can be read again and again.
    streams: Vec<StreamDetail>,
    /// What it sends to endpoints.
    webhooks: Vec<WebhookDetail>,
}

/// An action of a connector.
#[derive(Serialize, JsonSchema)]
struct ActionDetail {
    /// Its name.
    name: String,
    /// What people call it.
    title: Option<String>,
    /// What it does.
    description: Option<String>,
    /// What it is given, as a JSON Schema.
    input: Option<Value>,
    /// What its answer holds.
    output: Option<OutputSpec>,
    /// Whether it gives a list, page by page.
    list: bool,
}

/// A stream of a connector.
#[derive(Serialize, JsonSchema)]
struct StreamDetail {
    /// Its name.
    name: String,
    /// What people call it.
    title: Option<String>,
    /// What its records are.
    description: Option<String>,
    /// What it is given, as a JSON Schema.
    input: Option<Value>,
    /// What a record holds.
    output: Option<OutputSpec>,
    /// The expression that tells records apart.
    key: String,
    /// The expression that says how new a record is; with one, a reading can begin where the last one ended.
    cursor: Option<String>,
}

/// A webhook of a connector.
#[derive(Serialize, JsonSchema)]
struct WebhookDetail {
    /// Its name.
    name: String,
    /// What people call it.
    title: Option<String>,
    /// What is sent when.
    description: Option<String>,
    /// Where the endpoint's URL is registered, and where the secret comes from.
    help: Option<String>,
    /// The page of the API's own documentation.
    documentation: Option<String>,
    /// What an endpoint that takes it need not say.
    endpoint: Intake,
    /// What a body holds.
    output: Option<OutputSpec>,
}

#[derive(Serialize, JsonSchema)]
struct CatalogAnswer {
    data: CatalogDetail,
}

#[derive(Serialize, JsonSchema)]
struct ImportAnswer {
    data: Imported,
}

/// Imports at a time: each takes a processor, and memory of many times its source.
static IMPORTS: Semaphore = Semaphore::const_new(2);

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/api/v1/catalog", "list_catalog", run!(list))
            .about("connectors", "Lists every connector that connections can name, of users and of the product.")
            .gives::<Catalog>(),
        Route::new(Method::GET, "/api/v1/catalog/{name}", "get_catalog", run!(get))
            .about("connectors", "Gives a connector's settings and actions, with what it extends.")
            .path_parameter("name", "The name of the connector.")
            .gives::<CatalogAnswer>()
            .of(Kind::Connector),
        Route::new(Method::POST, "/api/v1/connectors/import", "import_connector", run!(import))
            .about(
                "connectors",
                "Makes a connector of an OpenAPI or Swagger document, curl commands or a Postman collection. Nothing is stored.",
            )
            .takes::<ImportSpec>()
            .gives::<ImportAnswer>(),
    ]
}

async fn import(_: Api, call: Call) -> Result<Answer, Problem> {
    let spec: ImportSpec = call.typed()?;
    let _turn = IMPORTS.acquire().await;
    // Away from the threads that answer: a large source takes a second.
    let imported = tokio::task::spawn_blocking(move || spec.import()).await.map_err(|error| super::internal(&error))?;
    let failed = |fault: Fault| {
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "import.failed", fault.to_string());
        Problem { faults: vec![fault], ..problem }
    };
    data(imported.map_err(failed)?)
}

async fn list(api: Api, _: Call) -> Result<Answer, Problem> {
    let snapshot = api.store.snapshot().clone();
    let entry = |(name, found): (&Name, Result<ConnectorView, _>)| match found {
        Ok(ConnectorView { name, is_users, head, counts: [actions, streams, webhooks] }) => CatalogEntry {
            name,
            title: head.title.clone(),
            version: head.version.clone(),
            origin: origin(is_users),
            actions,
            streams,
            webhooks,
            reason: None,
        },
        Err(fault) => CatalogEntry {
            name: name.clone(),
            title: None,
            version: None,
            origin: Origin::User,
            actions: 0,
            streams: 0,
            webhooks: 0,
            reason: Some(Fault::to_string(&fault)),
        },
    };
    let mut entries: Vec<CatalogEntry> = snapshot.connectors().map(entry).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(page(entries.into_iter().map(|entry| json!(entry)).collect(), None))
}

async fn get(api: Api, call: Call) -> Result<Answer, Problem> {
    let name = call.name()?;
    let snapshot = api.store.snapshot().clone();
    if !snapshot.has_connector(&name) {
        return Err(Problem::not_found(format!("connector/{name} does not exist")));
    }
    let is_users = snapshot.is_users_connector(&name);
    let spec = snapshot.whole_connector(&name).map_err(|fault| Problem::invalid(vec![fault]))?;
    let ConnectorSpec { title, version, documentation, settings, accounts, actions, streams, webhooks, .. } = spec;
    data(CatalogDetail {
        name,
        origin: origin(is_users),
        title,
        version,
        documentation,
        settings,
        accounts,
        actions: actions.into_iter().map(|(name, action)| detail(name, action)).collect(),
        streams: streams.into_iter().map(|(name, stream)| stream_detail(name, stream)).collect(),
        webhooks: webhooks.into_iter().map(|(name, webhook)| webhook_detail(name, webhook)).collect(),
    })
}

fn detail(name: String, action: ActionSpec) -> ActionDetail {
    let ActionSpec { title, description, input, output, paginate, .. } = action;
    ActionDetail { name, title, description, input, output, list: paginate.is_some() }
}

fn stream_detail(name: String, stream: StreamSpec) -> StreamDetail {
    let StreamSpec { title, description, input, output, key, cursor, .. } = stream;
    StreamDetail { name, title, description, input, output, key, cursor: cursor.map(|cursor| cursor.field) }
}

fn webhook_detail(name: String, webhook: WebhookSpec) -> WebhookDetail {
    let WebhookSpec { title, description, help, documentation, endpoint, output } = webhook;
    WebhookDetail { name, title, description, help, documentation, endpoint, output }
}

fn origin(is_users: bool) -> Origin {
    if is_users { Origin::User } else { Origin::Bundled }
}

/// How a user's connector stands.
pub(super) fn status(snapshot: &Snapshot, name: &Name) -> Value {
    match snapshot.connector(name) {
        Ok(connector) => json!({"ready": true, "actions": connector.counts[0]}),
        Err(fault) => json!({"ready": false, "reason": fault.to_string()}),
    }
}
