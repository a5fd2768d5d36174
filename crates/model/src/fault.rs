//! What is wrong with a document, said so that its author can mend it.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::SHOWN_BYTES;

/// One mistake in one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// Position of the document in what was sent, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<usize>,
    /// `kind/name` of the document, as far as they could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Where in the document: `spec.verify.hmac.header`; empty for the document as a whole.
    pub path: String,
    /// What is wrong, without a full stop.
    pub reason: String,
    /// What to do about it, when there is something better to say than the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Fault {
    /// A fault at `path` for `reason`.
    pub fn new(path: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self { document: None, subject: None, path: path.into(), reason: reason.to_string(), hint: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, `prefix` put before its path.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        self.path = match (prefix.is_empty(), self.path.is_empty()) {
            (true, _) => self.path,
            (_, true) => prefix.to_owned(),
            (false, false) if self.path.starts_with('[') => format!("{prefix}{}", self.path),
            (false, false) => format!("{prefix}.{}", self.path),
        };
        self
    }
}

/// A deserialiser's message without the value that it did not expect, which may be a secret that stands at a wrong
/// place: `invalid type: string, expected a map`.
#[must_use]
pub fn without_value(message: &str) -> Cow<'_, str> {
    // The expectation stands last, and what was found may hold anything.
    let Some((found, expected)) = message.rsplit_once(", expected ") else { return Cow::Borrowed(message) };
    let Some((problem, found)) =
        ["invalid type: ", "invalid value: "].iter().find_map(|start| Some((*start, found.strip_prefix(start)?)))
    else {
        return Cow::Borrowed(message);
    };
    let kind = match found.find(['"', '`']) {
        Some(value) => found[..value].trim_end(),
        None => found,
    };
    Cow::Owned(format!("{problem}{kind}, expected {expected}"))
}

/// That a key of `path` is no header name. Nothing is said of one that holds a value too, which may be a token.
pub(crate) fn bad_header_name(path: &str, written: &str) -> Fault {
    if written.len() > SHOWN_BYTES && written.contains([':', ' ']) {
        return Fault::new(path, "a name of a header holds neither colons nor blanks")
            .hint("give the name as the key, and as its value what stands behind the colon");
    }
    Fault::new(format!("{path}.{written}"), format_args!("`{}` is not a header name", written.escape_debug()))
}

/// A text of a document in a reason: cut, so that a reason stays one. Of what may be a URL with a password in it,
/// nothing.
#[must_use]
pub fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    if text.contains('@') {
        return "the text".to_owned();
    }
    let cut = if text.chars().nth(MOST).is_some() { "…" } else { "" };
    format!("`{}{cut}`", text.chars().take(MOST).collect::<String>().escape_debug())
}

/// Faults as one text, for where there is room for one only.
#[must_use]
pub fn in_words(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(subject) = &self.subject {
            write!(f, "{subject}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_loses_the_value_only() {
        for (message, expected) in [
            (
                "invalid type: string \"hun`ter2, expected \\\"x\", expected a map",
                "invalid type: string, expected a map",
            ),
            ("invalid type: integer `4711`, expected a string", "invalid type: integer, expected a string"),
            ("invalid value: floating point `1.5`, expected u8", "invalid value: floating point, expected u8"),
            ("invalid type: map, expected a string", "invalid type: map, expected a string"),
            ("unknown field `a`, expected `b` or `c`", "unknown field `a`, expected `b` or `c`"),
            ("missing field `a`", "missing field `a`"),
        ] {
            assert_eq!(without_value(message), expected);
        }
    }

    #[test]
    fn quotes_no_passwords_and_no_novels() {
        assert_eq!(quoted("http:// x"), "`http:// x`");
        assert_eq!(quoted("http://user:hunter2@ x"), "the text");
        assert_eq!(quoted(&"é".repeat(81)), format!("`{}…`", "é".repeat(80)));
    }
}
