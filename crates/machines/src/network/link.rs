//! The one task of a machine's network: moves frames between QEMU's socket and the stack.
//!
//! Invariant: works off at most [`FRAMES_AT_ONCE`] frames under the lock and yields between reads, so that one guest
//! that floods cannot keep others waiting; asleep, only a frame, a connection or a due timer wakes it.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};

use super::frame::{Ask, ask, is_at, source};
use super::inbox::Inbox;
use super::stack::{Outbox, Shared};
use super::{NetworkPolicy, dhcp};

/// Frames worked off before the lock is let go.
const FRAMES_AT_ONCE: usize = 64;

/// Serves until QEMU closes the socket or the task is dropped; either ends every connection.
pub(super) async fn run(stream: UnixStream, shared: Arc<Shared>, policy: Arc<NetworkPolicy>) {
    let _end = End(Arc::clone(&shared));
    let mut link = Link {
        stream,
        shared,
        _policy: policy,
        inbox: Inbox::default(),
        sending: Outbox::default(),
    };
    if let Err(error) = link.serve().await {
        tracing::debug!(%error, "a machine's network has ended");
    }
}

/// Ends the stack when the task does, also when it is dropped half-way.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Link {
    stream: UnixStream,
    shared: Arc<Shared>,
    _policy: Arc<NetworkPolicy>,
    inbox: Inbox,
    /// What QEMU is to take first; the stack fills another meanwhile.
    sending: Outbox,
}

impl Link {
    async fn serve(&mut self) -> io::Result<()> {
        loop {
            let next = self.turn();
            let sent = self.send()?;
            match self.receive()? {
                ControlFlow::Break(()) => return Ok(()),
                ControlFlow::Continue(received) if sent || received => {
                    tokio::task::yield_now().await;
                }
                ControlFlow::Continue(_) => self.sleep(next).await?,
            }
        }
    }

    /// Lets the stack speak; returns when it next wants to.
    fn turn(&mut self) -> Option<Instant> {
        let mut stack = self.shared.lock();
        let next = stack.turn();
        if self.sending.rest().is_empty() {
            stack.exchange(&mut self.sending);
        }
        next
    }

    /// Hands frames to QEMU; whether it took any.
    fn send(&mut self) -> io::Result<bool> {
        if self.sending.rest().is_empty() {
            return Ok(false);
        }
        match self.stream.try_write(self.sending.rest()) {
            Ok(count) => {
                self.sending.sent(count);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes frames from QEMU; whether there were any, or the end.
    fn receive(&mut self) -> io::Result<ControlFlow<(), bool>> {
        if self.shared.lock().is_full() {
            return Ok(ControlFlow::Continue(false));
        }
        match self.stream.try_read(self.inbox.room()) {
            Ok(0) => Ok(ControlFlow::Break(())),
            Ok(count) => {
                self.inbox.filled(count);
                while self.work_off()? {}
                Ok(ControlFlow::Continue(true))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(ControlFlow::Continue(false))
            }
            Err(error) => Err(error),
        }
    }

    /// Acts on some frames; whether more may be left.
    fn work_off(&mut self) -> io::Result<bool> {
        let mut stack = self.shared.lock();
        for _ in 0..FRAMES_AT_ONCE {
            let Some(range) = self.inbox.next()? else { return Ok(false) };
            let frame = self.inbox.frame(range);
            let asked = ask(frame);
            if !matches!(asked, Ask::Nothing | Ask::Dhcp(_))
                && let Some(mac) = source(frame)
                && (mac != stack.guest() || asked == Ask::IsAt)
            {
                self.shared.guest_is_at(&mut stack, mac);
            }
            match asked {
                Ask::Nothing | Ask::IsAt => {}
                Ask::WhoHas(ours) => {
                    let answer = is_at(ours, stack.guest());
                    stack.send(&answer);
                }
                Ask::Stack | Ask::Segment { .. } | Ask::Datagram { .. } => stack.take(frame),
                Ask::Dhcp(message) => {
                    if let Some(answer) = dhcp::answer(message) {
                        stack.send(&answer);
                    }
                }
            }
        }
        Ok(true)
    }

    /// Waits until there is something to do.
    async fn sleep(&mut self, next: Option<Instant>) -> io::Result<()> {
        let interest = {
            let stack = self.shared.lock();
            if stack.is_idle() {
                self.inbox.release();
                self.sending.release();
            }
            match (stack.is_full(), self.sending.rest().is_empty()) {
                (true, _) => Interest::WRITABLE,
                (false, true) => Interest::READABLE,
                (false, false) => Interest::READABLE | Interest::WRITABLE,
            }
        };
        let timer = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = self.stream.ready(interest) => ready.map(|_| ()),
            () = self.shared.rung() => Ok(()),
            () = timer => Ok(()),
        }
    }
}
