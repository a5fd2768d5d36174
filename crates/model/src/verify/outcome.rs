//! What a check comes to: how a request proved itself, or why it did not.

use http::HeaderName;

/// How a request proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// `none`, `token` or `hmac`.
    pub by: &'static str,
    /// Whether it did; false only where no proof is asked for.
    pub ok: bool,
    /// The header whose value is a credential: what keeps the request keeps a marker in its place.
    pub credential_header: Option<HeaderName>,
}

/// Why a request did not prove itself, for the operator. The caller only ever sees a 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The header of the token or the signature, or one that is signed, is absent.
    #[error("the header {header} is missing; the sender does not sign, or signs under another name")]
    MissingHeader {
        /// The header.
        header: HeaderName,
    },
    /// The header holds nothing that could be a signature of the configured form.
    #[error(
        "the header {header} holds nothing that reads as {expected}; prefix, algorithm or encoding are likely others"
    )]
    Unreadable {
        /// The header.
        header: HeaderName,
        /// What was expected, in words.
        expected: String,
    },
    /// A well-formed signature that no live secret gives.
    #[error(
        "no live secret gives the signature in {header}; the secret is likely another, or the body was changed on its way"
    )]
    Mismatch {
        /// The header.
        header: HeaderName,
    },
    /// A token that is not one of the live ones.
    #[error("the header {header} does not hold a live token")]
    WrongToken {
        /// The header.
        header: HeaderName,
    },
    /// The time of signing is absent.
    #[error("the time stamp is missing: nothing at {place}")]
    MissingTimestamp {
        /// `header:Name` or `field:t`.
        place: String,
    },
    /// The time of signing is signed but cannot be read.
    #[error("the time stamp at {place} is not {unit}")]
    BadTimestamp {
        /// `header:Name` or `field:t`.
        place: String,
        /// The unit it should have, in words.
        unit: &'static str,
    },
    /// Signed by a live secret, but too long ago or too far ahead.
    #[error("{}", stale(*age_secs, *tolerance_secs))]
    Stale {
        /// Seconds since it was signed; negative when the time stamp lies ahead.
        age_secs: i64,
        /// Seconds that are allowed, in both directions.
        tolerance_secs: u64,
    },
}

fn stale(age_secs: i64, tolerance_secs: u64) -> String {
    if age_secs < 0 {
        let ahead = age_secs.unsigned_abs();
        format!("signed {ahead} s ahead of our clock, {tolerance_secs} s are allowed; one of the clocks is wrong")
    } else {
        format!("signed {age_secs} s ago, {tolerance_secs} s are allowed; a late repetition, or a wrong clock")
    }
}

impl VerifyError {
    /// Dotted slug, as refusals carry it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::MissingHeader { .. } => "verify.missing_header",
            Self::Unreadable { .. } => "verify.unreadable_signature",
            Self::Mismatch { .. } => "verify.mismatch",
            Self::WrongToken { .. } => "verify.wrong_token",
            Self::MissingTimestamp { .. } => "verify.missing_timestamp",
            Self::BadTimestamp { .. } => "verify.bad_timestamp",
            Self::Stale { .. } => "verify.stale",
        }
    }
}
