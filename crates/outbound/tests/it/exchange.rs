//! What is sent, what comes back, and what is shown of both.

use std::time::Duration;

use http::{HeaderName, Method};
use linkspan_model::connection::HeaderCase;
use linkspan_model::secret::{MASK, SecretBytes};
use linkspan_outbound::{Credentials, Part, SendOptions};

use tokio::io::AsyncWriteExt as _;

use crate::upstream::{Upstream, answer, get, read_request, request, soon, unheard};

fn secret(text: &str) -> Part {
    Part::Secret(SecretBytes::new(text))
}

#[tokio::test]
async fn sends_what_it_is_given_and_little_more() {
    let upstream = Upstream::answering(|_| answer("201 Created", "x-id: 7\r\n", "made")).await;
    let headers = [("content-type", "text/plain"), ("x-twice", "1"), ("x-twice", "2")];
    let spec = request(Method::POST, &upstream.url("/a%20b?q=%7B%7D#part"), &headers, "hello");
    let exchange = upstream.client().send(spec, &Credentials::none(), &soon()).await.unwrap();
    assert_eq!((exchange.status.as_u16(), &*exchange.body), (201, &b"made"[..]));
    assert_eq!(exchange.headers["x-id"], "7");
    let head = [
        "POST /a%20b?q=%7B%7D HTTP/1.1",
        "content-type: text/plain",
        "x-twice: 1",
        "x-twice: 2",
        concat!("user-agent: linkspan/", env!("CARGO_PKG_VERSION")),
        "accept-encoding: gzip, br, zstd",
        "content-length: 5",
        &format!("host: {}", upstream.address),
    ]
    .join("\r\n");
    assert_eq!(upstream.requests(), [format!("{head}\r\n\r\nhello")]);
    let sent = exchange.sent.value();
    assert_eq!(sent["url"], upstream.url("/a%20b?q=%7B%7D"));
    assert_eq!(sent["body"]["text"], "hello");
    assert_eq!(exchange.received_text(&Credentials::none()).unwrap(), "made");
}

#[tokio::test]
async fn a_step_may_name_its_own_agent_and_encodings() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let headers = [("user-agent", "mine"), ("accept-encoding", "gzip")];
    let spec = request(Method::GET, &upstream.url("/"), &headers, "");
    upstream.client().send(spec, &Credentials::none(), &soon()).await.unwrap();
    let sent = upstream.requests().remove(0);
    assert!(sent.contains("user-agent: mine\r\n") && sent.contains("accept-encoding: gzip\r\n"), "{sent}");
    assert!(!sent.contains("content-length") && !sent.contains("linkspan"), "{sent}");
}

#[tokio::test]
async fn names_of_headers_are_written_as_the_connection_wants() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let client = upstream.client();
    let credentials = Credentials::headers([(HeaderName::from_static("x-api-key"), secret("hunter2!"))]).unwrap();
    for header_case in [HeaderCase::Title, HeaderCase::Lower] {
        let spec = request(Method::POST, &upstream.url("/"), &[("x-b", "v"), ("content-type", "text/plain")], "");
        let options = SendOptions { header_case, ..soon() };
        let exchange = client.send(spec, &credentials, &options).await.unwrap();
        let sent = upstream.requests().pop().unwrap();
        let names: Vec<&str> = sent.lines().skip(1).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
        let expected = match header_case {
            HeaderCase::Title => {
                ["X-B", "Content-Type", "User-Agent", "Accept-Encoding", "X-Api-Key", "Content-Length", "Host"]
            }
            HeaderCase::Lower => {
                ["x-b", "content-type", "user-agent", "accept-encoding", "x-api-key", "content-length", "host"]
            }
        };
        assert_eq!(names, expected);
        // The history shows Host first, which is known before the rest.
        let sent = exchange.sent.value();
        let shown = sent["headers"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap());
        assert_eq!(shown.collect::<Vec<_>>(), [&expected[6..], &expected[..6]].concat());
    }
}

#[tokio::test]
async fn an_empty_post_says_its_length() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let spec = request(Method::POST, &upstream.url("/"), &[], "");
    upstream.client().send(spec, &Credentials::none(), &soon()).await.unwrap();
    assert_eq!(upstream.requests()[0].matches("content-length: 0\r\n").count(), 1);
}

#[tokio::test]
async fn basic_credentials_reach_the_other_side() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let credentials = Credentials::basic(&"Aladdin".into(), &secret("open sesame")).unwrap();
    upstream.client().send(get(&upstream.url("/")), &credentials, &soon()).await.unwrap();
    assert!(upstream.requests()[0].contains("\r\nauthorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"));
}

#[tokio::test]
async fn nothing_shown_holds_a_secret() {
    // Sends back all that it got, in a header as well.
    let upstream = Upstream::answering(|request| {
        let authorization = request.lines().find(|line| line.starts_with("authorization: ")).unwrap();
        answer("200 OK", &format!("x-echo-{authorization}\r\n"), request)
    })
    .await;
    let password = "p4ss/w\"ord & more+";
    let credentials = Credentials::basic(&"joe".into(), &secret(password)).unwrap();
    let url = upstream.url("/p4ss%2Fw%22ord%20%26%20more%2B?key=p4ss/w%22ord%20&%20more+");
    let body = r#"{"password": "p4ss/w\"ord & more+", "other": "kept"}"#;
    let exchange = upstream.client().send(request(Method::POST, &url, &[], body), &credentials, &soon()).await.unwrap();
    let shown = format!("{}{}", exchange.sent.as_str(), exchange.received(None, &credentials).as_str());
    for trace in ["p4ss", "ord%20", "more", "cDRzcy93", "am9lOnA0c3M"] {
        assert!(!shown.contains(trace), "{trace} in {shown}");
    }
    assert!(shown.contains("kept") && shown.contains(MASK));
    assert!(String::from_utf8_lossy(&exchange.body).contains(r#"p4ss/w\"ord & more+"#), "the step gets what came");
    assert!(!format!("{credentials:?} {:?}", exchange.sent).contains("p4ss"));
}

#[tokio::test]
async fn a_failed_request_is_shown_without_its_secrets() {
    let (_socket, address) = unheard();
    let token = HeaderName::from_static("x-api-key");
    let credentials = Credentials::headers([(token, secret("hunter2!"))]).unwrap();
    let client = crate::upstream::client(&["127.0.0.1"]);
    let failed = client.send(get(&format!("http://{address}/hunter2!")), &credentials, &soon()).await.unwrap_err();
    assert!(!format!("{failed:?} {}", failed.error).contains("hunter2"));
    assert_eq!(failed.sent.value()["url"], format!("http://{address}/{MASK}"));
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_no_failure() {
    let upstream = Upstream::raw(|mut stream| async move {
        // Says nothing of it, as servers that are tired of waiting do.
        if read_request(&mut stream).await.is_some() {
            drop(stream.write_all(answer("200 OK", "", "here").as_bytes()).await);
        }
    })
    .await;
    let client = upstream.client();
    for _ in 0..3 {
        let spec = request(Method::POST, &upstream.url("/a?b=c"), &[], "body");
        let exchange = client.send(spec, &Credentials::none(), &soon()).await.unwrap();
        assert_eq!((&*exchange.body, exchange.timings.connect_us.is_some()), (&b"here"[..], true));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn only_a_fresh_connection_has_times_of_its_own() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let client = upstream.client();
    let mut timings = Vec::new();
    for _ in 0..2 {
        timings.push(client.send(get(&upstream.url("/")), &Credentials::none(), &soon()).await.unwrap().timings);
        tokio::task::yield_now().await;
    }
    assert!(timings[0].connect_us.is_some() && timings[0].dns_us.is_none() && timings[0].tls_us.is_none());
    assert!(timings[1].connect_us.is_none(), "the connection was kept");
    assert!(timings.iter().all(|timings| timings.first_byte_us.unwrap() <= timings.total_us));
}

#[tokio::test]
async fn a_folded_header_is_read_as_blanks() {
    let upstream = Upstream::answering(|_| answer("200 OK", "x-name: a\r\n b\r\n\tc\r\nx-other: d\r\n", "ok")).await;
    let spec = request(Method::GET, &upstream.url("/"), &[], "");
    let exchange = upstream.client().send(spec, &Credentials::none(), &soon()).await.unwrap();
    assert_eq!(
        (exchange.headers["x-name"].as_bytes(), exchange.headers["x-other"].as_bytes()),
        (&b"a b c"[..], &b"d"[..])
    );
    assert_eq!(&*exchange.body, b"ok");
}
