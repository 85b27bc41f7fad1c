//! Many connections on one thread: epoll, one read and one write per message.
//!
//! Invariant: bytes reach a [`Conversation`] in order and once; what it did not use comes again in
//! front of what follows. A connection that closes or fails ends the load.
//! Not here: any protocol.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::LoadError;

/// The most that is read from a connection at once.
const READ_BYTES: usize = 64 * 1024;
/// The most that a connection may keep of unfinished messages.
const INBOX_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many connections are looked at between two questions whether the load is over.
const EVENTS_MAX: usize = 1024;
/// How long nothing may happen before the load is asked whether it is over.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// What is said on the connections of one reactor.
pub(crate) trait Conversation {
    /// Takes unread `bytes` of connection `id`; returns how many of them made whole messages.
    fn received(
        &mut self,
        reactor: &mut Reactor,
        id: usize,
        bytes: &[u8],
    ) -> Result<usize, LoadError>;

    /// Asked all the time; ends [`Reactor::run`].
    fn is_over(&self, now: Instant) -> bool;
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a message. Empty, without memory, nearly always.
    inbox: Vec<u8>,
    /// What the kernel did not take yet.
    unsent: Vec<u8>,
}

/// Connections by their number, which counts from 0 in the order they were made.
pub(crate) struct Reactor {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

impl Reactor {
    pub(crate) fn new() -> Result<Self, LoadError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(LoadError::io("epoll"))?;
        Ok(Self { epoll, connections: Vec::new(), buffer: vec![0; READ_BYTES] })
    }

    /// Connects to `server` and returns the connection's number.
    pub(crate) fn connect(&mut self, server: SocketAddrV4) -> Result<usize, LoadError> {
        self.adopt(connect_from(Ipv4Addr::LOCALHOST, server)?)
    }

    /// Takes over a connection on which everything that came was read.
    pub(crate) fn adopt(&mut self, stream: TcpStream) -> Result<usize, LoadError> {
        let id = self.connections.len();
        stream.set_nonblocking(true).map_err(LoadError::io("connection"))?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(id as u64), EventFlags::IN)
            .map_err(LoadError::io("epoll"))?;
        self.connections.push(Connection { stream, inbox: Vec::new(), unsent: Vec::new() });
        Ok(id)
    }

    /// Sends `bytes` on connection `id`, now or as soon as the peer takes them.
    pub(crate) fn send(&mut self, id: usize, bytes: &[u8]) -> Result<(), LoadError> {
        let connection = &mut self.connections[id];
        if !connection.unsent.is_empty() {
            connection.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = write_some(&mut connection.stream, bytes)?;
        if sent < bytes.len() {
            connection.unsent.extend_from_slice(&bytes[sent..]);
            self.watch(id, EventFlags::IN | EventFlags::OUT)?;
        }
        Ok(())
    }

    /// Serves all connections until the conversation is over.
    ///
    /// # Errors
    ///
    /// The first failure of any connection, or of the conversation; [`LoadError::TooSlow`], with
    /// `what`, after `limit`.
    pub(crate) fn run(
        &mut self,
        what: &'static str,
        limit: Duration,
        conversation: &mut impl Conversation,
    ) -> Result<(), LoadError> {
        let end = Instant::now() + limit;
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            let now = Instant::now();
            if conversation.is_over(now) {
                return Ok(());
            }
            if now > end {
                return Err(LoadError::TooSlow(what));
            }
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&WAIT))
                .map_err(LoadError::io("epoll"))?;
            for event in events.drain(..) {
                self.serve(event, conversation)?;
            }
        }
    }

    fn serve(
        &mut self,
        event: Event,
        conversation: &mut impl Conversation,
    ) -> Result<(), LoadError> {
        // Copied out: the structure is packed. The number is one that `adopt` made from a `usize`.
        let (Event { flags, data }, mut buffer) = (event, std::mem::take(&mut self.buffer));
        let id = usize::try_from(data.u64()).unwrap_or(usize::MAX);
        if flags.contains(EventFlags::OUT) {
            self.flush(id)?;
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.receive(id, &mut buffer, conversation)?;
        }
        self.buffer = buffer;
        Ok(())
    }

    fn receive(
        &mut self,
        id: usize,
        buffer: &mut [u8],
        conversation: &mut impl Conversation,
    ) -> Result<(), LoadError> {
        let count = match self.connections[id].stream.read(buffer) {
            Ok(0) => return Err(LoadError::Protocol(format!("connection {id} was closed"))),
            Ok(count) => count,
            Err(error) if is_transient(&error) => return Ok(()),
            Err(source) => return Err(LoadError::io(format!("connection {id}"))(source)),
        };
        let mut inbox = std::mem::take(&mut self.connections[id].inbox);
        if inbox.is_empty() {
            let used = conversation.received(self, id, &buffer[..count])?;
            if used < count {
                self.connections[id].inbox = buffer[used..count].to_vec();
            }
            return Ok(());
        }
        inbox.extend_from_slice(&buffer[..count]);
        let used = conversation.received(self, id, &inbox)?;
        inbox.drain(..used);
        if inbox.len() > INBOX_BYTES_MAX {
            return Err(LoadError::Protocol(format!("connection {id}: a message without an end")));
        }
        if !inbox.is_empty() {
            self.connections[id].inbox = inbox;
        }
        Ok(())
    }

    fn flush(&mut self, id: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[id];
        let sent = write_some(&mut connection.stream, &connection.unsent)?;
        connection.unsent.drain(..sent);
        if connection.unsent.is_empty() {
            self.watch(id, EventFlags::IN)?;
        }
        Ok(())
    }

    fn watch(&self, id: usize, flags: EventFlags) -> Result<(), LoadError> {
        let stream = &self.connections[id].stream;
        epoll::modify(&self.epoll, stream, EventData::new_u64(id as u64), flags)
            .map_err(LoadError::io("epoll"))
    }
}

/// Connects from one of loopback's many addresses, each of which has ports of its own.
pub(crate) fn connect_from(from: Ipv4Addr, server: SocketAddrV4) -> Result<TcpStream, LoadError> {
    let connect = || -> Result<TcpStream, rustix::io::Errno> {
        let kind = (AddressFamily::INET, SocketType::STREAM);
        let socket = rustix::net::socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None)?;
        // Binding makes the kernel choose a port at once, among those of this address alone; the
        // default address needs no choice.
        if from != Ipv4Addr::LOCALHOST {
            rustix::net::bind(&socket, &SocketAddrV4::new(from, 0))?;
        }
        rustix::net::connect(&socket, &server)?;
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
        Ok(TcpStream::from(socket))
    };
    connect().map_err(LoadError::io(format!("connecting to {server} from {from}")))
}

fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize, LoadError> {
    match stream.write(bytes) {
        Ok(sent) => Ok(sent),
        Err(error) if is_transient(&error) => Ok(0),
        Err(source) => Err(LoadError::io("sending")(source)),
    }
}

fn is_transient(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    /// Counts lines that end in a semicolon, and says the next one.
    struct Lines {
        seen: Vec<Vec<u8>>,
        wanted: usize,
    }

    impl Conversation for Lines {
        fn received(
            &mut self,
            reactor: &mut Reactor,
            id: usize,
            bytes: &[u8],
        ) -> Result<usize, LoadError> {
            let Some(end) = bytes.iter().position(|byte| *byte == b';') else { return Ok(0) };
            self.seen.push(bytes[..end].to_vec());
            reactor.send(id, b"next;")?;
            Ok(end + 1)
        }

        fn is_over(&self, _: Instant) -> bool {
            self.seen.len() >= self.wanted
        }
    }

    #[test]
    fn a_message_in_pieces_is_one_message() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        let mut reactor = Reactor::new().unwrap();
        assert_eq!(reactor.connect(address).unwrap(), 0);
        let (mut peer, _) = listener.accept().unwrap();
        // The second piece is sent only when the first message was answered.
        let speaker = std::thread::spawn(move || {
            peer.write_all(b"one;tw").unwrap();
            let mut answer = [0; 5];
            peer.read_exact(&mut answer).unwrap();
            peer.write_all(b"o;").unwrap();
            peer.read_exact(&mut answer).unwrap();
            answer
        });
        let mut lines = Lines { seen: Vec::new(), wanted: 2 };
        reactor.run("lines", Duration::from_secs(10), &mut lines).unwrap();
        assert_eq!(lines.seen, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(&speaker.join().unwrap(), b"next;");
    }

    #[test]
    fn a_closed_connection_ends_the_load() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        let mut reactor = Reactor::new().unwrap();
        reactor.connect(address).unwrap();
        drop(listener.accept().unwrap());
        let mut lines = Lines { seen: Vec::new(), wanted: 1 };
        let error = reactor.run("lines", Duration::from_secs(10), &mut lines).unwrap_err();
        assert!(error.to_string().contains("connection 0 was closed"), "{error}");
    }
}
