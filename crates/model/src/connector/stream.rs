//! Streams: lists whose records have a key, and perhaps a cursor, so that they can be read again and again and give
//! each record once.
//!
//! A [`Reading`] drops what comes twice and knows where the next reading begins. It remembers the records that came
//! last: pages overlap where something was added meanwhile, not across a whole list.

use std::cmp::Ordering;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256};

use super::{Action, ActionSpec, Defaults, ObjectSchema, OutputSpec, pill_fault, under};
use crate::fault::Fault;
use crate::limits;
use crate::number::Decimal;
use crate::paginate::{Carrier, PageFault, PaginateSpec};
use crate::reader::Reader;
use crate::request::{RequestSpec, RequestStep};
use crate::template::{Expression, Pill, Scope};
use crate::time::Timestamp;
use crate::units::Duration;

/// A list of records that an API goes on writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamSpec {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What its records are, and what is worth knowing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it is given, as an action is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// The request for the first page; without a `connection`.
    pub request: RequestStep,
    /// Where the records stand and how the list goes on: what is not said here is the connector's `paginate`. Without
    /// any way to a next page, the first one is all there is.
    #[serde(default, skip_serializing_if = "crate::is_default")]
    pub paginate: PaginateSpec,
    /// An expression over `record` that tells records apart: `record.id`.
    pub key: String,
    /// What asks for records that are new or changed. Left out: every reading gives them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<StreamCursorSpec>,
    /// What a record holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputSpec>,
}

/// What asks for records that are new or changed since a reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamCursorSpec {
    /// An expression over `record` that says how new it is: `record.updated_at`. Times in RFC 3339, other texts by
    /// their order, or numbers.
    pub field: String,
    /// Where the request carries the value from which on records are asked for.
    pub send: Carrier,
    /// An expression over `settings` and `input` that says where the first reading begins; left out: at the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// How much earlier than the cursor a reading begins, for records that become visible late: of a time in RFC 3339,
    /// or in seconds since 1970 (milliseconds above 10^11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookback: Option<Duration>,
}

/// A stream that is ready to be read.
#[derive(Debug)]
pub struct Stream {
    /// Its request and its pages.
    pub action: Arc<Action>,
    key: Expression,
    cursor: Option<Cursor>,
}

#[derive(Debug)]
struct Cursor {
    field: Expression,
    send: Carrier,
    start: Option<Expression>,
    lookback: Option<Duration>,
}

/// From here on a number that stands for a time counts milliseconds: in seconds it would be the year 5138.
const MILLIS_FROM: u64 = 100_000_000_000;

impl Stream {
    pub(super) fn compile(name: &str, spec: &StreamSpec, defaults: &Defaults<'_>) -> Result<Self, Vec<Fault>> {
        let StreamSpec { title, description, input, request, paginate, output, .. } = spec.clone();
        let paginate = Some(paginate);
        let of_action = ActionSpec { title, description, input, request, paginate, output };
        let mut faults = Vec::new();
        let action = Action::compile_list(name, &of_action, defaults).map_err(|found| faults.extend(found));

        let of_record = |path: &str, pill: &Pill| of_roots(path, pill, &["record"]);
        let mut reader = Reader::new(&of_record);
        let key = reader.expression("key", &spec.key);
        let field = spec.cursor.as_ref().map(|cursor| reader.expression("cursor.field", &cursor.field));
        faults.extend(reader.into_faults());

        let input = ObjectSchema::new(spec.input.as_ref());
        let of_caller =
            |path: &str, pill: &Pill| pill_fault(path, pill, &[("input", &input), ("settings", defaults.settings)]);
        let mut reader = Reader::new(&of_caller);
        let start = spec.cursor.as_ref().and_then(|cursor| cursor.start.as_ref());
        let start = start.and_then(|text| reader.expression("cursor.start", text));
        faults.extend(reader.into_faults());
        let carrier = spec.cursor.as_ref().and_then(|cursor| cursor.send.fault("cursor.send"));
        faults.extend(carrier);

        match (action, key, field) {
            (Ok(action), Some(key), field) if faults.is_empty() => {
                let cursor = spec.cursor.as_ref().zip(field.flatten());
                let cursor = cursor.map(|(spec, field)| Cursor {
                    field,
                    send: spec.send.clone(),
                    start,
                    lookback: spec.lookback,
                });
                Ok(Self { action: Arc::new(action), key, cursor })
            }
            _ => Err(under(&format!("streams.{name}"), faults)),
        }
    }

    /// Whether it can be asked for what is new only.
    #[must_use]
    pub fn has_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    /// Begins a reading: puts into the first request where it begins. `since` is the cursor of the reading before;
    /// `scope` sees settings and input.
    ///
    /// # Errors
    /// The stream has no cursor, or the value cannot be one.
    pub fn begin(
        &self,
        request: &mut RequestSpec,
        scope: &Scope,
        since: Option<&Value>,
    ) -> Result<Reading<'_>, PageFault> {
        let fault = |field, reason: &str| PageFault::Expression { field, reason: reason.to_owned() };
        let Some(cursor) = &self.cursor else {
            return match since {
                None => Ok(Reading::new(self, None)),
                Some(_) => Err(fault("since", "this stream has no cursor; every reading gives all of its records")),
            };
        };
        let from = match (since, &cursor.start) {
            (Some(since), _) => Some(cursor.earlier(since)?),
            (None, Some(start)) => match start.evaluate(scope) {
                Ok(Value::Null) => None,
                Ok(value) => Some(value),
                Err(error) => return Err(fault("cursor.start", &error.to_string())),
            },
            (None, None) => None,
        };
        match from {
            Some(value @ (Value::String(_) | Value::Number(_))) => {
                cursor.send.put(request, value, "cursor.send")?;
            }
            Some(_) => return Err(fault("cursor.start", "a text or a number says where a reading begins")),
            None => {}
        }
        Ok(Reading::new(self, since.cloned()))
    }
}

fn of_roots(path: &str, pill: &Pill, roots: &[&str]) -> Option<Fault> {
    let reason = || format!("column {}: \"{pill}\" names nothing; use {}", pill.column, roots.join(", "));
    (!roots.contains(&pill.root.as_str())).then(|| Fault::new(path, reason()))
}

impl Cursor {
    /// The value from which on records are asked for.
    fn earlier(&self, since: &Value) -> Result<Value, PageFault> {
        let Some(lookback) = self.lookback.map(Duration::get) else { return Ok(since.clone()) };
        let moved = match since {
            Value::String(text) => match (text.parse::<Timestamp>(), text.parse::<Number>()) {
                (Ok(at), _) => Some(written(at.before(lookback)).into()),
                // Some APIs write seconds as a text.
                (_, Ok(number)) => earlier_number(&number, lookback).map(|number| number.to_string().into()),
                _ => None,
            },
            Value::Number(number) => earlier_number(number, lookback).map(Value::Number),
            _ => None,
        };
        moved.ok_or_else(|| PageFault::Expression {
            field: "since",
            reason: format!(
                "{since} is no time that the stream's lookback could be taken from: write RFC 3339 or seconds"
            ),
        })
    }
}

/// Seconds or milliseconds since 1970, so much earlier; with a fraction where there is one.
fn earlier_number(number: &Number, lookback: std::time::Duration) -> Option<Number> {
    let text = match number.as_str() {
        // `1.7e9`: its digits alone say nothing.
        text if text.contains(['e', 'E']) => number.as_f64().filter(|number| number.abs() < 1e15)?.to_string(),
        text => text.to_owned(),
    };
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let whole: i64 = whole.parse().ok()?;
    let unit = if whole.unsigned_abs() < MILLIS_FROM { lookback.as_secs().into() } else { lookback.as_millis() };
    let moved = whole.saturating_sub(i64::try_from(unit).unwrap_or(i64::MAX));
    match fraction {
        None => Some(moved.into()),
        Some(fraction) => format!("{moved}.{fraction}").parse().ok(),
    }
}

/// A time as most APIs take it: without a fraction where there is none.
fn written(at: Timestamp) -> String {
    let text = at.to_string();
    text.strip_suffix(".000000Z").map_or_else(|| text.clone(), |whole| format!("{whole}Z"))
}

/// One reading of a stream.
#[derive(Debug)]
pub struct Reading<'a> {
    stream: &'a Stream,
    /// Digests of the keys and cursors of the records that came last.
    known: HashSet<[u8; 16]>,
    /// The same in the order in which they came.
    order: VecDeque<[u8; 16]>,
    newest: Option<Value>,
}

impl<'a> Reading<'a> {
    fn new(stream: &'a Stream, since: Option<Value>) -> Self {
        Self { stream, known: HashSet::new(), order: VecDeque::new(), newest: since.filter(|_| stream.has_cursor()) }
    }

    /// Takes the records of a page and gives those that did not come before, in their order.
    ///
    /// # Errors
    /// A record has no key, or a cursor that cannot be compared with those before.
    pub fn take(&mut self, records: Vec<Value>) -> Result<Vec<Value>, PageFault> {
        let mut new = Vec::with_capacity(records.len());
        for record in records {
            let record = Arc::new(record);
            let (key, cursor) = self.identity(&record)?;
            self.advance(cursor.as_ref())?;
            if self.remember(&key, cursor.as_ref()) {
                new.push(Arc::unwrap_or_clone(record));
            }
        }
        Ok(new)
    }

    /// Where the next reading begins: the newest cursor so far. Nothing, where the stream has none or nothing came.
    #[must_use]
    pub fn newest(&self) -> Option<&Value> {
        self.newest.as_ref()
    }

    fn identity(&self, record: &Arc<Value>) -> Result<(Value, Option<Value>), PageFault> {
        let scope = Scope::new().with("record", Arc::clone(record));
        let evaluate = |field: &'static str, expression: &Expression| {
            expression.evaluate(&scope).map_err(|error| PageFault::Expression { field, reason: error.to_string() })
        };
        let key = evaluate("key", &self.stream.key)?;
        if key.is_null() {
            let reason = "a record has none, so it cannot be told from others".to_owned();
            return Err(PageFault::Expression { field: "key", reason });
        }
        let cursor = self.stream.cursor.as_ref().map(|cursor| evaluate("cursor.field", &cursor.field)).transpose()?;
        Ok((key, cursor.filter(|cursor| !cursor.is_null())))
    }

    fn advance(&mut self, cursor: Option<&Value>) -> Result<(), PageFault> {
        let Some(cursor) = cursor else { return Ok(()) };
        let order = match &self.newest {
            None => Some(Ordering::Greater),
            Some(newest) => compared(cursor, newest),
        };
        match order {
            Some(Ordering::Greater) => self.newest = Some(cursor.clone()),
            Some(_) => {}
            None => {
                let reason = "cursors are times, texts or numbers, all of one kind".to_owned();
                return Err(PageFault::Expression { field: "cursor.field", reason });
            }
        }
        Ok(())
    }

    /// Whether a record comes for the first time.
    fn remember(&mut self, key: &Value, cursor: Option<&Value>) -> bool {
        let mut hash = Sha256::new();
        hash.update(key.to_string());
        hash.update([0]);
        hash.update(cursor.map(Value::to_string).unwrap_or_default());
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        if !self.known.insert(digest) {
            return false;
        }
        self.order.push_back(digest);
        if self.order.len() > limits::STREAM_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// The order of two cursors: of times and numbers by their value, of other texts by their characters.
fn compared(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => match (a.parse::<Timestamp>(), b.parse::<Timestamp>()) {
            (Ok(a), Ok(b)) => Some(a.cmp(&b)),
            _ => Some(a.cmp(b)),
        },
        (Value::Number(a), Value::Number(b)) => Some(Decimal::of(a).cmp(&Decimal::of(b))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::connector::{Connector, ConnectorSpec};

    fn connector(stream: Value) -> Result<Connector, Vec<String>> {
        let spec: ConnectorSpec = serde_json::from_value(json!({
            "settings": {"type": "object", "properties": {"from": {"type": "string"}}},
            "connection": {"base_url": "https://shop.example/api"},
            "paginate": {"items": "body.orders", "link": "next"},
            "streams": {"orders": stream},
        }))
        .unwrap();
        Connector::compile(spec).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    fn orders(cursor: Value) -> Connector {
        let request = json!({"method": "GET", "path": "/orders"});
        connector(json!({"request": request, "key": "record.id", "cursor": cursor})).unwrap()
    }

    fn begun(connector: &Connector, settings: Value, since: Option<Value>) -> Result<String, String> {
        let stream = connector.stream("orders").unwrap();
        let scope = stream.action.scope(connector, &settings, serde_json::Map::new()).unwrap();
        let base = "https://shop.example/api".parse().unwrap();
        let mut request = stream.action.plan.request.render(&scope, Some(&base)).unwrap();
        stream.begin(&mut request, &scope, since.as_ref()).map_err(|fault| fault.to_string())?;
        Ok(request.url.query().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_reading_begins_where_the_last_one_ended_and_a_little_before() {
        let cursor = json!({
            "field": "record.changed", "send": {"query": "since"}, "start": "settings.from", "lookback": "10m",
        });
        let connector = orders(cursor);
        let query = |settings, since| begun(&connector, settings, since);
        assert_eq!(query(json!({}), None), Ok(String::new()));
        assert_eq!(query(json!({"from": "2024-01-01"}), None), Ok("since=2024-01-01".to_owned()));
        for (since, sent) in [
            (json!("2024-05-01T10:00:00Z"), "since=2024-05-01T09%3A50%3A00Z"),
            (json!("2024-05-01T10:00:00.5+02:00"), "since=2024-05-01T07%3A50%3A00.500000Z"),
            (json!(1_700_000_000), "since=1699999400"),
            (json!(1_700_000_000_000_i64), "since=1699999400000"),
            (json!(1_700_000_000.25), "since=1699999400.25"),
            (json!("1700000000.000100"), "since=1699999400.000100"),
            (json!(i64::MIN), "since=-9223372036854775808"),
        ] {
            assert_eq!(query(json!({"from": "2024-01-01"}), Some(since)), Ok(sent.to_owned()));
        }
        let refused = query(json!({}), Some(json!("yesterday"))).unwrap_err();
        assert!(refused.starts_with("since: \"yesterday\" is no time"), "{refused}");
    }

    #[test]
    fn numbers_are_moved_and_compared_by_all_of_their_digits() {
        let number = |text: &str| text.parse::<Number>().unwrap();
        let minute = std::time::Duration::from_secs(60);
        for (text, earlier) in [
            ("1700000000", "1699999940"),
            ("1700000000.25", "1699999940.25"),
            ("1700000000000", "1699999940000"),
            ("1700000000000.5", "1699999940000.5"),
            ("1.7e9", "1699999940"),
            ("17E8", "1699999940"),
            ("1.70000000025e9", "1699999940.25"),
        ] {
            assert_eq!(earlier_number(&number(text), minute).unwrap().to_string(), earlier, "{text}");
        }
        assert_eq!(earlier_number(&number("1e300"), minute), None);
        for (a, b) in [
            ("76159173374952512310", "76159173374952512311"),
            ("123456789012345678901234567890123456789012", "123456789012345678901234567890123456789013"),
            ("1.10000000000000000001", "1.10000000000000000002"),
            ("-2.5", "-2.25"),
            ("-1", "0.5"),
            ("9.5", "10.5"),
            ("1e2", "101"),
        ] {
            let (a, b) = (Value::Number(number(a)), Value::Number(number(b)));
            assert_eq!(
                (compared(&a, &b), compared(&b, &a)),
                (Some(Ordering::Less), Some(Ordering::Greater)),
                "{a} {b}"
            );
        }
        assert_eq!(compared(&Value::Number(number("1.10")), &Value::Number(number("1.1"))), Some(Ordering::Equal));
    }

    #[test]
    fn a_cursor_without_lookback_goes_out_as_it_came() {
        let connector = orders(json!({"field": "record.n", "send": {"query": "after"}}));
        assert_eq!(begun(&connector, json!({}), Some(json!("a b"))), Ok("after=a+b".to_owned()));
        let request = json!({"method": "GET", "path": "/orders"});
        let connector = self::connector(json!({"request": request, "key": "record.id"})).unwrap();
        let refused = begun(&connector, json!({}), Some(json!(1))).unwrap_err();
        assert!(refused.starts_with("since: this stream has no cursor"), "{refused}");
    }

    #[test]
    fn each_record_comes_once_in_each_of_its_states() {
        let connector = orders(json!({"field": "record.changed", "send": {"query": "since"}}));
        let stream = connector.stream("orders").unwrap();
        let mut reading = Reading::new(stream, Some(json!(2)));
        let taken = |reading: &mut Reading<'_>, records: Value| {
            let records = records.as_array().unwrap().clone();
            reading.take(records).map(Value::Array).map_err(|fault| fault.to_string())
        };
        let first = json!([{"id": 1, "changed": 3}, {"id": 2, "changed": 5}]);
        assert_eq!(taken(&mut reading, first.clone()), Ok(first));
        let next = taken(&mut reading, json!([{"id": 2, "changed": 5}, {"id": 1, "changed": 4}, {"id": 3}]));
        assert_eq!(next, Ok(json!([{"id": 1, "changed": 4}, {"id": 3}])));
        assert_eq!(reading.newest(), Some(&json!(5)));
        let fault = taken(&mut reading, json!([{"id": 4, "changed": "x"}])).unwrap_err();
        assert!(fault.starts_with("cursor.field: cursors are times"), "{fault}");
        let fault = taken(&mut reading, json!([{"id": null}])).unwrap_err();
        assert!(fault.starts_with("key: a record has none"), "{fault}");
    }

    #[test]
    fn cursors_have_an_order() {
        for (a, b, order) in [
            (json!("2024-01-01T00:00:00+01:00"), json!("2023-12-31T23:30:00Z"), Some(Ordering::Less)),
            (json!("b"), json!("a"), Some(Ordering::Greater)),
            (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64), Some(Ordering::Greater)),
            (json!(1.5), json!(1), Some(Ordering::Greater)),
            (json!(9_007_199_254_740_993.5), json!(9_007_199_254_740_992_i64), Some(Ordering::Greater)),
            (json!("1"), json!(1), None),
            (json!([1]), json!([1]), None),
        ] {
            assert_eq!(compared(&a, &b), order, "{a} {b}");
        }
    }

    #[test]
    fn says_everything_that_is_wrong() {
        let faults = connector(json!({
            "request": {"method": "GET", "path": "/orders", "connection": "shop"},
            "paginate": {"items": "body.("},
            "key": "item.id",
            "cursor": {"field": "record.a", "send": {"json": "a"}, "start": "record.b"},
        }))
        .unwrap_err();
        let paths: Vec<&str> = faults.iter().map(|fault| fault.split(": ").next().unwrap()).collect();
        let expected = ["paginate.items", "request.connection", "key", "cursor.start", "cursor.send.json"];
        assert_eq!(paths, expected.map(|path| format!("streams.orders.{path}")));
    }

    #[test]
    fn a_list_without_a_next_page_is_a_stream_too() {
        let spec: ConnectorSpec = serde_json::from_value(json!({
            "connection": {"base_url": "https://shop.example/api"},
            "streams": {"shops": {
                "request": {"method": "GET", "path": "/shops"}, "paginate": {"items": "body.shops"}, "key": "record.id",
            }},
        }))
        .unwrap();
        let connector = Connector::compile(spec).unwrap();
        let stream = connector.stream("shops").unwrap();
        let rule = stream.action.paginate.as_ref().unwrap();
        let mut pages = rule.pages();
        let request = RequestSpec {
            method: http::Method::GET,
            url: "https://shop.example/api/shops".parse().unwrap(),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        };
        let page = pages.turn(&request, 200, json!({}), json!({"shops": [{"id": 1}]})).unwrap();
        assert_eq!(page.items, [json!({"id": 1})]);
        assert!(matches!(page.next, Ok(crate::paginate::NextPage::End)));
    }
}
