//! This host's name servers, and which questions a guest may put to them.
//!
//! Invariant: only plain questions pass: a name server may trust this host with more (changing names, copying zones)
//! than a guest is to have.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::frame::DNS_PORT;

/// Where this host's name servers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long that file is believed before it is read again.
const BELIEVED: Duration = Duration::from_secs(5);
/// As many name servers are used as the C library uses.
const SERVERS_MAX: usize = 3;
/// Most of the file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// A DNS message's header.
const HEADER_BYTES: usize = 12;

/// The name servers of this host.
#[derive(Debug)]
pub(super) struct Resolvers {
    file: PathBuf,
    port: u16,
    known: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    /// Counts the name servers that did not answer.
    silent: AtomicUsize,
}

impl Resolvers {
    /// Those of `/etc/resolv.conf`.
    pub(super) fn of_this_host() -> Self {
        Self::at_port(RESOLV_CONF.into(), DNS_PORT)
    }

    /// Those of another file, at another port.
    pub(super) fn at_port(file: PathBuf, port: u16) -> Self {
        Self { file, port, known: Mutex::new(None), silent: AtomicUsize::new(0) }
    }

    /// The name server to ask now; `None` where this host has none.
    pub(super) fn current(&self) -> Option<SocketAddr> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = matches!(&*known, Some((read, _)) if read.elapsed() < BELIEVED);
        if !fresh {
            *known = Some((Instant::now(), read(&self.file, self.port)));
        }
        let (_, servers) = known.as_ref()?;
        let turn = self.silent.load(Ordering::Relaxed).checked_rem(servers.len())?;
        servers.get(turn).copied()
    }

    /// Notes that `server` did not answer, so that the next one is asked.
    pub(super) fn is_silent(&self, server: SocketAddr) {
        // Many questions may have waited for the same server; one step for all of them.
        if self.current() == Some(server) {
            self.silent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn read(file: &std::path::Path, port: u16) -> Vec<SocketAddr> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(file)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    if let Err(error) = read {
        tracing::debug!(%error, file = %file.display(), "no name servers for the guests");
    }
    parse(&text, port)
}

fn parse(text: &str, port: u16) -> Vec<SocketAddr> {
    let mut servers: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?
        })
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, port))
        .take(SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        // As the C library does.
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    servers
}

/// Whether a message is a question of the kind that any program may ask: one name, no copying of zones, no changes.
pub(super) fn is_question(message: &[u8]) -> bool {
    let Some((header, rest)) = message.split_first_chunk::<HEADER_BYTES>() else { return false };
    let questions = u16::from_be_bytes([header[4], header[5]]);
    // The first byte's upper bits: an answer (1), and the kind of question (4, where 0 is plain).
    if header[2] & 0xf8 != 0 || questions != 1 {
        return false;
    }
    matches!(question_type(rest), Some(kind) if kind != IXFR && kind != AXFR)
}

/// Types that copy a zone.
const IXFR: u16 = 251;
const AXFR: u16 = 252;

fn question_type(mut bytes: &[u8]) -> Option<u16> {
    loop {
        match bytes.split_first()? {
            (0, rest) => {
                let (kind, _) = rest.split_first_chunk::<2>()?;
                return Some(u16::from_be_bytes(*kind));
            }
            // A question is the first name of a message, so it has nothing to point back to.
            (length, _) if *length > 63 => return None,
            (length, rest) => bytes = rest.get(usize::from(*length)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(flags: [u8; 2], count: u8, name: &[u8], kind: u16) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, flags[0], flags[1], 0, count, 0, 0, 0, 0, 0, 0];
        bytes.extend(name);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    #[test]
    fn plain_questions_pass_and_others_do_not() {
        let name = b"\x07example\x03org\x00";
        let plain = question([1, 0], 1, name, 1);
        assert!(is_question(&plain));
        assert!(is_question(&question([1, 0x20], 1, b"\x00", 2)));
        for refused in [
            question([0x80, 0], 1, name, 1),
            question([0x28, 0], 1, name, 6),
            question([0x20, 0], 1, name, 6),
            question([1, 0], 0, name, 1),
            question([1, 0], 2, name, 1),
            question([1, 0], 1, name, AXFR),
            question([1, 0], 1, name, IXFR),
            question([1, 0], 1, b"\xc0\x0c", 1),
            question([1, 0], 1, b"\x3fshort", 1),
        ] {
            assert!(!is_question(&refused), "{refused:?}");
        }
        for length in 0..plain.len() - 2 {
            assert!(!is_question(&plain[..length]), "cut to {length}");
        }
    }

    #[test]
    fn name_servers_are_read_as_the_c_library_does() {
        let text = "# nameserver 9.9.9.9\nsearch lan\nnameserver 192.0.2.1\nnameserver\t::1 # x\n\
            nameserver bad\n nameserver 1.1.1.1\nnameserver 2.2.2.2\n";
        let servers: Vec<_> = parse(text, 53).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[::1]:53", "1.1.1.1:53"]);
        assert_eq!(parse("", 53)[0].to_string(), "127.0.0.1:53");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_name_server_is_followed_by_the_next_and_a_changed_file_is_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nameserver 1.1.1.1\nnameserver 2.2.2.2\n").unwrap();
        let resolvers = Resolvers::at_port(file.path().into(), 53);
        let first = resolvers.current().unwrap();
        resolvers.is_silent(first);
        resolvers.is_silent(first);
        assert_eq!(resolvers.current().unwrap().to_string(), "2.2.2.2:53");
        std::fs::write(file.path(), "nameserver 3.3.3.3\n").unwrap();
        tokio::time::advance(BELIEVED).await;
        assert_eq!(resolvers.current().unwrap().to_string(), "3.3.3.3:53");
    }
}
