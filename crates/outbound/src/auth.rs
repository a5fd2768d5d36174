//! Credentials: what an account adds to a request.
//!
//! Guarantees that values go out as typed and marked sensitive, and that the masker knows each of their secrets.
//! Leaves reading accounts and secrets to the caller, and dropping credentials on redirects to `client`.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use linkspan_model::secret::{MASK, SecretBytes};

use crate::mask::Masker;

/// A part of credentials: typed into the account in clear, or a secret.
#[derive(Clone)]
pub enum Part {
    /// Stands in the account's document; shown where it is sent.
    Plain(String),
    /// A secret; masked wherever its value reappears.
    Secret(SecretBytes),
}

impl Part {
    fn expose(&self) -> &[u8] {
        match self {
            Self::Plain(text) => text.as_bytes(),
            Self::Secret(secret) => secret.expose(),
        }
    }

    fn secret(&self) -> Option<&SecretBytes> {
        match self {
            Self::Plain(_) => None,
            Self::Secret(secret) => Some(secret),
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl From<SecretBytes> for Part {
    fn from(secret: SecretBytes) -> Self {
        Self::Secret(secret)
    }
}

impl From<&str> for Part {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

/// An account's credentials, ready to be sent. Building them builds their masker, so keep and clone them.
#[derive(Clone, Default)]
pub struct Credentials(Arc<Prepared>);

#[derive(Default)]
struct Prepared {
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Names of the headers whose value is hidden as a whole, however short the secret is.
    hidden: Vec<HeaderName>,
    masker: Masker,
}

impl Credentials {
    /// No credentials.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// HTTP Basic (RFC 7617). Both may be empty, and the password may hold colons.
    ///
    /// # Errors
    /// The user holds a colon, or one of the two a control character.
    pub fn basic(user: &Part, password: &Part) -> Result<Self, AuthError> {
        if user.expose().contains(&b':') {
            return Err(AuthError::Colon);
        }
        // RFC 7617 section 2: neither can hold control characters, and a line break here is a pasted one.
        if [user, password].iter().any(|part| part.expose().iter().any(u8::is_ascii_control)) {
            return Err(AuthError::BasicControl);
        }
        let pair = SecretBytes::new([user.expose(), b":", password.expose()].concat());
        let value = format!("Basic {}", STANDARD.encode(pair.expose()));
        let value = HeaderValue::from_str(&value).map_err(|_| AuthError::BasicControl)?;
        // An empty secret hides nothing; a pair of two plain parts stands in the document.
        let is_secret = [user, password].iter().any(|part| part.secret().is_some());
        let secrets = [user.secret(), password.secret(), is_secret.then_some(&pair)];
        let masker = Masker::new(secrets.into_iter().flatten());
        Ok(Self(Arc::new(Prepared {
            headers: vec![(AUTHORIZATION, sensitive(value))],
            hidden: vec![AUTHORIZATION],
            masker,
        })))
    }

    /// One or several headers, sent as typed.
    ///
    /// # Errors
    /// A value holds a line break or another control character.
    pub fn headers(headers: impl IntoIterator<Item = (HeaderName, Part)>) -> Result<Self, AuthError> {
        let mut prepared = Prepared::default();
        let mut secrets = Vec::new();
        for (name, part) in headers {
            let value = HeaderValue::from_bytes(part.expose()).map_err(|_| AuthError::HeaderControl(name.clone()))?;
            if let Some(secret) = part.secret() {
                secrets.push(secret.clone());
                secrets.extend(without_scheme(secret));
                prepared.hidden.push(name.clone());
            }
            prepared.headers.push((name, sensitive(value)));
        }
        prepared.masker = Masker::new(&secrets);
        Ok(Self(Arc::new(prepared)))
    }

    /// Masks what these credentials hold, wherever it reappears.
    #[must_use]
    pub fn masker(&self) -> &Masker {
        &self.0.masker
    }

    /// Puts the credentials on a request, in place of headers of the same names.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, _) in &self.0.headers {
            headers.remove(name);
        }
        for (name, value) in &self.0.headers {
            headers.append(name, value.clone());
        }
    }

    pub(crate) fn hides(&self, name: &HeaderName) -> bool {
        self.0.hidden.contains(name)
    }

    pub(crate) fn carries(&self, name: &HeaderName) -> bool {
        self.0.headers.iter().any(|(carried, _)| carried == name)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_tuple("Credentials").field(&names).finish()
    }
}

/// Why credentials cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// RFC 7617 leaves no way to send it.
    #[error("the account's user holds a colon, which HTTP Basic cannot send (RFC 7617)")]
    Colon,
    /// A line break or another control character in Basic credentials.
    #[error("the account's user or password holds a line break or another control character")]
    BasicControl,
    /// A line break or another control character in a header.
    #[error("the account's value for header {0} holds a line break or another control character")]
    HeaderControl(HeaderName),
}

/// The token of `Bearer TOKEN`: an upstream may echo it without its scheme.
fn without_scheme(value: &SecretBytes) -> Option<SecretBytes> {
    let bytes = value.expose();
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    bytes.get(space + 1..).map(SecretBytes::new)
}

fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Part {
        Part::Secret(SecretBytes::new(text))
    }

    fn sent(credentials: &Credentials) -> HeaderMap {
        let mut headers = HeaderMap::new();
        credentials.apply(&mut headers);
        headers
    }

    #[test]
    fn basic_is_the_base64_of_the_pair() {
        let cases = [
            ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("test", "123£", "Basic dGVzdDoxMjPCow=="),
            ("", "", "Basic Og=="),
            ("key", "", "Basic a2V5Og=="),
            ("", "a:b", "Basic OmE6Yg=="),
        ];
        for (user, password, header) in cases {
            let headers = sent(&Credentials::basic(&user.into(), &secret(password)).unwrap());
            assert_eq!(headers[AUTHORIZATION], header);
            assert!(headers[AUTHORIZATION].is_sensitive());
        }
    }

    #[test]
    fn refuses_line_breaks_and_colons() {
        assert_eq!(Credentials::basic(&"a:b".into(), &secret("")).unwrap_err(), AuthError::Colon);
        assert_eq!(Credentials::basic(&"a".into(), &secret("b\n")).unwrap_err(), AuthError::BasicControl);
        for value in ["a\r\nX-Evil: 1", "a\n", "\0"] {
            let error = Credentials::headers([(AUTHORIZATION, secret(value))]).unwrap_err();
            assert!(error.to_string().contains("authorization"), "{error}");
        }
    }

    #[test]
    fn headers_go_out_as_typed_and_replace_others() {
        let name = HeaderName::from_static("x-api-key");
        let credentials = Credentials::headers([(name.clone(), secret("k3y with spaces"))]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(name.clone(), HeaderValue::from_static("from the step"));
        credentials.apply(&mut headers);
        assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), ["k3y with spaces"]);
    }

    #[test]
    fn only_secrets_are_masked() {
        let credentials = Credentials::basic(&"admin".into(), &secret("hunter2!")).unwrap();
        assert_eq!(
            credentials.masker().mask_text("admin hunter2! YWRtaW46aHVudGVyMiE="),
            format!("admin {MASK} {MASK}")
        );
        let name = HeaderName::from_static("x-api-key");
        let credentials = Credentials::headers([(name, secret("Token abcdef"))]).unwrap();
        assert_eq!(credentials.masker().mask_text("got abcdef"), format!("got {MASK}"));
        assert_eq!(format!("{credentials:?}"), r#"Credentials(["x-api-key"])"#);
    }
}
