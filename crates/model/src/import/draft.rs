//! A connector in the making.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::note::Notes;
use super::text;
use crate::connector::{AccountChoice, ActionSpec, ConnectorSpec};

/// A connector in the making: its parts, names that are taken, and notes.
#[derive(Debug)]
pub(super) struct Draft {
    /// The name of the document.
    pub(super) name: String,
    /// What it says of itself.
    pub(super) description: Option<String>,
    /// Labels of the document.
    pub(super) labels: Map<String, Value>,
    /// Everything but the settings.
    pub(super) spec: ConnectorSpec,
    /// What a connection says of itself.
    pub(super) settings: Fields,
    /// What the user should know.
    pub(super) notes: Notes,
    taken: Names,
}

/// Most kinds of accounts; a source could name one for each of its parameters.
const ACCOUNTS_MAX: usize = 50;

/// A draft taken apart.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) spec: ConnectorSpec,
    pub(super) description: Option<String>,
    pub(super) labels: Map<String, Value>,
    pub(super) notes: Notes,
}

impl Draft {
    /// One with the name that its title or host asks for.
    pub(super) fn new(title: Option<&str>) -> Self {
        Self {
            name: title.and_then(text::document_name).unwrap_or_else(|| "api".to_owned()),
            description: None,
            labels: Map::new(),
            spec: ConnectorSpec::default(),
            settings: Fields::default(),
            notes: Notes::default(),
            taken: Names::default(),
        }
    }

    /// An action's name that is free: `wanted`, or `wanted_2`.
    pub(super) fn free_action_name(&mut self, wanted: &str) -> String {
        self.taken.take(wanted)
    }

    /// A kind of account that the API takes, once.
    pub(super) fn takes_account(&mut self, kind: &str, title: Option<String>, help: Option<String>) {
        let choice = AccountChoice { kind: kind.to_owned(), title, help };
        if self.spec.accounts.len() < ACCOUNTS_MAX && !self.spec.accounts.contains(&choice) {
            self.spec.accounts.push(choice);
        }
    }

    /// Says that the API wants an account, in place of a credential of the source; `name` is that of its header or
    /// parameter.
    pub(super) fn asks_for_account(&mut self, kind: &str, name: Option<&str>, help: &str) {
        self.takes_account(kind, None, Some(help.to_owned()));
        let account = match (kind, name) {
            ("headers" | "query", Some(name)) => format!("{kind}: {{{name}: {{secret: NAME}}}}"),
            ("bearer", _) => "bearer: {token: {secret: NAME}}".to_owned(),
            (kind, _) => format!("{kind}: …"),
        };
        let text = format!(
            "a credential is no input: store its value with `linkspan secrets set NAME`, and make an account for it: `{account}`"
        );
        self.notes.add(text, "");
    }

    /// A host besides that of the base URL.
    pub(super) fn adds_host(&mut self, host: &str) {
        let hosts = self.spec.connection.hosts.get_or_insert_default();
        if !hosts.iter().any(|known| known == host) {
            hosts.push(host.to_owned());
        }
    }

    /// A setting for the whole base URL.
    pub(super) fn asks_for_base_url(&mut self, default: Option<&str>, description: &str) {
        let mut schema = json!({"type": "string", "format": "uri", "title": "Base URL", "description": description});
        if let Some(default) = default {
            schema["default"] = default.into();
        }
        let name = self.settings.add("base_url", schema, default.is_none());
        self.spec.connection.base_url = Some(text::pill("settings", &name));
    }

    /// What it has become.
    pub(super) fn into_parts(self) -> Parts {
        let spec = ConnectorSpec { settings: self.settings.into_schema(), ..self.spec };
        Parts { name: self.name, spec, description: self.description, labels: self.labels, notes: self.notes }
    }

    /// Forgets the actions, to make them again.
    pub(super) fn forget_actions(&mut self) {
        self.spec.actions.clear();
        self.taken = Names::default();
    }

    /// Adds an action under a name of [`Draft::free_action_name`].
    pub(super) fn adds_action(&mut self, name: String, action: ActionSpec) {
        self.spec.actions.insert(name, action);
    }
}

/// Names that are taken, with the number that the next of the same kind gets.
#[derive(Debug, Default)]
struct Names(HashMap<String, usize>);

impl Names {
    fn take(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        loop {
            let Some(n) = self.0.get_mut(&name) else {
                self.0.insert(name.clone(), 1);
                return name;
            };
            // The number goes on where it stood, so that many of a kind take no longer than few.
            let known = if name == wanted { n } else { self.0.entry(wanted.to_owned()).or_insert(1) };
            *known += 1;
            name = format!("{wanted}_{known}");
        }
    }
}

/// The schema of an object in the making: settings, or the input of an action.
#[derive(Debug, Default)]
pub(super) struct Fields {
    properties: Map<String, Value>,
    required: Vec<Value>,
    taken: Names,
}

impl Fields {
    /// Adds a field for what the source calls `wanted`, and gives its name.
    pub(super) fn add(&mut self, wanted: &str, schema: Value, required: bool) -> String {
        let name = self.taken.take(&text::field_name(wanted));
        if required {
            self.required.push(name.clone().into());
        }
        self.properties.insert(name.clone(), schema);
        name
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.properties.len()
    }

    /// Its JSON Schema; none without fields.
    pub(super) fn into_schema(self) -> Option<Value> {
        if self.properties.is_empty() {
            return None;
        }
        let mut schema = Map::new();
        schema.insert("type".to_owned(), "object".into());
        if !self.required.is_empty() {
            schema.insert("required".to_owned(), self.required.into());
        }
        schema.insert("properties".to_owned(), self.properties.into());
        Some(schema.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_free() {
        let mut names = Names::default();
        let taken: Vec<String> = ["a", "a", "a_2", "a", "a_2", "b"].iter().map(|name| names.take(name)).collect();
        assert_eq!(taken, ["a", "a_2", "a_2_2", "a_3", "a_2_3", "b"]);
    }
}
