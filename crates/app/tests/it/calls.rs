//! Calls through a connection: one request, and lists page by page.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Options, Reply, Response, Server, Upstream};

const SECRET: &str = "desk-key-6f1d2c";

/// A server with a connection `desk` to this upstream, with an account.
fn server(upstream: &Upstream, lines: &str) -> Server {
    let server = Server::start(&Options::egress().env("LINKSPAN_SECRET_DESK", SECRET));
    server.apply(&format!(
        "kind: secret\nname: desk-key\nspec: {{env: LINKSPAN_SECRET_DESK}}\n---\n\
         kind: account\nname: robot\nspec: {{headers: {{X-Api-Key: {{secret: desk-key}}}}}}\n---\n\
         kind: connection\nname: desk\nspec:\n  base_url: {}/api\n  account: robot\n{lines}",
        upstream.url()
    ));
    server
}

/// The detail beside the error of a failed call.
#[track_caller]
fn failed(answer: &Response, status: u16, code: &str) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["error"]["code"]), (status, &json!(code)), "{answer:?}");
    assert!(body["error"]["description"].as_str().is_some_and(|text| !text.is_empty()), "{answer:?}");
    body["call"].clone()
}

#[test]
fn a_call_gives_the_answer_as_data_with_how_it_came_about() {
    let upstream = Upstream::start(|_, seen| {
        Reply::Json(201, json!({"id": 12_345_678_901_234_567_890_u64, "echo": seen.header("x-api-key")}))
    });
    let server = server(&upstream, "");
    let call = json!({
        "request": {
            "method": "POST",
            "path": "/orders/{{ variables.id }}",
            "query": {"q": "a b&c"},
            "json": {"count": "{{ variables.count }}"},
        },
        "variables": {"id": "x/y", "count": 3},
    });
    let answer = server.api("POST", "/api/v1/connections/desk/call", Some(&call)).json();
    assert_eq!(answer["data"]["id"].to_string(), "12345678901234567890");
    // What the API gives back of the account is hidden here as everywhere.
    assert_eq!(answer["data"]["echo"], "••••••");
    assert_eq!(
        (&answer["call"]["status"], &answer["call"]["headers"]["content-type"]),
        (&json!(201), &json!("application/json"))
    );
    assert_eq!(answer["call"]["attempts"][0]["decision"], "succeeded");
    assert!(answer["call"]["attempts"][0]["timings"]["total_us"].as_u64().unwrap() > 0);
    assert!(!answer.to_string().contains(SECRET), "{answer}");
    let seen = upstream.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/api/orders/x%2Fy?q=a%20b%26c"));
    assert_eq!((seen[0].json(), seen[0].header("x-api-key")), (json!({"count": 3}), SECRET));
    assert_eq!(seen[0].header("idempotency-key").len(), 32);
}

#[test]
fn an_empty_answer_is_null_and_the_command_writes_nothing() {
    let upstream = Upstream::start(|_, _| Reply::Raw(204, "", Vec::new()));
    let server = server(&upstream, "");
    let answer = server.cli_json(&["call", "desk", "/orders/7", "-X", "delete"]);
    assert_eq!((&answer["data"], &answer["call"]["status"]), (&Value::Null, &json!(204)));
    assert_eq!(server.cli(&["call", "desk", "/orders/7"]).success(), "");
}

#[test]
fn the_command_makes_a_call_of_its_options() {
    let upstream = Upstream::ok();
    let server = server(&upstream, "");
    let shown = server
        .cli(&[
            "call",
            "desk",
            "/t/{{ variables.n }}",
            "--set",
            "n=5",
            "--query",
            "a=1",
            "--json",
            r#"{"b":[2.50]}"#,
            "-H",
            "X-Two: 2",
        ])
        .success();
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), json!({"ok": true}));
    let file = server.folder().join("call.yaml");
    std::fs::write(
        &file,
        "request: {method: PUT, path: /f, text: 'hello {{ variables.who }}'}\nvariables: {who: you}\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    server.cli(&["call", "desk", "--file", file, "--set", "who=them", "--query", "x=y z"]).success();
    let seen = upstream.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/api/t/5?a=1"));
    assert_eq!((seen[0].body.as_slice(), seen[0].header("x-two")), (br#"{"b":[2.50]}"#.as_slice(), "2"));
    assert_eq!((seen[1].method.as_str(), seen[1].target.as_str()), ("PUT", "/api/f?x=y%20z"));
    assert_eq!(seen[1].body, b"hello them");
}

#[test]
fn a_missing_variable_and_a_foreign_host_are_told_before_anything_is_sent() {
    let upstream = Upstream::ok();
    let server = server(&upstream, "");
    let error = server.cli(&["call", "desk", "/{{ variables.idd }}", "--set", "id=1"]).failure(5);
    assert!(error.contains("variable `idd` is not given") && error.contains("did you mean `id`?"), "{error}");
    let foreign = json!({"request": {"method": "GET", "url": "http://localhost:9/x"}});
    let answer = server.api("POST", "/api/v1/connections/desk/call", Some(&foreign));
    failed(&answer, 422, "request.url");
    let unknown = json!({"request": {"method": "GET", "path": "/"}, "variable": {}});
    server.api("POST", "/api/v1/connections/desk/call", Some(&unknown)).assert_error(422, "request.invalid");
    server.api("POST", "/api/v1/connections/none/call", Some(&foreign)).assert_error(404, "resource.not_found");
    assert!(upstream.seen().is_empty());
}

#[test]
fn what_the_api_does_wrong_is_our_bad_gateway() {
    let status = std::sync::Arc::new(AtomicU16::new(404));
    let given = std::sync::Arc::clone(&status);
    let upstream = Upstream::start(move |_, seen| match seen.target.as_str() {
        "/api/hang" => Reply::Hang,
        _ => Reply::Json(given.load(Ordering::Relaxed), json!({"why": "no"})),
    });
    let server = server(&upstream, "  retry: {tries: 3, backoff: {from: 10ms, to: 20ms}}\n");
    let call = |method: &str, path: &str| json!({"request": {"method": method, "path": path, "timeout": "1s"}});
    let answer = |call: &Value| server.api("POST", "/api/v1/connections/desk/call", Some(call));
    assert_eq!(failed(&answer(&call("GET", "/a")), 502, "response.status")["status"], 404);
    // Read again and again, as the connection says; a write is not.
    status.store(500, Ordering::Relaxed);
    let attempts = failed(&answer(&call("GET", "/a")), 502, "response.status")["attempts"].clone();
    assert_eq!(attempts.as_array().unwrap().len(), 3);
    assert_eq!((&attempts[0]["input"]["method"], attempts[2].get("input")), (&json!("GET"), None));
    assert!(attempts.as_array().unwrap().iter().all(|attempt| attempt["output"]["body"] == json!({"why": "no"})));
    let written = answer(&call("POST", "/a")).json();
    assert_eq!(written["call"]["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(written["error"]["outcome_unknown"], true);
    failed(&answer(&call("POST", "/hang")), 504, "outbound.timeout");
    let shown = server.cli(&["call", "desk", "/a"]).failure(1);
    assert!(shown.contains("the API answered 500 Internal Server Error") && shown.contains("(attempts: 3)"), "{shown}");
}

#[test]
fn a_wait_that_nobody_sits_through_is_told_at_once() {
    let upstream = Upstream::start(|_, _| Reply::Raw(429, "retry-after: 120\r\n", Vec::new()));
    let server = server(&upstream, "");
    let call = json!({"request": {"method": "GET", "path": "/"}});
    let answer = server.api("POST", "/api/v1/connections/desk/call", Some(&call));
    failed(&answer, 502, "response.status");
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 119, "{}", answer.text());
    // The connection has learned it: the next call is not even sent.
    let answer = server.api("POST", "/api/v1/connections/desk/call", Some(&call));
    failed(&answer, 503, "connection.asked_to_wait");
    assert_eq!(upstream.seen().len(), 1);
}

/// An API with 25 orders, ten on a page, by a cursor.
fn orders() -> Upstream {
    Upstream::start(|_, seen| {
        let from = seen.target.split_once("after=").map_or(0, |(_, from)| from.parse::<usize>().unwrap());
        let orders: Vec<Value> = (from..25.min(from + 10)).map(|id| json!({"id": id, "key": SECRET})).collect();
        let next = (from + 10 < 25).then_some(from + 10);
        Reply::Json(200, json!({"orders": orders, "next": next}))
    })
}

#[test]
fn a_list_is_read_page_by_page() {
    let upstream = orders();
    let server = server(&upstream, "");
    let rule = "{items: body.orders, cursor: {next: body.next, send: {query: after}}}";
    let shown = server.cli(&["call", "desk", "/orders", "--paginate", rule]).success();
    let items: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(items.len(), 25);
    assert_eq!(items[24], json!({"id": 24, "key": "••••••"}));
    let targets: Vec<String> = upstream.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/api/orders", "/api/orders?after=10", "/api/orders?after=20"]);

    let read = json!({
        "request": {"method": "GET", "path": "/orders"},
        "paginate": {"items": "body.orders", "cursor": {"next": "body.next", "send": {"query": "after"}}, "max_pages": 2},
    });
    let answer = server.api("POST", "/api/v1/connections/desk/read", Some(&read));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    let text = answer.text();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last, json!({"end": {"pages": 2, "items": 20, "complete": false}}));
}

#[test]
fn a_list_that_fails_says_so_where_it_fails() {
    let upstream = Upstream::start(|n, _| match n {
        0 => Reply::Json(200, json!({"v": [1, 2], "next": "/api/b"})),
        1 => Reply::Json(200, json!({"v": [3], "next": "/api/a"})),
        _ => Reply::Json(404, json!({})),
    });
    let server = server(&upstream, "");
    let rule = json!({"items": "body.v", "next_url": "body.next"});
    let read = |path: &str, rule: &Value| {
        let read = json!({"request": {"method": "GET", "path": path}, "paginate": rule});
        server.api("POST", "/api/v1/connections/desk/read", Some(&read))
    };
    let answer = read("/a", &rule);
    assert_eq!(answer.status, 200);
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(&lines[..3], &[json!({"item": 1}), json!({"item": 2}), json!({"item": 3})]);
    assert_eq!(lines[3]["error"]["code"], "response.page");
    assert!(lines[3]["error"]["description"].as_str().unwrap().contains("read before"), "{}", lines[3]);
    // Before the first item a failure is an answer of its own.
    failed(&read("/a", &rule), 502, "response.status");
    read("/a", &json!({"items": "body.["})).assert_error(422, "document.invalid");
    let shown = server.cli(&["call", "desk", "/a", "--paginate", "{next_url: body.next}"]).failure(1);
    assert!(shown.contains("404"), "{shown}");
}

#[test]
fn a_page_of_another_host_gets_no_credentials() {
    let upstream = Upstream::start(|_, _| Reply::Json(200, json!({"v": [1], "next": "http://localhost:9/steal"})));
    let server = server(&upstream, "");
    let rule = "{items: body.v, next_url: body.next}";
    let ran = server.cli(&["call", "desk", "/a", "--paginate", rule]).failure(1);
    assert!(ran.contains("none of the connection's hosts"), "{ran}");
    assert_eq!(upstream.seen().len(), 1);
}

/// What a call and a list get through this connection, and how long both took together.
fn asked(server: &Server) -> ([Response; 2], Duration) {
    let begun = Instant::now();
    let request = json!({"method": "GET", "path": "/"});
    let call = server.api("POST", "/api/v1/connections/desk/call", Some(&json!({"request": request})));
    let read = json!({"request": request, "paginate": {"next_url": "body.next", "items": "body.v"}});
    ([call, server.api("POST", "/api/v1/connections/desk/read", Some(&read))], begun.elapsed())
}

#[test]
fn an_open_breaker_is_told_to_whoever_asks() {
    let upstream = Upstream::start(|_, _| Reply::Json(500, json!({})));
    // Soon enough that a call would sit through it, and so long that nobody should.
    let server = server(&upstream, "  breaker: {open_after: 1, probe_after: 18s}\n  retry: {tries: 1}\n");
    failed(&asked(&server).0[0], 502, "response.status");
    let sent = upstream.seen().len();
    let (answers, took) = asked(&server);
    assert!(took < Duration::from_secs(8), "{took:?}");
    for answer in &answers {
        assert_eq!(failed(answer, 503, "connection.breaker_open")["attempts"], json!([]));
        let said = answer.json()["error"]["description"].as_str().unwrap().to_owned();
        let begins = "connection `desk`: its breaker is open after a failure: the API answered 500; \
                      nothing was sent; the breaker lets a request try in 1";
        assert!(said.starts_with(begins) && said.contains("ask again then"), "{said}");
        assert!((1..=18).contains(&answer.header("retry-after").parse::<u64>().unwrap()), "{answer:?}");
    }
    assert_eq!(upstream.seen().len(), sent);
    let shown = server.cli(&["call", "desk", "/", "--paginate", "{next_url: body.next}"]).failure(1);
    assert!(shown.contains("its breaker is open") && shown.contains("ask again then"), "{shown}");
}

#[test]
fn a_breaker_that_opens_amid_a_list_ends_it_with_its_name() {
    let upstream = Upstream::start(|n, _| match n {
        0 => Reply::Json(200, json!({"v": [1, 2], "next": "/api/b"})),
        _ => Reply::Json(500, json!({})),
    });
    let server = server(&upstream, "  breaker: {open_after: 1, probe_after: 1m}\n  retry: {tries: 3}\n");
    let begun = Instant::now();
    let read =
        json!({"request": {"method": "GET", "path": "/"}, "paginate": {"next_url": "body.next", "items": "body.v"}});
    let answer = server.api("POST", "/api/v1/connections/desk/read", Some(&read));
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let lines: Vec<Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((answer.status, &lines[..2]), (200, &[json!({"item": 1}), json!({"item": 2})][..]));
    assert_eq!((lines.len(), &lines[2]["error"]["code"]), (3, &json!("connection.breaker_open")));
    let said = lines[2]["error"]["description"].as_str().unwrap();
    assert!(said.contains("no further attempt was made after the first; the breaker lets a request try in"), "{said}");
}

#[test]
fn a_rate_that_is_used_up_is_told_to_whoever_asks_and_keeps_jobs_in_their_line() {
    let upstream = Upstream::ok();
    let server = server(&upstream, "  rate: {limit: 1, per: 1m}\n");
    assert_eq!(asked(&server).0[0].status, 200);
    for _ in 0..3 {
        let (answers, took) = asked(&server);
        assert!(took < Duration::from_secs(8), "{took:?}");
        for answer in &answers {
            failed(answer, 503, "connection.rate");
            // Those who asked before have gone, and are not waited for.
            assert!((40..=60).contains(&answer.header("retry-after").parse::<u64>().unwrap()), "{answer:?}");
        }
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn all_waits_of_a_list_that_has_given_nothing_are_bounded_together() {
    let upstream = Upstream::start(|_, _| Reply::Raw(503, "retry-after: 11\r\n", Vec::new()));
    let server = server(&upstream, "");
    let begun = Instant::now();
    let read = json!({"request": {"method": "GET", "path": "/"}, "paginate": {"next_url": "body.next"}});
    let answer = server.api("POST", "/api/v1/connections/desk/read", Some(&read));
    let attempts = failed(&answer, 502, "response.status")["attempts"].clone();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!((attempts[0]["decision"].as_str(), attempts[1]["decision"].as_str()), (Some("retry"), Some("stop")));
    assert!(attempts[1]["reason"].as_str().unwrap().ends_with("and nobody waits so long"), "{attempts:#}");
}
