//! A connection as the HTTP library reads and writes it: plain, over TLS, or through a proxy.
//!
//! Guarantees that a server's no to our certificate is heard by the request that made the connection. With TLS 1.3 it
//! comes after the handshake has ended here, and the server closes at once: a request that is written meanwhile fails
//! with the reason unread, and one that is not fails without it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::progress::Progress;
use crate::proxy::Tunnel;
use crate::tls;

/// A connection.
pub(crate) struct Stream {
    io: Io,
    is_h2: bool,
    /// Of the request that made it, when there is TLS on it.
    progress: Option<Arc<Progress>>,
    /// Why a write failed, while it is looked whether the server has said more.
    broken: Option<io::Error>,
}

enum Io {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
    /// Through a proxy, with or without TLS inside.
    Tunnel(Box<dyn ReadWrite>),
}

trait ReadWrite: hyper::rt::Read + hyper::rt::Write + Send + Unpin {}

impl<T: hyper::rt::Read + hyper::rt::Write + Send + Unpin> ReadWrite for T {}

impl Stream {
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self { io: Io::Plain(TokioIo::new(tcp)), is_h2: false, progress: None, broken: None }
    }

    pub(crate) fn tls(tls: TlsStream<TcpStream>, progress: Arc<Progress>) -> Self {
        let is_h2 = speaks_h2(&tls);
        Self { io: Io::Tls(Box::new(TokioIo::new(tls))), is_h2, progress: Some(progress), broken: None }
    }

    pub(crate) fn tunnel(tunnel: Tunnel) -> Self {
        Self { io: Io::Tunnel(Box::new(TokioIo::new(tunnel))), is_h2: false, progress: None, broken: None }
    }

    pub(crate) fn tls_in_tunnel(tls: TlsStream<Tunnel>, progress: Arc<Progress>) -> Self {
        let is_h2 = speaks_h2(&tls);
        Self { io: Io::Tunnel(Box::new(TokioIo::new(tls))), is_h2, progress: Some(progress), broken: None }
    }

    /// Whether both sides have agreed on HTTP/2.
    pub(crate) fn is_h2(&self) -> bool {
        self.is_h2
    }

    /// What came of a write. Before it fails, what lies unread is looked at.
    fn heard<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if self.progress.is_some() => {
                self.broken.get_or_insert(error);
                self.poll_broken(cx).map(Err)
            }
            written => written,
        }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut bytes = [0; 256];
        let mut buffer = hyper::rt::ReadBuf::new(&mut bytes);
        // A connection that does not take what is written has been reset, so that reading comes to an end.
        drop(ready!(hyper::rt::Read::poll_read(Pin::new(self), cx, buffer.unfilled())));
        Poll::Ready(self.broken.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }
}

fn speaks_h2<S>(tls: &TlsStream<S>) -> bool {
    tls.get_ref().1.alpn_protocol() == Some(b"h2")
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Tunnel(io) => Pin::new(io).poll_read(cx, buffer),
        };
        if let (Poll::Ready(Err(error)), Some(progress)) = (&read, &self.progress)
            && let Some(reason) = tls::refused(error)
        {
            progress.refused(reason);
        }
        read
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken.is_some() {
            return self.poll_broken(cx).map(Err);
        }
        let written = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Tls(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Tunnel(io) => Pin::new(io).poll_write(cx, bytes),
        };
        self.heard(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken.is_some() {
            return self.poll_broken(cx).map(Err);
        }
        let flushed = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
            Io::Tunnel(io) => Pin::new(io).poll_flush(cx),
        };
        self.heard(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tunnel(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
            Io::Tunnel(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.broken.is_some() {
            return self.poll_broken(cx).map(Err);
        }
        let written = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, pieces),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, pieces),
            Io::Tunnel(io) => Pin::new(io).poll_write_vectored(cx, pieces),
        };
        self.heard(cx, written)
    }
}
