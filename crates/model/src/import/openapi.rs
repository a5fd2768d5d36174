//! OpenAPI documents, 3.0 and 3.1; Swagger 2.0 after [`swagger::upgrade`].

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::draft::Draft;
use super::only::{Known, Only};
use super::operation::{Detail, Operation, Reader};
use super::schema::Schemas;
use super::{security, servers, swagger, text, too_large};
use crate::fault::Fault;
use crate::limits;

/// Methods of operations, as path items call them.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// How much is told of each action, most first: as much as fits into a document.
const DETAILS: [Detail; 4] = [
    Detail { output_bytes: 8 << 10, description_chars: 600 },
    Detail { output_bytes: 2 << 10, description_chars: 300 },
    Detail { output_bytes: 512, description_chars: 150 },
    Detail { output_bytes: 0, description_chars: 100 },
];

/// Reads a document: an action for each operation that is wanted.
pub(super) fn read(root: Value, only: &Only) -> Result<Draft, Fault> {
    let title = root.pointer("/info/title").and_then(Value::as_str);
    let mut draft = Draft::new(title);
    let root = match version(&root) {
        Version::OpenApi3 => root,
        Version::Swagger2 => swagger::upgrade(root, &mut draft.notes),
        Version::Other(version) => {
            let reason = format!("version {version} is not read; OpenAPI 3.0 and 3.1 are, and Swagger 2.0");
            return Err(Fault::new("source", reason));
        }
    };
    describe(&root, &mut draft);
    let schemas = Schemas::new(&root);
    servers::settle(&root, &mut draft);
    let credentials = security::settle(&root, &schemas, &mut draft);
    let reader = Reader { schemas, credentials, base: draft.spec.connection.base_url.clone() };
    reader.schemas.note(&mut draft.notes, "");
    let operations = operations(&root, &reader, only, &mut draft)?;
    write(&reader, &operations, &mut draft)?;
    settle_accept(&mut draft);
    Ok(draft)
}

enum Version {
    OpenApi3,
    Swagger2,
    Other(String),
}

fn version(root: &Value) -> Version {
    // YAML makes a number of `swagger: 2.0`.
    let text = |field: &str| root.get(field).map(text::of);
    match (text("openapi"), text("swagger")) {
        (Some(version), _) if version.starts_with('3') => Version::OpenApi3,
        (_, Some(version)) if version.starts_with('2') => Version::Swagger2,
        (version, other) => {
            let version = version.or(other).unwrap_or_default();
            Version::Other(text::line(&version, 20).unwrap_or_else(|| "?".to_owned()))
        }
    }
}

/// What the document says of itself.
fn describe(root: &Value, draft: &mut Draft) {
    let text = |pointer: &str| root.pointer(pointer).and_then(Value::as_str);
    draft.spec.title = text("/info/title").and_then(|title| text::line(title, 100));
    draft.description = text("/info/description").and_then(|description| text::line(description, 300));
    draft.spec.documentation = text("/externalDocs/url")
        .filter(|url| url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")))
        .map(ToOwned::to_owned);
    let version = root.pointer("/info/version").map(text::of);
    if let Some(version) = version.and_then(|version| text::line(&version, 60)) {
        let plain = version.strip_prefix('v').unwrap_or(&version);
        if crate::connector::is_version(plain) {
            draft.spec.version = Some(plain.to_owned());
        } else {
            // A connector's own version is three numbers.
            draft.labels.insert("api-version".to_owned(), version.into());
        }
    }
    let hooks = root.get("webhooks").or_else(|| root.get("x-webhooks")).and_then(Value::as_object).map_or(0, Map::len);
    if hooks > 0 {
        draft.notes.add(format!("{hooks} webhooks are left out: an endpoint receives them"), "");
    }
}

/// The operations that are wanted, in the order of the document, each with the name of its action.
fn operations<'a>(
    root: &'a Value,
    reader: &Reader<'a>,
    only: &Only,
    draft: &mut Draft,
) -> Result<Vec<Operation<'a>>, Fault> {
    let mut found = Vec::new();
    let mut groups: HashMap<&str, usize> = HashMap::new();
    let mut total = 0_usize;
    let paths = root.get("paths").and_then(Value::as_object);
    for (path, written) in paths.into_iter().flatten() {
        if path.starts_with("x-") {
            continue;
        }
        let Some(item) = reader.schemas.resolve(written).and_then(Value::as_object) else {
            reader.schemas.note(&mut draft.notes, path);
            continue;
        };
        for (method, operation) in item {
            let (true, Some(operation)) = (METHODS.contains(&method.as_str()), operation.as_object()) else { continue };
            let id = operation.get("operationId").and_then(Value::as_str);
            let wanted = id.and_then(text::action_name).unwrap_or_else(|| text::request_name(method, path));
            let name = draft.free_action_name(&wanted);
            let tags = operation.get("tags").and_then(Value::as_array).into_iter().flatten().take(20);
            let tags: Vec<&str> = tags.filter_map(Value::as_str).collect();
            let method = method.to_ascii_uppercase();
            if !only.wants(&Known { id, action: &name, groups: &tags, method: &method, path }) {
                continue;
            }
            if method == "TRACE" {
                draft.notes.add("left out, because requests cannot have this method", &format!("TRACE {path}"));
                continue;
            }
            total += 1;
            for tag in tags {
                *groups.entry(tag).or_default() += 1;
            }
            if found.len() < limits::ACTIONS_MAX {
                found.push(Operation { name, method, path, item, operation });
            }
        }
    }
    if total > limits::ACTIONS_MAX {
        return Err(too_many(total, &groups));
    }
    Ok(found)
}

fn too_many(total: usize, groups: &HashMap<&str, usize>) -> Fault {
    let reason = format!("{total} operations, and a connector has at most {} actions", limits::ACTIONS_MAX);
    Fault::new("source", reason).hint(hint(groups))
}

/// How to pick: the largest tags.
fn hint(groups: &HashMap<&str, usize>) -> String {
    let mut groups: Vec<(&str, usize)> = groups.iter().map(|(tag, count)| (*tag, *count)).collect();
    groups.sort_by(|(a, many), (b, more)| more.cmp(many).then(a.cmp(b)));
    let shown: Vec<String> =
        groups.iter().take(8).filter_map(|(tag, count)| Some(format!("{} ({count})", text::line(tag, 40)?))).collect();
    match shown.as_slice() {
        [] => "pick the operations that you need with `only`: ids, or `METHOD /path`".to_owned(),
        shown => format!(
            "pick the operations that you need with `only`: ids, `METHOD /path`, or tags such as {}",
            shown.join(", ")
        ),
    }
}

/// Makes the actions, with as much detail as there is room for.
fn write(reader: &Reader<'_>, operations: &[Operation<'_>], draft: &mut Draft) -> Result<(), Fault> {
    let notes = draft.notes.clone();
    for (n, detail) in DETAILS.into_iter().enumerate() {
        draft.forget_actions();
        draft.notes = notes.clone();
        if n > 0 {
            let text =
                "answers and descriptions are cut, so that the connector fits; import fewer operations to have more";
            draft.notes.add(text, "");
        }
        if fill(reader, operations, detail, draft) {
            return Ok(());
        }
    }
    let mut groups = HashMap::new();
    for operation in operations {
        for tag in
            operation.operation.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            *groups.entry(tag).or_default() += 1;
        }
    }
    Err(too_large().hint(hint(&groups)))
}

/// Adds every action; false when they are too large together.
fn fill(reader: &Reader<'_>, operations: &[Operation<'_>], detail: Detail, draft: &mut Draft) -> bool {
    // Room for settings and accounts.
    let mut room = limits::IMPORTED_BYTES - (limits::IMPORTED_BYTES >> 4);
    for operation in operations {
        let Some(action) = reader.action(operation, detail, draft) else { continue };
        let bytes = text::weight(&action) + operation.name.len() + 8;
        let Some(left) = room.checked_sub(bytes) else { return false };
        room = left;
        draft.adds_action(operation.name.clone(), action);
    }
    true
}

/// What most actions accept, the connection says for all of them: for those too of whose answers nothing is said.
fn settle_accept(draft: &mut Draft) {
    let accepts = || draft.spec.actions.values().filter_map(|action| action.request.headers.get("Accept"));
    let Some(accept) = text::most_common(accepts().map(String::as_str)).map(ToOwned::to_owned) else { return };
    if 2 * accepts().filter(|known| **known == accept).count() < draft.spec.actions.len() {
        return;
    }
    for action in draft.spec.actions.values_mut() {
        if action.request.headers.get("Accept") == Some(&accept) {
            action.request.headers.shift_remove("Accept");
        }
    }
    // Which is what nothing at all says.
    if accept != "*/*" {
        draft.spec.connection.headers.insert("Accept".to_owned(), accept);
    }
}
