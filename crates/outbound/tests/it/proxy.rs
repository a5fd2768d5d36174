//! Proxies that do what a test says: what they are asked for, what they hear, and how their refusals are told.

use std::sync::{Arc, Mutex};

use linkspan_model::SecretBytes;
use linkspan_model::proxy::ProxySpec;
use linkspan_outbound::{
    Credentials, Exchange, Outbound, ProxyLogin, Reached, RedirectScope, Roots, SendError, SendOptions,
    TransportSettings,
};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use crate::upstream::{Upstream, answer, client_with_names, get, read_request, soon, stall, unheard, write};

/// A proxy that opens tunnels to this machine, whatever name it is asked for, and remembers what it heard.
async fn tunnelling() -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heard);
    let proxy = Upstream::raw(move |mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            let Some(request) = read_request(&mut stream).await else { return };
            let port =
                request.split_whitespace().nth(1).and_then(|target| target.rsplit(':').next()).unwrap().to_owned();
            seen.lock().unwrap().push(request);
            let mut target = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
            write(&mut stream, "HTTP/1.0 200 Connection established\r\nProxy-agent: test\r\n\r\n").await;
            drop(copy_bidirectional(&mut stream, &mut target).await);
        }
    })
    .await;
    (proxy, heard)
}

/// A proxy that answers with this.
async fn answering(text: &'static str) -> Upstream {
    Upstream::raw(move |mut stream| async move {
        if read_request(&mut stream).await.is_some() {
            write(&mut stream, text).await;
        }
    })
    .await
}

fn spec(url: &str, resolve: &str) -> ProxySpec {
    let spec: ProxySpec = serde_json::from_value(json!({"url": url, "resolve": resolve})).unwrap();
    assert_eq!(spec.faults(), []);
    spec
}

/// A client to whom every name is loopback, and which may call these addresses.
fn client(allow: &[&Upstream]) -> Outbound {
    let allow: Vec<String> = allow.iter().map(|upstream| upstream.address.to_string()).collect();
    client_with_names(&allow.iter().map(String::as_str).collect::<Vec<_>>(), Roots::system())
}

async fn send(
    client: &Outbound,
    proxy: &ProxySpec,
    login: Option<&ProxyLogin>,
    url: &str,
) -> Result<Exchange, SendError> {
    let transport =
        client.transport(&TransportSettings { proxy: Some((proxy, login)), ..TransportSettings::default() });
    let options = SendOptions {
        transport: Some(transport.unwrap()),
        redirects: 2,
        redirect_scope: RedirectScope::Anywhere,
        ..soon()
    };
    client.send(get(url), &Credentials::none(), &options).await.map_err(|failed| failed.error)
}

#[tokio::test]
async fn a_tunnel_leads_to_the_address_that_was_judged() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "through")).await;
    let (proxy, heard) = tunnelling().await;
    let client = client(&[&upstream, &proxy]);
    let port = upstream.address.port();
    let login = ProxyLogin { user: "robot".into(), password: SecretBytes::new("pr0xy:pass") };
    let by_name = spec(&format!("http://the.proxy:{}", proxy.address.port()), "here");
    let exchange = send(&client, &by_name, Some(&login), &format!("http://api.test:{port}/x")).await.unwrap();
    assert_eq!(&*exchange.body, b"through");
    let timings = exchange.timings;
    assert!(timings.dns_us.is_some() && timings.connect_us.is_some() && timings.tls_us.is_none(), "{timings:?}");

    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 1);
    assert!(heard[0].starts_with(&format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n")), "{heard:?}");
    assert!(heard[0].contains(&format!("host: 127.0.0.1:{port}\r\n")), "{heard:?}");
    assert!(heard[0].contains("proxy-authorization: Basic cm9ib3Q6cHIweHk6cGFzcw==\r\n"), "{heard:?}");
    let requests = upstream.requests();
    assert!(requests[0].starts_with("GET /x HTTP/1.1\r\n") && requests[0].contains("host: api.test"), "{requests:?}");
    assert!(!requests[0].to_lowercase().contains("proxy"), "{requests:?}");

    // The second request needs no second tunnel.
    let exchange = send(&client, &by_name, Some(&login), &format!("http://api.test:{port}/y")).await.unwrap();
    assert!(exchange.timings.connect_us.is_none());
}

#[tokio::test]
async fn a_proxy_that_looks_names_up_is_asked_for_the_name() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "through")).await;
    let (proxy, heard) = tunnelling().await;
    let client = client(&[&proxy]);
    let port = upstream.address.port();
    let resolving = spec(&proxy.url(""), "proxy");
    let exchange = send(&client, &resolving, None, &format!("http://api.test:{port}/")).await.unwrap();
    assert!(exchange.timings.dns_us.is_none() && exchange.timings.connect_us.is_some());
    assert!(heard.lock().unwrap()[0].starts_with(&format!("CONNECT api.test:{port} HTTP/1.1\r\n")));
    // Addresses are judged all the same, and names that are addresses everywhere.
    for host in
        ["127.0.0.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "localhost", "a.localhost", "169.254.169.254"]
    {
        let error = send(&client, &resolving, None, &format!("http://{host}:{port}/")).await.unwrap_err();
        assert_eq!(error.code(), "outbound.refused", "{host}: {error}");
    }
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_proxy_is_not_asked_for_what_the_guard_refuses() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let (proxy, heard) = tunnelling().await;
    let here = spec(&proxy.url(""), "here");
    let url = format!("http://api.test:{}/", upstream.address.port());
    let error = send(&client(&[&proxy]), &here, None, &url).await.unwrap_err();
    assert_eq!((error.code(), error.reached()), ("outbound.refused", Reached::No), "{error}");
    assert!(!error.description().contains("proxy"), "{error}");
    assert!(heard.lock().unwrap().is_empty());

    // Nor is a proxy dialled that it refuses.
    let error = send(&client(&[&upstream]), &here, None, &url).await.unwrap_err();
    assert_eq!((error.code(), error.is_transient()), ("outbound.refused", false), "{error}");
    let address = proxy.address;
    assert!(
        error
            .description()
            .contains(&format!("its proxy {address} is closed to us: {address} is not a public address")),
        "{error}"
    );
    assert!(heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn redirects_take_the_same_way() {
    let (closed, open) = (
        Upstream::answering(|_| answer("200 OK", "", "")).await,
        Upstream::answering(|_| answer("200 OK", "", "there")).await,
    );
    let ports = (closed.address.port(), open.address.port());
    let upstream = Upstream::answering(move |request| {
        let port = if request.starts_with("GET /closed") { ports.0 } else { ports.1 };
        answer("302 Found", &format!("location: http://other.test:{port}/\r\n"), "")
    })
    .await;
    let (proxy, heard) = tunnelling().await;
    let client = client(&[&upstream, &open, &proxy]);
    let here = spec(&proxy.url(""), "here");
    let url = |path: &str| format!("http://api.test:{}/{path}", upstream.address.port());
    assert_eq!(&*send(&client, &here, None, &url("open")).await.unwrap().body, b"there");
    assert_eq!(heard.lock().unwrap().len(), 2);
    let error = send(&client, &here, None, &url("closed")).await.unwrap_err();
    assert_eq!(error.code(), "outbound.refused", "{error}");
    assert_eq!((heard.lock().unwrap().len(), closed.requests().len()), (2, 0));
}

#[tokio::test]
async fn says_that_it_was_the_proxy() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let login = ProxyLogin { user: "robot".into(), password: SecretBytes::new("pr0xy-pass") };
    let target = upstream.address;
    for (text, login, words, is_transient) in [
        ("HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n", None, "wants credentials (407)".to_owned(), false),
        ("HTTP/1.1 407 No\r\n\r\npr0xy-pass", Some(&login), "does not accept the user and password".to_owned(), false),
        (
            "HTTP/1.1 403 Filtered\r\ncontent-length: 2\r\n\r\nno",
            None,
            format!("gives no tunnel to {target}: it answered 403 Forbidden"),
            false,
        ),
        ("HTTP/1.1 502 Bad\r\n\r\n", None, "it answered 502 Bad Gateway".to_owned(), true),
        ("SSH-2.0-OpenSSH_9.2\r\n", None, "what it answered is not valid HTTP".to_owned(), true),
        ("", None, "broke off: it closed the connection".to_owned(), true),
        ("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", None, "before it was spoken to".to_owned(), true),
    ] {
        let proxy = answering(text).await;
        let client = client(&[&upstream, &proxy]);
        let error = send(&client, &spec(&proxy.url(""), "here"), login, &upstream.url("/")).await.unwrap_err();
        let told = error.description();
        assert_eq!(
            (error.code(), error.reached(), error.is_transient()),
            ("outbound.proxy", Reached::No, is_transient),
            "{told}"
        );
        assert!(told.contains(&format!("cannot reach {target}: the proxy {} ", proxy.address)), "{told}");
        assert!(
            told.contains(&words) && told.ends_with("; nothing was sent") && !told.contains("pr0xy-pass"),
            "{told}"
        );
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_proxy_that_is_down_or_silent() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let (_socket, nobody) = unheard();
    let silent = Upstream::raw(|stream| async move {
        stall().await;
        drop(stream);
    })
    .await;
    let allow = [upstream.address.to_string(), nobody.to_string(), silent.address.to_string()];
    let client = client_with_names(&allow.iter().map(String::as_str).collect::<Vec<_>>(), Roots::system());
    let error = send(&client, &spec(&format!("http://{nobody}"), "here"), None, &upstream.url("/")).await.unwrap_err();
    assert_eq!((error.code(), error.is_unreachable_or_timeout()), ("outbound.proxy", true), "{error}");
    assert!(
        error.description().contains(&format!("the proxy {nobody} cannot be connected to: connection refused")),
        "{error}"
    );
    let error = send(&client, &spec(&silent.url(""), "here"), None, &upstream.url("/")).await.unwrap_err();
    assert_eq!(error.code(), "outbound.timeout");
    assert!(error.description().contains("waiting for the proxy"), "{error}");
}
