//! HTTP Digest authentication (RFC 7616): reading a server's challenge, and answering it.
//!
//! Also answers servers that know only its older forms: RFC 2617, and RFC 2069 without `qop`.

use md5::Md5;
use sha2::{Digest as _, Sha256, Sha512_256};

use crate::secret::SecretBytes;

/// What a server asks to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    algorithm: Algorithm,
    /// The algorithm's name as the server wrote it; none where it wrote none.
    written: Option<String>,
    qop: Option<Qop>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Algorithm {
    hash: Hash,
    /// The nonces enter the first hash too: `-sess`.
    is_session: bool,
}

/// In the order in which they are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hash {
    Md5,
    Sha256,
    Sha512_256,
}

/// What else the answer protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Qop {
    /// Nothing but method and target.
    Auth,
    /// The body too.
    AuthInt,
}

/// A request as it is proved.
#[derive(Debug, Clone, Copy)]
pub struct Proven<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its target, path and query as they go over the wire.
    pub target: &'a str,
    /// Its body.
    pub body: &'a [u8],
    /// A random text of the client, made anew for each nonce.
    pub cnonce: &'a str,
    /// How often the nonce was used, this time included.
    pub count: u32,
}

impl Challenge {
    /// The best challenge of these `WWW-Authenticate` fields that can be answered: the strongest hash, else the first.
    #[must_use]
    pub fn read<'a>(fields: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut best: Option<Self> = None;
        for challenge in fields.into_iter().flat_map(schemes).filter_map(|(scheme, parameters)| {
            scheme.eq_ignore_ascii_case("digest").then(|| Self::of(&parameters)).flatten()
        }) {
            if best.as_ref().is_none_or(|best| challenge.algorithm.hash > best.algorithm.hash) {
                best = Some(challenge);
            }
        }
        best
    }

    fn of(parameters: &[(String, String)]) -> Option<Self> {
        let get = |name: &str| {
            parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
        };
        let written = get("algorithm");
        let algorithm = Algorithm::read(written.as_deref().unwrap_or("MD5"))?;
        let qop = match get("qop") {
            None => None,
            Some(offered) => {
                let offers = |word: &str| offered.split(',').any(|one| one.trim().eq_ignore_ascii_case(word));
                Some(match (offers("auth"), offers("auth-int")) {
                    (true, _) => Qop::Auth,
                    (false, true) => Qop::AuthInt,
                    (false, false) => return None,
                })
            }
        };
        Some(Self { realm: get("realm")?, nonce: get("nonce")?, opaque: get("opaque"), algorithm, written, qop })
    }

    /// Whether both are answered with the same nonce.
    #[must_use]
    pub fn has_nonce_of(&self, other: &Self) -> bool {
        self.nonce == other.nonce
    }

    /// The value of the `Authorization` header that answers it.
    #[must_use]
    pub fn answer(&self, user: &str, password: &SecretBytes, request: Proven<'_>) -> String {
        let Proven { method, target, body, cnonce, count } = request;
        let hash = |parts: &[&[u8]]| self.algorithm.hash.of(parts);
        let count = format!("{count:08x}");
        let mut first = hash(&[user.as_bytes(), self.realm.as_bytes(), password.expose()]);
        if self.algorithm.is_session {
            first = hash(&[first.as_bytes(), self.nonce.as_bytes(), cnonce.as_bytes()]);
        }
        let second = match self.qop {
            Some(Qop::AuthInt) => hash(&[method.as_bytes(), target.as_bytes(), hash(&[body]).as_bytes()]),
            Some(Qop::Auth) | None => hash(&[method.as_bytes(), target.as_bytes()]),
        };
        let nonce = self.nonce.as_bytes();
        let response = match self.qop {
            None => hash(&[first.as_bytes(), nonce, second.as_bytes()]),
            Some(qop) => hash(&[
                first.as_bytes(),
                nonce,
                count.as_bytes(),
                cnonce.as_bytes(),
                qop.word().as_bytes(),
                second.as_bytes(),
            ]),
        };
        let mut text = format!(
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\"",
            quoted(user),
            quoted(&self.realm),
            quoted(&self.nonce),
            quoted(target)
        );
        if let Some(algorithm) = &self.written {
            text += &format!(", algorithm={algorithm}");
        }
        if let Some(opaque) = &self.opaque {
            text += &format!(", opaque={}", quoted(opaque));
        }
        if let Some(qop) = self.qop {
            text += &format!(", qop={}, nc={count}, cnonce={}", qop.word(), quoted(cnonce));
        } else if self.algorithm.is_session {
            text += &format!(", cnonce={}", quoted(cnonce));
        }
        text
    }
}

impl Algorithm {
    fn read(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_uppercase();
        let (name, is_session) = match name.strip_suffix("-SESS") {
            Some(name) => (name, true),
            None => (name.as_str(), false),
        };
        let hash = match name {
            "MD5" => Hash::Md5,
            "SHA-256" => Hash::Sha256,
            "SHA-512-256" => Hash::Sha512_256,
            _ => return None,
        };
        Some(Self { hash, is_session })
    }
}

impl Hash {
    /// The hash of parts joined by colons, in hexadecimal digits.
    fn of(self, parts: &[&[u8]]) -> String {
        let text = parts.join(&b':');
        match self {
            Self::Md5 => hex::encode(Md5::digest(&text)),
            Self::Sha256 => hex::encode(Sha256::digest(&text)),
            Self::Sha512_256 => hex::encode(Sha512_256::digest(&text)),
        }
    }
}

impl Qop {
    const fn word(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The challenges of a `WWW-Authenticate` field with their parameters (RFC 9110, section 11.6.1): commas part both
/// parameters and challenges.
fn schemes(field: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for part in parts(field) {
        let part = part.trim();
        let name_end = part.find('=').unwrap_or(part.len());
        let (head, value) = (&part[..name_end], part.get(name_end + 1..));
        // `Digest realm="…"` begins a challenge; `nonce="…"` goes on with it.
        let name = match head.trim().split_once(char::is_whitespace) {
            Some((scheme, name)) => {
                found.push((scheme.to_owned(), Vec::new()));
                name.trim()
            }
            None if value.is_none() => {
                found.push((head.trim().to_owned(), Vec::new()));
                continue;
            }
            None => head.trim(),
        };
        if let (Some((_, parameters)), Some(value)) = (found.last_mut(), value) {
            parameters.push((name.to_owned(), unquoted(value.trim())));
        }
    }
    found
}

/// The text parted at the commas that stand outside of quotes.
fn parts(field: &str) -> Vec<&str> {
    let (mut found, mut start, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, c) in field.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => {
                found.push(&field[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&field[start..]);
    found
}

fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"') else { return text.to_owned() };
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answered(challenge: &str, user: &str, password: &str, request: Proven<'_>) -> String {
        Challenge::read([challenge]).unwrap().answer(user, &SecretBytes::new(password), request)
    }

    const INDEX: Proven<'static> =
        Proven { method: "GET", target: "/dir/index.html", body: b"", cnonce: "0a4f113b", count: 1 };

    #[test]
    fn answers_as_rfc_7616_does() {
        // Section 3.9.1: both challenges of one answer; the stronger one counts.
        let parameters = r#"realm="http-auth@example.org", qop="auth, auth-int", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let request = Proven { cnonce, ..INDEX };
        for (algorithm, response) in [
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ] {
            let challenge = format!("Digest {parameters}, algorithm={algorithm}");
            let answer = answered(&challenge, "Mufasa", "Circle of Life", request);
            assert!(answer.contains(&format!("response=\"{response}\"")), "{answer}");
            assert!(answer.contains(&format!("algorithm={algorithm}, opaque=\"FQhe/")), "{answer}");
            assert!(answer.contains("qop=auth, nc=00000001, cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/"), "{answer}");
        }
        let both = [format!("Digest {parameters}, algorithm=MD5"), format!("Digest {parameters}, algorithm=SHA-256")];
        let best = Challenge::read(both.iter().map(String::as_str)).unwrap();
        assert_eq!(best.algorithm.hash, Hash::Sha256);
    }

    #[test]
    fn answers_as_rfc_2617_and_rfc_2069_do() {
        let challenge = r#"Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41""#;
        let answer = answered(challenge, "Mufasa", "Circle Of Life", INDEX);
        assert!(answer.contains("response=\"6629fae49393a05397450978507c4ef1\""), "{answer}");
        assert!(!answer.contains("algorithm"), "{answer}");
        // The example of RFC 2069, section 2.4, with the answer of its erratum 749.
        let challenge = r#"Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41""#;
        let answer = answered(challenge, "Mufasa", "CircleOfLife", INDEX);
        assert!(answer.contains("response=\"1949323746fe6a43ef61f9606e7febea\""), "{answer}");
        assert!(!answer.contains("cnonce"), "{answer}");
    }

    #[test]
    fn finds_the_challenge_among_others() {
        let field = r#"Basic realm="a, Digest nonce=x", Negotiate, Digest realm="say \"hi\"", nonce="n", algorithm=MD5-sess, qop=auth"#;
        let challenge = Challenge::read([field]).unwrap();
        assert_eq!((challenge.realm.as_str(), challenge.nonce.as_str()), ("say \"hi\"", "n"));
        assert!(challenge.algorithm.is_session);
        assert!(answered(field, "a\"b", "p", INDEX).contains(r#"username="a\"b", realm="say \"hi\"""#));
        for none in [
            "Basic realm=x",
            "Digest realm=x",
            "Digest realm=a, nonce=b, algorithm=SHA3",
            "Digest realm=a, nonce=b, qop=other",
            "",
        ] {
            assert_eq!(Challenge::read([none]), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn reads_any_field(field in "[A-Za-z=\",\\\\ é]{0,80}") {
            drop(Challenge::read([field.as_str()]));
        }
    }
}
