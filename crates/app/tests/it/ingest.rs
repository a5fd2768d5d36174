//! What callers send, well and badly: what is kept byte for byte, and how each mistake is answered and listed.

use serde_json::{Value, json};

use crate::harness::{Options, Response, Server, Wire, hmac_sha256, raw, request, request_bytes, unix_now};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const SECRET: &str = "My$ecret@12345678";
/// The body of the published signature vectors; the hash below is theirs for it under `SECRET`.
const SIGNED: &str = r#"{"id":1,"name":"Wing"}"#;
const SIGNATURE: &str = "f528d3fe3f9d3398cb89b23c9997cfa7990429c2c63193af93f033a62ae089b0";

const ENDPOINTS: &str = "kind: secret
name: key
spec: {value: My$ecret@12345678}
---
kind: endpoint
name: json
spec: {format: json, verify: none}
---
kind: endpoint
name: any
spec: {verify: none}
---
kind: endpoint
name: form
spec: {format: form, verify: none}
---
kind: endpoint
name: query
spec: {format: query, verify: none}
---
kind: endpoint
name: small
spec: {format: json, verify: none, limits: {body: 1KiB}}
---
kind: endpoint
name: large
spec: {verify: none, limits: {body: 8MiB}}
---
kind: endpoint
name: off
spec: {format: json, verify: none, enabled: false}
---
kind: endpoint
name: signed
spec:
  format: json
  verify: {hmac: {header: X-Signature, algorithm: SHA_256, encoding: HEXA_DECIMAL, secrets: [{secret: key}]}}
---
kind: endpoint
name: stamped
spec:
  format: json
  verify:
    hmac:
      header: Stripe-Signature
      item: ','
      pair: '='
      field: v1
      algorithm: SHA_256
      encoding: HEXA_DECIMAL
      message: '{timestamp}.{body}'
      timestamp: {from: field:t, tolerance: 5m}
      secrets: [{secret: key}]
---
kind: endpoint
name: token
spec:
  format: json
  verify: {token: {header: X-Api-Key, secrets: [{secret: key}]}}
";

fn server() -> Server {
    let server = Server::start(&Options::default());
    server.apply(ENDPOINTS);
    server
}

/// Checks an answer, and that the newest refusal is about it; gives the refusal.
#[track_caller]
fn refused(server: &Server, answer: &Response, status: u16, code: &str) -> Value {
    answer.assert_error(status, code);
    let refusal = server.refusal(code);
    assert_eq!(refusal["status"], status, "{refusal:#}");
    assert!(refusal["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{refusal:#}");
    refusal
}

#[track_caller]
fn nothing_stored(server: &Server) {
    assert_eq!(server.data("/api/v1/events"), json!([]));
}

/// Sends what must be accepted; gives the stored event.
#[track_caller]
fn stored(server: &Server, answer: &Response) -> Value {
    assert_eq!(answer.status, 202, "{answer:?}");
    server.data(&format!("/api/v1/events/{}", answer.json()["data"]["id"].as_str().unwrap()))
}

/// The value of the first header with this name.
fn header<'a>(event: &'a Value, name: &str) -> &'a Value {
    event["headers"].as_array().unwrap().iter().find(|pair| pair[0] == name).map_or(&Value::Null, |pair| &pair[1])
}

#[test]
fn unknown_and_disabled_endpoints_look_the_same() {
    let server = server();
    let unknown = server.post("/webhooks/nobody", &[JSON], "{}");
    let refusal = refused(&server, &unknown, 404, "endpoint.unknown");
    assert_eq!(refusal["endpoint"], Value::Null);
    let disabled = server.post(&server.path_of("off"), &[JSON], "{}");
    assert_eq!((disabled.status, disabled.body), (unknown.status, unknown.body));
    let elsewhere = server.post("/", &[JSON], "{}");
    elsewhere.assert_error(404, "endpoint.unknown");
    server.post("/api/v1/events", &[JSON], "{}").assert_error(404, "endpoint.unknown");
    nothing_stored(&server);
}

#[test]
fn wrong_method_is_told_the_right_one() {
    let server = server();
    let path = server.path_of("json");
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let answer = request(server.public, method, &path, &[JSON], b"");
        let refusal = refused(&server, &answer, 405, "endpoint.method");
        assert_eq!(answer.header("allow"), "POST");
        assert_eq!(refusal["endpoint"], "json");
    }
    let answer = server.post(&server.path_of("query"), &[], "a=1");
    refused(&server, &answer, 405, "endpoint.method");
    assert_eq!(answer.header("allow"), "GET");
    nothing_stored(&server);
}

#[test]
fn signature_must_be_there_whole_and_over_these_bytes() {
    let server = server();
    let path = server.path_of("signed");
    let wrong = SIGNATURE.replace('f', "e");
    for (headers, body) in [
        (vec![JSON], SIGNED),
        (vec![JSON, ("X-Signature", "")], SIGNED),
        (vec![JSON, ("X-Signature", &wrong)], SIGNED),
        (vec![JSON, ("X-Signature", &SIGNATURE[..62])], SIGNED),
        (vec![JSON, ("X-Signature", SIGNATURE)], r#"{"id":1, "name":"Wing"}"#),
        (vec![JSON, ("X-Signature", &wrong), ("X-Signature", &wrong)], SIGNED),
    ] {
        let answer = server.post(&path, &headers, body);
        let refusal = refused(&server, &answer, 401, "verify.failed");
        assert!(!answer.header("www-authenticate").is_empty());
        assert_eq!(refusal["body"], body);
        assert_eq!(refusal["endpoint"], "signed");
        assert!(!answer.text().contains("X-Signature"), "the caller is told too much: {answer:?}");
    }
    nothing_stored(&server);
    let event = stored(&server, &server.post(&path, &[JSON, ("X-Signature", SIGNATURE)], SIGNED));
    assert_eq!(event["verified"], json!({"by": "hmac", "ok": true}));
}

#[test]
fn one_right_signature_among_several_is_enough() {
    let server = server();
    let wrong = SIGNATURE.replace('f', "e");
    let headers = [JSON, ("X-Signature", wrong.as_str()), ("X-Signature", SIGNATURE)];
    stored(&server, &server.post(&server.path_of("signed"), &headers, SIGNED));
}

#[test]
fn unsigned_body_is_not_parsed() {
    let server = server();
    let answer = server.post(&server.path_of("signed"), &[JSON, ("X-Signature", "00")], "{not json");
    refused(&server, &answer, 401, "verify.failed");
}

#[test]
fn stale_and_future_time_stamps_are_refused_although_they_are_signed() {
    let server = server();
    let path = server.path_of("stamped");
    let sign = |at: u64| format!("t={at},v0=00,v1={}", hmac_sha256(SECRET, format!("{at}.{SIGNED}")));
    let now = unix_now();
    for (at, why) in [(now - 400, "verify.stale: signed 400 s ago"), (now + 400, "verify.stale: ")] {
        let answer = server.post(&path, &[JSON, ("Stripe-Signature", &sign(at))], SIGNED);
        let refusal = refused(&server, &answer, 401, "verify.failed");
        assert!(refusal["cause"].as_str().unwrap().starts_with(why), "{refusal:#}");
    }
    // A time stamp that was moved after it was signed.
    let moved = sign(now - 400).replace(&(now - 400).to_string(), &now.to_string());
    refused(&server, &server.post(&path, &[JSON, ("Stripe-Signature", &moved)], SIGNED), 401, "verify.failed");
    nothing_stored(&server);
    stored(&server, &server.post(&path, &[JSON, ("Stripe-Signature", &sign(now - 200))], SIGNED));
}

#[test]
fn body_over_the_limit_is_refused_and_never_cut() {
    let server = server();
    let path = server.path_of("small");
    let fits = format!("\"{}\"", "x".repeat(1_022));
    stored(&server, &server.post(&path, &[JSON], &fits));
    let too_long = format!("\"{}\"", "x".repeat(1_023));
    refused(&server, &server.post(&path, &[JSON], &too_long), 413, "body.too_large");

    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunked = |body: &str| {
        let (first, rest) = body.split_at(600);
        let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
        raw(server.public, format!("{head}{}{}0\r\n\r\n", chunk(first), chunk(rest))).unwrap()
    };
    refused(&server, &chunked(&too_long), 413, "body.too_large");
    let event = stored(&server, &chunked(&fits));
    assert_eq!(event["body"], fits);
    // Two that fit were stored, and nothing of the two that did not.
    assert_eq!(server.data("/api/v1/events").as_array().unwrap().len(), 2);
}

#[test]
fn announced_length_over_the_limit_is_refused_before_the_body_comes() {
    let server = server();
    let mut wire = Wire::open(server.public);
    let path = server.path_of("small");
    wire.write(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"));
    wire.response().unwrap().assert_error(413, "body.too_large");
}

#[test]
fn head_that_is_too_large_is_refused() {
    let server = server();
    let path = server.path_of("json");
    let large = "x".repeat(33 << 10);
    let answer = server.post(&path, &[JSON, ("X-Large", &large)], "{}");
    refused(&server, &answer, 431, "head.too_large");
    let names: Vec<String> = (0..101).map(|n| format!("X-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    refused(&server, &server.post(&path, &many, "{}"), 431, "head.too_large");
    // Far beyond: the HTTP library answers before we do.
    let huge = "x".repeat(1 << 20);
    let answer = raw(server.public, request_bytes(server.public, "POST", &path, &[("X-Huge", &huge)], b"{}"));
    if let Some(answer) = answer {
        answer.assert_error(431, "head.too_large");
    }
    nothing_stored(&server);
    server.accept(&path, &json!({}));
}

#[test]
fn requests_that_do_not_parse_are_answered_with_a_code() {
    let server = server();
    let path = server.path_of("json");
    let with = |line: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
    for address in [server.public, server.operator] {
        for (request, status, code) in [
            ("GET /\r\n\r\n".to_owned(), 400, "request.malformed"),
            ("GET / HTTP/0.9\r\n\r\n".to_owned(), 400, "request.malformed"),
            (with("Content-Length: 1\r\nContent-Length: 2"), 400, "request.malformed"),
            (with("Content-Length: 18446744073709551616"), 400, "request.malformed"),
            (with("Content-Length: 18446744073709551615"), 431, "head.too_large"),
            (with("Transfer-Encoding: gzip"), 400, "request.malformed"),
        ] {
            let mut wire = Wire::open(address);
            wire.write(&request);
            wire.response().unwrap_or_else(|| panic!("no answer to {request}")).assert_error(status, code);
            assert_eq!(wire.rest(), b"", "{request}");
        }
    }
    nothing_stored(&server);
}

#[test]
fn transfer_codings_that_are_not_undone_are_refused() {
    let server = server();
    let path = server.path_of("json");
    let gzip = "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let answer = raw(server.public, format!("POST {path} HTTP/1.1\r\nHost: a\r\n{gzip}")).unwrap();
    refused(&server, &answer, 501, "request.transfer_coding");
    let answer = raw(server.operator, format!("POST /api/v1/apply HTTP/1.1\r\nHost: localhost\r\n{gzip}")).unwrap();
    answer.assert_error(501, "request.transfer_coding");
    nothing_stored(&server);
}

#[test]
fn url_that_is_too_long_is_refused() {
    let server = server();
    let path = format!("{}?q={}", server.path_of("json"), "x".repeat(9 << 10));
    refused(&server, &server.post(&path, &[JSON], "{}"), 414, "head.uri_too_long");
}

#[test]
fn malformed_json_is_refused_and_its_bytes_are_kept() {
    let server = server();
    let path = server.path_of("json");
    for body in ["{\"a\":}", "", "{} {}", "{\"a\": NaN}"] {
        let answer = server.post(&path, &[JSON], body);
        let refusal = refused(&server, &answer, 400, "body.malformed");
        assert_eq!(refusal["body"], body);
    }
    let answer = server.post(&path, &[JSON], b"{\"a\": \"\xff\"}");
    refused(&server, &answer, 400, "body.malformed");
    assert_eq!(server.data("/api/v1/refusals")[0]["body_base64"], "eyJhIjogIv8ifQ==");
    nothing_stored(&server);
}

#[test]
fn another_content_type_than_declared_is_refused() {
    let server = server();
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    refused(&server, &server.post(&server.path_of("json"), &[form], "a=1"), 415, "endpoint.content_type");
    refused(&server, &server.post(&server.path_of("form"), &[JSON], "{}"), 415, "endpoint.content_type");
    nothing_stored(&server);
    let text = ("Content-Type", "text/plain; charset=utf-8");
    stored(&server, &server.post(&server.path_of("json"), &[text], "{}"));
    stored(&server, &server.post(&server.path_of("form"), &[form], "a=1"));
}

#[test]
fn refusals_hide_secrets_at_wrong_places() {
    let server = server();
    let path = server.path_of("token");
    let encoded = hex::encode(SECRET);
    for (header, body) in [
        ("X-Api-Token", format!(r#"{{"token": "{SECRET}"}}"#)),
        ("Authorization", format!("token={}", encoded.to_uppercase())),
        ("X-Other", SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect()),
    ] {
        let answer = server.post(&path, &[JSON, (header, &format!("Token {encoded}"))], &body);
        let refusal = refused(&server, &answer, 401, "verify.failed");
        assert!(refusal["body"].as_str().unwrap().contains("••••••"), "{refusal:#}");
        let shown = refusal.to_string();
        assert!(!shown.contains(SECRET) && !shown.to_lowercase().contains(&encoded), "{shown}");
    }
    assert_eq!(server.files_with(&encoded), [] as [std::path::PathBuf; 0]);
}

#[test]
fn token_is_never_stored() {
    let server = server();
    let path = server.path_of("token");
    let event = stored(&server, &server.post(&path, &[JSON, ("X-Api-Key", SECRET)], "{}"));
    assert_eq!(header(&event, "x-api-key"), "••••••");
    let wrong = "a-token-for-somebody-else";
    for headers in [vec![JSON], vec![JSON, ("X-Api-Key", wrong)]] {
        let answer = server.post(&path, &headers, "{}");
        refused(&server, &answer, 401, "verify.failed");
    }
    let refusals = server.get("/api/v1/refusals").text();
    assert!(!refusals.contains(wrong), "{refusals}");
    assert!(!server.files_with("x-api-key").is_empty(), "the search finds what is there");
    for needle in [SECRET, wrong] {
        assert_eq!(server.files_with(needle), [] as [std::path::PathBuf; 0]);
        assert!(!server.log().contains(needle));
    }
}

#[test]
fn token_is_not_kept_where_nothing_can_verify_it() {
    let server = server();
    let path = server.path_of("token");
    // At an unknown URL nobody knows which header is a credential.
    let answer = server.post("/webhooks/unknown", &[JSON, ("X-Api-Key", SECRET)], "{}");
    refused(&server, &answer, 404, "endpoint.unknown");
    // A disabled endpoint, and one whose secret has no value, turn everybody away.
    let disabled = json!({"spec": {"enabled": false}});
    assert_eq!(server.api("PATCH", "/api/v1/endpoints/token", Some(&disabled)).status, 200);
    let answer = server.post(&path, &[JSON, ("X-Api-Key", SECRET)], "{}");
    refused(&server, &answer, 404, "endpoint.unknown");
    assert_eq!(server.files_with(SECRET), [] as [std::path::PathBuf; 0]);
}

#[test]
fn credentials_in_usual_headers_are_not_stored_either() {
    let server = server();
    let headers = [JSON, ("Authorization", "Bearer hunter2-hunter2"), ("Cookie", "session=hunter2-hunter2")];
    let event = stored(&server, &server.post(&server.path_of("json"), &headers, "{}"));
    assert_eq!(header(&event, "authorization"), "••••••");
    assert_eq!(server.files_with("hunter2-hunter2"), [] as [std::path::PathBuf; 0]);
}

#[test]
fn query_endpoint_takes_its_event_from_the_url() {
    let server = server();
    let path = format!("{}/signup?name=J%C3%BCrgen&plan=a%26b&plan=c", server.path_of("query"));
    let event = stored(&server, &request(server.public, "GET", &path, &[], b""));
    assert_eq!(event["method"], "GET");
    assert_eq!(event["event_name"], "signup");
    assert_eq!(event["query"], "name=J%C3%BCrgen&plan=a%26b&plan=c");
    assert_eq!(event["size"], 0);
}

#[test]
fn bytes_come_back_as_they_came() {
    let server = server();
    let path = server.path_of("any");
    let body: Vec<u8> = (0..=255).collect();
    let mut bytes = format!("POST {path} HTTP/1.1\r\nHost: a\r\nX-Twice: 1\r\nX-Latin: caf").into_bytes();
    bytes.extend(b"\xe9\r\nX-Twice: 2\r\nContent-Length: 256\r\n\r\n");
    bytes.extend(&body);
    let event = stored(&server, &raw(server.public, bytes).unwrap());
    assert_eq!(event.get("body"), None);
    assert_eq!(event["body_base64"].as_str().map(str::len), Some(344));
    assert!(event["body_base64"].as_str().unwrap().starts_with("AAECAwQFBgcICQoLDA0O"));
    assert_eq!(event["size"], 256);
    assert_eq!(header(&event, "x-latin"), &json!({"base64": "Y2Fm6Q=="}));
    let twice: Vec<&Value> =
        event["headers"].as_array().unwrap().iter().filter(|pair| pair[0] == "x-twice").map(|pair| &pair[1]).collect();
    assert_eq!(twice, ["1", "2"]);
}

#[test]
fn large_bodies_come_back_whole() {
    let server = server();
    let path = server.path_of("large");
    for size in [64 << 10, (64 << 10) + 1, 5 << 20] {
        let body: String = (0..size).map(|n| char::from(b'a' + u8::try_from(n % 26).unwrap())).collect();
        let event = stored(&server, &server.post(&path, &[], &body));
        assert_eq!(event["size"], size);
        assert!(event["body"] == body.as_str(), "{size} bytes came back otherwise");
    }
}

#[test]
fn http2_request_is_accepted_with_prior_knowledge() {
    let server = server();
    let path = server.path_of("json");
    let mut wire = Wire::open(server.public);
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(0x4, 0, 0, &[]));
    sent.extend(frame(
        0x1,
        0x4,
        1,
        &literal_headers(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", &path),
            (":authority", "localhost"),
            ("content-type", "application/json"),
        ]),
    ));
    sent.extend(frame(0x0, 0x1, 1, br#"{"over":"h2"}"#));
    wire.write(&sent);
    let body = wire.until(|bytes| {
        let (_, _, payload) = frames(bytes).into_iter().find(|(kind, stream, _)| (*kind, *stream) == (0x0, 1))?;
        Some(payload)
    });
    let body: Value = serde_json::from_slice(&body.expect("an answer with a body")).unwrap();
    let event = server.data(&format!("/api/v1/events/{}", body["data"]["id"].as_str().unwrap()));
    assert_eq!(event["body"], r#"{"over":"h2"}"#);
}

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Headers as literals without indexing and without Huffman coding (RFC 7541, section 6.2.2).
fn literal_headers(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("short texts only"));
            block.extend(text.bytes());
        }
    }
    block
}

/// Kind, stream and payload of every frame.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, _, s1, s2, s3, s4, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(payload) = rest.get(..length) else { break };
        frames.push((*kind, u32::from_be_bytes([*s1, *s2, *s3, *s4]), payload.to_vec()));
        bytes = &rest[length..];
    }
    frames
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = server();
    let path = server.path_of("json");
    let mut wire = Wire::open(server.public);
    let bytes: Vec<u8> = (0..20)
        .flat_map(|n| request_bytes(server.public, "POST", &path, &[JSON], format!("{{\"n\":{n}}}").as_bytes()))
        .collect();
    wire.write(bytes);
    for n in 0..20 {
        let event = stored(&server, &wire.response().unwrap());
        assert_eq!(event["body"], format!("{{\"n\":{n}}}"));
    }
}

#[test]
fn refusal_leaves_a_kept_alive_connection_usable() {
    let server = server();
    let path = server.path_of("json");
    let mut wire = Wire::open(server.public);
    wire.write(request_bytes(server.public, "POST", &path, &[JSON], b"nonsense"));
    wire.response().unwrap().assert_error(400, "body.malformed");
    wire.write(request_bytes(server.public, "POST", &path, &[JSON], b"{}"));
    stored(&server, &wire.response().unwrap());
}

#[test]
fn ambiguous_and_malformed_heads_are_refused_and_service_goes_on() {
    let server = server();
    let path = server.path_of("any");
    let post = |rest: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\n{rest}");
    for bytes in [
        post("Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"),
        post("Content-Length: +2\r\n\r\n{}"),
        post("Content-Length: 2\r\nBad Name: x\r\n\r\n{}"),
        post("Transfer-Encoding: gzip\r\n\r\n{}"),
        post("Transfer-Encoding: chunked\r\n\r\nnot a size\r\n"),
        format!("POST {path} HTTP/9.9\r\nHost: a\r\n\r\n"),
        "nonsense\r\n\r\n".to_owned(),
        "\0\x01\x02\x03\r\n\r\n".to_owned(),
        format!("POST  {path}  HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let answer = raw(server.public, &bytes);
        assert!(answer.as_ref().is_some_and(|answer| answer.status == 400), "{bytes:?}: {answer:?}");
    }
    nothing_stored(&server);
    server.accept(&path, &json!({"still": "here"}));
}

#[test]
fn length_beside_chunks_cannot_smuggle_a_second_request() {
    let server = server();
    let path = server.path_of("any");
    let mut wire = Wire::open(server.public);
    wire.write(format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    ));
    wire.end_writing();
    let answers = String::from_utf8(wire.rest()).unwrap();
    assert!(answers.matches("HTTP/1.1 ").count() == 1, "{answers}");
}

#[test]
fn caller_that_ends_its_side_after_the_request_gets_the_answer() {
    let server = server();
    let mut wire = Wire::open(server.public);
    wire.write(request_bytes(server.public, "POST", &server.path_of("any"), &[], b"{}"));
    wire.end_writing();
    stored(&server, &wire.response().expect("an answer"));
    assert_eq!(wire.rest(), b"");
}

#[test]
fn answer_does_not_wait_for_the_rest_of_the_next_request() {
    let server = server();
    let mut wire = Wire::open(server.public);
    let mut bytes = request_bytes(server.public, "POST", &server.path_of("any"), &[], b"{}");
    bytes.extend(b"POST /webh");
    wire.write(bytes);
    let began = std::time::Instant::now();
    stored(&server, &wire.response().unwrap());
    // The head's limit is 10 s, after which the connection would have been cut.
    assert!(began.elapsed() < std::time::Duration::from_secs(9));
}

#[test]
fn body_that_breaks_off_is_not_stored() {
    let server = server();
    let mut wire = Wire::open(server.public);
    wire.write(format!("POST {} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{{\"a\":1}}", server.path_of("any")));
    wire.end_writing();
    wire.rest();
    let refusal = server.refusal("body.broken");
    assert_eq!(refusal["body"], "{\"a\":1}");
    nothing_stored(&server);
}

#[test]
fn rotated_url_is_dead_at_once() {
    let server = server();
    let old = server.path_of("json");
    server.accept(&old, &json!({}));
    let new = server.cli(&["endpoints", "rotate", "json"]).success();
    server.post(&old, &[JSON], "{}").assert_error(404, "endpoint.unknown");
    let path = new.trim().strip_prefix(&format!("http://{}", server.public)).unwrap().to_owned();
    server.accept(&path, &json!({}));
}

#[test]
fn event_name_in_the_url_is_recorded() {
    let server = server();
    let path = format!("{}/order.paid%2Fnow?x=1", server.path_of("json"));
    let event = stored(&server, &server.post(&path, &[JSON], "{}"));
    assert_eq!((&event["event_name"], &event["query"]), (&json!("order.paid/now"), &json!("x=1")));
}
