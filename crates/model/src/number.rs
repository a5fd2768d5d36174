//! Numbers by their decimal digits: compared exactly, whatever their length, and read from text as people write it.
//!
//! Guarantees that reading a number and comparing two take time linear in their length, and no memory.

use std::cmp::Ordering;

use serde_json::Number;

/// A number as `0.d1d2d3… * 10^magnitude`, where the first and the last digit are not zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal<'a> {
    negative: bool,
    /// Its digits, in two parts because a point may stand between them. Zero has none.
    digits: [&'a [u8]; 2],
    magnitude: i64,
}

impl<'a> Decimal<'a> {
    /// The number that the text of a JSON number (RFC 8259, section 6) says.
    pub(crate) fn of(number: &'a Number) -> Self {
        let text = number.as_str().as_bytes();
        let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = split_at_any(text, [b'e', b'E']);
        let (whole, fraction) = split_at_any(mantissa, [b'.', b'.']);
        let mut digits = [without_zeros_before(whole), fraction];
        let mut magnitude = length(digits[0]);
        if digits[0].is_empty() {
            digits[1] = without_zeros_before(fraction);
            magnitude = length(digits[1]).saturating_sub(length(fraction));
        }
        digits[1] = without_zeros_after(digits[1]);
        if digits[1].is_empty() {
            digits[0] = without_zeros_after(digits[0]);
        }
        let is_zero = digits.iter().all(|part| part.is_empty());
        let magnitude = if is_zero { 0 } else { magnitude.saturating_add(power(exponent)) };
        Self { negative: negative && !is_zero, digits, magnitude }
    }

    /// Writes it so that equal numbers have one text.
    pub(crate) fn write(&self, out: &mut String) {
        out.push_str(if self.negative { "-0." } else { "0." });
        out.extend(self.digits().map(|digit| char::from(*digit)));
        out.push_str(&format!("e{}", self.magnitude));
    }

    fn sign(&self) -> i8 {
        match (self.negative, self.digits.iter().all(|part| part.is_empty())) {
            (_, true) => 0,
            (true, false) => -1,
            (false, false) => 1,
        }
    }

    fn digits(&self) -> impl Iterator<Item = &'a u8> {
        let [whole, fraction] = self.digits;
        whole.iter().chain(fraction)
    }
}

impl Ord for Decimal<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_size = || self.magnitude.cmp(&other.magnitude).then_with(|| self.digits().cmp(other.digits()));
        self.sign().cmp(&other.sign()).then_with(|| if self.negative { by_size().reverse() } else { by_size() })
    }
}

impl PartialOrd for Decimal<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Decimal<'_> {}

/// Whether a number is zero.
pub(crate) fn is_zero(number: &Number) -> bool {
    let mantissa = number.as_str().bytes().take_while(|byte| !matches!(byte, b'e' | b'E'));
    !mantissa.into_iter().any(|byte| matches!(byte, b'1'..=b'9'))
}

/// The number that a text says as people and other programs write it: also with a plus sign, with zeros in front, and
/// with nothing before or behind the point (`+5`, `007`, `.5`, `5.`). Blanks around it do not matter. All of its
/// digits are kept; `None` for anything else, such as `0x10` or `1,000`.
pub(crate) fn read(text: &str) -> Option<Number> {
    let text = text.trim();
    let (sign, bare) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let end = bare.find(['e', 'E']).unwrap_or(bare.len());
    let (mantissa, exponent) = bare.split_at(end);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || !digits().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    serde_json::from_str(&format!("{sign}{whole}{point}{fraction}{exponent}")).ok()
}

fn split_at_any(text: &[u8], [a, b]: [u8; 2]) -> (&[u8], &[u8]) {
    match memchr::memchr2(a, b, text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, b""),
    }
}

fn without_zeros_before(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

fn without_zeros_after(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
    &digits[..digits.len() - zeros]
}

fn length(digits: &[u8]) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

/// The number that an exponent says, if there is one. Beyond 10^18, exponents are as one.
fn power(exponent: &[u8]) -> i64 {
    const MOST: i64 = 1_000_000_000_000_000_000;
    let (negative, digits) = match exponent {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let add = |sum: i64, digit: &u8| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')).min(MOST);
    let power = digits.iter().fold(0, add);
    if negative { -power } else { power }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        for same in [
            &["0", "-0", "0.000", "0e9", "-0.0e-7"][..],
            &["1.1", "1.10", "11e-1", "0.11E1", "0.0011e+3"],
            &["-1200", "-1.2e3", "-12e2", "-0.12e4", "-1200.00"],
            &["0.00012", "1.2e-4", "12e-5"],
            &["1e400", "10e399"],
        ] {
            for (a, b) in same.iter().flat_map(|a| same.iter().map(move |b| (*a, *b))) {
                assert_eq!(Decimal::of(&number(a)), Decimal::of(&number(b)), "{a} {b}");
                let text = |number: &Number| {
                    let mut text = String::new();
                    Decimal::of(number).write(&mut text);
                    text
                };
                assert_eq!(text(&number(a)), text(&number(b)), "{a} {b}");
            }
        }
    }

    #[test]
    fn orders_numbers_exactly() {
        let ordered = [
            "-1e999999999999999999999",
            "-1e400",
            "-100000000000000000000000000000000000000002",
            "-100000000000000000000000000000000000000001",
            "-2",
            "-1.5",
            "-1e-400",
            "0",
            "1e-999999999999999999999",
            "1e-400",
            "0.1",
            "0.10000000000000000000001",
            "9007199254740992",
            "9007199254740993",
            "9007199254740993.5",
            "10000000000000000000",
            "1e400",
            "1.5e400",
            "1e99999999999",
        ];
        for (n, a) in ordered.iter().enumerate() {
            for (m, b) in ordered.iter().enumerate() {
                assert_eq!(Decimal::of(&number(a)).cmp(&Decimal::of(&number(b))), n.cmp(&m), "{a} {b}");
            }
        }
    }

    #[test]
    fn reads_numbers_as_people_write_them() {
        for (text, read_as) in [
            ("007", "7"),
            ("+5", "5"),
            ("-05", "-5"),
            (".5", "0.5"),
            ("-.5", "-0.5"),
            ("5.", "5"),
            ("+00.50", "0.50"),
            ("000", "0"),
            (" 12\n", "12"),
            ("01e3", "1e+3"),
            (".5e-2", "0.5e-2"),
            ("00123456789012345678901234567890.10", "123456789012345678901234567890.10"),
        ] {
            assert_eq!(read(text).unwrap_or_else(|| panic!("{text}")).as_str(), read_as, "{text}");
        }
        for text in [
            "", " ", "+", "-", ".", "+.", "e5", "-e5", "0x10", "1,000", "1_000", "--5", "+-5", "1.2.3", "1e", "NaN",
            "١",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn orders_as_whole_numbers_and_floats_do(a in any::<i64>(), b in -1000_i64..1000, x in -1e6..1e6_f64, y in -1e6..1e6_f64) {
            for (a, b) in [(a, b), (b, b / 10)] {
                prop_assert_eq!(Decimal::of(&a.into()).cmp(&Decimal::of(&b.into())), a.cmp(&b));
            }
            let (c, d) = (Number::from_f64(x).unwrap(), Number::from_f64(y).unwrap());
            prop_assert_eq!(Decimal::of(&c).cmp(&Decimal::of(&d)), x.partial_cmp(&y).unwrap());
            prop_assert_eq!(is_zero(&c), x == 0.0);
        }

        #[test]
        fn reads_what_json_reads(text in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?") {
            prop_assert_eq!(read(&text).unwrap(), number(&text));
        }
    }
}
