//! Signed tokens (JSON Web Tokens, RFC 7519): what documents say of them, and how they are made.
//!
//! Guarantees that a token says when it was made and when it ends, and that no claim of a document takes the place of
//! these. The time and the token's id are arguments.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Sha256, Sha384, Sha512};

use crate::fault::Fault;
use crate::key::{Curve, Digest, PrivateKey, Scheme};
use crate::limits;
use crate::secret::{SecretBytes, SecretRef};
use crate::time::Timestamp;
use crate::units::Duration;

/// How far back a token's `iat` lies: a server whose clock is a little behind ours would refuse one from the future.
const LEEWAY: std::time::Duration = std::time::Duration::from_secs(30);

/// Claims that have fields of their own, or that are set when the token is signed.
const OUR_CLAIMS: [&str; 6] = ["iss", "sub", "aud", "iat", "exp", "jti"];

/// A token that is signed here: with which key, and what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtSpec {
    /// How it is signed.
    pub algorithm: Algorithm,
    /// The key: a private key in PEM (PKCS#8, PKCS#1 or SEC1, not encrypted); of HS256 and its kin the secret itself.
    pub key: SecretRef,
    /// Which key it is, in the header `kid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Who made it, in the claim `iss`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Whom it is about, in the claim `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Whom it is for, in the claim `aud`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The time from `iat` to `exp`, from 1m to 24h. Default 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Duration>,
    /// More claims.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub claims: Map<String, Value>,
    /// More fields of its header.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub header: Map<String, Value>,
}

/// How a token is signed (RFC 7518, section 3.1, and RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// RSA, PKCS#1 v1.5, SHA-256.
    RS256,
    /// RSA, PKCS#1 v1.5, SHA-384.
    RS384,
    /// RSA, PKCS#1 v1.5, SHA-512.
    RS512,
    /// RSA, PSS, SHA-256.
    PS256,
    /// RSA, PSS, SHA-384.
    PS384,
    /// RSA, PSS, SHA-512.
    PS512,
    /// The curve P-256, SHA-256.
    ES256,
    /// The curve P-384, SHA-384.
    ES384,
    /// The curve P-521, SHA-512.
    ES512,
    /// Ed25519.
    EdDSA,
    /// A shared secret, SHA-256.
    HS256,
    /// A shared secret, SHA-384.
    HS384,
    /// A shared secret, SHA-512.
    HS512,
}

impl Algorithm {
    /// Its name in the token's header.
    const fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
        }
    }

    /// The scheme of its private key; nothing when its key is a shared secret.
    const fn scheme(self) -> Option<Scheme> {
        Some(match self {
            Self::RS256 => Scheme::RsaPkcs1(Digest::Sha256),
            Self::RS384 => Scheme::RsaPkcs1(Digest::Sha384),
            Self::RS512 => Scheme::RsaPkcs1(Digest::Sha512),
            Self::PS256 => Scheme::RsaPss(Digest::Sha256),
            Self::PS384 => Scheme::RsaPss(Digest::Sha384),
            Self::PS512 => Scheme::RsaPss(Digest::Sha512),
            Self::ES256 => Scheme::Ec(Curve::P256),
            Self::ES384 => Scheme::Ec(Curve::P384),
            Self::ES512 => Scheme::Ec(Curve::P521),
            Self::EdDSA => Scheme::Ed25519,
            Self::HS256 | Self::HS384 | Self::HS512 => return None,
        })
    }

    /// Whether its key is a secret that both sides hold.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        self.scheme().is_none()
    }

    /// What is wrong with a key for it, in words that hold nothing of the key.
    ///
    /// # Errors
    /// The key cannot be read, or is of another kind.
    pub fn check_key(self, key: &SecretBytes) -> Result<(), String> {
        let Some(scheme) = self.scheme() else {
            return if key.expose().is_empty() { Err("the key is empty".to_owned()) } else { Ok(()) };
        };
        let read = PrivateKey::read(key)?;
        if read.kind() == scheme.key_kind() {
            return Ok(());
        }
        Err(format!("{} is signed with a key of {}, and this one is {}", self.name(), scheme.key_kind(), read.kind()))
    }

    fn sign(self, key: &SecretBytes, message: &[u8]) -> Result<Vec<u8>, String> {
        if let Some(scheme) = self.scheme() {
            return PrivateKey::read(key)?.sign(scheme, message);
        }
        self.check_key(key)?;
        let secret = key.expose();
        Ok(match self {
            Self::HS384 => hmac::<Hmac<Sha384>>(secret, message),
            Self::HS512 => hmac::<Hmac<Sha512>>(secret, message),
            _ => hmac::<Hmac<Sha256>>(secret, message),
        })
    }
}

/// A token that was signed.
#[derive(Debug, Clone)]
pub struct SignedJwt {
    /// The token.
    pub token: SecretBytes,
    /// From when on another one is signed in its place: half of its time is over then.
    pub renew_at: Timestamp,
}

/// What a token says where its document does not.
#[derive(Debug, Clone, Copy, Default)]
pub struct JwtDefaults<'a> {
    /// The claim `iss`.
    pub issuer: Option<&'a str>,
    /// The claim `sub`.
    pub subject: Option<&'a str>,
    /// The claim `aud`.
    pub audience: Option<&'a str>,
}

impl JwtSpec {
    /// Everything that is wrong with it, paths relative to it.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let lifetime = self.lifetime();
        if !(limits::JWT_LIFETIME.0..=limits::JWT_LIFETIME.1).contains(&lifetime) {
            faults.push(Fault::new("lifetime", "a token lives from 1m to 24h"));
        }
        for name in self.claims.keys().filter(|name| OUR_CLAIMS.contains(&name.as_str())) {
            let field = match name.as_str() {
                "iss" => "`issuer` says this",
                "sub" => "`subject` says this",
                "aud" => "`audience` says this",
                _ => "this claim is set when the token is signed",
            };
            faults.push(Fault::new(format!("claims.{name}"), field));
        }
        for name in self.header.keys().filter(|name| matches!(name.as_str(), "alg" | "kid")) {
            let field = if name == "alg" { "`algorithm` says this" } else { "`key_id` says this" };
            faults.push(Fault::new(format!("header.{name}"), field));
        }
        faults
    }

    /// Signs a token; `id` is its `jti`, which no other one may have.
    ///
    /// # Errors
    /// The key cannot sign it; in words that hold nothing of the key.
    pub fn sign(
        &self,
        key: &SecretBytes,
        defaults: JwtDefaults<'_>,
        now: Timestamp,
        id: &str,
    ) -> Result<SignedJwt, String> {
        let lifetime = self.lifetime().max(limits::JWT_LIFETIME.0);
        let issued_at = now.before(LEEWAY);
        let mut header = Map::new();
        header.insert("typ".to_owned(), "JWT".into());
        header.extend(self.header.clone());
        header.insert("alg".to_owned(), self.algorithm.name().into());
        header.extend(self.key_id.as_ref().map(|id| ("kid".to_owned(), id.as_str().into())));

        let mut claims = self.claims.clone();
        let said = [
            ("iss", self.issuer.as_deref().or(defaults.issuer)),
            ("sub", self.subject.as_deref().or(defaults.subject)),
            ("aud", self.audience.as_deref().or(defaults.audience)),
        ];
        claims.extend(said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))));
        claims.insert("iat".to_owned(), issued_at.as_secs().into());
        claims.insert("exp".to_owned(), issued_at.after(lifetime).as_secs().into());
        claims.insert("jti".to_owned(), id.into());

        let part = |fields: Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::Object(fields).to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.algorithm.sign(key, message.as_bytes())?;
        let token = SecretBytes::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)));
        Ok(SignedJwt { token, renew_at: now.after((lifetime - LEEWAY) / 2) })
    }

    fn lifetime(&self) -> std::time::Duration {
        self.lifetime.map_or(limits::JWT_LIFETIME_DEFAULT, Duration::get)
    }
}

fn hmac<M: Mac + KeyInit>(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
    use serde_json::json;

    use super::*;

    fn spec(more: Value) -> JwtSpec {
        let mut spec = json!({"algorithm": "HS256", "key": {"secret": "k"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn sign(spec: &JwtSpec, key: &str) -> Result<String, String> {
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let defaults = JwtDefaults { issuer: Some("client"), ..JwtDefaults::default() };
        let signed = spec.sign(&SecretBytes::new(key), defaults, now, "id-1")?;
        assert!(signed.renew_at > now);
        Ok(signed.token.expose_str().unwrap().to_owned())
    }

    fn decoded(part: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn says_what_its_document_says_and_when_it_ends() {
        let spec = spec(json!({
            "key_id": "k-1", "subject": "joe", "audience": "https://a.test", "lifetime": "10m",
            "claims": {"scope": "a b", "n": 12345678901234567890_u64}, "header": {"typ": "at+jwt", "x": 1},
        }));
        assert_eq!(spec.faults(), []);
        let token = sign(&spec, "secret").unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(decoded(parts[0]), json!({"typ": "at+jwt", "x": 1, "alg": "HS256", "kid": "k-1"}));
        assert_eq!(
            decoded(parts[1]),
            json!({
                "scope": "a b", "n": 12345678901234567890_u64, "iss": "client", "sub": "joe", "aud": "https://a.test",
                "iat": 1_799_999_970, "exp": 1_800_000_570, "jti": "id-1",
            })
        );
        assert_eq!(sign(&spec, "secret").unwrap(), token);
        assert_ne!(sign(&spec, "Secret").unwrap(), token);
    }

    #[test]
    fn signs_as_the_standard_shows() {
        // RFC 7515, appendix A.1: the signature of a given text.
        let text = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = SecretBytes::new(URL_SAFE_NO_PAD.decode(key).unwrap());
        let signature = Algorithm::HS256.sign(&key, text.as_bytes()).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.encode(signature), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    }

    #[test]
    fn what_is_signed_verifies() {
        let rsa = include_str!("testdata/rsa-pkcs1.pem");
        let cases: [(&str, &str, &dyn VerificationAlgorithm); 10] = [
            ("RS256", rsa, &signature::RSA_PKCS1_2048_8192_SHA256),
            ("RS384", rsa, &signature::RSA_PKCS1_2048_8192_SHA384),
            ("RS512", rsa, &signature::RSA_PKCS1_2048_8192_SHA512),
            ("PS256", rsa, &signature::RSA_PSS_2048_8192_SHA256),
            ("PS384", rsa, &signature::RSA_PSS_2048_8192_SHA384),
            ("PS512", rsa, &signature::RSA_PSS_2048_8192_SHA512),
            ("ES256", include_str!("testdata/p256-sec1.pem"), &signature::ECDSA_P256_SHA256_FIXED),
            ("ES384", include_str!("testdata/p384-sec1.pem"), &signature::ECDSA_P384_SHA384_FIXED),
            ("ES512", include_str!("testdata/p521-pkcs8.pem"), &signature::ECDSA_P521_SHA512_FIXED),
            ("EdDSA", include_str!("testdata/ed25519-pkcs8.pem"), &signature::ED25519),
        ];
        for (name, pem, algorithm) in cases {
            let spec = spec(json!({"algorithm": name}));
            let token = sign(&spec, pem).unwrap();
            let (message, signed) = token.rsplit_once('.').unwrap();
            assert_eq!(decoded(message.split('.').next().unwrap())["alg"], name);
            let public = PrivateKey::read(&SecretBytes::new(pem)).unwrap().public_key().to_vec();
            let verified = UnparsedPublicKey::new(algorithm, public)
                .verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signed).unwrap());
            assert!(verified.is_ok(), "{name}");
        }
    }

    #[test]
    fn a_key_of_another_kind_is_named() {
        let p256 = SecretBytes::new(include_str!("testdata/p256-pkcs8.pem"));
        assert_eq!(Algorithm::ES256.check_key(&p256), Ok(()));
        assert_eq!(
            Algorithm::ES384.check_key(&p256).unwrap_err(),
            "ES384 is signed with a key of EC P-384, and this one is EC P-256"
        );
        assert!(Algorithm::RS256.check_key(&p256).unwrap_err().contains("RSA"));
        assert!(Algorithm::RS256.check_key(&SecretBytes::new("x")).unwrap_err().contains("PEM"));
        assert!(Algorithm::HS256.check_key(&SecretBytes::new("")).is_err());
        assert!(sign(&spec(json!({"algorithm": "PS256"})), p256.expose_str().unwrap()).is_err());
    }

    #[test]
    fn refuses_claims_that_are_not_the_documents() {
        for (more, path) in [
            (json!({"claims": {"exp": 1}}), "claims.exp"),
            (json!({"claims": {"iss": "a"}}), "claims.iss"),
            (json!({"header": {"alg": "none"}}), "header.alg"),
            (json!({"lifetime": "30s"}), "lifetime"),
            (json!({"lifetime": "25h"}), "lifetime"),
        ] {
            let faults = spec(more.clone()).faults();
            assert_eq!(faults.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), [path], "{more}");
        }
    }
}
