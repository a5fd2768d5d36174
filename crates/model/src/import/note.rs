//! Notes: what the user of an import should know.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::example::shown;

/// Something that was left out, changed or has to be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// What, and what to do where there is something to do.
    pub text: String,
    /// Where in the source, or which actions; empty for the whole. Of many, the first few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<String>,
    /// How many more places there are.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub more: usize,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.places.is_empty() {
            f.write_str(&self.places.join(", "))?;
            if self.more > 0 {
                write!(f, " and {} more", self.more)?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.text)
    }
}

/// How many places a note lists.
const PLACES_SHOWN: usize = 5;
/// How many different notes there are at most; a source could cause as many as it has operations.
const NOTES_MAX: usize = 200;
/// Longest text of a note and of a place, in characters: both may quote the source.
const TEXT_MAX: usize = 400;

/// Notes as they are gathered: the same text in many places is one note.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    notes: IndexMap<String, Note>,
    /// Texts with their places that were added, by their hash: what is said again is not counted again.
    known: HashSet<u64>,
    hasher: RandomState,
    /// How many did not fit.
    dropped: usize,
}

impl Notes {
    /// Adds a note about `place`; empty for the whole.
    pub(super) fn add(&mut self, text: impl Into<String>, place: &str) {
        let (text, place) = (cut(&text.into()), cut(place));
        if !self.known.insert(self.hasher.hash_one((&text, &place))) {
            return;
        }
        if self.notes.len() >= NOTES_MAX && !self.notes.contains_key(&text) {
            self.dropped += 1;
            return;
        }
        let note = Note { text: text.clone(), places: Vec::new(), more: 0 };
        let note = self.notes.entry(text).or_insert(note);
        if place.is_empty() {
            return;
        }
        if note.places.len() < PLACES_SHOWN { note.places.push(place) } else { note.more += 1 }
    }

    pub(super) fn into_notes(self) -> Vec<Note> {
        let mut notes: Vec<Note> = self.notes.into_values().collect();
        if self.dropped > 0 {
            let text =
                format!("{} more notes are not shown; import fewer operations at a time to see them", self.dropped);
            notes.push(Note { text, places: Vec::new(), more: 0 });
        }
        notes
    }
}

/// A text as a note shows it: variables in braces, not too long.
fn cut(text: &str) -> String {
    let mut cut: String = shown(text).chars().filter(|c| !c.is_control()).take(TEXT_MAX + 1).collect();
    if let Some((at, _)) = cut.char_indices().nth(TEXT_MAX) {
        cut.truncate(at);
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_once() {
        let mut notes = Notes::default();
        for place in ["a", "b", "c", "d", "e", "f", "g", "f", "a", ""] {
            notes.add("text", place);
        }
        let notes = notes.into_notes();
        assert_eq!((notes.len(), notes[0].places.len(), notes[0].more), (1, 5, 2));
    }
}
