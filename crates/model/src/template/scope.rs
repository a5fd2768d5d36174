//! What pills can name: a lazy view of the data of one job or one event.
//!
//! Values stay where they are: a pill is looked up by its path, a container is handed on by reference, and
//! a part that is produced on demand (the parsed body of a large request) is not produced unless a pill
//! names it.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock, OnceLock};

use indexmap::IndexMap;
use serde_json::Value;

use crate::endpoint::Format;
use crate::event::{Content, Event};
use crate::name::near_match;
use crate::{form, tree};

/// Data by name, as pills see it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    roots: Arc<IndexMap<String, Branch>>,
}

type Produced = LazyLock<Result<Arc<Value>, String>, Box<dyn FnOnce() -> Result<Arc<Value>, String> + Send>>;

#[derive(Clone)]
enum Branch {
    Inner(Inner),
    /// A name that is known and was left without a value.
    Absent,
    Leaf(Arc<Value>),
    /// An object whose keys are header names.
    Headers(Arc<Value>),
    Lazy(Arc<Produced>),
}

/// Names below a name.
#[derive(Clone, Default)]
struct Inner {
    children: IndexMap<String, Branch>,
    /// All of it as one value. It is made once, however often an expression names it.
    whole: OnceLock<Arc<Value>>,
}

impl Inner {
    const fn of(children: IndexMap<String, Branch>) -> Self {
        Self { children, whole: OnceLock::new() }
    }

    /// What cannot be produced is null, and what was not given is left out.
    fn whole(&self) -> &Arc<Value> {
        self.whole.get_or_init(|| {
            let given = self.children.iter().filter(|(_, child)| !matches!(child, Branch::Absent));
            Arc::new(Value::Object(given.map(|(name, child)| (name.clone(), child.whole())).collect()))
        })
    }
}

impl std::fmt::Debug for Branch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Data of events and answers does not belong into logs.
        match self {
            Self::Inner(inner) => f.debug_set().entries(inner.children.keys()).finish(),
            Self::Absent | Self::Leaf(_) | Self::Headers(_) | Self::Lazy(_) => f.write_str("…"),
        }
    }
}

impl Scope {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with `value` at `path`, names separated by dots: `trigger.id`.
    #[must_use]
    pub fn with(self, path: &str, value: impl Into<Arc<Value>>) -> Self {
        self.put(path, Branch::Leaf(value.into()))
    }

    /// The same with these fields below `root`. A field without a value is known and was not given: a pill that
    /// names it is an error, but a part of a request that is nothing but such a pill is left out.
    #[must_use]
    pub fn with_fields(mut self, root: &str, fields: impl IntoIterator<Item = (String, Option<Value>)>) -> Self {
        let branch = |value: Option<Value>| value.map_or(Branch::Absent, |value| Branch::Leaf(Arc::new(value)));
        let fields = fields.into_iter().map(|(name, value)| (name, branch(value))).collect();
        Arc::make_mut(&mut self.roots).insert(root.to_owned(), Branch::Inner(Inner::of(fields)));
        self
    }

    /// The same with headers at `path`, whose names pills may write in any case.
    #[must_use]
    pub fn with_headers(self, path: &str, headers: impl Into<Arc<Value>>) -> Self {
        self.put(path, Branch::Headers(headers.into()))
    }

    /// The same with a value at `path` that is produced when a pill first asks for it. An error becomes the
    /// error of that pill: why there is no parsed view.
    #[must_use]
    pub fn with_lazy<F>(self, path: &str, produce: F) -> Self
    where
        F: FnOnce() -> Result<Arc<Value>, String> + Send + 'static,
    {
        self.put(path, Branch::Lazy(Arc::new(LazyLock::new(Box::new(produce)))))
    }

    /// What `trigger` names for an event of an endpoint that declares `format`; the body is parsed only when
    /// a pill names it.
    #[must_use]
    pub fn of_event(event: &Event, format: Option<Format>) -> Self {
        let head = &event.head;
        let headers = head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let query = head.query.as_deref().map_or_else(|| Value::Object(serde_json::Map::new()), form::parse_query);
        let content = Content::of(&head.headers);
        let body = event.body.clone();
        Self::new()
            .with("trigger.id", Value::from(event.id.to_string()))
            .with("trigger.received_at", Value::from(event.received_at.to_string()))
            .with("trigger.method", Value::from(head.method.as_str()))
            .with("trigger.event_name", Value::from(head.event_name.as_deref()))
            .with_headers("trigger.headers", headers_value(headers))
            .with("trigger.query", query)
            .with_lazy("trigger.body", move || {
                content
                    .tree(format, &body)
                    .map(Arc::new)
                    .map_err(|error| format!("has no parsed view, because the body is {error}"))
            })
    }

    fn put(mut self, path: &str, branch: Branch) -> Self {
        let mut children = Arc::make_mut(&mut self.roots);
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                children.insert(name.to_owned(), branch);
                break;
            }
            let slot = children.entry(name.to_owned()).or_insert_with(|| Branch::Inner(Inner::default()));
            if !matches!(slot, Branch::Inner(_)) {
                *slot = Branch::Inner(Inner::default());
            }
            let Branch::Inner(inner) = slot else { break };
            inner.whole.take();
            children = &mut inner.children;
        }
        self
    }

    /// Whether `pill` names what was not given, or something below it.
    pub(super) fn is_absent(&self, pill: &Pill) -> bool {
        let mut branch = self.roots.get(&pill.root);
        for segment in &pill.segments {
            let (Some(Branch::Inner(inner)), Segment::Key(key)) = (branch, segment) else { break };
            branch = inner.children.get(key);
        }
        matches!(branch, Some(Branch::Absent))
    }

    /// What `pill` names.
    pub(super) fn find(&self, pill: &Pill) -> Result<Node, Missing> {
        let mut children = &*self.roots;
        let mut segments = pill.segments.iter().enumerate();
        let (mut n, mut name) = (0, pill.root.as_str());
        loop {
            let Some(branch) = children.get(name) else {
                let hint = Hint::of(pill).for_name(name, children.keys());
                return Err(Missing { near: hint.map(|near| pill.with_name(n, near)), reason: None });
            };
            match branch {
                Branch::Inner(inner) => {
                    let Some((at, segment)) = segments.next() else { return Ok(Node::new(Arc::clone(inner.whole()))) };
                    let Segment::Key(key) = segment else { return Err(Missing { near: None, reason: None }) };
                    (n, name, children) = (at + 1, key, &inner.children);
                }
                Branch::Absent => return Err(Missing { near: None, reason: Some("is not given".to_owned()) }),
                Branch::Leaf(value) => return Node::new(Arc::clone(value)).below(pill, n, Case::Exact),
                Branch::Headers(value) => return Node::new(Arc::clone(value)).below(pill, n, Case::Ignored),
                Branch::Lazy(produced) => {
                    let value = LazyLock::force(produced)
                        .as_ref()
                        .map_err(|reason| Missing { near: None, reason: Some(reason.clone()) })?;
                    return Node::new(Arc::clone(value)).below(pill, n, Case::Exact);
                }
            }
        }
    }
}

impl Branch {
    fn whole(&self) -> Value {
        match self {
            Self::Inner(inner) => Value::clone(inner.whole()),
            Self::Absent => Value::Null,
            Self::Leaf(value) | Self::Headers(value) => Value::clone(value),
            Self::Lazy(produced) => LazyLock::force(produced).as_ref().map_or(Value::Null, |value| Value::clone(value)),
        }
    }
}

/// Whether somebody will see what a missing path was probably meant to be. Looking for it takes work and memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hint {
    Wanted,
    Unseen,
}

impl Hint {
    /// A missing path of a lenient pill is null, and no error.
    const fn of(pill: &Pill) -> Self {
        if pill.lenient { Self::Unseen } else { Self::Wanted }
    }

    fn for_name<'a>(self, name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a str> {
        match self {
            Self::Wanted => near_match(name, known.map(String::as_str)),
            Self::Unseen => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Exact,
    Ignored,
}

/// Headers as pills see them: one text for each name, several values joined by a comma (RFC 9110, section
/// 5.3). What is no text is bytes: `{"base64": …}`.
pub fn headers_value<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Value {
    let mut joined: IndexMap<&str, Cow<'a, [u8]>> = IndexMap::new();
    for (name, value) in headers {
        match joined.get_mut(name) {
            Some(known) => *known = Cow::Owned([&known[..], b", ", value].concat()),
            None => {
                joined.insert(name, Cow::Borrowed(value));
            }
        }
    }
    let value = |bytes: &[u8]| std::str::from_utf8(bytes).map_or_else(|_| tree::base64(bytes), Value::from);
    joined.into_iter().map(|(name, bytes)| (name.to_owned(), value(&bytes))).collect::<serde_json::Map<_, _>>().into()
}

/// A plain path: `trigger.body.items[0]["X-Name"]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pill {
    /// The first name: `trigger`, `steps`.
    pub root: String,
    /// What follows it.
    pub segments: Vec<Segment>,
    /// Where it stands in its text, in characters from 1.
    pub column: usize,
    /// Whether a missing path is null here: in a condition, and behind `default` or `coalesce`.
    pub lenient: bool,
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// A key of an object; of a list, the key of its first item.
    Key(String),
    /// A place in a list, from 0.
    Index(usize),
}

impl Pill {
    /// The same path with its `n`th name, counted from the root, replaced.
    fn with_name(&self, n: usize, name: &str) -> String {
        let mut pill = self.clone();
        match n.checked_sub(1) {
            None => name.clone_into(&mut pill.root),
            Some(n) => {
                if let Some(segment) = pill.segments.get_mut(n) {
                    *segment = Segment::Key(name.to_owned());
                }
            }
        }
        pill.to_string()
    }
}

impl std::fmt::Display for Pill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.root)?;
        for segment in &self.segments {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if is_identifier(key) => write!(f, ".{key}")?,
                Segment::Key(key) => write!(f, "[{}]", Value::from(key.as_str()))?,
            }
        }
        Ok(())
    }
}

pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Why a pill names nothing.
#[derive(Debug)]
pub(super) struct Missing {
    /// A path that exists and that was probably meant.
    pub near: Option<String>,
    /// Why, when there is more to say than that it is not there.
    pub reason: Option<String>,
}

/// A value, or a place in one: what evaluation hands round in place of copies.
#[derive(Debug, Clone)]
pub(super) struct Node {
    root: Arc<Value>,
    at: Vec<Segment>,
}

impl Node {
    pub(super) fn new(root: Arc<Value>) -> Self {
        Self { root, at: Vec::new() }
    }

    pub(super) fn value(&self) -> &Value {
        let mut value = &*self.root;
        for segment in &self.at {
            let inner = match segment {
                Segment::Key(key) => value.get(key),
                Segment::Index(index) => value.get(index),
            };
            // `below` only adds places that exist.
            let Some(inner) = inner else { return &Value::Null };
            value = inner;
        }
        value
    }

    /// What the keys of its path take: finding its value hashes all of them.
    pub(super) fn path_bytes(&self) -> usize {
        self.at.iter().map(|segment| if let Segment::Key(key) = segment { key.len() } else { 0 }).sum()
    }

    /// The place that the segments of `pill` after its `done`th name lead to.
    fn below(mut self, pill: &Pill, done: usize, mut case: Case) -> Result<Self, Missing> {
        for (n, segment) in pill.segments.iter().enumerate().skip(done) {
            self.step(segment, case, Hint::of(pill))
                .map_err(|near| Missing { near: near.map(|near| pill.with_name(n + 1, &near)), reason: None })?;
            case = Case::Exact;
        }
        Ok(self)
    }

    /// Goes one step down; what was meant, when there is no such step.
    fn step(&mut self, segment: &Segment, case: Case, hint: Hint) -> Result<(), Option<String>> {
        if let (Segment::Key(_), Value::Array(items)) = (segment, self.value()) {
            if items.is_empty() {
                return Err(None);
            }
            self.at.push(Segment::Index(0));
        }
        let next = match (segment, self.value()) {
            (Segment::Index(index), Value::Array(items)) if *index < items.len() => Segment::Index(*index),
            (Segment::Key(key), Value::Object(map)) => {
                if map.contains_key(key) {
                    Segment::Key(key.clone())
                } else if let Some(found) =
                    map.keys().find(|known| case == Case::Ignored && known.eq_ignore_ascii_case(key))
                {
                    Segment::Key(found.clone())
                } else {
                    return Err(hint.for_name(key, map.keys()).map(ToOwned::to_owned));
                }
            }
            _ => return Err(None),
        };
        self.at.push(next);
        Ok(())
    }

    /// The same for a key or an index that an expression gives; missing is null.
    pub(super) fn child(&self, key: &Value) -> Self {
        let segment = match key {
            Value::String(key) => Segment::Key(key.clone()),
            key => match key.as_u64().and_then(|index| usize::try_from(index).ok()) {
                Some(index) => Segment::Index(index),
                None => return Self::new(Arc::new(Value::Null)),
            },
        };
        let mut child = self.clone();
        if child.step(&segment, Case::Exact, Hint::Unseen).is_err() {
            return Self::new(Arc::new(Value::Null));
        }
        child
    }
}
