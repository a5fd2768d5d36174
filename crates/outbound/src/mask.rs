//! Redaction by value: what hides secrets wherever they reappear.
//!
//! Guarantees that no secret of four bytes or more stays readable in what passed here, be it as it is, in upper or
//! lower case, in hexadecimal digits, in base64, percent-encoded, or escaped in JSON or HTML, whatever of it is
//! escaped and up to three times over. Inside a longer text that was put into base64 as a whole, secrets of eight
//! bytes or more are hidden up to a character at either end. Shorter secrets would hide half of every text: only the
//! headers that carried them hide those, which is `shown`'s part. Leaves compressed and encrypted texts to its callers.
//!
//! Time and memory are linear in the length of the secrets and of the text, whatever both are: a provider chooses its
//! tokens, and everybody the texts. What can be written in countless ways, escapes, is undone in the text (`View`);
//! the few forms that are left are looked for one after the other, and only where a short piece of one occurs.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};
use linkspan_model::secret::{MASK, SecretBytes};
use serde_json::Value;

use self::form::{Form, Forms};
use self::view::View;

mod form;
mod view;

/// Shortest secret that is masked by its value, in bytes.
const SHORTEST: usize = 4;

/// Shortest stretch of base64 that is taken for a part of a secret, in characters: 48 bits, so that ordinary
/// text is not hit by chance.
const SHORTEST_INNER: usize = 8;

/// Length of the pieces that are looked for first, in bytes. They are taken from the middle of a form, because the
/// tokens of one provider begin alike.
const PIECE: usize = 8;

/// How often escapes are undone: JSON in a URL in JSON.
const DEPTH: usize = 3;

/// Most bytes that an escape takes for one byte, as `\u0041` and `&#x041;` do.
const ESCAPED: usize = 7;

/// Hides secrets by value. Building one costs some ten microseconds for each secret, using it on a text without
/// secrets one pass: build it once for each set of secrets.
#[derive(Clone, Default)]
pub struct Masker {
    finder: Finder,
}

#[derive(Clone, Default)]
enum Finder {
    #[default]
    Nothing,
    Secrets(Arc<Secrets>),
    /// The automaton would outgrow its limits, so nothing can be told from a secret.
    Everything,
}

struct Secrets {
    /// Whether a piece of any form occurs, by the fastest way there is: hardly a text holds a secret.
    any: AhoCorasick,
    /// Which pieces occur, also those that overlap.
    pieces: AhoCorasick,
    /// The forms of each piece.
    forms: Vec<Vec<Form>>,
    /// The bytes that occur in forms.
    bytes: [bool; 256],
    /// Lengths of the shortest and of the longest form.
    shortest: usize,
    longest: usize,
}

impl Secrets {
    fn new(forms: Forms) -> Result<Self, BuildError> {
        let mut by_piece: HashMap<Vec<u8>, Vec<Form>> = HashMap::new();
        for form in forms.into_vec() {
            by_piece.entry(piece(&form.bytes).to_vec()).or_default().push(form);
        }
        let (pieces, by_piece): (Vec<Vec<u8>>, Vec<Vec<Form>>) = by_piece.into_iter().unzip();
        let any = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(&pieces)?;
        // It is asked where a piece was found only; one that is faster takes longer to be made.
        let pieces = AhoCorasick::builder().kind(Some(AhoCorasickKind::ContiguousNFA)).build(&pieces)?;
        let forms = || by_piece.iter().flatten();
        let mut bytes = [false; 256];
        forms().flat_map(|form| &form.bytes).for_each(|byte| bytes[usize::from(*byte)] = true);
        let shortest = forms().map(|form| form.bytes.len()).min().unwrap_or_default();
        let longest = forms().map(|form| form.bytes.len()).max().unwrap_or_default();
        Ok(Self { any, pieces, forms: by_piece, bytes, shortest, longest })
    }

    /// Where forms stand in `bytes`, in any order.
    fn find(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut hits = Vec::new();
        if bytes.len() < self.shortest {
            return hits;
        }
        let Some(first) = self.any.find(bytes) else { return hits };
        let mut seen = vec![false; self.forms.len()];
        let mut left = seen.len();
        for found in self.pieces.find_overlapping_iter(&bytes[first.start()..]) {
            let piece = found.pattern().as_usize();
            if std::mem::replace(&mut seen[piece], true) {
                continue;
            }
            for form in &self.forms[piece] {
                form.find(bytes, &mut hits);
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
        hits
    }

    /// The same in what the escapes in `bytes` stand for, by the places of the escapes.
    fn find_escaped(&self, bytes: &[u8], depth: usize) -> Vec<Range<usize>> {
        let mut hits = Vec::new();
        if bytes.len() < self.shortest || depth == DEPTH {
            return hits;
        }
        let kinds = view::kinds(bytes, &self.bytes);
        if kinds.is_empty() {
            return hits;
        }
        // A secret may hold what looks like an escape of another kind, which is left as it is.
        for kind in kinds.several() {
            let view = View::new(bytes, kind);
            hits.extend(self.find(&view.bytes).into_iter().map(|hit| view.source(hit)));
        }
        let view = View::new(bytes, kinds);
        let deeper = self.find_escaped(&view.bytes, depth + 1);
        hits.extend(self.find(&view.bytes).into_iter().chain(deeper).map(|hit| view.source(hit)));
        hits
    }
}

fn piece(form: &[u8]) -> &[u8] {
    let from = form.len().saturating_sub(PIECE) / 2;
    &form[from..form.len().min(from + PIECE)]
}

impl Masker {
    /// A masker of these secrets in all their forms.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretBytes>) -> Self {
        let mut forms = Forms::default();
        for secret in secrets {
            let bytes = secret.expose();
            forms.add(bytes);
            // Surrounding blanks do not survive a header or a form field.
            forms.add(bytes.trim_ascii());
        }
        if forms.is_empty() {
            return Self::default();
        }
        let finder = Secrets::new(forms).map_or(Finder::Everything, |secrets| Finder::Secrets(Arc::new(secrets)));
        Self { finder }
    }

    /// Whether there is anything to mask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.finder, Finder::Nothing)
    }

    /// The text with [`MASK`] in place of secrets.
    #[must_use]
    pub fn mask_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut hits = self.hits(text.as_bytes());
        if hits.is_empty() {
            return Cow::Borrowed(text);
        }
        // A secret that is not UTF-8 may begin or end inside a character.
        for hit in &mut hits {
            hit.start = (0..=hit.start).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            hit.end = (hit.end..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        }
        let masked = replace(text.as_bytes(), hits);
        Cow::Owned(String::from_utf8_lossy(&masked).into_owned())
    }

    /// The bytes with [`MASK`] in place of secrets.
    #[must_use]
    pub fn mask_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let hits = self.hits(bytes);
        if hits.is_empty() { Cow::Borrowed(bytes) } else { Cow::Owned(replace(bytes, hits)) }
    }

    /// The beginning of `bytes`, at most about `max` of them, with [`MASK`] in place of secrets. A secret across
    /// the cut is hidden as well.
    #[must_use]
    pub fn mask_beginning<'a>(&self, bytes: &'a [u8], max: usize) -> Cow<'a, [u8]> {
        if bytes.len() <= max {
            return self.mask_bytes(bytes);
        }
        let reach = match &self.finder {
            Finder::Secrets(secrets) => secrets.longest.saturating_mul(ESCAPED),
            Finder::Nothing | Finder::Everything => 0,
        };
        let mut hits = self.hits(&bytes[..bytes.len().min(max.saturating_add(reach))]);
        hits.retain(|hit| hit.start < max);
        let end = hits.last().map_or(max, |hit| hit.end.max(max));
        // What follows a secret across the cut is cut: the hit's end is the end.
        if hits.is_empty() { Cow::Borrowed(&bytes[..end]) } else { Cow::Owned(replace(&bytes[..end], hits)) }
    }

    /// The value with [`MASK`] in place of secrets, in texts, numbers and keys.
    #[must_use]
    pub fn mask_value(&self, value: Value) -> Value {
        if self.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => match self.mask_text(&text) {
                Cow::Borrowed(_) => Value::String(text),
                Cow::Owned(masked) => Value::String(masked),
            },
            Value::Number(number) => match self.mask_text(&number.to_string()) {
                Cow::Borrowed(_) => Value::Number(number),
                Cow::Owned(masked) => Value::String(masked),
            },
            Value::Array(items) => items.into_iter().map(|item| self.mask_value(item)).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(key, item)| (self.mask_text(&key).into_owned(), self.mask_value(item)))
                .collect(),
            other => other,
        }
    }

    /// Where secrets stand: in order, not touching each other. All matches count, also overlapping ones: of two
    /// secrets that share bytes both are hidden as a whole.
    fn hits(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let secrets = match &self.finder {
            Finder::Nothing => return Vec::new(),
            Finder::Everything => return std::iter::once(0..bytes.len()).collect(),
            Finder::Secrets(secrets) if bytes.len() < secrets.shortest => return Vec::new(),
            Finder::Secrets(secrets) => secrets,
        };
        let mut hits = secrets.find(bytes);
        hits.extend(secrets.find_escaped(bytes, 0));
        if hits.is_empty() {
            return hits;
        }
        hits.sort_unstable_by_key(|hit| hit.start);
        hits.dedup_by(|next, hit| {
            let touches = next.start <= hit.end;
            if touches {
                hit.end = hit.end.max(next.end);
            }
            touches
        });
        hits
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masker")
    }
}

fn replace(bytes: &[u8], hits: Vec<Range<usize>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut from = 0;
    for hit in hits {
        // Hits that were widened to whole characters may have met.
        out.extend_from_slice(bytes.get(from..hit.start).unwrap_or_default());
        out.extend_from_slice(MASK.as_bytes());
        from = hit.end;
    }
    out.extend_from_slice(&bytes[from..]);
    out
}

#[cfg(test)]
mod tests;
