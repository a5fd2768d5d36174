//! Swagger 2.0 documents as OpenAPI 3 has it, so that one reader reads both.

use serde_json::{Map, Value, json};

use super::note::Notes;
use super::operation::Media;
use super::text;

/// The same document as OpenAPI 3 would write it, as far as [`super::openapi`] looks. References keep leading to where
/// they led: definitions, parameters and responses stay where they are.
pub(super) fn upgrade(mut root: Value, notes: &mut Notes) -> Value {
    let servers = servers(&root, notes);
    let schemes = root.get("securityDefinitions").map(schemes).unwrap_or_default();
    let shared = Shared {
        parameters: root.get_mut("parameters").map(Value::take).unwrap_or_default(),
        consumes: media_types(root.get("consumes")),
        produces: media_types(root.get("produces")),
    };
    if let Some(Value::Object(paths)) = root.get_mut("paths") {
        for (path, item) in paths {
            shared.item(&format!("#/paths/{}", escaped(path)), item);
        }
    }
    if let Some(Value::Object(responses)) = root.get_mut("responses") {
        responses.values_mut().for_each(|response| add_content(response, &shared.produces));
    }
    let mut parameters = shared.parameters;
    parameters.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(add_schema);
    root["parameters"] = parameters;
    root["servers"] = servers;
    root["components"] = json!({"securitySchemes": schemes});
    root
}

/// What the operations of a document share.
struct Shared {
    parameters: Value,
    consumes: Vec<String>,
    produces: Vec<String>,
}

/// A parameter that is sent in the body, and the reference that leads to it. Bodies refer to it: a copy for each
/// operation could be far larger than the document.
struct Sent<'a> {
    parameter: &'a Value,
    reference: String,
}

/// A key as a part of a reference (RFC 6901, section 6).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1").replace('%', "%25")
}

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// Longest name of a media type or a parameter that is read, in bytes: each operation repeats it.
const NAME_BYTES: usize = 200;

fn media_types(value: Option<&Value>) -> Vec<String> {
    let names = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    names.filter(|name| name.len() <= NAME_BYTES).take(20).map(ToOwned::to_owned).collect()
}

fn servers(root: &Value, notes: &mut Notes) -> Value {
    let path = text::field(root, "basePath").unwrap_or_default().trim_end_matches('/');
    let Some(host) = text::field(root, "host").filter(|host| !host.is_empty()) else {
        return if path.is_empty() { json!([]) } else { json!([{"url": path}]) };
    };
    let schemes = media_types(root.get("schemes"));
    let mut schemes: Vec<&str> =
        schemes.iter().map(String::as_str).filter(|scheme| matches!(*scheme, "http" | "https")).collect();
    if schemes.is_empty() {
        notes.add("the source does not say whether the API speaks https; it is taken to", "");
        schemes.push("https");
    }
    let separator = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    let urls = schemes.iter().map(|scheme| json!({"url": format!("{scheme}://{host}{separator}{path}")}));
    Value::Array(urls.collect())
}

fn schemes(definitions: &Value) -> Value {
    let mut schemes = Map::new();
    for (name, scheme) in definitions.as_object().into_iter().flatten() {
        let mut scheme = scheme.clone();
        if text::field(&scheme, "type") == Some("oauth2") {
            let flow = match text::field(&scheme, "flow") {
                Some("accessCode") => "authorizationCode",
                Some("application") => "clientCredentials",
                Some("password") => "password",
                _ => "implicit",
            };
            let settings = json!({
                "authorizationUrl": scheme.get("authorizationUrl"), "tokenUrl": scheme.get("tokenUrl"),
                "scopes": scheme.get("scopes"),
            });
            scheme["flows"] = json!({flow: settings});
        }
        schemes.insert(name.clone(), scheme);
    }
    schemes.into()
}

impl Shared {
    fn item(&self, reference: &str, item: &mut Value) {
        let Some(map) = item.as_object_mut() else { return };
        let mut common = take_list(map, "parameters");
        let sent = self.sent(&common, reference);
        for (method, operation) in map.iter_mut().filter(|(method, _)| METHODS.contains(&method.as_str())) {
            if let Some(operation) = operation.as_object_mut() {
                self.operation(&format!("{reference}/{method}"), operation, &sent);
            }
        }
        common.iter_mut().for_each(add_schema);
        map.insert("parameters".to_owned(), common.into());
    }

    fn operation(&self, reference: &str, operation: &mut Map<String, Value>, common: &[Sent<'_>]) {
        let consumes = operation.get("consumes").map_or_else(|| self.consumes.clone(), |own| media_types(Some(own)));
        let produces = operation.get("produces").map_or_else(|| self.produces.clone(), |own| media_types(Some(own)));
        let mut own = take_list(operation, "parameters");
        let sent = self.sent(&own, reference);
        let all = || common.iter().chain(&sent);
        let form: Vec<&Sent<'_>> = all().filter(|sent| text::field(sent.parameter, "in") == Some("formData")).collect();
        // The operation's own stands behind that of its path item.
        let body = match all().rfind(|sent| text::field(sent.parameter, "in") == Some("body")) {
            Some(sent) => Some(body(sent, &consumes)),
            None if form.is_empty() => None,
            None => Some(form_body(&form, &consumes)),
        };
        own.iter_mut().for_each(add_schema);
        operation.insert("parameters".to_owned(), own.into());
        operation.extend(body.map(|body| ("requestBody".to_owned(), body)));
        if let Some(Value::Object(responses)) = operation.get_mut("responses") {
            responses.values_mut().for_each(|response| add_content(response, &produces));
        }
    }

    /// The parameters of a list that are sent in the body.
    fn sent<'v>(&'v self, list: &'v [Value], holder: &str) -> Vec<Sent<'v>> {
        let of = |(n, written): (usize, &'v Value)| {
            let (parameter, reference) = match text::field(written, "$ref") {
                None => (written, format!("{holder}/parameters/{n}")),
                Some(reference) => {
                    (self.parameters.get(reference.strip_prefix("#/parameters/")?)?, reference.to_owned())
                }
            };
            matches!(text::field(parameter, "in"), Some("body" | "formData")).then_some(Sent { parameter, reference })
        };
        list.iter().enumerate().take(PARAMETERS_MAX).filter_map(of).collect()
    }
}

/// Most parameters of an operation that are read.
const PARAMETERS_MAX: usize = 300;

fn take_list(map: &mut Map<String, Value>, field: &str) -> Vec<Value> {
    match map.get_mut(field).map(Value::take) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// Puts a parameter's type where OpenAPI 3 has it. What is sent in the body stays as it is.
fn add_schema(parameter: &mut Value) {
    if text::field(parameter, "$ref").is_some()
        || matches!(text::field(parameter, "in"), None | Some("body" | "formData"))
    {
        return;
    }
    let Value::Object(mut schema) = parameter.take() else { return };
    let mut out = Map::new();
    for field in ["name", "in", "description", "required", "x-example", "example", "deprecated"] {
        if let Some(value) = schema.shift_remove(field) {
            out.insert(field.trim_start_matches("x-").to_owned(), value);
        }
    }
    if schema.get("type").is_some_and(|kind| kind == "array") {
        let (style, explodes) = style(schema.get("collectionFormat"));
        out.insert("style".to_owned(), style.into());
        out.insert("explode".to_owned(), explodes.into());
    }
    out.insert("schema".to_owned(), schema.into());
    *parameter = out.into();
}

/// How the items of a list are written: the style, and whether each is a parameter.
fn style(collection_format: Option<&Value>) -> (&'static str, bool) {
    match collection_format.and_then(Value::as_str) {
        Some("multi") => ("form", true),
        Some("ssv") => ("spaceDelimited", false),
        Some("tsv") => ("tabDelimited", false),
        Some("pipes") => ("pipeDelimited", false),
        _ => ("form", false),
    }
}

fn body(sent: &Sent<'_>, consumes: &[String]) -> Value {
    let schema = json!({"$ref": format!("{}/schema", sent.reference)});
    let names = consumes.iter().filter(|name| !matches!(Media::of(name), Media::Form | Media::Multipart));
    let mut content: Map<String, Value> = names.map(|name| (name.clone(), json!({"schema": schema}))).collect();
    if content.is_empty() {
        content.insert("application/json".to_owned(), json!({"schema": schema}));
    }
    let description =
        text::field(sent.parameter, "description").map(|text| text.chars().take(1_000).collect::<String>());
    json!({"content": content, "required": sent.parameter.get("required"), "description": description})
}

/// The fields of a form are parameters, which read as schemas too.
fn form_body(fields: &[&Sent<'_>], consumes: &[String]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut encoding = Map::new();
    let mut has_files = false;
    for Sent { parameter, reference } in fields {
        let Some(name) = text::field(parameter, "name").filter(|name| name.len() <= NAME_BYTES) else { continue };
        has_files |= text::field(parameter, "type") == Some("file");
        if parameter.get("required") == Some(&Value::Bool(true)) {
            required.push(Value::from(name));
        }
        if text::field(parameter, "type") == Some("array") {
            let (style, explodes) = style(parameter.get("collectionFormat"));
            encoding.insert(name.to_owned(), json!({"style": style, "explode": explodes}));
        }
        properties.insert(name.to_owned(), json!({"$ref": reference}));
    }
    let takes = |media: Media| consumes.iter().any(|name| Media::of(name) == media);
    let media_type = if has_files || (takes(Media::Multipart) && !takes(Media::Form)) {
        "multipart/form-data"
    } else {
        "application/x-www-form-urlencoded"
    };
    let is_required = !required.is_empty();
    let schema = json!({"type": "object", "properties": properties, "required": required});
    json!({"content": {media_type: {"schema": schema, "encoding": encoding}}, "required": is_required})
}

/// Puts a response's schema where OpenAPI 3 has it.
fn add_content(response: &mut Value, produces: &[String]) {
    let Value::Object(response) = response else { return };
    let schema = response.shift_remove("schema");
    let examples = response.shift_remove("examples");
    if schema.is_none() && examples.is_none() {
        return;
    }
    // One stands for all of a kind: it is asked for, and the others are the API's choice.
    let json = produces.iter().find(|name| Media::of(name) == Media::Json).or_else(|| produces.first());
    let name = json.map_or("application/json", String::as_str);
    let example = examples.and_then(|mut examples| examples.get_mut(name).map(Value::take));
    let mut media = Map::new();
    media.extend(schema.map(|schema| ("schema".to_owned(), schema)));
    media.extend(example.map(|example| ("example".to_owned(), example)));
    response.insert("content".to_owned(), json!({name: media}));
}
