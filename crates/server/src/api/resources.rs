//! Documents one at a time: list, get, create, replace, patch and delete, the same for every kind.

use http::{Method, StatusCode};
use linkspan_model::account::AccountSpec;
use linkspan_model::connection::ConnectionSpec;
use linkspan_model::connector::ConnectorSpec;
use linkspan_model::destination::DestinationSpec;
use linkspan_model::endpoint::EndpointSpec;
use linkspan_model::recipe::RecipeSpec;
use linkspan_model::secret::SecretSpec;
use linkspan_model::sync::SyncSpec;
use linkspan_model::{Document, Fault, Kind};
use linkspan_store::{Precondition, Resource};
use metrics::counter;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::call::{Answer, Call};
use super::route::{Route, page, run};
use super::{Api, internal};
use crate::problem::Problem;

/// A document as it is sent.
#[derive(Serialize, JsonSchema)]
struct DocumentBody<S> {
    /// The kind, where it is said again.
    kind: Option<String>,
    /// The name: `[a-z0-9][a-z0-9-]{0,62}`.
    name: Option<String>,
    /// Free text.
    description: Option<String>,
    /// Free text pairs.
    labels: Option<std::collections::BTreeMap<String, String>>,
    /// What the document says.
    spec: S,
}

/// A document as it is stored.
#[derive(Serialize, JsonSchema)]
struct StoredDocument<S> {
    /// The kind.
    kind: String,
    /// The name.
    name: String,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Free text pairs.
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    /// What the document says.
    spec: S,
    /// Its id.
    id: String,
    /// Counts its changes from 1.
    revision: u64,
    /// When it was made.
    created_at: String,
    /// When it was last changed.
    updated_at: String,
    /// How it stands.
    status: serde_json::Map<String, Value>,
    /// The command whose next run says what the document is, where it stands in documents that were applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<String>,
}

/// One document.
#[derive(Serialize, JsonSchema)]
struct One<S> {
    data: StoredDocument<S>,
}

/// A page of documents.
#[derive(Serialize, JsonSchema)]
struct Many<S> {
    data: Vec<StoredDocument<S>>,
    /// The cursor of the next page.
    next: Option<String>,
}

/// A patch as RFC 7396 describes it.
#[derive(Serialize, JsonSchema)]
struct MergePatch(serde_json::Map<String, Value>);

pub(super) fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    routes.extend(of::<SecretSpec>(Kind::Secret));
    routes.extend(of::<AccountSpec>(Kind::Account));
    routes.extend(of::<ConnectorSpec>(Kind::Connector));
    routes.extend(of::<ConnectionSpec>(Kind::Connection));
    routes.extend(of::<EndpointSpec>(Kind::Endpoint));
    routes.extend(of::<RecipeSpec>(Kind::Recipe));
    routes.extend(of::<DestinationSpec>(Kind::Destination));
    routes.extend(of::<SyncSpec>(Kind::Sync));
    routes
}

fn of<S: JsonSchema>(kind: Kind) -> Vec<Route> {
    let all = format!("/api/v1/{}", kind.plural());
    let one = format!("{all}/{{name}}");
    let tag = kind.plural();
    let id = |verb: &str| format!("{verb}_{}", kind.as_str());
    let route = |method, path: &str, verb: &str, run, summary: String| {
        Route::new(method, path, id(verb), run).about(tag, summary).of(kind)
    };
    let named = |route: Route| route.path_parameter("name", "The name of the document.");
    vec![
        route(Method::GET, &all, "list", run!(list), format!("Lists {tag} by name.")).paged().gives::<Many<S>>(),
        route(Method::POST, &all, "create", run!(create), format!("Makes {} {kind}.", article(kind)))
            .takes::<DocumentBody<S>>()
            .gives::<One<S>>()
            .with_status(StatusCode::CREATED)
            .problems(&[409]),
        named(route(Method::GET, &one, "get", run!(get), format!("Gives one {kind}."))).gives::<One<S>>(),
        named(route(Method::PUT, &one, "put", run!(put), format!("Makes or replaces {} {kind}.", article(kind))))
            .if_match()
            .takes::<DocumentBody<S>>()
            .gives::<One<S>>()
            .problems(&[201, 409]),
        named(route(
            Method::PATCH,
            &one,
            "patch",
            run!(patch),
            format!("Changes fields of {} {kind} (RFC 7396).", article(kind)),
        ))
        .if_match()
        .takes::<MergePatch>()
        .gives::<One<S>>()
        .problems(&[409]),
        named(route(Method::DELETE, &one, "delete", run!(delete), format!("Deletes {} {kind}.", article(kind))))
            .if_match()
            .with_status(StatusCode::NO_CONTENT)
            .problems(&[409]),
    ]
}

fn article(kind: Kind) -> &'static str {
    if kind.as_str().starts_with(['a', 'e']) { "an" } else { "a" }
}

async fn list(api: Api, call: Call) -> Result<Answer, Problem> {
    let limit = call.limit() as usize;
    let found = api.store.resources(Some(call.kind), call.parsed("cursor")?, limit).await?;
    let next = (found.len() == limit).then(|| found.last().map(|last| last.name.to_string())).flatten();
    let mut items = Vec::with_capacity(found.len());
    for resource in &found {
        items.push(shown(&api, resource).await?);
    }
    Ok(page(items, next))
}

async fn get(api: Api, call: Call) -> Result<Answer, Problem> {
    let found = api.store.resource(call.kind, call.name()?).await?;
    one(&api, StatusCode::OK, &found).await
}

async fn create(api: Api, call: Call) -> Result<Answer, Problem> {
    let document = read(call.kind, None, call.body).await?;
    let (stored, _) = api.store.put(document, Precondition::Absent).await?;
    one(&api, StatusCode::CREATED, &stored).await
}

async fn put(api: Api, call: Call) -> Result<Answer, Problem> {
    let must = if call.names_revision() { call.present() } else { Precondition::None };
    let document = read(call.kind, Some(call.name()?.as_str()), call.body).await?;
    let (stored, created) = api.store.put(document, must).await?;
    one(&api, if created { StatusCode::CREATED } else { StatusCode::OK }, &stored).await
}

async fn patch(api: Api, call: Call) -> Result<Answer, Problem> {
    let name = call.name()?;
    let found = api.store.resource(call.kind, name.clone()).await?;
    let must = if call.names_revision() { call.present() } else { Precondition::Present(Some(found.revision)) };
    let mut document = found.document.clone();
    if !call.body.is_object() {
        return Err(Problem::invalid(vec![Fault::new("", "a patch is an object (RFC 7396)")]));
    }
    merge(&mut document, &call.body);
    let document = read(call.kind, Some(name.as_str()), document).await?;
    let (stored, _) = api.store.put(document, must).await?;
    one(&api, StatusCode::OK, &stored).await
}

async fn delete(api: Api, call: Call) -> Result<Answer, Problem> {
    let name = call.name()?;
    api.store.delete(call.kind, name.clone(), call.present()).await?;
    if call.kind == Kind::Recipe && call.flag("cancel_jobs") {
        let canceled = api.store.cancel_all(name).await?;
        counter!("linkspan_jobs_total", "status" => "canceled").increment(canceled);
    }
    Ok(Answer::nothing())
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.shift_remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Reads the document that a body is; kind and name may be left to the path.
async fn read(kind: Kind, name: Option<&str>, mut body: Value) -> Result<Document, Problem> {
    let Value::Object(fields) = &mut body else {
        return Err(Problem::invalid(vec![Fault::new("", "a document is an object with name and spec")]));
    };
    for (field, wanted) in [("kind", Some(kind.as_str())), ("name", name)] {
        let Some(wanted) = wanted else { continue };
        match fields.get(field) {
            None | Some(Value::Null) => {
                fields.insert(field.to_owned(), Value::from(wanted));
            }
            Some(given) if given == wanted => {}
            Some(given) => {
                let reason = format!("{given} stands in the document and `{wanted}` in the path");
                return Err(Problem::invalid(vec![Fault::new(field, reason)]));
            }
        }
    }
    // What only we write may come back as it was given.
    for field in ["id", "revision", "created_at", "updated_at", "status", "managed_by"] {
        fields.shift_remove(field);
    }
    fields.retain(|field, value| !(value.is_null() && matches!(field.as_str(), "description" | "labels")));
    off_thread(move || Document::read(&body)).await
}

/// Documents that are read at a time: a large connector takes a processor for seconds.
static READS: Semaphore = Semaphore::const_new(2);

/// Reads documents away from the threads that answer.
pub(super) async fn off_thread<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Vec<Fault>> + Send + 'static,
) -> Result<T, Problem> {
    let _turn = READS.acquire().await;
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| internal(&error))?;
    read.map_err(Problem::invalid)
}

async fn one(api: &Api, status: StatusCode, resource: &Resource) -> Result<Answer, Problem> {
    Ok(Answer::json(status, json!({"data": shown(api, resource).await?})).with_revision(resource.revision))
}

async fn shown(api: &Api, resource: &Resource) -> Result<Value, Problem> {
    let mut shown = resource.document.clone();
    let status = status(api, resource).await?;
    if let Some(fields) = shown.as_object_mut() {
        fields.entry("labels").or_insert_with(|| json!({}));
        fields.insert("id".to_owned(), resource.id.clone().into());
        fields.insert("revision".to_owned(), resource.revision.into());
        fields.insert("created_at".to_owned(), resource.created_at.to_string().into());
        fields.insert("updated_at".to_owned(), resource.updated_at.to_string().into());
        fields.insert("status".to_owned(), status);
        if let Some(owner) = managed_by(resource) {
            fields.insert("managed_by".to_owned(), owner.into());
        }
    }
    Ok(shown)
}

/// The command whose next run says what the document is: a change by any other command does not last.
pub(super) fn managed_by(resource: &Resource) -> Option<String> {
    resource.is_applied.then(|| match &resource.applied_set {
        Some(set) => format!("apply --set {set}"),
        None => "apply".to_owned(),
    })
}

/// How a resource stands, by its kind.
async fn status(api: &Api, resource: &Resource) -> Result<Value, Problem> {
    let snapshot = api.store.snapshot();
    if let Some(reason) = snapshot.unusable(resource.kind, &resource.name) {
        return Ok(json!({"ready": false, "reason": reason}));
    }
    Ok(match resource.kind {
        Kind::Endpoint => match snapshot.endpoint(&resource.name) {
            Some(endpoint) => json!({
                "url": endpoint_url(api, &endpoint.key),
                "ready": endpoint.verifier.is_ok() && endpoint.spec.is_enabled(),
                "reason": endpoint.verifier.as_ref().err(),
                "unverified": matches!(endpoint.spec.verify, Some(linkspan_model::verify::Verify::None)),
            }),
            None => json!({}),
        },
        Kind::Secret => json!({
            "has_value": snapshot.secret(&resource.name).is_ok(),
            "reason": snapshot.secret(&resource.name).err(),
        }),
        Kind::Recipe => {
            let running = snapshot.recipe(&resource.name).is_some_and(|recipe| recipe.spec.is_enabled());
            drop(snapshot);
            json!({"running": running, "open_jobs": api.store.open_jobs_of(resource.name.clone()).await?})
        }
        Kind::Sync => {
            let row = snapshot.sync(&resource.name).map(|sync| sync.row);
            drop(snapshot);
            match row {
                Some(row) => super::syncs::status(api, row).await?,
                None => json!({}),
            }
        }
        Kind::Connection => {
            let snapshot = snapshot.clone();
            match snapshot.connection(&resource.name) {
                Some(connection) => super::connections::status(api, &snapshot, connection).await?,
                None => json!({}),
            }
        }
        Kind::Account => {
            let snapshot = snapshot.clone();
            match snapshot.account(&resource.name) {
                Some(account) => super::accounts::status(api, account).await?,
                None => json!({}),
            }
        }
        Kind::Connector => super::connectors::status(&snapshot, &resource.name),
        Kind::Destination => json!({}),
    })
}

/// The full public URL of the endpoint with this key.
pub(super) fn endpoint_url(api: &Api, key: &str) -> String {
    format!("{}/webhooks/{key}", api.exposure.public_url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_as_rfc_7396_shows() {
        // Appendix A of the RFC.
        for (target, patch, wanted) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, wanted, "{target} + {patch}");
        }
    }
}
