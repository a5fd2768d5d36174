//! Making requests that a check accepts: for test events and for examples.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::check::{HmacCheck, HmacShape, Part, Scheme, Stamp, StampPlace, TokenCheck, Verifier};
use super::document::TimestampUnit;
use crate::secret::SecretBytes;
use crate::time::Timestamp;

impl Verifier {
    /// Headers with which a request with this body is accepted now: for test events and for examples.
    /// `id` stands in every signed header whose value is free, such as `webhook-id`.
    #[must_use]
    pub fn sign(&self, body: &[u8], now: Timestamp, id: &str) -> Vec<(HeaderName, HeaderValue)> {
        match &self.0 {
            Scheme::None => Vec::new(),
            Scheme::Token(check) => check.sign(),
            Scheme::Hmac(check) => check.sign(body, now, id),
        }
    }
}

impl TokenCheck {
    fn sign(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut value = self.prefix.clone().unwrap_or_default().into_bytes();
        value.extend_from_slice(self.tokens.first().map(SecretBytes::expose).unwrap_or_default());
        HeaderValue::from_bytes(&value).map(|value| (self.header.clone(), value)).into_iter().collect()
    }
}

impl HmacCheck {
    fn sign(&self, body: &[u8], now: Timestamp, id: &str) -> Vec<(HeaderName, HeaderValue)> {
        let shape = &self.shape;
        let Some(keyed) = self.keyed.first() else { return Vec::new() };
        let mut headers = HeaderMap::new();
        let stamp = shape.stamp.as_ref().map(|stamp| stamp.write(now));
        if let (Some(Stamp { from: StampPlace::Header(name), .. }), Some(text)) = (&shape.stamp, &stamp)
            && let Ok(value) = HeaderValue::from_str(text)
        {
            headers.insert(name.clone(), value);
        }
        for part in &shape.message {
            if let Part::Header(name) = part
                && !headers.contains_key(name)
                && let Ok(value) = HeaderValue::from_str(id)
            {
                headers.insert(name.clone(), value);
            }
        }
        let signature = shape.mac(keyed.clone(), &headers, body, stamp.as_deref());
        let text = shape.write(signature.as_bytes(), stamp.as_deref());
        let mut signed: Vec<_> =
            HeaderValue::from_str(&text).map(|value| (shape.header.clone(), value)).into_iter().collect();
        signed.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        signed
    }
}

impl HmacShape {
    /// The signature header's value: the other way round than `offer` reads it.
    fn write(&self, signature: &[u8], stamp: Option<&str>) -> String {
        let mut value = self.prefix.clone().unwrap_or_default();
        value.push_str(&self.encoding.encode(signature));
        let (Some(pair), Some(field)) = (&self.pair, &self.field) else { return value };
        let signed = format!("{field}{pair}{value}");
        match (&self.stamp, stamp, &self.item) {
            (Some(Stamp { from: StampPlace::Field(name), .. }), Some(stamp), Some(item)) => {
                format!("{name}{pair}{stamp}{item}{signed}")
            }
            _ => signed,
        }
    }
}

impl Stamp {
    fn write(&self, now: Timestamp) -> String {
        match self.unit {
            TimestampUnit::S => now.as_secs().to_string(),
            TimestampUnit::Ms => now.as_millis().to_string(),
            TimestampUnit::Iso => now.to_string(),
        }
    }
}
