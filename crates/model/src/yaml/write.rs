//! Writes data as YAML that reads back as the same data.
//!
//! Numbers are written with the digits that they have. A string is quoted wherever a reader of YAML, also of version
//! 1.1, could take it for anything else.

use std::fmt::Write as _;

use serde_json::Value;

/// Documents, parted by `---`.
#[must_use]
pub fn write_all(documents: &[Value]) -> String {
    documents.iter().map(write).collect::<Vec<_>>().join("---\n")
}

/// A value as a document, with a line feed at its end.
#[must_use]
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => node(&mut out, value, 0, true),
        Value::Array(items) if !items.is_empty() => node(&mut out, value, 0, true),
        Value::String(text) => {
            // Not as lines: one could be a marker of documents.
            out.push_str(&if is_plain(text) { text.clone() } else { quoted(text) });
            out.push('\n');
        }
        _ => scalar(&mut out, value, 0),
    }
    out
}

/// A value in lines that are indented by `indent`; the first one is, where `is_indented` says so, already.
fn node(out: &mut String, value: &Value, indent: usize, is_indented: bool) {
    let mut is_first = is_indented;
    let mut begin = |out: &mut String| {
        if !std::mem::take(&mut is_first) {
            pad(out, indent);
        }
    };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                begin(out);
                out.push_str(&if is_plain(key) { key.clone() } else { quoted(key) });
                out.push(':');
                if is_block(value) {
                    out.push('\n');
                    node(out, value, indent + 2, false);
                } else {
                    out.push(' ');
                    scalar(out, value, indent + 2);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                begin(out);
                out.push_str("- ");
                if is_block(item) {
                    node(out, item, indent + 2, true);
                } else {
                    scalar(out, item, indent + 2);
                }
            }
        }
        _ => scalar(out, value, indent),
    }
}

/// Whether a value takes lines of its own.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// A scalar or something empty, to the end of its line; what follows of it is indented by `indent`.
fn scalar(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(text) if is_plain(text) => out.push_str(text),
        Value::String(text) if is_literal(text) => {
            out.push('|');
            let body = text.trim_end_matches('\n');
            match text.len() - body.len() {
                0 => out.push('-'),
                1 => {}
                _ => out.push('+'),
            }
            // The last line feed is written below.
            for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
                out.push('\n');
                if !line.is_empty() {
                    pad(out, indent);
                    out.push_str(line);
                }
            }
        }
        Value::String(text) => out.push_str(&quoted(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
    out.push('\n');
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Whether lines of a literal block say a string as it is.
fn is_literal(text: &str) -> bool {
    let is_printable = |c: char| matches!(c, '\n' | '\t' | ' '..='~') || c >= '\u{a0}' && !is_escaped(c);
    text.trim_end_matches('\n').contains('\n')
        // A first line that is empty or begins with a space would need the indentation said.
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(is_printable)
        && text.lines().all(|line| !line.trim().is_empty() || line.is_empty())
}

/// In double quotes, with the escapes of JSON, which YAML has too (section 5.7).
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in Value::from(text).to_string().chars() {
        if is_escaped(c) {
            // Writing to a string cannot fail.
            write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default();
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters above ASCII's controls that YAML calls not printable (section 5.1), or that end a line somewhere.
fn is_escaped(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a string may stand without quotes and is still one.
fn is_plain(text: &str) -> bool {
    let is_safe = |c: char| {
        c.is_alphanumeric()
            || matches!(
                c,
                ' ' | '_'
                    | '-'
                    | '.'
                    | '/'
                    | '+'
                    | '~'
                    | '='
                    | '('
                    | ')'
                    | '$'
                    | '^'
                    | '*'
                    | ';'
                    | '<'
                    | '>'
                    | ','
                    | '\''
                    | '"'
                    | '?'
                    | '!'
                    | '&'
                    | '|'
                    | '%'
                    | '@'
                    | '['
                    | ']'
                    | '{'
                    | '}'
                    | ':'
                    | '#'
                    | '\\'
            )
    };
    let begins =
        text.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '/' | '_' | '.' | '+' | '-' | '$' | '('));
    begins
        && text.chars().all(is_safe)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("- ")
        && !text.starts_with("---")
        && !text.starts_with("...")
        && text != "-"
        && !is_ambiguous(text)
}

/// Whether some version of YAML reads a number, a time, a truth value or null in it.
fn is_ambiguous(text: &str) -> bool {
    const WORDS: [&str; 11] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf"];
    let is_number_like = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | '_'))
        && text.chars().all(|c| {
            c.is_ascii_hexdigit()
                || matches!(c, '+' | '-' | '.' | '_' | ':' | ' ' | 'x' | 'X' | 'o' | 'O' | 'T' | 't' | 'Z' | 'z' | ',')
        });
    let word = text.trim_start_matches(['+', '-', '.']);
    is_number_like || WORDS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{RepeatedKeys, read};
    use proptest::prelude::*;
    use serde_json::json;

    fn back(value: &Value) -> Value {
        let text = write(value);
        read(&text, RepeatedKeys::Refuse).unwrap_or_else(|error| panic!("{error:?}\n{text}")).value
    }

    #[test]
    fn is_written_as_people_write_it() {
        let number: Value = serde_json::from_str("[1.10, 76159173374952512310, -0.0]").unwrap();
        let document = json!({
            "kind": "endpoint", "name": "a", "spec": {
                "none": {}, "empty": [], "null": null, "numbers": number, "zip": "01234", "n": "1.10", "t": "true",
                "no": "NO", "pill": "{{ a.b }}", "lines": "a\n  b\n\nc\n", "path": "/x?a=1", "date": "2026-01-01",
                "list": [{"a": 1, "b": [[1], []]}, "x: y", "it's", "# no"], "": "",
            }
        });
        insta::assert_snapshot!(write(&document), @r###"
        kind: endpoint
        name: a
        spec:
          none: {}
          empty: []
          "null": null
          numbers:
            - 1.10
            - 76159173374952512310
            - -0.0
          zip: "01234"
          "n": "1.10"
          t: "true"
          "no": "NO"
          pill: "{{ a.b }}"
          lines: |
            a
              b

            c
          path: /x?a=1
          date: "2026-01-01"
          list:
            - a: 1
              b:
                - - 1
                - []
            - "x: y"
            - it's
            - "# no"
          "": ""
        "###);
    }

    #[test]
    fn strings_stay_strings() {
        for text in [
            "",
            " ",
            "~",
            "null",
            "Null",
            "true",
            "YES",
            "off",
            "y",
            "1",
            "1.10",
            "-1",
            "+1",
            ".5",
            "5.",
            "1e5",
            "0x1F",
            "0o7",
            "0b1",
            "1_000",
            "01234",
            "12:30:45",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            ".inf",
            "-.inf",
            ".NaN",
            "nan",
            "=",
            "<<",
            "-",
            "- a",
            "---",
            "--- a",
            "...",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "[a",
            "{a",
            "'a'",
            "\"a\"",
            "a\tb",
            "a\r\nb",
            "a\u{85}b",
            "a\u{2028}b",
            "\u{feff}a",
            "\u{fffe}",
            "a\nb",
            "a\nb\n",
            "a\n\n",
            "\na",
            " a\nb",
            "a\n b",
            "a \nb",
            "a\n \nb",
            "a\n---\nb",
            "a\n\tb",
            "\ta\nb",
            "é",
            "😀",
            "?",
            "? a",
            "a\\b",
            "\u{7f}",
            "\0",
        ] {
            for value in [
                json!(text),
                json!({"a": text}),
                json!([text]),
                json!([[text]]),
                json!([{"a": text}]),
                json!({text: text, "z": {text: [text, text]}}),
            ] {
                assert_eq!(back(&value), value, "{text:?}\n{}", write(&value));
            }
        }
    }

    fn number() -> impl Strategy<Value = Value> {
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?"
            .prop_map(|text| serde_json::from_str(&text).unwrap())
    }

    fn value() -> impl Strategy<Value = Value> {
        let text =
            prop_oneof![any::<String>(), "[-+.:0-9eExX_~ \n\t#'\"-]{0,8}", "(yes|No|null|TRUE|~|[a-z]{1,3}\n){1,3}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            number(),
            text.clone().prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((text.clone(), inner), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn everything_reads_back_as_it_was(value in value()) {
            let read = back(&value);
            prop_assert_eq!(read.to_string(), value.to_string());
        }
    }
}
