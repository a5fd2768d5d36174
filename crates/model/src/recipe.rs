//! Recipes: a trigger and the steps that follow it, as documents say them and compiled to run.
//!
//! A [`Recipe`] holds every template read and every reference checked: pills name known roots and earlier
//! steps, so that what can be known before the first event is said when the document is applied.

use std::sync::Arc;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fault::Fault;
use crate::name::{Name, near_match};
use crate::reader::Reader;
use crate::request::{JsonTemplate, RenderFault, RequestPlan, RequestStep};
use crate::template::{Expression, Pill, RenderError, Scope, Segment};

/// The `spec` of a recipe document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecipeSpec {
    /// What starts the recipe.
    pub trigger: Trigger,
    /// What it does, in order.
    pub steps: Vec<Step>,
    /// Whether it runs; a stopped recipe starts no job, and events that came meanwhile can be replayed to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// What starts a recipe: one key that names the kind of trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Trigger {
    /// Every event of an endpoint, or those that a condition picks.
    Webhook(WebhookTrigger),
}

/// A trigger on an endpoint's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookTrigger {
    /// The endpoint.
    pub endpoint: Name,
    /// An expression over `trigger`; only events for which it is true start a job. A missing path is null here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// One step of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// How later steps refer to it: `[a-z][a-z0-9_]*`, unique in the recipe.
    pub id: String,
    /// Calls an API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestStep>,
    /// Calls an action of a connector, in place of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallStep>,
}

/// A step that calls an action of a connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallStep {
    /// The connection; it is one over a connector.
    pub connection: Name,
    /// The action. Of one that gives a list, a step gets the first page.
    pub action: String,
    /// What it is given, as the action's `input` says; texts may hold pills, and a text that is one whole pill keeps
    /// the value's type.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub input: IndexMap<String, Value>,
}

impl Step {
    /// The connection that it uses.
    #[must_use]
    pub fn connection(&self) -> Option<&Name> {
        let of_call = self.call.as_ref().map(|call| &call.connection);
        of_call.or_else(|| self.request.as_ref()?.connection.as_ref())
    }
}

impl RecipeSpec {
    /// Whether it runs.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// Everything that is wrong with this spec on its own, paths relative to `spec`.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        Recipe::compile(self).err().unwrap_or_default()
    }

    /// The endpoint whose events start it.
    #[must_use]
    pub fn endpoint(&self) -> &Name {
        match &self.trigger {
            Trigger::Webhook(webhook) => &webhook.endpoint,
        }
    }
}

/// A recipe that is ready to run.
#[derive(Debug)]
pub struct Recipe {
    when: Option<Expression>,
    steps: Vec<CompiledStep>,
}

/// A step that is ready to run.
#[derive(Debug)]
pub struct CompiledStep {
    /// How later steps refer to it.
    pub id: String,
    /// The connection that it uses.
    pub connection: Option<Name>,
    /// What it does.
    pub work: Work,
}

/// What a step does.
#[derive(Debug)]
pub enum Work {
    /// Makes a request.
    Request(Arc<RequestPlan>),
    /// Calls an action of the connection's connector.
    Call(CompiledInput),
}

/// An action, and what it is given.
#[derive(Debug)]
pub struct CompiledInput {
    /// The action.
    pub action: String,
    input: JsonTemplate,
}

impl CompiledInput {
    /// What the action is given.
    ///
    /// # Errors
    /// Which field gives no value.
    pub fn render(&self, scope: &Scope) -> Result<Map<String, Value>, RenderFault> {
        match self.input.render_whole("input", scope)? {
            Value::Object(input) => Ok(input),
            _ => Ok(Map::new()),
        }
    }
}

const ROOTS: [&str; 3] = ["trigger", "steps", "job"];
const TRIGGER_FIELDS: [&str; 7] = ["id", "received_at", "method", "event_name", "headers", "query", "body"];
const STEP_FIELDS: [&str; 3] = ["status", "headers", "body"];
const JOB_FIELDS: [&str; 4] = ["id", "attempt", "recipe", "test"];

impl Recipe {
    /// Reads every template of a recipe and checks every reference in it.
    ///
    /// # Errors
    /// Every fault, paths relative to `spec`: `steps[0].request.json.title`.
    pub fn compile(spec: &RecipeSpec) -> Result<Self, Vec<Fault>> {
        let Trigger::Webhook(webhook) = &spec.trigger;
        let mut reader = Reader::new(&condition_fault);
        let when = webhook.when.as_deref().and_then(|text| reader.expression("trigger.webhook.when", text));
        if spec.steps.is_empty() {
            reader.fault("steps", "a recipe has at least one step");
        }
        let mut faults = reader.into_faults();
        let mut steps = Vec::with_capacity(spec.steps.len());
        // The ids of the steps before the one that is read.
        let mut earlier: Vec<&str> = Vec::with_capacity(spec.steps.len());
        for (n, step) in spec.steps.iter().enumerate() {
            let check = |path: &str, pill: &Pill| pill_fault(path, pill, &earlier);
            let mut reader = Reader::new(&check);
            check_id(&mut reader, &format!("steps[{n}].id"), &step.id, &earlier);
            steps.extend(CompiledStep::compile(&mut reader, &format!("steps[{n}]"), step));
            faults.extend(reader.into_faults());
            earlier.push(&step.id);
        }
        if faults.is_empty() { Ok(Self { when, steps }) } else { Err(faults) }
    }

    /// Whether an event starts the recipe.
    ///
    /// # Errors
    /// Why the condition gives nothing, such as a text compared with a number.
    pub fn when(&self, scope: &Scope) -> Result<bool, RenderError> {
        self.when.as_ref().map_or(Ok(true), |when| when.holds(scope))
    }

    /// Whether it runs on some events of its endpoint only.
    #[must_use]
    pub fn has_condition(&self) -> bool {
        self.when.is_some()
    }

    /// Its steps, in order.
    #[must_use]
    pub fn steps(&self) -> &[CompiledStep] {
        &self.steps
    }
}

impl CompiledStep {
    /// Reads the templates of the step at `path`.
    fn compile(reader: &mut Reader, path: &str, step: &Step) -> Option<Self> {
        let work = match (&step.request, &step.call) {
            (Some(request), None) => {
                let plan = RequestPlan::compile(reader, &format!("{path}.request"), request)?;
                Work::Request(Arc::new(plan))
            }
            (None, Some(call)) => {
                let input =
                    Value::Object(call.input.iter().map(|(name, value)| (name.clone(), value.clone())).collect());
                let input = JsonTemplate::read(reader, &format!("{path}.call.input"), &input)?;
                Work::Call(CompiledInput { action: call.action.clone(), input })
            }
            _ => {
                reader.fault(path, "give one of request and call");
                return None;
            }
        };
        Some(Self { id: step.id.clone(), connection: step.connection().cloned(), work })
    }
}

fn check_id(reader: &mut Reader, path: &str, id: &str, earlier: &[&str]) {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if id.len() > 63 || !id.starts_with(|c: char| c.is_ascii_lowercase()) || !id.chars().all(allowed) {
        reader.fault(
            path,
            format_args!(
                "`{id}` is not a step id; use up to 63 lower-case letters, digits and `_`, beginning with a letter"
            ),
        );
    }
    if earlier.contains(&id) {
        reader.fault(path, format_args!("another step is called `{id}` already"));
    }
}

/// What is wrong with a pill of a condition.
fn condition_fault(path: &str, pill: &Pill) -> Option<Fault> {
    if pill.root == "trigger" {
        return pill_fault(path, pill, &[]);
    }
    Some(Fault::new(path, format_args!("column {}: a condition is over `trigger` only", pill.column)))
}

/// What is wrong with a pill that can name nothing: not a known root, an earlier step, a known field of either.
fn pill_fault(path: &str, pill: &Pill, earlier: &[&str]) -> Option<Fault> {
    let keys: Vec<Option<&str>> = pill
        .segments
        .iter()
        .map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) => None,
        })
        .collect();
    let step_before = |id: &str| earlier.contains(&id);
    // The words that may stand at the first place where the path goes astray, and the word there.
    let astray: Option<(&str, &[&str])> = match (pill.root.as_str(), keys.as_slice()) {
        ("trigger", [first, ..]) => Some((first.unwrap_or_default(), &TRIGGER_FIELDS[..])),
        ("job", [first, ..]) => Some((first.unwrap_or_default(), &JOB_FIELDS[..])),
        ("steps", [Some(id), second, ..]) if step_before(id) => Some((second.unwrap_or_default(), &STEP_FIELDS[..])),
        ("steps", [first, ..]) => Some((first.unwrap_or_default(), earlier)),
        ("trigger" | "steps" | "job", _) => None,
        (root, _) => Some((root, &ROOTS[..])),
    };
    let (word, known) = astray.filter(|(word, known)| !known.contains(word))?;
    let reason = if pill.root == "steps" && known == earlier {
        format!("column {}: pill \"{pill}\" does not name an earlier step", pill.column)
    } else {
        format!("column {}: pill \"{pill}\" names nothing; use {}", pill.column, known.join(", "))
    };
    let mut fault = Fault::new(path, reason);
    if let Some(near) = near_match(word, known.iter().copied()) {
        fault = fault.hint(format!("did you mean `{near}`?"));
    }
    Some(fault)
}

#[cfg(test)]
mod tests;
