//! The socket of a connection: whatever moves is noted in its `activity`.
//!
//! Invariant: what was read and given back is read before anything else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::activity::Activity;
use super::parse_error::Exchange;

/// A socket whose movements are noted, and on which hyper's bare errors get a body.
#[derive(Debug)]
pub struct Watched<S> {
    socket: S,
    activity: Arc<Activity>,
    exchange: Exchange,
    /// What is read before anything else.
    unread: Bytes,
    /// The time that a closed connection is still listened to.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    /// Notes the movements of `socket` in `activity`. On the heap, since it is handed from one future to the next.
    pub fn new(socket: S, activity: Arc<Activity>) -> Box<Self> {
        Box::new(Self {
            socket,
            activity,
            exchange: Exchange::default(),
            unread: Bytes::new(),
            linger: None,
        })
    }

    /// What is read next: `bytes`, which were read before.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.unread = Bytes::from([bytes, &self.unread].concat());
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(_)) => self.activity.has_written(),
            Poll::Ready(Err(_)) => self.activity.cargo.is_lost(),
            Poll::Pending => self.activity.is_blocked(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buf.remaining());
            let bytes = self.unread.split_to(length);
            buf.put_slice(&bytes);
            self.exchange.has_read(&bytes);
            if self.unread.is_empty() {
                // It would keep its memory.
                self.unread = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.has_read();
            self.exchange.has_read(&buf.filled()[before..]);
        }
        if let Poll::Ready(Err(_)) = &read {
            self.activity.cargo.is_lost();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.activity.leaves();
        let written = if this.exchange.takes(buf) {
            this.exchange.poll_send(&mut this.socket, cx, buf.len())
        } else {
            Pin::new(&mut this.socket).poll_write(cx, buf)
        };
        this.exchange.has_written();
        this.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A bare answer is one piece; only then is a closer look due.
        if let [one] = bufs {
            return self.poll_write(cx, one);
        }
        self.activity.leaves();
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.exchange.has_written();
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        // hyper flushes when it has nothing more to write.
        if let Poll::Ready(Ok(())) = &flushed {
            self.activity.has_left();
        }
        flushed
    }

    /// Where the last answer carried a task, a reset is listened for a little longer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            let Some(until) = self.activity.cargo.in_doubt_until() else {
                return Poll::Ready(Ok(()));
            };
            self.linger = Some(Box::pin(tokio::time::sleep_until(until)));
        }
        let this = self.get_mut();
        while let Some(linger) = &mut this.linger {
            if linger.as_mut().poll(cx).is_ready() {
                break;
            }
            let mut space = [0; 512];
            let mut unwanted = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut this.socket).poll_read(cx, &mut unwanted)) {
                Ok(()) if unwanted.filled().is_empty() => break,
                Ok(()) => {}
                Err(_) => {
                    this.activity.cargo.is_lost();
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
