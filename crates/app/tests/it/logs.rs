//! The log: nobody waits for whoever reads it, and what is lost is said.

use std::io::{Read as _, pipe};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::{Options, Server, eventually, open_endpoint};
use crate::http2::Client;
use rustix::process::Signal;

/// A server that logs much into a pipe of 4 KiB, and the end of the pipe that is to be read.
fn server_into_a_pipe() -> (Server, std::io::PipeReader) {
    let (reader, writer) = pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4_096).unwrap();
    let server = Server::start_logging_to(&Options::default().env("LINKSPAN_LOG", "trace"), Stdio::from(writer));
    server.apply(&open_endpoint("in"));
    (server, reader)
}

fn dropped(server: &Server) -> u64 {
    let metrics = server.get("/metrics").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("linkspan_log_lines_dropped_total "));
    line.unwrap().parse().unwrap()
}

#[test]
fn log_that_nobody_reads_holds_up_nothing_and_says_later_what_was_dropped() {
    let (mut server, mut reader) = server_into_a_pipe();
    let path = server.path_of("in");
    assert_eq!(dropped(&server), 0);
    let mut client = Client::open(server.public);
    // More than the buffer and the pipe take.
    eventually("lines are dropped", || {
        let began = Instant::now();
        for _ in 0..100 {
            client.accept(&path);
            assert!(client.ping());
        }
        assert!(began.elapsed() < Duration::from_secs(10), "100 webhooks took {:?}", began.elapsed());
        (dropped(&server) > 0).then_some(())
    });
    drop(client);
    let read = Arc::new(Mutex::new(Vec::new()));
    let reading = Arc::clone(&read);
    std::thread::spawn(move || {
        let mut piece = [0; 4_096];
        while let Ok(length @ 1..) = reader.read(&mut piece) {
            reading.lock().unwrap().extend_from_slice(&piece[..length]);
        }
    });
    eventually("the log says that lines were dropped", || {
        let read = String::from_utf8_lossy(&read.lock().unwrap()).into_owned();
        read.contains("lines of the log were dropped, because what came before was not read").then_some(())
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn log_that_nobody_reads_does_not_hold_up_the_end() {
    let (mut server, _reader) = server_into_a_pipe();
    let path = server.path_of("in");
    let mut client = Client::open(server.public);
    for _ in 0..100 {
        client.accept(&path);
    }
    drop(client);
    let began = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "the end took {:?}", began.elapsed());
}

#[test]
fn end_loses_no_line() {
    let mut server = Server::start(&Options::default());
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    assert!(server.log().trim_end().ends_with("draining"), "{}", server.log());
}
