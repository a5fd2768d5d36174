//! Schemas of OpenAPI documents as JSON Schemas (draft 2020-12), whole and bounded.
//!
//! References are written out, so that each action stands for itself. What goes deeper than there is room for, and
//! what is recursive from its second turn on, accepts everything: a schema that was cut is laxer, never stricter.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Number, Value, json};

use super::credentials;
use super::note::Notes;
use super::text;

/// The schemas of a document.
pub(super) struct Schemas<'a> {
    root: &'a Value,
    /// Notes about schemas; the place is the one that is being read.
    notes: RefCell<Vec<&'static str>>,
}

/// What a schema is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// What is sent: checked, so what it demands counts. Fields that only the API writes are left out.
    Input,
    /// What comes back: a shape to look things up in.
    Output,
}

/// How many references may lead to each other.
const HOPS_MAX: usize = 16;
/// Longest reference that is followed, in bytes: what refers to it may be shared by every operation.
const REFERENCE_BYTES: usize = 2 << 10;
/// How deep schemas may be that are put together of `allOf`.
const ALL_OF_DEPTH: usize = 8;
/// How many schemas one may be put together of.
const PARTS_MAX: usize = 200;
/// The depths that are tried one after the other, until there is no more room.
const DEPTHS: [usize; 7] = [1, 2, 3, 4, 6, 8, 12];
/// Longest list of values that is written out, and the longest value in it in bytes.
const ENUM_MAX: usize = 100;
const VALUE_MAX: usize = 300;
/// Most fields of an object that are looked at one by one.
const FIELDS_MAX: usize = 300;

/// Most fields of an object that are looked at, those of the other side included.
const LOOKED_MAX: usize = 2_000;
/// How deep schemas may stand in each other, whatever way.
const LEVELS_MAX: usize = 100;

const CUT: &str = "schemas are cut where they are very large or recursive; what stands deeper is sent as it comes";
const EXTERNAL: &str = "a reference to another file is not followed; what it stands for is sent as it comes";
const DANGLING: &str = "a reference leads nowhere; what it stands for is sent as it comes";

/// An object's fields, of all that it is put together of.
#[derive(Debug, Default)]
pub(super) struct ObjectView<'a> {
    /// Names and schemas, in order.
    pub(super) properties: indexmap::IndexMap<&'a str, &'a Value>,
    /// Names of fields that must be there.
    pub(super) required: HashSet<&'a str>,
    /// The schema of further fields, when there may be some and they are described.
    pub(super) more: Option<&'a Value>,
    /// How many schemas it was put together of.
    parts: usize,
    /// Fields that were looked at.
    looked: usize,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(root: &'a Value) -> Self {
        Self { root, notes: RefCell::default() }
    }

    /// Moves what was noted to `notes`.
    pub(super) fn note(&self, notes: &mut Notes, place: &str) {
        for text in self.notes.borrow_mut().drain(..) {
            notes.add(text, place);
        }
    }

    fn remark(&self, text: &'static str) {
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&text) {
            notes.push(text);
        }
    }

    /// What a value stands for: itself, or what its reference leads to. None when it leads nowhere.
    pub(super) fn resolve(&self, value: &'a Value) -> Option<&'a Value> {
        let mut value = value;
        for _ in 0..HOPS_MAX {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return Some(value) };
            value = self.target(reference)?;
        }
        self.remark(DANGLING);
        None
    }

    fn target(&self, reference: &str) -> Option<&'a Value> {
        let Some(pointer) = reference.strip_prefix('#') else {
            self.remark(EXTERNAL);
            return None;
        };
        let pointer = Some(pointer).filter(|pointer| pointer.len() <= REFERENCE_BYTES);
        let found = pointer.and_then(|pointer| self.root.pointer(&percent_decode_str(pointer).decode_utf8_lossy()));
        if found.is_none() {
            self.remark(DANGLING);
        }
        found
    }

    /// The fields of an object; none when it is something else, or has forms to choose from.
    pub(super) fn object(&self, schema: &'a Value, side: Side) -> Option<ObjectView<'a>> {
        let view = self.gathered(schema, side, ObjectView::default())?;
        (!view.properties.is_empty()).then_some(view)
    }

    /// The fields of an object that has forms to choose from: its own, and those of all forms, each as the first form
    /// has it. Required is what it requires itself, and what every form does. None when a form is no object.
    pub(super) fn any_object(&self, schema: &'a Value, side: Side) -> Option<ObjectView<'a>> {
        let schema = self.resolve(schema)?;
        let forms = ["oneOf", "anyOf"].iter().find_map(|word| schema.get(*word))?.as_array()?;
        let mut view = ObjectView::default();
        self.own_fields(schema.as_object()?, side, &mut view)?;
        let mut required: Option<HashSet<&str>> = None;
        for form in forms {
            let of = ObjectView { parts: view.parts, looked: view.looked, ..ObjectView::default() };
            let of = self.gathered(form, side, of)?;
            (view.parts, view.looked, view.more) = (of.parts, of.looked, view.more.or(of.more));
            for (name, property) in of.properties {
                view.properties.entry(name).or_insert(property);
            }
            required = Some(match required {
                Some(known) => known.intersection(&of.required).copied().collect(),
                None => of.required,
            });
        }
        view.required.extend(required.unwrap_or_default());
        (!view.properties.is_empty()).then_some(view)
    }

    fn gathered(&self, schema: &'a Value, side: Side, mut view: ObjectView<'a>) -> Option<ObjectView<'a>> {
        self.gather(schema, side, &mut view, ALL_OF_DEPTH)?;
        Some(view)
    }

    fn gather(&self, schema: &'a Value, side: Side, view: &mut ObjectView<'a>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        view.parts += 1;
        if view.parts > PARTS_MAX {
            return None;
        }
        let schema = self.resolve(schema)?.as_object()?;
        if ["oneOf", "anyOf", "not", "enum", "if"].iter().any(|word| schema.contains_key(*word)) {
            return None;
        }
        let is_object = match schema.get("type") {
            Some(Value::String(kind)) => kind == "object",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
            _ => true,
        };
        if !is_object {
            return None;
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.gather(part, side, view, depth)?;
        }
        self.own_fields(schema, side, view)
    }

    /// Adds what an object says of its fields itself.
    fn own_fields(&self, schema: &'a Map<String, Value>, side: Side, view: &mut ObjectView<'a>) -> Option<()> {
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            view.looked += 1;
            if view.properties.len() >= FIELDS_MAX || view.looked > LOOKED_MAX {
                return None;
            }
            if self.is_for(property, side) {
                view.properties.insert(name.as_str(), property);
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().take(FIELDS_MAX);
        view.required.extend(required.filter_map(Value::as_str));
        view.more = schema
            .get("additionalProperties")
            .filter(|more| more.as_object().is_some_and(|map| !map.is_empty()))
            .or(view.more);
        Some(())
    }

    /// Whether a field is there on this side.
    fn is_for(&self, property: &'a Value, side: Side) -> bool {
        let word = match side {
            Side::Input => "readOnly",
            Side::Output => "writeOnly",
        };
        let says = |schema: &Value| schema.get(word) == Some(&Value::Bool(true));
        !says(property) && !self.resolve(property).is_some_and(says)
    }

    /// A schema as JSON Schema, at most about `room` bytes long.
    pub(super) fn write(&self, schema: &'a Value, side: Side, room: usize) -> Value {
        let mut written = json!({});
        for depth in DEPTHS {
            let mut walk = Walk {
                schemas: self,
                side,
                room,
                depth,
                deepest: depth,
                level: 0,
                path: Vec::new(),
                others: HashSet::new(),
                state: State::Whole,
            };
            let deeper = walk.schema(schema);
            match walk.state {
                State::Whole => return deeper,
                State::TooDeep => written = deeper,
                // The level before fits; of the first, what was written before the end of the room is kept.
                State::TooLarge if depth == DEPTHS[0] => {
                    written = deeper;
                    break;
                }
                State::TooLarge => break,
            }
        }
        if side == Side::Input {
            self.remark(CUT);
        }
        written
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// Something was cut at the depth.
    TooDeep,
    /// There was no more room.
    TooLarge,
}

struct Walk<'s, 'a> {
    schemas: &'s Schemas<'a>,
    side: Side,
    room: usize,
    depth: usize,
    deepest: usize,
    /// How many schemas stand round this one.
    level: usize,
    /// The references that lead here.
    path: Vec<&'a str>,
    /// Fields of the object that is being read, and of all that it is put together of, that are not of this side.
    others: HashSet<&'a str>,
    state: State,
}

impl<'a> Walk<'_, 'a> {
    /// Takes bytes of the room; false when there is none left.
    fn pay(&mut self, bytes: usize) -> bool {
        match self.room.checked_sub(bytes) {
            Some(left) => {
                self.room = left;
                true
            }
            None => {
                self.state = State::TooLarge;
                false
            }
        }
    }

    fn cut(&mut self) {
        if self.state == State::Whole {
            self.state = State::TooDeep;
        }
    }

    /// A schema of its own, below the one that is being read.
    fn schema(&mut self, schema: &'a Value) -> Value {
        let others = std::mem::take(&mut self.others);
        let written = self.part(schema);
        self.others = others;
        written
    }

    /// A schema, or a part of the one that is being read.
    fn part(&mut self, schema: &'a Value) -> Value {
        if self.level >= LEVELS_MAX {
            self.cut();
            return json!({});
        }
        let before = self.path.len();
        let mut schema = schema;
        while let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            if self.path.contains(&reference) {
                self.path.truncate(before);
                let name = reference.rsplit('/').next().unwrap_or_default();
                if self.side == Side::Input {
                    self.schemas.remark(CUT);
                }
                let name = text::line(name, 60).unwrap_or_default();
                return json!({"description": format!("{name} again, as further up.")});
            }
            self.path.push(reference);
            match self.schemas.target(reference) {
                Some(target) if self.path.len() <= before + HOPS_MAX => schema = target,
                _ => {
                    self.path.truncate(before);
                    return json!({});
                }
            }
        }
        self.level += 1;
        let written = match schema {
            Value::Object(map) => self.object(map),
            Value::Bool(false) => json!({"not": {}}),
            _ => json!({}),
        };
        self.level -= 1;
        self.path.truncate(before);
        written
    }

    fn object(&mut self, schema: &'a Map<String, Value>) -> Value {
        let mut out = Map::new();
        if !self.pay(16) {
            return out.into();
        }
        let mut kinds = kinds(schema);
        if kinds.is_empty() {
            kinds = self.kinds_of_parts(schema);
        }
        match kinds.as_slice() {
            [] => {}
            [one] => drop(out.insert("type".to_owned(), (*one).into())),
            several => drop(out.insert("type".to_owned(), json!(several))),
        }
        self.describe(schema, &mut out);
        if self.depth == 0 {
            let has_more = ["properties", "items", "allOf", "oneOf", "anyOf", "additionalProperties", "prefixItems"];
            if has_more.iter().any(|word| schema.contains_key(*word)) {
                self.cut();
            }
            return out.into();
        }
        self.depth -= 1;
        self.scalar(schema, &kinds, &mut out);
        self.array(schema, &mut out);
        self.fields(schema, &mut out);
        self.variants(schema, &mut out);
        self.drop_others(&mut out);
        self.depth += 1;
        nullable(schema, &mut out);
        out.into()
    }

    /// Fields of the other side are not required on this one, wherever either is said.
    fn drop_others(&self, out: &mut Map<String, Value>) {
        if self.others.is_empty() {
            return;
        }
        if let Some(Value::Array(names)) = out.get_mut("required") {
            names.retain(|name| name.as_str().is_none_or(|name| !self.others.contains(name)));
            if names.is_empty() {
                out.shift_remove("required");
            }
        }
        if let Some(Value::Array(parts)) = out.get_mut("allOf") {
            parts.iter_mut().filter_map(Value::as_object_mut).for_each(|part| self.drop_others(part));
        }
    }

    /// The types that a schema has from what it is put together of.
    fn kinds_of_parts(&self, schema: &'a Map<String, Value>) -> Vec<&'a str> {
        let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten().take(4);
        let of = |part| kinds(self.schemas.resolve(part)?.as_object()?).into();
        parts.map(of).find_map(|kinds: Option<Vec<&str>>| kinds.filter(|kinds| !kinds.is_empty())).unwrap_or_default()
    }

    fn describe(&mut self, schema: &Map<String, Value>, out: &mut Map<String, Value>) {
        let is_outside = self.depth + 1 >= self.deepest;
        let most = match (self.side, is_outside) {
            (Side::Input, true) => 300,
            (Side::Input, false) => 150,
            (Side::Output, true) => 100,
            (Side::Output, false) => return,
        };
        let description = schema.get("description").and_then(Value::as_str);
        if let Some(text) = description.and_then(|text| text::plain(text, most)).filter(|text| self.pay(text.len())) {
            out.insert("description".to_owned(), text.into());
        }
    }

    /// What bounds texts and numbers.
    fn scalar(&mut self, schema: &Map<String, Value>, kinds: &[&str], out: &mut Map<String, Value>) {
        if let Some(format) = schema.get("format").and_then(Value::as_str).and_then(|format| text::line(format, 40)) {
            out.insert("format".to_owned(), format.into());
        }
        self.values(schema, kinds, out);
        if self.side == Side::Output {
            return;
        }
        if let Some(constant) =
            schema.get("const").filter(|constant| is_short(constant) && self.pay(text::weight(constant)))
        {
            out.insert("const".to_owned(), constant.clone());
        }
        for word in ["minimum", "maximum"] {
            let exclusive = if word == "minimum" { "exclusiveMinimum" } else { "exclusiveMaximum" };
            let bound = schema.get(word).filter(|bound| bound.is_number());
            match (bound, schema.get(exclusive)) {
                // As OpenAPI 3.0 and Swagger have it.
                (Some(bound), Some(Value::Bool(true))) => drop(out.insert(exclusive.to_owned(), bound.clone())),
                (bound, other) => {
                    out.extend(bound.map(|bound| (word.to_owned(), bound.clone())));
                    out.extend(
                        other.filter(|other| other.is_number()).map(|other| (exclusive.to_owned(), other.clone())),
                    );
                }
            }
        }
        if let Some(Value::Number(step)) = schema.get("multipleOf")
            && step.as_f64().is_some_and(|step| step > 0.0)
        {
            out.insert("multipleOf".to_owned(), step.clone().into());
        }
        for word in ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"] {
            if let Some(count) = schema.get(word).and_then(whole) {
                out.insert(word.to_owned(), count.into());
            }
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
            out.insert("uniqueItems".to_owned(), true.into());
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str).filter(|pattern| pattern.len() <= 500) {
            out.insert("pattern".to_owned(), pattern.into());
        }
    }

    /// The values that are allowed.
    fn values(&mut self, schema: &Map<String, Value>, kinds: &[&str], out: &mut Map<String, Value>) {
        let Some(values) = schema.get("enum").and_then(Value::as_array).filter(|values| !values.is_empty()) else {
            return;
        };
        if values.len() > ENUM_MAX || !values.iter().all(is_short) || !self.pay(values.iter().map(text::weight).sum()) {
            self.cut();
            return;
        }
        let mut unique: Vec<Value> = Vec::with_capacity(values.len());
        for value in values {
            let value = of_kinds(value, kinds);
            if !unique.contains(&value) {
                unique.push(value.into_owned());
            }
        }
        // Values that are not of the type that is said: the list says what is allowed.
        let is_of =
            |value: &Value| kinds.is_empty() || value.is_null() || kinds.iter().any(|kind| is_kind(value, kind));
        if !unique.iter().all(is_of) {
            out.shift_remove("type");
        }
        out.insert("enum".to_owned(), unique.into());
    }

    fn array(&mut self, schema: &'a Map<String, Value>, out: &mut Map<String, Value>) {
        // Beside `prefixItems` they are those behind them, of which nothing is said then.
        let is_rest = schema.contains_key("prefixItems");
        if let Some(items) = schema.get("items").filter(|items| items.is_object() && !is_rest) {
            let items = self.schema(items);
            out.insert("items".to_owned(), items);
        }
    }

    fn fields(&mut self, schema: &'a Map<String, Value>, out: &mut Map<String, Value>) {
        let mut properties = Map::new();
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if !self.pay(name.len() + 8) {
                break;
            }
            if self.schemas.is_for(property, self.side) {
                properties.insert(name.clone(), self.schema(property));
            } else {
                self.others.insert(name);
            }
        }
        if self.side == Side::Input {
            let mut names = indexmap::IndexSet::new();
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            for name in required.filter_map(Value::as_str) {
                if !self.pay(name.len() + 4) {
                    break;
                }
                names.insert(name);
            }
            if !names.is_empty() {
                out.insert("required".to_owned(), names.into_iter().collect());
            }
        }
        if !properties.is_empty() {
            out.insert("properties".to_owned(), properties.into());
        }
        // Fields that fit a pattern are allowed too, and patterns are not written.
        match schema.get("additionalProperties").filter(|_| !schema.contains_key("patternProperties")) {
            // Where fields were cut, there are more than are named.
            Some(Value::Bool(false)) if self.side == Side::Input && self.state != State::TooLarge => {
                out.insert("additionalProperties".to_owned(), false.into());
            }
            Some(more @ Value::Object(map)) if !map.is_empty() => {
                let more = self.schema(more);
                out.insert("additionalProperties".to_owned(), more);
            }
            _ => {}
        }
    }

    /// `allOf` is put together where its parts are objects; of `oneOf`, at least one has to hold: sources say it of
    /// forms that overlap.
    fn variants(&mut self, schema: &'a Map<String, Value>, out: &mut Map<String, Value>) {
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            let mut apart = Vec::new();
            for part in parts {
                if !self.pay(8) {
                    break;
                }
                // The part is of this level, not below it.
                self.depth += 1;
                let written = self.part(part);
                self.depth -= 1;
                apart.extend(join(out, written));
            }
            if !apart.is_empty() {
                out.insert("allOf".to_owned(), apart.into());
            }
        }
        for word in ["oneOf", "anyOf"] {
            let Some(forms) = schema.get(word).and_then(Value::as_array).filter(|forms| !forms.is_empty()) else {
                continue;
            };
            let mut written: Vec<Value> = Vec::new();
            for form in forms {
                if !self.pay(8) {
                    written.push(json!({}));
                    break;
                }
                let form = self.schema(form);
                if !written.contains(&form) {
                    written.push(form);
                }
            }
            // A form that accepts everything says nothing.
            if written.iter().any(|form| form.as_object().is_none_or(Map::is_empty)) {
                continue;
            }
            if let Some(kinds) = kinds_only(&written).filter(|_| !out.contains_key("type")) {
                out.insert("type".to_owned(), kinds);
                continue;
            }
            match written.len() {
                1 => {
                    let only = written.swap_remove(0);
                    if let Some(apart) = join(out, only) {
                        out.insert("allOf".to_owned(), json!([apart]));
                    }
                }
                _ if out.contains_key("anyOf") => drop(out.insert("allOf".to_owned(), json!([{"anyOf": written}]))),
                _ => drop(out.insert("anyOf".to_owned(), written.into())),
            }
        }
    }
}

/// The types of forms that say nothing else.
fn kinds_only(forms: &[Value]) -> Option<Value> {
    let kind = |form: &Value| match form.as_object() {
        Some(map) if map.len() == 1 => map.get("type").filter(|kind| kind.is_string()).cloned(),
        _ => None,
    };
    forms.iter().map(kind).collect::<Option<Vec<Value>>>().filter(|kinds| kinds.len() > 1).map(Value::from)
}

/// Puts a schema on top of another, where both say different things or bound an object's fields; gives it back where
/// they do not fit together.
fn join(out: &mut Map<String, Value>, written: Value) -> Option<Value> {
    let Value::Object(part) = written else { return None };
    let fits = part.iter().all(|(word, value)| match (word.as_str(), out.get(word)) {
        (_, None) | ("description" | "properties" | "required", _) => true,
        (_, Some(known)) => known == value,
    });
    if !fits {
        return Some(part.into());
    }
    for (word, value) in part {
        match (out.get_mut(&word), value) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
            (Some(Value::Array(known)), Value::Array(more)) => {
                let more: Vec<Value> = more.into_iter().filter(|name| !known.contains(name)).collect();
                known.extend(more);
            }
            (Some(_), _) => {}
            (None, value) => drop(out.insert(word, value)),
        }
    }
    None
}

/// The types that a schema says or means.
fn kinds(schema: &Map<String, Value>) -> Vec<&str> {
    let known = |kind: &str| matches!(kind, "string" | "number" | "integer" | "boolean" | "array" | "object" | "null");
    let mut kinds: Vec<&str> = match schema.get("type") {
        // A file is its bytes; how they are given, the part of the body says.
        Some(Value::String(kind)) if known(kind) => vec![kind],
        Some(Value::Array(kinds)) => {
            kinds.iter().take(16).filter_map(Value::as_str).filter(|kind| known(kind)).collect()
        }
        Some(_) => Vec::new(),
        None if schema.contains_key("properties") => vec!["object"],
        None if schema.contains_key("items") => vec!["array"],
        None => Vec::new(),
    };
    let is_nullable = ["nullable", "x-nullable"].iter().any(|word| schema.get(*word) == Some(&Value::Bool(true)));
    if is_nullable && !kinds.is_empty() && !kinds.contains(&"null") {
        kinds.push("null");
    }
    let mut unique = Vec::with_capacity(kinds.len());
    for kind in kinds {
        if !unique.contains(&kind) {
            unique.push(kind);
        }
    }
    unique
}

/// What `nullable` means beside values and references.
fn nullable(schema: &Map<String, Value>, out: &mut Map<String, Value>) {
    let is_nullable = ["nullable", "x-nullable"].iter().any(|word| schema.get(*word) == Some(&Value::Bool(true)));
    if !is_nullable {
        return;
    }
    if let Some(Value::Array(values)) = out.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    let takes_null =
        out.get("type").is_none_or(|kind| kind.as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "null")));
    // A list of forms alone takes one more.
    let is_choice = out.keys().all(|word| matches!(word.as_str(), "anyOf" | "description"));
    if let Some(Value::Array(forms)) = out.get_mut("anyOf").filter(|_| is_choice) {
        forms.push(json!({"type": "null"}));
        return;
    }
    let has_forms = out.contains_key("anyOf") || out.contains_key("allOf");
    if (has_forms || !takes_null) && !out.contains_key("const") {
        let description = out.shift_remove("description");
        let inner = std::mem::take(out);
        out.extend(description.map(|description| ("description".to_owned(), description)));
        out.insert("anyOf".to_owned(), json!([inner, {"type": "null"}]));
    }
}

/// Whether a value is a scalar that is not long.
fn is_short(value: &Value) -> bool {
    !value.is_array() && !value.is_object() && value.as_str().is_none_or(|text| text.len() <= VALUE_MAX)
}

/// Whether a value is of a type; `null` where none is known.
pub(super) fn is_kind(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.as_number().is_some_and(is_whole),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => value.is_null(),
    }
}

/// Whether a number is a whole one, however long: JSON Schema takes `1.0` for one too.
pub(super) fn is_whole(number: &Number) -> bool {
    let is_digits = number.as_str().trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
    is_digits || number.as_f64().is_some_and(|float| float.fract() == 0.0 && float.abs() < 9e15)
}

/// A value as the type that is declared beside it has it: YAML makes numbers of the texts `100` and `1.10`, and documents
/// write numbers as texts. What cannot be one of the types stays what it is.
pub(super) fn of_kinds<'v>(value: &'v Value, kinds: &[&str]) -> Cow<'v, Value> {
    if kinds.is_empty() || kinds.iter().any(|kind| is_kind(value, kind)) {
        return Cow::Borrowed(value);
    }
    let other = match value {
        Value::Number(_) | Value::Bool(_) => Some(Value::String(value.to_string())),
        Value::String(text) => {
            serde_json::from_str(text).ok().filter(|read: &Value| read.is_number() || read.is_boolean())
        }
        _ => None,
    };
    match other.filter(|other| kinds.iter().any(|kind| is_kind(other, kind))) {
        Some(other) => Cow::Owned(other),
        None => Cow::Borrowed(value),
    }
}

/// The types that a schema declares.
pub(super) fn kinds_of(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.as_str()],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A count, also one that was written as `10.0`.
fn whole(value: &Value) -> Option<Number> {
    let count = value
        .as_u64()
        .or_else(|| value.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0 && *n < 9e15).map(|n| n as u64));
    count.map(Number::from)
}

/// Takes every `pattern` out of a schema; says whether there was one.
pub(super) fn drop_patterns(schema: &mut Value) -> bool {
    match schema {
        Value::Object(map) => {
            let had = map.get("pattern").is_some_and(Value::is_string) && map.shift_remove("pattern").is_some();
            // All of them, not only up to the first.
            map.values_mut().filter_map(|value| drop_patterns(value).then_some(())).count() > 0 || had
        }
        Value::Array(items) => items.iter_mut().filter_map(|item| drop_patterns(item).then_some(())).count() > 0,
        _ => false,
    }
}

/// An example of a value, when it is short and no secret.
pub(super) fn short_example(value: Option<&Value>, name: &str) -> Option<Value> {
    let value = value.filter(|value| value.is_string() || value.is_number())?;
    (text::is_within(value, 80) && !credentials::is_secret_name(name) && !credentials::holds_secret(value))
        .then(|| value.clone())
}
