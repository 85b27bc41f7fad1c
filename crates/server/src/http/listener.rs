//! Accepts connections and serves each until it ends or the server drains.
//!
//! Accepting and shaking hands are apart: a client that is slow at TLS holds up nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::activity::{Activity, TimeLimits, Watched};
use super::door::Door;
use crate::site::Site;

/// The longest head of a request, in bytes; a longer one is answered 431.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 200;
/// When accepting fails (no file descriptor is left, mostly): a moment for others to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket that is being served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    site: Arc<Site>,
    room: Arc<Semaphore>,
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
        Self { socket, site, room: Arc::new(Semaphore::new(connections_max)) }
    }

    /// Accepts until `drain` says stop; then waits for the requests in flight, at most for the time
    /// that it carries.
    pub async fn run(self, mut drain: watch::Receiver<Option<Duration>>) {
        let mut connections = JoinSet::new();
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
                        tracing::warn!("accepting a connection failed: {error}");
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
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        drain: watch::Receiver<Option<Duration>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        // Limits and certificate as they are now; connections that are open keep what they have.
        let (site, limits) = (Arc::clone(&self.site), self.site.policy.load().time_limits);
        let acceptor = self.site.tls.load_full();
        async move {
            let _permit = permit;
            // Answers are written whole; waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            let activity = Activity::new();
            let door = Door { site, peer, activity: Arc::clone(&activity) };
            match acceptor {
                None => serve(Watched::new(stream, activity), door, limits, drain).await,
                Some(acceptor) => {
                    let handshake = acceptor.0.accept(stream);
                    // A failed or slow handshake is the peer's affair.
                    // On the heap: without it every connection, of plain HTTP too, would be as large.
                    let handshake = Box::pin(tokio::time::timeout(limits.header, handshake));
                    if let Ok(Ok(stream)) = handshake.await {
                        let watched = Watched::new(stream, activity);
                        Box::pin(serve(watched, door, limits, drain)).await;
                    }
                }
            }
        }
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

async fn wait_for_drain(drain: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match drain.wait_for(Option::is_some).await {
        Ok(limit) => limit.unwrap_or_default(),
        Err(_) => Duration::ZERO,
    }
}

async fn serve<S>(
    socket: Watched<S>,
    door: Door,
    limits: TimeLimits,
    mut drain: watch::Receiver<Option<Duration>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::clone(&door.activity);
    let service = service_fn(move |request| door.clone().answer(request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The watchdog below keeps the time, at less cost for each request.
    builder.http1().max_buf_size(HEAD_BYTES_MAX).header_read_timeout(None);
    builder.http2().max_concurrent_streams(STREAMS_MAX).max_header_list_size(64 << 10);
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let overdue = activity.overdue(limits);
    tokio::pin!(overdue);
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            // How it ended concerns only the peer: requests have been answered or logged.
            _ = connection.as_mut() => return,
            () = &mut overdue => return,
            _ = wait_for_drain(&mut drain), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
