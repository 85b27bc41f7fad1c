//! The other side for tests: a real TCP/IP stack that plays the guest behind QEMU's socket.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::super::{GATEWAY, GUEST};

/// The guest's hardware address at first.
pub(super) const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// No wait of a test is longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it sleeps at most before it looks again at what a test waits for.
const GLANCE: Duration = Duration::from_millis(5);

/// A guest.
pub(super) struct Guest {
    stream: UnixStream,
    interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    wire: Wire,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    born: Instant,
}

impl Guest {
    /// A guest with its address set by itself, as `gatehouse.ip=static` does.
    pub(super) fn new(stream: UnixStream) -> Self {
        let mut guest = Self::without_address(stream);
        guest.set_address();
        guest
    }

    /// A guest that has no address yet.
    pub(super) fn without_address(stream: UnixStream) -> Self {
        let mut wire = Wire::default();
        let interface = Interface::new(Config::new(MAC.into()), &mut wire, StackInstant::ZERO);
        Self {
            stream,
            interface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            unread: Vec::new(),
            unsent: Vec::new(),
            born: Instant::now(),
        }
    }

    pub(super) fn set_address(&mut self) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(GUEST, 24))).unwrap();
        });
        self.interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
    }

    pub(super) fn set_mac(&mut self, mac: EthernetAddress) {
        self.interface.set_hardware_addr(mac.into());
    }

    pub(super) fn tcp() -> Socket<'static> {
        let buffer = || SocketBuffer::new(vec![0; 256 * 1024]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        socket
    }

    /// Listens on a port, for one connection.
    pub(super) fn listen(&mut self, port: u16) -> SocketHandle {
        let mut socket = Self::tcp();
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    /// Begins to connect.
    pub(super) fn dial(&mut self, to: std::net::SocketAddrV4, from: u16) -> SocketHandle {
        let mut socket = Self::tcp();
        let to = (smoltcp::wire::IpAddress::from(*to.ip()), to.port());
        socket.connect(self.interface.context(), to, from).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends a frame as it is.
    pub(super) fn raw(&mut self, frame: &[u8]) {
        self.wire.sent.push_back(frame.to_vec());
    }

    /// Sends bytes that need not be a frame.
    pub(super) fn raw_bytes(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Lives until `done` says something.
    pub(super) async fn until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now =
                StackInstant::from_micros(i64::try_from(self.born.elapsed().as_micros()).unwrap());
            self.interface.poll(now, &mut self.wire, &mut self.sockets);
            if let Some(result) = done(self) {
                self.interface.poll(now, &mut self.wire, &mut self.sockets);
                while self.flush() {}
                return result;
            }
            self.interface.poll(now, &mut self.wire, &mut self.sockets);
            let wrote = self.flush();
            let read = self.read();
            if wrote || read {
                tokio::task::yield_now().await;
                continue;
            }
            assert!(Instant::now() < deadline, "the guest waited in vain");
            let delay = self
                .interface
                .poll_delay(now, &self.sockets)
                .map_or(GLANCE, |delay| Duration::from_micros(delay.total_micros()));
            let interest = if self.unsent.is_empty() {
                tokio::io::Interest::READABLE
            } else {
                tokio::io::Interest::READABLE | tokio::io::Interest::WRITABLE
            };
            tokio::select! {
                ready = self.stream.ready(interest) => { ready.unwrap(); }
                () = tokio::time::sleep(delay.clamp(Duration::from_micros(100), GLANCE)) => {}
            }
        }
    }

    /// Lives until dropped.
    pub(super) async fn forever(&mut self) {
        loop {
            // The patience of `until` is for one wait, not for a life.
            let end = Instant::now() + PATIENCE / 2;
            self.until(|_| (Instant::now() > end).then_some(())).await;
        }
    }

    /// Waits for a frame that `want` accepts, seeing each before the stack does.
    pub(super) async fn frame(&mut self, mut want: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        self.wire.keep = true;
        let frame = self
            .until(|guest| {
                let at = guest.wire.kept.iter().position(|frame| want(frame))?;
                guest.wire.kept.remove(at)
            })
            .await;
        self.wire.keep = false;
        self.wire.kept.clear();
        frame
    }

    fn flush(&mut self) -> bool {
        while let Some(frame) = self.wire.sent.pop_front() {
            self.unsent.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
            self.unsent.extend(frame);
        }
        if self.unsent.is_empty() {
            return false;
        }
        match self.stream.try_write(&self.unsent) {
            Ok(count) => {
                self.unsent.drain(..count);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&mut self) -> bool {
        let mut bytes = vec![0; 256 * 1024];
        match self.stream.try_read(&mut bytes) {
            Ok(0) => panic!("the network closed the socket"),
            Ok(count) => self.unread.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        }
        let mut at = 0;
        while let Some((length, rest)) = self.unread[at..].split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
            let Some(frame) = rest.get(..length) else { break };
            if self.wire.keep {
                self.wire.kept.push_back(frame.to_vec());
            }
            self.wire.received.push_back(frame.to_vec());
            at += 4 + length;
        }
        self.unread.drain(..at);
        true
    }
}

#[derive(Default)]
struct Wire {
    received: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    keep: bool,
    kept: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Sent<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Received, Sent<'_>)> {
        Some((Received(self.received.pop_front()?), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        // It verifies what the network computes, as a guest's kernel does.
        capabilities.checksum = ChecksumCapabilities::default();
        capabilities
    }
}
