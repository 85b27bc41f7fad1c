//! The one task of a machine's network: moves frames between QEMU's socket and the stack.
//!
//! Invariant: works off at most [`FRAMES_AT_ONCE`] frames under the lock and yields between reads, so that one guest
//! that floods cannot keep others waiting; asleep, only a frame, a connection or a due timer wakes it. What carries
//! the guest's flows to the outside ends with this task.

use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::datagrams::Datagrams;
use super::dhcp;
use super::frame::{Ask, ask, is_at, source};
use super::inbox::Inbox;
use super::outside::Outside;
use super::pace::Pace;
use super::stack::{FlowState, Outbox, Place, Shared, Stack};

/// Frames worked off before the lock is let go.
const FRAMES_AT_ONCE: usize = 64;

/// Serves until QEMU closes the socket or the task is dropped; either ends every connection.
pub(super) async fn run(stream: UnixStream, shared: Arc<Shared>, outside: Outside) {
    let _end = End(Arc::clone(&shared));
    let mut link = Link {
        stream,
        shared,
        upload: Pace::new(outside.policy.upload_bytes_per_second),
        download: Pace::new(outside.policy.download_bytes_per_second),
        outside: Arc::new(outside),
        inbox: Inbox::default(),
        sending: Outbox::default(),
        leaving: Vec::new(),
        datagrams: Datagrams::default(),
        flows: JoinSet::new(),
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
    outside: Arc<Outside>,
    inbox: Inbox,
    /// What QEMU is to take first; the stack fills another meanwhile.
    sending: Outbox,
    upload: Pace,
    download: Pace,
    /// Frames that ask for the outside, which is not seen to under the lock.
    leaving: Vec<Range<usize>>,
    datagrams: Datagrams,
    flows: JoinSet<()>,
}

impl Link {
    async fn serve(&mut self) -> io::Result<()> {
        loop {
            while self.flows.try_join_next().is_some() {}
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
        let rest = self.sending.rest();
        if rest.is_empty() || self.download.held_until().is_some() {
            return Ok(false);
        }
        let helping = rest.len().min(self.download.helping());
        match self.stream.try_write(&rest[..helping]) {
            Ok(count) => {
                self.sending.sent(count);
                self.download.passed(count);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes frames from QEMU; whether there were any, or the end.
    fn receive(&mut self) -> io::Result<ControlFlow<(), bool>> {
        if self.upload.held_until().is_some() || self.shared.lock().is_full() {
            return Ok(ControlFlow::Continue(false));
        }
        let room = self.inbox.room();
        let helping = room.len().min(self.upload.helping());
        match self.stream.try_read(&mut room[..helping]) {
            Ok(0) => Ok(ControlFlow::Break(())),
            Ok(count) => {
                self.inbox.filled(count);
                self.upload.passed(count);
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
        let mut more = true;
        let mut stack = self.shared.lock();
        for _ in 0..FRAMES_AT_ONCE {
            let Some(range) = self.inbox.next()? else {
                more = false;
                break;
            };
            let frame = self.inbox.frame(range.clone());
            if act(frame, &self.shared, &mut stack) {
                self.leaving.push(range);
            }
        }
        drop(stack);
        for range in std::mem::take(&mut self.leaving) {
            self.leave(range);
        }
        Ok(more)
    }

    /// Sees to a frame that asks for the outside.
    fn leave(&mut self, range: Range<usize>) {
        let frame = self.inbox.frame(range);
        let left = match ask(frame) {
            Ask::Segment { flow, opens: true } => {
                if self.shared.lock().flow(&flow).is_some() {
                    return;
                }
                let permitted = self.outside.permits(flow.to);
                // Without a place it is dropped, and asked for again by the guest in a second.
                if permitted && let Some(place) = Place::take(&self.shared, flow) {
                    self.flows.spawn(Arc::clone(&self.outside).carry(place, frame.to_vec()));
                }
                permitted
            }
            Ask::Datagram { flow, payload } => {
                self.datagrams.send(flow, payload, &self.outside, &self.shared).is_ok()
            }
            _ => true,
        };
        if !left {
            // Nobody listens for it in the stack, which tells the guest that it is refused.
            self.shared.lock().take(frame);
        }
    }

    /// Waits until there is something to do.
    async fn sleep(&mut self, next: Option<Instant>) -> io::Result<()> {
        let (mut reads, mut writes) = (true, !self.sending.rest().is_empty());
        {
            let stack = self.shared.lock();
            if stack.is_idle() {
                self.inbox.release();
                self.sending.release();
            }
            reads &= !stack.is_full();
        }
        let mut next = next;
        if let Some(until) = self.upload.held_until().filter(|_| reads) {
            reads = false;
            next = Some(next.map_or(until, |next| next.min(until)));
        }
        if let Some(until) = self.download.held_until().filter(|_| writes) {
            writes = false;
            next = Some(next.map_or(until, |next| next.min(until)));
        }
        let interest = match (reads, writes) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        let stream = &self.stream;
        let socket = async {
            match interest {
                Some(interest) => stream.ready(interest).await.map(|_| ()),
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = socket => ready,
            () = self.shared.rung() => Ok(()),
            () = timer => Ok(()),
        }
    }
}

/// Acts on a frame of the guest; whether it asks for the outside.
fn act(frame: &[u8], shared: &Shared, stack: &mut Stack) -> bool {
    let asked = ask(frame);
    if !matches!(asked, Ask::Nothing | Ask::Dhcp(_))
        && let Some(mac) = source(frame)
        && (mac != stack.guest() || asked == Ask::IsAt)
    {
        shared.guest_is_at(stack, mac);
    }
    match asked {
        Ask::Nothing | Ask::IsAt => {}
        Ask::WhoHas(ours) => {
            let answer = is_at(ours, stack.guest());
            stack.send(&answer);
        }
        Ask::Dhcp(message) => {
            if let Some(answer) = dhcp::answer(message) {
                stack.send(&answer);
            }
        }
        Ask::Stack => stack.take(frame),
        Ask::Datagram { .. } => return true,
        Ask::Segment { flow, opens } => match stack.flow(&flow) {
            Some(FlowState::Dialling) => {}
            None if opens => return true,
            Some(FlowState::Open) | None => stack.take(frame),
        },
    }
    false
}
