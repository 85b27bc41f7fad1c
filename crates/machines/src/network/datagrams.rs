//! Carries the guest's UDP flows to the outside.
//!
//! Invariant: at most [`FLOWS_MAX`] sockets of this host are open for one guest, and some that are ending; a new flow takes the place of the one
//! that has been silent longest. What does not fit or is not permitted is dropped, as datagrams may be.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::GUEST;
use super::frame::{DATAGRAM_BYTES_MAX, Flow, udp_frame};
use super::outside::{Outside, is_name_server};
use super::resolver::is_question;
use super::stack::Shared;

/// Flows of one guest at once.
const FLOWS_MAX: usize = 64;
/// Flows that were ended to make room and still hold their sockets for a moment.
const ENDING_MAX: usize = 32;
/// A flow on which nothing has come for so long, and nothing was sent, is ended.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// A name server that has not answered by then is silent.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// The UDP flows of one guest.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    flows: HashMap<Flow, Entry>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Entry {
    /// Held by the flow's task, so that a flow that has ended holds no socket.
    socket: Weak<Socket>,
    task: AbortHandle,
    used: Instant,
}

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    /// Datagrams sent since the last that came.
    unanswered: AtomicU32,
}

impl Datagrams {
    /// Sends one datagram of the guest, by a new flow where it has none.
    ///
    /// # Errors
    /// When it may not leave, so that the guest can be told.
    pub(super) fn send(
        &mut self,
        flow: Flow,
        payload: &[u8],
        outside: &Arc<Outside>,
        shared: &Arc<Shared>,
    ) -> io::Result<()> {
        if is_name_server(flow.to) && !is_question(payload) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let open = self.flows.get_mut(&flow).and_then(|entry| {
            entry.used = Instant::now();
            entry.socket.upgrade()
        });
        let socket = match open {
            Some(socket) => socket,
            None => self.open(flow, outside, shared)?,
        };
        socket.unanswered.fetch_add(1, Ordering::Relaxed);
        // Lost where there is no room, as on any network. Past tokio, which does not know of a new socket's room yet.
        let _ = rustix::net::send(&socket.socket, payload, SendFlags::DONTWAIT);
        Ok(())
    }

    fn open(
        &mut self,
        flow: Flow,
        outside: &Arc<Outside>,
        shared: &Arc<Shared>,
    ) -> io::Result<Arc<Socket>> {
        let peer = outside.resolve(flow.to)?;
        self.make_room()?;
        let socket = Arc::new(Socket { socket: connect(peer)?, unanswered: AtomicU32::new(0) });
        let entry = Entry {
            socket: Arc::downgrade(&socket),
            task: self.tasks.spawn(answer(
                flow,
                peer,
                Arc::clone(&socket),
                Arc::clone(outside),
                Arc::clone(shared),
            )),
            used: Instant::now(),
        };
        self.flows.insert(flow, entry);
        Ok(socket)
    }

    /// Forgets the flows that have ended where places are short, and ends the most silent one where all are open.
    fn make_room(&mut self) -> io::Result<()> {
        while self.tasks.try_join_next().is_some() {}
        if self.tasks.len() >= FLOWS_MAX + ENDING_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        if self.flows.len() < FLOWS_MAX {
            return Ok(());
        }
        self.flows.retain(|_, entry| entry.socket.strong_count() > 0);
        if self.flows.len() >= FLOWS_MAX
            && let Some(flow) =
                self.flows.iter().min_by_key(|(_, entry)| entry.used).map(|(flow, _)| *flow)
            && let Some(entry) = self.flows.remove(&flow)
        {
            entry.task.abort();
        }
        Ok(())
    }
}

fn connect(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(peer)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Brings what comes back to the guest, until nothing does.
async fn answer(
    flow: Flow,
    peer: SocketAddr,
    socket: Arc<Socket>,
    outside: Arc<Outside>,
    shared: Arc<Shared>,
) {
    let dns = is_name_server(flow.to);
    let patience = if dns { ANSWER_DEADLINE } else { IDLE_MAX };
    // One more than fits, to tell what does not fit.
    let mut bytes = vec![0; DATAGRAM_BYTES_MAX + 1];
    loop {
        match tokio::time::timeout(patience, socket.socket.recv(&mut bytes)).await {
            Ok(Ok(count)) => {
                socket.unanswered.store(0, Ordering::Relaxed);
                let to = SocketAddrV4::new(GUEST, flow.from);
                let mut stack = shared.lock();
                if let Some(frame) = udp_frame(stack.guest(), flow.to, to, &bytes[..count]) {
                    stack.send(&frame);
                }
                drop(stack);
                shared.ring();
            }
            Ok(Err(_)) | Err(_) if dns => {
                if socket.unanswered.load(Ordering::Relaxed) > 0 {
                    outside.resolvers.is_silent(peer);
                }
                return;
            }
            // The peer has no such port; it may have it with the next datagram.
            Ok(Err(_)) => {}
            Err(_) if socket.unanswered.swap(0, Ordering::Relaxed) == 0 => return,
            Err(_) => {}
        }
    }
}
