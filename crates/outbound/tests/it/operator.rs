//! The command line's client.

use std::time::Duration;

use linkspan_model::secret::SecretBytes;
use linkspan_outbound::{OperatorClient, OperatorError};
use serde_json::json;

use crate::upstream::{Upstream, answer, read_request, stall, unheard};

fn client(base: &str) -> OperatorClient {
    OperatorClient::new(base, Some(&SecretBytes::new("t0ken\n")), Duration::from_millis(300)).unwrap()
}

#[tokio::test]
async fn calls_the_api_with_its_token() {
    let upstream = Upstream::answering(|_| answer("409 Conflict", "x-id: 7\r\n", r#"{"error": {}}"#)).await;
    let client = client(&upstream.url("/"));
    let (status, headers, body) = client.post("/api/v1/apply?dry_run=true", Some(json!({"a": 1}))).await.unwrap();
    assert_eq!((status.as_u16(), &headers["x-id"], &*body), (409, &"7".parse().unwrap(), &br#"{"error": {}}"#[..]));
    let sent = upstream.requests().remove(0);
    assert!(sent.starts_with("POST /api/v1/apply?dry_run=true HTTP/1.1\r\n"), "{sent}");
    assert!(sent.contains("authorization: Bearer t0ken\r\n"), "{sent}");
    assert!(sent.contains("content-type: application/json\r\n") && sent.ends_with("\r\n\r\n{\"a\":1}"), "{sent}");
    client.get("/a").await.unwrap();
    client.put("/b", None).await.unwrap();
    client.patch("/c", Some(json!({}))).await.unwrap();
    client.delete("/d").await.unwrap();
    let lines: Vec<_> = upstream.requests().iter().map(|text| text.lines().next().unwrap().to_owned()).collect();
    assert_eq!(lines[1..], ["GET /a HTTP/1.1", "PUT /b HTTP/1.1", "PATCH /c HTTP/1.1", "DELETE /d HTTP/1.1"]);
}

#[tokio::test]
async fn says_when_no_server_is_there() {
    let (_socket, address) = unheard();
    let error = client(&format!("http://{address}")).get("/").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot reach http://{address}: connection refused; is `linkspan serve` running?")
    );
}

#[tokio::test]
async fn says_when_the_server_does_not_answer() {
    let upstream = Upstream::raw(|mut stream| async move {
        read_request(&mut stream).await;
        stall().await;
    })
    .await;
    let error = client(&upstream.url("")).delete("/x").await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("no answer from http://{} within 300 ms", upstream.address)), "{error}");
}

#[tokio::test]
async fn the_token_goes_nowhere_else() {
    let client = client("http://127.0.0.1:1");
    assert!(!format!("{client:?}").contains("t0ken"));
    for path in ["x", "@other.test/", ".other.test/", "//other.test/x"] {
        let error = client.get(path).await.unwrap_err();
        assert!(matches!(error, OperatorError::Path | OperatorError::Unreachable { .. }), "{path}: {error}");
        assert!(!error.to_string().contains("other.test"), "{path}: {error}");
    }
    for base in ["127.0.0.1:8081", "ftp://a/", "http://u:p@a/", "http://a/?x"] {
        assert!(matches!(OperatorClient::new(base, None, Duration::ZERO), Err(OperatorError::Base)), "{base}");
    }
    let bad = SecretBytes::new("a\nb");
    assert!(matches!(OperatorClient::new("http://a/", Some(&bad), Duration::ZERO), Err(OperatorError::Token)));
}
