//! YAML as data: reading and [writing](write()).
//!
//! Plain scalars are what the core schema of YAML 1.2 (section 10.3.2) says: `off`, `no` and `y` are strings.
//! Numbers keep every digit, as in JSON; none passes through a float. What JSON has no spelling for is written
//! as JSON would (`+5` is 5, `.5` is 0.5, `0x1F` is 31). Digits with zeros before them (`01234`) are a string: they are
//! an id more often than a count, and no number could keep them. JSON is read too, as YAML contains it.

mod write;

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use indexmap::IndexMap;
use indexmap::map::Entry;
use serde_json::{Number, Value};

pub use write::{write, write_all};

/// Most values of a text, those counted again that an alias stands for: a connector of a large API has a million.
pub const VALUES_MAX: usize = 5_000_000;
/// Most levels of brackets and indents.
pub const LEVELS_MAX: usize = 100;

/// What a key that stands twice in one mapping means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepeatedKeys {
    /// An error, as YAML has it (section 3.2.1.3).
    Refuse,
    /// Mappings without a common key are joined, of all else the last counts; all are reported.
    Join,
}

/// A key that stands twice in one mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// The key.
    pub key: String,
    /// The line of the repetition, from 1, where it is known.
    pub line: Option<usize>,
}

/// Joins what a repeated key says to what it said before, as [`RepeatedKeys::Join`] has it.
pub fn join_repeated(earlier: &mut Value, later: Value) {
    match (earlier, later) {
        (Value::Object(earlier), Value::Object(later)) if !later.keys().any(|key| earlier.contains_key(key)) => {
            earlier.extend(later);
        }
        (earlier, later) => *earlier = later,
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The value.
    pub value: Value,
    /// Keys that stood more than once in their mapping.
    pub repeated: Vec<Repeated>,
}

/// Why a text is not YAML, or nothing that JSON could say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct YamlError {
    /// Line and column, from 1, where they are known.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub reason: String,
}

impl YamlError {
    fn new(span: Span, reason: impl Into<String>) -> Self {
        Self { at: Some((span.start.line(), span.start.col() + 1)), reason: reason.into() }
    }
}

/// A value with the place where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// The line at which it begins, from 1; of an alias that of the alias.
    pub line: usize,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Content {
    /// Neither list nor mapping.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A mapping.
    Map(IndexMap<String, Node>),
}

impl Node {
    fn into_value(self) -> Value {
        match self.content {
            Content::Scalar(value) => value,
            Content::List(items) => items.into_iter().map(Self::into_value).collect(),
            Content::Map(fields) => {
                let fields = fields.into_iter().map(|(key, node)| (key, node.into_value()));
                Value::Object(fields.collect())
            }
        }
    }

    /// How many values it has, and on how many levels.
    fn weight(&self) -> (usize, usize) {
        let of = |inner: &mut dyn Iterator<Item = &Self>| {
            let (values, levels) = inner.map(Self::weight).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1.max(one.1)));
            (values + 1, levels + 1)
        };
        match &self.content {
            Content::Scalar(_) => (1, 0),
            Content::List(items) => of(&mut items.iter()),
            Content::Map(fields) => of(&mut fields.values()),
        }
    }
}

/// Reads one document; an empty text is null.
///
/// # Errors
/// When it is not YAML, has more than [`VALUES_MAX`] values or [`LEVELS_MAX`] levels, or holds infinity or NaN.
pub fn read(text: &str, repeated_keys: RepeatedKeys) -> Result<Read, YamlError> {
    let (node, repeated) = nodes(text, repeated_keys)?;
    Ok(Read { value: node.into_value(), repeated })
}

/// Reads one document, with the places of its values.
///
/// # Errors
/// As [`read`].
pub fn nodes(text: &str, repeated_keys: RepeatedKeys) -> Result<(Node, Vec<Repeated>), YamlError> {
    let mut loading = Loading {
        repeated_keys,
        stack: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        values: 0,
        repeated: Vec::new(),
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = error.marker();
            YamlError { at: Some((at.line(), at.col() + 1)), reason: error.info().to_string() }
        })?;
        loading.take(event, span)?;
    }
    let root = loading.root.unwrap_or(Node { line: 1, content: Content::Scalar(Value::Null) });
    Ok((root, loading.repeated))
}

/// A list or a mapping that is not yet at its end.
struct Open {
    line: usize,
    anchor: usize,
    collection: Collection,
}

#[expect(clippy::large_enum_variant, reason = "there are no more of them at once than levels")]
enum Collection {
    List(Vec<Node>),
    Map {
        fields: IndexMap<String, Node>,
        /// The key whose value comes next.
        key: Option<Key>,
        /// What is put in by `<<`, the most important first.
        merged: Vec<Node>,
    },
}

enum Key {
    Name(String, Span),
    Merge,
}

/// A document under way. It keeps a stack of its own: a text decides how deep it is.
struct Loading {
    repeated_keys: RepeatedKeys,
    stack: Vec<Open>,
    root: Option<Node>,
    /// Nodes with a name, and their weight.
    anchors: HashMap<usize, (Node, (usize, usize))>,
    values: usize,
    repeated: Vec<Repeated>,
}

impl Loading {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = if self.awaits_key() {
                    if style == ScalarStyle::Plain && text == "<<" && tag.is_none() {
                        return self.key(Key::Merge);
                    }
                    // A key is a string, whatever it looks like.
                    Value::String(text.into_owned())
                } else {
                    scalar(&text, style, tag.as_deref()).map_err(|reason| YamlError::new(span, reason))?
                };
                self.count(1, 0, span)?;
                self.put(Node { line, content: Content::Scalar(value) }, anchor, span)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(Open { line, anchor, collection: Collection::List(Vec::new()) }, span)
            }
            Event::MappingStart(_, anchor, _) => {
                let collection = Collection::Map { fields: IndexMap::new(), key: None, merged: Vec::new() };
                self.open(Open { line, anchor, collection }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.stack.pop() else { return Ok(()) };
                let content = match open.collection {
                    Collection::List(items) => Content::List(items),
                    Collection::Map { mut fields, merged, .. } => {
                        for node in merged {
                            merge(&mut fields, node).map_err(|reason| YamlError::new(span, reason))?;
                        }
                        Content::Map(fields)
                    }
                };
                self.put(Node { line: open.line, content }, open.anchor, span)
            }
            Event::Alias(anchor) => {
                // A name is known from the end of its node on, so that none can hold itself.
                let Some((node, (values, levels))) = self.anchors.get(&anchor) else {
                    return Err(YamlError::new(span, "an alias stands within what it stands for"));
                };
                let (node, values, levels) = (node.clone(), *values, *levels);
                self.count(values, levels, span)?;
                self.put(Node { line, content: node.content }, 0, span)
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                Err(YamlError::new(span, "a second document begins here"))
            }
            _ => Ok(()),
        }
    }

    fn awaits_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open { collection: Collection::Map { key: None, .. }, .. }))
    }

    /// Counts values that come, on so many levels below this one.
    fn count(&mut self, values: usize, levels: usize, span: Span) -> Result<(), YamlError> {
        self.values = self.values.saturating_add(values);
        if self.values > VALUES_MAX {
            return Err(YamlError::new(span, format!("more than {VALUES_MAX} values")));
        }
        if self.stack.len() + levels > LEVELS_MAX {
            return Err(YamlError::new(span, format!("deeper than {LEVELS_MAX} levels")));
        }
        Ok(())
    }

    fn open(&mut self, open: Open, span: Span) -> Result<(), YamlError> {
        if self.awaits_key() {
            return Err(YamlError::new(span, "a key is a string, no list and no mapping"));
        }
        self.count(1, 1, span)?;
        self.stack.push(open);
        Ok(())
    }

    fn key(&mut self, new: Key) -> Result<(), YamlError> {
        if let Some(Open { collection: Collection::Map { key, .. }, .. }) = self.stack.last_mut() {
            *key = Some(new);
        }
        Ok(())
    }

    /// Puts a whole node where it belongs.
    fn put(&mut self, node: Node, anchor: usize, span: Span) -> Result<(), YamlError> {
        if anchor != 0 {
            // The copy counts too: names within names would keep many of the same.
            let weight = node.weight();
            self.count(weight.0, 0, span)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        if self.awaits_key() {
            return match node.content {
                Content::Scalar(Value::String(name)) => self.key(Key::Name(name, span)),
                Content::Scalar(other) => self.key(Key::Name(other.to_string(), span)),
                _ => Err(YamlError::new(span, "a key is a string, no list and no mapping")),
            };
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.collection {
            Collection::List(items) => items.push(node),
            Collection::Map { fields, key, merged } => match key.take() {
                Some(Key::Merge) => merged.push(node),
                Some(Key::Name(name, at)) => match fields.entry(name) {
                    Entry::Vacant(entry) => {
                        entry.insert(node);
                    }
                    Entry::Occupied(entry) if self.repeated_keys == RepeatedKeys::Refuse => {
                        let reason = format!("the key `{}` stands twice in one mapping", entry.key());
                        return Err(YamlError::new(at, reason));
                    }
                    Entry::Occupied(mut entry) => {
                        self.repeated.push(Repeated { key: entry.key().clone(), line: Some(at.start.line()) });
                        match (&mut entry.get_mut().content, node.content) {
                            (Content::Map(earlier), Content::Map(later))
                                if !later.keys().any(|key| earlier.contains_key(key)) =>
                            {
                                earlier.extend(later);
                            }
                            (earlier, later) => *earlier = later,
                        }
                    }
                },
                None => {}
            },
        }
        Ok(())
    }
}

/// Puts in what `<<` names: what is said already stays (YAML 1.1, type `merge`).
fn merge(fields: &mut IndexMap<String, Node>, node: Node) -> Result<(), &'static str> {
    match node.content {
        Content::Map(more) => {
            for (key, node) in more {
                fields.entry(key).or_insert(node);
            }
            Ok(())
        }
        Content::List(nodes) => nodes.into_iter().try_for_each(|node| match node.content {
            Content::Map(_) => merge(fields, node),
            _ => Err(MERGE),
        }),
        Content::Scalar(_) => Err(MERGE),
    }
}

const MERGE: &str = "`<<` takes a mapping, or a list of mappings";

/// What a scalar is, by its tag, else by the core schema.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let kind = tag.filter(|tag| tag.handle() == "tag:yaml.org,2002:").map(Tag::suffix);
    let is_string =
        style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.handle().is_empty() && tag.suffix() == "!");
    let number = || spelled(text).and_then(|text| text.parse::<Number>().ok()).map(Value::Number);
    match kind {
        Some("str") => Ok(text.into()),
        Some("null") => Ok(Value::Null),
        Some("int" | "float") => number().ok_or_else(|| format!("`{text}` is not a number of JSON")),
        Some("bool") => truth(text).map(Value::Bool).ok_or_else(|| format!("`{text}` is neither true nor false")),
        _ if is_string => Ok(text.into()),
        _ => match text {
            "" | "~" | "null" | "Null" | "NULL" => Ok(Value::Null),
            _ if is_not_finite(text) => {
                Err("infinity and NaN are no numbers of JSON; write a string in quotes".to_owned())
            }
            _ => Ok(truth(text).map(Value::Bool).or_else(number).unwrap_or_else(|| text.into())),
        },
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn is_not_finite(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// A number of YAML's core schema as JSON spells it; none for what JSON has no number for.
fn spelled(text: &str) -> Option<String> {
    let radix = |digits: &str, radix: u32| {
        let is_digits = digits.chars().all(|c| c.is_digit(radix));
        is_digits.then(|| u128::from_str_radix(digits, radix).ok().map(|number| number.to_string())).flatten()
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => unsigned.split_at(at),
        None => (unsigned, ""),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !fraction.is_none_or(is_digits) || whole.is_empty() && fraction.is_none_or(str::is_empty) {
        return None;
    }
    if whole.len() > 1 && whole.starts_with('0') {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let fraction =
        fraction.map(|digits| format!(".{}", if digits.is_empty() { "0" } else { digits })).unwrap_or_default();
    Some(format!("{sign}{whole}{fraction}{exponent}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(text: &str) -> Value {
        read(text, RepeatedKeys::Refuse).unwrap().value
    }

    #[test]
    fn numbers_keep_every_digit() {
        for (text, expected) in [
            ("76159173374952512310", "76159173374952512310"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("-123456789012345678901234567890", "-123456789012345678901234567890"),
            ("1.10", "1.10"),
            ("-0.0", "-0.0"),
            ("-0", "-0"),
            ("0", "0"),
            ("1e2", "1e+2"),
            ("1E5", "1e+5"),
            ("1.50e-7", "1.50e-7"),
            ("1e999", "1e+999"),
            ("-1e999", "-1e+999"),
            ("3.14159265358979323846264338327950288", "3.14159265358979323846264338327950288"),
            ("+5", "5"),
            (".5", "0.5"),
            ("-.5e1", "-0.5e+1"),
            ("5.", "5.0"),
            ("0x1F", "31"),
            ("0xFFFFFFFFFFFFFFFFFF", "4722366482869645213695"),
            ("0o17", "15"),
            ("!!int 7", "7"),
            ("!!int '7'", "7"),
            ("!!float 1.10", "1.10"),
        ] {
            for (text, read) in [
                (text.to_owned(), value(text)),
                (format!("a: {text} # why"), value(&format!("a: {text} # why"))["a"].clone()),
                (format!("é: [x, {text}]"), value(&format!("é: [x, {text}]"))["é"][1].clone()),
                (format!("a: &a {text}\nb: *a"), value(&format!("a: &a {text}\nb: *a"))["b"].clone()),
                (
                    format!("a: &a {{c: {text}}}\nb: {{<<: *a}}"),
                    value(&format!("a: &a {{c: {text}}}\nb: {{<<: *a}}"))["b"]["c"].clone(),
                ),
            ] {
                assert!(read.is_number(), "{text}: {read:?}");
                assert_eq!(read.to_string(), expected, "{text}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_number_is_a_string() {
        for text in [
            "01234",
            "007",
            "1_000",
            "0b11",
            "00.5",
            "1.2.3",
            "12:30",
            "2026-01-01",
            "1e",
            "0x",
            "0xG",
            "0x1FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
            "5e+",
        ] {
            assert_eq!(value(&format!("a: {text}")), json!({"a": text}), "{text}");
        }
        assert_eq!(
            value("a: '1.10'\nb: \"7\"\nc: !!str 1.10\nd: |-\n  8\n"),
            json!({"a": "1.10", "b": "7", "c": "1.10", "d": "8"})
        );
    }

    #[test]
    fn words_of_older_yaml_are_strings() {
        assert_eq!(
            value("[off, NO, y, true, True, FALSE, null, ~, Null, '']"),
            json!(["off", "NO", "y", true, true, false, null, null, null, ""])
        );
    }

    #[test]
    fn infinity_and_nan_are_named_with_their_place() {
        for text in [".inf", "-.inf", ".nan", "+.INF"] {
            let error = read(&format!("a: 1\nb: {text}"), RepeatedKeys::Refuse).unwrap_err();
            assert_eq!(error.at, Some((2, 4)), "{text}");
        }
    }

    #[test]
    fn repeated_keys_are_refused_or_reported() {
        let text = "a: 1\nb: {c: 1, c: 2}\na: 3\n";
        assert!(read(text, RepeatedKeys::Refuse).unwrap_err().reason.contains("stands twice"));
        let read = read(text, RepeatedKeys::Join).unwrap();
        assert_eq!(read.value, json!({"a": 3, "b": {"c": 2}}));
        let repeated: Vec<(&str, Option<usize>)> =
            read.repeated.iter().map(|found| (found.key.as_str(), found.line)).collect();
        assert_eq!(repeated, [("c", Some(2)), ("a", Some(3))]);
    }

    #[test]
    fn what_is_too_deep_is_refused_and_not_a_crash() {
        let nested = |n: usize| "[".repeat(n) + "1.10" + &"]".repeat(n);
        let mappings = |n: usize| "{a: ".repeat(n) + "1.10" + &"}".repeat(n);
        for keys in [RepeatedKeys::Refuse, RepeatedKeys::Join] {
            assert!(read(&nested(LEVELS_MAX), keys).is_ok());
            assert!(read(&mappings(LEVELS_MAX), keys).is_ok());
            let deep = [
                "[".repeat(100_000),
                "{a: ".repeat(100_000),
                "- ".repeat(10_000),
                "a: ".to_owned() + &"{a: ".repeat(5_000),
            ];
            for text in deep.iter().chain([&nested(LEVELS_MAX + 1), &mappings(LEVELS_MAX + 1)]) {
                assert!(read(text, keys).is_err(), "{keys:?} {:.20}", text);
            }
        }
    }

    #[test]
    fn aliases_and_merges_are_read_and_bounded() {
        assert_eq!(
            value("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a"),
            json!({"a": {"x": 1, "y": 2}, "b": {"y": 3, "x": 1}, "c": {"x": 1, "y": 2}})
        );
        assert_eq!(value("- &a {x: 1}\n- &b {x: 2, y: 2}\n- <<: [*a, *b]\n- '<<': 1")[2], json!({"x": 1, "y": 2}));
        let refused = |text: &str| read(text, RepeatedKeys::Refuse).unwrap_err().reason;
        assert!(refused("a: &a [*a]").contains("within"));
        assert!(read("a: *b", RepeatedKeys::Refuse).is_err());
        assert!(refused("<<: 1").contains("<<"));
        assert!(refused("[1]: 2").contains("key"));
        assert!(refused("a: 1\n---\nb: 2").contains("second document"));
        // Each line ten times the one before.
        let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for n in 1..12 {
            let of = format!("*a{}", n - 1);
            bomb += &format!("a{n}: &a{n} [{}]\n", [of.as_str(); 10].join(", "));
        }
        assert!(refused(&bomb).contains("values"));
        let deep: String = (1..200).map(|n| format!("a{n}: &a{n} [*a{}]\n", n - 1)).collect();
        assert!(refused(&format!("a0: &a0 []\n{deep}")).contains("levels"));
        assert_eq!(value(""), Value::Null);
        assert_eq!(value("# only this"), Value::Null);
        assert_eq!(value("a: !own 1\nb: !!binary aGk=\nc: ! 1"), json!({"a": 1, "b": "aGk=", "c": "1"}));
    }

    #[test]
    fn json_is_read_as_it_is() {
        let text =
            r#"{"a": 1.10, "b": [76159173374952512310, -0.0], "c": "1.10", "d": "\ud83d\ude00\/\u0041\n", "e": null}"#;
        assert_eq!(value(text), serde_json::from_str::<Value>(text).unwrap());
    }
}
