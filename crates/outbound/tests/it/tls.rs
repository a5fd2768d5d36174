//! TLS: who is trusted, what is negotiated, and how a silent handshake ends.

use std::convert::Infallible;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkspan_outbound::{Credentials, Outbound, Reached, RedirectScope, Roots, SendErrorKind, SendOptions, Stage};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::upstream::{Upstream, answer, client_with_names, get, read_request, soon, stall, write};

// A root and a certificate of it for upstream.test, valid until 2125, for these tests only.
const ROOT: &[u8] = include_bytes!("certificates/root.der");
const LEAF: &[u8] = include_bytes!("certificates/leaf.der");
const LEAF_KEY: &[u8] = include_bytes!("certificates/leaf-key.der");

fn acceptor(protocol: &str) -> TlsAcceptor {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(LEAF)], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(LEAF_KEY)))
        .unwrap();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// HTTP/1.1 over TLS, answering each connection's request with this.
async fn serving(text: String) -> Upstream {
    let acceptor = acceptor("http/1.1");
    Upstream::raw(move |stream| {
        let (acceptor, text) = (acceptor.clone(), text.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            while read_request(&mut stream).await.is_some() {
                write(&mut stream, &text).await;
            }
        }
    })
    .await
}

fn trusting() -> Outbound {
    client_with_names(&["127.0.0.1"], Roots::with_extra([ROOT.to_vec()]))
}

fn url(upstream: &Upstream, host: &str) -> String {
    format!("https://{host}:{}/", upstream.address.port())
}

#[tokio::test]
async fn a_trusted_certificate_for_the_right_name() {
    let upstream = serving(answer("200 OK", "", "over TLS")).await;
    let spec = get(&url(&upstream, "upstream.test"));
    let exchange = trusting().send(spec, &Credentials::none(), &SendOptions::default()).await.unwrap();
    assert_eq!(&*exchange.body, b"over TLS");
    let timings = exchange.timings;
    assert!(timings.dns_us.is_some() && timings.connect_us.is_some() && timings.tls_us.is_some(), "{timings:?}");
}

/// Runs the test above again, in a process that finds no certificates of the system, as in an empty container.
#[test]
fn a_system_without_certificates_has_the_built_in_ones() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "tls::a_trusted_certificate_for_the_right_name"]);
    again.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
    let output = again.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn certificates_are_verified() {
    let upstream = serving(answer("200 OK", "", "")).await;
    let untrusting = client_with_names(&["127.0.0.1"], Roots::system());
    for (client, host) in [(untrusting, "upstream.test"), (trusting(), "other.test"), (trusting(), "127.0.0.1")] {
        let spec = get(&url(&upstream, host));
        let error = client.send(spec, &Credentials::none(), &SendOptions::default()).await.unwrap_err().error;
        assert_eq!((error.code(), error.reached()), ("outbound.tls", Reached::No), "{error}");
        assert!(error.description().contains("its certificate is not accepted"), "{error}");
    }
}

#[tokio::test]
async fn a_handshake_that_stalls() {
    let upstream = Upstream::raw(|stream| async move {
        stall().await;
        drop(stream);
    })
    .await;
    let error = trusting().send(get(&url(&upstream, "upstream.test")), &Credentials::none(), &soon()).await;
    let error = error.unwrap_err().error;
    let SendErrorKind::Timeout(timeout) = &error.kind else { panic!("{error}") };
    assert_eq!((timeout.stage, timeout.bytes_sent, timeout.after), (Stage::Tls, false, soon().tls));
    assert!(error.description().ends_with("waiting for the TLS handshake); nothing was sent"), "{error}");
}

/// The statuses of twenty requests that are sent at a time, none for those that failed.
async fn send_together(client: &Outbound, url: &str) -> Vec<Option<u16>> {
    let mut sending = JoinSet::new();
    for _ in 0..20 {
        let (client, spec) = (client.clone(), get(url));
        sending.spawn(async move {
            let came = client.send(spec, &Credentials::none(), &SendOptions::default()).await;
            came.ok().map(|exchange| exchange.status.as_u16())
        });
    }
    sending.join_all().await
}

#[tokio::test]
async fn requests_that_come_together_share_the_first_connection() {
    let acceptor = acceptor("h2");
    let dialed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dialed);
    let upstream = Upstream::raw(move |stream| {
        let acceptor = acceptor.clone();
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            // So that all of them come before the first is there.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            drop(serving.await);
        }
    })
    .await;
    let (client, url) = (trusting(), url(&upstream, "upstream.test"));
    let answers = send_together(&client, &url).await;
    assert!(answers.iter().all(|status| *status == Some(200)));
    assert_eq!(dialed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn first_connection_that_fails_holds_up_nobody_else() {
    let acceptor = acceptor("http/1.1");
    let dialed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dialed);
    let upstream = Upstream::raw(move |stream| {
        let acceptor = acceptor.clone();
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if number == 0 {
                return;
            }
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            });
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        }
    })
    .await;
    let (client, url) = (trusting(), url(&upstream, "upstream.test"));
    let began = tokio::time::Instant::now();
    let answers = send_together(&client, &url).await;
    assert_eq!(answers.iter().flatten().count(), 19);
    // Not one after the other.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn speaks_http_2_where_the_other_side_does() {
    let acceptor = acceptor("h2");
    let upstream = Upstream::raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(|request: Request<Incoming>| async move {
                let text = format!("{:?} {} {:?}", request.version(), request.uri(), request.headers().get("host"));
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            drop(serving.await);
        }
    })
    .await;
    let client = trusting();
    let url = url(&upstream, "upstream.test");
    let options = SendOptions::default();
    let first = client.send(get(&url), &Credentials::none(), &options).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&first.body), format!("HTTP/2.0 {url} None"));
    assert!(first.timings.tls_us.is_some());
    let second = client.send(get(&url), &Credentials::none(), &options).await.unwrap();
    assert!(second.timings.connect_us.is_none(), "one connection carries both");
}

#[tokio::test]
async fn a_redirect_does_not_leave_tls() {
    let plain = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let upstream = serving(answer("302 Found", &format!("location: {}\r\n", plain.url("/")), "")).await;
    let options = SendOptions { redirects: 1, redirect_scope: RedirectScope::Anywhere, ..SendOptions::default() };
    let spec = get(&url(&upstream, "upstream.test"));
    let error = trusting().send(spec, &Credentials::none(), &options).await.unwrap_err().error;
    assert!(error.description().contains("it leads from https to http"), "{error}");
    assert!(plain.requests().is_empty());
}
