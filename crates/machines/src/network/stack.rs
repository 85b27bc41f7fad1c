//! The TCP/IP stack of one machine's LAN, and what its task and its connections share.
//!
//! Invariant: every socket in the set belongs to one [`super::Connection`], or is in `closing` with a deadline. The
//! lock is one machine's own and is held for the work on some frames only, never across a wait or a system call.
//! Not here: sockets of this host.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{
    ETHERNET_HEADER_LEN, EthernetAddress, HardwareAddress, IpCidr, IpEndpoint, Ipv4Cidr,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::frame::{Flow, MTU, checksums, ipv4_header, who_has_guest};
use super::{GATEWAY, GUEST, PREFIX_BITS};

/// Connections at once, both ways together.
const CONNECTIONS_MAX: usize = 512;
/// Of these, opened by this host. The rest is left to the guest, so neither side can use up the other's.
const INCOMING_MAX: usize = 256;
/// Flows of the guest to the outside.
const FLOWS_MAX: usize = CONNECTIONS_MAX - INCOMING_MAX;
/// Flows to the outside that are being dialled at once.
const DIALLING_MAX: usize = 32;
/// What a connection buffers, each way.
const BUFFER_BYTES: usize = 64 * 1024;
/// What waits for QEMU to take it; beyond this nothing more is read from the guest nor sent to it.
const OUTBOX_BYTES_FULL: usize = 128 * 1024;
/// How long a connection that its owner has let go may take to end.
const CLOSING_DEADLINE: Duration = Duration::from_secs(30);
/// How long it may take to say that it was cut off.
const RESET_DEADLINE: Duration = Duration::from_secs(1);
/// How long the guest may take to tell its hardware address before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// The first of the ports from which this host connects.
const LOCAL_PORT_FIRST: u16 = 49_152;

/// What the task and the connections of one machine share.
#[derive(Debug)]
pub(super) struct Shared {
    stack: Mutex<Stack>,
    /// Tells the task that there is something to do.
    bell: Notify,
    /// Tells that the guest has told its hardware address.
    found: Notify,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { stack: Mutex::new(Stack::new()), bell: Notify::new(), found: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where the guest is, and tells those who wait for it.
    pub(super) fn guest_is_at(&self, stack: &mut Stack, mac: EthernetAddress) {
        stack.guest = mac;
        self.found.notify_waiters();
    }

    /// Ends the stack, and whoever waits for something.
    pub(super) fn end(&self) {
        self.lock().end();
        self.found.notify_waiters();
    }

    /// Has the task look.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Asks the guest for its hardware address until it tells. The agent in it may change it at any time, so each
    /// connection asks; that also spares a connection to a guest that has no network yet its growing pauses.
    pub(super) async fn find_guest(&self) -> io::Result<()> {
        loop {
            let found = self.found.notified();
            self.lock().ask_guest()?;
            self.ring();
            if tokio::time::timeout(ASK_AGAIN, found).await.is_ok() {
                return self.lock().check();
            }
        }
    }

    /// Waits for [`Shared::ring`].
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }
}

/// How far a flow to the outside is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlowState {
    /// The outside is being called; the guest waits.
    Dialling,
    /// Both sides are connected.
    Open,
}

/// The place of a flow among the guest's; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) flow: Flow,
}

impl Place {
    /// A place for a new flow; `None` where all are taken.
    pub(super) fn take(shared: &Arc<Shared>, flow: Flow) -> Option<Self> {
        let mut stack = shared.lock();
        let dialling = stack.flows.values().filter(|state| **state == FlowState::Dialling).count();
        if stack.flows.len() >= FLOWS_MAX || dialling >= DIALLING_MAX {
            return None;
        }
        stack.flows.insert(flow, FlowState::Dialling);
        Some(Self { shared: Arc::clone(shared), flow })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.lock().flows.remove(&self.flow);
    }
}

/// Frames on their way to QEMU, each after its length.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Adds a frame of `length` bytes that `fill` writes.
    pub(super) fn push<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        // A frame of this LAN is at most MTU bytes long.
        self.bytes.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_be_bytes());
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        fill(&mut self.bytes[start..])
    }

    /// What is to be sent.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Counts bytes as sent.
    pub(super) fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }

    /// Gives the memory back where nothing waits.
    pub(super) fn release(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

/// The stack.
pub(super) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    outbox: Outbox,
    /// Connections whose owner is gone, and until when they may take to end.
    closing: Vec<(SocketHandle, Instant)>,
    /// The guest's TCP flows to the outside.
    flows: HashMap<Flow, FlowState>,
    /// Where frames for the guest go: to the hardware address that it used last.
    guest: EthernetAddress,
    born: Instant,
    incoming: usize,
    ended: bool,
    next_port: u16,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Stack {
    fn new() -> Self {
        let mut outbox = Outbox::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let guest = EthernetAddress::BROADCAST;
        let device = &mut Wire { packet: None, guest, outbox: &mut outbox };
        let mut interface = Interface::new(config, device, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // The list has room for two.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(GATEWAY, PREFIX_BITS)));
        });
        // Connections to the outside are answered in the name of whom the guest calls.
        interface.set_any_ip(true);
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            outbox,
            closing: Vec::new(),
            flows: HashMap::new(),
            guest,
            born: Instant::now(),
            incoming: 0,
            ended: false,
            next_port: LOCAL_PORT_FIRST,
        }
    }

    fn now(&self) -> StackInstant {
        let micros = self.born.elapsed().as_micros();
        StackInstant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// Where the guest is.
    pub(super) fn guest(&self) -> EthernetAddress {
        self.guest
    }

    /// An error once QEMU is gone.
    fn check(&self) -> io::Result<()> {
        if self.ended { Err(gone()) } else { Ok(()) }
    }

    fn ask_guest(&mut self) -> io::Result<()> {
        self.check()?;
        self.send(&who_has_guest());
        Ok(())
    }

    /// Takes a frame that [`super::frame::ask`] left to the stack.
    pub(super) fn take(&mut self, frame: &[u8]) {
        let now = self.now();
        let packet = frame.get(ETHERNET_HEADER_LEN..);
        let device = &mut Wire { packet, guest: self.guest, outbox: &mut self.outbox };
        self.interface.poll_ingress_single(now, device, &mut self.sockets);
    }

    /// Sends a frame that was made elsewhere, or drops it where too many wait.
    pub(super) fn send(&mut self, frame: &[u8]) {
        if !self.is_full() {
            self.outbox.push(frame.len(), |room| room.copy_from_slice(frame));
        }
    }

    /// Whether QEMU must take something before more is made.
    pub(super) fn is_full(&self) -> bool {
        self.outbox.bytes.len() >= OUTBOX_BYTES_FULL
    }

    /// Whether no connection is open, so that memory can be given back.
    pub(super) fn is_idle(&self) -> bool {
        self.sockets.iter().next().is_none()
    }

    /// Lets every connection say what it has to say, as far as there is room, and forgets those that have ended.
    /// Returns when this must be done again if nothing else happens.
    pub(super) fn turn(&mut self) -> Option<Instant> {
        let now = self.now();
        // What has ended is removed only after its last word, and cutting off is a last word too.
        self.speak(now);
        if self.bury() {
            self.speak(now);
        }
        let funeral = self.closing.iter().map(|(_, deadline)| *deadline).min();
        if self.is_full() {
            return funeral;
        }
        let timer = self.interface.poll_at(now, &self.sockets).map(|at| {
            self.born + Duration::from_micros(u64::try_from(at.total_micros()).unwrap_or_default())
        });
        [funeral, timer].into_iter().flatten().min()
    }

    fn speak(&mut self, now: StackInstant) {
        while !self.is_full() {
            let guest = self.guest;
            let device = &mut Wire { packet: None, guest, outbox: &mut self.outbox };
            if self.interface.poll_egress(now, device, &mut self.sockets) == PollResult::None {
                break;
            }
        }
    }

    /// What waits for QEMU, in exchange for `empty`.
    pub(super) fn exchange(&mut self, empty: &mut Outbox) {
        std::mem::swap(&mut self.outbox, empty);
    }

    /// Removes the connections that have ended, and cuts off those that take too long; whether there was one.
    fn bury(&mut self) -> bool {
        let now = Instant::now();
        let mut cut_off = false;
        let sockets = &mut self.sockets;
        self.closing.retain_mut(|(handle, deadline)| {
            let socket = sockets.get_mut::<Socket<'_>>(*handle);
            let over = match socket.state() {
                State::Closed => socket.remote_endpoint().is_none() || now >= *deadline,
                State::TimeWait | State::Listen => true,
                // Nobody is left to read what comes.
                _ if socket.can_recv() || now >= *deadline => {
                    socket.abort();
                    cut_off = true;
                    *deadline = now + RESET_DEADLINE;
                    false
                }
                _ => false,
            };
            if over {
                sockets.remove(*handle);
            }
            !over
        });
        cut_off
    }

    /// Begins a connection to a port of the guest.
    pub(super) fn dial(&mut self, port: u16) -> io::Result<SocketHandle> {
        self.check()?;
        if self.incoming >= INCOMING_MAX || self.sockets.iter().count() >= CONNECTIONS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!("{INCOMING_MAX} connections to the guest are open already"),
            ));
        }
        let local = (GATEWAY, self.free_port());
        let mut socket = new_socket();
        let guest = IpEndpoint::new(GUEST.into(), port);
        socket.connect(self.interface.context(), guest, local).map_err(io::Error::other)?;
        self.incoming += 1;
        Ok(self.sockets.add(socket))
    }

    /// How far a flow to the outside is; `None` where it is not known.
    pub(super) fn flow(&self, flow: &Flow) -> Option<FlowState> {
        self.flows.get(flow).copied()
    }

    /// How many flows to the outside there are.
    #[cfg(test)]
    pub(super) fn flows_open(&self) -> usize {
        self.flows.len()
    }

    /// Accepts a flow to the outside whose other end is there, in the name of whom the guest called. `syn` is the
    /// frame that asked. `None` where there is no room or the guest has meanwhile begun something else.
    pub(super) fn accept(&mut self, flow: Flow, syn: &[u8]) -> Option<SocketHandle> {
        if self.ended || self.sockets.iter().count() >= CONNECTIONS_MAX {
            return None;
        }
        let mut socket = new_socket();
        socket.listen(IpEndpoint::new((*flow.to.ip()).into(), flow.to.port())).ok()?;
        let handle = self.sockets.add(socket);
        self.take(syn);
        if self.sockets.get::<Socket<'_>>(handle).state() != State::SynReceived {
            self.sockets.remove(handle);
            return None;
        }
        self.flows.insert(flow, FlowState::Open);
        Some(handle)
    }

    /// A port from which no connection goes; there are far more than connections.
    fn free_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(LOCAL_PORT_FIRST);
            if !self.sockets.iter().any(|(_, socket)| match socket {
                smoltcp::socket::Socket::Tcp(socket) => {
                    socket.local_endpoint().is_some_and(|local| local.port == port)
                }
                _ => false,
            }) {
                return port;
            }
        }
    }

    /// The socket of a connection; an error once QEMU is gone.
    pub(super) fn socket(&mut self, handle: SocketHandle) -> io::Result<&mut Socket<'static>> {
        self.check()?;
        Ok(self.sockets.get_mut(handle))
    }

    /// Takes a socket whose owner is gone: it ends in good order where everything was read, else at once.
    pub(super) fn release(&mut self, handle: SocketHandle, incoming: bool) {
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        let deadline = match socket.state() {
            State::SynSent | State::SynReceived => {
                socket.abort();
                RESET_DEADLINE
            }
            _ => {
                socket.close();
                CLOSING_DEADLINE
            }
        };
        if incoming {
            self.incoming -= 1;
        }
        self.closing.push((handle, Instant::now() + deadline));
    }

    /// Ends everything: QEMU is gone, or nobody wants the network any more.
    fn end(&mut self) {
        self.ended = true;
        for (_, socket) in self.sockets.iter_mut() {
            if let smoltcp::socket::Socket::Tcp(socket) = socket {
                // Wakes whoever waits on it.
                socket.abort();
            }
        }
        self.outbox = Outbox::default();
    }
}

fn new_socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
    let mut socket = Socket::new(buffer(), buffer());
    // Small writes are keystrokes; what is sent in bulk fills segments anyway.
    socket.set_nagle_enabled(false);
    socket
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the machine's network has ended")
}

/// The stack's view of the link: one packet to take, and room for those it makes. It never says that it is full,
/// because then the first sockets would starve the last; [`Stack::turn`] looks before it asks.
struct Wire<'a> {
    packet: Option<&'a [u8]>,
    guest: EthernetAddress,
    outbox: &'a mut Outbox,
}

struct Taken<'a>(&'a [u8]);

impl RxToken for Taken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

struct Made<'a> {
    guest: EthernetAddress,
    outbox: &'a mut Outbox,
}

impl TxToken for Made<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.outbox.push(ETHERNET_HEADER_LEN + len, |bytes| {
            ipv4_header(self.guest, bytes);
            f(&mut bytes[ETHERNET_HEADER_LEN..])
        })
    }
}

impl Device for Wire<'_> {
    type RxToken<'b>
        = Taken<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Made<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: StackInstant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let packet = self.packet.take()?;
        Some((Taken(packet), Made { guest: self.guest, outbox: self.outbox }))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Self::TxToken<'_>> {
        Some(Made { guest: self.guest, outbox: self.outbox })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        // Frames' headers are put on and taken off here: where the guest is, is always known better here.
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities.checksum = checksums();
        capabilities
    }
}
