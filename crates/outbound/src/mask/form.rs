//! The forms of a secret that no escape makes: what upper and lower case, hexadecimal digits and base64 make of it.
//!
//! Guarantees that all of them together are a constant times as long as the secret, and that each is found in time
//! linear in its length and that of the text.

use std::collections::HashSet;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::{SHORTEST, SHORTEST_INNER};

/// RFC 3986's unreserved characters stay.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A way in which a secret may stand in a text.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub bytes: Vec<u8>,
    /// Whether equals signs behind it belong to it.
    is_padded: bool,
}

impl Form {
    /// Adds where it stands in `text` to `hits`, also where it overlaps itself. Returns the steps that it took: at
    /// most three for each byte of the text, and none for one that is shorter than the form.
    pub(super) fn find(&self, text: &[u8], hits: &mut Vec<Range<usize>>) -> usize {
        // There may be thousands of short texts, and preparing to search takes as long as the form is.
        if text.len() < self.bytes.len() {
            return 0;
        }
        let Some(first) = memmem::find(text, &self.bytes) else { return text.len() };
        // From there on by Knuth, Morris and Pratt: a form such as "aaaa" may stand at every place.
        let (form, length) = (&self.bytes, self.bytes.len());
        let borders = borders(form);
        let (mut matched, mut steps) = (0, length + first);
        for (at, byte) in text.iter().enumerate().skip(first) {
            steps += 1;
            while matched > 0 && (matched == length || form[matched] != *byte) {
                matched = borders[matched - 1];
                steps += 1;
            }
            matched += usize::from(form[matched] == *byte);
            if matched < length {
                continue;
            }
            let start = at + 1 - length;
            let rest = text.get(at + 1..).unwrap_or_default();
            let padding = rest.iter().take(2).take_while(|byte| self.is_padded && **byte == b'=').count();
            let end = at + 1 + padding;
            // Joined as they come, so that a text full of hits takes no room.
            match hits.last_mut() {
                Some(last) if last.start <= start && start <= last.end => last.end = last.end.max(end),
                _ => hits.push(start..end),
            }
        }
        steps
    }
}

/// For each beginning of `form` how long its longest end is that `form` begins with too.
fn borders(form: &[u8]) -> Vec<usize> {
    let mut borders = vec![0; form.len()];
    let mut matched = 0;
    for at in 1..form.len() {
        while matched > 0 && form[matched] != form[at] {
            matched = borders[matched - 1];
        }
        matched += usize::from(form[matched] == form[at]);
        borders[at] = matched;
    }
    borders
}

/// Those of several secrets.
#[derive(Default)]
pub(super) struct Forms(HashSet<Form>);

impl Forms {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<Form> {
        self.0.into_iter().collect()
    }

    pub(super) fn add(&mut self, secret: &[u8]) {
        if secret.len() < SHORTEST {
            return;
        }
        self.plain(secret.to_vec());
        if secret.contains(&b' ') {
            // As forms write their blanks.
            self.plain(secret.iter().map(|byte| if *byte == b' ' { b'+' } else { *byte }).collect());
        }
        self.add_encoded(secret);
        // What else was encoded is most often JSON or a part of a URL.
        self.add_encoded(percent_encode(secret, COMPONENT).to_string().as_bytes());
        match std::str::from_utf8(secret) {
            Ok(text) => {
                let lower = text.to_lowercase();
                let mut chars = lower.chars();
                let first = chars.next().into_iter().flat_map(char::to_uppercase);
                self.plain(first.chain(chars).collect::<String>().into_bytes());
                self.plain(lower.into_bytes());
                self.plain(text.to_uppercase().into_bytes());
                // Writing a text as JSON cannot fail.
                let json = serde_json::to_string(text).unwrap_or_default();
                self.add_encoded(json.trim_matches('"').as_bytes());
            }
            Err(_) => {
                self.plain(secret.to_ascii_lowercase());
                self.plain(secret.to_ascii_uppercase());
            }
        }
    }

    fn plain(&mut self, bytes: Vec<u8>) {
        self.0.insert(Form { bytes, is_padded: false });
    }

    fn add_encoded(&mut self, secret: &[u8]) {
        self.plain(hex::encode(secret).into_bytes());
        self.plain(hex::encode_upper(secret).into_bytes());
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            self.0.insert(Form { bytes: engine.encode(secret).into_bytes(), is_padded: true });
        }
        // Inside a longer text that was encoded as a whole, such as `user:secret`, it may begin at any of three places
        // within a group, and the characters that it shares with its neighbours do not count.
        for before in 0..3 {
            let padded = [&[0; 2][..before], secret].concat();
            let first = (before * 8).div_ceil(6);
            let end = padded.len() * 8 / 6;
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let text = engine.encode(&padded);
                if let Some(inner) = text.get(first..end).filter(|inner| inner.len() >= SHORTEST_INNER) {
                    self.plain(inner.as_bytes().to_vec());
                }
            }
        }
    }
}
