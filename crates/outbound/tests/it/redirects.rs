//! Which redirects are followed, and with what.

use http::{HeaderName, Method};
use linkspan_model::secret::SecretBytes;
use linkspan_outbound::{Credentials, Outbound, Reached, RedirectScope, SendOptions};

use crate::upstream::{Upstream, answer, client, get, request, soon};
use serde_json::json;

fn following(redirects: u8) -> SendOptions {
    SendOptions { redirects, ..soon() }
}

/// Answers `/` with this status and Location, anything else with 200.
async fn redirecting(status: &'static str, location: &str) -> Upstream {
    let location = format!("location: {location}\r\n");
    Upstream::answering(move |request| match request.split(' ').nth(1) {
        Some("/") => answer(status, &location, "over there"),
        _ => answer("200 OK", "", "here"),
    })
    .await
}

#[tokio::test]
async fn by_default_a_redirect_is_an_answer() {
    let upstream = redirecting("302 Found", "/next").await;
    let exchange = upstream.client().send(get(&upstream.url("/")), &Credentials::none(), &soon()).await.unwrap();
    assert_eq!((exchange.status.as_u16(), &*exchange.body), (302, &b"over there"[..]));
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn method_and_body_follow_the_status() {
    let cases = [
        ("303 See Other", Method::POST, "GET", false),
        ("303 See Other", Method::DELETE, "GET", false),
        ("303 See Other", Method::HEAD, "HEAD", false),
        ("302 Found", Method::POST, "GET", false),
        ("301 Moved Permanently", Method::POST, "GET", false),
        ("301 Moved Permanently", Method::PUT, "PUT", true),
        ("307 Temporary Redirect", Method::POST, "POST", true),
        ("308 Permanent Redirect", Method::PATCH, "PATCH", true),
    ];
    for (status, method, then, keeps_body) in cases {
        let upstream = redirecting(status, "next?a=b#c").await;
        let body = if method == Method::HEAD { "" } else { "body" };
        let spec = request(method, &upstream.url("/"), &[("content-type", "text/plain"), ("x-kept", "1")], body);
        let result = upstream.client().send(spec, &Credentials::none(), &following(1)).await;
        if then == "HEAD" {
            // The canned answer's body is not one for HEAD; the request is what counts.
            drop(result);
        } else {
            let exchange = result.unwrap();
            let sent = exchange.sent.value();
            assert_eq!((exchange.status.as_u16(), &sent["method"]), (200, &json!(then)), "{status}");
            assert_eq!(sent.get("body").is_some(), keeps_body);
        }
        let second = upstream.requests().remove(1);
        assert!(second.starts_with(&format!("{then} /next?a=b HTTP/1.1\r\n")), "{second}");
        assert_eq!(second.ends_with("\r\n\r\nbody"), keeps_body, "{second}");
        assert_eq!(second.contains("content-type"), keeps_body || then == "HEAD", "{second}");
        assert!(second.contains("x-kept: 1"), "{second}");
    }
}

#[tokio::test]
async fn credentials_stay_within_their_origin() {
    let other = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let first = redirecting("307 Temporary Redirect", &other.url("/elsewhere")).await;
    let key = HeaderName::from_static("x-api-key");
    let credentials = Credentials::headers([(key, SecretBytes::new("hunter2!").into())]).unwrap();
    let headers =
        [("authorization", "Bearer typed"), ("cookie", "a=b"), ("x-copy", "has hunter2! inside"), ("x-kept", "1")];
    let client = client(&["127.0.0.1"]);
    let spec = request(Method::POST, &first.url("/"), &headers, "body");
    let options = SendOptions { redirect_scope: RedirectScope::Anywhere, ..following(1) };
    client.send(spec.clone(), &credentials, &options).await.unwrap();
    let sent = other.requests().remove(0);
    for gone in ["hunter2", "x-api-key", "authorization", "cookie", "x-copy"] {
        assert!(!sent.contains(gone), "{gone} in {sent}");
    }
    assert!(sent.contains("x-kept: 1") && sent.ends_with("\r\n\r\nbody"), "{sent}");

    let refused = client.send(spec, &credentials, &following(1)).await.unwrap_err().error;
    assert_eq!((refused.code(), refused.reached()), ("outbound.redirect", Reached::Yes));
    assert!(refused.description().contains("it leads to another origin"), "{refused}");
    assert_eq!(other.requests().len(), 1);
}

#[tokio::test]
async fn credentials_follow_within_their_origin() {
    let upstream = redirecting("302 Found", "/next").await;
    let credentials = Credentials::basic(&"a".into(), &SecretBytes::new("b").into()).unwrap();
    upstream.client().send(get(&upstream.url("/")), &credentials, &following(1)).await.unwrap();
    assert!(upstream.requests()[1].contains("authorization: Basic YTpi"));
}

fn query_key(value: &str) -> Credentials {
    Credentials::custom(None, [], [("key".to_owned(), SecretBytes::new(value).into())]).unwrap()
}

#[tokio::test]
async fn credentials_of_the_query_follow_within_their_origin_only() {
    let upstream = Upstream::answering(|request| match request.starts_with("GET /?") {
        true => answer("302 Found", "location: /next?a=b\r\n", ""),
        false => answer("200 OK", "", ""),
    })
    .await;
    let sent = |target: &str| format!("GET {target} HTTP/1.1\r\n");
    let exchange =
        upstream.client().send(get(&upstream.url("/")), &query_key("hunter2!"), &following(1)).await.unwrap();
    assert!(upstream.requests()[0].starts_with(&sent("/?key=hunter2%21")), "{:?}", upstream.requests());
    assert!(upstream.requests()[1].starts_with(&sent("/next?a=b&key=hunter2%21")), "{:?}", upstream.requests());
    assert!(!exchange.sent.as_str().contains("hunter2"), "{:?}", exchange.sent);

    let other = redirecting("302 Found", "/within").await;
    let first = Upstream::answering({
        let location = format!("location: {}\r\n", other.url("/"));
        move |_| answer("302 Found", &location, "")
    })
    .await;
    let options = SendOptions { redirect_scope: RedirectScope::Anywhere, ..following(3) };
    client(&["127.0.0.1"]).send(get(&first.url("/x?a=b")), &query_key("hunter2!"), &options).await.unwrap();
    assert!(first.requests()[0].starts_with(&sent("/x?a=b&key=hunter2%21")));
    let heard = other.requests();
    assert!(heard[0].starts_with(&sent("/")) && heard[1].starts_with(&sent("/within")), "{heard:?}");
}

#[tokio::test]
async fn a_redirect_takes_no_credential_of_the_query_elsewhere() {
    for value in ["hunter2!", "12"] {
        let other = Upstream::answering(|_| answer("200 OK", "", "")).await;
        let location = format!("location: {}\r\n", other.url(&format!("/?key={value}")));
        let first = Upstream::answering(move |_| answer("302 Found", &location, "")).await;
        let options = SendOptions { redirect_scope: RedirectScope::Anywhere, ..following(1) };
        let failed = client(&["127.0.0.1"]).send(get(&first.url("/")), &query_key(value), &options).await.unwrap_err();
        assert!(failed.error.description().contains("it takes a credential of the account"), "{}", failed.error);
        assert!(!format!("{failed:?}").contains(&format!("key={value}")), "{failed:?}");
        assert_eq!(other.requests().len(), 0);
    }
}

#[tokio::test]
async fn redirects_without_end_end() {
    let upstream = redirecting("302 Found", "/").await;
    let failed = upstream.client().send(get(&upstream.url("/")), &Credentials::none(), &following(3)).await;
    let error = failed.unwrap_err().error;
    assert!(error.description().contains("3 redirects are followed at most"), "{error}");
    assert_eq!(upstream.requests().len(), 4);
    let failed = upstream.client().send(get(&upstream.url("/")), &Credentials::none(), &following(200)).await;
    assert!(failed.unwrap_err().error.description().contains("5 redirects are followed at most"));
}

#[tokio::test]
async fn a_location_that_cannot_be_followed() {
    for location in ["ftp://127.0.0.1/", "javascript:alert(1)", "http://user:secret@127.0.0.1/", "http://"] {
        let upstream = redirecting("302 Found", location).await;
        let options = SendOptions { redirect_scope: RedirectScope::Anywhere, ..following(1) };
        let client: Outbound = upstream.client();
        let error = client.send(get(&upstream.url("/")), &Credentials::none(), &options).await.unwrap_err().error;
        assert_eq!(error.code(), "outbound.redirect", "{location}: {error}");
        assert!(!error.description().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_without_location_is_an_answer() {
    let upstream = Upstream::answering(|_| answer("302 Found", "", "lost")).await;
    let exchange = upstream.client().send(get(&upstream.url("/")), &Credentials::none(), &following(1)).await;
    assert_eq!(exchange.unwrap().status, 302);
}
