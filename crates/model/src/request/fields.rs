//! Named values of queries and forms, where a list or an object becomes several of them.
//!
//! A list repeats the name, as forms of HTML do: `tag=a&tag=b`. What is nested is written in brackets, as Stripe, PHP
//! and Rails read it: `{at: {city: x}}` is `at[city]=x`, and a list of objects or lists, or a list within, is told by
//! numbers, `items[0][id]=1`.

use indexmap::IndexMap;
use serde_json::Value;

use super::body::JsonTemplate;
use super::render::RenderFault;
use crate::limits;
use crate::reader::Reader;
use crate::template::{self, Joined, Scope};

/// Named values with their templates read.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, JsonTemplate)>);

impl Fields {
    pub(super) fn read(reader: &mut Reader, path: &str, fields: &IndexMap<String, Value>) -> Self {
        let read = |(name, value): (&String, &Value)| {
            let path = format!("{path}.{name}");
            if name.is_empty() {
                reader.fault(&path, "a name is missing");
            }
            Some((name.clone(), JsonTemplate::read(reader, &path, value)?))
        };
        Self(fields.iter().filter_map(read).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names and their values, in order; `field` is where they stand in the step. What is nothing but a pill of
    /// something that was not given is left out.
    pub(super) fn render(&self, field: &str, scope: &Scope) -> Result<Vec<(String, Written)>, RenderFault> {
        let mut pairs = Vec::new();
        for (name, template) in self.0.iter().filter(|(_, template)| !template.is_absent(scope)) {
            let field = format!("{field}.{name}");
            if let JsonTemplate::Text(text) = template
                && let Some(joined) = text.joined(scope).map_err(|e| RenderFault::of(&field, &e))?
            {
                pairs.push((name.clone(), Written::Joined(joined)));
                continue;
            }
            let value = template.render_whole(&field, scope)?;
            let mut room = limits::RENDERED_BYTES;
            let written = match &value {
                Value::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object()) => {
                    items.iter().try_for_each(|item| write(name.clone(), item, &mut pairs, &mut room))
                }
                value => write(name.clone(), value, &mut pairs, &mut room),
            };
            written.map_err(|TooLong| {
                RenderFault::new(field, "request.too_large", "names and values would be longer than 1 MiB")
            })?;
        }
        Ok(pairs)
    }
}

/// The value of a parameter or a field.
#[derive(Debug)]
pub(super) enum Written {
    Text(String),
    /// A list whose items are told from what stands between them.
    Joined(Joined),
}

/// There is no room left.
struct TooLong;

/// Appends what a value gives; `room` is how long names and texts may still be, together. Names grow with their depth,
/// so those of lists and objects count as well, be they empty or not.
fn write(name: String, value: &Value, pairs: &mut Vec<(String, Written)>, room: &mut usize) -> Result<(), TooLong> {
    *room = room.checked_sub(name.len() + 1).ok_or(TooLong)?;
    match value {
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(n, item)| write(format!("{name}[{n}]"), item, pairs, room))
        }
        Value::Object(fields) => {
            fields.iter().try_for_each(|(key, item)| write(format!("{name}[{key}]"), item, pairs, room))
        }
        scalar => {
            let text = template::text_of(scalar).into_owned();
            *room = room.checked_sub(text.len()).ok_or(TooLong)?;
            pairs.push((name, Written::Text(text)));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(fields: Value, input: Value) -> String {
        let check = |_: &str, _: &_| None;
        let mut reader = Reader::new(&check);
        let fields: IndexMap<String, Value> = serde_json::from_value(fields).unwrap();
        let fields = Fields::read(&mut reader, "form", &fields);
        assert_eq!(reader.into_faults(), []);
        let known = ["a", "b", "c"].map(|name| (name.to_owned(), input.get(name).cloned()));
        let scope = Scope::new().with_fields("input", known);
        let pairs = fields.render("form", &scope).unwrap();
        let text = |value: &Written| match value {
            Written::Text(text) => text.clone(),
            Written::Joined(joined) => joined.text(),
        };
        pairs.iter().map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join("&")
    }

    #[test]
    fn lists_and_objects_are_written_in_brackets() {
        for (fields, input, expected) in [
            (json!({"a": "{{ input.a }}"}), json!({"a": {"x": 1, "y": [true, null]}}), "a[x]=1&a[y][0]=true&a[y][1]="),
            (
                json!({"a": "{{ input.a }}"}),
                json!({"a": [{"price": "p"}, {"price": "q"}]}),
                "a[0][price]=p&a[1][price]=q",
            ),
            (
                json!({"r": {"interval": "{{ input.b }}", "count": 2}}),
                json!({"b": "month"}),
                "r[interval]=month&r[count]=2",
            ),
            (json!({"a": "{{ input.a }}"}), json!({"a": ["x", "y"]}), "a=x&a=y"),
            (json!({"a[]": ["x", "{{ input.b }}", "{{ input.c }}"]}), json!({"b": "y"}), "a[]=x&a[]=y"),
            (json!({"a": "{{ input.a }}"}), json!({"a": ["x", [1]]}), "a[0]=x&a[1][0]=1"),
            (json!({"a": "n {{ input.a }}"}), json!({"a": [1]}), "a=n [1]"),
            (json!({"a": [], "b": {}, "c": ""}), json!({}), "c="),
        ] {
            assert_eq!(rendered(fields.clone(), input), expected, "{fields}");
        }
    }

    #[test]
    fn what_nests_takes_no_more_room_than_a_text_may() {
        let check = |_: &str, _: &_| None;
        let fields: IndexMap<String, Value> = serde_json::from_value(json!({"a": "{{ input.a }}"})).unwrap();
        let fields = Fields::read(&mut Reader::new(&check), "form", &fields);
        let deep = (0..50).fold(json!(vec![json!([]); 10_000]), |inner, _| json!({"a long name of a field": inner}));
        for value in [deep, json!(vec![json!([]); 1 << 18]), json!(vec!["x"; 1 << 20])] {
            let scope = Scope::new().with_fields("input", [("a".to_owned(), Some(value))]);
            assert_eq!(fields.render("form", &scope).unwrap_err().code, "request.too_large");
        }
    }

    #[test]
    fn what_is_not_given_is_left_out_at_any_depth() {
        let fields = json!({
            "a": "{{ input.a }}", "b": {"x": "{{ input.b }}", "y": {"z": "{{ input.a | join(',') }}"}}, "c": "{{ input.c }}",
        });
        assert_eq!(rendered(fields.clone(), json!({"c": "1"})), "c=1");
        assert_eq!(rendered(fields, json!({"a": ["x", "y"]})), "a=x&a=y&b[y][z]=x,y");
    }
}
