//! The pill scanner: reads the expression grammar and writes it down for the evaluator.
//!
//! What it writes holds no literal, no operator on text and no path: constants and pills become numbered
//! variables, operators become filters of ours whose output is capped. What it does not know (statements,
//! comments, calls, `**`, slices) does not get through.

use std::sync::Arc;

use serde_json::Value;

use super::filters;
use super::scope::{Pill, Segment};
use crate::limits;
use crate::name::near_match;

/// Most operators and filters of one expression: bounds the depth of what the evaluator compiles.
const OPERATIONS_MAX: usize = 100;
/// Most brackets within brackets.
const DEPTH_MAX: usize = 24;

/// Why a text is not a template or an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub struct TemplateError {
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

/// What a numbered variable stands for.
#[derive(Debug, Clone)]
pub(super) enum Slot {
    Constant(Arc<Value>),
    Pill(Pill),
}

/// A scanned expression.
#[derive(Debug)]
pub(super) struct Scanned {
    /// What the evaluator compiles.
    pub code: String,
    pub slots: Vec<Slot>,
    /// Where it ends in the text.
    pub end: Place,
}

/// Reads an expression at `start` of `text`, as far as it goes.
pub(super) fn scan(text: &str, start: Place, lenient: bool) -> Result<Scanned, TemplateError> {
    let mut scanner = Scanner { text, at: start.at, start, slots: Vec::new(), operations: 0, depth: 0 };
    let code = scanner.choice()?;
    scanner.space();
    if lenient {
        scanner.forgive(0);
    }
    Ok(Scanned { code: code.text, end: scanner.place(), slots: scanner.slots })
}

/// A place in a text. Columns are counted on from the last known place: counting each from the beginning
/// would take the square of a long text's length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// In bytes from 0.
    pub at: usize,
    /// In characters from 1.
    pub column: usize,
}

impl Place {
    pub(super) const START: Self = Self { at: 0, column: 1 };

    /// The place at byte `at` of `text`, not before this one.
    pub(super) fn ahead(self, text: &str, at: usize) -> Self {
        Self { at, column: self.column + text.get(self.at..at).map_or(0, |between| between.chars().count()) }
    }
}

/// A piece of what the evaluator compiles.
struct Code {
    text: String,
    /// Whether a filter can follow it without brackets.
    closed: bool,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    start: Place,
    slots: Vec<Slot>,
    operations: usize,
    depth: usize,
}

type Scan<T> = Result<T, TemplateError>;

impl<'a> Scanner<'a> {
    /// `a if b else c`
    fn choice(&mut self) -> Scan<Code> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail("brackets are nested too deep");
        }
        let then = self.either()?;
        let code = if self.word("if") {
            self.count()?;
            let condition = self.either()?;
            let otherwise = if self.word("else") { self.choice()? } else { self.constant(Value::Null) };
            Code { text: format!("({} if {} else {})", then.text, condition.text, otherwise.text), closed: true }
        } else {
            then
        };
        self.depth -= 1;
        Ok(code)
    }

    fn either(&mut self) -> Scan<Code> {
        let mut left = self.both()?;
        while self.word("or") {
            self.count()?;
            let right = self.both()?;
            left = Code { text: format!("({} or {})", left.text, right.text), closed: true };
        }
        Ok(left)
    }

    fn both(&mut self) -> Scan<Code> {
        let mut left = self.negation()?;
        while self.word("and") {
            self.count()?;
            let right = self.negation()?;
            left = Code { text: format!("({} and {})", left.text, right.text), closed: true };
        }
        Ok(left)
    }

    fn negation(&mut self) -> Scan<Code> {
        let mut negated = false;
        while self.word("not") {
            self.count()?;
            negated = !negated;
            // `not not x` still is a truth value, not x itself.
            if !negated {
                return Ok(not(not(self.negation()?)));
            }
        }
        let code = self.comparison()?;
        Ok(if negated { not(code) } else { code })
    }

    fn comparison(&mut self) -> Scan<Code> {
        let left = self.concatenation()?;
        let Some((filter, negated, column)) = self.comparator() else { return Ok(left) };
        let right = self.concatenation()?;
        if self.comparator().is_some() {
            return self.fail("comparisons are not chained; write `a < b and b < c`");
        }
        let code = self.call(left, filter, column, &[right])?;
        Ok(if negated { not(code) } else { code })
    }

    fn comparator(&mut self) -> Option<(&'static str, bool, usize)> {
        self.space();
        let column = self.column();
        for (sign, filter) in
            [("==", "op_eq"), ("!=", "op_ne"), ("<=", "op_le"), (">=", "op_ge"), ("<", "op_lt"), (">", "op_gt")]
        {
            if self.sign(sign) {
                return Some((filter, false, column));
            }
        }
        if self.word("in") {
            return Some(("op_in", false, column));
        }
        let before = self.at;
        if self.word("not") && self.word("in") {
            return Some(("op_in", true, column));
        }
        self.at = before;
        None
    }

    fn concatenation(&mut self) -> Scan<Code> {
        self.chain(&[("~", "op_concat")], Self::sum)
    }

    fn sum(&mut self) -> Scan<Code> {
        self.chain(&[("+", "op_add"), ("-", "op_sub")], Self::product)
    }

    fn product(&mut self) -> Scan<Code> {
        self.chain(&[("//", "op_floordiv"), ("*", "op_mul"), ("/", "op_div"), ("%", "op_rem")], Self::sign_of)
    }

    fn chain(&mut self, signs: &[(&str, &'static str)], operand: fn(&mut Self) -> Scan<Code>) -> Scan<Code> {
        let mut left = operand(self)?;
        loop {
            self.space();
            let column = self.column();
            if self.rest().starts_with("**") {
                return self.fail("`**` is not an operator here");
            }
            let Some((_, filter)) = signs.iter().find(|(sign, _)| !self.ends_here() && self.sign(sign)) else {
                return Ok(left);
            };
            let right = operand(self)?;
            left = self.call(left, filter, column, &[right])?;
        }
    }

    fn sign_of(&mut self) -> Scan<Code> {
        self.space();
        let column = self.column();
        if self.ends_here() || !self.sign("-") {
            return self.filtered();
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail("too many signs");
        }
        let code = self.sign_of()?;
        self.depth -= 1;
        self.call(code, "op_neg", column, &[])
    }

    /// A value, then paths, filters and tests.
    fn filtered(&mut self) -> Scan<Code> {
        let first_slot = self.slots.len();
        let mut code = self.value()?;
        loop {
            self.space();
            let column = self.column();
            if self.sign("|") {
                self.space();
                let column = self.column();
                let Some(name) = self.identifier() else { return self.fail("a filter's name follows `|`") };
                let arguments = if self.sign("(") { self.list(")")? } else { Vec::new() };
                let filter = self.known_filter(name, arguments.len(), column)?;
                if matches!(filter, "default" | "coalesce") {
                    self.forgive(first_slot);
                }
                code = self.call(code, filter, column, &arguments)?;
            } else if self.word("is") {
                let negated = self.word("not");
                self.space();
                let column = self.column();
                let Some(name) = self.identifier() else { return self.fail("a test's name follows `is`") };
                let Some(test) = filters::test(name) else {
                    let hint = hint(near_match(name, filters::test_names()));
                    return self.fail_at(column, format!("there is no test `{name}`{hint}"));
                };
                if matches!(test, "is_defined" | "is_undefined") {
                    self.forgive(first_slot);
                }
                code = self.call(code, test, column, &[])?;
                if negated {
                    code = not(code);
                }
            } else if self.sign(".") {
                let Some(key) = self.name() else { return self.fail("a name follows the dot") };
                let key = self.constant(Value::from(key));
                code = self.call(code, "op_at", column, &[key])?;
            } else if self.sign("[") {
                let key = self.choice()?;
                self.expect("]")?;
                code = self.call(code, "op_at", column, &[key])?;
            } else if self.sign("(") {
                return self.fail_at(column, "there are no functions; a filter follows `|`");
            } else {
                return Ok(code);
            }
        }
    }

    fn known_filter(&self, name: &str, given: usize, column: usize) -> Scan<&'static str> {
        let Some(filter) = filters::filter(name) else {
            let hint = hint(near_match(name, filters::filter_names()));
            return self.fail_at(column, format!("there is no filter `{name}`{hint}"));
        };
        if !filter.arguments.contains(&given) {
            let (least, most) = (filter.arguments.start(), filter.arguments.end());
            let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
            return self.fail_at(column, format!("the filter `{name}` takes {wanted} arguments, {given} are given"));
        }
        Ok(filter.name)
    }

    fn value(&mut self) -> Scan<Code> {
        self.space();
        let column = self.column();
        if self.ends_here() {
            return self.fail("an expression is missing here");
        }
        if self.sign("(") {
            let code = self.choice()?;
            self.expect(")")?;
            return Ok(Code { text: format!("({})", code.text), closed: true });
        }
        if self.sign("[") {
            let items = self.list("]")?;
            let none = self.constant(Value::Null);
            return self.call(none, "op_list", column, &items);
        }
        if self.sign("{") {
            let entries = self.entries()?;
            let none = self.constant(Value::Null);
            return self.call(none, "op_map", column, &entries);
        }
        match self.rest().chars().next() {
            Some(quote @ ('\'' | '"')) => {
                let text = self.quoted(quote)?;
                Ok(self.constant(Value::from(text)))
            }
            Some('0'..='9') => self.number(),
            _ => match self.identifier() {
                Some("true" | "True") => Ok(self.constant(Value::Bool(true))),
                Some("false" | "False") => Ok(self.constant(Value::Bool(false))),
                Some("null" | "none" | "None") => Ok(self.constant(Value::Null)),
                Some(word @ ("and" | "or" | "not" | "if" | "else" | "in" | "is")) => {
                    self.fail_at(column, format!("an expression is missing before `{word}`"))
                }
                Some(root) => self.pill(root, column),
                None => self.fail("an expression is missing here"),
            },
        }
    }

    /// A path as far as it is plain; what an index computes is left to the evaluator.
    fn pill(&mut self, root: &str, column: usize) -> Scan<Code> {
        let mut pill = Pill { root: root.to_owned(), segments: Vec::new(), column, lenient: false };
        loop {
            let before = self.at;
            if self.sign(".") {
                let Some(name) = self.name() else { return self.fail("a name follows the dot") };
                pill.segments.push(match name.parse::<usize>() {
                    Ok(index) => Segment::Index(index),
                    Err(_) => Segment::Key(name.to_owned()),
                });
                continue;
            }
            if self.sign("[") {
                self.space();
                let segment = match self.rest().chars().next() {
                    Some(quote @ ('\'' | '"')) => Some(Segment::Key(self.quoted(quote)?)),
                    _ => {
                        let digits = self.take(|c| c.is_ascii_digit());
                        digits.parse::<usize>().ok().map(Segment::Index)
                    }
                };
                if let Some(segment) = segment
                    && self.sign("]")
                {
                    pill.segments.push(segment);
                    continue;
                }
                self.at = before;
            }
            self.slots.push(Slot::Pill(pill));
            return Ok(Code { text: format!("v{}", self.slots.len() - 1), closed: true });
        }
    }

    fn number(&mut self) -> Scan<Code> {
        let column = self.column();
        let mut text = self.take(|c| c.is_ascii_digit()).to_owned();
        let rest = self.rest();
        if rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            self.at += 1;
            text.push('.');
            text.push_str(self.take(|c| c.is_ascii_digit()));
        }
        match serde_json::from_str::<serde_json::Number>(&text) {
            Ok(number) if !self.rest().starts_with(|c: char| c.is_alphanumeric() || c == '_') => {
                Ok(self.constant(Value::Number(number)))
            }
            _ => self.fail_at(column, "this is not a number"),
        }
    }

    fn quoted(&mut self, quote: char) -> Scan<String> {
        let column = self.column();
        self.at += 1;
        let mut text = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.at += at + 1;
                return Ok(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, 'u')) => {
                    let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    match u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32) {
                        Some(c) if digits.len() == 4 => text.push(c),
                        _ => return self.fail_at(column, "`\\u` takes the four digits of a character"),
                    }
                }
                Some((_, c @ ('\\' | '\'' | '"' | '/'))) => text.push(c),
                _ => return self.fail_at(column, "this text holds an unknown escape; a backslash is `\\\\`"),
            }
        }
        self.fail_at(column, "this text has no end")
    }

    /// Expressions up to the bracket `close`.
    fn list(&mut self, close: &str) -> Scan<Vec<Code>> {
        let mut items = Vec::new();
        loop {
            if self.sign(close) {
                return Ok(items);
            }
            self.count()?;
            items.push(self.choice()?);
            if !self.sign(",") {
                self.expect(close)?;
                return Ok(items);
            }
        }
    }

    /// Keys and values, one after the other, up to the closing brace.
    fn entries(&mut self) -> Scan<Vec<Code>> {
        let mut entries = Vec::new();
        loop {
            if self.sign("}") {
                return Ok(entries);
            }
            self.count()?;
            entries.push(self.choice()?);
            self.expect(":")?;
            entries.push(self.choice()?);
            if !self.sign(",") {
                self.expect("}")?;
                return Ok(entries);
            }
        }
    }

    fn call(&mut self, subject: Code, filter: &str, column: usize, arguments: &[Code]) -> Scan<Code> {
        self.count()?;
        let mut text = if subject.closed { subject.text } else { format!("({})", subject.text) };
        text.push_str(&format!("|{filter}({column}"));
        for argument in arguments {
            text.push_str(", ");
            text.push_str(&argument.text);
        }
        text.push(')');
        Ok(Code { text, closed: true })
    }

    fn constant(&mut self, value: Value) -> Code {
        self.slots.push(Slot::Constant(Arc::new(value)));
        Code { text: format!("v{}", self.slots.len() - 1), closed: true }
    }

    fn forgive(&mut self, from: usize) {
        for slot in &mut self.slots[from..] {
            if let Slot::Pill(pill) = slot {
                pill.lenient = true;
            }
        }
    }

    fn count(&mut self) -> Scan<()> {
        self.operations += 1;
        if self.at - self.start.at > limits::EXPRESSION_BYTES {
            return self.fail("an expression is at most 4 KiB long");
        }
        if self.operations > OPERATIONS_MAX {
            return self.fail("an expression has at most 100 operators, filters and items");
        }
        Ok(())
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Whether the pill ends here. `-}}` and `%}` are the ends of another language and get no further.
    fn ends_here(&mut self) -> bool {
        self.space();
        self.rest().is_empty() || self.rest().starts_with("}}")
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(sign);
        if found {
            self.at += sign.len();
        }
        found
    }

    fn expect(&mut self, sign: &str) -> Scan<()> {
        if self.sign(sign) { Ok(()) } else { self.fail(format!("`{sign}` is missing here")) }
    }

    /// Takes the keyword `word`, when it is next.
    fn word(&mut self, word: &str) -> bool {
        self.space();
        let before = self.at;
        if self.identifier() == Some(word) {
            return true;
        }
        self.at = before;
        false
    }

    fn identifier(&mut self) -> Option<&'a str> {
        if !self.rest().starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return None;
        }
        Some(self.take(|c| c.is_ascii_alphanumeric() || c == '_'))
    }

    /// What may follow a dot: a name, or the digits of a place.
    fn name(&mut self) -> Option<&'a str> {
        let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_');
        (!name.is_empty()).then_some(name)
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn column(&self) -> usize {
        self.place().column
    }

    fn place(&self) -> Place {
        self.start.ahead(self.text, self.at)
    }

    fn fail<T>(&self, reason: impl Into<String>) -> Scan<T> {
        self.fail_at(self.column(), reason)
    }

    fn fail_at<T>(&self, column: usize, reason: impl Into<String>) -> Scan<T> {
        Err(TemplateError { column, reason: reason.into() })
    }
}

fn not(code: Code) -> Code {
    Code { text: format!("(not {})", code.text), closed: true }
}

fn hint(near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
}
