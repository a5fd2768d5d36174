//! Column names made of the keys of payloads.
//!
//! The rules are those that connector users know: letters of other scripts become ASCII, what is no letter
//! or digit becomes `_`, `camelCase` is split, repeated `_` collapse, everything is lower case, and a
//! leading digit gets a `_` before it. A name always matches `[a-z_][a-z0-9_]*` and has 1 to 63 characters.

/// Longest column name: what PostgreSQL keeps of an identifier.
pub const COLUMN_NAME_MAX: usize = 63;

/// The column name that the key `source` asks for.
#[must_use]
pub fn column_name(source: &str) -> String {
    // A long key cannot cost more than its beginning.
    let mut name = snake(source, 4 * COLUMN_NAME_MAX);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name.truncate(COLUMN_NAME_MAX);
    name
}

/// The first `most` characters of a text as `snake_case`, by the same rules.
pub(crate) fn snake(source: &str, most: usize) -> String {
    let ascii: Vec<char> = source.chars().take(most).flat_map(|c| any_ascii::any_ascii_char(c).chars()).collect();
    let mut name = String::new();
    for (at, c) in ascii.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| ascii[at]);
        let after = ascii.get(at + 1);
        if starts_word(before, *c, after.copied()) && !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
        match c {
            c if c.is_ascii_alphanumeric() => name.push(c.to_ascii_lowercase()),
            _ if name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    name
}

/// Whether an upper-case letter begins a word: `aB`, `1B`, and the last of `ABc`.
fn starts_word(before: Option<char>, c: char, after: Option<char>) -> bool {
    let Some(before) = before else { return false };
    c.is_ascii_uppercase()
        && (before.is_ascii_lowercase()
            || before.is_ascii_digit()
            || (before.is_ascii_uppercase() && after.is_some_and(|after| after.is_ascii_lowercase())))
}

/// `wanted`, or the first of `wanted_2`, `wanted_3`, … that is not taken.
pub(crate) fn free_name(wanted: &str, is_taken: impl Fn(&str) -> bool) -> String {
    if !is_taken(wanted) {
        return wanted.to_owned();
    }
    let mut n = 2_usize;
    loop {
        let suffix = format!("_{n}");
        let kept = wanted.len().min(COLUMN_NAME_MAX - suffix.len());
        let name = format!("{}{suffix}", &wanted[..kept]);
        if !is_taken(&name) {
            return name;
        }
        n += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn follows_the_known_rules() {
        for (source, expected) in [
            ("id", "id"),
            ("fullName", "full_name"),
            ("FullName", "full_name"),
            ("HTTPServerID", "http_server_id"),
            ("v2Api", "v2_api"),
            ("a-b.c d", "a_b_c_d"),
            ("a__b", "a_b"),
            ("_id", "_id"),
            ("1st", "_1st"),
            ("Straße", "strasse"),
            ("naïve", "naive"),
            ("", "_"),
            ("$", "_"),
            ("with space ", "with_space_"),
        ] {
            assert_eq!(column_name(source), expected, "{source}");
        }
    }

    #[test]
    fn counts_names_that_are_taken() {
        let taken = HashSet::from(["a", "a_2"]);
        let is_taken = |name: &str| taken.contains(name);
        assert_eq!(free_name("b", is_taken), "b");
        assert_eq!(free_name("a", is_taken), "a_3");
        let long = "x".repeat(63);
        let name = free_name(&long, |name| name == long);
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("x_2"));
    }

    proptest! {
        #[test]
        fn names_are_always_identifiers(source in any::<String>()) {
            let name = column_name(&source);
            prop_assert!((1..=COLUMN_NAME_MAX).contains(&name.len()));
            prop_assert!(name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_'));
            prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
        }
    }
}
