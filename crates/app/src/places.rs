//! Lines of a YAML document by the paths of its values, for what is wrong with one of them.

use std::fmt;

use linkspan_model::Fault;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::documents::Source;

/// Where the values of a document stand.
pub(crate) struct Places<'a> {
    source: &'a Source,
    root: Option<Spanned<Node>>,
}

/// A value without what it says: what is below it, each with its place.
enum Node {
    Leaf,
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
                Node::deserialize(deserializer)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node, A::Error> {
                let mut map = Vec::new();
                while let Some(key) = fields.next_key::<String>()? {
                    map.push((key, fields.next_value()?));
                }
                Ok(Node::Map(map))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl<'a> Places<'a> {
    /// Where the values of a document stand. Read only when something is wrong.
    pub(crate) fn of(source: &'a Source) -> Self {
        // What reads as a document reads as this; if ever not, the place of the document remains.
        Self { source, root: serde_saphyr::from_str(&source.text).ok() }
    }

    /// A fault of the document with its place: `FILE:LINE: …`.
    pub(crate) fn say(&self, fault: &Fault) -> String {
        match self.line(&fault.path) {
            Some(line) => format!("{}:{line}: {fault}", self.source.file),
            None => format!("{}: {fault}", self.source.place),
        }
    }

    /// The line of the value at a path, or of what it would stand in.
    fn line(&self, path: &str) -> Option<usize> {
        let mut found = self.root.as_ref()?;
        let mut rest = path;
        while let Some((below, after)) = step(&found.value, rest) {
            (found, rest) = (below, after);
        }
        if rest.len() == path.len() {
            return None;
        }
        usize::try_from(found.referenced.line()).ok().map(|line| line + self.source.line - 1)
    }
}

/// The value that the beginning of a path leads to, and the rest of the path. Names may hold dots.
fn step<'a, 'p>(node: &'a Node, path: &'p str) -> Option<(&'a Spanned<Node>, &'p str)> {
    match node {
        Node::Leaf => None,
        Node::List(items) => {
            let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
            Some((items.get(index.parse::<usize>().ok()?)?, rest))
        }
        Node::Map(fields) => {
            let path = path.strip_prefix('.').unwrap_or(path);
            let leads = |key: &str| {
                let rest = path.strip_prefix(key)?;
                (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
            };
            let found = fields.iter().filter_map(|(key, value)| Some((key.len(), value, leads(key)?)));
            found.max_by_key(|(length, ..)| *length).map(|(_, value, rest)| (value, rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::parse;

    #[test]
    fn a_fault_is_at_the_line_of_its_value() {
        let text = "# a file\nkind: a\n---\nkind: connector\nname: x\nspec:\n  actions:\n    get:\n      request:\n        query:\n          a.b: 1\n          a: 2\n  tests: [\n    {name: one},\n    {name: two}]\n";
        let sources = parse("f.yaml", text).unwrap();
        let places = Places::of(&sources[1]);
        for (path, line) in [
            ("spec.actions.get.request.query.a.b", Some(11)),
            ("spec.actions.get.request.query.a", Some(12)),
            ("spec.actions.get.request.path", Some(10)),
            ("spec.tests[1].name", Some(15)),
            ("spec.tests[7]", Some(13)),
            ("nothing", None),
            ("", None),
        ] {
            assert_eq!(places.line(path), line, "{path}");
        }
        let fault = Fault::new("spec.tests[1].name", "is wrong");
        assert_eq!(places.say(&fault), "f.yaml:15: spec.tests[1].name: is wrong");
        assert_eq!(places.say(&Fault::new("", "is wrong")), "f.yaml:4: is wrong");
    }
}
