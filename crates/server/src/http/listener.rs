//! Accepts connections and serves each until it ends or the server drains.
//!
//! Accepting and shaking hands are apart: a client that is slow at TLS holds up nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::activity::{Activity, TimeLimits};
use super::connection::{Drain, serve, wait_for_drain};
use super::containers::Entrance;
use super::door::Door;
use super::watched::Watched;
use crate::log::rarely::Rarely;
use crate::site::Site;

/// When accepting fails (no file descriptor is left, mostly): a moment for others to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket that is being served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    site: Arc<Site>,
    room: Arc<Semaphore>,
    entrance: Entrance,
    /// In the place of the site's, at entrances that have their own.
    own_tls: Option<Arc<TlsAcceptorBox>>,
}

/// An acceptor that can be printed.
pub struct TlsAcceptorBox(pub TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptorBox")
    }
}

impl Listener {
    /// Serves what arrives at `socket`, at most `connections_max` connections at once.
    #[must_use]
    pub fn new(socket: TcpListener, site: Arc<Site>, connections_max: usize) -> Self {
        let room = Arc::new(Semaphore::new(connections_max));
        Self { socket, site, room, entrance: Entrance::Main, own_tls: None }
    }

    /// Serves the documented routes of containers alone, by TLS where there is one.
    #[must_use]
    pub fn of_containers(self, tls: Option<Arc<TlsAcceptorBox>>) -> Self {
        Self { entrance: Entrance::Containers, own_tls: tls, ..self }
    }

    /// Accepts until `drain` says stop; then waits for the requests in flight, at most for the time
    /// that it carries.
    pub async fn run(self, mut drain: Drain) {
        let mut connections = JoinSet::new();
        let failures = Rarely::default();
        let limit = loop {
            tokio::select! {
                biased;
                limit = wait_for_drain(&mut drain) => break limit,
                Some(_) = connections.join_next() => {}
                (permit, accepted) = accept(&self.socket, &self.room) => match accepted {
                    Ok((stream, peer)) => {
                        let connection = self.connection(stream, peer, permit, drain.clone());
                        connections.spawn(connection);
                    }
                    Err(error) => {
                        if let Some(count) = failures.happens() {
                            tracing::warn!(count, "accepting a connection failed: {error}");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        };
        // Closed first, so that a new connection is refused and not left hanging.
        drop(self.socket);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("connections that were still busy after {limit:?} are cut");
            // Waited for: what they were to be told of is taken back before machines are let go.
            connections.shutdown().await;
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        drain: Drain,
    ) -> impl Future<Output = ()> + Send + use<> {
        // Limits and certificate as they are now; connections that are open keep what they have.
        let (site, limits) = (Arc::clone(&self.site), self.site.policy.load().time_limits);
        let entrance = self.entrance;
        let acceptor = match entrance {
            Entrance::Main => self.site.tls.load_full(),
            Entrance::Containers => self.own_tls.clone(),
        };
        async move {
            let _permit = permit;
            // Answers are written whole; waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            let activity = Activity::new();
            let door = Door { site, peer, entrance, activity: Arc::clone(&activity) };
            match acceptor {
                None => serve(Watched::new(stream, activity), door, limits, drain).await,
                // On the heap: without it every connection, of plain HTTP too, would be as large.
                Some(acceptor) => {
                    Box::pin(serve_by_tls(stream, acceptor, door, limits, drain)).await;
                }
            }
        }
    }
}

async fn serve_by_tls(
    stream: TcpStream,
    acceptor: Arc<TlsAcceptorBox>,
    door: Door,
    limits: TimeLimits,
    drain: Drain,
) {
    let handshake = Box::pin(tokio::time::timeout(limits.header, acceptor.0.accept(stream)));
    // A failed or slow handshake is the peer's affair.
    if let Ok(Ok(stream)) = handshake.await {
        let watched = Watched::new(stream, Arc::clone(&door.activity));
        serve(watched, door, limits, drain).await;
    }
}

async fn accept(
    socket: &TcpListener,
    room: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, std::io::Result<(TcpStream, SocketAddr)>) {
    loop {
        // The semaphore is never closed.
        if let Ok(permit) = Arc::clone(room).acquire_owned().await {
            return (permit, socket.accept().await);
        }
    }
}
