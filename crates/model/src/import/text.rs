//! Texts of sources: read as data, made into names, and written so that they are no pills.

use std::io;

use indexmap::IndexMap;
use serde_json::Value;

use super::json;
use crate::fault::Fault;
use crate::naming;
use crate::yaml::{self, Repeated, RepeatedKeys};

/// Reads JSON or YAML; keys that stand twice in one object are added to `repeated`.
pub(super) fn parse(text: &str, repeated: &mut Vec<Repeated>) -> Result<Value, Fault> {
    let json = match text.trim_start().starts_with(['{', '[']).then(|| json::read(text, repeated)) {
        Some(Ok(value)) => return Ok(value),
        Some(Err(error)) => Some(error),
        None => None,
    };
    repeated.clear();
    match yaml::read(text, RepeatedKeys::Join) {
        Ok(read) => {
            *repeated = read.repeated;
            Ok(read.value)
        }
        Err(error) => {
            let reason = match json {
                Some(json) => format!("neither JSON nor YAML: {json}"),
                None => {
                    let place = error.at.map(|(line, column)| format!("line {line}, column {column}: "));
                    format!("not YAML: {}{}", place.unwrap_or_default(), error.reason)
                }
            };
            Err(Fault::new("source", reason))
        }
    }
}

/// How many bytes the JSON of a value has.
pub(super) fn weight(value: &impl serde::Serialize) -> usize {
    weight_up_to(value, usize::MAX)
}

/// Whether the JSON of a value has at most this many bytes; no more of it is looked at.
pub(super) fn is_within(value: &Value, most: usize) -> bool {
    weight_up_to(value, most) <= most
}

fn weight_up_to(value: &impl serde::Serialize, most: usize) -> usize {
    /// Bytes so far, and when to end.
    struct Count(usize, usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            if self.0 > self.1 { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0, most);
    // An error ends the counting, and what does not serialise is not written either.
    serde_json::to_writer(&mut count, value).unwrap_or_default();
    count.0
}

/// A value as a text: a text as it is, all else as JSON.
pub(super) fn of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A field of an object, when it is a text.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// A sentence with its full stop.
pub(super) fn ended(text: &str) -> String {
    if text.ends_with(['.', '!', '?', '…', ':']) { text.to_owned() } else { format!("{text}.") }
}

/// A text in which nothing is a pill.
pub(super) fn literal(text: &str) -> String {
    if text.contains("{{") { text.replace("{{", "{{ '{{' }}") } else { text.to_owned() }
}

/// The pill of a field of `root`: `{{ input.id }}`.
pub(super) fn pill(root: &str, name: &str) -> String {
    format!("{{{{ {root}.{name} }}}}")
}

/// The same with filters behind it.
pub(super) fn filtered_pill(root: &str, name: &str, filters: &str) -> String {
    format!("{{{{ {root}.{name} | {filters} }}}}")
}

/// Longest name of an input or a setting.
const FIELD_NAME_MAX: usize = 60;

/// The name of an input or a setting for what a source calls `text`: as it is where a pill can name it so.
pub(super) fn field_name(text: &str) -> String {
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.len() <= FIELD_NAME_MAX
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_name { text.to_owned() } else { word(text, FIELD_NAME_MAX, "value") }
}

/// The name of an action for what a source calls `text`; none when no letter or digit is left of it.
pub(super) fn action_name(text: &str) -> Option<String> {
    let name = word(text, ACTION_NAME_MAX, "");
    (!name.is_empty()).then_some(name)
}

/// The name of an action for a request: `GET /pets/{id}` is `get_pets_by_id`.
pub(super) fn request_name(method: &str, path: &str) -> String {
    let mut name = method.to_ascii_lowercase();
    let is_version = |segment: &str| {
        segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.len() <= 4)
    };
    let segments = path.split('/').filter(|segment| !matches!(*segment, "" | "api" | "rest") && !is_version(segment));
    for segment in segments {
        name.push_str(if segment.contains('{') || segment.starts_with(':') { "_by_" } else { "_" });
        name.push_str(segment);
    }
    action_name(&name).unwrap_or_else(|| "call".to_owned())
}

/// Longest name of an action that is made here; a number may follow it.
const ACTION_NAME_MAX: usize = 80;

fn word(text: &str, most: usize, otherwise: &str) -> String {
    let snake = naming::snake(text, 4 * most);
    let mut name = snake.trim_matches('_').to_owned();
    if name.is_empty() {
        return otherwise.to_owned();
    }
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert_str(0, "call_");
    }
    name.truncate(most);
    name.truncate(name.trim_end_matches('_').len());
    name
}

/// The text that stands most often; of several, the first.
pub(super) fn most_common<'a>(texts: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts: IndexMap<&str, usize> = IndexMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    counts.into_iter().reduce(|most, next| if next.1 > most.1 { next } else { most }).map(|(text, _)| text)
}

/// The name of a document for what a source calls `text`.
pub(super) fn document_name(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars().take(200).flat_map(|c| any_ascii::any_ascii_char(c).chars()) {
        match c {
            c if c.is_ascii_alphanumeric() => name.push(c.to_ascii_lowercase()),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.truncate(60);
    name.truncate(name.trim_end_matches('-').len());
    (!name.is_empty()).then_some(name)
}

/// A text for people, without tags of HTML, at most `most` characters long.
pub(super) fn plain(text: &str, most: usize) -> Option<String> {
    // What is cut cannot cost more than a few times what is kept.
    let end = text.char_indices().nth(8 * most).map_or(text.len(), |(at, _)| at);
    let text = without_tags(&text[..end]);
    let mut out = String::new();
    let mut is_empty_line = false;
    for line in text.lines() {
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = line.trim();
        if line.is_empty() {
            is_empty_line = true;
            continue;
        }
        if !out.is_empty() {
            out.push_str(if is_empty_line { "\n\n" } else { "\n" });
        }
        is_empty_line = false;
        out.push_str(line);
    }
    if let Some((at, _)) = out.char_indices().nth(most) {
        let cut = &out[..at];
        let at = cut.rfind(char::is_whitespace).filter(|space| *space > at / 2).unwrap_or(at);
        out.truncate(at);
        out.truncate(out.trim_end().len());
        out.push('…');
    }
    (!out.is_empty()).then_some(out)
}

/// The first line of a text for people.
pub(super) fn line(text: &str, most: usize) -> Option<String> {
    let whole = plain(text, 4 * most)?;
    plain(whole.lines().next()?, most)
}

fn without_tags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['<', '&']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((replacement, length)) = tag(rest).or_else(|| entity(rest)) {
            out.push_str(replacement);
            rest = &rest[length..];
        } else {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out + rest
}

/// What stands for the tag at the beginning of `text`, and its length.
fn tag(text: &str) -> Option<(&'static str, usize)> {
    let inner = text.strip_prefix('<')?;
    // Longer than any tag that a description has; and `a < b` is none.
    let end = inner.char_indices().take(300).find(|(_, c)| matches!(c, '<' | '>')).filter(|(_, c)| *c == '>')?.0;
    let name = inner[..end].trim_start_matches('/');
    let word: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
    let word = word.to_ascii_lowercase();
    let is_block = matches!(
        word.as_str(),
        "p" | "br"
            | "li"
            | "ul"
            | "ol"
            | "div"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "tr"
            | "table"
            | "note"
            | "important"
            | "dl"
            | "dt"
            | "dd"
            | "pre"
            | "hr"
    );
    let is_inline = matches!(
        word.as_str(),
        "a" | "b"
            | "i"
            | "em"
            | "strong"
            | "code"
            | "span"
            | "sup"
            | "sub"
            | "u"
            | "tt"
            | "td"
            | "th"
            | "tbody"
            | "thead"
            | "img"
            | "small"
            | "kbd"
            | "fullname"
            | "para"
            | "title"
            | "blockquote"
            | "details"
            | "summary"
            | "font"
            | "center"
            | "label"
            | "section"
            | "var"
    );
    match (is_block, is_inline) {
        (true, _) => Some(("\n", end + 2)),
        (_, true) => Some(("", end + 2)),
        _ => None,
    }
}

fn entity(text: &str) -> Option<(&'static str, usize)> {
    [("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&nbsp;", " ")]
        .into_iter()
        .find(|(entity, _)| text.starts_with(entity))
        .map(|(entity, replacement)| (replacement, entity.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        for (text, name) in [
            ("getPetById", "get_pet_by_id"),
            ("issues/list-for-repo", "issues_list_for_repo"),
            ("Users_List", "users_list"),
            ("2fa.enable", "call_2fa_enable"),
            ("grüße senden", "grusse_senden"),
        ] {
            assert_eq!(action_name(text).as_deref(), Some(name));
        }
        assert_eq!(action_name("/-/"), None);
        assert!(action_name(&"aB".repeat(200)).unwrap().len() <= ACTION_NAME_MAX);
        assert_eq!(field_name("perPage"), "perPage");
        assert_eq!(field_name("filter[name]"), "filter_name");
        assert_eq!(field_name("X-Request-Id"), "x_request_id");
        assert_eq!(field_name("$top"), "top");
        assert_eq!(field_name("日本"), "ri_ben");
        assert_eq!(document_name("GitHub v3 REST API").as_deref(), Some("github-v3-rest-api"));
        assert_eq!(document_name("!"), None);
    }

    #[test]
    fn texts_are_plain() {
        let html = "<p>Creates a <code>thing</code> &amp; more.</p>\n\n<ul><li>a &lt; b</li></ul>";
        assert_eq!(plain(html, 200).unwrap(), "Creates a thing & more.\n\na < b");
        assert_eq!(plain("if a < b and c > d", 200).unwrap(), "if a < b and c > d");
        assert_eq!(plain("one two three", 9).unwrap(), "one two…");
        assert_eq!(plain(" \n ", 9), None);
        assert_eq!(line("\nFirst.\nSecond.", 20).unwrap(), "First.");
        assert_eq!(literal("a {{ b"), "a {{ '{{' }} b");
    }

    fn parse(text: &str) -> Result<Value, Fault> {
        super::parse(text, &mut Vec::new())
    }

    #[test]
    fn sources_are_json_or_yaml() {
        assert_eq!(parse("{\"a\": 1.50}").unwrap()["a"].to_string(), "1.50");
        assert_eq!(parse("a: off\nb: [1]\na: on\n").unwrap(), serde_json::json!({"a": "on", "b": [1]}));
        assert!(parse("{\"a\": [}").unwrap_err().reason.starts_with("neither JSON nor YAML: "));
        assert!(parse("a: [1\nb: 2").unwrap_err().reason.starts_with("not YAML: line "));
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&format!("a: {}", "{a: ".repeat(5_000))).is_err());
    }
}
