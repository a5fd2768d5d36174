//! Which operations of a source are wanted.

use std::cell::RefCell;

use crate::fault::Fault;
use crate::name::near_match;

/// Patterns; an operation that one of them names is wanted. None want everything.
pub(super) struct Only {
    patterns: Vec<Pattern>,
    /// Words that operations are known by, for a near match.
    seen: RefCell<Vec<String>>,
}

struct Pattern {
    written: String,
    kind: Kind,
    was_used: std::cell::Cell<bool>,
}

/// What a pattern is compared with.
enum Kind {
    /// Its id, its action, its tags.
    Word(String),
    Path(String),
    /// Method and path.
    Request(String, String),
}

/// What an operation is known by.
pub(super) struct Known<'a> {
    /// Its id or name in the source.
    pub(super) id: Option<&'a str>,
    /// The name that its action would have.
    pub(super) action: &'a str,
    /// Its tags or folders.
    pub(super) groups: &'a [&'a str],
    /// Its method.
    pub(super) method: &'a str,
    /// Its path, as the source writes it.
    pub(super) path: &'a str,
}

/// Most patterns.
const PATTERNS_MAX: usize = 200;
/// Longest pattern in bytes.
const PATTERN_BYTES: usize = 500;
/// How many words are kept for a near match.
const SEEN_MAX: usize = 10_000;

impl Only {
    pub(super) fn read(written: &[String]) -> Result<Self, Fault> {
        if written.len() > PATTERNS_MAX {
            return Err(Fault::new("only", format_args!("at most {PATTERNS_MAX} patterns")));
        }
        let mut patterns = Vec::with_capacity(written.len());
        for (n, text) in written.iter().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.len() > PATTERN_BYTES {
                let reason = format!(
                    "a pattern is an id, an action, a tag or `METHOD /path`, at most {PATTERN_BYTES} bytes long"
                );
                return Err(Fault::new(format!("only[{n}]"), reason));
            }
            let lower = text.to_lowercase();
            let kind = match lower.split_once(char::is_whitespace) {
                Some((method, path)) if path.trim_start().starts_with(['/', '*']) => {
                    Kind::Request(method.to_owned(), path.trim_start().to_owned())
                }
                _ if lower.starts_with('/') => Kind::Path(lower),
                _ => Kind::Word(lower),
            };
            patterns.push(Pattern { written: text.to_owned(), kind, was_used: false.into() });
        }
        Ok(Self { patterns, seen: RefCell::default() })
    }

    /// Whether this operation is wanted.
    pub(super) fn wants(&self, known: &Known<'_>) -> bool {
        if self.patterns.is_empty() {
            return true;
        }
        let (method, path) = (known.method.to_lowercase(), known.path.to_lowercase());
        let words: Vec<String> = known
            .id
            .into_iter()
            .chain([known.action])
            .chain(known.groups.iter().copied())
            .map(str::to_lowercase)
            .collect();
        let mut wanted = false;
        for pattern in &self.patterns {
            let fits = match &pattern.kind {
                Kind::Word(word) => words.iter().any(|known| matches(word, known)),
                Kind::Path(wanted) => matches(wanted, &path),
                Kind::Request(verb, wanted) => matches(verb, &method) && matches(wanted, &path),
            };
            if fits {
                pattern.was_used.set(true);
                wanted = true;
            }
        }
        let mut seen = self.seen.borrow_mut();
        if seen.len() < SEEN_MAX {
            let is_short = |word: &String| word.len() <= 200;
            seen.extend(words.into_iter().chain([format!("{method} {path}")]).filter(is_short));
        }
        wanted
    }

    /// That a pattern names nothing.
    pub(super) fn unused(&self) -> Option<Fault> {
        let (n, pattern) = self.patterns.iter().enumerate().find(|(_, pattern)| !pattern.was_used.get())?;
        let fault = Fault::new(format!("only[{n}]"), format_args!("`{}` names no operation", pattern.written));
        let seen = self.seen.borrow();
        Some(match near_match(&pattern.written.to_lowercase(), seen.iter().map(String::as_str)) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault.hint("it is compared with ids, actions, tags and `METHOD /path`; `*` stands for anything"),
        })
    }
}

/// Whether `text` is of the form of `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not fit: time is at most the product of both lengths.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, is) in [
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*b*c", "aXbYbc", true),
            ("a*b", "abc", false),
            ("*", "", true),
            ("", "", true),
            ("/repos/*/issues", "/repos/{owner}/{repo}/issues", true),
        ] {
            assert_eq!(matches(pattern, text), is, "{pattern} {text}");
        }
        // Hostile patterns take no more than the product of the lengths.
        assert!(!matches(&"*a".repeat(200), &"a".repeat(199)));
    }

    #[test]
    fn an_operation_is_known_by_id_action_group_and_request() {
        let known = Known {
            id: Some("issues/list-for-repo"),
            action: "issues_list_for_repo",
            groups: &["issues"],
            method: "get",
            path: "/repos/{owner}/{repo}/issues",
        };
        for pattern in ["issues/*", "Issues", "issues_list_for_repo", "GET /repos/*", "/repos/*/issues", "* /repos*"] {
            assert!(Only::read(&[pattern.to_owned()]).unwrap().wants(&known), "{pattern}");
        }
        let only = Only::read(&["POST /repos/*".to_owned(), "isues".to_owned()]).unwrap();
        assert!(!only.wants(&known));
        assert_eq!(only.unused().unwrap().path, "only[0]");
        let only = Only::read(&["isues".to_owned()]).unwrap();
        assert!(!only.wants(&known));
        assert_eq!(only.unused().unwrap().hint.unwrap(), "did you mean `issues`?");
        assert!(Only::read(&[]).unwrap().wants(&known));
    }
}
