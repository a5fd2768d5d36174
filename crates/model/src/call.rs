//! Calls: requests through a connection, outside of recipes.

use std::time::Duration;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;
use crate::job::{AttemptRun, StepError};
use crate::name::{Name, near_match};
use crate::paginate::{Paginate, PaginateSpec};
use crate::reader::Reader;
use crate::recipe::CompiledStep;
use crate::request::RequestStep;
use crate::template::{Pill, Scope, Segment};

/// The root of the pills of a call.
const ROOT: &str = "variables";

/// Where the request stands in a call.
const REQUEST: &str = "request";

/// A request to make now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallSpec {
    /// The request, as in a recipe's step; without `connection`, which the path names. Its pills are
    /// `{{ variables.NAME }}`.
    pub request: RequestStep,
    /// What its pills name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub variables: IndexMap<String, Value>,
}

/// A list to read now, page by page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadSpec {
    /// The request for the first page, as in a call.
    pub request: RequestStep,
    /// What its pills name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub variables: IndexMap<String, Value>,
    /// How the list goes on.
    pub paginate: PaginateSpec,
}

/// A call that is ready to be made.
#[derive(Debug)]
pub struct CompiledCall {
    /// Its request.
    pub step: CompiledStep,
    /// What its pills see.
    pub scope: Scope,
}

/// What came of a call.
#[derive(Debug, Clone)]
pub struct Called {
    /// The answer's status, headers and body, or why there is none.
    pub result: Result<Value, StepError>,
    /// When to ask again, where the connection could not be asked.
    pub retry_after: Option<Duration>,
    /// The request as sent last, secrets masked.
    pub request: Option<Value>,
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
    },
    /// The list cannot be read on; the items so far stand.
    Failed(Box<Called>),
}

impl CallSpec {
    /// Reads every template of the request, which goes through `connection`, and checks every pill in it.
    ///
    /// # Errors
    /// Every fault, paths relative to the call: `request.query.q`.
    pub fn compile(&self, connection: &Name) -> Result<CompiledCall, Vec<Fault>> {
        compile(&self.request, &self.variables, connection)
    }
}

impl ReadSpec {
    /// Reads every template of the request, which goes through `connection`, and the rule for its pages.
    ///
    /// # Errors
    /// Every fault, paths relative to the reading: `paginate.cursor.next`.
    pub fn compile(&self, connection: &Name) -> Result<(CompiledCall, Paginate), Vec<Fault>> {
        let call = compile(&self.request, &self.variables, connection);
        let under = |faults: Vec<Fault>| faults.into_iter().map(|fault| fault.under("paginate"));
        match (call, self.paginate.compile()) {
            (Ok(call), Ok(rule)) => Ok((call, rule)),
            (Ok(_), Err(faults)) => Err(under(faults).collect()),
            (Err(faults), Ok(_)) => Err(faults),
            (Err(mut faults), Err(more)) => {
                faults.extend(under(more));
                Err(faults)
            }
        }
    }
}

impl Called {
    /// A call that ended before anything was sent.
    #[must_use]
    pub fn not_made(error: StepError) -> Self {
        Self { result: Err(error), retry_after: None, request: None, attempts: Vec::new() }
    }
}

fn compile(
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
    let step = CompiledStep::compile(&mut reader, REQUEST, "call", &request);
    let faults = reader.into_faults();
    let values = variables.iter().map(|(name, value)| (name.clone(), value.clone()));
    match step {
        Some(step) if faults.is_empty() => {
            Ok(CompiledCall { step, scope: Scope::new().with(ROOT, Value::Object(values.collect())) })
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

    fn faults(call: Value) -> Vec<String> {
        let call: CallSpec = serde_json::from_value(call).unwrap();
        let faults = call.compile(&"desk".parse().unwrap()).unwrap_err();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn variables_fill_the_request() {
        let call: CallSpec = serde_json::from_value(json!({
            "request": {"method": "GET", "path": "/orders/{{ variables.id }}", "query": {"q": "{{ variables.q }}"}},
            "variables": {"id": "a/b", "q": "1.50"},
        }))
        .unwrap();
        let compiled = call.compile(&"desk".parse().unwrap()).unwrap();
        let base = "https://desk.example.com/api".parse().unwrap();
        let request = compiled.step.request.render(&compiled.scope, Some(&base)).unwrap();
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
