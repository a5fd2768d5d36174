//! A value of a JSON body by its pointer, without building the body.

use std::borrow::Cow;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Found;
use crate::tree::without_lone_surrogates;

/// The scalar at a JSON Pointer (RFC 6901). The body is walked through, not built: it may be large, and
/// its values many.
pub(super) fn scalar(body: &str, pointer: &str) -> Option<Found> {
    let tokens: Vec<String> =
        pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
    let found = follow(body, &tokens).or_else(|error| match without_lone_surrogates(body) {
        // A name that is no text, somewhere on the way.
        Cow::Owned(mended) => follow(&mended, &tokens),
        Cow::Borrowed(_) => Err(error),
    });
    found.ok().flatten()
}

fn follow(body: &str, tokens: &[String]) -> serde_json::Result<Option<Found>> {
    let mut walk = serde_json::Deserializer::from_str(body);
    let Some(raw) = Follow(tokens).deserialize(&mut walk)?.map(RawValue::get) else { return Ok(None) };
    Ok(match raw.as_bytes().first() {
        // What is no text is its JSON as it was written.
        Some(b'"') => Some(Found::Text(serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned()).into_bytes())),
        Some(b'-' | b'0'..=b'9') => Some(Found::Number(raw.to_owned())),
        _ => None,
    })
}

/// Follows the tokens of a pointer to the text of the value there; of repeated keys the last counts.
struct Follow<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.0.is_empty() {
            return <&RawValue>::deserialize(deserializer).map(Some);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Follow<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if *key == self.0[0] {
                found = map.next_value_seed(Follow(&self.0[1..]))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let wanted = self.0[0].parse().unwrap_or(usize::MAX);
        for _ in 0..wanted {
            if items.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = items.next_element_seed(Follow(&self.0[1..]))?.flatten();
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_scalar_without_building_the_body() {
        let scalar = |body: &str, pointer: &str| scalar(body, pointer).map(|found| found.to_string());
        assert_eq!(scalar(r#"{"a":[1]}"#, "/a"), None);
        assert_eq!(scalar(r#"{"a":[1,{"b/c":"x\u00e9"}],"z":0}"#, "/a/1/b~1c").unwrap(), "x\u{e9}");
        assert_eq!(scalar(r#"{"a":1,"a":2}"#, "/a").unwrap(), "2");
        assert_eq!(scalar(r#"{"a":5}"#, "/a/b"), None);
        assert_eq!(scalar("[true]", "/0"), None);
        let deep = format!("{{\"x\":{}{},\"id\":\"7\"}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(scalar(&deep, "/id").unwrap(), "7");
    }
}
