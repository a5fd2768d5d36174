//! The filters, tests and operators of expressions: about sixty, each with capped work and output.
//!
//! What a filter reads and what it gives is weighed; a weight above [`limits::RENDERED_BYTES`] is refused,
//! and every weight is paid for in fuel. What searches and compares may look at values of any size, and pays
//! for what it looks at ([`Work`]): none takes more than the length of its data times a constant. A null
//! subject passes through the filters on text, numbers and lists, so that `default` can stand at the end of a
//! chain.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Number, Value};
use sha2::Digest as _;

use crate::limits;
use crate::number::{self, Decimal};

/// What a filter gives, or the reason why it cannot.
type Outcome = Result<Value, String>;

/// A filter, a test or an operator.
pub(super) struct Filter {
    pub name: &'static str,
    /// How many arguments it takes beside its subject.
    pub arguments: RangeInclusive<usize>,
    pub run: Run,
}

/// How a filter works on its subject and arguments; the subject is the first of them.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// Gives one of them as it is: its place.
    Pick(fn(&[&Value]) -> usize),
    /// Gives the part of the subject that the argument names.
    At,
    /// Looks at its values where they are, whatever their size, and pays for what it looks at.
    Search(fn(&[&Value], &Work) -> Outcome),
    /// Works on everything; null gives null.
    Full(fn(&[&Value]) -> Outcome),
    /// Works on everything, and looks at some of it more than once, for which it pays; null gives null.
    Paid(fn(&[&Value], &Work) -> Outcome),
    /// Works on everything, null too.
    Any(fn(&[&Value]) -> Outcome),
}

macro_rules! filters {
    ($($name:literal $arguments:expr, $how:ident $run:expr;)*) => {
        &[$(Filter { name: $name, arguments: $arguments, run: Run::$how($run) },)*]
    };
}

/// The filters that authors write.
static FILTERS: &[Filter] = filters! {
    "default" 1..=1, Pick |v| usize::from(v[0].is_null());
    "coalesce" 1..=20, Pick |v| v.iter().position(|value| !value.is_null()).unwrap_or(0);
    "length" 0..=0, Search length;
    "first" 0..=0, Search |v, _| end(v[0], <[Value]>::first, |text| text.chars().next());
    "last" 0..=0, Search |v, _| end(v[0], <[Value]>::last, |text| text.chars().next_back());
    "keys" 0..=0, Search keys;
    "contains" 1..=1, Search |v, work| within(v[1], v[0], work).map(Value::Bool);
    "upper" 0..=0, Full |v| text(v[0]).map(|text| text.to_uppercase().into());
    "lower" 0..=0, Full |v| text(v[0]).map(|text| text.to_lowercase().into());
    "title" 0..=0, Full title;
    "capitalize" 0..=0, Full |v| text(v[0]).map(|text| capitalized(&text).into());
    "trim" 0..=1, Full trim;
    "replace" 2..=2, Full replace;
    "split" 0..=1, Full split;
    "lines" 0..=0, Full |v| pieces(text(v[0])?.lines());
    "join" 0..=1, Full join;
    "starts_with" 1..=1, Full |v| Ok(text(v[0])?.starts_with(&*text(v[1])?).into());
    "ends_with" 1..=1, Full |v| Ok(text(v[0])?.ends_with(&*text(v[1])?).into());
    "truncate" 1..=2, Full truncate;
    "slice" 1..=2, Full slice;
    "string" 0..=0, Any |v| Ok(text_of(v[0]).into_owned().into());
    "int" 0..=0, Full int;
    "float" 0..=0, Full |v| float(number_in(v[0])?.to_f64());
    "bool" 0..=0, Any boolean;
    "abs" 0..=0, Full abs;
    "round" 0..=1, Full round;
    "floor" 0..=0, Full |v| whole(v[0], f64::floor);
    "ceil" 0..=0, Full |v| whole(v[0], f64::ceil);
    "sum" 0..=0, Full |v| list(v[0])?.iter().try_fold(Value::from(0), |sum, item| add(&[&sum, item]));
    "min" 0..=0, Full |v| Ok(keyed(list(v[0])?).min_by(|(a, _), (b, _)| a.cmp(b)).map(copy).unwrap_or_default());
    "max" 0..=0, Full |v| Ok(keyed(list(v[0])?).max_by(|(a, _), (b, _)| a.cmp(b)).map(copy).unwrap_or_default());
    "list" 0..=0, Any |v| Ok(as_list(v[0]));
    "sort" 0..=1, Paid sort;
    "unique" 0..=0, Full unique;
    "reverse" 0..=0, Full reverse;
    "compact" 0..=0, Full compact;
    "flatten" 0..=0, Full flatten;
    "pluck" 1..=1, Paid pluck;
    "wrap" 1..=1, Full wrap;
    "where" 2..=2, Paid matching;
    "values" 0..=0, Full |v| Ok(object(v[0])?.values().cloned().collect());
    "entries" 0..=0, Full entries;
    "merge" 1..=1, Full merge;
    "json" 0..=0, Any |v| Ok(v[0].to_string().into());
    "from_json" 0..=0, Full |v| crate::tree::parse_json(text(v[0])?.as_bytes()).map_err(|error| error.to_string());
    "base64" 0..=0, Full |v| text(v[0]).map(|text| STANDARD.encode(&*text).into());
    "base64url" 0..=0, Full |v| text(v[0]).map(|text| URL_SAFE_NO_PAD.encode(&*text).into());
    "from_base64" 0..=0, Full from_base64;
    "hex" 0..=0, Full |v| text(v[0]).map(|text| hex::encode(&*text).into());
    "from_hex" 0..=0, Full |v| decoded(hex::decode(&*text(v[0])?).ok(), "hexadecimal digits");
    "url_encode" 0..=0, Full |v| text(v[0]).map(|text| utf8_percent_encode(&text, COMPONENT).to_string().into());
    "url_decode" 0..=0, Full |v| Ok(percent_decode_str(&text(v[0])?).decode_utf8_lossy().into());
    "md5" 0..=0, Full |v| text(v[0]).map(|text| hex::encode(md5::Md5::digest(&*text)).into());
    "sha1" 0..=0, Full |v| text(v[0]).map(|text| hex::encode(sha1::Sha1::digest(&*text)).into());
    "sha256" 0..=0, Full |v| text(v[0]).map(|text| hex::encode(sha2::Sha256::digest(&*text)).into());
    "sha512" 0..=0, Full |v| text(v[0]).map(|text| hex::encode(sha2::Sha512::digest(&*text)).into());
    "hmac_sha256" 1..=1, Full hmac_sha256;
    "date" 0..=2, Full date;
    "to_date" 0..=2, Full to_date;
    "timestamp" 0..=0, Full |v| instant(v[0]).map(|at| at.as_second().into());
};

/// What the scanner writes for operators, brackets and tests.
static OPERATORS: &[Filter] = &[
    Filter { name: "op_at", arguments: 1..=1, run: Run::At },
    Filter { name: "op_list", arguments: 0..=100, run: Run::Any(|v| Ok(v[1..].iter().copied().cloned().collect())) },
    Filter { name: "op_map", arguments: 0..=200, run: Run::Any(map) },
    Filter { name: "op_concat", arguments: 1..=1, run: Run::Any(|v| joined([text_of(v[0]), text_of(v[1])])) },
    Filter { name: "op_add", arguments: 1..=1, run: Run::Any(add) },
    Filter { name: "op_sub", arguments: 1..=1, run: Run::Any(|v| arithmetic(v, "-", i128::checked_sub, |a, b| a - b)) },
    Filter { name: "op_mul", arguments: 1..=1, run: Run::Any(|v| arithmetic(v, "*", i128::checked_mul, |a, b| a * b)) },
    Filter { name: "op_div", arguments: 1..=1, run: Run::Any(divide) },
    Filter { name: "op_floordiv", arguments: 1..=1, run: Run::Any(floor_divide) },
    Filter { name: "op_rem", arguments: 1..=1, run: Run::Any(remainder) },
    Filter {
        name: "op_neg",
        arguments: 0..=0,
        run: Run::Any(|v| arithmetic(&[&0.into(), v[0]], "-", i128::checked_sub, |a, b| a - b)),
    },
    Filter { name: "op_eq", arguments: 1..=1, run: Run::Search(|v, work| equal(v[0], v[1], work).map(Value::Bool)) },
    Filter {
        name: "op_ne",
        arguments: 1..=1,
        run: Run::Search(|v, work| equal(v[0], v[1], work).map(|is| Value::Bool(!is))),
    },
    Filter { name: "op_lt", arguments: 1..=1, run: Run::Search(|v, work| compared(v, Ordering::is_lt, work)) },
    Filter { name: "op_le", arguments: 1..=1, run: Run::Search(|v, work| compared(v, Ordering::is_le, work)) },
    Filter { name: "op_gt", arguments: 1..=1, run: Run::Search(|v, work| compared(v, Ordering::is_gt, work)) },
    Filter { name: "op_ge", arguments: 1..=1, run: Run::Search(|v, work| compared(v, Ordering::is_ge, work)) },
    Filter { name: "op_in", arguments: 1..=1, run: Run::Search(|v, work| within(v[0], v[1], work).map(Value::Bool)) },
    Filter { name: "is_defined", arguments: 0..=0, run: Run::Search(|v, _| Ok((!v[0].is_null()).into())) },
    Filter { name: "is_undefined", arguments: 0..=0, run: Run::Search(|v, _| Ok(v[0].is_null().into())) },
    Filter { name: "is_null", arguments: 0..=0, run: Run::Search(|v, _| Ok(v[0].is_null().into())) },
    Filter { name: "is_string", arguments: 0..=0, run: Run::Search(|v, _| Ok(v[0].is_string().into())) },
    Filter { name: "is_number", arguments: 0..=0, run: Run::Search(|v, _| Ok(v[0].is_number().into())) },
    Filter { name: "is_boolean", arguments: 0..=0, run: Run::Search(|v, _| Ok(v[0].is_boolean().into())) },
    Filter { name: "is_list", arguments: 0..=0, run: Run::Search(|v, _| Ok(v[0].is_array().into())) },
    Filter { name: "is_object", arguments: 0..=0, run: Run::Search(|v, _| Ok(v[0].is_object().into())) },
    Filter { name: "is_empty", arguments: 0..=0, run: Run::Search(|v, _| Ok(is_empty(v[0]).into())) },
    Filter { name: "is_even", arguments: 0..=0, run: Run::Search(|v, work| is_rest(v[0], 0, work)) },
    Filter { name: "is_odd", arguments: 0..=0, run: Run::Search(|v, work| is_rest(v[0], 1, work)) },
];

/// Other words for filters and tests, as people know them from elsewhere.
const ALIASES: &[(&str, &str)] = &[
    ("d", "default"),
    ("count", "length"),
    ("tojson", "json"),
    ("urlencode", "url_encode"),
    ("text", "string"),
    ("number", "float"),
    ("items", "entries"),
];
const TEST_ALIASES: &[(&str, &str)] =
    &[("none", "is_null"), ("sequence", "is_list"), ("mapping", "is_object"), ("text", "is_string")];

/// Everything that the evaluator knows.
pub(super) fn all() -> impl Iterator<Item = &'static Filter> {
    FILTERS.iter().chain(OPERATORS)
}

/// The filter that authors call `name`.
pub(super) fn filter(name: &str) -> Option<&'static Filter> {
    let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, filter)| filter);
    FILTERS.iter().find(|filter| filter.name == name)
}

/// The evaluator's name of the test that authors call `name`.
pub(super) fn test(name: &str) -> Option<&'static str> {
    let alias = TEST_ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, test)| *test);
    alias.or_else(|| tests().find(|(known, _)| *known == name).map(|(_, test)| test))
}

pub(super) fn filter_names() -> impl Iterator<Item = &'static str> {
    FILTERS.iter().map(|filter| filter.name)
}

pub(super) fn test_names() -> impl Iterator<Item = &'static str> {
    tests().map(|(name, _)| name)
}

fn tests() -> impl Iterator<Item = (&'static str, &'static str)> {
    OPERATORS.iter().filter_map(|filter| Some((filter.name.strip_prefix("is_")?, filter.name)))
}

/// What every character but RFC 3986's unreserved ones becomes.
pub(crate) const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// About the memory that a value takes, at most `limit` and a little more.
pub(super) fn weight(value: &Value, limit: usize) -> usize {
    const NODE: usize = 32;
    match value {
        Value::Null | Value::Bool(_) => NODE,
        Value::Number(number) => NODE + number.as_str().len(),
        Value::String(text) => NODE + text.len(),
        Value::Array(items) => items
            .iter()
            .try_fold(NODE, |sum, item| {
                let sum = sum + weight(item, limit.saturating_sub(sum));
                if sum > limit { Err(sum) } else { Ok(sum) }
            })
            .unwrap_or_else(|sum| sum),
        Value::Object(map) => map
            .iter()
            .try_fold(NODE, |sum, (key, item)| {
                let sum = sum + NODE + key.len() + weight(item, limit.saturating_sub(sum));
                if sum > limit { Err(sum) } else { Ok(sum) }
            })
            .unwrap_or_else(|sum| sum),
    }
}

/// What one look at a value pays, in bytes, whatever its length.
const LOOK: usize = 128;

/// What an expression may still look at, in bytes: counted and not timed, so that the same expression on the same
/// data always comes to the same end.
pub(super) struct Work {
    left: Cell<usize>,
    spent: Cell<bool>,
}

impl Work {
    pub(super) const fn new(bytes: usize) -> Self {
        Self { left: Cell::new(bytes), spent: Cell::new(false) }
    }

    /// What is left of it, in bytes.
    pub(super) const fn left(&self) -> usize {
        self.left.get()
    }

    /// Whether more was asked for than there was.
    pub(super) const fn is_spent(&self) -> bool {
        self.spent.get()
    }

    /// Pays for a look at so many bytes.
    fn pay(&self, bytes: usize) -> Result<(), String> {
        match self.left.get().checked_sub(bytes.saturating_add(LOOK)) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.spent.set(true);
                Err("takes too much work on this data".to_owned())
            }
        }
    }
}

/// A value as text: null is empty, numbers are as they were written, lists and objects are JSON.
pub(super) fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text),
        Value::Number(number) => Cow::Borrowed(number.as_str()),
        other => Cow::Owned(other.to_string()),
    }
}

/// Whether a condition holds: everything but null, false, zero and what is empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => !number::is_zero(number),
        other => !is_empty(other),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn wants<T>(wanted: &str, value: &Value) -> Result<T, String> {
    Err(format!("needs {wanted}, not {}", kind(value)))
}

fn text(value: &Value) -> Result<Cow<'_, str>, String> {
    match value {
        Value::Array(_) | Value::Object(_) => wants("a text", value),
        scalar => Ok(text_of(scalar)),
    }
}

fn list(value: &Value) -> Result<&[Value], String> {
    value.as_array().map_or_else(|| wants("a list", value), |items| Ok(items.as_slice()))
}

fn object(value: &Value) -> Result<&Map<String, Value>, String> {
    value.as_object().map_or_else(|| wants("an object", value), Ok)
}

const TOO_LARGE: &str = "gives more than 1 MiB";

/// Refuses an output of so many bytes before it is made.
fn room(bytes: Option<usize>) -> Result<(), String> {
    if bytes.is_some_and(|bytes| bytes <= limits::RENDERED_BYTES) { Ok(()) } else { Err(TOO_LARGE.to_owned()) }
}

fn joined<'a>(parts: impl IntoIterator<Item = Cow<'a, str>>) -> Outcome {
    let mut text = String::new();
    for part in parts {
        room(text.len().checked_add(part.len()))?;
        text.push_str(&part);
    }
    Ok(text.into())
}

fn pieces<'a>(parts: impl Iterator<Item = &'a str>) -> Outcome {
    let mut bytes = 0_usize;
    let mut items = Vec::new();
    for part in parts {
        bytes += part.len() + 32;
        room(Some(bytes))?;
        items.push(Value::from(part));
    }
    Ok(items.into())
}

fn length(v: &[&Value], work: &Work) -> Outcome {
    match v[0] {
        Value::Null => Ok(0.into()),
        Value::String(text) => {
            work.pay(text.len())?;
            Ok(text.chars().count().into())
        }
        Value::Array(items) => Ok(items.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        other => wants("a text, a list or an object", other),
    }
}

fn keys(v: &[&Value], work: &Work) -> Outcome {
    let mut bytes = 0_usize;
    let mut keys = Vec::new();
    for key in object(v[0])?.keys() {
        work.pay(key.len())?;
        bytes += key.len() + 32;
        room(Some(bytes))?;
        keys.push(Value::from(key.as_str()));
    }
    Ok(keys.into())
}

fn end(value: &Value, item: fn(&[Value]) -> Option<&Value>, letter: fn(&str) -> Option<char>) -> Outcome {
    match value {
        Value::Null => Ok(Value::Null),
        Value::Array(items) => match item(items) {
            Some(item) if weight(item, limits::RENDERED_BYTES) > limits::RENDERED_BYTES => Err(TOO_LARGE.to_owned()),
            item => Ok(item.cloned().unwrap_or_default()),
        },
        Value::String(text) => Ok(letter(text).map(String::from).unwrap_or_default().into()),
        other => wants("a list or a text", other),
    }
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect())
        .unwrap_or_default()
}

fn title(v: &[&Value]) -> Outcome {
    let text = text(v[0])?;
    let words = text.split_inclusive(char::is_whitespace);
    Ok(words.map(capitalized).collect::<String>().into())
}

fn trim(v: &[&Value]) -> Outcome {
    let subject = text(v[0])?;
    let Some(chars) = v.get(1) else { return Ok(subject.trim().into()) };
    let mut chars: Vec<char> = text(chars)?.chars().take(64).collect();
    chars.sort_unstable();
    Ok(subject.trim_matches(|c| chars.binary_search(&c).is_ok()).into())
}

fn replace(v: &[&Value]) -> Outcome {
    let (subject, from, to) = (text(v[0])?, text(v[1])?, text(v[2])?);
    if from.is_empty() {
        return Err("cannot replace an empty text".to_owned());
    }
    let found = subject.matches(&*from).count();
    room(found.checked_mul(to.len()).and_then(|more| more.checked_add(subject.len())))?;
    Ok(subject.replace(&*from, &to).into())
}

fn split(v: &[&Value]) -> Outcome {
    let subject = text(v[0])?;
    let Some(separator) = v.get(1) else { return pieces(subject.split_whitespace()) };
    match &*text(separator)? {
        "" => Err("cannot split at an empty text".to_owned()),
        separator => pieces(subject.split(separator)),
    }
}

fn join(v: &[&Value]) -> Outcome {
    let separator = v.get(1).map_or(Ok(Cow::Borrowed("")), |separator| text(separator))?;
    let items = list(v[0])?.iter().enumerate();
    joined(items.flat_map(|(n, item)| {
        let between = if n == 0 { Cow::Borrowed("") } else { separator.clone() };
        [between, text_of(item)]
    }))
}

fn truncate(v: &[&Value]) -> Outcome {
    let subject = text(v[0])?;
    let most = size(v[1])?;
    if subject.chars().count() <= most {
        return Ok(subject.into());
    }
    let end = v.get(2).map_or(Ok(Cow::Borrowed("…")), |end| text(end))?;
    let kept = subject.chars().take(most.saturating_sub(end.chars().count()));
    Ok(kept.chain(end.chars()).take(most).collect::<String>().into())
}

fn slice(v: &[&Value]) -> Outcome {
    let bounds = |length: usize| -> Result<(usize, usize), String> {
        let place = |value: &Value| -> Result<usize, String> {
            let Some(at) = value.as_i64() else { return wants("a whole number", value) };
            let from_end = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
            Ok(if at < 0 { length.saturating_sub(from_end) } else { from_end.min(length) })
        };
        let end = v.get(2).filter(|end| !end.is_null()).map_or(Ok(length), |end| place(end))?;
        Ok((place(v[1])?, end))
    };
    if let Value::Array(items) = v[0] {
        let (start, end) = bounds(items.len())?;
        return Ok(items.get(start..end).unwrap_or_default().to_vec().into());
    }
    let text = text(v[0])?;
    let (start, end) = bounds(text.chars().count())?;
    Ok(text.chars().skip(start).take(end.saturating_sub(start)).collect::<String>().into())
}

fn size(value: &Value) -> Result<usize, String> {
    value.as_u64().and_then(|size| usize::try_from(size).ok()).map_or_else(|| wants("a whole number", value), Ok)
}

/// A number that can be reckoned with: exact as long as it is whole and has up to 38 digits.
#[derive(Clone, Copy)]
enum Reckoned {
    Whole(i128),
    Float(f64),
}

impl Reckoned {
    fn of(number: &Number) -> Result<Self, String> {
        let text = number.as_str();
        if let Ok(whole) = text.parse() {
            return Ok(Self::Whole(whole));
        }
        match text.parse::<f64>() {
            Ok(float) if float.is_finite() => Ok(Self::Float(float)),
            _ => Err(format!("cannot reckon with {}", text.chars().take(40).collect::<String>())),
        }
    }

    fn to_f64(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "asked for a float")]
            Self::Whole(whole) => whole as f64,
            Self::Float(float) => float,
        }
    }
}

fn number(value: &Value) -> Result<Reckoned, String> {
    match value {
        Value::Number(number) => Reckoned::of(number),
        other => wants("a number", other),
    }
}

/// The number that a value is, or that its text says.
fn number_in(value: &Value) -> Result<Reckoned, String> {
    Reckoned::of(&*digits_in(value)?)
}

/// The same with all of its digits.
fn digits_in(value: &Value) -> Result<Cow<'_, Number>, String> {
    match value {
        Value::Bool(is) => Ok(Cow::Owned(u8::from(*is).into())),
        Value::Number(number) => Ok(Cow::Borrowed(number)),
        Value::String(text) => {
            number::read(text).map(Cow::Owned).ok_or_else(|| "needs a number, or a text that is one".to_owned())
        }
        other => wants("a number", other),
    }
}

fn whole_number(whole: i128) -> Outcome {
    Number::from_i128(whole).map(Value::Number).ok_or_else(|| "gives a number that is too large".to_owned())
}

fn float(float: f64) -> Outcome {
    Number::from_f64(float).map(Value::Number).ok_or_else(|| "gives a number that is too large".to_owned())
}

/// A float without its fraction, as a whole number.
fn rounded(float: f64) -> Outcome {
    // Up to here every whole float is exact.
    if float.abs() < 9_007_199_254_740_992.0 {
        #[expect(clippy::cast_possible_truncation, reason = "checked on the line above")]
        return whole_number(float as i128);
    }
    self::float(float)
}

fn int(v: &[&Value]) -> Outcome {
    let number = digits_in(v[0])?;
    let text = number.as_str();
    if text.contains(['e', 'E']) {
        return whole(v[0], f64::trunc);
    }
    // By its digits: a float would not keep them all.
    let digits = text.split('.').next().unwrap_or_default();
    let digits = if digits == "-0" { "0" } else { digits };
    serde_json::from_str(digits).map(Value::Number).map_err(|error| error.to_string())
}

fn whole(value: &Value, towards: fn(f64) -> f64) -> Outcome {
    match number_in(value)? {
        Reckoned::Whole(whole) => whole_number(whole),
        Reckoned::Float(float) => rounded(towards(float)),
    }
}

fn boolean(v: &[&Value]) -> Outcome {
    match v[0] {
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true.into()),
            "false" | "no" | "off" | "0" | "" => Ok(false.into()),
            _ => Err("needs a text such as true, yes, on, 1 or false, no, off, 0".to_owned()),
        },
        other => Ok(is_true(other).into()),
    }
}

fn abs(v: &[&Value]) -> Outcome {
    match number(v[0])? {
        Reckoned::Whole(whole) => whole_number(whole.checked_abs().ok_or("gives a number that is too large")?),
        Reckoned::Float(number) => float(number.abs()),
    }
}

fn round(v: &[&Value]) -> Outcome {
    let digits = v.get(1).map_or(Ok(0), |digits| size(digits))?;
    match number_in(v[0])? {
        Reckoned::Whole(whole) => whole_number(whole),
        Reckoned::Float(number) if digits == 0 => rounded(number.round()),
        Reckoned::Float(number) => {
            let digits = i32::try_from(digits.min(15)).unwrap_or(15);
            let factor = 10_f64.powi(digits);
            let scaled = (number * factor).round() / factor;
            float(if scaled.is_finite() { scaled } else { number })
        }
    }
}

fn arithmetic(v: &[&Value], sign: &str, whole: fn(i128, i128) -> Option<i128>, floats: fn(f64, f64) -> f64) -> Outcome {
    let reason = |reason| format!("`{sign}` {reason}");
    match (number(v[0]).map_err(reason)?, number(v[1]).map_err(reason)?) {
        (Reckoned::Whole(a), Reckoned::Whole(b)) => {
            whole(a, b).map_or_else(|| Err(format!("`{sign}` gives a number that is too large")), whole_number)
        }
        (a, b) => float(floats(a.to_f64(), b.to_f64())).map_err(reason_owned(sign)),
    }
}

fn reason_owned(sign: &str) -> impl Fn(String) -> String + '_ {
    move |reason| format!("`{sign}` {reason}")
}

fn add(v: &[&Value]) -> Outcome {
    match (v[0], v[1]) {
        (Value::String(a), Value::String(b)) => joined([Cow::from(a.as_str()), Cow::from(b.as_str())]),
        (Value::Array(a), Value::Array(b)) => Ok(a.iter().chain(b).cloned().collect()),
        _ => arithmetic(v, "+", i128::checked_add, |a, b| a + b),
    }
}

fn divide(v: &[&Value]) -> Outcome {
    match (number(v[0]).map_err(reason_owned("/"))?, number(v[1]).map_err(reason_owned("/"))?) {
        (_, Reckoned::Whole(0)) => Err("`/` cannot divide by zero".to_owned()),
        (Reckoned::Whole(a), Reckoned::Whole(b)) if a.checked_rem(b) == Some(0) => whole_number(a / b),
        (a, b) => float(a.to_f64() / b.to_f64()).map_err(reason_owned("/")),
    }
}

fn floor_divide(v: &[&Value]) -> Outcome {
    arithmetic(v, "//", |a, b| a.checked_div_euclid(b), |a, b| (a / b).floor())
}

fn remainder(v: &[&Value]) -> Outcome {
    arithmetic(v, "%", |a, b| a.checked_rem_euclid(b), f64::rem_euclid)
}

/// Equal as data: numbers by their value, `1.10` and `1.1` are the same.
fn equal(a: &Value, b: &Value, work: &Work) -> Result<bool, String> {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            work.pay(x.as_str().len() + y.as_str().len())?;
            Ok(x == y || Decimal::of(x) == Decimal::of(y))
        }
        (Value::String(x), Value::String(y)) => {
            work.pay(if x.len() == y.len() { x.len() } else { 0 })?;
            Ok(x == y)
        }
        (Value::Array(x), Value::Array(y)) => {
            work.pay(0)?;
            if x.len() != y.len() {
                return Ok(false);
            }
            for (x, y) in x.iter().zip(y) {
                if !equal(x, y, work)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Object(x), Value::Object(y)) => {
            work.pay(0)?;
            if x.len() != y.len() {
                return Ok(false);
            }
            for (key, x) in x {
                work.pay(key.len())?;
                let Some(y) = y.get(key) else { return Ok(false) };
                if !equal(x, y, work)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (x, y) => {
            work.pay(0)?;
            Ok(x == y)
        }
    }
}

/// A value that many are compared with. A number among them is read once: it may be longer than all others together.
struct Sought<'a> {
    value: &'a Value,
    number: Option<Decimal<'a>>,
}

impl<'a> Sought<'a> {
    fn new(value: &'a Value, work: &Work) -> Result<Self, String> {
        let number = match value {
            Value::Number(number) => {
                work.pay(number.as_str().len())?;
                Some(Decimal::of(number))
            }
            _ => None,
        };
        Ok(Self { value, number })
    }

    fn is(&self, other: &Value, work: &Work) -> Result<bool, String> {
        match (&self.number, other) {
            (Some(number), Value::Number(other)) => {
                work.pay(other.as_str().len())?;
                Ok(*number == Decimal::of(other))
            }
            _ => equal(self.value, other, work),
        }
    }
}

/// Compares numbers and texts; anything against null is false.
fn compared(v: &[&Value], holds: fn(Ordering) -> bool, work: &Work) -> Outcome {
    match (v[0], v[1]) {
        (Value::Null, _) | (_, Value::Null) => Ok(false.into()),
        (Value::String(a), Value::String(b)) => {
            work.pay(a.len().min(b.len()))?;
            Ok(holds(a.cmp(b)).into())
        }
        (Value::Number(a), Value::Number(b)) => {
            work.pay(a.as_str().len() + b.as_str().len())?;
            Ok(holds(Decimal::of(a).cmp(&Decimal::of(b))).into())
        }
        (a, b) => Err(format!("cannot compare {} with {}", kind(a), kind(b))),
    }
}

/// What values are sorted by, in this order. It is made once for each value: to read a long number again for each
/// comparison would take the product of two lengths.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Null,
    Bool(bool),
    Number(Decimal<'a>),
    Text(&'a str),
    List,
    Object,
}

impl<'a> Key<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(is) => Self::Bool(*is),
            Value::Number(number) => Self::Number(Decimal::of(number)),
            Value::String(text) => Self::Text(text),
            Value::Array(_) => Self::List,
            Value::Object(_) => Self::Object,
        }
    }
}

fn keyed(items: &[Value]) -> impl Iterator<Item = (Key<'_>, &Value)> {
    items.iter().map(|item| (Key::of(item), item))
}

fn copy((_, item): (Key<'_>, &Value)) -> Value {
    item.clone()
}

fn within(item: &Value, whole: &Value, work: &Work) -> Result<bool, String> {
    match whole {
        Value::Null => Ok(false),
        Value::String(whole) => {
            let item = text(item)?;
            work.pay(whole.len() + item.len())?;
            // In time linear in both, whatever they are.
            Ok(memchr::memmem::find(whole.as_bytes(), item.as_bytes()).is_some())
        }
        Value::Array(items) => {
            let sought = Sought::new(item, work)?;
            for known in items {
                if sought.is(known, work)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Object(map) => match item.as_str() {
            Some(key) => {
                work.pay(key.len())?;
                Ok(map.contains_key(key))
            }
            None => Ok(false),
        },
        other => wants("a text, a list or an object", other),
    }
}

/// Whether a number leaves `rest` when it is divided by two.
fn is_rest(number: &Value, rest: i32, work: &Work) -> Outcome {
    work.pay(number.as_number().map_or(0, |number| number.as_str().len()))?;
    equal(&remainder(&[number, &2.into()])?, &rest.into(), work).map(Value::Bool)
}

fn map(v: &[&Value]) -> Outcome {
    let mut map = Map::new();
    for pair in v[1..].chunks_exact(2) {
        map.insert(text(pair[0])?.into_owned(), pair[1].clone());
    }
    Ok(map.into())
}

fn sort(v: &[&Value], work: &Work) -> Outcome {
    let items = list(v[0])?;
    let mut keyed: Vec<(Key<'_>, &Value)> = match v.get(1) {
        None => keyed(items).collect(),
        Some(name) => {
            let name = text(name)?;
            let key = |item| Ok((field(item, &name, work)?.map_or(Key::Null, Key::of), item));
            items.iter().map(key).collect::<Result<_, String>>()?
        }
    };
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(keyed.into_iter().map(copy).collect())
}

/// A field of an item. Its name is paid for each time: it is hashed, and may be longer than all of the items.
fn field<'a>(item: &'a Value, name: &str, work: &Work) -> Result<Option<&'a Value>, String> {
    work.pay(name.len())?;
    Ok(item.get(name))
}

fn unique(v: &[&Value]) -> Outcome {
    let mut seen = HashSet::new();
    Ok(list(v[0])?.iter().filter(|item| seen.insert(item.to_string())).cloned().collect())
}

fn reverse(v: &[&Value]) -> Outcome {
    match v[0] {
        Value::Array(items) => Ok(items.iter().rev().cloned().collect()),
        other => Ok(text(other)?.chars().rev().collect::<String>().into()),
    }
}

fn flatten(v: &[&Value]) -> Outcome {
    let items = list(v[0])?.iter();
    Ok(items.flat_map(|item| item.as_array().map_or(std::slice::from_ref(item), Vec::as_slice)).cloned().collect())
}

/// Where there may be one, several or none, as among the elements of XML.
fn as_list(value: &Value) -> Value {
    match value {
        Value::Null => Value::Array(Vec::new()),
        list @ Value::Array(_) => list.clone(),
        one => Value::Array(vec![one.clone()]),
    }
}

fn pluck(v: &[&Value], work: &Work) -> Outcome {
    let name = text(v[1])?;
    list(v[0])?.iter().map(|item| Ok(field(item, &name, work)?.cloned().unwrap_or_default())).collect()
}

fn matching(v: &[&Value], work: &Work) -> Outcome {
    let name = text(v[1])?;
    let sought = Sought::new(v[2], work)?;
    let mut found = Vec::new();
    for item in list(v[0])? {
        if let Some(value) = field(item, &name, work)?
            && sought.is(value, work)?
        {
            found.push(item.clone());
        }
    }
    Ok(found.into())
}

fn entries(v: &[&Value]) -> Outcome {
    let entry = |(key, value): (&String, &Value)| {
        Value::Object(Map::from_iter([("key".to_owned(), key.as_str().into()), ("value".to_owned(), value.clone())]))
    };
    Ok(object(v[0])?.iter().map(entry).collect())
}

fn merge(v: &[&Value]) -> Outcome {
    let mut merged = object(v[0])?.clone();
    if !v[1].is_null() {
        merged.extend(object(v[1])?.clone());
    }
    Ok(merged.into())
}

/// Drops nulls: items of a list, or fields of an object.
fn compact(v: &[&Value]) -> Outcome {
    Ok(match v[0] {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        other => list(other)?.iter().filter(|item| !item.is_null()).cloned().collect(),
    })
}

/// An object around each item, under one name.
fn wrap(v: &[&Value]) -> Outcome {
    let name = text(v[1])?;
    let items = list(v[0])?;
    room(items.len().checked_mul(name.len()))?;
    let around = |item: &Value| Value::Object([(name.clone().into_owned(), item.clone())].into_iter().collect());
    Ok(items.iter().map(around).collect())
}

fn from_base64(v: &[&Value]) -> Outcome {
    // Mail and APIs after its manner break their lines.
    let text: String = text(v[0])?.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bare = text.trim_end_matches('=');
    decoded(STANDARD_NO_PAD.decode(bare).or_else(|_| URL_SAFE_NO_PAD.decode(bare)).ok(), "base64")
}

fn decoded(bytes: Option<Vec<u8>>, form: &str) -> Outcome {
    let bytes = bytes.ok_or_else(|| format!("needs {form}"))?;
    String::from_utf8(bytes).map(Value::String).map_err(|_| format!("needs {form} of a text in UTF-8"))
}

fn hmac_sha256(v: &[&Value]) -> Outcome {
    let mut mac: Hmac<sha2::Sha256> =
        Hmac::new_from_slice(text(v[1])?.as_bytes()).map_err(|error| error.to_string())?;
    mac.update(text(v[0])?.as_bytes());
    Ok(hex::encode(mac.finalize().into_bytes()).into())
}

/// A point in time: RFC 3339, or seconds or milliseconds since 1970 (milliseconds from 10^11 on).
fn instant(value: &Value) -> Result<jiff::Timestamp, String> {
    const MILLIS_FROM: i64 = 100_000_000_000;
    let bad = || "needs a time as in RFC 3339, or a number of seconds since 1970".to_owned();
    match value {
        Value::Number(_) => {
            let number = value.as_i64().ok_or_else(bad)?;
            let at = if number.abs() < MILLIS_FROM {
                jiff::Timestamp::from_second(number)
            } else {
                jiff::Timestamp::from_millisecond(number)
            };
            at.map_err(|_| bad())
        }
        other => text(other)?.trim().parse().map_err(|_| bad()),
    }
}

/// Zones come from the table in the binary: the same expression gives the same text on every machine.
fn zone(name: Option<&&Value>) -> Result<TimeZone, String> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    let name = text(name)?;
    TimeZoneDatabase::bundled().get(&name).map_err(|_| {
        format!("needs a time zone such as Europe/Berlin, not `{}`", name.chars().take(40).collect::<String>())
    })
}

const FORMAT_MAX_BYTES: usize = 256;

fn date_format<'a>(value: Option<&&'a Value>) -> Result<Option<Cow<'a, str>>, String> {
    let format = value.filter(|format| !format.is_null()).map(|format| text(format)).transpose()?;
    match format {
        Some(format) if format.len() > FORMAT_MAX_BYTES => Err("needs a format of at most 256 bytes".to_owned()),
        format => Ok(format),
    }
}

/// `date(format, zone)`: a time as people write it; without a format RFC 3339.
fn date(v: &[&Value]) -> Outcome {
    let at = instant(v[0])?.to_zoned(zone(v.get(2))?);
    match date_format(v.get(1))? {
        Some(format) => {
            let text = jiff::fmt::strtime::format(&*format, &at);
            text.map(Value::String).map_err(|_| format!("cannot write a time as `{format}`"))
        }
        None => Ok(at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().into()),
    }
}

/// `to_date(format, zone)`: RFC 3339 in UTC from a time as people write it.
fn to_date(v: &[&Value]) -> Outcome {
    let at = match date_format(v.get(1))? {
        None => instant(v[0])?,
        Some(format) => {
            let text = text(v[0])?;
            let bad = |error: jiff::Error| format!("cannot read a time as `{format}`: {error}");
            let parsed = jiff::fmt::strtime::parse(&*format, &*text).map_err(bad)?;
            match parsed.to_timestamp() {
                Ok(at) => at,
                Err(_) => {
                    let local = parsed
                        .to_datetime()
                        .or_else(|_| parsed.to_date().map(|date| date.at(0, 0, 0, 0)))
                        .map_err(bad)?;
                    local.to_zoned(zone(v.get(2))?).map_err(bad)?.timestamp()
                }
            }
        }
    };
    Ok(at.to_string().into())
}
