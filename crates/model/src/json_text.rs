//! JSON that is written once and from then on handed on as text: what a history keeps of requests and answers.
//!
//! Guarantees that the text is one JSON value. Texts within it are copied in long stretches: few of the characters of
//! a history are written otherwise in JSON.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON value as text.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(String);

impl JsonText {
    /// The text of `value`.
    ///
    /// # Errors
    /// The value is none in JSON: a map with other keys than texts, or what its own code refuses.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(Self)
    }

    /// Takes a text that is JSON.
    ///
    /// # Errors
    /// It is not.
    pub fn parse(text: String) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<&RawValue>(&text)?;
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, to be kept.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Value> for JsonText {
    fn from(value: Value) -> Self {
        Self(value.to_string())
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: Box<RawValue> = Deserialize::deserialize(deserializer)?;
        Ok(Self(raw.get().to_owned()))
    }
}

impl JsonSchema for JsonText {
    fn schema_name() -> Cow<'static, str> {
        Value::schema_name()
    }

    fn inline_schema() -> bool {
        Value::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Value::json_schema(generator)
    }
}

/// Writes a [`JsonText`].
#[derive(Debug, Default)]
pub struct JsonWriter {
    out: String,
    has_escaped: bool,
}

impl JsonWriter {
    /// A writer with room for this many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: String::with_capacity(bytes), has_escaped: false }
    }

    /// What was written so far, where every text in it stands there as it is: none had to be escaped.
    #[must_use]
    pub fn verbatim(&self) -> Option<&str> {
        (!self.has_escaped).then_some(&*self.out)
    }

    /// JSON that is written already: punctuation and names of fields, or a whole value.
    pub fn raw(&mut self, json: &str) -> &mut Self {
        self.out.push_str(json);
        self
    }

    /// A text, with its quotes (RFC 8259, section 7).
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.out.reserve(text.len() + 2);
        self.out.push('"');
        let mut left = text;
        loop {
            let (plain, rest) = left.split_at(plain_length(left.as_bytes()));
            self.out.push_str(plain);
            let mut rest = rest.chars();
            let Some(c) = rest.next() else { break };
            self.has_escaped = true;
            self.escaped(c);
            left = rest.as_str();
        }
        self.out.push('"');
        self
    }

    /// A text, with its quotes, of characters that stand for themselves, such as a name of a header.
    pub fn plain(&mut self, text: &str) -> &mut Self {
        debug_assert_eq!(plain_length(text.as_bytes()), text.len(), "{text}");
        self.raw("\"").raw(text).raw("\"")
    }

    /// A value of any other kind; null for one that JSON does not have.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> &mut Self {
        // What is in it is not looked into.
        self.has_escaped = true;
        match serde_json::to_string(value) {
            Ok(json) => self.raw(&json),
            Err(_) => self.raw("null"),
        }
    }

    fn escaped(&mut self, c: char) {
        match c {
            '"' => self.raw("\\\""),
            '\\' => self.raw("\\\\"),
            '\n' => self.raw("\\n"),
            '\r' => self.raw("\\r"),
            '\t' => self.raw("\\t"),
            '\u{8}' => self.raw("\\b"),
            '\u{c}' => self.raw("\\f"),
            _ => {
                let digits = [u32::from(c) >> 4, u32::from(c) & 15].map(|digit| char::from_digit(digit, 16));
                self.raw("\\u00");
                self.out.extend(digits.into_iter().flatten());
                self
            }
        };
    }

    /// What was written, which is one JSON value.
    #[must_use]
    pub fn finish(self) -> JsonText {
        debug_assert!(serde_json::from_str::<&RawValue>(&self.out).is_ok(), "{}", self.out);
        JsonText(self.out)
    }
}

/// How many bytes at the beginning stand for themselves.
fn plain_length(bytes: &[u8]) -> usize {
    // Many at once, without an early end, so that they are compared side by side.
    let is_plain = |block: &&[u8; 32]| !block.iter().fold(false, |found, byte| found | is_escaped(*byte));
    let plain = bytes.as_chunks().0.iter().take_while(is_plain).count() * 32;
    let (words, rest) = bytes[plain..].as_chunks();
    for (n, word) in words.iter().enumerate() {
        let found = escaped_in(u64::from_le_bytes(*word));
        if found != 0 {
            return plain + n * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    bytes.len() - rest.len() + rest.iter().take_while(|byte| !is_escaped(**byte)).count()
}

fn is_escaped(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// Eight bytes at once: the highest bit of each that has to be escaped. Right for the first one; of those after it some
/// may be marked by what was carried over.
fn escaped_in(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGHEST: u64 = ONES << 7;
    let below = |word: u64, least: u64| word.wrapping_sub(ONES * least) & !word;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | equal(b'"') | equal(b'\\')) & HIGHEST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn is_handed_on_as_it_is() {
        let text = JsonText::parse(r#"{"a" : 1.10, "b":[]}"#.to_owned()).unwrap();
        assert_eq!(json!({"of": text}).to_string(), r#"{"of":{"a":1.10,"b":[]}}"#);
        assert_eq!(serde_json::to_string(&[&text]).unwrap(), r#"[{"a" : 1.10, "b":[]}]"#);
        assert_eq!(serde_json::from_str::<JsonText>(r#" {"a" : 1.10, "b":[]} "#).unwrap(), text);
        assert_eq!(serde_json::from_value::<JsonText>(json!([1])).unwrap(), JsonText::of(&[1]).unwrap());
        assert_eq!(text.value().to_string(), r#"{"a":1.10,"b":[]}"#);
        assert!(JsonText::parse("{".to_owned()).is_err() && JsonText::parse("1 2".to_owned()).is_err());
    }

    #[test]
    fn what_is_no_json_is_null() {
        let mut writer = JsonWriter::default();
        writer.raw("[").value(&std::collections::HashMap::from([((1, 2), 3)])).raw(",").value(&json!({"a": "b"}));
        writer.raw("]");
        assert_eq!(writer.finish().as_str(), r#"[null,{"a":"b"}]"#);
    }

    proptest! {
        #[test]
        fn writes_texts_as_the_library_does(text in prop_oneof![".{0,200}", "[ -~\u{0}-\u{1f}\"\\\\\u{7f}é😀]{0,200}", "[a-zé]{0,100}[\"\n\u{1}]?[a-z]{0,90}"]) {
            let mut writer = JsonWriter::with_capacity(0);
            writer.text(&text);
            prop_assert_eq!(writer.finish(), JsonText::of(&text).unwrap());
        }
    }
}
