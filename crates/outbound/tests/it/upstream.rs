//! Servers on loopback that answer, or misbehave, as told.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use linkspan_model::request::RequestSpec;
use linkspan_outbound::{Outbound, Policy, Resolver, Roots, SendOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// A server; it ends when this is dropped.
pub struct Upstream {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    /// Answers each request with what `answer` makes of its text.
    pub async fn answering(answer: impl Fn(&str) -> String + Clone + Send + Sync + 'static) -> Self {
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let mut upstream = Self::raw(move |mut stream| {
            let (answer, seen) = (answer.clone(), Arc::clone(&seen));
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    let text = answer(&request);
                    seen.lock().unwrap().push(request);
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        upstream.requests = requests;
        upstream
    }

    /// Does what it wants with each connection.
    pub async fn raw<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
        Self { address, requests: Arc::default(), _tasks: tasks }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// A client that may call this server and nothing else on this machine.
    pub fn client(&self) -> Outbound {
        client(&[&self.address.to_string()])
    }
}

/// An address where nobody listens: bound, so that no other test gets it, as long as the socket lives.
pub fn unheard() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Head and body of a request, when the other side sends one.
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let shown = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = shown.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(shown);
            }
        }
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
}

pub async fn write(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    // The client may have gone already, which is what some tests are about.
    drop(stream.write_all(text.as_bytes()).await);
}

/// Holds a connection open without a word, longer than any test waits.
pub async fn stall() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

pub fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

pub fn client(allow: &[&str]) -> Outbound {
    Outbound::new(policy(allow))
}

/// A client to whom every name is loopback.
pub fn client_with_names(allow: &[&str], roots: Roots) -> Outbound {
    let look_up = |_: &str| Ok(vec!["127.0.0.1".parse().unwrap()]);
    Outbound::with(policy(allow), Resolver::Function(Arc::new(look_up)), roots)
}

pub fn policy(allow: &[&str]) -> Policy {
    Policy::new(allow.iter().map(|text| text.parse().unwrap()).collect(), Vec::new())
}

pub fn get(url: &str) -> RequestSpec {
    request(Method::GET, url, &[], "")
}

pub fn request(method: Method, url: &str, headers: &[(&'static str, &'static str)], body: &'static str) -> RequestSpec {
    let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    RequestSpec {
        method,
        url: url.parse().unwrap(),
        headers: headers.collect(),
        body: Bytes::from_static(body.as_bytes()),
    }
}

/// Limits that end a test soon.
pub fn soon() -> SendOptions {
    SendOptions {
        connect: Duration::from_millis(200),
        tls: Duration::from_millis(200),
        first_byte: Duration::from_millis(200),
        total: Duration::from_secs(5),
        ..SendOptions::default()
    }
}
