//! Lists that come in pages: how the next page is asked for, where the items stand, and when the list ends.
//!
//! Guarantees that no list turns in circles: a page that was asked for before is a fault, and so is a page that
//! repeats the one before it. What ends a list is what its API says, never a page that is merely short: many an
//! API gives fewer items than it was asked for.

use std::collections::HashSet;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use crate::fault::Fault;
use crate::limits;
use crate::request::RequestSpec;
use crate::template::{Expression, Scope};

/// How a list is read page by page. One of `next_url`, `link`, `cursor`, `page` and `offset` says how the next page
/// is asked for. Expressions see `body`, `headers` and `status` of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaginateSpec {
    /// An expression that gives the list of items: `body.orders`. Left out, the body itself is the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<String>,
    /// An expression that gives the URL of the next page, whole or relative to the page's own; null ends the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_url: Option<String>,
    /// The relation whose target in the Link header is the next page (RFC 8288); without such a link the list ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// A token in the answer that asks for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<CursorSpec>,
    /// Pages by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<CountSpec>,
    /// Pages by how many items came before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<CountSpec>,
    /// An expression that holds on the last page: `not body.has_more`. It saves the request that finds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How many items a page is asked to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeSpec>,
    /// Most pages of one reading. Default and at most 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pages: Option<u32>,
}

/// A token that asks for the next page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CursorSpec {
    /// An expression that gives the token; null ends the list.
    pub next: String,
    /// Where the next request carries it.
    pub send: Carrier,
}

/// A number that asks for a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountSpec {
    /// Where requests carry it.
    pub send: Carrier,
    /// The number of the first request. Default 1 for pages, 0 for an offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u32>,
}

/// How many items a page is asked to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SizeSpec {
    /// Where requests carry it.
    pub send: Carrier,
    /// The number.
    pub value: u32,
}

/// A place in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// A parameter of the query; what the request has of this name is replaced.
    Query(String),
    /// A field of the JSON body, as a JSON pointer (RFC 6901): `/variables/after`. Objects on the way are made.
    Json(String),
}

/// A list's pages, compiled.
#[derive(Debug)]
pub struct Paginate {
    items: Option<Expression>,
    by: By,
    until: Option<Expression>,
    size: Option<SizeSpec>,
    max_pages: u32,
}

#[derive(Debug)]
enum By {
    /// There is one page only.
    Once,
    NextUrl(Expression),
    Link(String),
    Cursor(Expression, Carrier),
    Page(Carrier, u32),
    Offset(Carrier, u32),
}

/// Why a list cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// An expression gave nothing.
    #[error("{field}: {reason}")]
    Expression {
        /// The field that holds it.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// Where the items should be there is no list.
    #[error("items: a list was expected, and there is {0}")]
    NoList(&'static str),
    /// What should ask for the next page cannot.
    #[error("{field}: {reason}")]
    Next {
        /// The field that asks.
        field: &'static str,
        /// Why it cannot.
        reason: String,
    },
    /// The API asks for a page that was read before.
    #[error("{0}: the API leads to a page that was read before, so the list would never end")]
    Repeated(&'static str),
}

/// One reading of a list.
#[derive(Debug)]
pub struct Pages<'a> {
    rule: &'a Paginate,
    read: u32,
    items: u64,
    /// The number of the first page, or the first offset.
    start: u64,
    /// Digests of what asked for the pages so far.
    asked: HashSet<[u8; 32]>,
    /// Digest of the items of the page before.
    before: Option<[u8; 32]>,
}

/// A page that was read.
#[derive(Debug)]
pub struct Page {
    /// Its items.
    pub items: Vec<Value>,
    /// How the reading goes on, or why it cannot: the items stand all the same.
    pub next: Result<NextPage, PageFault>,
}

/// How a reading goes on.
#[derive(Debug)]
pub enum NextPage {
    /// With this request.
    Request(Box<RequestSpec>),
    /// This was the last page.
    End,
    /// There may be more, but the reading ends at `max_pages`.
    Capped,
}

impl PaginateSpec {
    /// Compiles the rule.
    ///
    /// # Errors
    /// Everything that is wrong with it, with paths from the rule on.
    pub fn compile(&self) -> Result<Paginate, Vec<Fault>> {
        self.compile_with(None)
    }

    /// Compiles the rule of a list that may be all on one page.
    ///
    /// # Errors
    /// Everything that is wrong with it, with paths from the rule on.
    pub(crate) fn compile_list(&self) -> Result<Paginate, Vec<Fault>> {
        self.compile_with((!self.names_a_way()).then_some(By::Once))
    }

    fn compile_with(&self, otherwise: Option<By>) -> Result<Paginate, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut read = |path: &str, text: &String| {
            Expression::parse(text).map_err(|error| faults.push(Fault::new(path, error))).ok()
        };
        let items = self.items.as_ref().map(|text| read("items", text));
        let until = self.until.as_ref().map(|text| read("until", text));
        let needs_way = otherwise.is_none();
        let mut ways: Vec<By> = otherwise.into_iter().collect();
        if let Some(text) = &self.next_url {
            ways.extend(read("next_url", text).map(By::NextUrl));
        }
        if let Some(cursor) = &self.cursor {
            ways.extend(read("cursor.next", &cursor.next).map(|next| By::Cursor(next, cursor.send.clone())));
        }
        ways.extend(self.link.clone().map(By::Link));
        ways.extend(self.page.as_ref().map(|page| By::Page(page.send.clone(), page.first.unwrap_or(1))));
        ways.extend(self.offset.as_ref().map(|offset| By::Offset(offset.send.clone(), offset.first.unwrap_or(0))));
        faults.extend(self.carrier_faults());
        let named = [self.next_url.is_some(), self.link.is_some(), self.cursor.is_some(), self.page.is_some()];
        let named = named.into_iter().chain([self.offset.is_some()]).filter(|is_named| *is_named).count();
        if needs_way && named != 1 {
            faults.push(Fault::new("", "give one of next_url, link, cursor, page and offset"));
        }
        let max_pages = self.max_pages.unwrap_or(limits::PAGES_MAX);
        if max_pages == 0 || max_pages > limits::PAGES_MAX {
            faults.push(Fault::new("max_pages", format!("a number from 1 to {}", limits::PAGES_MAX)));
        }
        match (faults.is_empty(), ways.pop()) {
            (true, Some(by)) => {
                Ok(Paginate { items: items.flatten(), by, until: until.flatten(), size: self.size.clone(), max_pages })
            }
            _ => Err(faults),
        }
    }

    /// The same, with what it does not say as `base` says.
    #[must_use]
    pub(crate) fn over(&self, base: Option<&Self>) -> Self {
        let (mut whole, Some(base)) = (self.clone(), base) else { return self.clone() };
        if !self.names_a_way() {
            whole.next_url.clone_from(&base.next_url);
            whole.link.clone_from(&base.link);
            whole.cursor.clone_from(&base.cursor);
            whole.page.clone_from(&base.page);
            whole.offset.clone_from(&base.offset);
        }
        whole.items = whole.items.or_else(|| base.items.clone());
        whole.until = whole.until.or_else(|| base.until.clone());
        whole.size = whole.size.or_else(|| base.size.clone());
        whole.max_pages = whole.max_pages.or(base.max_pages);
        whole
    }

    fn names_a_way(&self) -> bool {
        self.next_url.is_some()
            || self.link.is_some()
            || self.cursor.is_some()
            || self.page.is_some()
            || self.offset.is_some()
    }

    fn carrier_faults(&self) -> Vec<Fault> {
        let carriers = [
            ("cursor.send", self.cursor.as_ref().map(|cursor| &cursor.send)),
            ("page.send", self.page.as_ref().map(|page| &page.send)),
            ("offset.send", self.offset.as_ref().map(|offset| &offset.send)),
            ("size.send", self.size.as_ref().map(|size| &size.send)),
        ];
        carriers.into_iter().filter_map(|(path, carrier)| carrier?.fault(path)).collect()
    }
}

impl Paginate {
    /// Begins a reading.
    #[must_use]
    pub fn pages(&self) -> Pages<'_> {
        Pages { rule: self, read: 0, items: 0, start: 0, asked: HashSet::new(), before: None }
    }
}

impl Pages<'_> {
    /// The first request of the reading, made of the operation's own: a number or a size that it names itself stays,
    /// and the reading begins there.
    ///
    /// # Errors
    /// The body is no JSON object that could carry the field.
    pub fn first(&mut self, request: &RequestSpec) -> Result<RequestSpec, PageFault> {
        let mut request = request.clone();
        let counted = match &self.rule.by {
            By::Page(carrier, first) => Some((carrier, first, "page.send")),
            By::Offset(carrier, first) => Some((carrier, first, "offset.send")),
            By::Once | By::NextUrl(_) | By::Link(_) | By::Cursor(..) => None,
        };
        if let Some((carrier, first, field)) = counted {
            self.start = u64::from(*first);
            match carrier.number(&request) {
                Some(start) => self.start = start,
                None => carrier.put(&mut request, (*first).into(), field)?,
            }
        }
        if let Some(size) = self.rule.size.as_ref().filter(|size| size.send.number(&request).is_none()) {
            size.send.put(&mut request, size.value.into(), "size.send")?;
        }
        Ok(request)
    }

    /// Takes the answer to `request`: its items, and how the reading goes on. `headers` is an object whose keys are
    /// the names in lower case.
    ///
    /// # Errors
    /// There is no list, or it is that of the page before.
    pub fn turn(&mut self, request: &RequestSpec, status: u16, headers: Value, body: Value) -> Result<Page, PageFault> {
        self.asked.insert(digest(request));
        self.read += 1;
        let links = headers.get("link").and_then(Value::as_str).unwrap_or_default().to_owned();
        let scope =
            Scope::new().with("body", body).with("status", Value::from(status)).with_headers("headers", headers);
        let items = self.list(&scope)?;
        self.items += items.len() as u64;

        let is_counted = matches!(self.rule.by, By::Page(..) | By::Offset(..));
        if is_counted && self.repeats(&items) {
            let field = if matches!(self.rule.by, By::Page(..)) { "page" } else { "offset" };
            return Err(PageFault::Repeated(field));
        }
        let is_over = is_counted && items.is_empty();
        let next = if is_over { Ok(NextPage::End) } else { self.next(request, &links, &scope) };
        Ok(Page { items, next })
    }

    fn next(&self, request: &RequestSpec, links: &str, scope: &Scope) -> Result<NextPage, PageFault> {
        if self.is_last(scope)? {
            return Ok(NextPage::End);
        }
        match self.rule.next(request, links, scope, self)? {
            None => Ok(NextPage::End),
            Some(_) if self.read >= self.rule.max_pages => Ok(NextPage::Capped),
            Some((field, next)) if self.asked.contains(&digest(&next)) => Err(PageFault::Repeated(field)),
            Some((_, next)) => Ok(NextPage::Request(Box::new(next))),
        }
    }

    /// How many pages were read.
    #[must_use]
    pub fn read(&self) -> u32 {
        self.read
    }

    fn list(&self, scope: &Scope) -> Result<Vec<Value>, PageFault> {
        let list = match &self.rule.items {
            Some(items) => evaluate("items", items, scope)?,
            None => evaluate("items", &BODY, scope)?,
        };
        match list {
            Value::Array(items) => Ok(items),
            // Many an API leaves an empty list out, or has null in its place.
            Value::Null => Ok(Vec::new()),
            other => Err(PageFault::NoList(kind(&other))),
        }
    }

    fn is_last(&self, scope: &Scope) -> Result<bool, PageFault> {
        let Some(until) = &self.rule.until else { return Ok(false) };
        until.holds(scope).map_err(|error| PageFault::Expression { field: "until", reason: error.to_string() })
    }

    /// Whether the items are those of the page before: then the API does not know the parameter.
    fn repeats(&mut self, items: &[Value]) -> bool {
        let mut hash = Sha256::new();
        for item in items {
            hash.update(item.to_string());
            hash.update([0]);
        }
        let digest = hash.finalize().into();
        let before = self.before.replace(digest);
        !items.is_empty() && before == Some(digest)
    }
}

static BODY: std::sync::LazyLock<Expression> = std::sync::LazyLock::new(|| {
    // A plain path: it parses.
    Expression::parse("body").unwrap_or_else(|error| unreachable!("{error}"))
});

impl Paginate {
    /// The request for the next page with the field that asked for it; none when the list ends.
    fn next(
        &self,
        request: &RequestSpec,
        links: &str,
        scope: &Scope,
        pages: &Pages<'_>,
    ) -> Result<Option<(&'static str, RequestSpec)>, PageFault> {
        let mut next = request.clone();
        let field = match &self.by {
            By::Once => return Ok(None),
            By::NextUrl(expression) => match evaluate("next_url", expression, scope)? {
                Value::Null => return Ok(None),
                Value::String(url) => {
                    next.url = follow(&request.url, &url, "next_url")?;
                    "next_url"
                }
                other => return Err(not_asking("next_url", "a URL", &other)),
            },
            By::Link(relation) => {
                let Some(url) = link(links, relation) else { return Ok(None) };
                next.url = follow(&request.url, &url, "link")?;
                "link"
            }
            By::Cursor(expression, carrier) => {
                match evaluate("cursor.next", expression, scope)? {
                    Value::Null => return Ok(None),
                    cursor @ (Value::String(_) | Value::Number(_)) if cursor.as_str() != Some("") => {
                        carrier.put(&mut next, cursor, "cursor.send")?;
                    }
                    other => return Err(not_asking("cursor.next", "a text, a number or null", &other)),
                }
                "cursor"
            }
            By::Page(carrier, _) => {
                carrier.put(&mut next, pages.start.saturating_add(u64::from(pages.read)).into(), "page.send")?;
                "page"
            }
            By::Offset(carrier, _) => {
                carrier.put(&mut next, pages.start.saturating_add(pages.items).into(), "offset.send")?;
                "offset"
            }
        };
        Ok(Some((field, next)))
    }
}

impl Carrier {
    /// What is wrong with it, at `path`.
    pub(crate) fn fault(&self, path: &str) -> Option<Fault> {
        match self {
            Self::Query(name) if name.is_empty() => Some(Fault::new(format!("{path}.query"), "a name is missing")),
            Self::Json(pointer) if !pointer.starts_with('/') => {
                Some(Fault::new(format!("{path}.json"), "a JSON pointer begins with a slash: /variables/after"))
            }
            _ => None,
        }
    }

    /// The number that the request has there already.
    fn number(&self, request: &RequestSpec) -> Option<u64> {
        match self {
            Self::Query(name) => request.url.query_pairs().find(|(key, _)| key == name)?.1.parse().ok(),
            Self::Json(pointer) => {
                serde_json::from_slice::<Value>(&request.body).ok()?.pointer(pointer).and_then(Value::as_u64)
            }
        }
    }

    pub(crate) fn put(&self, request: &mut RequestSpec, value: Value, field: &'static str) -> Result<(), PageFault> {
        match self {
            Self::Query(name) => {
                let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                put_query(&mut request.url, name, &text);
                Ok(())
            }
            Self::Json(pointer) => {
                let reason = |reason: String| PageFault::Next { field, reason };
                let mut body = match request.body.is_empty() {
                    true => Value::Object(serde_json::Map::new()),
                    false => serde_json::from_slice(&request.body)
                        .map_err(|error| reason(format!("the request's body is no JSON: {error}")))?,
                };
                put_json(&mut body, pointer, value).map_err(reason)?;
                request.body = Bytes::from(body.to_string());
                if !request.headers.iter().any(|(name, _)| *name == CONTENT_TYPE) {
                    request.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
                }
                Ok(())
            }
        }
    }
}

/// Replaces a parameter where it stands, or appends it. All others stay byte for byte as they are.
fn put_query(url: &mut Url, name: &str, value: &str) {
    let pair = |name: &str, value: &str| {
        url::form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish()
    };
    let wanted = pair(name, value);
    let mut found = false;
    let mut parts: Vec<String> = Vec::new();
    for part in url.query().unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let is_it = url::form_urlencoded::parse(part.as_bytes()).next().is_some_and(|(key, _)| key == name);
        match (is_it, found) {
            (false, _) => parts.push(part.to_owned()),
            (true, false) => {
                parts.push(wanted.clone());
                found = true;
            }
            (true, true) => {}
        }
    }
    if !found {
        parts.push(wanted);
    }
    url.set_query(Some(&parts.join("&")));
}

fn put_json(body: &mut Value, pointer: &str, value: Value) -> Result<(), String> {
    let mut at = body;
    for segment in pointer.split('/').skip(1) {
        let name = segment.replace("~1", "/").replace("~0", "~");
        if at.is_null() {
            *at = Value::Object(serde_json::Map::new());
        }
        let found = kind(at);
        at = match at {
            Value::Object(fields) => fields.entry(name).or_insert(Value::Null),
            Value::Array(items) => name
                .parse::<usize>()
                .ok()
                .and_then(|n| items.get_mut(n))
                .ok_or_else(|| format!("the list in the request's body has no item {name}"))?,
            _ => return Err(format!("`{name}` of {found} in the request's body cannot be set")),
        };
    }
    *at = value;
    Ok(())
}

fn follow(page: &Url, next: &str, field: &'static str) -> Result<Url, PageFault> {
    let fault = |reason: String| PageFault::Next { field, reason };
    if next.is_empty() {
        return Err(fault("a URL or null was expected, and there is an empty text".to_owned()));
    }
    let mut url = page.join(next).map_err(|error| fault(format!("the API's next page: {error}")))?;
    url.set_fragment(None);
    if page.scheme() == "https" && url.scheme() == "http" && page.host_str() == url.host_str() {
        // Behind proxies many an API thinks that it is called over http; nothing may go there in the clear.
        url.set_scheme("https").map_err(|()| fault("the API's next page leads to http".to_owned()))?;
    }
    Ok(url)
}

/// The target of the first link of this relation (RFC 8288, section 3).
fn link(header: &str, relation: &str) -> Option<String> {
    links(header)
        .into_iter()
        .find(|(_, relations)| relations.split_ascii_whitespace().any(|one| one.eq_ignore_ascii_case(relation)))
        .map(|(target, _)| target.to_owned())
}

/// The targets of a Link header with their relations. Commas and semicolons also stand within targets and quotes.
fn links(mut text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    while let Some((_, rest)) = text.split_once('<') {
        let Some((target, mut rest)) = rest.split_once('>') else { break };
        let mut relations = String::new();
        // Parameters of this link.
        while let Some(parameter) = rest.trim_start().strip_prefix(';') {
            let (name, after) = parameter.split_at(parameter.find(['=', ';', ',']).unwrap_or(parameter.len()));
            let (value, after) = match after.strip_prefix('=').map(str::trim_start) {
                None => (String::new(), after),
                Some(quoted) if quoted.starts_with('"') => unquote(quoted),
                Some(plain) => {
                    let (value, after) = plain.split_at(plain.find([';', ',']).unwrap_or(plain.len()));
                    (value.trim().to_owned(), after)
                }
            };
            // The first one counts (section 3.3).
            if relations.is_empty() && name.trim().eq_ignore_ascii_case("rel") {
                relations = value;
            }
            rest = after;
        }
        found.push((target.trim(), relations));
        text = rest;
    }
    found
}

/// A quoted string (RFC 9110, section 5.6.4) and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &text[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

fn evaluate(field: &'static str, expression: &Expression, scope: &Scope) -> Result<Value, PageFault> {
    expression.evaluate(scope).map_err(|error| PageFault::Expression { field, reason: error.to_string() })
}

fn not_asking(field: &'static str, wanted: &str, value: &Value) -> PageFault {
    let found = if value.as_str() == Some("") { "an empty text" } else { kind(value) };
    PageFault::Next { field, reason: format!("{wanted} was expected, and there is {found}") }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What tells one page from another: where it is asked for, and with what body.
fn digest(request: &RequestSpec) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(request.url.as_str());
    hash.update([0]);
    hash.update(&request.body);
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
