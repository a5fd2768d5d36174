//! Requests as somebody wrote them down, with their values: of curl commands, of Postman collections. Signs in their
//! texts stand for variables.

mod writing;

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use url::Url;

pub(super) use self::writing::{INPUTS_MAX, Writer};
use super::draft::Draft;
use super::{credentials, text};

/// Signs that stand round the name of a variable in texts of this module; they are no characters.
const OPEN: char = '\u{f8ff0}';
const CLOSE: char = '\u{f8ff1}';

/// What stands for the variable `name` in a text.
pub(super) fn variable(name: &str) -> String {
    let name = if name.is_empty() { "value" } else { name };
    format!("{OPEN}{name}{CLOSE}")
}

/// The same text without signs that could be taken for variables.
pub(super) fn unmarked(text: &str) -> String {
    text.replace([OPEN, CLOSE], "")
}

/// A piece of a text with variables.
enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let Some((name, after)) = after.split_once(CLOSE) else { break };
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Variable(name));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

fn has_variables(text: &str) -> bool {
    text.contains(OPEN)
}

fn holds_variables(value: &Value) -> bool {
    match value {
        Value::String(text) => has_variables(text),
        Value::Array(items) => items.iter().any(holds_variables),
        Value::Object(map) => map.iter().any(|(key, item)| has_variables(key) || holds_variables(item)),
        _ => false,
    }
}

/// The name of the variable that is the whole text.
fn whole_variable(text: &str) -> Option<&str> {
    match pieces(text).as_slice() {
        [Piece::Variable(name)] => Some(*name),
        _ => None,
    }
}

/// A request with its values. Texts may hold variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Example {
    /// What the action is to be called; none: by its method and path.
    pub(super) name: Option<String>,
    /// What the source calls it.
    pub(super) title: Option<String>,
    /// What the source says of it.
    pub(super) description: Option<String>,
    /// The folders that it stands in.
    pub(super) groups: Rc<[Rc<str>]>,
    /// The method.
    pub(super) method: String,
    /// The URL, perhaps with a query.
    pub(super) url: String,
    /// More parameters of the query.
    pub(super) query: Vec<Given>,
    /// What is known of segments of the path that are variables: `:id`.
    pub(super) segments: Vec<Given>,
    /// Headers, credentials among them.
    pub(super) headers: Vec<(String, String)>,
    /// The body.
    pub(super) body: Body,
    /// What it was answered.
    pub(super) sample: Option<Value>,
}

/// A parameter or a field with its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    /// Its name.
    pub(super) name: String,
    /// Its value; none when it is only known that it can be given.
    pub(super) value: Option<String>,
    /// What the source says of it.
    pub(super) description: Option<String>,
}

/// A body with its values.
#[derive(Debug, Clone, Default)]
pub(super) enum Body {
    /// None.
    #[default]
    None,
    /// JSON.
    Json(Value),
    /// A form.
    Form(Vec<Given>),
    /// Parts.
    Multipart(Vec<PartGiven>),
    /// A text of the content type that the headers name.
    Text(String),
    /// A file.
    File,
    /// A GraphQL query with its variables, and the operation of it that is meant.
    GraphQl { query: String, variables: Value, operation: Option<String> },
}

/// A part of a multipart body.
#[derive(Debug, Clone, Default)]
pub(super) struct PartGiven {
    pub(super) field: Given,
    /// The name of the file, when it is one.
    pub(super) file: Option<String>,
    pub(super) content_type: Option<String>,
}

/// What variables are: settings of the connection where the source gives their values, or else input of each action.
#[derive(Debug, Default)]
pub(super) struct Variables {
    settings: HashMap<String, String>,
    /// Values that the source gives.
    known: HashMap<String, String>,
}

impl Variables {
    /// From now on this variable is the setting called `setting`.
    pub(super) fn sets(&mut self, name: &str, setting: String) {
        self.settings.insert(name.to_owned(), setting);
    }

    /// These variables have these values, so that those which are used are settings.
    pub(super) fn know(&mut self, values: HashMap<String, String>) {
        self.known = values;
    }

    /// The setting that a variable is.
    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }
}

/// A URL taken apart, which may hold variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// Scheme, host and port, or a variable that is all of it.
    pub(super) base: String,
    /// From the slash on; a segment that looks like a secret is a variable.
    pub(super) path: String,
    /// Whether there was such a segment.
    pub(super) has_secret: bool,
    /// Names and values, decoded.
    pub(super) query: Vec<(String, String)>,
    /// Whether it held credentials.
    pub(super) has_credentials: bool,
    /// Whether it said no scheme.
    pub(super) lacks_scheme: bool,
}

/// Takes a URL apart; none when it has no host.
pub(super) fn take_apart(url: &str) -> Option<Parts> {
    let url = url.trim();
    let (url, _) = url.split_once('#').unwrap_or((url, ""));
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => (Some(scheme), rest),
        _ => (None, url),
    };
    let end = base_variable_end(scheme, rest).unwrap_or_else(|| rest.find(['/', '?']).unwrap_or(rest.len()));
    let (authority, rest) = rest.split_at(end);
    let (credentials, host) = match authority.rsplit_once('@') {
        Some((_, host)) => (true, host),
        None => (false, authority),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_base_variable = scheme.is_none() && whole_variable(host).is_some();
    let base = match scheme {
        _ if host.is_empty() => return None,
        _ if is_base_variable => host.to_owned(),
        Some(scheme) if has_variables(scheme) => format!("{scheme}://{host}"),
        Some(scheme) => format!("{}://{host}", scheme.to_ascii_lowercase()),
        None => format!("http://{host}"),
    };
    let base = if has_variables(&base) { base } else { origin(&base)? };
    let query = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    });
    let path = without_dots(&if path.starts_with('/') { path.to_owned() } else { format!("/{path}") });
    let has_secret = path.split('/').any(credentials::is_secret_segment);
    let told = |segment| if credentials::is_secret_segment(segment) { variable("token") } else { segment.to_owned() };
    Some(Parts {
        base,
        path: path.split('/').map(told).collect::<Vec<_>>().join("/"),
        has_secret,
        query: query.collect(),
        has_credentials: credentials,
        lacks_scheme: scheme.is_none() && !is_base_variable,
    })
}

/// A name or a value of a query or a form as people mean it: plus signs are spaces, and what is percent-encoded is
/// encoded again when it is sent. What is no UTF-8 stays encoded.
pub(super) fn decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// A path without `.` and `..`, which is what is sent of it (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let plain = |segment: &str| segment.replace("%2e", ".").replace("%2E", ".");
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match plain(segment).as_str() {
            ".." => {
                kept.pop();
            }
            "." => {}
            _ => {
                kept.push(segment);
                continue;
            }
        }
        // What ends in one is a folder.
        if is_last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

/// Where a variable ends that a URL begins with and that is the whole base, since a path follows it without a slash:
/// `{{baseUrl}}v1/users`. What follows a host is a port or the rest of its name.
fn base_variable_end(scheme: Option<&str>, url: &str) -> Option<usize> {
    let end = url.find(CLOSE)? + CLOSE.len_utf8();
    let follows = url[end..].chars().next()?;
    (scheme.is_none() && url.starts_with(OPEN) && follows.is_ascii_alphanumeric()).then_some(end)
}

/// A URL's origin, when it is one of HTTP.
fn origin(base: &str) -> Option<String> {
    let url = Url::parse(base).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| url.origin().ascii_serialization())
}

/// A text as people read it: variables in braces.
pub(super) fn shown(text: &str) -> String {
    text.replace(OPEN, "{").replace(CLOSE, "}")
}

/// A text as a form encodes it, but for its variables.
pub(super) fn encoded_text(text: &str) -> String {
    pieces(text)
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => url::form_urlencoded::byte_serialize(text.as_bytes()).collect(),
            Piece::Variable(name) => variable(name),
        })
        .collect()
}

/// JSON in which variables may stand for whole values too: `{"id": {{id}}}`.
pub(super) fn json_with_variables(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    if !has_variables(text) {
        return None;
    }
    let mut quoted = String::with_capacity(text.len());
    let mut is_text = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if is_text => {
                quoted.push(c);
                quoted.extend(chars.next());
                continue;
            }
            '"' => is_text = !is_text,
            OPEN if !is_text => quoted.push('"'),
            _ => {}
        }
        quoted.push(c);
        if c == CLOSE && !is_text {
            quoted.push('"');
        }
    }
    serde_json::from_str(&quoted).ok()
}

/// The base URL of a connection for the base of its requests: variables in it are settings. `value_of` gives what the
/// source says of a variable.
pub(super) fn settle_base(
    draft: &mut Draft,
    variables: &mut Variables,
    base: &str,
    value_of: &dyn Fn(&str) -> Option<String>,
) -> String {
    if let Some(name) = whole_variable(base) {
        let value = value_of(name).and_then(|value| whole_base(&value));
        let mut schema = json!({
            "type": "string", "format": "uri", "title": "Base URL",
            "description": format!("What paths are appended to; the variable `{name}` of the source."),
        });
        if let Some(value) = &value {
            schema["default"] = value.as_str().into();
        }
        let setting = draft.settings.add(name, schema, value.is_none());
        variables.sets(name, setting.clone());
        return text::pill("settings", &setting);
    }
    if base.split_once("://").is_some_and(|(scheme, _)| has_variables(scheme)) {
        // No setting can be a scheme.
        let values = pieces(base).into_iter().map(|piece| match piece {
            Piece::Text(text) => Some(text.to_owned()),
            Piece::Variable(name) => value_of(name),
        });
        let value = values.collect::<Option<String>>().and_then(|value| whole_base(&value));
        let description = format!("What paths are appended to. The source says {}.", shown(base));
        draft.asks_for_base_url(value.as_deref(), &description);
        return draft.spec.connection.base_url.take().unwrap_or_default();
    }
    let mut written = String::new();
    for piece in pieces(base) {
        match piece {
            Piece::Text(text) => written.push_str(&text::literal(text)),
            Piece::Variable(name) => {
                if variables.setting(name).is_none() {
                    let mut schema =
                        json!({"type": "string", "description": format!("The variable `{name}` of the source.")});
                    let value = value_of(name);
                    if let Some(value) = &value {
                        schema["default"] = value.as_str().into();
                    }
                    let setting = draft.settings.add(name, schema, value.is_none());
                    variables.sets(name, setting);
                }
                written.push_str(&text::pill("settings", variables.setting(name).unwrap_or_default()));
            }
        }
    }
    written
}

/// A variable's value as a base URL, when it is one.
fn whole_base(value: &str) -> Option<String> {
    let value = value.trim().trim_end_matches('/');
    let value = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let url = Url::parse(&value).ok()?;
    let is_base = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.query().is_none();
    (is_base && !has_variables(&value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_of_a_path_are_not_sent() {
        for (path, sent) in [
            ("/a/../b/./c", "/b/c"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../x", "/x"),
            ("/", "/"),
            ("/a//b/", "/a//b/"),
            ("/%2e%2E/a/%2e/b", "/a/b"),
            ("/a/...", "/a/..."),
        ] {
            assert_eq!(without_dots(path), sent, "{path}");
        }
        let url = take_apart("https://a.test/x/../y?q=red+shoes&r=%2B&s=%E9&t&=u").unwrap();
        assert_eq!(url.path, "/y");
        let query: Vec<(&str, &str)> = url.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(query, [("q", "red shoes"), ("r", "+"), ("s", "%E9"), ("t", ""), ("", "u")]);
    }
}
