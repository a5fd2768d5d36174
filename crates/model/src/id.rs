//! Public ids that carry their place in the log.
//!
//! Events and jobs are stored by a rowid-like sequence number, because a random key was measured to cost
//! three times the CPU and bytes at a million rows. Their public id is a `UUIDv7` (RFC 9562, section 5.7)
//! whose 62 low bits hold that number, so that an id is found without an index of its own and still
//! sorts by time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;
use uuid::fmt::Simple;

use crate::time::Timestamp;

const SEQ_BITS: u32 = 62;
const SEQ_MASK: u128 = (1 << SEQ_BITS) - 1;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form {prefix}_ followed by 32 hexadecimal digits")]
pub struct BadId {
    text: String,
    prefix: &'static str,
}

fn compose(at: Timestamp, seq: u64, salt: u16) -> Uuid {
    let millis = u128::try_from(at.as_millis()).unwrap_or(0) & ((1 << 48) - 1);
    let value = (millis << 80)
        | (0x7 << 76)
        | (u128::from(salt & 0x0fff) << 64)
        | (0b10 << SEQ_BITS)
        | (u128::from(seq) & SEQ_MASK);
    Uuid::from_u128(value)
}

macro_rules! sequence_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// The id of the row `seq` (below 2^62) made at `at`; `salt` gives 12 more bits that need not repeat.
            #[must_use]
            pub fn new(at: Timestamp, seq: u64, salt: u16) -> Self {
                Self(compose(at, seq, salt))
            }

            /// The sequence number of the row that this id names.
            #[must_use]
            pub fn seq(self) -> u64 {
                u64::try_from(self.0.as_u128() & SEQ_MASK).unwrap_or(u64::MAX)
            }

            /// The 16 bytes of the id, in network order.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id with these 16 bytes.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!($prefix, "_"))?;
                f.write_str(self.0.simple().encode_lower(&mut [0; Simple::LENGTH]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { text: text.chars().take(80).collect(), prefix: $prefix };
                let hex = text.strip_prefix(concat!($prefix, "_")).ok_or_else(bad)?;
                if hex.len() != 32 {
                    return Err(bad());
                }
                Uuid::try_parse(hex).map(Self).map_err(|_| bad())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

sequence_id!(
    /// One accepted request: `evt_` and 32 hexadecimal digits.
    EventId,
    "evt"
);
sequence_id!(
    /// One run of a recipe: `job_` and 32 hexadecimal digits.
    JobId,
    "job"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_its_sequence_number_and_sorts_by_time() {
        let early = EventId::new(Timestamp::from_micros(1_000_000_000_000), 7, 0xfff);
        let late = EventId::new(Timestamp::from_micros(1_000_000_001_000), 3, 0);
        assert_eq!(early.seq(), 7);
        assert_eq!(late.seq(), 3);
        assert!(early < late);
        assert_eq!(early.to_string().parse::<EventId>().unwrap(), early);
    }

    #[test]
    fn is_a_version_7_uuid() {
        let id = JobId::new(Timestamp::from_micros(1_700_000_000_000_000), (1 << 62) - 1, 0xabc);
        let uuid = Uuid::from_bytes(*id.as_bytes());
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(id.seq(), (1 << 62) - 1);
    }

    #[test]
    fn refuses_other_texts() {
        for text in
            ["", "evt_", "evt_12", "job_0190b5a0000070008000000000000001", "evt_zz90b5a0000070008000000000000001"]
        {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }
}
