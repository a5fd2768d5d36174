//! A signature as bytes, and how it is written in a header.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use data_encoding::HEXLOWER_PERMISSIVE;

use super::document::Encoding;

/// Longest decoded signature: SHA-512.
const SIGNATURE_MAX_BYTES: usize = 64;

/// A decoded signature, on the stack.
#[derive(Clone, Copy)]
pub(super) struct Signature {
    bytes: [u8; SIGNATURE_MAX_BYTES],
    pub(super) length: usize,
}

impl Signature {
    pub(super) const EMPTY: Self = Self { bytes: [0; SIGNATURE_MAX_BYTES], length: 0 };

    /// The signature with these bytes, at most 64.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut signature = Self::EMPTY;
        signature.length = bytes.len().min(SIGNATURE_MAX_BYTES);
        signature.bytes[..signature.length].copy_from_slice(&bytes[..signature.length]);
        signature
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

const PADDING_OPTIONAL: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
pub(super) const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING_OPTIONAL);
pub(super) const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING_OPTIONAL);

impl Encoding {
    pub(super) fn decode(self, text: &str) -> Option<Signature> {
        // The decoder wants room for what the text could hold at most.
        let mut bytes = [0_u8; SIGNATURE_MAX_BYTES + 8];
        let length = match self {
            Self::HEXA_DECIMAL => {
                let length = HEXLOWER_PERMISSIVE.decode_len(text.len()).ok()?;
                HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), bytes.get_mut(..length)?).ok()?
            }
            Self::BASE64 | Self::BASE64URL if text.contains(['-', '_']) => {
                URL_SAFE.decode_slice(text, &mut bytes).ok()?
            }
            Self::BASE64 | Self::BASE64URL => STANDARD.decode_slice(text, &mut bytes).ok()?,
        };
        (length <= SIGNATURE_MAX_BYTES).then(|| Signature::of(&bytes[..length]))
    }

    pub(super) fn encode(self, signature: &[u8]) -> String {
        match self {
            Self::BASE64 => STANDARD.encode(signature),
            Self::BASE64URL => URL_SAFE.encode(signature),
            Self::HEXA_DECIMAL => hex::encode(signature),
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::BASE64 => "base64",
            Self::BASE64URL => "URL-safe base64",
            Self::HEXA_DECIMAL => "hexadecimal digits",
        }
    }
}
