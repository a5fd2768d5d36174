//! How an exchange ends when the other side is slow, huge, wrong or gone.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use linkspan_outbound::{Credentials, Reached, SendError, SendErrorKind, SendOptions, Stage};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::upstream::{Upstream, answer, client, get, read_request, request, soon, stall, write};

async fn error(upstream: &Upstream, options: &SendOptions) -> SendError {
    let spec = request(Method::POST, &upstream.url("/"), &[], "body");
    upstream.client().send(spec, &Credentials::none(), options).await.unwrap_err().error
}

fn timeout(error: &SendError) -> (Stage, bool) {
    match &error.kind {
        SendErrorKind::Timeout(timeout) => (timeout.stage, timeout.bytes_sent),
        other => panic!("no time was over: {other:?}"),
    }
}

#[tokio::test]
async fn a_head_that_does_not_come() {
    let upstream = Upstream::raw(|mut stream| async move {
        read_request(&mut stream).await;
        stall().await;
    })
    .await;
    let started = Instant::now();
    let error = error(&upstream, &soon()).await;
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(timeout(&error), (Stage::FirstByte, true));
    assert_eq!((error.code(), error.reached()), ("outbound.timeout", Reached::Maybe));
    let text = error.description();
    assert!(text.starts_with(&format!("no answer from {} within 200 ms (connected in ", upstream.address)), "{text}");
    assert!(
        text.ends_with(
            " ms, waiting for headers); the request may have been processed, retry only if it is safe to repeat"
        ),
        "{text}"
    );
}

#[tokio::test]
async fn a_head_that_trickles() {
    let upstream = Upstream::raw(|mut stream| async move {
        read_request(&mut stream).await;
        write(&mut stream, "HTTP/1.1 200 OK\r\nx-a: ").await;
        loop {
            write(&mut stream, "a").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let error = error(&upstream, &soon()).await;
    assert_eq!(timeout(&error), (Stage::FirstByte, true));
}

#[tokio::test]
async fn a_body_that_stalls() {
    let upstream = Upstream::raw(|mut stream| async move {
        read_request(&mut stream).await;
        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        stall().await;
    })
    .await;
    let error = error(&upstream, &SendOptions { total: Duration::from_millis(250), ..soon() }).await;
    assert_eq!((timeout(&error), error.reached()), ((Stage::Body, true), Reached::Yes));
    let text = error.description();
    assert!(text.contains("within 250 ms") && text.contains("reading the body"), "{text}");
    assert!(text.ends_with("was answered with status 200, retry only if it is safe to repeat"), "{text}");
}

#[tokio::test]
async fn an_upload_that_nobody_reads() {
    let upstream = Upstream::raw(|stream| async move {
        stall().await;
        drop(stream);
    })
    .await;
    let mut spec = request(Method::POST, &upstream.url("/"), &[], "");
    spec.body = Bytes::from(vec![b'x'; 32 << 20]);
    let error = upstream.client().send(spec, &Credentials::none(), &soon()).await.unwrap_err().error;
    assert_eq!((timeout(&error), error.reached()), ((Stage::Send, true), Reached::Maybe));
}

#[tokio::test]
async fn a_slow_upload_is_not_taken_for_a_slow_answer() {
    let upstream = Upstream::raw(|mut stream| async move {
        let mut read = 0;
        let mut buffer = vec![0; 256 << 10];
        while read < 16 << 20 {
            read += stream.read(&mut buffer).await.unwrap();
            // Slower than an answer may be, but only while the sender still waits for room in the sockets.
            if read < 8 << 20 {
                tokio::time::sleep(Duration::from_millis(12)).await;
            }
        }
        write(&mut stream, &answer("200 OK", "", "")).await;
        stall().await;
    })
    .await;
    let mut spec = request(Method::POST, &upstream.url("/"), &[], "");
    spec.body = Bytes::from(vec![b'x'; 16 << 20]);
    let options = SendOptions { first_byte: Duration::from_millis(300), ..soon() };
    let exchange = upstream.client().send(spec, &Credentials::none(), &options).await.unwrap();
    assert_eq!(exchange.status, 200);
}

#[tokio::test]
async fn a_connection_that_does_not_come_about() {
    // A queue that is full drops further attempts: they wait.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue never fills");
    }
    let client = client(&["127.0.0.1"]);
    let sent = client.send(get(&format!("http://{address}/")), &Credentials::none(), &soon()).await;
    let error = sent.unwrap_err().error;
    assert_eq!((timeout(&error), error.reached()), ((Stage::Connect, false), Reached::No));
    assert_eq!(error.description(), format!("no connection to {address} within 200 ms (connecting); nothing was sent"));
}

#[tokio::test]
async fn a_body_above_the_cap() {
    let declared = "HTTP/1.1 200 OK\r\ncontent-length: 1025\r\n\r\n".to_owned();
    let endless = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}",
        "100\r\n".to_owned() + &"x".repeat(256) + "\r\n"
    );
    for (first, then) in [(declared, ""), (endless, "8\r\nxxxxxxxx\r\n")] {
        let upstream = Upstream::raw(move |mut stream| {
            let first = first.clone();
            async move {
                read_request(&mut stream).await;
                write(&mut stream, &first).await;
                for _ in 0..1_000 {
                    write(&mut stream, then).await;
                }
                stall().await;
            }
        })
        .await;
        let error = error(&upstream, &SendOptions { response_max_bytes: 1_024, ..soon() }).await;
        assert_eq!(error.kind, SendErrorKind::TooLarge { status: 200, max: 1_024 });
        assert!(error.description().contains("longer than its limit of 1,024 bytes"), "{error}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_body_at_the_cap() {
    let body = "x".repeat(1_024);
    let upstream = Upstream::answering(move |_| answer("200 OK", "", &body)).await;
    let options = SendOptions { response_max_bytes: 1_024, ..soon() };
    let exchange = upstream.client().send(get(&upstream.url("/")), &Credentials::none(), &options).await.unwrap();
    assert_eq!(exchange.body.len(), 1_024);
}

/// Reads the request, writes this, closes.
async fn closing(text: &'static str) -> SendError {
    let upstream = Upstream::raw(move |mut stream| async move {
        read_request(&mut stream).await;
        write(&mut stream, text).await;
    })
    .await;
    error(&upstream, &soon()).await
}

#[tokio::test]
async fn a_connection_that_closes_early() {
    let error = closing("").await;
    assert_eq!((error.code(), error.reached()), ("outbound.reset", Reached::Maybe), "{error}");
    let error = closing("HTTP/1.1 200 OK\r\nx-half: ").await;
    assert_eq!((error.code(), error.reached()), ("outbound.reset", Reached::Maybe), "{error}");
    let error = closing("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert_eq!((error.code(), error.reached()), ("outbound.reset", Reached::Yes), "{error}");
    let error = closing("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf").await;
    assert_eq!((error.code(), error.reached()), ("outbound.reset", Reached::Yes), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_not_http() {
    let error = closing("SSH-2.0-OpenSSH_9.2p1 of the house\r\n").await;
    assert_eq!((error.code(), error.reached()), ("outbound.protocol", Reached::Maybe), "{error}");
    assert!(!error.description().contains("SSH"), "what came is not quoted: {error}");
    let error = closing("HTTP/1.1 200 OK\r\nbad header\r\n\r\n").await;
    assert_eq!(error.code(), "outbound.protocol", "{error}");
    let error = closing("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhalf\r\n").await;
    assert_eq!((error.code(), error.reached()), ("outbound.protocol", Reached::Yes), "{error}");
}

#[tokio::test]
async fn a_head_above_the_cap() {
    let endless = Upstream::raw(|mut stream| async move {
        read_request(&mut stream).await;
        write(&mut stream, "HTTP/1.1 200 OK\r\n").await;
        for at in 0..100_000 {
            write(&mut stream, &format!("x-{at}: {}\r\n", "y".repeat(1_000))).await;
        }
    })
    .await;
    let error = error(&endless, &soon()).await;
    assert_eq!(error.code(), "outbound.protocol", "{error}");
}

#[tokio::test]
async fn a_kept_connection_that_went_away_is_replaced() {
    let upstream = Upstream::raw(|mut stream| async move {
        read_request(&mut stream).await;
        write(&mut stream, &answer("200 OK", "", "")).await;
    })
    .await;
    let client = upstream.client();
    for _ in 0..3 {
        let sent = client.send(get(&upstream.url("/")), &Credentials::none(), &soon()).await;
        assert_eq!(sent.unwrap().status, 200);
        // Until the client has seen the end of the connection.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
