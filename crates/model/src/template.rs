//! Templates: text with pills, `{{ … }}`, and the expressions in them.
//!
//! Guarantees: expressions only (no statements, functions, globals, loaders or includes), over a lazy view
//! of the data; work, output and memory are bounded by [`crate::limits`]; what a pill gives is never
//! evaluated again; a plain path gives back the very value, numbers as they were written; in a URL a pill
//! stays within the part where it stands, in a header within the line. A missing path is an error that says
//! where and what was probably meant, except in a condition and behind `default` or `coalesce`, where it is
//! null.
//!
//! A text that is one whole pill keeps the type of its value. A path through a list takes the list's first
//! item, the name of a list alone the whole list.

mod filters;
mod parse;
mod scope;

use std::error::Error as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use http::HeaderValue;
use minijinja::value::{Object, ObjectRepr, Rest};
use minijinja::{Environment, ErrorKind, State};
use percent_encoding::{AsciiSet, utf8_percent_encode};
use serde_json::Value;

pub(crate) use self::filters::COMPONENT;
use self::filters::{Filter, Run, Work};
pub use self::parse::TemplateError;
use self::parse::{Place, Slot, scan};
use self::scope::Node;
pub use self::scope::{Pill, Scope, Segment, headers_value};
use crate::limits;

/// Text with pills.
#[derive(Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Pill(Program),
}

/// An expression that stands alone, without braces, such as a condition. A missing path is null in it.
#[derive(Debug)]
pub struct Expression {
    program: Program,
}

/// Why a template gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {}{reason}{}", about(.pill.as_deref()), meant(.near.as_deref()))]
pub struct RenderError {
    /// Where in the text, in characters from 1.
    pub column: usize,
    /// The path that is missing, when one is.
    pub pill: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// A path that exists and that was probably meant.
    pub near: Option<String>,
}

fn about(pill: Option<&str>) -> String {
    pill.map(|pill| format!("pill \"{pill}\" ")).unwrap_or_default()
}

fn meant(near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean \"{near}\"?)")).unwrap_or_default()
}

impl RenderError {
    fn new(column: usize, reason: impl Into<String>) -> Self {
        Self { column, pill: None, reason: reason.into(), near: None }
    }

    /// Dotted slug: `template.unknown_pill` or `template.failed`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        if self.pill.is_some() { "template.unknown_pill" } else { "template.failed" }
    }
}

impl Template {
    /// Reads a text; `{{` begins a pill, everything else is text.
    ///
    /// # Errors
    /// Where and why an expression in it cannot be read.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut place = Place::START;
        while let Some(found) = text[place.at..].find("{{") {
            let open = place.at + found;
            if found > 0 {
                parts.push(Part::Text(text[place.at..open].to_owned()));
            }
            let (program, end) = Program::read(text, place.ahead(text, open + 2), Leniency::Strict)?;
            if !text[end.at..].starts_with("}}") {
                return Err(TemplateError { column: end.column, reason: unexpected(&text[end.at..], "`}}`") });
            }
            parts.push(Part::Pill(program));
            place = end.ahead(text, end.at + 2);
        }
        if place.at < text.len() {
            parts.push(Part::Text(text[place.at..].to_owned()));
        }
        Ok(Self { parts })
    }

    /// The plain paths that it names, in order.
    pub fn pills(&self) -> impl Iterator<Item = &Pill> {
        self.programs().flat_map(Program::pills)
    }

    /// Whether it is one whole pill, which keeps the type of its value.
    #[must_use]
    pub fn is_whole_pill(&self) -> bool {
        self.whole().is_some()
    }

    /// Whether it is nothing but a pill that names what was not given, perhaps with filters behind it.
    pub(crate) fn is_absent(&self, scope: &Scope) -> bool {
        let pill = self.whole().and_then(Program::subject);
        pill.is_some_and(|pill| !pill.lenient && scope.is_absent(pill))
    }

    /// The text itself, when it holds no pill.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// What it gives as JSON: the value of a whole pill, else a text.
    ///
    /// # Errors
    /// Where and why a pill gives nothing.
    pub fn render_value(&self, scope: &Scope) -> Result<Value, RenderError> {
        match self.whole() {
            Some(program) => program.value(scope),
            None => self.render_text(scope).map(Value::String),
        }
    }

    /// What it gives as text: null is empty, numbers are as written, lists and objects are JSON.
    ///
    /// # Errors
    /// Where and why a pill gives nothing.
    pub fn render_text(&self, scope: &Scope) -> Result<String, RenderError> {
        self.render_escaped(scope, |text| Ok(text.to_owned()))
    }

    /// The items of a whole pill that joins a list, and what stands between them: where the two are told apart, as in a
    /// query. Nothing for any other pill.
    ///
    /// # Errors
    /// Where and why the pill gives nothing.
    pub(crate) fn joined(&self, scope: &Scope) -> Result<Option<Joined>, RenderError> {
        self.whole().map_or(Ok(None), |program| program.joined(scope))
    }

    /// What it gives as text, with every pill passed through `escape`.
    ///
    /// # Errors
    /// As [`Template::render_text`], and when `escape` says that a pill's text cannot stand there.
    pub(crate) fn render_escaped(
        &self,
        scope: &Scope,
        escape: impl Fn(&str) -> Result<String, String>,
    ) -> Result<String, RenderError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => append(&mut out, text, 1)?,
                Part::Pill(program) => program.with_value(scope, |value| {
                    // Before a text is made of it: the JSON of a tree is far shorter than this.
                    if filters::weight(value, CONTAINER_WEIGHT) > CONTAINER_WEIGHT {
                        return Err(too_long(program.column));
                    }
                    let text =
                        escape(&filters::text_of(value)).map_err(|reason| RenderError::new(program.column, reason))?;
                    append(&mut out, &text, program.column)
                })?,
            }
        }
        Ok(out)
    }

    /// What it gives as the value of a header.
    ///
    /// # Errors
    /// As [`Template::render_text`], and when the value would hold a control character such as a line break.
    pub fn render_header(&self, scope: &Scope) -> Result<HeaderValue, RenderError> {
        let text = self.render_text(scope)?;
        HeaderValue::from_bytes(text.trim().as_bytes()).map_err(|_| {
            RenderError::new(self.first_column(), "a header value holds no line breaks or other control characters")
        })
    }

    /// What it gives as a path, perhaps with a query: pills are percent-encoded by their position.
    ///
    /// # Errors
    /// As [`Template::render_text`], and when a pill would be an empty or a dot segment.
    pub fn render_url_path(&self, scope: &Scope) -> Result<String, RenderError> {
        self.render_encoded(scope, Position::Path)
    }

    /// What it gives as a whole URL: one that is a single pill is taken as it comes, otherwise pills are
    /// percent-encoded by their position.
    ///
    /// # Errors
    /// As [`Template::render_url_path`], and when a pill would decide the scheme or change the host.
    pub fn render_url(&self, scope: &Scope) -> Result<String, RenderError> {
        if self.is_whole_pill() { self.render_text(scope) } else { self.render_encoded(scope, Position::Scheme) }
    }

    /// What is wrong with its own text as a path.
    pub(crate) fn path_fault(&self) -> Option<TemplateError> {
        self.url_fault_from(Position::Path)
    }

    /// What is wrong with its own text as a whole URL.
    pub(crate) fn url_fault(&self) -> Option<TemplateError> {
        if self.is_whole_pill() { None } else { self.url_fault_from(Position::Scheme) }
    }

    fn url_fault_from(&self, mut position: Position) -> Option<TemplateError> {
        let fault = |column, reason: &str| Some(TemplateError { column, reason: reason.to_owned() });
        let mut skeleton = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => {
                    if text.contains(|c: char| c == '\\' || c.is_control()) {
                        return fault(1, "a URL holds no backslashes and no control characters");
                    }
                    if text.contains('#') {
                        return fault(1, "a fragment is never sent; leave `#` out, or write %23");
                    }
                    skeleton.push_str(text);
                    position = position.after(text);
                }
                Part::Pill(program) if position == Position::Scheme => {
                    return fault(program.column, SCHEME_REASON);
                }
                // Stands for what cannot be a dot segment.
                Part::Pill(_) => skeleton.push('x'),
            }
        }
        if position == Position::Scheme {
            return fault(1, "a whole URL begins with https:// or http://");
        }
        has_dot_segment(&skeleton).then(|| TemplateError { column: 1, reason: DOT_REASON.to_owned() })
    }

    fn render_encoded(&self, scope: &Scope, start: Position) -> Result<String, RenderError> {
        let mut position = start;
        let mut out = String::new();
        for part in &self.parts {
            let program = match part {
                Part::Text(text) => {
                    append(&mut out, text, 1)?;
                    position = position.after(text);
                    continue;
                }
                Part::Pill(program) => program,
            };
            if matches!(position, Position::Path | Position::Query)
                && let Some(joined) = program.joined(scope)?
                && !joined.is_empty()
            {
                append(&mut out, &joined.encoded(), program.column)?;
                continue;
            }
            let value = program.value(scope)?;
            let text = filters::text_of(&value);
            let fail = |reason: &str| Err(RenderError::new(program.column, reason));
            match position {
                Position::Scheme => return fail(SCHEME_REASON),
                Position::Host if !is_host(&text) => {
                    return fail("a pill in a host may give letters, digits, dots and hyphens only");
                }
                Position::Path if text.is_empty() => {
                    return fail("this pill is empty, and the path without it could name something else");
                }
                _ => {}
            }
            append(&mut out, &utf8_percent_encode(&text, filters::COMPONENT).to_string(), program.column)?;
        }
        if has_dot_segment(&out) {
            return Err(RenderError::new(self.first_column(), DOT_REASON));
        }
        Ok(out)
    }

    fn programs(&self) -> impl Iterator<Item = &Program> {
        self.parts.iter().filter_map(|part| match part {
            Part::Pill(program) => Some(program),
            Part::Text(_) => None,
        })
    }

    fn whole(&self) -> Option<&Program> {
        match self.parts.as_slice() {
            [Part::Pill(program)] => Some(program),
            _ => None,
        }
    }

    fn first_column(&self) -> usize {
        self.programs().next().map_or(1, |program| program.column)
    }
}

/// Heaviest value that a text is made of.
const CONTAINER_WEIGHT: usize = 16 * limits::RENDERED_BYTES;

/// About the memory that a value takes in bytes, counted up to `limit`.
pub(crate) fn weight(value: &Value, limit: usize) -> usize {
    filters::weight(value, limit)
}

/// A value as text: null is empty, numbers are as written, lists and objects are JSON.
pub(crate) fn text_of(value: &Value) -> std::borrow::Cow<'_, str> {
    filters::text_of(value)
}

fn append(out: &mut String, text: &str, column: usize) -> Result<(), RenderError> {
    if out.len() + text.len() > limits::RENDERED_BYTES {
        return Err(too_long(column));
    }
    out.push_str(text);
    Ok(())
}

fn too_long(column: usize) -> RenderError {
    RenderError::new(column, "the text would be longer than 1 MiB")
}

fn unexpected(rest: &str, wanted: &str) -> String {
    match rest.chars().next() {
        None => format!("{wanted} is missing at the end"),
        Some(c) => format!("unexpected `{c}`; {wanted} or an operator belongs here"),
    }
}

impl Expression {
    /// Reads an expression, with or without braces round it.
    ///
    /// # Errors
    /// Where and why it cannot be read.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let start = text.len() - text.trim_start().len();
        let braced = text[start..].starts_with("{{");
        let start = if braced { start + 2 } else { start };
        let (program, end) = Program::read(text, Place::START.ahead(text, start), Leniency::Lenient)?;
        let rest = &text[end.at..];
        let (after, wanted) = if braced { (rest.strip_prefix("}}"), "`}}`") } else { (Some(rest), "the end") };
        match after {
            Some(after) if after.trim().is_empty() => Ok(Self { program }),
            _ => Err(TemplateError { column: end.column, reason: unexpected(rest, wanted) }),
        }
    }

    /// The plain paths that it names, in order.
    pub fn pills(&self) -> impl Iterator<Item = &Pill> {
        self.program.pills()
    }

    /// What it gives.
    ///
    /// # Errors
    /// Where and why it gives nothing.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, RenderError> {
        self.program.value(scope)
    }

    /// Whether it holds: gives anything but null, false, zero or what is empty.
    ///
    /// # Errors
    /// Where and why it gives nothing.
    pub fn holds(&self, scope: &Scope) -> Result<bool, RenderError> {
        self.program.with_value(scope, |value| Ok(filters::is_true(value)))
    }
}

/// A list that is one text in a URL or a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    items: Vec<String>,
    separator: String,
}

impl Joined {
    fn is_empty(&self) -> bool {
        self.items.iter().all(String::is_empty)
    }

    /// The text, percent-encoded: the separator is none of an item's characters, so a comma in an item is encoded and
    /// the one between two items is not (RFC 6570, section 3.2.1; RFC 3986, section 2.2).
    pub(crate) fn encoded(&self) -> String {
        let encode = |text: &String| utf8_percent_encode(text, filters::COMPONENT).to_string();
        let items: Vec<String> = self.items.iter().map(encode).collect();
        items.join(&utf8_percent_encode(&self.separator, SEPARATOR).to_string())
    }

    /// The text as it is.
    pub(crate) fn text(&self) -> String {
        self.items.join(&self.separator)
    }
}

/// What is encoded of a separator: all but the delimiters that mean nothing in a path's segment or a query by themselves.
const SEPARATOR: &AsciiSet = &filters::COMPONENT.remove(b',').remove(b';').remove(b'=');

/// Where in a URL a pill stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Scheme,
    Host,
    Path,
    Query,
}

impl Position {
    /// The position behind `text`.
    fn after(self, text: &str) -> Self {
        match self {
            Self::Scheme => match text.split_once("://") {
                Some((_, rest)) => Self::Host.after(rest),
                None => Self::Scheme,
            },
            Self::Host => match text.find(['/', '?']) {
                Some(at) => Self::Path.after(&text[at..]),
                None => Self::Host,
            },
            Self::Path if text.contains('?') => Self::Query,
            Self::Path | Self::Query => self,
        }
    }
}

const SCHEME_REASON: &str = "a pill cannot decide where a URL leads; begin with https://, or let one pill be the whole";
const DOT_REASON: &str = "a path cannot hold `.` or `..` as a segment";

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

/// Whether a path, perhaps with a query or as a whole URL, holds `.` or `..`, written plainly or encoded.
fn has_dot_segment(url: &str) -> bool {
    let path = url.split('?').next().unwrap_or_default();
    path.split(['/', '\\']).any(|segment| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    })
}

/// Whether a missing path is null.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leniency {
    Strict,
    Lenient,
}

/// A compiled expression.
struct Program {
    code: minijinja::Expression<'static, 'static>,
    slots: Arc<[Slot]>,
    /// The expression is this path and nothing else.
    plain: Option<Pill>,
    /// The expression is a path with filters behind it: the first of the slots.
    is_filtered: bool,
    /// What gives the list that the expression joins by its last filter, and the separator.
    list: Option<Box<(Self, String)>>,
    column: usize,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.pills().map(ToString::to_string)).finish()
    }
}

/// An expression that ends in `| join('x')`, in front of that and the separator.
fn split_join(expression: &str) -> Option<(&str, String)> {
    let (before, last) = expression.rsplit_once('|')?;
    // A separator that is a bar itself.
    let (before, last) = match last.trim_start().strip_prefix("join") {
        Some(_) => (before, last),
        None => {
            let at = before.rfind('|')?;
            (&expression[..at], &expression[at + 1..])
        }
    };
    let argument = last.trim().strip_prefix("join")?.trim_start().strip_prefix('(')?.strip_suffix(')')?.trim();
    let quote = argument.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let inner = argument.get(1..)?.strip_suffix(quote)?;
    let separator = if inner == "\\t" { "\t" } else { inner };
    (!separator.contains(['\\', '\'', '"', '\n'])).then(|| (before, separator.to_owned()))
}

/// An empty environment but for our filters.
static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::empty();
    engine.set_fuel(Some(limits::EXPRESSION_FUEL));
    for filter in filters::all() {
        engine.add_filter(filter.name, move |state: &State, arguments: Rest<minijinja::Value>| {
            apply(filter, state, &arguments)
        });
    }
    engine
});

impl Program {
    /// Reads the expression at `start` of `text`; gives the place behind it too.
    fn read(text: &str, start: Place, leniency: Leniency) -> Result<(Self, Place), TemplateError> {
        let scanned = scan(text, start, leniency == Leniency::Lenient)?;
        let rest = &text[start.at..];
        let column = start.ahead(text, text.len() - rest.trim_start().len()).column;
        if scanned.end.at - start.at > limits::EXPRESSION_BYTES {
            return Err(TemplateError { column, reason: "an expression is at most 4 KiB long".to_owned() });
        }
        // What the scanner writes, the engine reads; if ever not, it is the author's expression that fails.
        let is_path = scanned.code == "v0";
        // Operators and tests are filters too, by names that no author can write.
        let is_filtered =
            scanned.code.starts_with("v0|") && !["|op_", "|is_"].iter().any(|sign| scanned.code.contains(sign));
        let code = ENGINE
            .compile_expression_owned(scanned.code)
            .map_err(|error| TemplateError { column, reason: format!("cannot be compiled: {error}") })?;
        let plain = match scanned.slots.as_slice() {
            [Slot::Pill(pill)] if is_path => Some(pill.clone()),
            _ => None,
        };
        let list = match is_filtered.then(|| split_join(&text[start.at..scanned.end.at])).flatten() {
            Some((before, separator)) => {
                let end = start.at + before.len();
                let (program, _) = Self::read(&text[..end], start, leniency)?;
                Some(Box::new((program, separator)))
            }
            None => None,
        };
        Ok((Self { code, slots: scanned.slots.into(), plain, is_filtered, list, column }, scanned.end))
    }

    /// The items that it joins; nothing when it does not, or what it joins is no list of scalars.
    fn joined(&self, scope: &Scope) -> Result<Option<Joined>, RenderError> {
        let Some((list, separator)) = self.list.as_deref() else { return Ok(None) };
        list.with_value(scope, |value| {
            let Value::Array(items) = value else { return Ok(None) };
            if items.iter().any(|item| item.is_array() || item.is_object()) {
                return Ok(None);
            }
            let mut length = 0;
            let mut texts = Vec::with_capacity(items.len());
            for item in items {
                let text = filters::text_of(item).into_owned();
                length += text.len() + separator.len();
                if length > limits::RENDERED_BYTES {
                    return Err(too_long(self.column));
                }
                texts.push(text);
            }
            Ok(Some(Joined { items: texts, separator: separator.clone() }))
        })
    }

    /// The path that it names, when it is nothing else but filters behind it.
    fn subject(&self) -> Option<&Pill> {
        match self.slots.first() {
            Some(Slot::Pill(pill)) if self.is_filtered || self.plain.is_some() => Some(pill),
            _ => None,
        }
    }

    fn pills(&self) -> impl Iterator<Item = &Pill> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Pill(pill) => Some(pill),
            Slot::Constant(_) => None,
        })
    }

    fn value(&self, scope: &Scope) -> Result<Value, RenderError> {
        self.with_value(scope, |value| {
            // A plain path gives what is there, but one template cannot multiply it.
            let most = usize::try_from(limits::BODY_MAX_BYTES).unwrap_or(usize::MAX);
            if filters::weight(value, most) > most {
                return Err(RenderError::new(self.column, "the value would be larger than 64 MiB"));
            }
            Ok(value.clone())
        })
    }

    fn with_value<T>(
        &self,
        scope: &Scope,
        take: impl FnOnce(&Value) -> Result<T, RenderError>,
    ) -> Result<T, RenderError> {
        match &self.plain {
            Some(pill) => take(look_up(scope, pill)?.value()),
            None => take(self.evaluate(scope)?.value()),
        }
    }

    fn evaluate(&self, scope: &Scope) -> Result<Node, RenderError> {
        let frame = Arc::new(Frame { slots: Arc::clone(&self.slots), scope: scope.clone(), missing: Mutex::new(None) });
        let outcome = self.code.eval(minijinja::Value::from_dyn_object(Arc::clone(&frame)));
        // The first missing pill is the cause of whatever happened later.
        if let Some(missing) = frame.missing.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(missing);
        }
        match outcome {
            Ok(value) => Ok(node(&value)),
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn failure(&self, error: &minijinja::Error) -> RenderError {
        if error.kind() == ErrorKind::OutOfFuel {
            return RenderError::new(self.column, "this expression takes too much work on this data");
        }
        match error.source().and_then(|source| source.downcast_ref::<RenderError>()) {
            Some(error) => error.clone(),
            None => RenderError::new(self.column, error.to_string()),
        }
    }
}

fn look_up(scope: &Scope, pill: &Pill) -> Result<Node, RenderError> {
    match scope.find(pill) {
        Ok(node) => Ok(node),
        Err(_) if pill.lenient => Ok(Node::new(Arc::new(Value::Null))),
        Err(missing) => Err(RenderError {
            column: pill.column,
            pill: Some(pill.to_string()),
            reason: missing.reason.unwrap_or_else(|| "is not in the data".to_owned()),
            near: missing.near,
        }),
    }
}

/// The variables of one evaluation.
#[derive(Debug)]
struct Frame {
    slots: Arc<[Slot]>,
    scope: Scope,
    /// The first path that was not there.
    missing: Mutex<Option<RenderError>>,
}

impl Object for Frame {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<minijinja::Value> {
        let slot = self.slots.get(name.strip_prefix('v')?.parse::<usize>().ok()?)?;
        let node = match slot {
            Slot::Constant(value) => Node::new(Arc::clone(value)),
            Slot::Pill(pill) => look_up(&self.scope, pill).unwrap_or_else(|error| {
                self.missing.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                Node::new(Arc::new(Value::Null))
            }),
        };
        Some(minijinja::Value::from_object(node))
    }
}

impl Object for Node {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        filters::is_true(self.value())
    }
}

/// What the engine hands round, as ours: all values are nodes, but for the truth values of `not`.
fn node(value: &minijinja::Value) -> Node {
    value.downcast_object_ref::<Node>().cloned().unwrap_or_else(|| Node::new(Arc::new(Value::Bool(value.is_true()))))
}

/// Runs a filter: its subject, the column where it stands, its arguments.
fn apply(
    filter: &'static Filter,
    state: &State,
    given: &[minijinja::Value],
) -> Result<minijinja::Value, minijinja::Error> {
    let column = given.get(1).and_then(minijinja::Value::as_usize).unwrap_or(1);
    let fail = |reason: String| {
        let reason = match filter.name.strip_prefix("op_") {
            Some(_) => reason,
            None => format!("`{}` {reason}", filter.name.trim_start_matches("is_")),
        };
        let error = RenderError::new(column, reason);
        minijinja::Error::new(ErrorKind::InvalidOperation, "filter failed").with_source(error)
    };
    // Values are found by their path each time, whose keys may be long.
    let paths = given.iter().filter_map(|value| value.downcast_object_ref::<Node>()).map(Node::path_bytes).sum();
    pay_read(state, paths)?;
    let nodes: Vec<Node> = given.iter().enumerate().filter(|(n, _)| *n != 1).map(|(_, value)| node(value)).collect();
    let values: Vec<&Value> = nodes.iter().map(Node::value).collect();
    let outcome = match filter.run {
        Run::Pick(pick) => return Ok(minijinja::Value::from_object(nodes[pick(&values)].clone())),
        Run::At => {
            // It is hashed, and may be longer than all keys of the object.
            pay_read(state, values[1].as_str().map_or(0, str::len))?;
            return Ok(minijinja::Value::from_object(nodes[0].child(values[1])));
        }
        Run::Full(_) | Run::Paid(_) if values[0].is_null() => Ok(Value::Null),
        Run::Search(run) => with_work(state, |work| run(&values, work))?,
        Run::Full(run) | Run::Any(run) => {
            if !is_light(state, &values)? {
                return Err(fail(TOO_HEAVY.to_owned()));
            }
            run(&values)
        }
        Run::Paid(run) => {
            if !is_light(state, &values)? {
                return Err(fail(TOO_HEAVY.to_owned()));
            }
            with_work(state, |work| run(&values, work))?
        }
    };
    let value = outcome.map_err(fail)?;
    let weight = filters::weight(&value, OUTPUT_WEIGHT);
    pay(state, weight)?;
    if weight > OUTPUT_WEIGHT || value.as_str().is_some_and(|text| text.len() > limits::RENDERED_BYTES) {
        return Err(fail("gives more than 1 MiB".to_owned()));
    }
    Ok(minijinja::Value::from_object(Node::new(Arc::new(value))))
}

/// Heaviest output of a filter: what its text may take, with room for the values of a list.
const OUTPUT_WEIGHT: usize = 4 * limits::RENDERED_BYTES;

const TOO_HEAVY: &str = "works on at most 1 MiB";

/// Bytes that one unit of fuel pays for, where values are worked on and made.
const BYTES_PER_FUEL: usize = per_fuel(limits::EXPRESSION_MADE_BYTES);

/// Bytes that one unit of fuel pays for, where values are only looked at.
const BYTES_PER_FUEL_READ: usize = per_fuel(limits::EXPRESSION_READ_BYTES);

#[expect(clippy::cast_possible_truncation, reason = "the fuel of an expression is a small number")]
const fn per_fuel(bytes: usize) -> usize {
    bytes / limits::EXPRESSION_FUEL as usize
}

fn pay(state: &State, weight: usize) -> Result<(), minijinja::Error> {
    state.consume_fuel(u64::try_from(weight / BYTES_PER_FUEL).unwrap_or(u64::MAX))
}

fn pay_read(state: &State, bytes: usize) -> Result<(), minijinja::Error> {
    state.consume_fuel(u64::try_from(bytes / BYTES_PER_FUEL_READ).unwrap_or(u64::MAX))
}

/// Pays for values that are worked on; whether they are light enough for that.
fn is_light(state: &State, values: &[&Value]) -> Result<bool, minijinja::Error> {
    let mut weight = 0;
    for value in values {
        weight += filters::weight(value, limits::RENDERED_BYTES);
        pay(state, weight)?;
    }
    Ok(weight <= 2 * limits::RENDERED_BYTES)
}

/// Runs what looks at values, with what is left of the fuel.
fn with_work<T>(state: &State, run: impl FnOnce(&Work) -> T) -> Result<T, minijinja::Error> {
    let fuel = state.fuel_levels().map_or(0, |(_, left)| usize::try_from(left).unwrap_or(usize::MAX));
    let bytes = fuel.saturating_mul(BYTES_PER_FUEL_READ);
    let work = Work::new(bytes);
    let outcome = run(&work);
    if work.is_spent() {
        state.consume_fuel(u64::MAX)?;
    }
    pay_read(state, bytes - work.left())?;
    Ok(outcome)
}

#[cfg(test)]
mod tests;
