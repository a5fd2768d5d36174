//! How often a request has come through recipes, written so that nobody else can write it.
//!
//! The header [`HEADER`] holds marks, `COUNT.MAC`, where MAC is an HMAC-SHA256 under a key of the server, cut to 128
//! bits. A mark that this server did not write counts as absent: nobody can keep an event from starting jobs with a number
//! of their own, or hide behind one how far a loop has come. A sender may still leave marks out, or repeat one that it
//! was sent; both touch only what that sender sends.
//!
//! Marks of other servers cannot be checked, and are handed on as they are: a loop that goes through two servers comes
//! back to each with its own mark.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// The header that counts how often a request has come through recipes, so that a recipe that feeds its own
/// endpoint ends.
pub const HEADER: &str = "linkspan-hops";

/// Most times that an event may have come through recipes before it starts no more jobs.
pub const HOPS_MAX: u32 = 8;

/// Most marks of other servers that are handed on: as many as a loop is long.
const FOREIGN_MAX: usize = 8;

/// Most marks that are looked at: what we write has nine at most, and a head full of them would buy a millisecond of
/// hashing. Whoever puts more before ours could as well leave ours out.
const MARKS_MAX: usize = 16;

/// Bytes of a mark's MAC.
const MAC_BYTES: usize = 16;

/// The key that marks are written and checked with.
#[derive(Clone)]
pub struct HopsKey(Hmac<Sha256>);

impl std::fmt::Debug for HopsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HopsKey")
    }
}

impl HopsKey {
    /// The key that follows from a master key: it tells nothing of the master key, and no other use gives the same.
    #[must_use]
    pub fn derive(master: &[u8; 32]) -> Self {
        let key = keyed(master).chain_update(HEADER).finalize().into_bytes();
        Self(keyed(&key))
    }

    /// How often a request with this header has come through recipes of this server. Several occurrences of the header
    /// are joined by commas.
    #[must_use]
    pub fn count(&self, value: &str) -> u32 {
        marks(value).filter_map(|mark| self.read(&mark)).max().unwrap_or(0)
    }

    /// The header of a request that a recipe makes of an event with this header.
    #[must_use]
    pub fn next(&self, value: &str) -> String {
        let mut hops = 0;
        let mut foreign = String::new();
        let mut handed_on = 0;
        for mark in marks(value) {
            match self.read(&mark) {
                Some(found) => hops = hops.max(found),
                None if handed_on < FOREIGN_MAX => {
                    handed_on += 1;
                    foreign.push_str(", ");
                    foreign.push_str(mark.text);
                }
                None => {}
            }
        }
        format!("{}{foreign}", self.write(hops.saturating_add(1)))
    }

    fn write(&self, hops: u32) -> String {
        let count = hops.to_string();
        let mac = hex::encode(&self.mac(&count)[..MAC_BYTES]);
        format!("{count}.{mac}")
    }

    fn read(&self, mark: &Mark<'_>) -> Option<u32> {
        let is_ours: bool = self.mac(mark.count)[..MAC_BYTES].ct_eq(&mark.mac).into();
        is_ours.then(|| mark.count.parse().ok())?
    }

    fn mac(&self, count: &str) -> [u8; 32] {
        self.0.clone().chain_update(count).finalize().into_bytes().into()
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// A mark of any server.
struct Mark<'a> {
    text: &'a str,
    count: &'a str,
    mac: [u8; MAC_BYTES],
}

/// The marks in this header; whatever else stands there is passed over.
fn marks(value: &str) -> impl Iterator<Item = Mark<'_>> {
    let found = value.split(',').filter_map(|text| {
        let text = text.trim();
        let (count, digits) = text.split_once('.')?;
        let mut mac = [0; MAC_BYTES];
        hex::decode_to_slice(digits, &mut mac).ok()?;
        let is_count = !count.is_empty() && count.len() <= 3 && count.bytes().all(|byte| byte.is_ascii_digit());
        is_count.then_some(Mark { text, count, mac })
    });
    found.take(MARKS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> HopsKey {
        HopsKey::derive(&[byte; 32])
    }

    #[test]
    fn counts_its_own_marks() {
        let key = key(1);
        let mut value = key.next("");
        for hops in 1..=HOPS_MAX {
            assert_eq!(key.count(&value), hops);
            assert_eq!(key.count(&format!("8,, {value}")), hops, "{value}");
            value = key.next(&value);
        }
        let (one, three) = (key.write(1), key.write(3));
        assert_eq!(key.count(&format!("{one}, {three}, {one}")), 3);
        assert_eq!(key.count(&format!("{one},{three}")), 3);
    }

    #[test]
    fn takes_what_it_did_not_write_for_absent() {
        let (ours, theirs) = (key(1), key(2));
        let eight = ours.write(8);
        let mac = eight.split_once('.').unwrap().1;
        let forged = [
            "8".to_owned(),
            "9999999999".to_owned(),
            "8.".to_owned(),
            format!("8.{}", "0".repeat(32)),
            format!("9.{mac}"),
            format!("08.{mac}"),
            format!("+8.{mac}"),
            format!("8.{}", &mac[..30]),
            format!("8.{mac}00"),
            theirs.write(8),
        ];
        for value in &forged {
            assert_eq!(ours.count(value), 0, "{value}");
            assert_eq!(ours.count(&ours.next(value)), 1, "{value}");
        }
        assert_eq!(ours.count(&eight), 8);
    }

    #[test]
    fn ends_a_loop_through_two_servers() {
        let (one, other) = (key(1), key(2));
        let mut value = String::new();
        for hops in 0..HOPS_MAX {
            assert_eq!((one.count(&value), other.count(&value)), (hops, hops));
            value = other.next(&one.next(&value));
            assert!(value.len() < 80, "{value}");
        }
        assert_eq!(one.count(&value), HOPS_MAX);
    }

    #[test]
    fn hands_on_marks_and_nothing_else_and_not_without_end() {
        let many: String = (0..100).map(|byte| key(byte).write(1) + ",").collect();
        let value = key(200).next(&format!("{many} session=abc, 1.not-hexadecimal"));
        assert_eq!(value.split(", ").count(), 1 + FOREIGN_MAX);
        assert!(!value.contains("abc") && !value.contains("not"));
        assert_eq!(key(7).count(&many), 1);
        assert_eq!(key(77).count(&many), 0, "behind too many others");
    }
}
