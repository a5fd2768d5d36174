//! JSON of sources: read as data, with the keys that stand twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::yaml::{Repeated, join_repeated};

/// The key under which the library hands on a number with its digits.
const NUMBER: &str = "$serde_json::private::Number";

/// Reads JSON; keys that stand twice in an object are added to `repeated`.
pub(super) fn read(text: &str, repeated: &mut Vec<Repeated>) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Tree(repeated).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Tree<'a>(&'a mut Vec<Repeated>);

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Tree(self.0))? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if key == NUMBER && map.is_empty() {
                let number = fields.next_value::<String>()?.parse().map_err(A::Error::custom)?;
                return Ok(Value::Number(number));
            }
            let value = fields.next_value_seed(Tree(self.0))?;
            if let Some(earlier) = map.get_mut(&key) {
                join_repeated(earlier, value);
                self.0.push(Repeated { key, line: None });
            } else {
                map.insert(key, value);
            }
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_library_reads_and_names_repeated_keys() {
        let text = r#"{"a":[1.10,76159173374952512310,-0,1e400,true,null,"x\ud83d\ude00"],"b":{"c":{"x":1},"c":{"y":2}},"d":1,"d":2,"e":{}}"#;
        let mut repeated = Vec::new();
        let value = read(text, &mut repeated).unwrap();
        assert_eq!(
            value.to_string(),
            r#"{"a":[1.10,76159173374952512310,-0,1e+400,true,null,"x😀"],"b":{"c":{"x":1,"y":2}},"d":2,"e":{}}"#
        );
        let keys: Vec<&str> = repeated.iter().map(|repeated| repeated.key.as_str()).collect();
        assert_eq!(keys, ["c", "d"]);
        for text in ["{", "[1,]", "{} x", "01", "\"\\ud83d\""] {
            assert!(read(text, &mut Vec::new()).is_err(), "{text}");
        }
        assert!(read(&"[".repeat(100_000), &mut Vec::new()).is_err());
    }
}
