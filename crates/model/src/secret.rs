//! Secret values: never printed, never serialised, wiped when dropped.

use std::fmt;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::fault::Fault;
use crate::limits;
use crate::name::Name;

/// A secret value. `Debug` prints a mask, and there is deliberately no `Serialize` and no `Display`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The value itself: only where it is used, never where it could be kept or shown.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The value as text, when it is UTF-8.
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("••••••")
    }
}

/// What stands in shown requests, headers and errors where a secret's value was.
pub const MASK: &str = "••••••";

/// A reference to a secret document: `{secret: NAME}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// The name of the secret document.
    #[serde(deserialize_with = "name_of_secret")]
    #[schemars(with = "Name")]
    pub secret: Name,
}

/// Reads a name without repeating what is none: people paste the secret itself.
fn name_of_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    const REASON: &str = "this is not the name of a secret, which has 1 to 63 lower-case letters, digits and hyphens; \
        the value itself belongs into a secret document";
    String::deserialize(deserializer)?.parse().map_err(|_| D::Error::custom(REASON))
}

/// What a secret document says: where its value comes from. Exactly one of the three is given, except
/// that a document without any keeps the value that an earlier apply stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// An environment variable of the server; its name starts with `LINKSPAN_SECRET_`, so that a document
    /// cannot read the rest of the server's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// A file below the data folder's `secrets/`; a trailing line break is not part of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The value itself. Write-only: stored encrypted, never given back.
    #[serde(default, skip_serializing)]
    pub value: Option<SecretText>,
}

impl SecretSpec {
    /// Everything that is wrong with this spec on its own, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let given = [self.env.is_some(), self.file.is_some(), self.value.is_some()];
        let mut faults = Vec::new();
        if self.value.as_ref().is_some_and(|value| value.0.len() > limits::SECRET_BYTES) {
            faults
                .push(Fault::new("value", format_args!("a secret is at most {} KiB long", limits::SECRET_BYTES >> 10)));
        }
        if self.value.as_ref().is_some_and(|value| value.0.is_empty()) {
            faults.push(Fault::new("value", "an empty secret keeps nothing secret; give its value, or leave it out"));
        }
        if given.iter().filter(|is| **is).count() > 1 {
            faults.push(Fault::new("", "give one of env, file and value"));
        }
        if self.env.as_ref().is_some_and(|name| !name.starts_with(ENV_PREFIX)) {
            faults.push(
                Fault::new("env", format_args!("a secret's variable starts with {ENV_PREFIX}"))
                    .hint("so that a document cannot read the rest of the server's environment"),
            );
        }
        let inside = |path: &String| path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if self.file.as_ref().is_some_and(|path| !inside(path)) {
            faults.push(Fault::new("file", "a secret's file is a relative path below the data folder's secrets/"));
        }
        faults
    }
}

/// A secret given as text in a document.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// The bytes of the text.
    #[must_use]
    pub fn to_bytes(&self) -> SecretBytes {
        SecretBytes::new(self.0.as_bytes())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// The prefix of environment variables that secrets may come from.
pub const ENV_PREFIX: &str = "LINKSPAN_SECRET_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints_its_value() {
        let secret = SecretBytes::new("hunter2");
        assert_eq!(format!("{secret:?}"), MASK);
        let spec: SecretSpec = serde_json::from_str(r#"{"value": "hunter2"}"#).unwrap();
        assert!(!format!("{spec:?}").contains("hunter2"));
        assert_eq!(serde_json::to_string(&spec).unwrap(), "{}");
    }

    #[test]
    fn has_a_longest_value() {
        let spec = |bytes: usize| SecretSpec { value: Some(SecretText("x".repeat(bytes))), ..SecretSpec::default() };
        assert!(spec(limits::SECRET_BYTES).faults().is_empty());
        assert_eq!(spec(limits::SECRET_BYTES + 1).faults()[0].to_string(), "value: a secret is at most 64 KiB long");
    }
}
