//! Postman collections, format 2.0 and 2.1.
//!
//! Scripts are not run. Variables of the collection are settings with the values that it gives them; variables that it
//! does not give are settings where they decide the host, and inputs elsewhere. Secrets stay behind, those in variables
//! too.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::credentials;
use super::draft::Draft;
use super::example::{
    Body, Example, Given, PartGiven, Variables, Writer, decoded, json_with_variables, settle_base, shown, take_apart,
    unmarked, variable,
};
use super::only::Only;
use super::text;
use crate::fault::Fault;
use crate::limits;

/// Longest saved answer that is kept as a sample, in bytes.
const SAMPLE_BYTES: usize = 8 << 10;

/// Most requests that are looked at, of which an import takes a part.
const REQUESTS_MAX: usize = 10 * limits::ACTIONS_MAX;
/// Longest name of a request or a folder, in characters.
const NAME_MAX: usize = 200;
/// Longest name of a variable in bytes.
const VARIABLE_MAX: usize = 100;

/// Whether this is a collection.
pub(super) fn looks_like(root: &Value) -> bool {
    let root = root.get("collection").unwrap_or(root);
    let is_named =
        root.pointer("/info/schema").and_then(Value::as_str).is_some_and(|schema| schema.contains("/collection/"));
    is_named
        || (root.get("info").is_some_and(Value::is_object) && root.get("item").is_some_and(Value::is_array))
        || is_first_format(root)
}

fn is_first_format(root: &Value) -> bool {
    root.get("requests").is_some_and(Value::is_array) && root.get("order").is_some_and(Value::is_array)
}

/// Reads a collection: an action for each request that is wanted.
pub(super) fn read(root: &Value, only: &Only) -> Result<Draft, Fault> {
    // As Postman's own API gives it.
    let root = root.get("collection").unwrap_or(root);
    if is_first_format(root) {
        return Err(Fault::new("source", "a collection of format 1 is not read; export it as v2.1"));
    }
    let title = root.pointer("/info/name").and_then(Value::as_str);
    let mut draft = Draft::new(title);
    draft.spec.title = title.and_then(|title| text::line(title, 100));
    draft.description = description(root.pointer("/info/description")).and_then(|text| text::line(&text, 300));
    let mut collection = Collection { draft: &mut draft, requests: Vec::new() };
    collection.auth(root);
    collection.scripts(root);
    collection.items(root.get("item"), &Rc::from([]));
    let requests = collection.requests;
    if requests.len() > REQUESTS_MAX {
        let reason = format!("a collection of more than {REQUESTS_MAX} requests is not read");
        return Err(Fault::new("source", reason).hint("export the folders that you need as collections of their own"));
    }
    write(draft, requests, known_variables(root), only)
}

/// Variables of the collection that have a value, secrets left out.
fn known_variables(root: &Value) -> HashMap<String, String> {
    let written = root.get("variable").and_then(Value::as_array).into_iter().flatten();
    let mut known = HashMap::new();
    for variable in written.take(1_000) {
        let name = text::field(variable, "key").or_else(|| text::field(variable, "id")).unwrap_or_default();
        let value = variable.get("value").map(text::of);
        let is_secret = text::field(variable, "type") == Some("secret") || credentials::is_secret_parameter(name);
        let Some(value) = value.filter(|value| !value.is_empty() && value.len() <= 4_096) else { continue };
        if !is_secret && !credentials::looks_secret(&value) && !is_disabled(variable) {
            known.insert(name.to_owned(), value);
        }
    }
    known
}

/// A variable's value with the variables in it replaced, as far as they are known.
fn resolved(known: &HashMap<String, String>, name: &str) -> Option<String> {
    let mut value = known.get(name)?.clone();
    // Deep enough for a URL made of a host made of a region.
    for _ in 0..4 {
        let Some((before, rest)) = value.split_once("{{") else { return Some(value) };
        let (name, after) = rest.split_once("}}")?;
        let inner = known.get(name.trim())?;
        if before.len() + inner.len() + after.len() > 4_096 {
            return None;
        }
        value = format!("{before}{inner}{after}");
    }
    (!value.contains("{{")).then_some(value)
}

/// Makes actions of the requests; the base URL that most of them have is the connection's.
fn write(
    mut draft: Draft,
    mut requests: Vec<Example>,
    known: HashMap<String, String>,
    only: &Only,
) -> Result<Draft, Fault> {
    let bases: Vec<String> =
        requests.iter().filter_map(|request| take_apart(&request.url)).map(|url| url.base).collect();
    let Some(base) = text::most_common(bases.iter().map(String::as_str)) else {
        return Err(Fault::new("source", "no request of the collection has a URL"));
    };
    let values: HashMap<String, String> =
        known.keys().filter_map(|name| Some((name.clone(), resolved(&known, name)?))).collect();
    let mut variables = Variables::default();
    let base_url = settle_base(&mut draft, &mut variables, base, &|name| values.get(name).cloned());
    draft.spec.connection.base_url = Some(base_url);
    variables.know(values);
    name_requests(&mut requests);
    let mut writer = Writer::new(&mut draft, &mut variables, base, only);
    for request in &requests {
        let folders = request.groups.iter().map(AsRef::as_ref).chain(request.title.as_deref());
        let place = shown(&folders.collect::<Vec<_>>().join(" / "));
        writer.write(request, &place)?;
    }
    Ok(draft)
}

/// Names actions by their requests; where several are called the same, with the folder before it.
fn name_requests(requests: &mut [Example]) {
    let plain = |request: &Example| text::action_name(&shown(request.title.as_deref()?));
    let mut counts: HashMap<String, usize> = HashMap::new();
    for name in requests.iter().filter_map(plain) {
        *counts.entry(name).or_default() += 1;
    }
    for request in requests {
        let Some(name) = plain(request) else { continue };
        let folder = request.groups.last().filter(|_| counts.get(&name).is_some_and(|count| *count > 1));
        request.name = match folder {
            Some(folder) => text::action_name(&format!("{folder}_{name}")),
            None => Some(name),
        };
    }
}

struct Collection<'a> {
    draft: &'a mut Draft,
    requests: Vec<Example>,
}

impl Collection<'_> {
    fn items(&mut self, items: Option<&Value>, folders: &Rc<[Rc<str>]>) {
        for item in items.and_then(Value::as_array).into_iter().flatten() {
            // Each request carries the names of its folders.
            let name: String = text::field(item, "name").unwrap_or_default().chars().take(NAME_MAX).collect();
            let name = marked(&name);
            self.auth(item);
            self.scripts(item);
            if item.get("item").is_some() {
                let inner = folders.iter().cloned().chain([name.into()]).collect();
                self.items(item.get("item"), &inner);
                continue;
            }
            let Some(request) = item.get("request") else { continue };
            // One more than there can be, which is said in the end.
            if self.requests.len() <= REQUESTS_MAX {
                self.auth(request);
                let example = self.request(request, item, name, folders);
                self.requests.push(example);
            }
        }
    }

    fn scripts(&mut self, item: &Value) {
        let has = item.get("event").and_then(Value::as_array).into_iter().flatten().any(|event| {
            let lines = event.pointer("/script/exec");
            lines.is_some_and(|lines| {
                lines.as_array().map_or_else(
                    || lines.is_string(),
                    |lines| lines.iter().any(|line| line.as_str().is_some_and(|line| !line.trim().is_empty())),
                )
            })
        });
        if has {
            let place = text::field(item, "name").filter(|name| is_usable_title(name)).unwrap_or_default();
            self.draft.notes.add("scripts are left out; what they set has to be given", place);
        }
    }

    /// The account that a collection, a folder or a request says.
    fn auth(&mut self, holder: &Value) {
        let Some(auth) = holder.get("auth").filter(|auth| auth.is_object()) else { return };
        let kind = text::field(auth, "type").unwrap_or_default();
        let settings = Settings(auth.get(kind));
        let (account, help) = match kind {
            "basic" => ("basic", "User and password of HTTP Basic.".to_owned()),
            "bearer" => ("bearer", "A bearer token.".to_owned()),
            "digest" => ("digest", "User and password of HTTP Digest.".to_owned()),
            "apikey" => {
                let name =
                    settings.text("key").map_or_else(|| "the key's name".to_owned(), |name| shown(&marked(&name)));
                match settings.text("in").as_deref() {
                    Some("query") => ("query", format!("The query parameter `{name}`.")),
                    _ => ("headers", format!("The header `{name}`.")),
                }
            }
            "oauth2" if settings.text("grant_type").as_deref() == Some("implicit") => (
                "bearer",
                "A token that was obtained elsewhere: by the implicit flow, which is for browsers.".to_owned(),
            ),
            "oauth2" => ("oauth2", settings.oauth2()),
            "awsv4" => ("aws_sigv4", "An AWS key, with region and service.".to_owned()),
            // Said of a request or a folder, it needs no account, whatever the others need.
            "noauth" => {
                self.draft.spec.account_optional = true;
                return;
            }
            "" => return,
            other => {
                let text = "an authorization of a kind that accounts do not have is left out";
                self.draft.notes.add(text, &text::line(other, 40).unwrap_or_default());
                return;
            }
        };
        self.draft.takes_account(account, None, Some(help));
        let text = "credentials are left out: store them with `linkspan secrets set NAME`, and make an account of them";
        self.draft.notes.add(text, "");
    }

    fn request(&mut self, request: &Value, item: &Value, title: String, folders: &Rc<[Rc<str>]>) -> Example {
        let title = Some(title).filter(|title| is_usable_title(title));
        let mut example = Example { title, groups: Rc::clone(folders), ..Example::default() };
        example.sample = sample(item);
        if let Some(url) = request.as_str() {
            example.method = "GET".to_owned();
            example.url = marked(url);
            return example;
        }
        example.description = description(request.get("description")).or_else(|| description(item.get("description")));
        example.method = text::field(request, "method").unwrap_or("GET").to_ascii_uppercase();
        url(request.get("url"), &mut example);
        example.headers = headers(request.get("header"));
        if let Some(given) = request.get("body").filter(|body| body.is_object() && !is_disabled(body)) {
            example.body = self.body(given, &mut example.headers);
        }
        example
    }

    fn body(&mut self, body: &Value, headers: &mut Vec<(String, String)>) -> Body {
        match text::field(body, "mode").unwrap_or_default() {
            "raw" => {
                let raw = text::field(body, "raw").unwrap_or_default();
                let language = body.pointer("/options/raw/language").and_then(Value::as_str);
                raw_body(raw, language, headers)
            }
            "urlencoded" => Body::Form(fields(body.get("urlencoded"))),
            "formdata" => {
                let parts = body.get("formdata").and_then(Value::as_array).into_iter().flatten();
                let parts: Vec<PartGiven> = parts.filter(|part| !is_disabled(part)).map(part).collect();
                if parts.is_empty() { Body::None } else { Body::Multipart(parts) }
            }
            "graphql" => {
                let query = body.pointer("/graphql/query").and_then(Value::as_str).map(marked).unwrap_or_default();
                let variables = body.pointer("/graphql/variables");
                let variables = match variables.and_then(Value::as_str) {
                    Some(text) => json_with_variables(&marked(text)),
                    None => variables.map(marked_value),
                };
                let operation = body.pointer("/graphql/operationName").and_then(Value::as_str);
                let operation = operation.filter(|name| !name.is_empty()).map(marked);
                Body::GraphQl { query, variables: variables.unwrap_or_default(), operation }
            }
            "file" => Body::File,
            "" => Body::None,
            _ => {
                self.draft.notes.add("a body of an unknown kind is left out", "");
                Body::None
            }
        }
    }
}

/// Whether a name can be shown: what nobody has named is called by its URL, which may hold a secret.
fn is_usable_title(title: &str) -> bool {
    !title.contains("://") && !title.contains(['?', '/', '@'])
}

/// The settings of an authorization: a list in format 2.1, an object in 2.0.
struct Settings<'a>(Option<&'a Value>);

impl Settings<'_> {
    fn text(&self, key: &str) -> Option<String> {
        let value = match self.0? {
            Value::Array(list) => list.iter().find(|setting| text::field(setting, "key") == Some(key))?.get("value")?,
            Value::Object(map) => map.get(key)?,
            _ => return None,
        };
        value.as_str().filter(|text| !text.is_empty() && text.len() <= 500).map(ToOwned::to_owned)
    }

    /// What an account of kind `oauth2` needs, but for the client's secrets.
    fn oauth2(&self) -> String {
        let grant = match self.text("grant_type").as_deref() {
            Some("client_credentials") => "client_credentials",
            Some("password_credentials") => "password",
            _ => "authorization_code",
        };
        let mut help = format!("Grant `{grant}`.");
        for (key, word) in [("authUrl", "authorize_url"), ("accessTokenUrl", "token_url"), ("scope", "scopes")] {
            let text = self.text(key).filter(|text| !credentials::looks_secret(text));
            if let Some(text) = text.and_then(|text| text::line(&shown(&marked(&text)), 300)) {
                help += &format!(" {word}: {text}");
            }
        }
        help
    }
}

fn is_disabled(value: &Value) -> bool {
    value.get("disabled") == Some(&Value::Bool(true))
}

/// A description: a text, or an object with one.
fn description(value: Option<&Value>) -> Option<String> {
    let value = value?;
    value.as_str().or_else(|| text::field(value, "content")).map(|text| shown(&marked(text)))
}

/// A text with signs in the place of its variables.
fn marked(text: &str) -> String {
    let text = unmarked(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        // Not farther than a name can reach: a text of braces must not be searched once for each of them.
        let end = after.as_bytes().windows(2).take(VARIABLE_MAX + 1).position(|pair| pair == b"}}");
        match end.map(|end| (&after[..end], &after[end + 2..])) {
            Some((name, after)) if is_variable(name) => {
                out.push_str(&variable(name.trim()));
                rest = after;
            }
            _ => {
                out.push_str("{{");
                rest = after;
            }
        }
    }
    out + rest
}

fn is_variable(name: &str) -> bool {
    let name = name.trim();
    !name.is_empty() && !name.contains(['{', '}', '\n', '"'])
}

fn marked_value(value: &Value) -> Value {
    match value {
        Value::String(text) => marked(text).into(),
        Value::Array(items) => items.iter().map(marked_value).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, item)| (marked(key), marked_value(item))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// A URL: a text, or taken apart.
fn url(url: Option<&Value>, example: &mut Example) {
    let Some(url) = url else { return };
    if let Some(text) = url.as_str() {
        example.url = marked(text);
        return;
    }
    let listed = url.get("query").and_then(Value::as_array);
    let raw = text::field(url, "raw").map_or_else(|| assembled(url), ToOwned::to_owned);
    let raw = marked(&raw);
    // The list says more: descriptions, and parameters that are switched off.
    example.url = if listed.is_some() { raw.split('?').next().unwrap_or_default().to_owned() } else { raw };
    for parameter in listed.into_iter().flatten() {
        let mut given = given(parameter);
        if is_disabled(parameter) {
            given.value = None;
        }
        // As a URL that is one text is read.
        given.name = decoded(&given.name);
        given.value = given.value.map(|value| decoded(&value));
        example.query.push(given);
    }
    example.segments = url.get("variable").and_then(Value::as_array).into_iter().flatten().map(given).collect();
}

/// A URL of its parts, where the text of it is missing.
fn assembled(url: &Value) -> String {
    let joined = |field: &str, separator: &str| match url.get(field) {
        Some(Value::Array(parts)) => {
            let parts: Vec<&str> =
                parts.iter().filter_map(|part| part.as_str().or_else(|| text::field(part, "value"))).collect();
            parts.join(separator)
        }
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    };
    let scheme = text::field(url, "protocol")
        .map(|protocol| format!("{}://", protocol.trim_end_matches("://")))
        .unwrap_or_default();
    let port =
        text::field(url, "port").filter(|port| !port.is_empty()).map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}{}{port}/{}", joined("host", "."), joined("path", "/").trim_start_matches('/'))
}

/// A parameter, a field or a variable of a path.
fn given(value: &Value) -> Given {
    let name = text::field(value, "key").or_else(|| text::field(value, "id")).map(marked).unwrap_or_default();
    let written = value.get("value").filter(|value| !value.is_null());
    let text = written.map(|written| marked(&text::of(written)));
    Given { name, value: text, description: description(value.get("description")) }
}

fn fields(value: Option<&Value>) -> Vec<Given> {
    let fields = value.and_then(Value::as_array).into_iter().flatten();
    fields
        .map(|field| {
            let given = given(field);
            if is_disabled(field) { Given { value: None, ..given } } else { given }
        })
        .collect()
}

fn headers(value: Option<&Value>) -> Vec<(String, String)> {
    match value {
        Some(Value::Array(headers)) => headers
            .iter()
            .filter(|header| !is_disabled(header))
            .filter_map(|header| {
                Some((marked(text::field(header, "key")?), marked(text::field(header, "value").unwrap_or_default())))
            })
            .collect(),
        Some(Value::String(lines)) => lines
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (marked(name.trim()), marked(value.trim())))
            .collect(),
        _ => Vec::new(),
    }
}

/// A body as it was typed: JSON where it says so or looks so, else a text.
fn raw_body(raw: &str, language: Option<&str>, headers: &mut Vec<(String, String)>) -> Body {
    if raw.trim().is_empty() {
        return Body::None;
    }
    let raw = marked(raw);
    let content_type =
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type")).map(|(_, value)| value);
    let is_json_said = language == Some("json") || content_type.is_some_and(|text| text.contains("json"));
    if (is_json_said || raw.trim_start().starts_with(['{', '[']))
        && let Some(value) = json_with_variables(&raw)
    {
        return Body::Json(value);
    }
    let usual = match language {
        Some("json") => Some("application/json"),
        Some("xml") => Some("application/xml"),
        Some("html") => Some("text/html"),
        Some("javascript") => Some("application/javascript"),
        _ => None,
    };
    if let (None, Some(usual)) = (content_type, usual) {
        headers.push(("Content-Type".to_owned(), usual.to_owned()));
    }
    Body::Text(raw)
}

fn part(value: &Value) -> PartGiven {
    let is_file = text::field(value, "type") == Some("file");
    let file = match value.get("src") {
        Some(Value::String(path)) => Some(path.as_str()),
        Some(Value::Array(paths)) => paths.first().and_then(Value::as_str),
        _ => None,
    };
    PartGiven {
        field: given(value),
        file: is_file.then(|| file.unwrap_or_default().to_owned()),
        content_type: text::field(value, "contentType").map(marked),
    }
}

/// The first saved answer that shows success and is JSON.
fn sample(item: &Value) -> Option<Value> {
    let responses = item.get("response")?.as_array()?;
    responses
        .iter()
        .filter(|response| response.get("code").and_then(Value::as_u64).is_some_and(|code| (200..300).contains(&code)))
        .filter_map(|response| text::field(response, "body"))
        .filter(|body| body.len() <= SAMPLE_BYTES)
        .find_map(|body| serde_json::from_str::<Value>(body).ok().filter(|value| value.is_object() || value.is_array()))
}
