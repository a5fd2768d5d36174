//! The keyword `uniqueItems` of JSON Schema (validation, section 6.4.3), in linear time.
//!
//! The library's own hashes numbers as floats, and objects in a way that anybody can foresee: a sender whose list has
//! all items in one bucket makes it compare each with each, which takes minutes for a body of some megabytes.

use std::collections::HashSet;

use jsonschema::paths::Location;
use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};

use crate::number::Decimal;

/// Whether the keyword asks for anything.
struct UniqueItems(bool);

/// Makes the keyword of its value in a schema.
#[expect(clippy::unnecessary_wraps, reason = "the library wants to be told what cannot be made")]
pub(super) fn unique_items<'a>(
    _: &'a Map<String, Value>,
    value: &'a Value,
    _: Location,
) -> Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>> {
    Ok(Box::new(UniqueItems(value == &Value::Bool(true))))
}

impl<'i> Keyword<'i> for UniqueItems {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(instance) { Ok(()) } else { Err(ValidationError::custom("two items are equal")) }
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        let Some(items) = instance.as_array().filter(|items| self.0 && items.len() > 1) else { return true };
        let mut seen = HashSet::with_capacity(items.len());
        items.iter().all(|item| {
            let mut text = String::new();
            write(item, &mut text);
            seen.insert(text)
        })
    }
}

/// Writes a value so that equal ones have one text: `1.0` is `1`, and the order of an object's keys does not matter.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => Decimal::of(number).write(out),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in fields {
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(value, out);
                out.push(',');
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_unique(items: &Value) -> bool {
        UniqueItems(true).is_valid(items)
    }

    #[test]
    fn tells_equal_from_different_items() {
        let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        for (items, expected) in [
            (json!([]), true),
            (json!([1, "1", true, null, [1], {"a": 1}]), true),
            (json!([1, number("1.0")]), false),
            (json!([number("1e400"), number("10e399")]), false),
            (json!([number("9007199254740992"), number("9007199254740993")]), true),
            (json!([[0], [false]]), true),
            (json!([{"a": 1, "b": 2}, {"b": 2.0, "a": 1}]), false),
            (json!([["a", "b"], ["a,b"]]), true),
            (json!([{"a": "b"}, {"a\":\"b": 1}]), true),
            (json!([null, null]), false),
            (json!("aa"), true),
        ] {
            assert_eq!(is_unique(&items), expected, "{items}");
        }
        assert!(UniqueItems(false).is_valid(&json!([1, 1])));
    }

    #[test]
    fn is_the_keyword_that_schemas_use() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}});
        let read = super::super::ObjectSchema::new(Some(&schema));
        let complete = |items: Value| read.complete(json!({"a": items}).as_object().cloned().unwrap());
        assert_eq!(complete(json!([1, 1.0])).unwrap_err()[0].to_string(), "a: two items are equal");
        // In one bucket of floats: the library would compare each with each.
        let many: Vec<Value> = (0..20_000).map(|n| serde_json::from_str(&format!("1{n:040}")).unwrap()).collect();
        assert!(complete(many.into()).is_ok());
    }
}
