//! JSON Schemas of objects: the settings of a connector, the input of an action.

use std::sync::OnceLock;

use indexmap::IndexMap;
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::patterns;
use super::unique::unique_items;
use crate::fault::Fault;
use crate::limits;
use crate::name::near_match;

/// That its patterns are not compiled, because that would take too much time and memory.
pub(crate) const PATTERNS_TOO_LARGE: &str = "its patterns are too large to be compiled: repetitions multiply";

/// A JSON Schema (draft 2020-12 unless it says another) of an object. Fields that it does not name are refused,
/// unless it says otherwise with `additionalProperties`. References go to the schema itself only.
#[derive(Debug)]
pub struct ObjectSchema {
    schema: Value,
    /// The fields that it names, with their defaults.
    fields: IndexMap<String, Option<Value>>,
    required: Vec<String>,
    is_open: bool,
    validator: OnceLock<Result<Validator, String>>,
}

impl ObjectSchema {
    /// Reads a schema; none is one of an object without fields.
    #[must_use]
    pub fn new(schema: Option<&Value>) -> Self {
        let mut schema = schema.cloned().unwrap_or_else(|| json!({"type": "object"}));
        let mut fields = IndexMap::new();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            fields.insert(name.clone(), field.get("default").cloned());
        }
        let required = schema["required"].as_array().into_iter().flatten();
        let required = required.filter_map(Value::as_str).map(ToOwned::to_owned).collect();
        let is_open = schema.get("additionalProperties").is_some_and(|more| *more != json!(false));
        if let Value::Object(schema) = &mut schema
            && !schema.contains_key("additionalProperties")
        {
            schema.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        Self { schema, fields, required, is_open, validator: OnceLock::new() }
    }

    /// What is wrong with the schema itself.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        if self.schema["type"] != json!("object") {
            return vec![Fault::new("type", "a schema of an object begins with `type: object`")];
        }
        if self.pattern_weight() > limits::SCHEMA_PATTERNS {
            return vec![Fault::new("", PATTERNS_TOO_LARGE).hint("say maxLength in place of counting in a pattern")];
        }
        self.validator().err().map(|reason| Fault::new("", reason)).into_iter().collect()
    }

    /// About how many letters its patterns are when all repetitions are written out: what compiling it takes.
    #[must_use]
    pub fn pattern_weight(&self) -> u64 {
        patterns::weight(&self.schema)
    }

    fn validator(&self) -> Result<&Validator, String> {
        let built = self.validator.get_or_init(|| {
            // Patterns are matched in time linear in the text.
            let options = jsonschema::options()
                .with_pattern_options(PatternOptions::regex())
                .with_keyword("uniqueItems", unique_items);
            options.build(&self.schema).map_err(|error| format!("not a JSON Schema: {error}"))
        });
        built.as_ref().map_err(Clone::clone)
    }

    /// The schema as JSON.
    #[must_use]
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// Whether it allows fields that it does not name.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether it names this field.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// The names of its fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// What is wrong with the names of the fields that somebody is going to give: unknown ones, and missing ones
    /// that are required.
    #[must_use]
    pub fn name_faults<'a>(&self, given: impl IntoIterator<Item = &'a str>) -> Vec<Fault> {
        let given: Vec<&str> = given.into_iter().collect();
        let unknown = given.iter().filter(|name| !self.is_open && !self.fields.contains_key(**name));
        let mut faults: Vec<Fault> = unknown.map(|name| self.unknown(name)).collect();
        let is_given = |name: &str| given.contains(&name) || self.fields.get(name).is_some_and(Option::is_some);
        let missing = self.required.iter().filter(|name| !is_given(name));
        faults.extend(missing.map(|name| Fault::new("", format_args!("`{name}` is missing"))));
        faults
    }

    fn unknown(&self, name: &str) -> Fault {
        let fault = Fault::new("", format_args!("`{name}` is not known"));
        match near_match(name, self.names()) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None if self.fields.is_empty() => fault.hint("nothing can be given here"),
            None => fault.hint(format!("there is {}", self.names().collect::<Vec<_>>().join(", "))),
        }
    }

    /// Puts defaults where nothing is given, and checks the whole.
    ///
    /// # Errors
    /// Everything that is wrong, with paths from the object on: `labels[0]`.
    pub fn complete(&self, mut given: Map<String, Value>) -> Result<Map<String, Value>, Vec<Fault>> {
        for (name, default) in &self.fields {
            if let (false, Some(default)) = (given.contains_key(name), default) {
                given.insert(name.clone(), default.clone());
            }
        }
        let faults = self.name_faults(given.keys().map(String::as_str));
        if !faults.is_empty() {
            return Err(faults);
        }
        let validator = self.validator().map_err(|reason| vec![Fault::new("", reason)])?;
        let whole = Value::Object(given);
        let fault = |error: jsonschema::ValidationError<'_>| {
            // What was given may be long or private; what was expected is neither.
            Fault::new(dotted(error.instance_path().as_str()), error.masked().to_string())
        };
        let faults: Vec<Fault> = validator.iter_errors(&whole).take(limits::INPUT_FAULTS).map(fault).collect();
        match whole {
            Value::Object(given) if faults.is_empty() => Ok(given),
            _ => Err(faults),
        }
    }

    /// Every field that it names or that is given, with its value where it has one.
    pub(super) fn with_values(&self, mut given: Map<String, Value>) -> Vec<(String, Option<Value>)> {
        let named = self.fields.keys().map(|name| (name.clone(), given.shift_remove(name))).collect::<Vec<_>>();
        named.into_iter().chain(given.into_iter().map(|(name, value)| (name, Some(value)))).collect()
    }
}

/// A JSON pointer as a path of a document: `/labels/0` is `labels[0]`.
fn dotted(pointer: &str) -> String {
    let mut path = String::new();
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        if token.bytes().all(|byte| byte.is_ascii_digit()) && !token.is_empty() {
            path.push_str(&format!("[{token}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&token);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    fn complaints(schema: Value, given: Value) -> Vec<String> {
        let faults = ObjectSchema::new(Some(&schema)).complete(object(given)).unwrap_err();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_are_filled_in_and_the_whole_is_checked() {
        let schema = json!({
            "type": "object",
            "required": ["owner", "state"],
            "properties": {
                "owner": {"type": "string", "pattern": "^[a-z]+$"},
                "state": {"enum": ["open", "all"], "default": "open"},
                "labels": {"type": "array", "items": {"type": "string"}},
                "n": {"type": "integer"},
            },
        });
        let read = ObjectSchema::new(Some(&schema));
        assert_eq!(read.faults(), []);
        let whole = read.complete(object(json!({"owner": "a", "n": 9_007_199_254_740_993_u64}))).unwrap();
        assert_eq!(Value::Object(whole), json!({"owner": "a", "n": 9_007_199_254_740_993_u64, "state": "open"}));
        assert_eq!(
            complaints(schema.clone(), json!({"ownr": "a"})),
            ["`ownr` is not known (did you mean `owner`?)", "`owner` is missing",]
        );
        let wrong = complaints(schema, json!({"owner": "A1", "labels": ["a", 2], "state": "shut", "n": 1.5}));
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        assert!(wrong.iter().any(|fault| fault.starts_with("labels[1]: ")), "{wrong:?}");
        assert!(!wrong.iter().any(|fault| fault.contains("A1") || fault.contains("shut")), "{wrong:?}");
    }

    #[test]
    fn names_so_many_faults_only() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}});
        let given = object(json!({"a": vec!["x"; limits::INPUT_FAULTS + 1]}));
        assert_eq!(ObjectSchema::new(Some(&schema)).complete(given).unwrap_err().len(), limits::INPUT_FAULTS);
    }

    #[test]
    fn patterns_that_multiply_are_not_compiled() {
        let schema =
            |pattern: &str| json!({"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}});
        let large = ObjectSchema::new(Some(&schema("((a{99}){99}){99}")));
        assert!(large.faults()[0].reason.contains("repetitions multiply"));
        assert!(large.validator.get().is_none());
        assert_eq!(ObjectSchema::new(Some(&schema("^[a-z0-9._-]{1,2048}$"))).faults(), []);
    }

    #[test]
    fn without_a_schema_nothing_can_be_given() {
        let none = ObjectSchema::new(None);
        assert!(none.complete(Map::new()).unwrap().is_empty());
        assert_eq!(none.name_faults(["a"]).len(), 1);
        let open = ObjectSchema::new(Some(&json!({"type": "object", "additionalProperties": true})));
        assert_eq!(open.name_faults(["a"]), []);
        assert_eq!(open.complete(object(json!({"a": 1}))).unwrap().len(), 1);
    }

    #[test]
    fn a_schema_that_is_none_is_said_to_be() {
        for schema in [
            json!({}),
            json!({"type": "string"}),
            json!({"type": "object", "properties": {"a": {"type": "txt"}}}),
            json!({"type": "object", "properties": {"a": {"pattern": "("}}}),
            json!({"type": "object", "properties": {"a": {"$ref": "https://example.com/schema.json"}}}),
        ] {
            assert_eq!(ObjectSchema::new(Some(&schema)).faults().len(), 1, "{schema}");
        }
    }
}
