//! What the regular expressions of a JSON Schema take to be compiled, estimated before it is done.
//!
//! Guarantees that the estimate takes time linear in the schema, and that it multiplies as compiling does: a
//! repetition is compiled as many times as it may happen, so that `((a{100}){100}){100}` is a million letters.

use serde_json::Value;

/// Weights of what is more than one letter: what is between brackets, or stands for a kind of characters; all
/// characters but some; a class of Unicode.
const CLASS: u64 = 4;
const NEGATED: u64 = 20;
const UNICODE: u64 = 300;

/// About how many letters the patterns of a schema are when all repetitions are written out.
pub(super) fn weight(schema: &Value) -> u64 {
    let (mut sum, mut left) = (0_u64, vec![schema]);
    while let Some(value) = left.pop() {
        match value {
            Value::Array(items) => left.extend(items),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match (name.as_str(), value) {
                        ("pattern", Value::String(pattern)) => sum = sum.saturating_add(weight_of(pattern)),
                        ("patternProperties", Value::Object(patterns)) => {
                            let patterns = patterns.keys().map(|pattern| weight_of(pattern));
                            sum = patterns.fold(sum, u64::saturating_add);
                        }
                        _ => {}
                    }
                    left.push(value);
                }
            }
            _ => {}
        }
    }
    sum
}

/// The same of one pattern (ECMA-262). What is none weighs something too.
fn weight_of(pattern: &str) -> u64 {
    // What stands before the group that is open, the group, and what stood last in it.
    let mut open: Vec<u64> = Vec::new();
    let (mut sum, mut last) = (1_u64, 0_u64);
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        let atom = match c {
            '(' => {
                open.push(sum);
                (sum, last) = (1, 0);
                continue;
            }
            ')' => {
                let group = sum;
                sum = open.pop().unwrap_or_default();
                group
            }
            '{' => {
                let (inside, after) = rest.as_str().split_once('}').unwrap_or((rest.as_str(), ""));
                let most = inside.split(',').filter_map(|bound| bound.trim().parse::<u64>().ok()).max();
                if let Some(most) = most {
                    rest = after.chars();
                    // The first of them is counted already.
                    sum = sum.saturating_add(last.saturating_mul(most.saturating_sub(1)));
                    last = last.saturating_mul(most.max(1));
                    continue;
                }
                1
            }
            '[' => class(&mut rest),
            '\\' => escape(&mut rest),
            '.' => NEGATED,
            '*' | '+' | '?' => {
                // The copy of something that may be repeated without end is one more.
                sum = sum.saturating_add(last);
                continue;
            }
            _ => 1,
        };
        sum = sum.saturating_add(atom);
        last = atom;
    }
    open.into_iter().fold(sum, u64::saturating_add)
}

/// What stands between brackets, after the first.
fn class(rest: &mut std::str::Chars<'_>) -> u64 {
    let mut weight = if rest.as_str().starts_with('^') { NEGATED } else { CLASS };
    while let Some(c) = rest.next() {
        weight += match c {
            ']' => return weight,
            '\\' => escape(rest),
            _ => 1,
        };
    }
    weight
}

/// What a backslash stands before.
fn escape(rest: &mut std::str::Chars<'_>) -> u64 {
    match rest.next() {
        Some('p' | 'P') => {
            // Its name stands between braces.
            if let Some((_, after)) = rest.as_str().strip_prefix('{').and_then(|name| name.split_once('}')) {
                *rest = after.chars();
            }
            UNICODE
        }
        Some('D' | 'W' | 'S' | 's') => NEGATED,
        Some('d' | 'w') => CLASS,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn repetitions_multiply() {
        for (pattern, least, most) in [
            ("", 0, 1),
            ("^[a-z]{1,63}$", 63 * 3, 63 * 8),
            ("a{3}b{4}", 7, 10),
            ("(ab){10}", 20, 40),
            ("((a{100}){100}){100}", 1_000_000, 2_100_000),
            ("(?:(?:x|y){1,1000}){1,1000}", 3_000_000, 8_000_000),
            (r"\p{L}{1000}", 300_000, 310_000),
            (r"[\w.-]{1,128}@[\w.-]{1,128}", 1_000, 4_000),
            (r"\{100000}", 1, 20),
            ("a{99999999999999999999}", 1, 30),
        ] {
            let weight = weight_of(pattern);
            assert!((least..=most).contains(&weight), "{pattern}: {weight}");
        }
    }

    #[test]
    fn looks_into_all_of_a_schema() {
        let schema = json!({
            "properties": {"a": {"pattern": "a{100}"}, "pattern": {"type": "string"}},
            "patternProperties": {"b{100}": {"items": [{"anyOf": [{"pattern": "c{100}"}]}]}},
            "$defs": {"d": {"pattern": "d{100}"}},
        });
        assert!((400..420).contains(&weight(&schema)), "{}", weight(&schema));
    }

    proptest! {
        #[test]
        fn never_panics(pattern in "[a(){}\\[\\]\\\\|*+?^$.,0-9p-]{0,40}") {
            weight_of(&pattern);
        }
    }
}
