//! Which addresses are reached.

use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use http::Method;
use linkspan_outbound::{
    Credentials, Outbound, Policy, Reached, RedirectScope, Resolver, Roots, SendError, SendErrorKind, SendOptions,
};

use crate::upstream::{Upstream, answer, client, client_with_names, get, policy, request, soon, unheard};

async fn error(client: &Outbound, url: &str) -> SendError {
    client.send(get(url), &Credentials::none(), &soon()).await.unwrap_err().error
}

/// Every way to write our own machine and a metadata service.
const SPELLINGS: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f.1",
    "0x7f000001",
    "0177.0.0.1",
    "0177.1",
    "%31%32%37.0.0.1",
    "127。0。0。1",
    "0.0.0.0",
    "0",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "localhost",
    "LOCALHOST",
    "a.name.that.resolves.there",
    "169.254.169.254",
    "[::ffff:169.254.169.254]",
    "0xa9fea9fe",
    "2852039166",
];

#[tokio::test]
async fn refuses_every_spelling_of_a_closed_address() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let port = upstream.address.port();
    let client = client_with_names(&[], Roots::system());
    for host in SPELLINGS {
        let error = error(&client, &format!("http://{host}:{port}/")).await;
        assert!(matches!(error.kind, SendErrorKind::Refused(_)), "{host}: {error}");
        assert_eq!((error.code(), error.reached()), ("outbound.refused", Reached::No));
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn an_allowance_opens_one_address_on_one_port() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let port = upstream.address.port();
    let client = client_with_names(&[&format!("127.0.0.1/32:{port}")], Roots::system());
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "some.name"] {
        let sent = client.send(get(&format!("http://{host}:{port}/")), &Credentials::none(), &soon()).await;
        assert_eq!(sent.unwrap().status, 200, "{host}");
    }
    let other = if port == 1 { 2 } else { port - 1 };
    let error = error(&client, &format!("http://127.0.0.1:{other}/")).await;
    assert_eq!(
        error.description(),
        format!(
            "127.0.0.1:{other} is not called: 127.0.0.1:{other} is not a public address (loopback); an operator opens \
             it with --egress-allow 127.0.0.1/32:{other}"
        )
    );
}

#[tokio::test]
async fn metadata_and_our_operator_port_stay_closed_whatever_is_open() {
    let operator = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let port = operator.address.port();
    let all = ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap()).to_vec();
    let look_up = |host: &str| -> io::Result<Vec<IpAddr>> {
        Ok(vec![if host == "own.test" { "127.0.0.1" } else { "169.254.169.254" }.parse().unwrap()])
    };
    let client = Outbound::with(
        Policy::new(all, vec![operator.address]),
        Resolver::Function(Arc::new(look_up)),
        Roots::system(),
    );
    for host in ["127.0.0.1", "127.1", "127.0.0.2", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "own.test"] {
        let error = error(&client, &format!("http://{host}:{port}/")).await;
        assert!(error.description().ends_with("own operator port, which is never opened"), "{host}: {error}");
    }
    for host in ["169.254.169.254", "[::ffff:169.254.169.254]", "metadata.google.internal", "[fd00:ec2::254]"] {
        let error = error(&client, &format!("http://{host}/latest/meta-data/")).await;
        assert!(error.description().ends_with("metadata service, which is never opened"), "{host}: {error}");
    }
    assert!(operator.requests().is_empty());
}

#[tokio::test]
async fn dials_only_those_of_a_names_addresses_that_pass() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let look_up = |_: &str| -> io::Result<Vec<IpAddr>> {
        Ok(["10.0.0.1", "::1", "127.0.0.1"].map(|ip| ip.parse().unwrap()).to_vec())
    };
    let client = Outbound::with(
        policy(&[&upstream.address.to_string()]),
        Resolver::Function(Arc::new(look_up)),
        Roots::system(),
    );
    let url = format!("http://mixed.test:{}/", upstream.address.port());
    assert_eq!(client.send(get(&url), &Credentials::none(), &soon()).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_redirect_is_judged_like_a_first_request() {
    let hidden = Upstream::answering(|_| answer("200 OK", "", "the secret of the house")).await;
    let port = hidden.address.port();
    let targets = ["127.0.0.1", "2130706433", "[::ffff:127.0.0.1]", "localhost"]
        .map(|host| format!("http://{host}:{port}/"))
        .into_iter()
        .chain(["http://169.254.169.254/latest/".to_owned()]);
    for target in targets {
        let location = format!("location: {target}\r\n");
        let upstream = Upstream::answering(move |_| answer("302 Found", &location, "")).await;
        let options = SendOptions { redirects: 3, redirect_scope: RedirectScope::Anywhere, ..soon() };
        let sent = upstream.client().send(get(&upstream.url("/")), &Credentials::none(), &options).await;
        let error = sent.unwrap_err().error;
        assert!(matches!(error.kind, SendErrorKind::Refused(_)), "{target}: {error}");
        assert_eq!(error.reached(), Reached::Yes);
    }
    assert!(hidden.requests().is_empty());
}

#[tokio::test]
async fn refuses_urls_and_headers_that_cannot_be_sent() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let client = upstream.client();
    let port = upstream.address.port();
    let cases = [
        ("ftp://127.0.0.1/".to_owned(), "https:// or http://"),
        ("file:///etc/passwd".to_owned(), "https:// or http://"),
        (format!("http://user:secret@127.0.0.1:{port}/"), "a URL holds no credentials"),
        (format!("http://user@127.0.0.1:{port}/"), "a URL holds no credentials"),
        ("http://127.0.0.1:0/".to_owned(), "port 0"),
    ];
    for (url, reason) in cases {
        let error = error(&client, &url).await;
        assert!(matches!(error.kind, SendErrorKind::Invalid(_)), "{url}: {error}");
        assert!(error.description().contains(reason), "{error}");
        assert!(!error.description().contains("secret"), "{error}");
    }
    for name in ["host", "content-length", "transfer-encoding", "connection", "upgrade"] {
        let spec = request(Method::GET, &upstream.url("/"), &[(name, "1")], "");
        let error = client.send(spec, &Credentials::none(), &soon()).await.unwrap_err().error;
        assert!(error.description().contains(name), "{error}");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn says_why_a_name_or_an_address_cannot_be_reached() {
    let failing = |_: &str| -> io::Result<Vec<IpAddr>> { Err(io::Error::other("Name or service not known")) };
    let client_without_names = Outbound::with(policy(&[]), Resolver::Function(Arc::new(failing)), Roots::system());
    let lost = error(&client_without_names, "https://api.test/path?key=value").await;
    assert_eq!(lost.description(), "cannot look up api.test: Name or service not known; nothing was sent");
    assert!(lost.is_unreachable_or_timeout() && lost.is_transient());

    let (_socket, closed) = unheard();
    let refused = error(&client(&["127.0.0.1"]), &format!("http://{closed}/")).await;
    assert_eq!(
        refused.description(),
        format!("cannot connect to {closed}: connection refused ({closed}); nothing was sent")
    );
    assert_eq!((refused.code(), refused.reached()), ("outbound.connect", Reached::No));
}

#[tokio::test]
async fn reaches_its_upstream() {
    let upstream = Upstream::answering(|_| answer("200 OK", "", "")).await;
    let sent = upstream.client().send(get(&upstream.url("/")), &Credentials::none(), &soon()).await;
    assert_eq!(sent.unwrap().status, 200);
    assert!(upstream.requests()[0].starts_with("GET / HTTP/1.1\r\n"), "not the form that a proxy would get");
}

/// Runs the test above again, in a process whose environment names a proxy where nobody listens.
#[test]
fn asks_no_proxy_from_the_environment() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "guard::reaches_its_upstream"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        again.env(name, "http://127.0.0.1:9");
    }
    let output = again.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}
