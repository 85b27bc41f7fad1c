//! A connection that ends when its leash is dropped, whoever holds the connection.
//!
//! russh moves a connection into a task of its own, which goes on reading for as long as a peer sends nothing in the
//! middle of a handshake. The leash stays with us.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// Ends its connection when dropped.
#[derive(Debug)]
pub struct Leash(
    #[expect(dead_code, reason = "only its end is of interest")] oneshot::Sender<Infallible>,
);

/// The connection.
#[derive(Debug)]
pub struct Leashed<S> {
    stream: S,
    cut: oneshot::Receiver<Infallible>,
}

/// Puts `stream` on a leash.
#[must_use]
pub fn leash<S>(stream: S) -> (Leash, Leashed<S>) {
    let (hold, cut) = oneshot::channel();
    (Leash(hold), Leashed { stream, cut })
}

impl<S> Leashed<S> {
    /// Whether the leash is gone. Reading and writing happen in one task, so that one waker is enough.
    fn is_cut(&mut self, context: &mut Context<'_>) -> bool {
        Pin::new(&mut self.cut).poll(context).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Leashed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nothing read is the end of the stream.
        if self.is_cut(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Leashed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            // What is on its way still leaves; only waiting ends.
            Poll::Pending if self.is_cut(context) => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            other => other,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending if self.is_cut(context) => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            other => other,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Pending if self.is_cut(context) => Poll::Ready(Ok(())),
            other => other,
        }
    }
}
