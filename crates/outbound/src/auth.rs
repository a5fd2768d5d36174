//! Credentials: what an account adds to a request.
//!
//! Guarantees that values go out as typed and marked sensitive, and that the masker knows each of their secrets.
//! Leaves reading accounts and secrets to the caller, and dropping credentials on redirects to `client`.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use linkspan_model::Timestamp;
use linkspan_model::account::is_access_key_id;
use linkspan_model::digest::{Challenge, Proven};
use linkspan_model::secret::{MASK, SecretBytes};
use linkspan_model::sigv4::{self, Signable, Signer};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use url::{Position, Url, form_urlencoded};

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
    pub(crate) fn expose(&self) -> &[u8] {
        match self {
            Self::Plain(text) => text.as_bytes(),
            Self::Secret(secret) => secret.expose(),
        }
    }

    pub(crate) fn secret(&self) -> Option<&SecretBytes> {
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

#[derive(Clone, Default)]
struct Prepared {
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Names of the headers whose value is hidden as a whole, however short the secret is.
    hidden: Vec<HeaderName>,
    query: Vec<QueryPair>,
    /// What signs each request.
    signer: Option<Signer>,
    /// What answers the server's challenges.
    digest: Option<Arc<DigestLogin>>,
    /// What the masker hides.
    secrets: Vec<SecretBytes>,
    masker: Masker,
}

/// A user of HTTP Digest, and the challenge that requests answer ahead of being asked.
struct DigestLogin {
    user: String,
    password: SecretBytes,
    session: Mutex<Option<DigestSession>>,
}

struct DigestSession {
    challenge: Challenge,
    cnonce: String,
    /// How often the nonce was used.
    count: u32,
}

/// An AWS key, and what is called with it.
#[derive(Debug, Clone)]
pub struct AwsKey {
    /// Which key it is.
    pub access_key_id: Part,
    /// The key.
    pub secret_access_key: SecretBytes,
    /// The token of a temporary key.
    pub session_token: Option<SecretBytes>,
    /// The region that is called.
    pub region: String,
    /// The service that is called.
    pub service: String,
}

/// A query parameter, percent-encoded.
#[derive(Clone)]
struct QueryPair {
    name: String,
    encoded: String,
    is_secret: bool,
}

/// Credentials while they are put together: their masker comes last, one for all of their secrets.
#[derive(Default)]
struct Draft {
    prepared: Prepared,
}

impl Draft {
    fn basic(&mut self, user: &Part, password: &Part) -> Result<(), AuthError> {
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
        self.prepared.secrets.extend([user, password].into_iter().filter_map(Part::secret).cloned());
        self.prepared.secrets.extend(is_secret.then_some(pair));
        self.prepared.headers.push((AUTHORIZATION, sensitive(value)));
        self.prepared.hidden.push(AUTHORIZATION);
        Ok(())
    }

    fn header(&mut self, name: HeaderName, part: &Part) -> Result<(), AuthError> {
        let value = HeaderValue::from_bytes(part.expose()).map_err(|_| AuthError::HeaderControl(name.clone()))?;
        if let Some(secret) = part.secret() {
            self.prepared.secrets.push(secret.clone());
            self.prepared.secrets.extend(without_scheme(secret));
            self.prepared.hidden.push(name.clone());
        }
        self.prepared.headers.push((name, sensitive(value)));
        Ok(())
    }

    fn query(&mut self, name: String, part: &Part) -> Result<(), AuthError> {
        if part.expose().iter().any(u8::is_ascii_control) {
            return Err(AuthError::QueryControl(name));
        }
        let encoded =
            format!("{}={}", percent_encode(name.as_bytes(), COMPONENT), percent_encode(part.expose(), COMPONENT));
        self.prepared.secrets.extend(part.secret().cloned());
        self.prepared.query.push(QueryPair { name, encoded, is_secret: part.secret().is_some() });
        Ok(())
    }

    fn finish(mut self) -> Credentials {
        self.prepared.masker = Masker::new(&self.prepared.secrets);
        Credentials(Arc::new(self.prepared))
    }
}

impl DigestLogin {
    fn session(&self) -> std::sync::MutexGuard<'_, Option<DigestSession>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer for a request to the challenge that was taken last; none before the first one.
    fn answer(&self, method: &Method, url: &Url, body: &[u8]) -> Option<HeaderValue> {
        let mut session = self.session();
        let DigestSession { challenge, cnonce, count } = session.as_mut()?;
        *count = count.checked_add(1)?;
        let target = &url[Position::BeforePath..Position::AfterQuery];
        let proven = Proven { method: method.as_str(), target, body, cnonce, count: *count };
        // Names outside ASCII go as UTF-8; a realm with characters that no header holds is not answered.
        HeaderValue::from_bytes(challenge.answer(&self.user, &self.password, proven).as_bytes()).ok()
    }
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
        Self::custom(Some((user, password)), [], [])
    }

    /// One or several headers, sent as typed.
    ///
    /// # Errors
    /// A value holds a line break or another control character.
    pub fn headers(headers: impl IntoIterator<Item = (HeaderName, Part)>) -> Result<Self, AuthError> {
        Self::custom(None, headers, [])
    }

    /// A token in `Authorization: Bearer …` (RFC 6750, section 2.1).
    ///
    /// # Errors
    /// The token is empty, or holds a character that a token cannot.
    pub fn bearer(token: &SecretBytes) -> Result<Self, AuthError> {
        // Tokens with other printable characters than those of RFC 6750 are seen, and sent as they are; a blank
        // would end the token, and is most often a pasted `Bearer `.
        if token.expose().is_empty() || !token.expose().iter().all(u8::is_ascii_graphic) {
            return Err(AuthError::Token);
        }
        let value = SecretBytes::new([b"Bearer ", token.expose()].concat());
        Self::headers([(AUTHORIZATION, Part::Secret(value))])
    }

    /// Any mix of Basic, headers and query parameters.
    ///
    /// # Errors
    /// What the parts on their own refuse.
    pub fn custom(
        basic: Option<(&Part, &Part)>,
        headers: impl IntoIterator<Item = (HeaderName, Part)>,
        query: impl IntoIterator<Item = (String, Part)>,
    ) -> Result<Self, AuthError> {
        let mut draft = Draft::default();
        if let Some((user, password)) = basic {
            draft.basic(user, password)?;
        }
        for (name, part) in headers {
            draft.header(name, &part)?;
        }
        for (name, part) in query {
            draft.query(name, &part)?;
        }
        Ok(draft.finish())
    }

    /// HTTP Digest (RFC 7616).
    ///
    /// # Errors
    /// The user holds a colon, or one of the two a control character, or the user is not UTF-8.
    pub fn digest(user: &Part, password: &Part) -> Result<Self, AuthError> {
        if user.expose().contains(&b':') {
            return Err(AuthError::Colon);
        }
        let name = std::str::from_utf8(user.expose()).map_err(|_| AuthError::BasicControl)?;
        if [user, password].iter().any(|part| part.expose().iter().any(u8::is_ascii_control)) {
            return Err(AuthError::BasicControl);
        }
        let mut draft = Draft::default();
        draft.prepared.secrets.extend([user, password].into_iter().filter_map(Part::secret).cloned());
        draft.prepared.hidden.push(AUTHORIZATION);
        draft.prepared.digest = Some(Arc::new(DigestLogin {
            user: name.to_owned(),
            password: SecretBytes::new(password.expose()),
            session: Mutex::default(),
        }));
        Ok(draft.finish())
    }

    /// Whether an answer 401 may hold what a repeated request needs.
    #[must_use]
    pub fn answers_challenges(&self) -> bool {
        self.0.digest.is_some()
    }

    /// Takes the challenge of an answer 401; whether the same request with an answer to it may succeed.
    #[must_use]
    pub fn take_challenge(&self, headers: &HeaderMap) -> bool {
        let Some(login) = &self.0.digest else { return false };
        let fields = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let Some(challenge) = Challenge::read(fields) else { return false };
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            return false;
        }
        let mut session = login.session();
        // Another request may have taken the same one already, and counts on.
        if session.as_ref().is_none_or(|session| !session.challenge.has_nonce_of(&challenge)) {
            *session = Some(DigestSession { challenge, cnonce: hex::encode(random), count: 0 });
        }
        true
    }

    /// A signature for each request (AWS Signature Version 4).
    ///
    /// # Errors
    /// The key's id cannot be one, or the session token cannot be sent.
    pub fn aws(key: AwsKey) -> Result<Self, AuthError> {
        let AwsKey { access_key_id, secret_access_key, session_token, region, service } = key;
        let id = String::from_utf8_lossy(access_key_id.expose().trim_ascii()).into_owned();
        if !is_access_key_id(&id) {
            return Err(AuthError::AccessKeyId);
        }
        let mut draft = Draft::default();
        if let Some(token) = session_token {
            draft.header(SESSION_TOKEN, &Part::Secret(token))?;
        }
        draft.prepared.secrets.push(secret_access_key.clone());
        draft.prepared.secrets.extend(access_key_id.secret().cloned());
        draft.prepared.hidden.push(AUTHORIZATION);
        draft.prepared.signer = Some(Signer { access_key_id: id, secret_access_key, region, service });
        Ok(draft.finish())
    }

    /// Puts on a request whose other headers stand what depends on them: a signature, or the answer to a challenge.
    pub(crate) fn sign(&self, method: &Method, url: &Url, headers: &mut HeaderMap, body: &[u8], at: Timestamp) {
        if let Some(value) = self.0.digest.as_ref().and_then(|login| login.answer(method, url, body)) {
            headers.insert(AUTHORIZATION, sensitive(value));
        }
        let Some(signer) = &self.0.signer else { return };
        let mut put = |name: HeaderName, value: String| {
            // Digits, letters and punctuation.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        put(DATE, sigv4::amz_date(at));
        if signer.wants_body_digest() {
            put(BODY_DIGEST, sigv4::body_digest(body));
        }
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        // What AWS asks for; everything else may be changed on the way.
        let is_signed = |name: &HeaderName| name == CONTENT_TYPE || name.as_str().starts_with("x-amz-");
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let signed = headers.iter().filter(|(name, _)| is_signed(name));
        let signed = signed.map(|(name, value)| (name.to_string(), text(value)));
        let signed: Vec<(String, String)> = [(HOST.to_string(), host)].into_iter().chain(signed).collect();
        let request = Signable {
            method: method.as_str(),
            path: url.path(),
            query: url.query().unwrap_or_default(),
            headers: &signed,
            body,
        };
        if let Ok(value) = HeaderValue::from_str(&signer.sign(request, at)) {
            headers.insert(AUTHORIZATION, sensitive(value));
        }
    }

    /// Whether these are the very same credentials, not only equal ones.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The same, with a masker that hides these secrets too.
    #[must_use]
    pub fn hiding<'a>(&self, more: impl IntoIterator<Item = &'a SecretBytes>) -> Self {
        let mut draft = Draft { prepared: Prepared::clone(&self.0) };
        draft.prepared.secrets.extend(more.into_iter().cloned());
        draft.finish()
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

    /// Appends the credentials of the query, in place of parameters of the same names.
    pub(crate) fn apply_query(&self, url: &mut Url) {
        if self.0.query.is_empty() {
            return;
        }
        let others = pairs(url).filter(|pair| self.query_pair(pair).is_none()).map(str::to_owned);
        let query: Vec<String> = others.chain(self.0.query.iter().map(|pair| pair.encoded.clone())).collect();
        url.set_query(Some(&query.join("&")));
    }

    /// The URL as it may be shown: secrets masked by value, by `masker`, and those of the query as a whole, however short.
    pub(crate) fn shown_url<'a>(&self, url: &'a Url, masker: &Masker) -> Cow<'a, str> {
        let hides = |pair: &&str| self.query_pair(pair).is_some_and(|hidden| hidden.is_secret);
        if self.0.query.is_empty() || !pairs(url).any(|pair| hides(&pair)) {
            return masker.mask_text(url.as_str());
        }
        let query: Vec<String> = pairs(url)
            .map(|pair| match pair.split_once('=') {
                Some((name, _)) if hides(&pair) => format!("{}={MASK}", masker.mask_text(name)),
                _ => masker.mask_text(pair).into_owned(),
            })
            .collect();
        let mut bare = url.clone();
        bare.set_query(None);
        Cow::Owned(format!("{}?{}", masker.mask_text(bare.as_str()), query.join("&")))
    }

    /// Which of these credentials a pair of a query has the name of.
    fn query_pair(&self, pair: &str) -> Option<&QueryPair> {
        let (name, _) = form_urlencoded::parse(pair.as_bytes()).next()?;
        self.0.query.iter().find(|own| own.name == name)
    }

    pub(crate) fn hides(&self, name: &HeaderName) -> bool {
        self.0.hidden.contains(name)
    }

    pub(crate) fn carries(&self, name: &HeaderName) -> bool {
        let signs = self.0.signer.is_some() && [AUTHORIZATION, DATE, BODY_DIGEST].contains(name);
        let answers = self.0.digest.is_some() && name == AUTHORIZATION;
        signs || answers || self.0.headers.iter().any(|(carried, _)| carried == name)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = self.0.headers.iter().map(|(name, _)| name.as_str());
        let names: Vec<_> = headers.chain(self.0.query.iter().map(|pair| pair.name.as_str())).collect();
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
    /// A line break or another control character in a query parameter.
    #[error("the account's value for query parameter {0} holds a line break or another control character")]
    QueryControl(String),
    /// What cannot be the id of an AWS key.
    #[error("the account's access_key_id is no id of an AWS key: letters, digits and underscores")]
    AccessKeyId,
    /// What cannot be a bearer token.
    #[error("the account's token is empty, or holds a blank or another character that a token cannot (RFC 6750)")]
    Token,
}

/// When a request was signed.
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
/// The digest of its body, where the service wants one.
const BODY_DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");
/// The token of a temporary key.
const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// What stays as it is in a query parameter: the unreserved characters of RFC 3986, section 2.3.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn pairs(url: &Url) -> impl Iterator<Item = &str> {
    url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty())
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

    fn with_query(pairs: &[(&str, Part)]) -> Credentials {
        let pairs = pairs.iter().map(|(name, part)| ((*name).to_owned(), part.clone()));
        Credentials::custom(None, [], pairs).unwrap()
    }

    #[test]
    fn query_is_encoded_appended_and_replaces_others() {
        let credentials = with_query(&[("api key", secret("a&b=c d/é+%")), ("v", "2".into())]);
        for (url, sent) in [
            ("https://a.test/x", "https://a.test/x?api%20key=a%26b%3Dc%20d%2F%C3%A9%2B%25&v=2"),
            ("https://a.test/?", "https://a.test/?api%20key=a%26b%3Dc%20d%2F%C3%A9%2B%25&v=2"),
            (
                "https://a.test/?q=a%2Fb&api+key=mine&api%20key=&v&vv=1",
                "https://a.test/?q=a%2Fb&vv=1&api%20key=a%26b%3Dc%20d%2F%C3%A9%2B%25&v=2",
            ),
        ] {
            let mut url: Url = url.parse().unwrap();
            credentials.apply_query(&mut url);
            assert_eq!(url.as_str(), sent);
            let once = url.clone();
            credentials.apply_query(&mut url);
            assert_eq!(url, once);
            let shown = credentials.shown_url(&url, credentials.masker());
            assert!(shown.ends_with(&format!("api%20key={MASK}&v=2")), "{shown}");
        }
    }

    #[test]
    fn short_secrets_of_the_query_are_hidden_too() {
        let url: Url = "https://a.test/12?pin=12&x=12".parse().unwrap();
        let shown = with_query(&[("pin", secret("12"))]).shown_url(&url, &Masker::default()).into_owned();
        assert_eq!(shown, format!("https://a.test/12?pin={MASK}&x=12"));
        let long: Url = "https://a.test/hunter2!?key=hunter2!&x=hunter2!".parse().unwrap();
        let credentials = with_query(&[("key", secret("hunter2!"))]);
        let shown = credentials.shown_url(&long, credentials.masker());
        assert_eq!(shown, format!("https://a.test/{MASK}?key={MASK}&x={MASK}"));
    }

    #[test]
    fn bearer_is_one_token() {
        let credentials = Credentials::bearer(&SecretBytes::new("mF_9.B5f-4.1JqM")).unwrap();
        assert_eq!(sent(&credentials)[AUTHORIZATION], "Bearer mF_9.B5f-4.1JqM");
        assert_eq!(credentials.masker().mask_text("mF_9.B5f-4.1JqM"), MASK);
        for wrong in ["", "Bearer abc", "abc\r\n", "ä"] {
            assert_eq!(Credentials::bearer(&SecretBytes::new(wrong)).unwrap_err(), AuthError::Token, "{wrong:?}");
        }
    }

    #[test]
    fn custom_sends_all_of_its_parts() {
        let key = HeaderName::from_static("x-key");
        let query = [("k".to_owned(), secret("query-secret"))];
        let credentials =
            Credentials::custom(Some((&"u".into(), &secret("pass-word"))), [(key, secret("head-secret"))], query)
                .unwrap();
        let mut url: Url = "https://a.test/".parse().unwrap();
        credentials.apply_query(&mut url);
        let headers = sent(&credentials);
        assert_eq!(headers[AUTHORIZATION], "Basic dTpwYXNzLXdvcmQ=");
        assert_eq!((headers["x-key"].as_bytes(), url.query()), (&b"head-secret"[..], Some("k=query-secret")));
        let text = credentials.masker().mask_text("pass-word head-secret query-secret").into_owned();
        assert_eq!(text, format!("{MASK} {MASK} {MASK}"));
        let error = Credentials::custom(None, [], [("k".to_owned(), secret("a\n"))]).unwrap_err();
        assert_eq!(error, AuthError::QueryControl("k".to_owned()));
    }
}
