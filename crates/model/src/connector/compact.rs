//! A connector as it is kept in memory: what connections need at once, and of actions and streams the text, to be read
//! when one is used. A large description read whole takes twenty times its text.

use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{ConnectorSpec, EXTENDS_MAX};
use crate::fault::{self, Fault};
use crate::name::Name;

/// The texts of actions or streams, by name.
pub(super) type Parts = IndexMap<String, Arc<str>>;

/// A connector whose actions and streams are texts.
#[derive(Debug, Clone, Default)]
pub struct CompactConnector {
    /// What it says, without actions, streams and cases.
    pub head: Arc<ConnectorSpec>,
    pub(super) actions: Arc<Parts>,
    pub(super) streams: Arc<Parts>,
}

impl CompactConnector {
    /// Reads the text of a `spec` that was checked when it was stored. What is wrong with an action shows when that is
    /// used.
    ///
    /// # Errors
    /// Its shape, outside actions, streams and cases.
    pub fn read(spec: &str) -> Result<Self, Vec<Fault>> {
        let broken = |error: serde_json::Error| vec![Fault::new("spec", error)];
        let fields: IndexMap<String, &RawValue> = serde_json::from_str(spec).map_err(broken)?;
        let (mut actions, mut streams, mut head) = (Parts::new(), Parts::new(), Map::new());
        for (field, text) in fields {
            match field.as_str() {
                "actions" => actions = parts(text.get()).map_err(broken)?,
                "streams" => streams = parts(text.get()).map_err(broken)?,
                "tests" => {}
                _ => drop(head.insert(field, serde_json::from_str(text.get()).map_err(broken)?)),
            }
        }
        let head: ConnectorSpec = crate::document::shaped(&Value::Object(head))?;
        Ok(Self { head: Arc::new(head), actions: Arc::new(actions), streams: Arc::new(streams) })
    }

    /// The same of a spec that is there.
    #[must_use]
    pub fn of(spec: &ConnectorSpec) -> Self {
        let mut head = spec.clone();
        (head.actions, head.streams, head.tests) = (IndexMap::new(), IndexMap::new(), Vec::new());
        let (actions, streams) = (Arc::new(texts(&spec.actions)), Arc::new(texts(&spec.streams)));
        Self { head: Arc::new(head), actions, streams }
    }

    /// The whole spec, but for its cases.
    ///
    /// # Errors
    /// The first action or stream that does not read.
    pub fn spec(&self) -> Result<ConnectorSpec, Fault> {
        let mut spec = ConnectorSpec::clone(&self.head);
        spec.actions = read_parts("actions", &self.actions)?;
        spec.streams = read_parts("streams", &self.streams)?;
        Ok(spec)
    }

    /// How many actions, streams and webhooks it offers.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [self.actions.len(), self.streams.len(), self.head.webhooks.len()]
    }

    /// The same with everything that it extends put under it; see [`ConnectorSpec::resolve`].
    ///
    /// # Errors
    /// What it extends does not exist, or they extend each other without an end.
    pub fn resolve(&self, name: &Name, find: &dyn Fn(&Name, bool) -> Option<Self>) -> Result<Self, Fault> {
        let mut whole = self.clone();
        let mut name = name.clone();
        for _ in 0..EXTENDS_MAX {
            let Some(base) = whole.head.extends.clone() else { return Ok(whole) };
            let found = find(&base, base == name)
                .ok_or_else(|| Fault::new("extends", format_args!("there is no connector `{base}`")))?;
            whole = whole.over(&found);
            name = base;
        }
        Err(super::endless())
    }

    fn over(self, base: &Self) -> Self {
        let together = |base: &Arc<Parts>, own: &Arc<Parts>| {
            let mut together = Parts::clone(base);
            together.extend(own.iter().map(|(name, text)| (name.clone(), Arc::clone(text))));
            Arc::new(together)
        };
        let mut head = ConnectorSpec::clone(&self.head);
        head.extends = None;
        let head = Arc::new(head.over(&base.head));
        Self { head, actions: together(&base.actions, &self.actions), streams: together(&base.streams, &self.streams) }
    }
}

fn parts(text: &str) -> serde_json::Result<Parts> {
    let parts: IndexMap<String, &RawValue> = serde_json::from_str(text)?;
    Ok(parts.into_iter().map(|(name, text)| (name, Arc::from(text.get()))).collect())
}

fn texts<T: Serialize>(parts: &IndexMap<String, T>) -> Parts {
    let text = |part: &T| serde_json::to_string(part).unwrap_or_default();
    parts.iter().map(|(name, part)| (name.clone(), Arc::from(text(part)))).collect()
}

fn read_parts<T: DeserializeOwned>(field: &str, parts: &Parts) -> Result<IndexMap<String, T>, Fault> {
    let read = |(name, text): (&String, &Arc<str>)| match serde_json::from_str(text) {
        Ok(part) => Ok((name.clone(), part)),
        Err(error) => Err(Fault::new(format!("{field}.{name}"), error)),
    };
    parts.iter().map(read).collect()
}

/// An action or a stream: its text until it is used, then what was made of it.
#[derive(Debug)]
pub(super) struct Part<T> {
    text: Arc<str>,
    ready: OnceLock<Result<Arc<T>, Fault>>,
}

impl<T> Part<T> {
    /// One that is ready.
    pub(super) fn ready(part: T) -> Self {
        Self { text: Arc::from(""), ready: OnceLock::from(Ok(Arc::new(part))) }
    }

    /// One that is read when it is used.
    pub(super) fn later(text: &Arc<str>) -> Self {
        Self { text: Arc::clone(text), ready: OnceLock::new() }
    }

    /// The part, read by `compile` at the first use.
    pub(super) fn get<S: DeserializeOwned>(
        &self,
        compile: impl FnOnce(&S) -> Result<T, Vec<Fault>>,
    ) -> Result<&Arc<T>, Fault> {
        let made = self.ready.get_or_init(|| {
            let spec = serde_json::from_str(&self.text).map_err(|error| Fault::new("", error))?;
            compile(&spec).map(Arc::new).map_err(|faults| Fault::new("", fault::in_words(&faults)))
        });
        made.as_ref().map_err(Clone::clone)
    }
}
