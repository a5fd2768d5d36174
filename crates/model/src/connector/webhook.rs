//! Webhooks of a connector: what an API sends, and what an endpoint must know to take it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BAD_NAME, OutputSpec, is_action_name, under};
use crate::endpoint::{Dedupe, EndpointLimits, EndpointSpec, Format};
use crate::fault::Fault;
use crate::secret::SecretRef;
use crate::verify::Verify;

/// Requests that an API sends to an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What is sent when, and what is worth knowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where the endpoint's URL is registered, and where the secret comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The page of the API's own documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documentation: Option<String>,
    /// What an endpoint that takes it need not say.
    pub endpoint: Intake,
    /// What a body holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputSpec>,
}

/// What an endpoint that takes a webhook need not say: fields as of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Intake {
    /// What the body must parse as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// How the sender proves itself; without `secrets`, which are the endpoint's.
    pub verify: Verify,
    /// Which requests are the same event again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<Dedupe>,
    /// How large its bodies become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<EndpointLimits>,
}

impl WebhookSpec {
    /// Everything that is wrong with it.
    pub(super) fn faults(&self, name: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !is_action_name(name) {
            faults.push(Fault::new("", BAD_NAME));
        }
        if !self.endpoint.verify.secrets().is_empty() {
            let path = format!("endpoint.verify.{}.secrets", self.endpoint.verify.way());
            faults.push(Fault::new(path, "each endpoint says these for itself; leave them out"));
        } else {
            let given = EndpointSpec { secrets: self.endpoint.some_secrets(), ..EndpointSpec::default() };
            faults.extend(under("endpoint", self.endpoint.whole(&given).faults()));
        }
        faults
    }
}

impl Intake {
    /// The endpoint that `own` asks for, whole: what it does not say, the webhook does.
    ///
    /// # Errors
    /// Every fault, paths relative to the endpoint's `spec`.
    pub fn complete(&self, own: &EndpointSpec) -> Result<EndpointSpec, Vec<Fault>> {
        if own.verify.is_none() {
            let needs_secrets = self.verify != Verify::None;
            if needs_secrets && own.secrets.is_empty() {
                return Err(vec![Fault::new("secrets", "give at least one: the webhook is signed")]);
            }
            if !needs_secrets && !own.secrets.is_empty() {
                let reason = "the webhook proves nothing, so there is nothing to check with them; leave them out";
                return Err(vec![Fault::new("secrets", reason)]);
            }
        }
        let whole = self.whole(own);
        let faults = whole.faults();
        if faults.is_empty() { Ok(whole) } else { Err(faults) }
    }

    fn whole(&self, own: &EndpointSpec) -> EndpointSpec {
        let verify = own.verify.clone().unwrap_or_else(|| self.verify.clone().with_secrets(own.secrets.clone()));
        EndpointSpec {
            connector: None,
            webhook: None,
            secrets: Vec::new(),
            format: own.format.or(self.format),
            verify: Some(verify),
            dedupe: own.dedupe.clone().or_else(|| self.dedupe.clone()),
            limits: own.limits.clone().or_else(|| self.limits.clone()),
            enabled: own.enabled,
        }
    }

    /// Secrets that stand for those that an endpoint would give, where the check needs any.
    pub(super) fn some_secrets(&self) -> Vec<SecretRef> {
        match self.verify {
            Verify::None => Vec::new(),
            Verify::Token(_) | Verify::Hmac(_) => {
                "webhook".parse().map(|secret| SecretRef { secret }).into_iter().collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::connector::{Connector, ConnectorSpec};

    fn intake(verify: Value) -> Intake {
        let dedupe = json!({"by": "header:X-Id", "within": "3d"});
        serde_json::from_value(json!({"format": "json", "verify": verify, "dedupe": dedupe})).unwrap()
    }

    fn hmac() -> Value {
        json!({"hmac": {"header": "X-Signature", "encoding": "HEXA_DECIMAL"}})
    }

    fn complete(intake: &Intake, own: Value) -> Result<EndpointSpec, Vec<String>> {
        let own: EndpointSpec = serde_json::from_value(own).unwrap();
        intake.complete(&own).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_endpoint_says_only_what_is_its_own() {
        let secrets = json!([{"secret": "a"}, {"secret": "b"}]);
        let own = json!({"connector": "desk", "webhook": "events", "secrets": secrets, "limits": {"body": "1MiB"}});
        let whole = complete(&intake(hmac()), own).unwrap();
        let expected = json!({
            "format": "json",
            "verify": {"hmac": {
                "header": "X-Signature", "algorithm": "SHA_256", "encoding": "HEXA_DECIMAL", "secrets": secrets,
            }},
            "dedupe": {"by": "header:X-Id", "within": "3d"},
            "limits": {"body": "1MiB"},
        });
        assert_eq!(serde_json::to_value(whole).unwrap(), expected);
    }

    #[test]
    fn secrets_are_where_something_is_checked_with_them() {
        let own = json!({"connector": "desk", "webhook": "events"});
        let faults = complete(&intake(hmac()), own.clone()).unwrap_err();
        assert_eq!(faults, ["secrets: give at least one: the webhook is signed"]);
        assert!(complete(&intake(json!("none")), own).is_ok());
        let own = json!({"connector": "desk", "webhook": "events", "secrets": [{"secret": "a"}]});
        assert!(complete(&intake(json!("none")), own).unwrap_err()[0].starts_with("secrets: "));
        let own = json!({"connector": "desk", "webhook": "events", "verify": "none"});
        assert_eq!(complete(&intake(hmac()), own).unwrap().verify, Some(Verify::None));
    }

    #[test]
    fn says_everything_that_is_wrong() {
        let spec: ConnectorSpec = serde_json::from_value(json!({
            "connection": {"base_url": "https://desk.example"},
            "webhooks": {
                "Events": {"endpoint": {"verify": "none"}},
                "keyed": {"endpoint": {"verify": {"token": {"header": "X-Key", "secrets": [{"secret": "a"}]}}}},
                "large": {"endpoint": {"verify": "none", "limits": {"body": "1GiB"}}},
                "wrong": {"endpoint": {"verify": {"hmac": {"header": "X Sign"}}}},
            },
        }))
        .unwrap();
        let faults = Connector::compile(spec).unwrap_err();
        let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
        let expected = [
            "Events",
            "keyed.endpoint.verify.token.secrets",
            "large.endpoint.limits.body",
            "wrong.endpoint.verify.hmac.header",
        ];
        assert_eq!(paths, expected.map(|path| format!("webhooks.{path}")));
    }
}
