//! Named values of queries and forms, where a list or an object becomes several of them.
//!
//! Within each other they are written in brackets, as Stripe, PHP and Rails read them: `{a: {b: [1, 2]}}` is
//! `a[b][0]=1&a[b][1]=2`. A name that ends in `*` is taken apart as URI templates do it (RFC 6570, section 3.2.1):
//! a list repeats the name, an object gives its own names.

use indexmap::IndexMap;
use serde_json::Value;

use super::body::JsonTemplate;
use super::render::RenderFault;
use crate::limits;
use crate::reader::Reader;
use crate::template::{self, Scope};

/// Named values with their templates read.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, JsonTemplate)>);

impl Fields {
    pub(super) fn read(reader: &mut Reader, path: &str, fields: &IndexMap<String, Value>) -> Self {
        let read = |(name, value): (&String, &Value)| {
            let path = format!("{path}.{name}");
            if name.is_empty() || name == "*" {
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
    pub(super) fn render(&self, field: &str, scope: &Scope) -> Result<Vec<(String, String)>, RenderFault> {
        let mut pairs = Pairs { pairs: Vec::new(), room: usize::try_from(limits::BODY_MAX_BYTES).unwrap_or(usize::MAX) };
        for (name, template) in self.0.iter().filter(|(_, template)| !template.is_absent(scope)) {
            let field = format!("{field}.{name}");
            let value = template.render_whole(&field, scope)?;
            let fits = match name.strip_suffix('*') {
                Some(name) => pairs.explode(name, &value),
                None => pairs.add(name.clone(), &value),
            };
            if !fits {
                return Err(RenderFault::new(field, "request.too_large", "it would be longer than 64 MiB"));
            }
        }
        Ok(pairs.pairs)
    }
}

struct Pairs {
    pairs: Vec<(String, String)>,
    /// How many bytes they may still take: names grow with their depth.
    room: usize,
}

impl Pairs {
    /// Whether there was room for it.
    fn explode(&mut self, name: &str, value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().all(|item| self.add(name.to_owned(), item)),
            Value::Object(fields) => fields.iter().all(|(key, value)| self.add(key.clone(), value)),
            scalar => self.add(name.to_owned(), scalar),
        }
    }

    fn add(&mut self, name: String, value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().enumerate().all(|(n, item)| self.add(format!("{name}[{n}]"), item)),
            Value::Object(fields) => fields.iter().all(|(key, value)| self.add(format!("{name}[{key}]"), value)),
            scalar => {
                let text = template::text_of(scalar).into_owned();
                let left = self.room.checked_sub(name.len() + text.len());
                self.room = left.unwrap_or_default();
                self.pairs.push((name, text));
                left.is_some()
            }
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
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }

    #[test]
    fn lists_and_objects_are_written_in_brackets() {
        for (fields, input, expected) in [
            (json!({"a": "{{ input.a }}"}), json!({"a": {"x": 1, "y": [true, null]}}), "a[x]=1&a[y][0]=true&a[y][1]="),
            (json!({"a": "{{ input.a }}"}), json!({"a": [{"price": "p"}, {"price": "q"}]}), "a[0][price]=p&a[1][price]=q"),
            (json!({"r": {"interval": "{{ input.b }}", "count": 2}}), json!({"b": "month"}), "r[interval]=month&r[count]=2"),
            (json!({"a*": "{{ input.a }}"}), json!({"a": ["x", "y"]}), "a=x&a=y"),
            (json!({"a[]*": ["x", "{{ input.b }}", "{{ input.c }}"]}), json!({"b": "y"}), "a[]=x&a[]=y"),
            (json!({"a*": "{{ input.a }}"}), json!({"a": {"x": 1, "y": [2]}}), "x=1&y[0]=2"),
            (json!({"a*": "{{ input.a }}"}), json!({"a": 1.50}), "a=1.5"),
            (json!({"a": "n {{ input.a }}"}), json!({"a": [1]}), "a=n [1]"),
            (json!({"a": [], "b": {}, "c": ""}), json!({}), "c="),
        ] {
            assert_eq!(rendered(fields.clone(), input), expected, "{fields}");
        }
    }

    #[test]
    fn what_is_not_given_is_left_out_at_any_depth() {
        let fields = json!({
            "a": "{{ input.a }}", "b": {"x": "{{ input.b }}", "y": {"z": "{{ input.a | join(',') }}"}}, "c": "{{ input.c }}",
        });
        assert_eq!(rendered(fields.clone(), json!({"c": "1"})), "c=1");
        assert_eq!(rendered(fields, json!({"a": ["x", "y"]})), "a[0]=x&a[1]=y&b[y][z]=x,y");
    }
}
