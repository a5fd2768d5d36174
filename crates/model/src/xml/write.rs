//! A tree as XML, by the rule of the module above.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::{ORDER, TEXT, check_chars, check_name};
use crate::limits;

/// Why a tree is no XML: where in it, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", at(.path))]
pub struct WriteError {
    /// The place in the tree: `order.item[1].@id`; empty for the whole.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("`{path}`: ") }
}

/// Writes a tree as a document in UTF-8, with an XML declaration. Numbers and truth values are written as text,
/// null as an empty element; an attribute that is null is left out, and so is an empty list.
///
/// # Errors
/// What in the tree XML cannot hold: more than one root, a bad name, a list in a list, a control character.
pub fn write(tree: &Value) -> Result<String, WriteError> {
    let fail = |reason: &str| Err(WriteError { path: String::new(), reason: reason.to_owned() });
    let Value::Object(map) = tree else { return fail("XML is an object with one key, the name of the root element") };
    let mut keys = map.iter();
    let (Some((name, root)), None) = (keys.next(), keys.next()) else {
        return fail("XML has one root element, so the object has one key");
    };
    let mut writer = Writer { out: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned(), path: Vec::new() };
    writer.element(name, root, None)?;
    Ok(writer.out)
}

/// A text as it stands in XML, between tags or within a quoted attribute.
///
/// # Errors
/// When it holds a character that XML cannot hold.
pub fn escape(text: &str) -> Result<String, String> {
    check_chars(text)?;
    let mut out = String::with_capacity(text.len());
    escape_to(&mut out, text);
    Ok(out)
}

fn escape_to(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // A reader would make a line feed of it.
            '\r' => out.push_str("&#13;"),
            c => out.push(c),
        }
    }
}

struct Writer {
    out: String,
    /// Names and indexes down to where it stands.
    path: Vec<String>,
}

impl Writer {
    fn fail<T>(&self, reason: impl Into<String>) -> Result<T, WriteError> {
        Err(WriteError { path: self.path.concat().trim_start_matches('.').to_owned(), reason: reason.into() })
    }

    /// One element; `index` is its place in a list.
    fn element(&mut self, name: &str, value: &Value, index: Option<usize>) -> Result<(), WriteError> {
        self.path.push(index.map_or_else(|| format!(".{name}"), |index| format!(".{name}[{index}]")));
        if self.path.len() > limits::TREE_DEPTH {
            return self.fail(format!("XML is written up to {} levels deep", limits::TREE_DEPTH));
        }
        if let Err(reason) = check_name(name) {
            return self.fail(reason);
        }
        self.out.push('<');
        self.out.push_str(name);
        let start = self.out.len();
        match value {
            Value::Array(_) => return self.fail("XML has no lists in lists, and no list as its root"),
            Value::Object(map) => {
                self.attributes(map)?;
                let start = self.out.len();
                self.out.push('>');
                self.children(map)?;
                self.end(name, start);
            }
            scalar => {
                self.out.push('>');
                self.text(scalar)?;
                self.end(name, start);
            }
        }
        self.path.pop();
        Ok(())
    }

    /// Closes an element whose start tag ends at `start`.
    fn end(&mut self, name: &str, start: usize) {
        if self.out.len() == start + 1 {
            self.out.truncate(start);
            self.out.push_str("/>");
        } else {
            self.out.push_str("</");
            self.out.push_str(name);
            self.out.push('>');
        }
    }

    fn attributes(&mut self, map: &Map<String, Value>) -> Result<(), WriteError> {
        for (key, value) in map {
            let Some(name) = key.strip_prefix('@') else { continue };
            self.path.push(format!(".{key}"));
            if let Err(reason) = check_name(name) {
                return self.fail(reason);
            }
            if !value.is_null() {
                let text = self.scalar(value)?;
                self.out.push(' ');
                self.out.push_str(name);
                self.out.push_str("=\"");
                for c in text.chars() {
                    match c {
                        // A reader would make spaces of these.
                        '\t' => self.out.push_str("&#9;"),
                        '\n' => self.out.push_str("&#10;"),
                        c => escape_to(&mut self.out, c.encode_utf8(&mut [0; 4])),
                    }
                }
                self.out.push('"');
            }
            self.path.pop();
        }
        Ok(())
    }

    fn children(&mut self, map: &Map<String, Value>) -> Result<(), WriteError> {
        let children = map.iter().filter(|(key, _)| !key.starts_with('@') && *key != ORDER);
        let Some(order) = map.get(ORDER) else {
            for (name, value) in children {
                for (index, item) in (0..).map_while(|at| nth(value, at)) {
                    self.child(name, item, index)?;
                }
            }
            return Ok(());
        };
        let Some(order) = order.as_array() else { return self.fail("`#order` is a list of names") };
        let mut taken: IndexMap<&str, usize> = children.map(|(name, _)| (name.as_str(), 0)).collect();
        for name in order {
            let next = name.as_str().and_then(|name| {
                let taken = taken.get_mut(name)?;
                let (index, item) = nth(map.get(name)?, *taken)?;
                *taken += 1;
                Some((name, item, index))
            });
            let Some((name, item, index)) = next else {
                return self.fail(format!("`#order` names {name} more often than it is there"));
            };
            self.child(name, item, index)?;
        }
        for (name, taken) in taken {
            if map.get(name).is_some_and(|value| nth(value, taken).is_some()) {
                return self.fail(format!("`#order` names \"{name}\" less often than it is there"));
            }
        }
        Ok(())
    }

    fn child(&mut self, name: &str, value: &Value, index: Option<usize>) -> Result<(), WriteError> {
        match name {
            TEXT => self.text(value),
            _ if name.starts_with('#') => self.fail(format!("`{name}` is not known; use #text and #order")),
            _ => self.element(name, value, index),
        }
    }

    fn text(&mut self, value: &Value) -> Result<(), WriteError> {
        let text = self.scalar(value)?;
        escape_to(&mut self.out, &text);
        Ok(())
    }

    fn scalar(&self, value: &Value) -> Result<String, WriteError> {
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => return self.fail("a text or a number belongs here"),
        };
        match check_chars(&text) {
            Ok(()) => Ok(text),
            Err(reason) => self.fail(reason),
        }
    }
}

/// An item of a list, with its index; what is no list stands for its only item.
fn nth(value: &Value, at: usize) -> Option<(Option<usize>, &Value)> {
    match value {
        Value::Array(items) => items.get(at).map(|item| (Some(at), item)),
        one => (at == 0).then_some((None, one)),
    }
}
