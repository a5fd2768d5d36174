//! Servers of an OpenAPI document: where its API is.

use serde_json::{Value, json};
use url::Url;

use super::draft::Draft;
use super::{credentials, text};
use crate::limits;

/// A server with its variables.
#[derive(Debug)]
struct Server<'a> {
    url: &'a str,
    description: Option<&'a str>,
    variables: Option<&'a Value>,
}

fn servers(value: Option<&Value>) -> Vec<Server<'_>> {
    let servers = value.and_then(Value::as_array).into_iter().flatten().take(SERVERS_MAX);
    servers
        .filter_map(|server| {
            let url = server.get("url")?.as_str()?.trim();
            // Each operation may name one, or share one with all others.
            (url.len() <= limits::URI_MAX_BYTES).then(|| Server {
                url,
                description: text::field(server, "description"),
                variables: server.get("variables"),
            })
        })
        .collect()
}

/// Most servers that are looked at.
const SERVERS_MAX: usize = 50;

/// Puts the base URL of the document into the draft.
pub(super) fn settle(root: &Value, draft: &mut Draft) {
    let mut all = servers(root.get("servers"));
    // The same server over plain HTTP is no choice of its own.
    let secure: Vec<String> =
        all.iter().filter_map(|server| server.url.strip_prefix("https://")).map(str::to_owned).collect();
    all.retain(|server| {
        server.url.strip_prefix("http://").is_none_or(|rest| !secure.iter().any(|known| known == rest))
    });
    let about = |server: &Server<'_>| {
        let url = text::line(&without_credentials(server.url), 200).unwrap_or_default();
        match server.description.and_then(|text| text::line(text, 80)) {
            Some(text) => format!("{url} ({text})"),
            None => url,
        }
    };
    match all.as_slice() {
        [] => draft.asks_for_base_url(None, "What paths are appended to. The source does not say where the API is."),
        [only] => match only.base(draft) {
            Some(base) => draft.spec.connection.base_url = Some(base),
            None => only.asks(draft, &about(only)),
        },
        [first, others @ ..] => {
            let known = |servers: &[Server<'_>]| servers.iter().take(10).map(about).collect::<Vec<_>>().join(", ");
            // Its settings are better to give than a whole URL, and a connection may say its own.
            if first.variables.is_some()
                && pieces(first.url).len() > 1
                && let Some(base) = first.base(draft)
            {
                draft.spec.connection.base_url = Some(base);
                draft.notes.add(format!("other servers are left out: {}", known(others)), "");
                return;
            }
            let description = format!("What paths are appended to. The source names {}.", known(&all));
            let default = first.resolved();
            draft.asks_for_base_url(default.as_deref(), &description);
        }
    }
}

/// A URL as written, perhaps with variables, without a user and a password, and without a query, which may hold a key.
fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("//") else { return url.to_owned() };
    let authority = rest.find('/').unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{scheme}//{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

/// The base URL that an operation names for itself, without variables; none when it names none.
pub(super) fn own_base(value: Option<&Value>) -> Option<Result<String, ()>> {
    let servers = servers(value);
    let first = servers.iter().find(|server| server.url.starts_with("https://")).or(servers.first())?;
    Some(first.resolved().ok_or(()))
}

impl Server<'_> {
    /// Its URL with settings in the place of its variables; none when it is not one that a connection can have.
    fn base(&self, draft: &mut Draft) -> Option<String> {
        let pieces = pieces(self.url);
        if pieces.len() == 1 {
            return self.credentials_apart(draft);
        }
        self.can_hold_settings(&pieces)?;
        let mut base = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => base.push_str(&text::literal(text)),
                Piece::Variable(name) => {
                    let variable = self.variables.and_then(|variables| variables.get(name));
                    let (schema, is_required) = schema_of(name, variable);
                    let setting = draft.settings.add(name, schema, is_required);
                    base.push_str(&text::pill("settings", &setting));
                }
            }
        }
        Some(base.trim_end_matches('/').to_owned())
    }

    /// A URL without variables, its credentials left out.
    fn credentials_apart(&self, draft: &mut Draft) -> Option<String> {
        let mut url = Url::parse(self.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        if !url.username().is_empty() || url.password().is_some() {
            url.set_username("").ok()?;
            url.set_password(None).ok()?;
            draft.asks_for_account("basic", None, "User and password of HTTP Basic.");
        }
        plain_base(url)
    }

    /// Whether every variable stands where a setting can: in the host or in a segment of the path, never in the scheme,
    /// and with a default that gives no path of its own.
    fn can_hold_settings(&self, pieces: &[Piece<'_>]) -> Option<()> {
        let Some(Piece::Text(first)) = pieces.first() else { return None };
        let host = first.strip_prefix("https://").or_else(|| first.strip_prefix("http://"))?;
        let is_fit = |piece: &Piece<'_>| match piece {
            Piece::Text(text) => !text.contains(['?', '#', '@']),
            Piece::Variable(name) => {
                let default = self.variables.and_then(|variables| variables.get(name)?.get("default")).map(text::of);
                default.is_none_or(|text| !text.is_empty() && !text.contains(['/', ':', '?', '#']))
            }
        };
        (!host.contains('@') && pieces.iter().all(is_fit)).then_some(())
    }

    /// Its URL with defaults in the place of its variables, when it is a whole one.
    fn resolved(&self) -> Option<String> {
        let mut whole = String::new();
        for piece in pieces(self.url) {
            match piece {
                Piece::Text(text) => whole.push_str(text),
                Piece::Variable(name) => {
                    let variable = self.variables.and_then(|variables| variables.get(name))?;
                    let default = variable.get("default").filter(|_| !is_secret(name, Some(variable)))?;
                    whole.push_str(&text::of(default));
                }
            }
        }
        if whole.len() > limits::URI_MAX_BYTES {
            return None;
        }
        let url = Url::parse(&whole).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if has_credentials { None } else { plain_base(url) }
    }

    /// Asks for the base URL, because this one is not whole.
    fn asks(&self, draft: &mut Draft, about: &str) {
        let default = self.resolved();
        let description = if self.url.starts_with('/') || self.url.is_empty() {
            format!(
                "What paths are appended to. The source says only the path of the API: {}",
                if about.is_empty() { "/" } else { about }
            )
        } else {
            format!("What paths are appended to. The source says {about}")
        };
        draft.asks_for_base_url(default.as_deref(), &description);
    }
}

/// A base URL as people write it.
fn plain_base(mut url: Url) -> Option<String> {
    url.set_query(None);
    url.set_fragment(None);
    url.host_str()?;
    Some(url.as_str().trim_end_matches('/').to_owned())
}

/// Whether a variable is one for a secret, whose default stays behind.
fn is_secret(name: &str, variable: Option<&Value>) -> bool {
    let default = variable.and_then(|variable| variable.get("default")).map(text::of);
    credentials::is_secret_parameter(name) || default.is_some_and(|default| credentials::is_secret_segment(&default))
}

/// The schema of the setting for a variable, and whether it must be given.
fn schema_of(name: &str, variable: Option<&Value>) -> (Value, bool) {
    let get = |field: &str| variable.and_then(|variable| variable.get(field));
    let mut schema = json!({"type": "string"});
    if let Some(text) = get("description").and_then(Value::as_str).and_then(|text| text::plain(text, 300)) {
        schema["description"] = text.into();
    }
    if is_secret(name, variable) {
        return (schema, true);
    }
    let default = get("default").map(text::of);
    let values = get("enum").and_then(Value::as_array).into_iter().flatten().take(100).map(text::of);
    let values: Vec<String> = values.collect();
    if !values.is_empty() && default.as_ref().is_none_or(|default| values.contains(default)) {
        schema["enum"] = json!(values);
    }
    let is_required = default.is_none();
    if let Some(default) = default {
        schema["default"] = default.into();
    }
    (schema, is_required)
}

/// A piece of a URL or a path with variables in braces.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// As it is.
    Text(&'a str),
    /// The name of a variable.
    Variable(&'a str),
}

/// Takes a URL or a path apart. An empty text is one piece.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(Piece::Variable(name));
        rest = after;
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}
