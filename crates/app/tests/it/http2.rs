//! HTTP/2 by hand: what a client sends beside its requests, and how its connection ends.

use std::time::{Duration, Instant};

use crate::harness::{Options, Server, Wire, open_endpoint};

const HEAD: Duration = Duration::from_millis(300);
const IDLE: Duration = Duration::from_millis(1_500);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A client that writes frames as it likes (RFC 9113, section 4.1).
pub(crate) struct Client {
    wire: Wire,
    authority: String,
    next_stream: u32,
    /// How many bytes of what came were looked at.
    taken: usize,
}

struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

impl Client {
    /// A connection whose settings were exchanged.
    pub(crate) fn open(address: std::net::SocketAddr) -> Self {
        let mut client = Self { wire: Wire::open(address), authority: address.to_string(), next_stream: 1, taken: 0 };
        client.wire.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.write(SETTINGS, 0, 0, b"");
        client.until(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).expect("settings");
        client.write(SETTINGS, ACK, 0, b"");
        client
    }

    fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.wire.write([&head, payload].concat())
    }

    /// Sends a request whose fields stand in no table but the static one (RFC 7541, sections 6.2.2 and appendix A).
    fn request(&mut self, method: u8, path: &str, authority: &str, body: &[u8]) {
        let stream = self.next_stream;
        self.next_stream += 2;
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let block = [vec![0x80 | method, 0x86, 0x04], text(path), vec![0x01], text(authority)].concat();
        let end = if body.is_empty() { END_STREAM } else { 0 };
        self.write(HEADERS, END_HEADERS | end, stream, &block);
        if !body.is_empty() {
            self.write(DATA, END_STREAM, stream, body);
        }
    }

    /// Posts a body that must be accepted.
    pub(crate) fn accept(&mut self, path: &str) {
        let authority = self.authority.clone();
        self.request(3, path, &authority, b"{}");
        let body = self.until(|frame| frame.kind == DATA).expect("a response");
        assert!(String::from_utf8_lossy(&body.payload).contains("\"id\""), "{:?}", body.payload);
    }

    /// Reads frames up to one that `is_wanted`; nothing when the connection ends before.
    fn until(&mut self, is_wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let taken = self.taken;
        let (frame, end) = self.wire.until(|bytes| {
            let mut at = taken;
            loop {
                let (frame, length) = parse(bytes.get(at..)?)?;
                at += length;
                if is_wanted(&frame) {
                    return Some((frame, at));
                }
            }
        })?;
        self.taken = end;
        Some(frame)
    }

    /// Pings, and whether an answer comes.
    pub(crate) fn ping(&mut self) -> bool {
        self.write(PING, 0, 0, b"12345678") && self.until(|frame| frame.kind == PING && frame.flags == ACK).is_some()
    }
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let head = bytes.get(..9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let payload = bytes.get(9..9 + length)?.to_vec();
    Some((Frame { kind: head[3], flags: head[4], payload }, 9 + length))
}

fn server() -> Server {
    let server = Server::start(&Options::default().flag("--head-timeout", "300ms").flag("--idle-timeout", "1500ms"));
    server.apply(&open_endpoint("in"));
    server
}

#[test]
fn frames_without_a_request_do_not_shorten_the_idle_time() {
    let server = server();
    let path = server.path_of("in");
    let mut client = Client::open(server.public);
    for _ in 0..2 {
        client.accept(&path);
        let idle = Instant::now();
        assert!(client.ping());
        client.write(SETTINGS, 0, 0, b"");
        while idle.elapsed() < 3 * HEAD {
            std::thread::sleep(HEAD / 3);
            assert!(client.ping(), "the connection ended after {:?} without a request", idle.elapsed());
        }
    }
}

#[test]
fn idle_connection_is_told_to_go_however_often_it_pings() {
    let server = server();
    let mut client = Client::open(server.public);
    client.accept(&server.path_of("in"));
    let idle = Instant::now();
    let mut is_told = false;
    while !is_told {
        assert!(idle.elapsed() < 2 * IDLE, "pings keep an idle connection open");
        std::thread::sleep(HEAD / 3);
        client.write(PING, 0, 0, b"12345678");
        let came = client.until(|frame| frame.kind == GOAWAY || (frame.kind == PING && frame.flags == ACK));
        is_told = came.expect("the connection ends with GOAWAY").kind == GOAWAY;
    }
    // The server counts from when it has written its answer, a moment before it is read here.
    assert!(idle.elapsed() + Duration::from_millis(50) >= IDLE, "told to go after {:?}", idle.elapsed());
    // It does not answer the ping by which the server asks whether it has heard (RFC 9113, section 6.8).
    client.wire.rest();
    assert!(idle.elapsed() < IDLE + 10 * HEAD, "closed after {:?}", idle.elapsed());
}

#[test]
fn end_of_the_server_does_not_wait_for_a_client_that_answers_no_ping() {
    let mut server = server();
    let mut client = Client::open(server.public);
    client.accept(&server.path_of("in"));
    let began = Instant::now();
    server.signal(rustix::process::Signal::TERM);
    client.until(|frame| frame.kind == GOAWAY).expect("the connection ends with GOAWAY");
    assert_eq!(server.wait(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(8), "the end took {:?}", began.elapsed());
}

#[test]
fn operator_listener_answers_to_its_own_names_only() {
    let server = server();
    for (authority, is_answered) in
        [("localhost", true), ("127.0.0.1:80", true), ("evil.test", false), ("localhost.evil.test:8081", false)]
    {
        let mut client = Client::open(server.operator);
        client.request(2, "/metrics", authority, b"");
        let body = String::from_utf8(client.until(|frame| frame.kind == DATA).unwrap().payload).unwrap();
        assert_eq!(body.contains("linkspan_"), is_answered, "{authority}: {body}");
        assert_eq!(body.contains("request.origin"), !is_answered, "{authority}: {body}");
    }
}
