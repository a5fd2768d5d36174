//! Imports: what others wrote down of an API becomes a connector document.
//!
//! A source is an OpenAPI document (3.0, 3.1) or a Swagger document (2.0), one or several curl commands, or a Postman
//! collection (2.0, 2.1). It is read leniently: what is wrong with one operation does not lose the others. What comes
//! out compiles, whatever went in: what cannot be expressed is left out, and a [`Note`] says so. What the source does
//! not say is asked for as a setting or an input, never made up. Secrets of the source do not get into the document.
//!
//! Nothing is fetched. Work grows with the length of the source, and the document is never longer than
//! [`limits::IMPORTED_BYTES`].

mod credentials;
mod curl;
mod draft;
mod example;
mod json;
mod note;
mod only;
mod openapi;
mod operation;
mod postman;
mod schema;
mod security;
mod servers;
mod shell;
mod swagger;
mod text;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::draft::{Draft, Parts};
pub use self::note::Note;
use self::note::Notes;
use self::only::Only;
use crate::connector::{Connector, ConnectorSpec, PATTERNS_TOO_LARGE};
use crate::document::Kind;
use crate::fault::Fault;
use crate::limits;
use crate::name::Name;
use crate::yaml::Repeated;

/// The name that no connector has: that of the operation itself, `POST /api/v1/connectors/import`.
pub(crate) const RESERVED: &str = "import";

/// What to import, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportSpec {
    /// The text: JSON or YAML of a document or a collection, or curl commands.
    pub source: String,
    /// What it is; left out: as it looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The name of the connector; left out: made of the source's title or host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Only the operations that one of these patterns names; none: all. A pattern is an operation's id, an action's
    /// name, a tag or a folder, or `METHOD /path`; `*` stands for anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
}

/// A kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// OpenAPI 3.0 or 3.1, or Swagger 2.0, as JSON or YAML.
    OpenApi,
    /// One or several curl commands.
    Curl,
    /// A Postman collection of format 2.0 or 2.1.
    Postman,
}

/// What came of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Imported {
    /// The connector document: `kind`, `name`, `spec`.
    pub document: Value,
    /// What was left out, changed or has to be given, and where.
    pub notes: Vec<Note>,
}

impl ImportSpec {
    /// Makes a connector document of the source.
    ///
    /// # Errors
    /// The source as a whole cannot be read, nothing of it is left, or the connector would be too large.
    pub fn import(&self) -> Result<Imported, Fault> {
        if self.source.len() > limits::IMPORT_SOURCE_BYTES {
            let reason = format!("a source is at most {} MiB long", limits::IMPORT_SOURCE_BYTES >> 20);
            return Err(Fault::new("source", reason));
        }
        if self.name.as_ref().is_some_and(|name| name.as_str() == RESERVED) {
            return Err(Fault::new("name", format_args!("`{RESERVED}` is a word of the API; take another name")));
        }
        let only = Only::read(&self.only)?;
        let mut repeated = Vec::new();
        let mut draft = match self.read(&mut repeated)? {
            Source::Curl => curl::read(&self.source, &only),
            Source::OpenApi(root) => openapi::read(root, &only),
            Source::Postman(root) => postman::read(&root, &only),
        }?;
        if let Some(fault) = only.unused() {
            return Err(fault);
        }
        for Repeated { key, line } in repeated {
            let text = "a key stands twice in one object: what both say is joined where it does not clash, else the last counts";
            draft.notes.add(text, &line.map_or_else(|| key.clone(), |line| format!("{key} (line {line})")));
        }
        finish(draft, self.name.as_ref())
    }

    fn read(&self, repeated: &mut Vec<Repeated>) -> Result<Source, Fault> {
        let text = self.source.trim_start_matches('\u{feff}');
        let is_curl = self.format.map_or_else(|| curl::looks_like(text), |format| format == Format::Curl);
        if is_curl {
            return Ok(Source::Curl);
        }
        let root = text::parse(text, repeated)?;
        let looks = if root.get("openapi").is_some() || root.get("swagger").is_some() {
            Some(Format::OpenApi)
        } else if postman::looks_like(&root) {
            Some(Format::Postman)
        } else {
            None
        };
        match self.format.or(looks) {
            Some(Format::OpenApi) => Ok(Source::OpenApi(root)),
            Some(Format::Postman) => Ok(Source::Postman(root)),
            Some(Format::Curl) => Ok(Source::Curl),
            None => Err(Fault::new(
                "source",
                "this is no OpenAPI or Swagger document (a field `openapi` or `swagger`), no Postman collection and no curl command",
            )),
        }
    }
}

/// A source whose text was read.
enum Source {
    OpenApi(Value),
    Postman(Value),
    Curl,
}

/// The document of a draft. What does not compile is mended or left out.
fn finish(draft: Draft, name: Option<&Name>) -> Result<Imported, Fault> {
    let Parts { name: wanted, mut spec, description, labels, mut notes } = draft.into_parts();
    // Before it is compiled, which takes many times its length.
    if text::weight(&spec) > limits::IMPORTED_BYTES {
        return Err(too_large());
    }
    mend(&mut spec, &mut notes)?;
    if spec.actions.is_empty() {
        let notes = notes.into_notes();
        // What speaks of an operation as a whole, before what speaks of a part.
        let whole = notes.iter().find(|note| note.text.starts_with("left out"));
        return Err(match whole.or_else(|| notes.iter().find(|note| note.text.contains("left out"))) {
            Some(note) => Fault::new("source", "it has no operations that can be actions").hint(note.to_string()),
            None => Fault::new("source", "it has no operations"),
        });
    }
    let name = name.map_or(wanted, |name| name.as_str().to_owned());
    let name = if name == RESERVED { format!("{name}-api") } else { name };
    let mut document = serde_json::Map::new();
    document.insert("kind".to_owned(), Kind::Connector.as_str().into());
    document.insert("name".to_owned(), name.into());
    if let Some(description) = description {
        document.insert("description".to_owned(), description.into());
    }
    if !labels.is_empty() {
        document.insert("labels".to_owned(), labels.into());
    }
    document.insert("spec".to_owned(), serde_json::to_value(&spec).unwrap_or_default());
    let document = Value::Object(document);
    if text::weight(&document) > limits::IMPORTED_BYTES {
        return Err(too_large());
    }
    Ok(Imported { document, notes: notes.into_notes() })
}

/// That the connector would be longer than what can be applied.
fn too_large() -> Fault {
    let reason =
        format!("the connector would be larger than the {} MiB that can be applied", limits::IMPORTED_BYTES >> 20);
    Fault::new("source", reason).hint("pick the operations that you need with `only`")
}

/// Leaves out what does not compile: patterns first, where an input is at fault, then actions.
fn mend(spec: &mut ConnectorSpec, notes: &mut Notes) -> Result<(), Fault> {
    for turn in 0..3 {
        let Err(faults) = Connector::compile(spec.clone()) else { return Ok(()) };
        for fault in &faults {
            let Some(place) = fault.path.strip_prefix("actions.") else {
                return Err(Fault::new("source", format_args!("the connector does not compile: {fault}")));
            };
            let (name, place) = place.split_once('.').unwrap_or((place, ""));
            let input = spec.actions.get_mut(name).and_then(|action| action.input.as_mut());
            if turn == 0 && place.starts_with("input") && input.is_some_and(schema::drop_patterns) {
                let note = match fault.reason.contains(PATTERNS_TOO_LARGE) {
                    true => "patterns are left out: repetitions multiply, and these are too large to be compiled",
                    false => "a pattern that looks around or back is left out: patterns run in linear time",
                };
                notes.add(note, name);
            } else if spec.actions.shift_remove(name).is_some() {
                notes.add(format!("left out, because it does not compile: {place}: {}", fault.reason), name);
            }
        }
    }
    Err(Fault::new("source", "the connector does not compile"))
}

#[cfg(test)]
mod tests;
