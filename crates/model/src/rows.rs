//! Events as rows of a table, and the catalogue of the table's columns.
//!
//! Every event ends in rows: one packed, or unpacked one for each element of an array and one for everything
//! else. A body that cannot be unpacked (not JSON, too deep, too large) becomes one row whose column
//! `payload` holds it whole, and says why. Values are lossless: a number beyond 64 bits or with a fraction is
//! the text that was sent, a list or an object its JSON text byte for byte.
//!
//! Columns only widen, by a lattice in which text is above everything; the name that a key got is kept for
//! good, so that loading an event again fills the same columns. Keys are the sender's choice: one that is too long,
//! or comes when the table is full, has no column, and its value stays in [`REST`].

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::id::EventId;
use crate::limits::{COLUMN_KEY_BYTES, COLUMNS_MAX, LEFT_OUT_KEYS};
use crate::naming::{column_name, free_name};
use crate::sync::SyncFormat;
use crate::time::Timestamp;
use crate::{charset, tree, xml};

/// The columns that every table has: event, element, when it was received, when it was loaded.
pub const SYSTEM_COLUMNS: [&str; 4] = ["_id", "_index", "_received_at", "_synced_at"];

/// The key under which a whole body stands.
pub const PAYLOAD: &str = "payload";

/// The column of keys that have none of their own: a JSON object. A table has it once there are such keys.
pub const REST: &str = "_rest";

/// Most characters of a key that is shown among those without a column.
const SHOWN_KEY_CHARS: usize = 80;

/// The rows of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The rows, in order of their index.
    pub rows: Vec<Row>,
    /// Why the body stands whole in `payload`, or there not as it came.
    pub unparsed: Option<Unparsed>,
}

/// One row, but for the time of loading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The event.
    pub id: EventId,
    /// The place in an array body, else 0.
    pub index: u64,
    /// When the event was accepted.
    pub received_at: Timestamp,
    /// Values by the key that they have in the payload; [`Columns`] tells the column.
    pub cells: IndexMap<String, Cell>,
}

/// Why a body was not taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unparsed {
    /// No text in its character set: `payload` holds it in base64.
    #[error("not text in its character set; kept in base64")]
    Bytes,
    /// Unpacked rows need JSON; `payload` holds the text.
    #[error("{0}")]
    Tree(#[from] tree::TreeError),
}

/// A value in a row, lossless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// JSON null.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number within 64 bits.
    Int(i64),
    /// Any other number, as written.
    Decimal(String),
    /// A text.
    Text(String),
    /// A list or an object, as written.
    Json(String),
}

impl Cell {
    /// The narrowest type of a column that holds it.
    #[must_use]
    pub const fn column_type(&self) -> ColumnType {
        match self {
            Self::Null => ColumnType::Null,
            Self::Bool(_) => ColumnType::Bool,
            Self::Int(_) => ColumnType::Int,
            Self::Decimal(_) => ColumnType::Decimal,
            Self::Text(_) => ColumnType::Text,
            Self::Json(_) => ColumnType::Json,
        }
    }

    /// What it is in a column that has widened to text; `None` for null.
    #[must_use]
    pub fn to_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Null => None,
            Self::Bool(is) => Some(Cow::Borrowed(if *is { "true" } else { "false" })),
            Self::Int(number) => Some(Cow::Owned(number.to_string())),
            Self::Decimal(text) | Self::Text(text) | Self::Json(text) => Some(Cow::Borrowed(text)),
        }
    }

    /// Bytes that it holds beside itself.
    #[must_use]
    pub const fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) => 0,
            Self::Decimal(text) | Self::Text(text) | Self::Json(text) => text.len(),
        }
    }

    /// Adds it to a JSON text.
    fn write_json(&self, json: &mut String) {
        match self {
            Self::Null => json.push_str("null"),
            Self::Text(text) => json.push_str(&Value::from(text.as_str()).to_string()),
            _ => json.push_str(&self.to_text().unwrap_or_default()),
        }
    }

    fn read(raw: &RawValue) -> Self {
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'{' | b'[') => Self::Json(text.to_owned()),
            // A text that no Unicode string can hold, such as half a surrogate pair, stays as written.
            Some(b'"') => Self::Text(serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())),
            _ => match text.parse::<i64>() {
                // `-0` would lose its sign.
                Ok(number) if text != "-0" => Self::Int(number),
                _ => Self::Decimal(text.to_owned()),
            },
        }
    }
}

/// The rows of an event with this body; its content type may declare a character set.
#[must_use]
pub fn rows(id: EventId, received_at: Timestamp, content_type: Option<&str>, body: &[u8], format: SyncFormat) -> Rows {
    let row = |index: usize, cells| Row { id, index: index as u64, received_at, cells };
    let whole = |text: String, unparsed| Rows {
        rows: vec![row(0, IndexMap::from([(PAYLOAD.to_owned(), Cell::Text(text))]))],
        unparsed,
    };
    // As for pills: JSON is UTF-8 before it is what it declares.
    let text = match tree::looks_like_json(body) {
        true => tree::text_of_json(content_type, body).ok(),
        false => charset::decode(body, charset::declared(content_type)).ok(),
    };
    let Some(text) = text else {
        return whole(STANDARD.encode(body), Some(Unparsed::Bytes));
    };
    match format {
        SyncFormat::Packed => whole(text.into_owned(), None),
        SyncFormat::Unpacked => match unpacked(&text) {
            Ok(elements) => Rows {
                rows: elements.into_iter().enumerate().map(|(index, cells)| row(index, cells)).collect(),
                unparsed: None,
            },
            Err(error) => whole(text.into_owned(), Some(error.into())),
        },
    }
}

/// The row of an event whose body is XML: attributes, children and text of the root element, as
/// [`crate::xml`] gives them. What has no tree stands whole in `payload`.
#[must_use]
pub fn xml_rows(id: EventId, received_at: Timestamp, content_type: Option<&str>, body: &[u8]) -> Rows {
    let unparsed = match xml::read(content_type, body) {
        Ok(tree) => {
            let root = tree.as_object().and_then(|tree| tree.values().next()).cloned().unwrap_or_default();
            let shaped = rows(id, received_at, None, root.to_string().as_bytes(), SyncFormat::Unpacked);
            match shaped.unparsed {
                None => return shaped,
                Some(unparsed) => unparsed,
            }
        }
        Err(error) => error.into(),
    };
    let whole = rows(id, received_at, content_type, body, SyncFormat::Packed);
    Rows { unparsed: whole.unparsed.or(Some(unparsed)), ..whole }
}

/// The cells of each row of a JSON text.
fn unpacked(text: &str) -> Result<Vec<IndexMap<String, Cell>>, tree::TreeError> {
    tree::measure(text.as_bytes())?;
    let not_json = |error: serde_json::Error| tree::TreeError::NotJson(error.to_string());
    let raw: &RawValue = serde_json::from_str(text).map_err(not_json)?;
    if raw.get().starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(not_json)?;
        return elements.into_iter().map(|element| cells(element).map_err(not_json)).collect();
    }
    Ok(vec![cells(raw).map_err(not_json)?])
}

/// One cell for each first-level key, the last of a repeated one; for anything but an object a `payload`.
fn cells(raw: &RawValue) -> Result<IndexMap<String, Cell>, serde_json::Error> {
    if !raw.get().starts_with('{') {
        return Ok(IndexMap::from([(PAYLOAD.to_owned(), Cell::read(raw))]));
    }
    let fields: IndexMap<String, &RawValue> = match serde_json::from_str(raw.get()) {
        Ok(fields) => fields,
        // A key that no Unicode string can hold is its JSON, as it was written.
        Err(_) => serde_json::from_str::<RawKeys>(raw.get())?.0,
    };
    Ok(fields.into_iter().map(|(key, raw)| (key, Cell::read(raw))).collect())
}

/// An object whose keys need not be text.
struct RawKeys<'a>(IndexMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for RawKeys<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> serde::de::Visitor<'de> for Keys {
            type Value = IndexMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                let mut map = IndexMap::new();
                while let Some((key, value)) = fields.next_entry::<&RawValue, &RawValue>()? {
                    let key = key.get();
                    map.insert(serde_json::from_str(key).unwrap_or_else(|_| key.to_owned()), value);
                }
                Ok(map)
            }
        }

        deserializer.deserialize_map(Keys).map(Self)
    }
}

/// The type of a column: what all its values fit into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// Only nulls so far.
    Null,
    /// Truth values.
    Bool,
    /// Whole numbers within 64 bits.
    Int,
    /// Numbers as text, as written.
    Decimal,
    /// JSON text of lists and objects.
    Json,
    /// Text: above everything.
    Text,
}

impl ColumnType {
    /// The narrowest type that holds both.
    #[must_use]
    pub fn widened(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Null, other) | (other, Self::Null) => other,
            (Self::Int, Self::Decimal) | (Self::Decimal, Self::Int) => Self::Decimal,
            _ => Self::Text,
        }
    }
}

/// What an integer means that is stored in a column. The first of both that comes decides for good, so that what
/// stands in a column need not be rewritten when it widens, and does not depend on how events were cut into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Integers {
    /// Neither has come.
    #[default]
    Unused,
    /// A truth value; whole numbers are stored as text.
    Bool,
    /// A whole number; truth values are stored as text.
    Int,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The key in the payload that it holds.
    pub source: String,
    /// Its name in the table.
    pub name: String,
    /// Its type so far.
    pub column_type: ColumnType,
    /// What integers in it mean.
    pub integers: Integers,
}

/// The catalogue of a table's columns beside [`SYSTEM_COLUMNS`], in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    by_source: IndexMap<String, Column>,
    /// Every name that is taken, also by columns whose key is not known any more.
    names: HashSet<String>,
    /// How many of the names are such.
    reserved: usize,
    rest: String,
}

/// What a catalogue learnt from rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Columns that are new or wider now.
    pub changed: usize,
    /// Values of keys that have no column.
    pub left_out: u64,
    /// Some of these keys, shortened: at most [`LEFT_OUT_KEYS`].
    pub left_out_keys: BTreeSet<String>,
}

impl Learnt {
    /// Takes in what else was learnt.
    pub fn add(&mut self, more: Self) {
        self.changed += more.changed;
        self.left_out += more.left_out;
        for key in more.left_out_keys {
            self.name_key(&key);
        }
    }

    fn leave_out(&mut self, source: &str) {
        self.left_out += 1;
        self.name_key(source);
    }

    fn name_key(&mut self, key: &str) {
        if self.left_out_keys.len() >= LEFT_OUT_KEYS {
            return;
        }
        let shown = match key.char_indices().nth(SHOWN_KEY_CHARS) {
            Some((end, '…')) if key.len() == end + '…'.len_utf8() => key.to_owned(),
            Some((end, _)) => format!("{}…", &key[..end]),
            None => key.to_owned(),
        };
        self.left_out_keys.insert(shown);
    }
}

impl Default for Columns {
    fn default() -> Self {
        Self::restore(Vec::new(), Vec::new())
    }
}

impl Columns {
    /// A table without columns of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The catalogue of a table with these columns, in order, and `reserved` names that belong to no known key.
    #[must_use]
    pub fn restore(columns: Vec<Column>, reserved: Vec<String>) -> Self {
        let names: HashSet<String> = columns.iter().map(|column| column.name.clone()).chain(reserved).collect();
        let by_source: IndexMap<_, _> = columns.into_iter().map(|column| (column.source.clone(), column)).collect();
        let rest = free_name(REST, |name| names.contains(name));
        Self { reserved: names.len().saturating_sub(by_source.len()), by_source, names, rest }
    }

    /// The columns, in the order in which they came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Column> {
        self.by_source.values()
    }

    /// The column of the key `source`.
    #[must_use]
    pub fn by_source(&self, source: &str) -> Option<&Column> {
        self.by_source.get(source)
    }

    /// The name of the column of keys that have none of their own: [`REST`], unless a key has that already.
    #[must_use]
    pub fn rest_name(&self) -> &str {
        &self.rest
    }

    /// The keys of a row that have no column, with their values, as a JSON object; `None` when all have one.
    #[must_use]
    pub fn rest(&self, row: &Row) -> Option<String> {
        let mut json = String::new();
        for (source, cell) in &row.cells {
            if self.by_source.contains_key(source) {
                continue;
            }
            json.push(if json.is_empty() { '{' } else { ',' });
            json.push_str(&Value::from(source.as_str()).to_string());
            json.push(':');
            cell.write_json(&mut json);
        }
        if json.is_empty() {
            return None;
        }
        json.push('}');
        Some(json)
    }

    /// Takes a row's keys and types in.
    pub fn learn(&mut self, row: &Row) -> Learnt {
        let mut learnt = Learnt::default();
        for (source, cell) in &row.cells {
            self.take_in(source, cell.column_type(), &mut learnt);
        }
        learnt
    }

    fn take_in(&mut self, source: &str, column_type: ColumnType, learnt: &mut Learnt) {
        let integers = match column_type {
            ColumnType::Bool => Integers::Bool,
            ColumnType::Int => Integers::Int,
            _ => Integers::Unused,
        };
        if let Some(column) = self.by_source.get_mut(source) {
            let widened = column.column_type.widened(column_type);
            let meaning = if column.integers == Integers::Unused { integers } else { column.integers };
            learnt.changed += usize::from((widened, meaning) != (column.column_type, column.integers));
            (column.column_type, column.integers) = (widened, meaning);
            return;
        }
        if source.len() > COLUMN_KEY_BYTES || self.by_source.len() + self.reserved >= COLUMNS_MAX {
            learnt.leave_out(source);
            return;
        }
        let is_taken = |name: &str| SYSTEM_COLUMNS.contains(&name) || name == self.rest || self.names.contains(name);
        let name = free_name(&column_name(source), is_taken);
        self.names.insert(name.clone());
        self.by_source.insert(source.to_owned(), Column { source: source.to_owned(), name, column_type, integers });
        learnt.changed += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn of(body: &[u8], format: SyncFormat) -> Rows {
        rows(EventId::new(AT, 1, 0), AT, None, body, format)
    }

    fn shown(body: &str) -> String {
        let rows = of(body.as_bytes(), SyncFormat::Unpacked);
        let cell = |cell: &Cell| format!("{cell:?}");
        let row = |row: &Row| {
            let cells: Vec<_> = row.cells.iter().map(|(key, value)| format!("{key}={}", cell(value))).collect();
            format!("{}: {}", row.index, cells.join(" "))
        };
        rows.rows.iter().map(row).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn unpacks_first_level_keys_without_loss() {
        assert_eq!(
            shown(r#"{"a": 1, "b": 9223372036854775808, "c": 1.10, "d": -0, "e": "x\n", "f": null, "g": true}"#),
            r#"0: a=Int(1) b=Decimal("9223372036854775808") c=Decimal("1.10") d=Decimal("-0") e=Text("x\n") f=Null g=Bool(true)"#
        );
        assert_eq!(shown(r#"{"o": { "x" : 1.0 }, "l": [1, 2]}"#), r#"0: o=Json("{ \"x\" : 1.0 }") l=Json("[1, 2]")"#);
        assert_eq!(shown(r#"{"a": 1, "b": 2, "a": 1e5}"#), r#"0: a=Decimal("1e5") b=Int(2)"#);
        assert_eq!(shown(r#"[{"a": 1}, 2, [3]]"#), r#"0: a=Int(1); 1: payload=Int(2); 2: payload=Json("[3]")"#);
        assert_eq!(shown(" 7 "), "0: payload=Int(7)");
        assert_eq!(shown("[]"), "");
        assert_eq!(shown("{}"), "0: ");
        assert_eq!(shown(r#"{"a": "\ud800"}"#), r#"0: a=Text("\"\\ud800\"")"#);
    }

    #[test]
    fn keeps_what_it_cannot_unpack_whole_and_says_why() {
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        for (body, reason) in [
            ("", "not JSON: EOF while parsing a value at line 1 column 0"),
            ("a=b", "not JSON: expected value at line 1 column 1"),
            (deep.as_str(), "deeper than 64 levels"),
        ] {
            let rows = of(body.as_bytes(), SyncFormat::Unpacked);
            assert_eq!(rows.rows.len(), 1);
            assert_eq!(rows.rows[0].cells[PAYLOAD], Cell::Text(body.to_owned()));
            assert_eq!(rows.unparsed.unwrap().to_string(), reason);
        }
        for format in [SyncFormat::Packed, SyncFormat::Unpacked] {
            let rows = of(b"\xff\x00", format);
            assert_eq!(rows.rows[0].cells[PAYLOAD], Cell::Text("/wA=".to_owned()));
            assert_eq!(rows.unparsed, Some(Unparsed::Bytes));
        }
    }

    #[test]
    fn reads_character_sets_and_keys_that_are_no_text() {
        let at = |content_type, body: &[u8], format| rows(EventId::new(AT, 1, 0), AT, content_type, body, format);
        let latin = Some("application/json; charset=latin1");
        for (content_type, body) in [
            (latin, &b"{\"a\":\"\xe9\"}"[..]),
            (latin, "{\"a\":\"\u{e9}\"}".as_bytes()),
            (None, b"\xef\xbb\xbf{\"a\":\"\xc3\xa9\"}"),
        ] {
            let read = at(content_type, body, SyncFormat::Unpacked);
            assert_eq!((read.rows[0].cells["a"].clone(), read.unparsed), (Cell::Text("\u{e9}".to_owned()), None));
        }
        let text = at(Some("text/plain; charset=latin1"), b"\xe9", SyncFormat::Packed);
        assert_eq!(text.rows[0].cells[PAYLOAD], Cell::Text("\u{e9}".to_owned()));
        assert_eq!(
            shown(r#"{"\ud83d": 1, "a": {"b": "\ud83d"}}"#),
            r#"0: "\ud83d"=Int(1) a=Json("{\"b\": \"\\ud83d\"}")"#
        );
    }

    #[test]
    fn packs_the_text_as_it_came() {
        let rows = of(b" [1, 2] ", SyncFormat::Packed);
        assert_eq!(rows.rows.len(), 1);
        assert_eq!(rows.rows[0].cells[PAYLOAD], Cell::Text(" [1, 2] ".to_owned()));
        assert_eq!(rows.unparsed, None);
    }

    #[test]
    fn gives_every_key_a_column_and_keeps_it() {
        let mut columns = Columns::new();
        let body = r#"{"_id": 1, "fullName": "a", "full_name": 2, "FullName": null, "_ID": 3}"#;
        let rows = of(body.as_bytes(), SyncFormat::Unpacked);
        assert_eq!(columns.learn(&rows.rows[0]).changed, 5);
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["_id_2", "full_name", "full_name_2", "full_name_3", "_id_3"]);
        assert_eq!(columns.learn(&rows.rows[0]), Learnt::default());

        let later = of(br#"{"FullName": 1, "full_name": 2.5, "fullName": 1}"#, SyncFormat::Unpacked);
        assert_eq!(columns.learn(&later.rows[0]).changed, 3);
        let types: Vec<_> = columns.iter().map(|column| column.column_type).collect();
        assert_eq!(types, [ColumnType::Int, ColumnType::Text, ColumnType::Decimal, ColumnType::Int, ColumnType::Int]);

        assert_eq!(Columns::restore(columns.iter().cloned().collect(), Vec::new()), columns);
    }

    #[test]
    fn integers_mean_what_came_first() {
        let learnt = |body: &[u8]| {
            let mut columns = Columns::new();
            for row in of(body, SyncFormat::Unpacked).rows {
                columns.learn(&row);
            }
            let column = columns.by_source("a").unwrap();
            (column.column_type, column.integers)
        };
        assert_eq!(learnt(br#"[{"a": null}, {"a": 1}, {"a": true}, {"a": "x"}]"#), (ColumnType::Text, Integers::Int));
        assert_eq!(learnt(br#"[{"a": "x"}, {"a": true}, {"a": 1}]"#), (ColumnType::Text, Integers::Bool));
        assert_eq!(learnt(br#"[{"a": 1.5}, {"a": 1}]"#), (ColumnType::Decimal, Integers::Int));
        assert_eq!(learnt(br#"[{"a": "x"}, {"a": [1]}]"#), (ColumnType::Text, Integers::Unused));
    }

    #[test]
    fn keeps_values_of_keys_that_are_too_long_and_names_few_of_these() {
        let key = |n: usize| format!("{}{n}", "k\"ö".repeat(COLUMN_KEY_BYTES));
        let mut body: serde_json::Map<_, _> = (0..LEFT_OUT_KEYS + 50).map(|n| (key(n), n.into())).collect();
        body.insert("short".to_owned(), true.into());
        body.insert("_rest".to_owned(), "mine".into());
        let rows = of(serde_json::to_string(&body).unwrap().as_bytes(), SyncFormat::Unpacked);
        let mut columns = Columns::new();
        let learnt = columns.learn(&rows.rows[0]);
        assert_eq!((learnt.changed, learnt.left_out), (2, LEFT_OUT_KEYS as u64 + 50));
        assert_eq!(learnt.left_out_keys.len(), 1, "shortened, they are the same");
        assert!(learnt.left_out_keys.iter().all(|key| key.chars().count() == SHOWN_KEY_CHARS + 1));
        let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!((names, columns.rest_name()), (vec!["short", "_rest_2"], "_rest"));
        body.shift_remove("short");
        body.shift_remove("_rest");
        assert_eq!(serde_json::from_str::<Value>(&columns.rest(&rows.rows[0]).unwrap()).unwrap(), Value::Object(body));
        // A key of just the length has a column.
        let just = format!(r#"{{"{}": 1}}"#, "x".repeat(COLUMN_KEY_BYTES));
        assert_eq!(columns.learn(&of(just.as_bytes(), SyncFormat::Unpacked).rows[0]).left_out, 0);
    }

    #[test]
    fn names_few_of_the_keys_without_a_column() {
        let mut columns = Columns::new();
        let mut learnt = Learnt::default();
        for n in 0..3 {
            let body: serde_json::Map<_, _> = (0..1_000).map(|k| (format!("k{}", n * 1_000 + k), k.into())).collect();
            learnt.add(
                columns.learn(&of(serde_json::to_string(&body).unwrap().as_bytes(), SyncFormat::Unpacked).rows[0]),
            );
        }
        assert_eq!((learnt.changed, learnt.left_out, learnt.left_out_keys.len()), (1_000, 2_000, LEFT_OUT_KEYS));
        assert!(learnt.left_out_keys.contains("k1000"));
    }

    #[test]
    fn values_without_a_column_stay_as_they_were_sent() {
        let full: serde_json::Map<_, _> = (0..COLUMNS_MAX).map(|n| (format!("k{n}"), n.into())).collect();
        let mut columns = Columns::new();
        columns.learn(&of(serde_json::to_string(&full).unwrap().as_bytes(), SyncFormat::Unpacked).rows[0]);
        let body = br#"{"k1": 7, "a": 1.10, "b": null, "c": "x\n", "d": { "y" : [1e400] }, "e": true, "f": -3}"#;
        let row = &of(body, SyncFormat::Unpacked).rows[0];
        assert_eq!(columns.learn(row).left_out, 6);
        assert_eq!(
            columns.rest(row).unwrap(),
            r#"{"a":1.10,"b":null,"c":"x\n","d":{ "y" : [1e400] },"e":true,"f":-3}"#
        );
    }

    #[test]
    fn counts_keys_beyond_the_room_of_a_table() {
        let body: serde_json::Map<_, _> = (0..1_005).map(|n| (format!("k{n}"), n.into())).collect();
        let rows = of(serde_json::to_string(&body).unwrap().as_bytes(), SyncFormat::Unpacked);
        let learnt = Columns::new().learn(&rows.rows[0]);
        assert_eq!((learnt.changed, learnt.left_out), (1_000, 5));
        assert_eq!(learnt.left_out_keys.into_iter().collect::<Vec<_>>(), ["k1000", "k1001", "k1002", "k1003", "k1004"]);
    }

    fn any_type() -> impl Strategy<Value = ColumnType> {
        use ColumnType::{Bool, Decimal, Int, Json, Null, Text};
        prop::sample::select(vec![Null, Bool, Int, Decimal, Json, Text])
    }

    #[test]
    fn xml_gives_the_fields_of_its_root() {
        let xml = |body: &[u8]| xml_rows(of(b"", SyncFormat::Packed).rows[0].id, AT, None, body);
        let rows = xml(b"<order id='7'><total>1.50</total><item>a</item><item>b</item></order>");
        let cells: Vec<_> = rows.rows[0].cells.iter().map(|(key, cell)| (key.as_str(), cell.clone())).collect();
        assert_eq!(
            cells,
            [
                ("@id", Cell::Text("7".to_owned())),
                ("total", Cell::Text("1.50".to_owned())),
                ("item", Cell::Json("[\"a\",\"b\"]".to_owned())),
            ]
        );
        assert_eq!((rows.rows.len(), rows.unparsed), (1, None));
        assert_eq!(xml(b"<a>x</a>").rows[0].cells[PAYLOAD], Cell::Text("x".to_owned()));
        let deep = "<a>".repeat(70) + &"</a>".repeat(70);
        let rows = xml(deep.as_bytes());
        assert_eq!(rows.rows[0].cells[PAYLOAD], Cell::Text(deep));
        assert_eq!(rows.unparsed, Some(tree::TreeError::TooDeep.into()));
        assert_eq!(xml(b"<a>\xe9</a>").unparsed, Some(Unparsed::Bytes));
    }

    proptest! {
        #[test]
        fn widening_is_a_lattice(a in any_type(), b in any_type(), c in any_type()) {
            prop_assert_eq!(a.widened(a), a);
            prop_assert_eq!(a.widened(b), b.widened(a));
            prop_assert_eq!(a.widened(b).widened(c), a.widened(b.widened(c)));
            prop_assert_eq!(a.widened(b).widened(b), a.widened(b));
        }

        #[test]
        fn an_array_has_as_many_rows_as_elements(elements in prop::collection::vec(any::<i64>(), 0..20)) {
            let body = serde_json::to_vec(&elements).unwrap();
            prop_assert_eq!(of(&body, SyncFormat::Unpacked).rows.len(), elements.len());
            prop_assert_eq!(of(&body, SyncFormat::Packed).rows.len(), 1);
        }

        #[test]
        fn any_bytes_end_in_rows(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let rows = of(&body, SyncFormat::Unpacked);
            prop_assert!(!rows.rows.is_empty() || rows.unparsed.is_none());
            prop_assert_eq!(of(&body, SyncFormat::Packed).rows.len(), 1);
        }

        #[test]
        fn names_of_columns_never_meet(keys in prop::collection::vec("[aAbB_1 -]{0,4}", 0..20)) {
            let mut columns = Columns::new();
            let body: serde_json::Map<_, _> = keys.into_iter().map(|key| (key, 1.into())).collect();
            for row in of(serde_json::to_string(&body).unwrap().as_bytes(), SyncFormat::Unpacked).rows {
                columns.learn(&row);
            }
            let names: HashSet<_> = columns.iter().map(|column| column.name.as_str()).chain(SYSTEM_COLUMNS).collect();
            prop_assert_eq!(names.len(), columns.iter().len() + SYSTEM_COLUMNS.len());
        }
    }
}
