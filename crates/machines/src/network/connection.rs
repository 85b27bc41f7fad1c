//! A TCP connection with the guest, as a stream.
//!
//! Invariant: a connection owns one socket of the stack and lets it go when dropped. Not here: who dials whom.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, State};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stack::{Place, Shared};

/// A TCP connection with the guest. Shutting down its writing half leaves the reading half open; dropped, it closes
/// in good order where everything that came was read, else by a reset.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    handle: SocketHandle,
    /// Whether this host opened it.
    incoming: bool,
}

impl Connection {
    /// Begins to connect to a port of the guest.
    pub(super) fn dial(shared: &Arc<Shared>, port: u16) -> io::Result<Self> {
        let handle = shared.lock().dial(port)?;
        shared.ring();
        Ok(Self { shared: Arc::clone(shared), handle, incoming: true })
    }

    /// Accepts a flow of the guest that `syn` began; `None` where that cannot be.
    pub(super) fn accept(place: &Place, syn: &[u8]) -> Option<Self> {
        let handle = place.shared.lock().accept(place.flow, syn)?;
        place.shared.ring();
        Some(Self { shared: Arc::clone(&place.shared), handle, incoming: false })
    }

    /// Cuts the connection off, so that the guest sees an error and not an end.
    pub(super) fn cut_off(self) {
        if let Ok(socket) = self.shared.lock().socket(self.handle) {
            socket.abort();
        }
    }

    /// Waits until the guest has accepted or refused.
    pub(super) async fn opened(&self) -> io::Result<()> {
        poll_fn(|context| {
            let mut stack = self.shared.lock();
            let socket = stack.socket(self.handle)?;
            match socket.state() {
                State::Closed | State::Listen => {
                    Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
                }
                State::SynSent | State::SynReceived => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                _ => Poll::Ready(Ok(())),
            }
        })
        .await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.lock().release(self.handle, self.incoming);
        self.shared.ring();
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let progress = ready!(tokio::task::coop::poll_proceed(context));
        let mut stack = self.shared.lock();
        let socket = stack.socket(self.handle)?;
        match socket.recv_slice(buffer.initialize_unfilled()) {
            Ok(0) if buffer.remaining() > 0 => {
                socket.register_recv_waker(context.waker());
                return Poll::Pending;
            }
            Ok(count) => buffer.advance(count),
            Err(RecvError::Finished) => {}
            Err(RecvError::InvalidState) => return Poll::Ready(Err(reset())),
        }
        progress.made_progress();
        drop(stack);
        // The guest may send more now.
        self.shared.ring();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = ready!(tokio::task::coop::poll_proceed(context));
        let mut stack = self.shared.lock();
        let socket = stack.socket(self.handle)?;
        let count = socket.send_slice(bytes).map_err(|_| broken(socket.state()))?;
        if count == 0 && !bytes.is_empty() {
            socket.register_send_waker(context.waker());
            return Poll::Pending;
        }
        progress.made_progress();
        drop(stack);
        self.shared.ring();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().socket(self.handle)?.close();
        self.shared.ring();
        Poll::Ready(Ok(()))
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Why nothing can be written: cut off by the guest, or shut down by ourselves.
fn broken(state: State) -> io::Error {
    if state == State::Closed { reset() } else { io::ErrorKind::BrokenPipe.into() }
}
