//! HTTP/1.1 byte by byte: for requests that no decent client sends.
//!
//! Invariant: writes exactly what it is given; every read has the deadline.
//! Not here: ordinary requests (`http`).

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::{self, sockopt::set_socket_linger};

use crate::{DEADLINE, Reply};

/// A connection and what has been read of it.
#[derive(Debug)]
pub struct Connection<S = TcpStream> {
    stream: BufReader<S>,
}

impl Connection {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn open(address: SocketAddr) -> Self {
        Self::try_open(address).expect("it listens")
    }

    /// Connects, or not when nobody listens.
    ///
    /// # Panics
    /// When the connection cannot be given its timeouts.
    #[must_use]
    pub fn try_open(address: SocketAddr) -> Option<Self> {
        Some(Self::with_timeouts(TcpStream::connect_timeout(&address, DEADLINE).ok()?))
    }

    /// Connects to a port of this computer as somebody at `from`, another address of the loopback.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn open_from(from: Ipv4Addr, port: u16) -> Self {
        let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        net::bind(&socket, &SocketAddrV4::new(from, 0)).expect("an address of the loopback");
        net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).expect("it listens");
        Self::with_timeouts(socket.into())
    }

    fn with_timeouts(stream: TcpStream) -> Self {
        // An answer must not wait for the acknowledgement of the last one.
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("a write timeout");
        Self::over(stream)
    }

    /// Ends it with a reset, whatever has been read.
    ///
    /// # Panics
    /// When the system cannot be told to do so.
    pub fn reset(self) {
        let stream = self.stream.into_inner();
        set_socket_linger(&stream, Some(Duration::ZERO)).expect("no lingering");
    }

    /// Says that nothing more will be written.
    pub fn finish_writing(&self) {
        // The peer may have closed already, which is what the reading shows.
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }
}

impl<S: Read + Write> Connection<S> {
    /// Takes a stream that is connected, with its timeouts set.
    pub fn over(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// The stream itself.
    pub fn stream(&mut self) -> &mut S {
        self.stream.get_mut()
    }

    /// Writes these bytes; that the peer has closed is left to the reading.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let stream = self.stream.get_mut();
        let _ = stream.write_all(bytes.as_ref()).and_then(|()| stream.flush());
        self
    }

    /// Reads one answer.
    ///
    /// # Panics
    /// When there is none, or it breaks off.
    pub fn read_reply(&mut self) -> Reply {
        self.try_read_reply().expect("an answer, not a closed connection")
    }

    /// Reads one answer; `None` when the peer closed or reset instead.
    ///
    /// # Panics
    /// When the deadline passes, or the answer is not HTTP.
    pub fn try_read_reply(&mut self) -> Option<Reply> {
        let (status, headers) = self.read_head()?;
        let named = |name: &str| {
            let mut named = headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
            named.next().map(|(_, value)| value.as_str())
        };
        let chunked = named("transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
        let length = named("content-length").map(|text| text.parse().expect("a length"));
        let mut body = Vec::new();
        match (status, chunked, length) {
            (100..200 | 204 | 304, ..) => {}
            (_, true, _) => loop {
                match self.try_read_chunk()? {
                    chunk if chunk.is_empty() => break,
                    chunk => body.extend(chunk),
                }
            },
            (_, false, Some(length)) => {
                body.resize(length, 0);
                self.stream.read_exact(&mut body).ok()?;
            }
            (_, false, None) => {
                self.stream.read_to_end(&mut body).ok()?;
            }
        }
        Some(Reply { status, headers, body })
    }

    /// Reads status and headers alone, as before a stream or after HEAD.
    ///
    /// # Panics
    /// As [`Self::try_read_reply`].
    pub fn read_head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let first = self.read_line()?;
        let mut words = first.split(' ');
        assert!(words.next().is_some_and(|word| word.starts_with("HTTP/1.")), "{first:?}");
        let status = words.next().and_then(|word| word.parse().ok()).expect("a status");
        let mut headers = Vec::new();
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Some((status, headers));
            }
            let (name, value) = line.split_once(':').expect("a header");
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// Reads one chunk of a chunked body; `None` at its end.
    ///
    /// # Panics
    /// When the body breaks off or is not chunked.
    pub fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let chunk = self.try_read_chunk().expect("a chunk, not a body that broke off");
        (!chunk.is_empty()).then_some(chunk)
    }

    /// Reads one chunk, an empty one at the end; `None` when the body breaks off.
    pub(crate) fn try_read_chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.read_line()?;
        let count = usize::from_str_radix(line.trim(), 16).expect("a chunk size");
        let mut chunk = vec![0; count];
        self.stream.read_exact(&mut chunk).ok()?;
        assert_eq!(self.read_line()?, "", "after a chunk");
        Some(chunk)
    }

    /// Everything until the peer closes (or resets).
    ///
    /// # Panics
    /// When the peer neither closes nor sends within the deadline.
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut bytes) {
            let waited = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!waited, "the peer neither closes nor sends; so far {} bytes", bytes.len());
        }
        bytes
    }

    fn read_line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer within {DEADLINE:?}")
            }
            Err(_) => None,
        }
    }
}
