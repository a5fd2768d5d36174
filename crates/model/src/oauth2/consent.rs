//! A user's consent: what a browser is sent to the provider with, and what it comes back with.

use schemars::JsonSchema;
use serde::Serialize;

use super::answer::{explain, shown};
use crate::secret::SecretBytes;
use crate::time::Timestamp;

/// Where a user's browser goes to consent.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ConsentAt {
    /// The provider's page, with everything that it is asked; open it in a browser.
    pub authorize_url: String,
    /// Where the provider sends the browser back to; register it there.
    pub callback_url: String,
    /// Until when an answer is taken.
    pub expires_at: Timestamp,
}

/// What a provider sent a user's browser back with.
#[derive(Debug, Clone, Default)]
pub struct ConsentAnswer {
    /// What the browser was sent there with.
    pub state: String,
    /// What a token is obtained with.
    pub code: Option<SecretBytes>,
    /// Why there is no code.
    pub error: Option<String>,
    /// The same in the provider's words.
    pub error_description: Option<String>,
    /// Who the provider says that it is (RFC 9207).
    pub iss: Option<String>,
}

/// What a provider's answer in the browser said no with (RFC 6749, section 4.1.2.1), in words.
#[must_use]
pub fn consent_refused(error: &str, description: Option<&str>) -> String {
    let said = match description {
        Some(description) => format!("{}: {}", shown(error), shown(description)),
        None => shown(error),
    };
    let words = match error {
        "access_denied" => "the user or the provider did not consent",
        other => match explain(other) {
            Some(words) => words,
            None => return said,
        },
    };
    format!("{words} ({said})")
}

/// The PKCE challenge of a verifier: BASE64URL(SHA256(verifier)), RFC 7636, section 4.2.
#[must_use]
pub fn pkce_challenge(verifier: &str) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(verifier.as_bytes()))
}
