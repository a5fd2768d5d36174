//! Calls through a connection: one request, or a list page by page.

use std::convert::Infallible;
use std::iter;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use linkspan_model::call::{CallSpec, Called, Piece, ReadSpec, Through};
use linkspan_model::job::{AttemptRun, StepError};
use linkspan_model::{JsonText, Kind, Name};
use linkspan_store::Snapshot;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Api;
use super::call::{Answer, Call};
use super::route::{Route, run};
use crate::problem::Problem;

/// What came of a call.
#[derive(Serialize, JsonSchema)]
struct CallAnswer {
    /// The body of the API's answer as data; null when it is empty.
    data: Value,
    /// How it came about.
    call: CallDetail,
}

/// How an answer, or none, came about.
#[derive(Serialize, JsonSchema)]
struct CallDetail {
    /// The status of the API's answer, when one came.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The headers of a usable answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Value>,
    /// The request as sent last, secrets masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<JsonText>,
    /// Every attempt, with its timings.
    attempts: Vec<AttemptRun>,
}

/// A line of a list. One whose last line is an item was cut off.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ListLine {
    /// The next item.
    Item(Value),
    /// The last line: the list was read.
    End(ListEnd),
    /// The last line: the list cannot be read on.
    Error(StepError),
}

/// How the reading of a list ended.
#[derive(Serialize, JsonSchema)]
struct ListEnd {
    /// How many pages were read.
    pages: u32,
    /// How many items came.
    items: u64,
    /// Whether the list was read to its end; false when the reading ended at its `max_pages`.
    complete: bool,
    /// Of a stream that was read to its end, the newest cursor: what the next reading is given as `since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<Value>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/api/v1/connections/{name}/call", "call_connection", run!(call))
            .about("connections", "Makes a request through a connection and gives the answer.")
            .path_parameter("name", "The name of the connection.")
            .takes::<CallSpec>()
            .gives::<CallAnswer>()
            .problems(&[502, 504])
            .of(Kind::Connection),
        Route::new(Method::POST, "/api/v1/connections/{name}/read", "read_connection", run!(read))
            .about("connections", "Reads a list through a connection page by page, and gives its items as they come.")
            .path_parameter("name", "The name of the connection.")
            .takes::<ReadSpec>()
            .streams::<ListLine>()
            .problems(&[502, 504])
            .of(Kind::Connection),
    ]
}

async fn call(api: Api, call: Call) -> Result<Answer, Problem> {
    let name = call.name()?;
    let snapshot = api.store.snapshot().clone();
    let made = call.typed::<CallSpec>()?.compile(through(&snapshot, &name)?).map_err(Problem::invalid)?;
    let called = match api.connections.call(name, made).await {
        Ok(called) => called,
        Err(never) => match never {},
    };
    Ok(answer(called))
}

async fn read(api: Api, call: Call) -> Result<Answer, Problem> {
    let name = call.name()?;
    let snapshot = api.store.snapshot().clone();
    let list = call.typed::<ReadSpec>()?.compile(through(&snapshot, &name)?).map_err(Problem::invalid)?;
    let mut pieces = api.connections.read(name, list);
    // Until the first page has come, a failure is an answer of its own.
    match pieces.recv().await {
        Some(Piece::Failed(called)) => Ok(answer(*called)),
        first => Ok(Answer::lines(lines(first, pieces))),
    }
}

/// The connection that is called.
fn through<'a>(snapshot: &'a Snapshot, name: &'a Name) -> Result<Through<'a>, Problem> {
    let connection =
        snapshot.connection(name).ok_or_else(|| Problem::not_found(format!("connection/{name} does not exist")))?;
    if let Some(reason) = &connection.unusable {
        let description = format!("connection/{name} cannot be used: {reason}");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "connection.not_ready", description));
    }
    let connector = connection.connector.as_ref().map(|(connector, settings)| (&**connector, &**settings));
    Ok(Through { connection: name, connector })
}

fn answer(called: Called) -> Answer {
    let Called { result, retry_after, request, attempts } = called;
    let status = attempts.last().and_then(|attempt| attempt.status);
    let mut detail = CallDetail { status, headers: None, request, attempts };
    match result {
        Ok(mut answer) => {
            detail.headers = Some(answer["headers"].take());
            Answer::json(StatusCode::OK, json!(CallAnswer { data: answer["body"].take(), call: detail }))
        }
        Err(error) => {
            let status = status_of(&error.code);
            let after = retry_after.map(|after| after.as_secs().max(1));
            Answer::json(status, json!({"error": error, "call": detail})).with_retry_after(after)
        }
    }
}

/// What a failed call is to who asked us for it: his mistake, the API's bad answer, its absence, or its silence.
fn status_of(code: &str) -> StatusCode {
    match code.split_once('.') {
        _ if code == "outbound.timeout" => StatusCode::GATEWAY_TIMEOUT,
        _ if code == "outbound.refused" => StatusCode::UNPROCESSABLE_ENTITY,
        Some(("outbound" | "response", _)) => StatusCode::BAD_GATEWAY,
        Some(("connection" | "account" | "endpoint", _)) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// From how many bytes on lines go out without waiting for further ones of their page.
const TEXT_BYTES: usize = 32 * 1024;

fn lines(first: Option<Piece>, mut pieces: mpsc::Receiver<Piece>) -> Body {
    let mut count = 0;
    let rest = stream::poll_fn(move |cx| pieces.poll_recv(cx));
    let texts = stream::iter(first).chain(rest).flat_map(move |piece| stream::iter(texts(piece, &mut count)));
    Body::from_stream(texts.map(Ok::<_, Infallible>))
}

/// The lines of a piece, written as they are taken: a page can be large; `count` is how many items there were so far.
fn texts(piece: Piece, count: &mut u64) -> impl Iterator<Item = Bytes> + use<> {
    let lines: Vec<_> = match piece {
        Piece::Items(items) => {
            *count += items.len() as u64;
            items.into_iter().map(ListLine::Item).collect()
        }
        Piece::End { pages, complete, cursor } => {
            vec![ListLine::End(ListEnd { pages, items: *count, complete, cursor })]
        }
        Piece::Failed(called) => called.result.err().map(ListLine::Error).into_iter().collect(),
    };
    let mut lines = lines.into_iter();
    iter::from_fn(move || {
        let mut text = Vec::new();
        while text.len() < TEXT_BYTES
            && let Some(line) = lines.next()
        {
            // Data of JSON: there is nothing in it that could fail to be written.
            drop(serde_json::to_writer(&mut text, &line));
            text.push(b'\n');
        }
        (!text.is_empty()).then(|| text.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_whose_it_is() {
        for (code, status) in [
            ("outbound.timeout", 504),
            ("outbound.dns", 502),
            ("outbound.refused", 422),
            ("response.status", 502),
            ("response.page", 502),
            ("connection.breaker_open", 503),
            ("account.unavailable", 503),
            ("request.url", 422),
            ("pill.missing", 422),
        ] {
            assert_eq!(status_of(code).as_u16(), status, "{code}");
        }
    }

    #[test]
    fn a_list_is_lines_and_the_last_one_says_how_it_ended() {
        let mut count = 0;
        let mut text = |piece| texts(piece, &mut count).collect::<Vec<_>>();
        assert_eq!(
            text(Piece::Items(vec![json!({"a": "x\ny"}), json!(null)])),
            ["{\"item\":{\"a\":\"x\\ny\"}}\n{\"item\":null}\n"]
        );
        let long = "x".repeat(TEXT_BYTES);
        let [first, second] = &text(Piece::Items(vec![json!(long), json!(1)]))[..] else { panic!("two texts") };
        assert!(first.ends_with(b"x\"}\n"));
        assert_eq!(second, "{\"item\":1}\n");
        let end = text(Piece::End { pages: 1, complete: true, cursor: None });
        assert_eq!(end, ["{\"end\":{\"pages\":1,\"items\":4,\"complete\":true}}\n"]);
    }
}
