//! Texts with their escapes undone: percent-encoding, the escapes of JSON and programming languages, the character
//! references of XML and HTML.
//!
//! Guarantees that a view is no longer than its text, and that each place in it leads back to the place in the text.

use std::ops::Range;

use memchr::memchr3_iter;

/// Kinds of escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    const NONE: Self = Self(0);
    /// `%41` (RFC 3986, section 2.1).
    const PERCENT: Self = Self(1);
    /// `\u0041` and `\/` (RFC 8259, section 7), `\x41` and `\'` of other languages.
    const BACKSLASH: Self = Self(2);
    /// `&#65;`, `&#x41;` (XML, section 4.1) and the names that XML knows.
    const REFERENCE: Self = Self(4);
    const ALL: Self = Self(7);

    pub(super) fn is_empty(self) -> bool {
        self == Self::NONE
    }

    fn holds(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Each of them, where there is more than one.
    pub(super) fn several(self) -> impl Iterator<Item = Self> {
        let each = [Self::PERCENT, Self::BACKSLASH, Self::REFERENCE];
        let are_several = self.0.count_ones() > 1;
        each.into_iter().filter(move |kind| are_several && self.holds(*kind))
    }
}

/// Which kinds of escapes stand in `bytes` for any of the bytes that are `wanted`, or for what begins another escape.
pub(super) fn kinds(bytes: &[u8], wanted: &[bool; 256]) -> Kinds {
    let mut kinds = Kinds::NONE;
    for at in memchr3_iter(b'%', b'\\', b'&', bytes) {
        let Some(escape) = Escape::read(&bytes[at..]) else { continue };
        if escape.bytes().iter().any(|byte| wanted[usize::from(*byte)] || matches!(byte, b'%' | b'\\' | b'&')) {
            kinds.0 |= escape.kind.0;
            if kinds == Kinds::ALL {
                break;
            }
        }
    }
    kinds
}

/// A text with its escapes undone.
pub(super) struct View {
    pub bytes: Vec<u8>,
    undone: Vec<Undone>,
}

/// Where an escape stood.
struct Undone {
    /// What stands for it in the view.
    given: Range<usize>,
    /// Where it is in the text.
    taken: Range<usize>,
}

impl View {
    pub(super) fn new(text: &[u8], kinds: Kinds) -> Self {
        let mut view = Self { bytes: Vec::with_capacity(text.len()), undone: Vec::new() };
        let mut from = 0;
        for at in memchr3_iter(b'%', b'\\', b'&', text) {
            // The second of two backslashes belongs to the first.
            if at < from {
                continue;
            }
            let Some(escape) = Escape::read(&text[at..]).filter(|escape| kinds.holds(escape.kind)) else { continue };
            view.bytes.extend_from_slice(&text[from..at]);
            let start = view.bytes.len();
            view.bytes.extend_from_slice(escape.bytes());
            from = at + escape.length;
            view.undone.push(Undone { given: start..view.bytes.len(), taken: at..from });
        }
        view.bytes.extend_from_slice(&text[from..]);
        view
    }

    /// Where in the text a range of the view that is not empty comes from.
    pub(super) fn source(&self, range: Range<usize>) -> Range<usize> {
        let at = |place: usize| -> Range<usize> {
            let after = self.undone.partition_point(|undone| undone.given.start <= place);
            match after.checked_sub(1).and_then(|last| self.undone.get(last)) {
                Some(undone) if place < undone.given.end => undone.taken.clone(),
                Some(undone) => {
                    let place = undone.taken.end + (place - undone.given.end);
                    place..place + 1
                }
                None => place..place + 1,
            }
        };
        at(range.start).start..at(range.end.saturating_sub(1)).end
    }
}

/// An escape, and the bytes that it stands for.
struct Escape {
    kind: Kinds,
    /// How long it is.
    length: usize,
    given: [u8; 4],
    given_length: usize,
}

impl Escape {
    /// Reads the escape at the beginning of `text`.
    fn read(text: &[u8]) -> Option<Self> {
        match text {
            [b'%', high, low, ..] => Some(Self::byte(Kinds::PERCENT, 3, digits(&[*high, *low])?)),
            [b'\\', b'x', high, low, ..] => Some(Self::byte(Kinds::BACKSLASH, 4, digits(&[*high, *low])?)),
            [b'\\', b'u', rest @ ..] => {
                let unit = digits(rest.get(..4)?)?;
                if let Some(c) = char::from_u32(unit) {
                    return Some(Self::char(Kinds::BACKSLASH, 6, c));
                }
                // Half of a pair (RFC 8259, section 7).
                let low = digits(rest.get(4..)?.strip_prefix(b"\\u")?.get(..4)?)?;
                let c = char::decode_utf16([u16::try_from(unit).ok()?, u16::try_from(low).ok()?]).next()?.ok()?;
                Some(Self::char(Kinds::BACKSLASH, 12, c))
            }
            [b'\\', short, ..] => {
                let byte = match short {
                    b'"' | b'\\' | b'/' | b'\'' => *short,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'f' => 12,
                    _ => return None,
                };
                Some(Self::byte(Kinds::BACKSLASH, 2, u32::from(byte)))
            }
            [b'&', b'#', rest @ ..] => Self::reference(rest),
            [b'&', ..] => {
                const NAMES: [(&[u8], char); 5] =
                    [(b"&amp;", '&'), (b"&lt;", '<'), (b"&gt;", '>'), (b"&quot;", '"'), (b"&apos;", '\'')];
                let (name, c) = NAMES.iter().find(|(name, _)| text.starts_with(name))?;
                Some(Self::char(Kinds::REFERENCE, name.len(), *c))
            }
            _ => None,
        }
    }

    /// Reads what follows `&#`. Zeros may stand in front, and HTML forgives a missing semicolon.
    fn reference(text: &[u8]) -> Option<Self> {
        const DIGITS_MAX: usize = 10;
        let (prefix, radix) = if matches!(text.first(), Some(b'x' | b'X')) { (1, 16) } else { (0, 10) };
        let digits =
            text[prefix..].iter().take(DIGITS_MAX + 1).take_while(|byte| char::from(**byte).is_digit(radix)).count();
        let number = std::str::from_utf8(text.get(prefix..prefix + digits)?).ok()?;
        let c = char::from_u32(u32::from_str_radix(number, radix).ok()?)?;
        let end = prefix + digits;
        Some(Self::char(Kinds::REFERENCE, 2 + end + usize::from(text.get(end) == Some(&b';')), c))
    }

    fn byte(kind: Kinds, length: usize, byte: u32) -> Self {
        let byte = u8::try_from(byte).unwrap_or_default();
        Self { kind, length, given: [byte, 0, 0, 0], given_length: 1 }
    }

    fn char(kind: Kinds, length: usize, c: char) -> Self {
        let mut given = [0; 4];
        let given_length = c.encode_utf8(&mut given).len();
        Self { kind, length, given, given_length }
    }

    fn bytes(&self) -> &[u8] {
        &self.given[..self.given_length]
    }
}

/// The number that hexadecimal digits say.
fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |sum, byte| Some(sum * 16 + char::from(*byte).to_digit(16)?))
}
