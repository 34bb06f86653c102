//! A byte stream to a server that counts what went over it, so that "nothing was sent" is knowledge and not hope.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// What is known about one connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    writes: AtomicU64,
    reads: AtomicU64,
    dead: AtomicBool,
}

impl Wire {
    /// How often bytes were handed to the socket (or to TLS).
    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// How often bytes came back.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Acquire)
    }

    /// Whether nothing may be sent here any more.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Keeps new operations away.
    pub(super) fn bury(&self) {
        self.dead.store(true, Ordering::Release);
    }
}

pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

pub(super) struct Counted {
    pub(super) io: Transport,
    pub(super) wire: Arc<Wire>,
    /// Whether the tasks that are ready have had their turn since the last write.
    pub(super) gathered: bool,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        let result = ready!(match &mut self.io {
            Transport::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Transport::Tls(io) => Pin::new(io).poll_read(cx, buf),
        });
        if result.is_err() || buf.filled().len() == filled {
            self.wire.bury();
        } else {
            self.wire.reads.fetch_add(1, Ordering::Release);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // Whoever is ready to ask as well may do so before the system call: with 64 tasks this is worth half as much again as
        // writing at once, and a lone task pays one more poll.
        if !self.gathered {
            self.gathered = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.gathered = false;
        let result = ready!(match &mut self.io {
            Transport::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Transport::Tls(io) => Pin::new(io).poll_write(cx, buf),
        });
        match result {
            Ok(_) => _ = self.wire.writes.fetch_add(1, Ordering::Release),
            Err(_) => self.wire.bury(),
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Transport::Plain(io) => Pin::new(io).poll_flush(cx),
            Transport::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Transport::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Transport::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
