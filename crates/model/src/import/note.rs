//! Notes: what the user of an import should know.

use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// How many did not fit.
    dropped: usize,
}

impl Notes {
    /// Adds a note about `place`; empty for the whole.
    pub(super) fn add(&mut self, text: impl Into<String>, place: &str) {
        let text = cut(&text.into());
        if self.notes.len() >= NOTES_MAX && !self.notes.contains_key(&text) {
            self.dropped += 1;
            return;
        }
        let note = Note { text: text.clone(), places: Vec::new(), more: 0 };
        let note = self.notes.entry(text).or_insert(note);
        let place = cut(place);
        if place.is_empty() || note.places.contains(&place) {
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

fn cut(text: &str) -> String {
    let mut cut: String = text.chars().filter(|c| !c.is_control()).take(TEXT_MAX + 1).collect();
    if let Some((at, _)) = cut.char_indices().nth(TEXT_MAX) {
        cut.truncate(at);
        cut.push('…');
    }
    cut
}
