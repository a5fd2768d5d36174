//! How a caller proves itself: the declarative form of a document's `verify`, and the check compiled from it.
//!
//! A [`Verifier`] works on the bytes as they came over the wire, before anything parses them. Every
//! occurrence of the header and every item in it is a candidate (at most 16), every live secret is tried,
//! and the comparison is constant-time on decoded bytes; what does not decode, or has another length, is
//! skipped. Freshness is judged only after the signature, in both directions. The reasons in
//! [`VerifyError`] are for the operator: a caller sees nothing but a 401.

mod check;
mod compile;
mod document;
mod hash;
mod outcome;
mod sign;
mod signature;

pub use check::{CANDIDATES_MAX, Verifier};
pub use document::{
    Algorithm, Encoding, HmacSpec, KeyEncoding, KeySpec, TOLERANCE_DEFAULT, TOLERANCE_MAX, TimestampSpec,
    TimestampUnit, TokenSpec, Verify,
};
pub use outcome::{Proof, VerifyError};

#[cfg(test)]
mod tests;
