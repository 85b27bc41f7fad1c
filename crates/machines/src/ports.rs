//! Leases public ports to machines and forwards what arrives there.
//!
//! Invariant: a leased port is bound, on every address, from the moment it is leased until the lease is dropped; what the
//! kernel says decides whether a port is free, and nothing is remembered beside it.
//! Not here: what a guest's network is, which [`crate::hypervisor::Vm`] knows.

mod bandwidth;
mod callers;
pub mod desk;
pub mod forwarder;
#[cfg(test)]
mod guest;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ring::rand::{SecureRandom, SystemRandom};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket};

use crate::error::MachineError;
pub use callers::peer;
pub use desk::{Admission, Desk, Limits};
pub use forwarder::Forwarder;

/// Connections that may wait to be accepted, for each port and address.
const BACKLOG: u32 = 64;

/// The ports that machines may be reached at.
#[derive(Debug, Clone)]
pub struct Ports {
    first: u16,
    last: u16,
    addresses: Vec<IpAddr>,
}

/// A port that is taken.
#[derive(Debug)]
pub struct Lease {
    port: u16,
    listeners: Vec<TcpListener>,
}

impl Ports {
    /// Those of `range`, on these addresses. `::` is, as usual, every address of both families.
    #[must_use]
    pub fn new(range: RangeInclusive<u16>, mut addresses: Vec<IpAddr>) -> Self {
        let every: IpAddr = Ipv4Addr::UNSPECIFIED.into();
        if addresses.contains(&Ipv6Addr::UNSPECIFIED.into()) && !addresses.contains(&every) {
            addresses.push(every);
        }
        Self { first: *range.start(), last: *range.end(), addresses }
    }

    /// Takes a free port, from a random place in the range on: one that was just given back is not likely to meet its
    /// former user again. Needs a tokio runtime.
    ///
    /// # Errors
    /// When none of the range is free, or an address is not this host's.
    pub fn lease(&self) -> Result<Lease, MachineError> {
        let Self { first, last, .. } = *self;
        let none = MachineError::NoPort { first, last };
        let Some(count) = u32::from(last).checked_sub(first.into()).map(|n| n + 1) else {
            return Err(none);
        };
        let start = random() % count;
        for step in 0..count {
            let port = u32::from(first) + (start + step) % count;
            let Ok(port) = u16::try_from(port) else { continue };
            match self.bind(port) {
                Ok(lease) => return Ok(lease),
                Err((_, error)) if is_taken(&error) => {}
                Err((address, error)) => return Err(failed(address, error)),
            }
        }
        Err(none)
    }

    /// Takes this port, in the range or not: a machine that is taken over keeps the port it has.
    ///
    /// # Errors
    /// When it is not free, or an address is not this host's.
    pub fn lease_exactly(&self, port: u16) -> Result<Lease, MachineError> {
        self.bind(port).map_err(|(address, error)| failed(address, error))
    }

    fn bind(&self, port: u16) -> Result<Lease, (SocketAddr, io::Error)> {
        let mut listeners = Vec::with_capacity(self.addresses.len());
        for ip in &self.addresses {
            let address = SocketAddr::new(*ip, port);
            match listen(address) {
                Ok(listener) => listeners.push(listener),
                Err(error) if ip.is_ipv6() && ip.is_unspecified() && is_without_ipv6(&error) => {}
                Err(error) => return Err((address, error)),
            }
        }
        match listeners.first().map(TcpListener::local_addr) {
            Some(Ok(address)) => Ok(Lease { port: address.port(), listeners }),
            Some(Err(error)) => Err((self.first_address(port), error)),
            None => Err((self.first_address(port), io::ErrorKind::AddrNotAvailable.into())),
        }
    }
}

impl Ports {
    /// For an error that is of no single address.
    fn first_address(&self, port: u16) -> SocketAddr {
        let every = Ipv4Addr::UNSPECIFIED.into();
        SocketAddr::new(self.addresses.first().copied().unwrap_or(every), port)
    }
}

impl Lease {
    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a former server that time out do not keep a port from its machine; a listener still does.
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn failed(address: SocketAddr, source: io::Error) -> MachineError {
    MachineError::Io { what: format!("listening on {address} for a machine"), source }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the search begins at the first port.
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Below those that the kernel gives to whoever connects.
    const RANGE: RangeInclusive<u16> = 21_000..=31_999;

    fn loopback(range: RangeInclusive<u16>) -> Ports {
        Ports::new(range, vec![Ipv4Addr::LOCALHOST.into()])
    }

    #[tokio::test]
    async fn a_port_is_leased_once_and_again_when_it_is_given_back() {
        let port = loopback(RANGE).lease().unwrap().port();
        let ports = loopback(port..=port);
        let lease = ports.lease().unwrap();
        assert_eq!(lease.port(), port);
        assert!(matches!(ports.lease(), Err(MachineError::NoPort { .. })));
        let error = ports.lease_exactly(port).unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
        drop(lease);
        assert_eq!(ports.lease_exactly(port).unwrap().port(), port);
    }

    #[tokio::test]
    async fn a_port_that_another_program_uses_is_passed_over() {
        // On all addresses, so that ports of both families are looked at.
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().port();
        let range = taken.saturating_sub(1)..=taken;
        let ports = Ports::new(range, vec![Ipv6Addr::UNSPECIFIED.into()]);
        for _ in 0..8 {
            if let Ok(lease) = ports.lease() {
                assert_ne!(lease.port(), taken);
            }
        }
        assert!(ports.lease_exactly(taken).is_err());
    }

    #[tokio::test]
    async fn a_port_is_on_the_addresses_that_are_named_and_no_others() {
        let check = async |named: &[&str], expected: &[&str]| {
            let addresses = named.iter().map(|it| it.parse().unwrap()).collect();
            let lease = Ports::new(RANGE, addresses).lease().unwrap();
            let found = lease.listeners.iter().map(|it| it.local_addr().unwrap());
            let found: Vec<String> = found.map(|it| it.ip().to_string()).collect();
            // Where there is no IPv6, that family is left out.
            let without: Vec<&str> = expected.iter().copied().filter(|it| *it != "::").collect();
            assert!(found == expected || found == without, "{named:?}: {found:?}");
            for address in &found {
                let address: IpAddr = address.parse().unwrap();
                let reached = match address {
                    IpAddr::V4(_) => "127.0.0.1",
                    IpAddr::V6(_) => "::1",
                };
                tokio::net::TcpStream::connect((reached, lease.port())).await.unwrap();
            }
        };
        check(&["127.0.0.1"], &["127.0.0.1"]).await;
        check(&["0.0.0.0"], &["0.0.0.0"]).await;
        check(&["::"], &["::", "0.0.0.0"]).await;
        check(&["0.0.0.0", "::"], &["0.0.0.0", "::"]).await;
        assert!(Ports::new(RANGE, Vec::new()).lease().is_err());
    }

    #[tokio::test]
    async fn every_port_of_a_range_is_found_and_none_outside() {
        let first = 21_000 + u16::try_from(std::process::id() % 8000).unwrap();
        let ports = loopback(first..=first + 9);
        let mut leases = Vec::new();
        while let Ok(lease) = ports.lease() {
            assert!((first..=first + 9).contains(&lease.port()));
            leases.push(lease);
        }
        assert!(!leases.is_empty() && leases.len() <= 10);
    }

    #[tokio::test]
    #[expect(clippy::reversed_empty_ranges, reason = "what somebody may configure")]
    async fn a_range_that_is_empty_and_an_address_of_another_host_are_errors() {
        assert!(matches!(loopback(9..=8).lease(), Err(MachineError::NoPort { .. })));
        let elsewhere = Ports::new(20_000..=60_000, vec![Ipv4Addr::new(192, 0, 2, 1).into()]);
        let error = elsewhere.lease().unwrap_err().to_string();
        assert!(error.contains("192.0.2.1"), "{error}");
    }
}
