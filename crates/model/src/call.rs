//! Calls: requests through a connection, outside of recipes.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::connector::{Action, Connector, Stream};
use crate::fault::Fault;
use crate::job::{AttemptRun, StepError};
use crate::json_text::JsonText;
use crate::name::{Name, near_match};
use crate::paginate::{Paginate, PaginateSpec};
use crate::reader::Reader;
use crate::request::{RequestPlan, RequestStep};
use crate::template::{Pill, Scope, Segment};

/// The root of the pills of a call.
const ROOT: &str = "variables";

/// Where the request stands in a call.
const REQUEST: &str = "request";

/// A request to make now, or an action of the connection's connector.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallSpec {
    /// The request, as in a recipe's step; without `connection`, which the path names. Its pills are
    /// `{{ variables.NAME }}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestStep>,
    /// What its pills name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub variables: IndexMap<String, Value>,
    /// An action of the connector, in place of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// What the action is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Map<String, Value>>,
}

/// A list to read now, page by page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadSpec {
    /// The request for the first page, as in a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestStep>,
    /// What its pills name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub variables: IndexMap<String, Value>,
    /// An action of the connector that gives a list, in place of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// A stream of the connector, in place of a request: each of its records comes once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What the action or the stream is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Map<String, Value>>,
    /// Of a stream: the cursor that the reading before ended with, a text or a number; left out, where the stream
    /// begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Value>,
    /// How the list goes on; of an action or a stream, in place of what the connector says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paginate: Option<PaginateSpec>,
}

/// What a call goes through.
#[derive(Debug, Clone, Copy)]
pub struct Through<'a> {
    /// The connection.
    pub connection: &'a Name,
    /// Its connector and its settings there, when it has one.
    pub connector: Option<(&'a Connector, &'a Value)>,
}

/// A call that is ready to be made.
#[derive(Debug)]
pub struct CompiledCall {
    /// Its request.
    pub plan: Arc<RequestPlan>,
    /// What its pills see.
    pub scope: Scope,
    /// Of an action that gives a list, how that begins: what its first page is asked for with.
    pub list: Option<Arc<Paginate>>,
}

/// A list that is ready to be read.
#[derive(Debug)]
pub struct CompiledRead {
    /// The request for its first page.
    pub call: CompiledCall,
    /// How it goes on.
    pub rule: Arc<Paginate>,
    /// The stream that it is, when it is one.
    pub stream: Option<Arc<Stream>>,
    /// The cursor that the stream's reading before ended with.
    pub since: Option<Value>,
}

/// What came of a call.
#[derive(Debug, Clone)]
pub struct Called {
    /// The answer's status, headers and body, or why there is none.
    pub result: Result<Value, StepError>,
    /// When to ask again, where the connection could not be asked.
    pub retry_after: Option<Duration>,
    /// The request as sent last, secrets masked.
    pub request: Option<JsonText>,
    /// Every attempt.
    pub attempts: Vec<AttemptRun>,
}

/// A piece of a list that is read.
#[derive(Debug, Clone)]
pub enum Piece {
    /// The items of a page.
    Items(Vec<Value>),
    /// The list was read.
    End {
        /// How many pages it had.
        pages: u32,
        /// Whether it was read to its end; false when the reading ended at its `max_pages`.
        complete: bool,
        /// Of a stream that was read to its end, the newest cursor: where the next reading begins.
        cursor: Option<Value>,
    },
    /// The list cannot be read on; the items so far stand.
    Failed(Box<Called>),
}

impl CallSpec {
    /// Reads every template of the request and checks every pill in it; of an action, checks what it is given.
    ///
    /// # Errors
    /// Every fault, paths relative to the call: `request.query.q`.
    pub fn compile(&self, through: Through<'_>) -> Result<CompiledCall, Vec<Fault>> {
        match (&self.request, &self.action) {
            (Some(request), None) => of_request(request, &self.variables, through.connection),
            (None, Some(action)) => Ok(of_action(action, self.input.as_ref(), through)?.0),
            _ => Err(vec![Fault::new("", "give one of request and action")]),
        }
    }
}

impl ReadSpec {
    /// Reads every template of the request, or finds the action or the stream, and the rule for its pages.
    ///
    /// # Errors
    /// Every fault, paths relative to the reading: `paginate.cursor.next`.
    pub fn compile(&self, through: Through<'_>) -> Result<CompiledRead, Vec<Fault>> {
        let mut faults = Vec::new();
        let own = self.paginate.as_ref().map(PaginateSpec::compile).transpose();
        let own = own.unwrap_or_else(|found| {
            faults.extend(found.into_iter().map(|fault| fault.under("paginate")));
            None
        });
        if self.since.is_some() && self.stream.is_none() {
            faults.push(Fault::new("since", "only a stream can be read from a cursor on"));
        } else if self.since.as_ref().is_some_and(|since| !since.is_string() && !since.is_number()) {
            faults.push(Fault::new("since", "a cursor is a text or a number"));
        }
        let input = self.input.as_ref();
        let called = match (&self.request, &self.action, &self.stream) {
            (Some(request), None, None) => {
                of_request(request, &self.variables, through.connection).map(|call| (call, None, None))
            }
            (None, Some(name), None) => {
                of_action(name, input, through).map(|(call, action)| (call, action.paginate.clone(), None))
            }
            (None, None, Some(name)) => of_stream(name, input, through)
                .map(|(call, stream)| (call, stream.action.paginate.clone(), Some(Arc::clone(stream)))),
            _ => Err(vec![Fault::new("", "give one of request, action and stream")]),
        };
        let (call, rule, stream) = match called {
            Ok(called) => called,
            Err(found) => {
                faults.splice(0..0, found);
                return Err(faults);
            }
        };
        match own.map(Arc::new).or(rule) {
            Some(rule) if faults.is_empty() => Ok(CompiledRead { call, rule, stream, since: self.since.clone() }),
            None if faults.is_empty() => Err(vec![Fault::new("paginate", "say how the list goes on")]),
            _ => Err(faults),
        }
    }
}

/// An action of the connector that a call goes through, and the call.
fn of_action<'a>(
    name: &str,
    input: Option<&Map<String, Value>>,
    through: Through<'a>,
) -> Result<(CompiledCall, &'a Action), Vec<Fault>> {
    let (connector, settings) = through.connector("action")?;
    let action = connector.action(name).map_err(|fault| vec![fault.under("action")])?;
    Ok((of_plan(action, input, connector, settings)?, action))
}

/// A stream of the connector that a call goes through, and the call for its first page.
fn of_stream<'a>(
    name: &str,
    input: Option<&Map<String, Value>>,
    through: Through<'a>,
) -> Result<(CompiledCall, &'a Arc<Stream>), Vec<Fault>> {
    let (connector, settings) = through.connector("stream")?;
    let stream = connector.stream(name).map_err(|fault| vec![fault.under("stream")])?;
    Ok((of_plan(&stream.action, input, connector, settings)?, stream))
}

fn of_plan(
    action: &Action,
    input: Option<&Map<String, Value>>,
    connector: &Connector,
    settings: &Value,
) -> Result<CompiledCall, Vec<Fault>> {
    let scope = action.checked_scope(connector, settings, input.cloned().unwrap_or_default())?;
    Ok(CompiledCall { plan: Arc::clone(&action.plan), scope, list: action.paginate.clone() })
}

impl<'a> Through<'a> {
    /// The connector and the settings, for the field that asks for them.
    fn connector(self, field: &str) -> Result<(&'a Connector, &'a Value), Vec<Fault>> {
        self.connector.ok_or_else(|| {
            let reason = format!("connection `{}` has no connector, and so no {field}s", self.connection);
            vec![Fault::new(field, reason)]
        })
    }
}

impl Called {
    /// A call that ended before anything was sent.
    #[must_use]
    pub fn not_made(error: StepError) -> Self {
        Self { result: Err(error), retry_after: None, request: None, attempts: Vec::new() }
    }
}

fn of_request(
    request: &RequestStep,
    variables: &IndexMap<String, Value>,
    connection: &Name,
) -> Result<CompiledCall, Vec<Fault>> {
    let check = |path: &str, pill: &Pill| check_pill(path, pill, variables);
    let mut reader = Reader::new(&check);
    if request.connection.as_ref().is_some_and(|named| named != connection) {
        reader.fault(
            &format!("{REQUEST}.connection"),
            format_args!("the call goes through `{connection}`; leave it out"),
        );
    }
    let request = RequestStep { connection: Some(connection.clone()), ..request.clone() };
    let plan = RequestPlan::compile(&mut reader, REQUEST, &request);
    let faults = reader.into_faults();
    let values = variables.iter().map(|(name, value)| (name.clone(), value.clone()));
    match plan {
        Some(plan) if faults.is_empty() => {
            let scope = Scope::new().with(ROOT, Value::Object(values.collect()));
            Ok(CompiledCall { plan: Arc::new(plan), scope, list: None })
        }
        _ => Err(faults),
    }
}

fn check_pill(path: &str, pill: &Pill, variables: &IndexMap<String, Value>) -> Option<Fault> {
    if pill.root != ROOT {
        let reason = format!("a call knows no `{}`; its pills are {{{{ {ROOT}.NAME }}}}", pill.root);
        return Some(Fault::new(path, reason));
    }
    let Some(Segment::Key(name)) = pill.segments.first() else { return None };
    if pill.lenient || variables.contains_key(name) {
        return None;
    }
    let fault = Fault::new(path, format!("variable `{name}` is not given"));
    Some(match near_match(name, variables.keys().map(String::as_str)) {
        Some(near) => fault.hint(format!("did you mean `{near}`?")),
        None => fault,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn through(connection: &Name) -> Through<'_> {
        Through { connection, connector: None }
    }

    fn faults(call: Value) -> Vec<String> {
        let call: CallSpec = serde_json::from_value(call).unwrap();
        let faults = call.compile(through(&"desk".parse().unwrap())).unwrap_err();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn variables_fill_the_request() {
        let call: CallSpec = serde_json::from_value(json!({
            "request": {"method": "GET", "path": "/orders/{{ variables.id }}", "query": {"q": "{{ variables.q }}"}},
            "variables": {"id": "a/b", "q": "1.50"},
        }))
        .unwrap();
        let compiled = call.compile(through(&"desk".parse().unwrap())).unwrap();
        let base = "https://desk.example.com/api".parse().unwrap();
        let request = compiled.plan.request.render(&compiled.scope, Some(&base)).unwrap();
        assert_eq!(request.url.as_str(), "https://desk.example.com/api/orders/a%2Fb?q=1.50");
    }

    #[test]
    fn a_missing_variable_is_named_before_anything_is_sent() {
        let call = json!({
            "request": {"method": "GET", "path": "/{{ variables.idd }}/{{ trigger.body }}"},
            "variables": {"id": 1},
        });
        assert_eq!(
            faults(call),
            [
                "request.path: variable `idd` is not given (did you mean `id`?)",
                "request.path: a call knows no `trigger`; its pills are {{ variables.NAME }}",
            ]
        );
        let other = json!({"request": {"connection": "other", "method": "GET", "path": "/"}});
        assert_eq!(faults(other), ["request.connection: the call goes through `desk`; leave it out"]);
    }
}
