//! Answers that come packed, in part, wrongly, or far too well.

use std::io::Write as _;
use std::time::{Duration, Instant};

use http::Method;
use linkspan_model::secret::{MASK, SecretBytes};
use linkspan_outbound::{Credentials, Exchange, Part, Reached, SendError, SendErrorKind, SendOptions};
use tokio::io::AsyncWriteExt as _;

use crate::upstream::{Upstream, get, read_request, request, soon};
use serde_json::json;

/// A server whose answers have these headers and this body.
async fn packed(headers: &'static str, body: Vec<u8>) -> Upstream {
    Upstream::raw(move |mut stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        let answer = [head.into_bytes(), body.clone()].concat();
        async move {
            while read_request(&mut stream).await.is_some() {
                stream.write_all(&answer).await.unwrap();
            }
        }
    })
    .await
}

async fn read(headers: &'static str, body: Vec<u8>) -> Result<Exchange, SendError> {
    let upstream = packed(headers, body).await;
    let sent = upstream.client().send(get(&upstream.url("/")), &Credentials::none(), &soon()).await;
    sent.map_err(|failed| failed.error)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_packed_answer_is_unpacked_and_its_headers_stay() {
    let body = gzip(b"{\"a\":1}");
    let size = body.len().to_string();
    let exchange = read("content-encoding: gzip\r\n", body).await.unwrap();
    assert_eq!((&*exchange.body, &exchange.undecoded), (&b"{\"a\":1}"[..], &None));
    assert_eq!(
        (&exchange.headers["content-encoding"], &exchange.headers["content-length"]),
        (&"gzip".parse().unwrap(), &size.parse().unwrap())
    );
    let shown = exchange.received(None, &Credentials::none()).value();
    assert_eq!(shown["body"], json!({"text": "{\"a\":1}", "size": 7}));
    assert_eq!(shown["headers"][1], json!(["content-encoding", "gzip"]));
}

#[tokio::test]
async fn an_empty_body_needs_no_unpacking() {
    let exchange = read("content-encoding: gzip\r\n", Vec::new()).await.unwrap();
    assert!(exchange.body.is_empty() && exchange.received_text(&Credentials::none()).is_none());
}

#[tokio::test]
async fn a_coding_that_nobody_asked_for_is_handed_on() {
    let exchange = read("content-encoding: compress\r\n", b"\x1f\x9d".to_vec()).await.unwrap();
    assert_eq!((&*exchange.body, exchange.undecoded.as_deref()), (&b"\x1f\x9d"[..], Some("compress")));
}

#[tokio::test]
async fn what_is_not_packed_as_it_says_is_an_error() {
    let whole = gzip(b"hello hello hello");
    for (body, reason) in
        [(b"plain text and no more".to_vec(), "invalid gzip header"), (whole[..20].to_vec(), "it ends early")]
    {
        let error = read("content-encoding: gzip\r\n", body).await.unwrap_err();
        assert_eq!((error.code(), error.reached()), ("outbound.encoding", Reached::Yes));
        let text = error.description();
        assert!(text.contains(&format!("cannot be unpacked as gzip: {reason}; the request was answered")), "{text}");
    }
}

#[tokio::test]
async fn a_bomb_ends_soon_and_by_name() {
    // A gigabyte of zeros in a megabyte, and in a few kilobytes.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..1_024 {
        encoder.write_all(&zeros).unwrap();
    }
    let once = encoder.finish().unwrap();
    let zstd = zstd::stream::encode_all(&mut std::io::Read::take(std::io::repeat(0), 1 << 30), 1).unwrap();
    for (headers, body) in [
        ("content-encoding: gzip, gzip\r\n", gzip(&once)),
        ("content-encoding: gzip\r\n", once),
        ("content-encoding: zstd\r\n", zstd),
    ] {
        let started = Instant::now();
        let error = read(headers, body).await.unwrap_err();
        assert_eq!(error.kind, SendErrorKind::TooLarge { status: 200, max: 10 << 20 }, "{headers}");
        assert!(started.elapsed() < Duration::from_secs(3), "{headers}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn the_limit_counts_what_was_unpacked() {
    let upstream = packed("content-encoding: gzip\r\n", gzip(&[b'x'; 1_024])).await;
    for (max, is_ok) in [(1_024, true), (1_023, false)] {
        let options = SendOptions { response_max_bytes: max, ..soon() };
        let sent = upstream.client().send(get(&upstream.url("/")), &Credentials::none(), &options).await;
        assert_eq!(sent.is_ok(), is_ok, "{max}");
    }
}

#[tokio::test]
async fn a_secret_in_a_packed_answer_is_masked() {
    let upstream = packed("content-encoding: gzip\r\n", gzip(b"you sent hunter2!")).await;
    let credentials = Credentials::basic(&"joe".into(), &Part::Secret(SecretBytes::new("hunter2!"))).unwrap();
    let exchange = upstream.client().send(get(&upstream.url("/")), &credentials, &soon()).await.unwrap();
    assert_eq!(exchange.received_text(&credentials).unwrap(), format!("you sent {MASK}"));
}

#[tokio::test]
async fn asks_for_what_it_can_unpack_but_not_for_parts_of_it() {
    let upstream = Upstream::answering(|_| crate::upstream::answer("200 OK", "", "")).await;
    for headers in [&[][..], &[("range", "bytes=0-3")]] {
        let spec = request(Method::GET, &upstream.url("/"), headers, "");
        upstream.client().send(spec, &Credentials::none(), &soon()).await.unwrap();
    }
    let sent = upstream.requests();
    assert!(sent[0].contains("\r\naccept-encoding: gzip, br, zstd\r\n"), "{}", sent[0]);
    assert!(sent[1].contains("\r\naccept-encoding: identity\r\n"), "{}", sent[1]);
}
