//! The guest's network: a LAN of its own, in user mode, inside this process.
//!
//! QEMU hands over Ethernet frames by a Unix socket; a small TCP/IP stack answers them as gateway, DHCP server and
//! name server. No root is needed, and whatever leaves for the outside is dialled here, so it can be refused here.
//!
//! Invariant: a guest reaches nothing that [`NetworkPolicy`] does not allow, whatever frames it sends; what it makes
//! this process hold (connections, flows, bytes) is bounded. Without traffic, nothing here wakes up.
//!
//! Not here: who may use a machine and on which public port (`ports`), and how QEMU is told of the socket (`qemu`).

mod connection;
mod datagrams;
mod dhcp;
mod frame;
mod inbox;
mod link;
mod outside;
mod pace;
mod policy;
mod resolver;
mod route;
mod stack;
#[cfg(test)]
mod tests;

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use smoltcp::wire::EthernetAddress;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

pub use connection::Connection;
#[cfg(fuzzing)]
pub use frame::fuzz as fuzz_frame;
/// A network by its address and the bits of it that count.
pub use ipnet::IpNet as Net;
pub use policy::NetworkPolicy;

use outside::Outside;
use stack::Shared;

/// The gateway's address, from which this process speaks to the guest.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server's address.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The guest's address, by DHCP or set by itself.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Bits of the LAN's prefix.
const PREFIX_BITS: u8 = 24;
/// The gateway's hardware address; QEMU's own user network has the same.
const GATEWAY_MAC: EthernetAddress = EthernetAddress([0x52, 0x55, 0x0a, 0x00, 0x02, 0x02]);

/// How long the guest may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// One machine's network. Dropping it ends every connection through it.
#[derive(Debug)]
pub struct Network {
    shared: Arc<Shared>,
    /// The one task that moves frames; ends with this.
    _link: JoinSet<()>,
}

impl Network {
    /// Connects to the socket of QEMU's `-netdev stream,server=on`, which takes one peer at a time, and serves the
    /// guest behind it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the socket does not exist or nobody listens on it.
    pub async fn attach(socket: &Path, policy: Arc<NetworkPolicy>) -> io::Result<Self> {
        Ok(Self::serve(UnixStream::connect(socket).await?, Outside::new(policy)))
    }

    fn serve(stream: UnixStream, outside: Outside) -> Self {
        let shared = Arc::new(Shared::new());
        let mut link = JoinSet::new();
        link.spawn(link::run(stream, Arc::clone(&shared), outside));
        Self { shared, _link: link }
    }

    /// Connects to a TCP port of the guest, which sees [`GATEWAY`] as the peer. Dropping the connection closes it.
    ///
    /// # Errors
    /// `ConnectionRefused` when the guest refuses, `TimedOut` when it does not answer within 10 seconds,
    /// `ConnectionAborted` when its QEMU is gone, `QuotaExceeded` when 256 connections are open.
    pub async fn connect(&self, port: u16) -> io::Result<Connection> {
        if port == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no guest listens on port 0"));
        }
        let connect = async {
            self.shared.find_guest().await?;
            let connection = Connection::dial(&self.shared, port)?;
            connection.opened().await?;
            Ok(connection)
        };
        match tokio::time::timeout(CONNECT_DEADLINE, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("port {port} of the guest did not answer within {CONNECT_DEADLINE:?}"),
            )),
        }
    }
}
