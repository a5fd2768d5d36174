//! Bodies in every format: how they come in, what pills see of them, and what goes out.

use serde_json::{Value, json};

use crate::harness::{Options, Reply, Server, Upstream, connection};

const ORDER: &str = r#"<?xml version="1.0"?>
<order id="7"><total>1.50</total><item sku="a">x</item><item sku="b">y</item></order>"#;

/// Endpoint `in` of this format, connection `desk` to the upstream, and a recipe of these steps.
fn server_with(format: &str, upstream: &Upstream, steps: &str) -> (Server, String) {
    let server = Server::start(&Options::egress());
    let endpoint = format!("kind: endpoint\nname: in\nspec: {{verify: none, format: {format}}}\n");
    let recipe =
        format!("kind: recipe\nname: tell\nspec:\n  trigger:\n    webhook: {{endpoint: in}}\n  steps:\n{steps}");
    server.apply(&[endpoint, connection("desk", &upstream.url()), recipe].join("---\n"));
    let path = server.path_of("in");
    (server, path)
}

fn accepted(server: &Server, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Value {
    let answer = server.post(path, &[("Content-Type", content_type)], body);
    assert_eq!(answer.status, 202, "{answer:?}");
    server.job_of(answer.json()["data"]["id"].as_str().unwrap())
}

#[test]
fn xml_comes_in_is_seen_by_pills_and_fills_a_table() {
    let upstream = Upstream::ok();
    let steps = "
    - id: tell
      request:
        connection: desk
        method: POST
        path: /orders/{{ trigger.body.order['@id'] }}
        json:
          skus: \"{{ trigger.body.order.item | list | pluck('@sku') }}\"
          all: \"{{ trigger.body }}\"
";
    let (server, path) = server_with("xml", &upstream, steps);
    let job = accepted(&server, &path, "application/xml", ORDER);
    assert_eq!(job["status"], "succeeded", "{job:#}");
    let seen = upstream.seen().remove(0);
    assert_eq!(seen.target, "/orders/7");
    assert_eq!(
        seen.json(),
        json!({"skus": ["a", "b"], "all": {"order": {"@id": "7", "total": "1.50",
            "item": [{"@sku": "a", "#text": "x"}, {"@sku": "b", "#text": "y"}]}}})
    );

    for (content_type, body, status, code) in [
        ("application/xml", &b"<order>"[..], 400, "body.malformed"),
        ("application/xml", b"", 400, "body.malformed"),
        ("text/xml", b"<!DOCTYPE a><a/>", 400, "body.malformed"),
        ("application/json", b"<a/>", 415, "endpoint.content_type"),
    ] {
        server.post(&path, &[("Content-Type", content_type)], body).assert_error(status, code);
    }
    // Too deep for a tree is no reason to refuse it.
    let deep = "<a>".repeat(70) + &"</a>".repeat(70);
    let job = accepted(&server, &path, "text/xml", &deep);
    let description = job["steps"][0]["error"]["description"].as_str().unwrap();
    assert!(description.contains("has no parsed view, because the body is deeper than 64 levels"), "{description}");

    server.apply(
        "kind: destination\nname: warehouse\nspec: {sqlite: {path: w.db}}\n---\nkind: sync\nname: orders\nspec:\n  \
         from: {endpoint: in}\n  to: {destination: warehouse, schema: shop, table: orders}\n",
    );
    server.cli(&["syncs", "run", "orders", "--wait"]).success();
    let table = server.cli_json(&["tables", "show", "shop.orders"]);
    let rows = table["data"]["rows"].as_array().unwrap();
    let of_order = rows.iter().find(|row| !row["total"].is_null()).unwrap_or_else(|| panic!("{table:#}"));
    assert_eq!((&of_order["total"], &of_order["_id_2"]), (&json!("1.50"), &json!("7")));
    assert!(rows.iter().any(|row| row["payload"] == deep.as_str()), "{table:#}");
}

#[test]
fn answers_are_read_as_what_they_are() {
    let upstream = Upstream::start(|_, seen| match seen.target.as_str() {
        "/xml" => Reply::Raw(200, "Content-Type: text/xml; charset=latin1\r\n", b"<a b='1'>\xe9</a>".to_vec()),
        "/utf16" => Reply::Raw(200, "Content-Type: text/plain\r\n", b"\xff\xfeh\0i\0".to_vec()),
        "/none" => Reply::Raw(204, "Content-Type: application/json\r\n", Vec::new()),
        "/same" => Reply::Raw(304, "ETag: \"1\"\r\n", Vec::new()),
        "/empty" => Reply::Raw(200, "Content-Type: application/json\r\n", Vec::new()),
        _ => Reply::Json(200, json!({"ok": true})),
    });
    let steps: String = ["xml", "utf16", "none", "same", "empty"]
        .iter()
        .map(|path| {
            let response = if matches!(*path, "xml" | "utf16") { "" } else { ", response: json" };
            format!("    - {{id: {path}, request: {{connection: desk, method: GET, path: /{path}{response}}}}}\n")
        })
        .collect();
    let last = "    - {id: tell, request: {connection: desk, method: POST, path: /, json: ['{{ steps.xml.body }}', \
                '{{ steps.utf16.body }}', '{{ steps.none.body }}', '{{ steps.same.status }}', '{{ steps.empty.body }}']}}\n";
    let (server, path) = server_with("json", &upstream, &(steps + last));
    let job = accepted(&server, &path, "application/json", "{}");
    assert_eq!(job["status"], "succeeded", "{job:#}");
    let told = upstream.seen().pop().unwrap().json();
    assert_eq!(told, json!([{"a": {"@b": "1", "#text": "é"}}, "hi", null, 304, null]));
}

#[test]
fn an_answer_that_is_not_what_the_step_wants_is_named() {
    let upstream = Upstream::start(|_, seen| {
        let body = match seen.target.as_str() {
            "/deep" => "[".repeat(100_000).into_bytes(),
            "/bytes" => b"{\"a\": \"\xff\"}".to_vec(),
            "/entity" => b"<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>".to_vec(),
            _ => b"<html>".to_vec(),
        };
        Reply::Raw(200, "Content-Type: application/json\r\n", body)
    });
    for (target, format, reason) in [
        ("deep", "json", "the answer is deeper than 64 levels"),
        ("bytes", "json", "the answer is not JSON: not UTF-8 from byte 7 on"),
        ("html", "json", "the answer is not JSON: "),
        ("html", "xml", "the answer is not XML: it ends before its elements are closed, at line 1"),
        ("entity", "xml", "the answer is not XML: document types are not read, at line 1"),
    ] {
        let step = format!(
            "    - {{id: ask, request: {{connection: desk, method: GET, path: /{target}, response: {format}}}}}\n"
        );
        let (server, path) = server_with("json", &upstream, &step);
        let job = accepted(&server, &path, "application/json", "{}");
        let error = &job["steps"][0]["error"];
        assert_eq!(error["code"], "response.unreadable", "{job:#}");
        let description = error["description"].as_str().unwrap();
        assert!(description.starts_with(&format!("the answer cannot be read: {reason}")), "{description}");
    }
}

#[test]
fn bytes_travel_from_an_answer_into_bodies_and_parts() {
    const PICTURE: &[u8] = b"\x89PNG\r\n\x1a\n\x00\xff";
    let upstream = Upstream::start(|_, seen| match seen.target.as_str() {
        "/picture" => Reply::Raw(200, "Content-Type: image/png\r\n", PICTURE.to_vec()),
        "/form" => Reply::Json(500, json!({})),
        _ => Reply::Json(200, json!({})),
    });
    let steps = "
    - {id: fetch, request: {connection: desk, method: GET, path: /picture, response: raw}}
    - {id: put, request: {connection: desk, method: PUT, path: /raw, raw: '{{ steps.fetch.body }}'}}
    - {id: event, request: {connection: desk, method: PUT, path: /event, raw: '{{ trigger.body }}'}}
    - id: form
      request:
        connection: desk
        method: POST
        path: /form
        effect: idempotent
        multipart:
          - {name: title, text: '{{ trigger.method }}'}
          - {name: picture, filename: a.png, content_type: image/png, raw: '{{ steps.fetch.body }}'}
";
    let (server, path) = server_with("bytes", &upstream, steps);
    let answer = server.post(&path, &[], b"\xff\x00event");
    assert_eq!(answer.status, 202, "{answer:?}");
    let job = server.job_when("tell", |job| job["status"] == "waiting");
    let sent = upstream.wait_for(5);
    assert_eq!((&*sent[1].body, sent[1].header("content-type")), (PICTURE, "application/octet-stream"));
    assert_eq!(sent[2].body, b"\xff\x00event");
    let content_type = sent[3].header("content-type");
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
    let expected = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nPOST\r\n--{boundary}\r\n\
         Content-Disposition: form-data; name=\"picture\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n"
    );
    let end = format!("\r\n--{boundary}--\r\n");
    assert_eq!(sent[3].body, [expected.as_bytes(), PICTURE, end.as_bytes()].concat());
    // A second attempt says the same.
    assert_eq!((&sent[4].body, sent[4].header("content-type")), (&sent[3].body, content_type));

    let shown = &job["steps"][3]["input"]["body"];
    assert_eq!(shown["parts"][0]["text"], "POST");
    assert_eq!(shown["parts"][1]["base64"], "iVBORw0KGgoA/w==");
    assert_eq!((&shown["parts"][1]["size"], &shown["text"]), (&json!(PICTURE.len()), &Value::Null));
    assert_eq!(job["steps"][1]["input"]["body"]["base64"], "iVBORw0KGgoA/w==");
    assert_eq!(job["steps"][0]["output"]["body"], json!({"base64": "iVBORw0KGgoA/w=="}));
    let id = job["id"].as_str().unwrap();
    assert_eq!(server.api("POST", &format!("/api/v1/jobs/{id}/cancel"), None).status, 200);
}

#[test]
fn xml_goes_out_and_names_of_headers_as_the_connection_wants() {
    let upstream = Upstream::ok();
    let steps = "
    - id: tell
      request:
        connection: loud
        method: POST
        path: /
        headers: {x-order-id: '{{ trigger.body.id }}'}
        xml: {order: {'@id': '{{ trigger.body.id }}', note: '{{ trigger.body.note }}'}}
";
    let (server, path) = {
        let server = Server::start(&Options::egress());
        let documents = [
            "kind: endpoint\nname: in\nspec: {verify: none, format: json}\n".to_owned(),
            format!("kind: connection\nname: loud\nspec: {{base_url: '{}', header_case: title}}\n", upstream.url()),
            format!("kind: recipe\nname: tell\nspec:\n  trigger:\n    webhook: {{endpoint: in}}\n  steps:\n{steps}"),
        ];
        server.apply(&documents.join("---\n"));
        let path = server.path_of("in");
        (server, path)
    };
    let job = accepted(&server, &path, "application/json", r#"{"id": 7, "note": "</note><evil/>"}"#);
    assert_eq!(job["status"], "succeeded", "{job:#}");
    let seen = upstream.seen().remove(0);
    let body =
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><order id=\"7\"><note>&lt;/note&gt;&lt;evil/&gt;</note></order>";
    assert_eq!((String::from_utf8_lossy(&seen.body).as_ref(), seen.header("content-type")), (body, "application/xml"));
    assert!(seen.headers.contains(&("X-Order-Id".to_owned(), "7".to_owned())), "{:?}", seen.headers);
    assert!(job["steps"][0]["input"]["headers"].as_array().unwrap().contains(&json!(["X-Order-Id", "7"])));
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, body).unwrap();
    encoder.finish().unwrap()
}

const TELL_BODY: &str = "    - {id: tell, request: {connection: desk, method: POST, path: /, json: '{{ trigger.body }}', effect: idempotent}}\n";

#[test]
fn a_compressed_webhook_is_verified_as_it_came_and_read_as_it_was() {
    let upstream = Upstream::ok();
    let (server, path) = server_with("json", &upstream, TELL_BODY);
    let send = |server: &Server, path: &str, coding: &str, body: &[u8]| {
        server.post(path, &[("Content-Type", "application/json"), ("Content-Encoding", coding)], body)
    };
    let packed = gzip(br#"{"id":"e1"}"#);
    let answer = send(&server, &path, "gzip", &packed);
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.json()["data"]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.job_of(&id)["status"], "succeeded");
    assert_eq!(upstream.seen().pop().unwrap().json(), json!({"id": "e1"}));
    // Raw is kept.
    let event = server.data(&format!("/api/v1/events/{id}"));
    let kept = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &packed);
    assert_eq!(event["body_base64"], kept, "{event:#}");

    let unknown = send(&server, &path, "compress", &packed);
    unknown.assert_error(415, "body.coding");
    assert_eq!(unknown.header("accept-encoding"), "gzip, br, zstd");
    send(&server, &path, "gzip", b"{}").assert_error(400, "body.malformed");
    send(&server, &path, "gzip", &gzip(b"{")).assert_error(400, "body.malformed");
    // 6 MiB of zeros within a limit of 5 MiB.
    send(&server, &path, "gzip", &gzip(&vec![b' '; 6 << 20])).assert_error(413, "body.too_large");

    server.apply(
        "kind: endpoint\nname: in\nspec: {verify: none, format: json, dedupe: {by: 'json:/id'}}\n---\n\
         kind: destination\nname: w\nspec: {sqlite: {path: w.db}}\n---\nkind: sync\nname: all\nspec:\n  \
         from: {endpoint: in}\n  to: {destination: w, schema: s, table: t}\n",
    );
    let first = send(&server, &path, "gzip", &gzip(br#"{"id":"e2"}"#)).json();
    let again = send(&server, &path, "identity", br#"{"id":"e2"}"#).json();
    assert_eq!((&again["data"]["id"], &again["data"]["duplicate"]), (&first["data"]["id"], &json!(true)));
    server.cli(&["syncs", "run", "all", "--wait"]).success();
    let table = server.cli_json(&["tables", "show", "s.t"]);
    let rows = table["data"]["rows"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["id"] == "e2") && rows.iter().any(|row| row["id"] == "e1"), "{table:#}");
}

#[test]
fn a_signature_is_over_the_compressed_bytes() {
    let server = Server::start(&Options::default());
    server.apply(
        "kind: secret\nname: key\nspec: {value: hunter2hunter2}\n---\nkind: endpoint\nname: in\nspec:\n  format: json\n  \
         verify: {hmac: {header: X-Signature, encoding: HEXA_DECIMAL, secrets: [{secret: key}]}}\n",
    );
    let (path, packed) = (server.path_of("in"), gzip(b"{}"));
    for (signed, status) in [(packed.as_slice(), 202), (b"{}", 401)] {
        let signature = crate::harness::hmac_sha256("hunter2hunter2", signed);
        let answer = server.post(&path, &[("Content-Encoding", "gzip"), ("X-Signature", &signature)], &packed);
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[test]
fn a_declared_character_set_counts_for_everybody() {
    let upstream = Upstream::ok();
    let all =
        ["body", "query", "headers.accept", "event_name"].map(|name| format!("'{{{{ trigger.{name} }}}}'")).join(", ");
    let steps = TELL_BODY.replace("'{{ trigger.body }}'", &format!("[{all}]"));
    let (server, path) = server_with("form", &upstream, &steps);
    let send = |content_type: &str, body: &[u8], suffix: &str| {
        let headers = [("Content-Type", content_type), ("Accept", "plain")];
        let answer = server.post(&format!("{path}{suffix}"), &headers, body);
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(server.job_of(answer.json()["data"]["id"].as_str().unwrap())["status"], "succeeded");
        upstream.seen().pop().unwrap().json()
    };
    let form = "application/x-www-form-urlencoded";
    let told = send(&format!("{form}; charset=windows-1252"), b"n=caf%E9", "/caf%C3%A9?q=%E9");
    assert_eq!(told, json!([{"n": "café"}, {"q": {"base64": "6Q=="}}, "plain", "café"]));
    let told = send(form, b"n=caf%E9&m=x", "/caf%E9");
    assert_eq!(told, json!([{"n": {"base64": "Y2Fm6Q=="}, "m": "x"}, {}, "plain", "caf%E9"]));
    server.post(&path, &[("Content-Type", form)], b"n=\xe9").assert_error(400, "body.malformed");

    server.apply("kind: endpoint\nname: in\nspec: {verify: none, format: form, dedupe: {by: 'form:id'}}\n");
    let id = |body: &str| server.post(&path, &[("Content-Type", form)], body).json()["data"]["id"].clone();
    assert_ne!(id("id=%E9"), id("id=%E8"));
    assert_eq!(id("id=%E9"), id("id=%E9&more=1"));
}

#[test]
fn json_with_a_mark_or_in_latin_1_or_with_half_a_character_is_read() {
    let upstream = Upstream::ok();
    let (server, path) = server_with("json", &upstream, TELL_BODY);
    for (content_type, body, told) in [
        ("application/json", &b"\xef\xbb\xbf{\"a\":1}"[..], json!({"a": 1})),
        ("application/json; charset=ISO-8859-1", b"{\"a\":\"\xe9\"}", json!({"a": "é"})),
        ("application/json", br#"{"a":"x\ud83d","b":1}"#, json!({"a": r#""x\ud83d""#, "b": 1})),
    ] {
        let job = accepted(&server, &path, content_type, body);
        assert_eq!(job["status"], "succeeded", "{job:#}");
        assert_eq!(upstream.seen().pop().unwrap().json(), told);
    }
    server
        .post(&path, &[("Content-Type", "application/json")], b"{\"a\":\"\xe9\"}")
        .assert_error(400, "body.malformed");
    server.apply("kind: endpoint\nname: in\nspec: {verify: none, dedupe: {by: 'json:/id'}}\n");
    let id = |body: &[u8]| server.post(&path, &[], body).json()["data"]["id"].clone();
    assert_eq!(id(b"\xef\xbb\xbf{\"id\":\"e1\"}"), id(b"{\"id\":\"e1\"}"));
    assert_ne!(id(b"{\"id\":9007199254740993}"), id(b"{\"id\":\"9007199254740993\"}"));
}
