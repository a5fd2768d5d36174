//! Cases of webhooks: a request as an API sends it, and whether an endpoint takes it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{CaseSpec, Connector, Files, Written};
use crate::endpoint::{EndpointSpec, Format};
use crate::event::{Content, HeaderText};
use crate::fault::Fault;
use crate::secret::SecretBytes;
use crate::tree;
use crate::verify::Verifier;

/// A request as an API sends it. One of `json`, `text` and `file` is the body; without them there is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceivesSpec {
    /// The query of the URL, without its question mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The headers.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub headers: IndexMap<String, String>,
    /// The body as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The body as text, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The body as a file beside the connector's, byte for byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl Connector {
    /// What an endpoint makes of the request: how it was proven and by which id it is told from others, or why it is
    /// turned away.
    pub(super) fn receive(
        &self,
        webhook: &str,
        case: &CaseSpec,
        files: &Files<'_>,
    ) -> Result<Result<Value, String>, Vec<Fault>> {
        let intake = &self.spec.webhook(webhook).map_err(|fault| vec![fault.under("webhook")])?.endpoint;
        let secrets = if case.secret.is_some() { intake.some_secrets() } else { Vec::new() };
        let own = EndpointSpec { secrets, ..EndpointSpec::default() };
        let endpoint = intake.complete(&own).map_err(under_secret)?;
        let receives = case.receives.clone().unwrap_or_default();
        let written = Written {
            headers: &receives.headers,
            json: receives.json.as_ref(),
            text: receives.text.as_deref(),
            file: receives.file.as_deref(),
        };
        let (headers, body) = written.read(files).map_err(|reason| vec![Fault::new("receives", reason)])?;
        let headers = header_map(&headers)?;
        let secret = case.secret.as_deref().map(SecretBytes::new);
        let verify = endpoint.verify.as_ref().unwrap_or(&intake.verify);
        let verifier = Verifier::compile(verify, |_| secret.clone())?;
        let now = case.at.unwrap_or_default();
        let named = headers.iter().map(|(name, value)| (name.to_string(), HeaderText::new(value.as_bytes().to_vec())));
        let content = Content::of(&named.collect());
        Ok(match verifier.verify(&headers, &body, now) {
            Err(error) => Err(error.to_string()),
            Ok(proof) => {
                let body = match (endpoint.format, content.unpacked(&body)) {
                    (Some(Format::Bytes), _) | (None, Err(_)) => Cow::Borrowed(body.as_slice()),
                    (_, Ok(unpacked)) => unpacked,
                    (_, Err(reason)) => return Ok(Err(format!("the body is {reason}"))),
                };
                if let Err((what, reason)) = tree::check(endpoint.format, content.content_type(), &body) {
                    return Ok(Err(format!("the body is not {what}: {reason}")));
                }
                let query = receives.query.as_deref().unwrap_or_default();
                let id = endpoint.dedupe.as_ref().and_then(|dedupe| dedupe.by.find(&headers, query, &body));
                let id = id.map(|id| id.to_string());
                Ok(json!({"verified": proof.by, "dedupe": id}))
            }
        })
    }
}

/// In a case there is one secret.
fn under_secret(faults: Vec<Fault>) -> Vec<Fault> {
    let rename =
        |fault: Fault| if fault.path == "secrets" { Fault { path: "secret".to_owned(), ..fault } } else { fault };
    faults.into_iter().map(rename).collect()
}

fn header_map(headers: &IndexMap<String, String>) -> Result<HeaderMap, Vec<Fault>> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let fault = || vec![Fault::new(format!("receives.headers.{name}"), "this cannot be a header")];
        let name_read = HeaderName::from_bytes(name.as_bytes()).map_err(|_| fault())?;
        map.append(name_read, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| fault())?);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_compressed_request_is_looked_at_as_an_endpoint_does() {
        let webhook = json!({"endpoint": {"format": "json", "verify": "none", "dedupe": {"by": "json:/id"}}});
        let spec = json!({"connection": {"base_url": "https://a.test"}, "webhooks": {"events": webhook}});
        let connector = Connector::compile(serde_json::from_value(spec).unwrap()).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(b"{\"id\":7}").unwrap();
        let packed = encoder.finish().unwrap();
        let run = |coding: &str| {
            let receives = json!({"headers": {"Content-Encoding": coding}, "file": "a.json"});
            let case = json!({"name": "a", "webhook": "events", "receives": receives});
            let case: CaseSpec = serde_json::from_value(case).unwrap();
            connector.receive("events", &case, &|_: &str| Ok(packed.clone())).unwrap()
        };
        assert_eq!(run("gzip").unwrap(), json!({"verified": "none", "dedupe": "7"}));
        assert!(run("compress").unwrap_err().contains("compress"));
        assert!(run("identity").unwrap_err().contains("not JSON"));
    }
}
