//! Events as rows of a table, and the catalogue of the table's columns.
//!
//! Every event ends in rows: one packed, or unpacked one for each element of an array and one for everything
//! else. A body that cannot be unpacked (not JSON, too deep, too large) becomes one row whose column
//! `payload` holds it whole, and says why. Values are lossless: a number beyond 64 bits or with a fraction is
//! the text that was sent, a list or an object its JSON text byte for byte.
//!
//! Columns only widen, by a lattice in which text is above everything; the name that a key got is kept for
//! good, so that loading an event again fills the same columns.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::EventId;
use crate::naming::{column_name, free_name};
use crate::sync::SyncFormat;
use crate::time::Timestamp;
use crate::{charset, tree, xml};

/// The columns that every table has: event, element, when it was received, when it was loaded.
pub const SYSTEM_COLUMNS: [&str; 4] = ["_id", "_index", "_received_at", "_synced_at"];

/// The key under which a whole body stands.
pub const PAYLOAD: &str = "payload";

/// Most columns of a table beside the system's: 1,000. SQLite takes 2,000, PostgreSQL 1,600; keys beyond it
/// stay in the raw event and are counted.
pub const COLUMNS_MAX: usize = 1_000;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The key in the payload that it holds.
    pub source: String,
    /// Its name in the table.
    pub name: String,
    /// Its type so far.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
}

/// The catalogue of a table's columns beside [`SYSTEM_COLUMNS`], in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns(IndexMap<String, Column>);

/// What a catalogue learnt from a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Columns that are new or wider now.
    pub changed: usize,
    /// Keys for which the table has no room.
    pub left_out: usize,
}

impl Columns {
    /// A table without columns of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The columns, in the order in which they came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Column> {
        self.0.values()
    }

    /// The column of the key `source`.
    #[must_use]
    pub fn by_source(&self, source: &str) -> Option<&Column> {
        self.0.get(source)
    }

    /// Takes a row's keys and types in.
    pub fn learn(&mut self, row: &Row) -> Learnt {
        let mut learnt = Learnt::default();
        for (source, cell) in &row.cells {
            self.take_in(source, cell.column_type(), None, &mut learnt);
        }
        learnt
    }

    /// Takes another catalogue of the same table in; names that are free here are kept.
    pub fn merge(&mut self, other: &Self) -> Learnt {
        let mut learnt = Learnt::default();
        for column in other.iter() {
            self.take_in(&column.source, column.column_type, Some(&column.name), &mut learnt);
        }
        learnt
    }

    fn take_in(&mut self, source: &str, column_type: ColumnType, name: Option<&str>, learnt: &mut Learnt) {
        if let Some(column) = self.0.get_mut(source) {
            let widened = column.column_type.widened(column_type);
            learnt.changed += usize::from(widened != column.column_type);
            column.column_type = widened;
            return;
        }
        if self.0.len() >= COLUMNS_MAX {
            learnt.left_out += 1;
            return;
        }
        let taken: HashSet<&str> =
            SYSTEM_COLUMNS.into_iter().chain(self.0.values().map(|column| column.name.as_str())).collect();
        let wanted = name.map_or_else(|| Cow::Owned(column_name(source)), Cow::Borrowed);
        let name = free_name(&wanted, &taken);
        self.0.insert(source.to_owned(), Column { source: source.to_owned(), name, column_type });
        learnt.changed += 1;
    }
}

/// A list, because the order of columns is part of what is kept.
impl Serialize for Columns {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let columns = Vec::<Column>::deserialize(deserializer)?;
        Ok(Self(columns.into_iter().map(|column| (column.source.clone(), column)).collect()))
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
        assert_eq!(columns.learn(&later.rows[0]).changed, 2);
        let types: Vec<_> = columns.iter().map(|column| column.column_type).collect();
        assert_eq!(types, [ColumnType::Int, ColumnType::Text, ColumnType::Decimal, ColumnType::Int, ColumnType::Int]);

        let written = serde_json::to_string(&columns).unwrap();
        assert!(written.starts_with(r#"[{"source":"_id","name":"_id_2","type":"int"},"#), "{written}");
        assert_eq!(serde_json::from_str::<Columns>(&written).unwrap(), columns);
        let mut again = Columns::new();
        again.merge(&columns);
        assert_eq!(again, columns);
    }

    #[test]
    fn counts_keys_beyond_the_room_of_a_table() {
        let body: serde_json::Map<_, _> = (0..1_005).map(|n| (format!("k{n}"), n.into())).collect();
        let rows = of(serde_json::to_string(&body).unwrap().as_bytes(), SyncFormat::Unpacked);
        assert_eq!(Columns::new().learn(&rows.rows[0]), Learnt { changed: 1_000, left_out: 5 });
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
