//! Many documents at once: apply and export.

use http::Method;
use linkspan_model::{Document, Fault, Kind, Name, Spec, limits};
use linkspan_store::{Action, Change, Snapshot};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Api;
use super::call::{Answer, Call};
use super::route::{ParameterKind, Route, data, run};
use crate::problem::Problem;

/// Documents to be created and changed, all or none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApplyBody {
    /// The documents: `kind`, `name`, `spec`.
    #[schemars(with = "Vec<Map<String, Value>>")]
    documents: Vec<Value>,
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
    /// The name of this set of documents.
    #[serde(default)]
    set: Option<String>,
    /// Delete what an earlier apply of the same set made and this one leaves out.
    #[serde(default)]
    prune: bool,
}

/// What happened, or would.
#[derive(Serialize, JsonSchema)]
struct ApplyAnswer {
    data: Applied,
}

#[derive(Serialize, JsonSchema)]
struct Applied {
    /// Whether anything was changed.
    applied: bool,
    /// One line per document: `action` (create, change, delete, unchanged), `kind`, `name`, `fields`.
    #[schemars(with = "Vec<Map<String, Value>>")]
    changes: Vec<Change>,
    /// What is worth knowing of the documents that were applied.
    warnings: Vec<String>,
}

/// Every document.
#[derive(Serialize, JsonSchema)]
struct ExportAnswer {
    data: Exported,
}

#[derive(Serialize, JsonSchema)]
struct Exported {
    /// The documents as their authors wrote them, by kind and name; secrets by reference.
    #[schemars(with = "Vec<Map<String, Value>>")]
    documents: Vec<Value>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/api/v1/apply", "apply", run!(apply))
            .about("documents", "Creates and changes documents, all or none.")
            .takes::<ApplyBody>()
            .gives::<ApplyAnswer>()
            .problems(&[409]),
        Route::new(Method::GET, "/api/v1/export", "export", run!(export))
            .about("documents", "Gives every document back.")
            .query("defaults", "Write defaults out.", ParameterKind::Flag)
            .gives::<ExportAnswer>(),
    ]
}

async fn apply(api: Api, call: Call) -> Result<Answer, Problem> {
    let body: ApplyBody = call.typed()?;
    if body.documents.len() > limits::APPLY_DOCUMENTS {
        let reason =
            format!("{} documents at once are too many; at most {}", body.documents.len(), limits::APPLY_DOCUMENTS);
        return Err(Problem::invalid(vec![Fault::new("documents", reason)]));
    }
    let given = body.documents;
    let documents = super::resources::off_thread(move || read_all(&given)).await?;
    let changes = api.store.apply(documents, body.set, body.prune, body.dry_run).await?;
    let warnings = if body.dry_run { Vec::new() } else { warnings(&api, &changes) };
    data(Applied { applied: !body.dry_run, changes, warnings })
}

/// Endpoints among the changes that verify without some of their secrets.
fn warnings(api: &Api, changes: &[Change]) -> Vec<String> {
    let snapshot = api.store.snapshot();
    let endpoints = changes.iter().filter(|change| change.kind == Kind::Endpoint && change.action != Action::Delete);
    let about = |change: &Change| {
        let missing = snapshot.missing_secrets(snapshot.endpoint(&change.name)?);
        let names: Vec<&str> = missing.into_iter().map(Name::as_str).collect();
        (!names.is_empty()).then(|| {
            format!(
                "endpoint/{} verifies without these secrets, which have no value: {}",
                change.name,
                names.join(", ")
            )
        })
    };
    endpoints.filter_map(about).collect()
}

fn read_all(given: &[Value]) -> Result<Vec<Document>, Vec<Fault>> {
    let mut documents = Vec::with_capacity(given.len());
    let mut faults = Vec::new();
    for (n, value) in given.iter().enumerate() {
        match Document::read(value) {
            Ok(document) => documents.push(document),
            Err(found) => faults.extend(found.into_iter().map(|mut fault| {
                fault.document = Some(n);
                fault
            })),
        }
    }
    if faults.is_empty() { Ok(documents) } else { Err(faults) }
}

async fn export(api: Api, call: Call) -> Result<Answer, Problem> {
    let with_defaults = call.flag("defaults");
    let resources = api.store.resources(None, None, usize::MAX).await?;
    let snapshot = api.store.snapshot();
    let documents: Vec<Value> = resources
        .into_iter()
        .map(|resource| match (with_defaults, Document::read(&resource.document)) {
            (true, Ok(document)) => whole(&snapshot, &document),
            _ => resource.document,
        })
        .collect();
    data(json!({"documents": documents}))
}

/// A document with the defaults that are in force for it written out. Where its connector cannot be used, nobody knows
/// which they are.
fn whole(snapshot: &Snapshot, document: &Document) -> Value {
    let in_force = match &document.spec {
        Spec::Endpoint(spec) if spec.connector.is_some() => {
            let view = snapshot.endpoint(&document.name).filter(|view| view.spec.connector.is_none());
            view.and_then(|view| serde_json::to_value(&view.spec).ok())
        }
        Spec::Connection(spec) if spec.connector.is_some() => {
            let view = snapshot.connection(&document.name).filter(|view| view.unusable.is_none());
            view.and_then(|view| serde_json::to_value(&*view.spec).ok())
        }
        _ => return document.with_defaults(None),
    };
    in_force.map_or_else(|| document.to_value(), |in_force| document.with_defaults(Some(&in_force)))
}
