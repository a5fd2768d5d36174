//! Redaction by value: what hides secrets wherever they reappear.
//!
//! Guarantees that no secret of four bytes or more stays readable in what passed here, be it as it is, in base64,
//! percent-encoded, or escaped in JSON or HTML. Inside a longer text that was put into base64 as a whole, secrets
//! of eight bytes or more are hidden up to a character at either end. Shorter secrets would hide half of every
//! text: only the headers that carried them hide those, which is `shown`'s part. Leaves compressed and encrypted
//! texts to its callers.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;

use aho_corasick::{AhoCorasick, BuildError, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use linkspan_model::secret::{MASK, SecretBytes};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};
use serde_json::Value;

/// Shortest secret that is masked by its value, in bytes.
const SHORTEST: usize = 4;

/// Shortest stretch of base64 that is taken for a part of a secret, in characters: 48 bits, so that ordinary
/// text is not hit by chance.
const SHORTEST_INNER: usize = 8;

/// Hides secrets by value. Building one costs some ten microseconds for each secret, using it on a text without
/// secrets one pass: build it once for each set of secrets.
#[derive(Clone, Default)]
pub struct Masker {
    finder: Finder,
    /// Lengths of the shortest and of the longest form of a secret.
    shortest: usize,
    longest: usize,
}

#[derive(Clone, Default)]
enum Finder {
    #[default]
    Nothing,
    Forms(Box<Forms>),
    /// The automaton would outgrow its limits, so nothing can be told from a secret.
    Everything,
}

#[derive(Clone)]
struct Forms {
    /// Whether there is any, by the fastest way there is: hardly a text holds a secret.
    any: AhoCorasick,
    /// All of them, also those that overlap.
    all: AhoCorasick,
}

impl Forms {
    fn new(forms: &HashSet<Vec<u8>>) -> Result<Self, BuildError> {
        let any = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(forms)?;
        Ok(Self { any, all: AhoCorasick::new(forms)? })
    }
}

impl Masker {
    /// A masker of these secrets in all their forms.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretBytes>) -> Self {
        let mut forms = HashSet::new();
        for secret in secrets {
            let bytes = secret.expose();
            add_forms(&mut forms, bytes);
            // Surrounding blanks do not survive a header or a form field.
            add_forms(&mut forms, bytes.trim_ascii());
        }
        if forms.is_empty() {
            return Self::default();
        }
        let shortest = forms.iter().map(Vec::len).min().unwrap_or_default();
        let longest = forms.iter().map(Vec::len).max().unwrap_or_default();
        match Forms::new(&forms) {
            Ok(forms) => Self { finder: Finder::Forms(Box::new(forms)), shortest, longest },
            Err(_) => Self { finder: Finder::Everything, shortest, longest },
        }
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
        let mut hits = self.hits(&bytes[..bytes.len().min(max.saturating_add(self.longest))]);
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
        let forms = match &self.finder {
            Finder::Nothing => return Vec::new(),
            Finder::Everything => return std::iter::once(0..bytes.len()).collect(),
            Finder::Forms(forms) if bytes.len() < self.shortest || !forms.any.is_match(bytes) => return Vec::new(),
            Finder::Forms(forms) => forms,
        };
        // Their ends come in order; joined as they come, so that a text full of hits takes no room.
        let mut merged: Vec<Range<usize>> = Vec::new();
        for hit in forms.all.find_overlapping_iter(bytes) {
            let mut start = hit.start();
            while let Some(last) = merged.pop_if(|last| last.end >= start) {
                start = start.min(last.start);
            }
            merged.push(start..hit.end());
        }
        merged
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

/// RFC 3986's unreserved characters stay.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What JavaScript's encodeURIComponent leaves.
const COMPONENT: &AsciiSet = &STRICT.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');
/// What form encoding leaves (WHATWG URL), before its blanks become plus signs.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*').remove(b' ');
/// What URL parsers escape in queries, paths and user names.
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');
const SPECIAL_QUERY: &AsciiSet = &QUERY.add(b'\'');
const PATH: &AsciiSet = &QUERY.add(b'?').add(b'`').add(b'{').add(b'}').add(b'^');
const SEGMENT: &AsciiSet = &PATH.add(b'/').add(b'%');

fn add_forms(forms: &mut HashSet<Vec<u8>>, secret: &[u8]) {
    if secret.len() < SHORTEST {
        return;
    }
    forms.insert(secret.to_vec());
    for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
        forms.insert(engine.encode(secret).into_bytes());
    }
    add_inner_base64(forms, secret);
    for set in [NON_ALPHANUMERIC, STRICT, COMPONENT, QUERY, SPECIAL_QUERY, PATH, SEGMENT] {
        add_percent(forms, percent_encode(secret, set).to_string());
    }
    let form = percent_encode(secret, FORM).to_string();
    add_percent(forms, form.replace(' ', "+"));
    add_percent(forms, form.replace(' ', "%20"));
    if let Ok(text) = std::str::from_utf8(secret) {
        add_escaped(forms, text);
    } else {
        // How headers that are not UTF-8 are shown.
        forms.insert(secret.escape_ascii().to_string().into_bytes());
    }
}

/// The secret inside a longer text that was encoded as a whole, such as `user:secret`: it may begin at any of
/// three places within a group, and the characters that it shares with its neighbours do not count.
fn add_inner_base64(forms: &mut HashSet<Vec<u8>>, secret: &[u8]) {
    for before in 0..3 {
        let padded = [&[0; 2][..before], secret].concat();
        let first = (before * 8).div_ceil(6);
        let end = padded.len() * 8 / 6;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded);
            if let Some(inner) = text.get(first..end).filter(|inner| inner.len() >= SHORTEST_INNER) {
                forms.insert(inner.as_bytes().to_vec());
            }
        }
    }
}

/// The form with upper-case and with lower-case digits.
fn add_percent(forms: &mut HashSet<Vec<u8>>, upper: String) {
    let mut lower = String::with_capacity(upper.len());
    let mut digits = 0;
    for c in upper.chars() {
        lower.push(if digits > 0 { c.to_ascii_lowercase() } else { c });
        digits = if c == '%' { 2 } else { usize::saturating_sub(digits, 1) };
    }
    forms.insert(lower.into_bytes());
    forms.insert(upper.into_bytes());
}

/// The text as JSON and HTML writers escape it: how little, whether slashes, whether all that is not ASCII, and
/// whether what HTML would take for its own.
fn add_escaped(forms: &mut HashSet<Vec<u8>>, text: &str) {
    for slashes in [false, true] {
        for ascii in [Ascii::Kept, Ascii::OnlyLower, Ascii::OnlyUpper] {
            for html in [false, true] {
                forms.insert(json_escaped(text, slashes, ascii, html).into_bytes());
            }
        }
    }
    let html = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    forms.insert(html.replace('"', "&quot;").into_bytes());
    for (double, single) in [("&quot;", "&#39;"), ("&quot;", "&#x27;"), ("&#34;", "&#39;")] {
        forms.insert(html.replace('"', double).replace('\'', single).into_bytes());
    }
    forms.insert(html.into_bytes());
}

/// Whether other characters than ASCII stay, or are escaped, with which digits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ascii {
    Kept,
    OnlyLower,
    OnlyUpper,
}

fn json_escaped(text: &str, slashes: bool, ascii: Ascii, html: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let short = match c {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            '\u{8}' => Some("\\b"),
            '\u{c}' => Some("\\f"),
            '/' if slashes => Some("\\/"),
            _ => None,
        };
        if let Some(short) = short {
            out.push_str(short);
            continue;
        }
        let escape =
            c < ' ' || (!c.is_ascii() && ascii != Ascii::Kept) || (html && matches!(c, '<' | '>' | '&' | '\''));
        if !escape {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing into a String cannot fail.
            let written = match ascii {
                Ascii::OnlyUpper => write!(out, "\\u{unit:04X}"),
                _ => write!(out, "\\u{unit:04x}"),
            };
            debug_assert!(written.is_ok());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn masker(secrets: &[&str]) -> Masker {
        let secrets: Vec<_> = secrets.iter().map(|text| SecretBytes::new(*text)).collect();
        Masker::new(&secrets)
    }

    #[test]
    fn leaves_what_holds_no_secret() {
        assert!(matches!(masker(&["hunter2"]).mask_text("nothing here"), Cow::Borrowed("nothing here")));
        assert!(masker(&[]).is_empty());
        assert!(masker(&["", "abc"]).is_empty(), "short secrets hide half of every text");
    }

    #[test]
    fn hides_overlapping_secrets_as_a_whole() {
        assert_eq!(masker(&["abcd", "cdef"]).mask_text("xabcdefx"), format!("x{MASK}x"));
        assert_eq!(masker(&["abcd", "abcdefgh"]).mask_text("abcdefgh abcdef"), format!("{MASK} {MASK}ef"));
    }

    #[test]
    fn hides_a_secret_across_the_cut() {
        let masker = masker(&["secret-value"]);
        assert_eq!(&*masker.mask_beginning(b"12345secret-value and more", 8), format!("12345{MASK}").as_bytes());
        assert_eq!(&*masker.mask_beginning(b"12345678secret-value", 8), b"12345678");
        assert_eq!(
            &*masker.mask_beginning(b"secret-value and more than that", 20),
            format!("{MASK} and mor").as_bytes()
        );
        assert_eq!(&*masker.mask_beginning(b"short", 8), b"short");
    }

    #[test]
    fn hides_secrets_in_values_keys_and_numbers() {
        let masked = masker(&["12345678", "hunter2"])
            .mask_value(json!({"pin": 12345678, "n": 1, "hunter2": ["x hunter2", null, true], "other": "kept"}));
        assert_eq!(masked, json!({"pin": MASK, "n": 1, MASK: [format!("x {MASK}"), null, true], "other": "kept"}));
    }

    #[test]
    fn hides_escaped_forms() {
        let masker = masker(&["pä\"ss/w<o>r&d'"]);
        let forms = [
            r#"pä\"ss/w<o>r&d'"#,
            r#"pä\"ss\/w<o>r&d'"#,
            r#"p\u00e4\"ss/w<o>r&d'"#,
            r#"p\u00E4\"ss\/w<o>r&d'"#,
            r#"p\u00e4\"ss\/w\u003co\u003er\u0026d\u0027"#,
            "p%C3%A4%22ss%2Fw%3Co%3Er%26d%27",
            "p%c3%a4%22ss%2fw%3co%3er%26d%27",
            "pä&quot;ss/w&lt;o&gt;r&amp;d&#39;",
        ];
        for form in forms {
            assert_eq!(masker.mask_text(form), MASK, "{form}");
        }
    }

    #[test]
    fn a_secret_that_is_not_utf_8_leaves_valid_text() {
        let masker = Masker::new(&[SecretBytes::new([0xa4, 0xc3, 0xa4, 0xc3])]);
        assert_eq!(masker.mask_text("xäääx"), format!("x{MASK}x"));
        assert_eq!(masker.mask_text(r"\xa4\xc3\xa4\xc3"), MASK);
    }

    proptest! {
        #[test]
        fn no_form_of_a_secret_stays(
            secret in "[ -~äß€😀]{4,40}",
            before in "[a-z ]{0,7}",
            after in "[a-z ]{0,7}",
        ) {
            let masker = masker(&[&secret]);
            let whole = format!("{before}{secret}{after}");
            let url = url::Url::parse_with_params("http://x.test/", [("q", &whole)]).unwrap();
            let shown = [
                whole.clone(),
                json!(whole).to_string(),
                url.query().unwrap().to_owned(),
                percent_encode(whole.as_bytes(), STRICT).to_string(),
            ];
            for text in shown {
                let masked = masker.mask_text(&text);
                prop_assert!(masked.contains(MASK), "{text}");
                if !MASK.contains(&secret) {
                    prop_assert!(!masked.contains(&secret), "{masked}");
                }
            }
            for text in [STANDARD.encode(&secret), URL_SAFE_NO_PAD.encode(&secret)] {
                prop_assert_eq!(masker.mask_text(&text), MASK);
            }
            // Inside a longer encoded text, what stays decodes to less than four bytes of the secret's ends.
            if secret.len() >= 8 {
                let masked = masker.mask_text(&STANDARD.encode(&whole)).into_owned();
                prop_assert!(masked.contains(MASK), "{}", masked);
            }
        }

        #[test]
        fn a_cut_text_begins_as_the_whole_masked_one(text in "[ab ]{0,60}", max in 0usize..60) {
            let masker = masker(&["abab", "bbbb"]);
            let whole = masker.mask_bytes(text.as_bytes()).into_owned();
            let cut = masker.mask_beginning(text.as_bytes(), max).into_owned();
            prop_assert!(whole.starts_with(&cut), "{text:?} {whole:?} {cut:?}");
        }
    }
}
