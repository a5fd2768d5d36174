//! AWS Signature Version 4: what proves to AWS, and to stores that speak its language, who sends a request.
//!
//! Source: "Create a signed AWS API request" of the IAM user guide. Signs by headers, never by a URL that could be
//! passed on. Secrets go in and only signatures come out.

use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use crate::secret::SecretBytes;
use crate::time::Timestamp;

/// The unreserved characters of RFC 3986, section 2.3; AWS escapes all others.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same in a path, whose slashes stay.
const ESCAPED_IN_PATH: &AsciiSet = &ESCAPED.remove(b'/');

/// Who signs, and for what.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Says which key it is; not a secret.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: SecretBytes,
    /// The region that is called: `eu-central-1`.
    pub region: String,
    /// The service that is called, as AWS abbreviates it: `s3`, `sqs`, `execute-api`.
    pub service: String,
}

/// A request as it is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signable<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, as it goes over the wire.
    pub path: &'a str,
    /// Its query, as it goes over the wire, without the question mark.
    pub query: &'a str,
    /// The headers that are signed, `host` and `x-amz-date` among them; names in any case.
    pub headers: &'a [(String, String)],
    /// Its body.
    pub body: &'a [u8],
}

/// How a path enters the signature: S3 takes it as it is, all others normalize it and escape it once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PathRule {
    normalized: bool,
    escaped_again: bool,
}

/// The time as `x-amz-date` writes it: `20150830T123600Z`.
#[must_use]
pub fn amz_date(at: Timestamp) -> String {
    at.to_string().chars().take(19).filter(|c| !matches!(c, '-' | ':')).chain(['Z']).collect()
}

/// The SHA-256 of a body in hexadecimal digits, as `x-amz-content-sha256` writes it.
#[must_use]
pub fn body_digest(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}

impl Signer {
    /// Whether the service wants the body's digest in a header of its own.
    #[must_use]
    pub fn wants_body_digest(&self) -> bool {
        self.service.starts_with("s3")
    }

    /// The value of the `Authorization` header for a request at this time.
    #[must_use]
    pub fn sign(&self, request: Signable<'_>, at: Timestamp) -> String {
        let takes_path_as_it_is = self.service.starts_with("s3");
        let rule = PathRule { normalized: !takes_path_as_it_is, escaped_again: !takes_path_as_it_is };
        let headers = canonical_headers(request.headers);
        let signature = self.signature(&canonical_request(request, &headers, rule), &amz_date(at));
        let signed = signed_headers(&headers);
        let scope = self.scope(&amz_date(at));
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
            self.access_key_id
        )
    }

    fn scope(&self, date: &str) -> String {
        format!("{}/{}/{}/aws4_request", &date[..8], self.region, self.service)
    }

    fn signature(&self, canonical: &str, date: &str) -> String {
        let digest = hex::encode(Sha256::digest(canonical.as_bytes()));
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{}\n{digest}", self.scope(date));
        let first = SecretBytes::new([b"AWS4", self.secret_access_key.expose()].concat());
        let day = mac(first.expose(), &date.as_bytes()[..8]);
        let region = mac(&day, self.region.as_bytes());
        let service = mac(&region, self.service.as_bytes());
        hex::encode(mac(&mac(&service, b"aws4_request"), to_sign.as_bytes()))
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn canonical_request(request: Signable<'_>, headers: &[(String, String)], rule: PathRule) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    [
        request.method,
        &canonical_path(request.path, rule),
        &canonical_query(request.query),
        &lines,
        &signed_headers(headers),
        &body_digest(request.body),
    ]
    .join("\n")
}

/// Names in lower case and in order; values of one name joined in their order, blanks within them made one.
fn canonical_headers(headers: &[(String, String)]) -> Vec<(String, String)> {
    let mut sorted: Vec<(String, String)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        match sorted.iter_mut().find(|(known, _)| *known == name) {
            Some((_, joined)) => {
                joined.push(',');
                joined.push_str(&value);
            }
            None => sorted.push((name, value)),
        }
    }
    sorted.sort();
    sorted
}

fn signed_headers(headers: &[(String, String)]) -> String {
    headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";")
}

fn canonical_path(path: &str, rule: PathRule) -> String {
    let path = if rule.normalized { normalized(path) } else { path.to_owned() };
    let path = if path.is_empty() { "/".to_owned() } else { path };
    if rule.escaped_again {
        return utf8_percent_encode(&path, ESCAPED_IN_PATH).to_string();
    }
    // Each segment on its own: a slash that is escaped is none.
    path.split('/').map(escaped).collect::<Vec<_>>().join("/")
}

/// The text with everything escaped that AWS escapes, whatever of it was escaped before.
fn escaped(text: &str) -> String {
    percent_encode(&percent_decode_str(text).collect::<Vec<u8>>(), ESCAPED).to_string()
}

/// Without empty, `.` and `..` segments (RFC 3986, section 6.2.2.3).
fn normalized(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let is_folder = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    let end = if is_folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

/// Parameters escaped alike and in order, each with an equals sign.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (escaped(name), escaped(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Deserialize)]
    struct Suite {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        context: Value,
        request: String,
        canonical: String,
        signature: String,
    }

    /// The target, the headers and the body of a request as the suite writes it.
    fn read(request: &str) -> (String, String, Vec<(String, String)>, String) {
        let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
        let mut lines = head.lines();
        let (method, rest) = lines.next().unwrap().split_once(' ').unwrap();
        let target = rest.rsplit_once(' ').unwrap().0;
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            match line.split_once(':') {
                Some((name, value)) if !line.starts_with(' ') => headers.push((name.to_owned(), value.to_owned())),
                _ => headers.last_mut().unwrap().1 += line,
            }
        }
        (method.to_owned(), target.to_owned(), headers, body.to_owned())
    }

    #[test]
    fn gives_the_signatures_of_the_official_suite() {
        let suite: Suite = serde_json::from_str(include_str!("sigv4/suite.json")).unwrap();
        assert_eq!(suite.cases.len(), 38);
        for Case { name, context, request, canonical, signature } in suite.cases {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let signer = Signer {
                access_key_id: text(&context["credentials"]["access_key_id"]),
                secret_access_key: SecretBytes::new(text(&context["credentials"]["secret_access_key"])),
                region: text(&context["region"]),
                service: text(&context["service"]),
            };
            let at: Timestamp = text(&context["timestamp"]).parse().unwrap();
            let date = amz_date(at);
            let (method, target, mut headers, body) = read(&request);
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-amz-date")) {
                headers.push(("X-Amz-Date".to_owned(), date.clone()));
            }
            if context["sign_body"] == true {
                headers.push(("x-amz-content-sha256".to_owned(), body_digest(body.as_bytes())));
            }
            if let (Some(token), false) =
                (context["credentials"]["token"].as_str(), context["omit_session_token"] == true)
            {
                headers.push(("X-Amz-Security-Token".to_owned(), token.to_owned()));
            }
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            // The suite signs paths as S3 does, but for the normalization.
            let rule = PathRule { normalized: context["normalize"] == true, escaped_again: false };
            let signed = Signable { method: &method, path, query, headers: &headers, body: body.as_bytes() };
            let made = canonical_request(signed, &canonical_headers(&headers), rule);
            assert_eq!(made, canonical, "{name}");
            assert_eq!(signer.signature(&made, &date), signature, "{name}");
        }
    }

    #[test]
    fn paths_are_escaped_again_but_for_s3() {
        let again = PathRule { normalized: true, escaped_again: true };
        // The two paths of the suite that stand for real services.
        for (path, canonical) in [
            ("/test/@connections/JBDvjfGEIAMCERw%3D", "/test/%40connections/JBDvjfGEIAMCERw%253D"),
            ("/functions/arn%3Aaws%3Alambda/invocations", "/functions/arn%253Aaws%253Alambda/invocations"),
        ] {
            assert_eq!(canonical_path(path, again), canonical);
        }
        let as_it_is = PathRule { normalized: false, escaped_again: false };
        assert_eq!(canonical_path("/bucket//a%20b/%2Fc", as_it_is), "/bucket//a%20b/%2Fc");
    }

    #[test]
    fn the_header_names_key_scope_and_headers() {
        let signer = Signer {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: SecretBytes::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            region: "us-east-1".to_owned(),
            service: "service".to_owned(),
        };
        let at: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
        let headers =
            [("host".to_owned(), "example.amazonaws.com".to_owned()), ("x-amz-date".to_owned(), amz_date(at))];
        let request = Signable { method: "GET", path: "/", query: "", headers: &headers, body: b"" };
        assert_eq!(
            signer.sign(request, at),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        assert!(!format!("{signer:?}").contains("wJalr"));
    }
}
