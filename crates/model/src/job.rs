//! Jobs: runs of recipes, with the input and output of every step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::id::{EventId, JobId};
use crate::json_text::JsonText;
use crate::limits;
use crate::name::Name;
use crate::request::Timings;
use crate::time::Timestamp;

/// Where a job or a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waits for a worker.
    Queued,
    /// Waits for the time of its next attempt.
    Waiting,
    /// A worker has it.
    Running,
    /// Every step succeeded.
    Succeeded,
    /// A step failed for good.
    Failed,
    /// Ended by hand.
    Canceled,
}

impl JobStatus {
    /// Every status, in the order a job goes through them.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Waiting, Self::Running, Self::Succeeded, Self::Failed, Self::Canceled];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether nothing more will happen to the job by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

impl std::str::FromStr for JobStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| {
            format!("`{text}` is not a status; use queued, waiting, running, succeeded, failed or canceled")
        })
    }
}

/// Why a step or a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepError {
    /// Dotted slug: `template.unknown_pill`, `outbound.timeout`, `response.status`.
    pub code: String,
    /// What happened and what to do, in one sentence, without secrets.
    pub description: String,
    /// The field of the step that it is about: `path`, `headers.X-Name`, `json.title`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Whether the request may have been processed by the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome_unknown: Option<bool>,
}

/// One attempt at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptRun {
    /// Its number, from 1.
    pub number: u32,
    /// When it was begun.
    pub started_at: Timestamp,
    /// How long its stages took, as far as it came; absent when nothing was to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// The status of its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// What came of it.
    pub decision: AttemptDecision,
    /// Why it is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the next one was to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Its request, where another attempt's is shown beside the list; secrets masked, without a long body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<JsonText>,
    /// Its answer, where none is shown beside the list or another attempt's; secrets masked, without a long body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<JsonText>,
}

impl AttemptRun {
    /// Keeps what was sent and what came, in brief.
    pub fn keep(&mut self, input: Option<JsonText>, output: Option<JsonText>) {
        self.input = input.map(in_brief);
        self.output = output.map(in_brief);
    }
}

/// A request or an answer without its body where that makes it long, and without its headers where these do.
fn in_brief(record: JsonText) -> JsonText {
    let is_long = |text: &JsonText| text.as_str().len() > limits::ATTEMPT_RECORD_BYTES;
    if !is_long(&record) {
        return record;
    }
    let Value::Object(mut fields) = record.value() else { return record };
    if let Some(body) = fields.get_mut("body") {
        // An answer has its size beside its body, a request within it.
        let size = body.get_mut("size").map(Value::take);
        *body = size.map_or_else(|| json!({"cut": true}), |size| json!({"size": size, "cut": true}));
    }
    let brief = JsonText::from(Value::Object(fields.clone()));
    if !is_long(&brief) {
        return brief;
    }
    fields.remove("headers");
    JsonText::from(Value::Object(fields))
}

/// What comes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttemptDecision {
    /// It succeeded.
    Succeeded,
    /// Another one is made.
    Retry,
    /// None is made: the step has failed.
    Stop,
}

/// A step of a job, as far as it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepRun {
    /// The step's id in its recipe.
    pub id: String,
    /// Where it stands.
    pub status: JobStatus,
    /// Attempts so far.
    pub attempts: u32,
    /// The attempts one by one, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempt_log: Vec<AttemptRun>,
    /// The request exactly as sent last, secrets masked.
    pub input: Option<JsonText>,
    /// The response: `status`, `headers`, `body`, and `timings`.
    pub output: Option<JsonText>,
    /// Why it failed last, or what it waits for before an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// Whether an earlier attempt may have been sent by a worker that went away before it could record it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// When it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// One run of a recipe on one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The recipe's name.
    pub recipe: Name,
    /// The revision of the recipe that it runs.
    pub recipe_revision: u64,
    /// The event that started it.
    pub event: EventId,
    /// Where it stands.
    pub status: JobStatus,
    /// The job that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_of: Option<JobId>,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When a worker first took it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// Its steps; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<StepRun>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_kept_in_brief() {
        let brief = |value: &Value| in_brief(JsonText::of(value).unwrap()).value();
        let long = "x".repeat(limits::ATTEMPT_RECORD_BYTES);
        let short = json!({"status": 503, "headers": [["a", "b"]], "body": {"error": "busy"}, "size": 16});
        assert_eq!(brief(&short), short);
        let answer = json!({"status": 503, "headers": [["a", "b"]], "body": [long], "size": 4_100});
        let expected = json!({"status": 503, "headers": [["a", "b"]], "body": {"cut": true}, "size": 4_100});
        assert_eq!(brief(&answer), expected);
        let request = json!({"method": "PUT", "url": "u", "headers": [], "body": {"text": long, "size": 4_096}});
        let expected = json!({"method": "PUT", "url": "u", "headers": [], "body": {"size": 4_096, "cut": true}});
        assert_eq!(brief(&request), expected);
        assert_eq!(
            brief(&json!({"method": "GET", "url": "u", "headers": [["a", long]]})),
            json!({"method": "GET", "url": "u"})
        );
    }
}
