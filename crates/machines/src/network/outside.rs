//! Carries the guest's TCP flows to the outside.
//!
//! Invariant: nothing is dialled that the policy and the routing table do not both permit at that moment, but for
//! this host's own name servers. The guest's call is answered only when the other end has answered ours, so that it
//! learns the truth at once.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::frame::DNS_PORT;
use super::resolver::{Resolvers, is_question};
use super::stack::Place;
use super::{CONNECT_DEADLINE, NAME_SERVER, NetworkPolicy, route};

/// A flow on which nothing has moved for so long is ended.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// What is copied at once, each way.
const COPY_BYTES: usize = 16 * 1024;

/// What may be reached, and how.
#[derive(Debug)]
pub(super) struct Outside {
    pub(super) policy: Arc<NetworkPolicy>,
    pub(super) resolvers: Resolvers,
    /// Where to dial instead, once all is permitted but the route. Empty outside of tests, which have no internet.
    pub(super) detours: HashMap<SocketAddr, SocketAddr>,
}

impl Outside {
    pub(super) fn new(policy: Arc<NetworkPolicy>) -> Self {
        Self { policy, resolvers: Resolvers::of_this_host(), detours: HashMap::new() }
    }

    /// Whether the policy permits `to`. Cheap: decided before anything is held for the guest.
    pub(super) fn permits(&self, to: SocketAddrV4) -> bool {
        if is_name_server(to) { self.policy.internet } else { self.policy.permits(*to.ip()) }
    }

    /// The address to dial for `to`, when that is permitted in every respect.
    pub(super) fn resolve(&self, to: SocketAddrV4) -> io::Result<SocketAddr> {
        if !self.permits(to) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if is_name_server(to) {
            return self.resolvers.current().ok_or_else(|| io::ErrorKind::NotFound.into());
        }
        if let Some(detour) = self.detours.get(&SocketAddr::V4(to)) {
            return Ok(*detour);
        }
        if route::leads_away(*to.ip())? {
            Ok(SocketAddr::V4(to))
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    /// Carries one flow from the guest's first word, the frame `syn`, to its end.
    pub(super) async fn carry(self: Arc<Self>, place: Place, syn: Vec<u8>) {
        let dialled = match self.resolve(place.flow.to) {
            Ok(address) => dial(address).await,
            Err(error) => Err(error),
        };
        match dialled {
            Ok(host) => {
                let Some(guest) = Connection::accept(&place, &syn) else { return };
                if matches!(
                    tokio::time::timeout(CONNECT_DEADLINE, guest.opened()).await,
                    Ok(Ok(()))
                ) {
                    splice(guest, host, is_name_server(place.flow.to)).await;
                }
            }
            Err(error) => {
                tracing::debug!(to = %place.flow.to, %error, "a guest's connection was refused");
                // Nobody listens for it in the stack, which says so to the guest.
                place.shared.lock().take(&syn);
                place.shared.ring();
            }
        }
    }
}

/// Whether the guest means its name server, which is this host's.
pub(super) fn is_name_server(to: SocketAddrV4) -> bool {
    to == SocketAddrV4::new(NAME_SERVER, DNS_PORT)
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await??;
    // The guest decides what is sent at once.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Copies both ways until both have ended, one has failed, or nothing has moved for [`IDLE_MAX`].
async fn splice(mut guest: Connection, mut host: TcpStream, dns: bool) {
    let moved = AtomicU64::new(0);
    let (from_guest, to_guest) = tokio::io::split(&mut guest);
    let (from_host, to_host) = host.split();
    let up = async {
        if dns {
            ask(from_guest, to_host, &moved).await
        } else {
            copy(from_guest, to_host, &moved).await
        }
    };
    let copied = tokio::select! {
        copied = async { tokio::try_join!(up, copy(from_host, to_guest, &moved)) } => copied.is_ok(),
        () = idle(&moved) => false,
    };
    if !copied {
        // Each side is to see that the other was cut off, not that it said all it had to say.
        let _ = host.set_zero_linger();
        guest.cut_off();
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut bytes = vec![0; COPY_BYTES];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..count]).await?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// Copies questions to a name server, each after its length; anything else ends the flow.
async fn ask(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let length = match from.read_u16().await {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return to.shutdown().await;
            }
            Err(error) => return Err(error),
        };
        bytes.clear();
        bytes.extend(length.to_be_bytes());
        bytes.resize(2 + usize::from(length), 0);
        from.read_exact(&mut bytes[2..]).await?;
        if !is_question(&bytes[2..]) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        to.write_all(&bytes).await?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ends when nothing has moved for [`IDLE_MAX`].
async fn idle(moved: &AtomicU64) {
    let mut seen = None;
    loop {
        let now = moved.load(Ordering::Relaxed);
        if seen.replace(now) == Some(now) {
            return;
        }
        tokio::time::sleep(IDLE_MAX).await;
    }
}
