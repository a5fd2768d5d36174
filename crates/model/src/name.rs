//! Names of documents, and the near match that a good error offers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits;

/// A slug `[a-z0-9][a-z0-9-]{0,62}`, unique among the documents of one kind.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a name; use 1 to 63 lower-case letters, digits and hyphens, not starting with a hyphen")]
pub struct BadName(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if (1..=63).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadName(shown(text)))
        }
    }
}

/// Longest text that an error shows where a name belongs, in bytes. What is longer may be a token.
pub const SHOWN_BYTES: usize = 24;

fn shown(text: &str) -> String {
    if text.len() > SHOWN_BYTES { format!("a text of {} bytes", text.len()) } else { format!("`{text}`") }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The candidate that `text` was most likely meant to be, when one is close enough to offer. The candidates may be
/// keys that a sender chose: how many are looked at, and how long they may be, is limited
/// ([`limits::NEAR_MATCH_NAMES`]).
pub fn near_match<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > limits::NEAR_MATCH_BYTES {
        return None;
    }
    let allowed = (text.chars().count() / 3).clamp(1, 3);
    let letters = letters(text);
    candidates
        .into_iter()
        .take(limits::NEAR_MATCH_NAMES)
        .filter(|candidate| {
            candidate.len() <= limits::NEAR_MATCH_BYTES && candidate.len().abs_diff(text.len()) <= 4 * allowed
        })
        // A character that is put in, left out or replaced changes at most eight bytes of the two together.
        .filter(|candidate| differing(&letters, candidate) <= 8 * allowed)
        .take(limits::NEAR_MATCH_MEASURED)
        .map(|candidate| (strsim::osa_distance(text, candidate), candidate))
        .filter(|(distance, _)| *distance > 0 && *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How often each byte occurs in a text of at most [`limits::NEAR_MATCH_BYTES`].
fn letters(text: &str) -> [i8; 256] {
    let mut letters = [0; 256];
    text.bytes().for_each(|byte| letters[usize::from(byte)] += 1);
    letters
}

/// How many bytes two texts do not have in common, wherever they stand.
fn differing(letters: &[i8; 256], other: &str) -> usize {
    let mut letters = *letters;
    other.bytes().for_each(|byte| letters[usize::from(byte)] -= 1);
    letters.iter().map(|count| usize::from(count.unsigned_abs())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_slugs_only() {
        for good in ["a", "github", "0-1", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a.b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn shows_what_is_no_name_only_when_it_is_short() {
        let error = |text: &str| text.parse::<Name>().unwrap_err().to_string();
        assert!(error("My Shop").starts_with("`My Shop` is not a name; "));
        assert!(error("Bearer 0123456789abcdefghij").starts_with("a text of 27 bytes is not a name; "));
    }

    #[test]
    fn offers_a_near_match_only_when_it_is_near() {
        assert_eq!(near_match("verfy", ["verify", "limits"]), Some("verify"));
        assert_eq!(near_match("qqq", ["verify", "limits"]), None);
        assert_eq!(near_match("grüße", ["gruße", "x"]), Some("gruße"));
        assert_eq!(near_match("nmae", ["x", "name", "nme"]), Some("name"));
    }

    #[test]
    fn looks_at_few_and_short_names_only() {
        let long = |end: &str| "k".repeat(limits::NEAR_MATCH_BYTES) + end;
        assert_eq!(near_match(&long(""), [long("")[1..].to_owned()].iter().map(String::as_str)), Some(&long("")[1..]));
        assert_eq!(near_match(&long("x"), [long("y")].iter().map(String::as_str)), None);
        assert_eq!(near_match(&long("")[1..], [long("")].iter().map(String::as_str)), Some(&*long("")));
        assert_eq!(near_match(&long(""), [long("y")].iter().map(String::as_str)), None);
        // What cannot be near does not count.
        let others = std::iter::repeat_n("something else", limits::NEAR_MATCH_NAMES - 1);
        assert_eq!(near_match("verfy", others.clone().chain(["verify"])), Some("verify"));
        assert_eq!(near_match("verfy", others.chain(["x", "verify"])), None);
        // The same letters in another order are measured, and those are few.
        let same = std::iter::repeat_n("yfrev", limits::NEAR_MATCH_MEASURED);
        assert_eq!(near_match("verfy", same.chain(["verify"])), None);
    }
}
