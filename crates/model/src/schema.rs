//! JSON Schemas of values that are written as text.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::event::HeaderText;
use crate::id::{EventId, JobId};
use crate::name::Name;
use crate::place::Place;
use crate::time::Timestamp;
use crate::traffic::{RetryBudget, Statuses};
use crate::units::{ByteSize, Duration};

macro_rules! text_schema {
    ($name:ident, $description:literal, $pattern:literal) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "description": $description, "pattern": $pattern})
            }
        }
    };
}

text_schema!(Name, "A name among the documents of one kind.", "^[a-z0-9][a-z0-9-]{0,62}$");
text_schema!(Duration, "A duration: 250ms, 30s, 5m, 24h, 30d.", "^[0-9]+(ms|s|m|h|d)$");
text_schema!(ByteSize, "A size: 512B, 64KiB, 5MiB, 1GiB.", "^[0-9]+(B|KiB|MiB|GiB)$");
text_schema!(RetryBudget, "A share of requests: 1% to 100%; or none.", "^([0-9]{1,3}%|none)$");
text_schema!(
    Place,
    "A place in a request: header:X-Name, query:name, json:/pointer, form:field.",
    "^(header|query|json|form):.+$"
);
text_schema!(EventId, "The id of an event.", "^evt_[0-9a-f]{32}$");
text_schema!(JobId, "The id of a job.", "^job_[0-9a-f]{32}$");

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "description": "RFC 3339, in UTC."})
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A status, or a class of them.",
            "anyOf": [{"type": "integer", "minimum": 400, "maximum": 599}, {"enum": ["4xx", "5xx"]}]
        })
    }
}

impl JsonSchema for HeaderText {
    fn schema_name() -> Cow<'static, str> {
        "HeaderText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A header value, byte for byte: text, or base64 where it is not UTF-8.",
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"base64": {"type": "string"}}, "required": ["base64"]}
            ]
        })
    }
}
