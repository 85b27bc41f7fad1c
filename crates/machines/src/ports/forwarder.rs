//! Takes connections on a leased port to the SSH server of one machine.
//!
//! Invariant: whatever a client or a guest does, it costs its own connection; all of them, and the port, end with the
//! machine or with the [`Forwarder`], whichever is first.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Lease;
use super::desk::{Desk, Place};
use crate::guest::ssh::PORT;
use crate::hypervisor::Ending;

/// How much is read of a connection at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// How long is waited after an error that is nobody's: no file descriptor is left, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A client that has vanished is noticed after about this time, even if nobody has anything to say.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
/// Between two signs of life that are asked for.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// How many of them may stay without answer.
const KEEPALIVE_COUNT: u32 = 4;

/// Forwards as long as it lives.
#[derive(Debug)]
pub struct Forwarder {
    port: u16,
    listening: JoinSet<()>,
}

impl Forwarder {
    /// Begins to take connections. Needs a tokio runtime.
    #[must_use]
    pub fn start(lease: Lease, desk: Arc<Desk>) -> Self {
        let Lease { port, listeners } = lease;
        let mut listening = JoinSet::new();
        for listener in listeners {
            listening.spawn(take(listener, Arc::clone(&desk)));
        }
        Self { port, listening }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes the port and all connections. When this returns, the port is closed.
    pub async fn stop(mut self) {
        self.listening.shutdown().await;
    }
}

/// Takes connections until the machine ends.
async fn take(listener: TcpListener, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    let mut ended = desk.vm().ended();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, address)) => {
                    if let Some(place) = admit(&desk, address) {
                        connections.spawn(connect(client, address, place, desk.limits().idle_max));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection to a machine");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = end_of(&mut ended) => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Returns when the machine has ended; or its handle is gone, which would never tell.
async fn end_of(ended: &mut watch::Receiver<Option<Ending>>) {
    let _ = ended.wait_for(Option::is_some).await;
}

fn admit(desk: &Arc<Desk>, address: SocketAddr) -> Option<Place> {
    if !desk.limits().admission.admits(address.ip()) {
        tracing::debug!(%address, "a connection to a machine is closed: its address is not admitted");
        return None;
    }
    let place = desk.admit(Some(address.ip()));
    if place.is_none() {
        tracing::debug!(%address, "too many connections to a machine: one is closed");
    }
    place
}

async fn connect(client: TcpStream, address: SocketAddr, place: Place, idle_max: Option<Duration>) {
    if let Err(error) = prepare(&client) {
        tracing::debug!(%address, %error, "a connection to a machine ended at once");
        return;
    }
    let guest = match place.connect(PORT).await {
        Ok(guest) => guest,
        Err(error) => {
            tracing::debug!(%address, %error, "the guest does not take a connection");
            return;
        }
    };
    if let Err(error) = relay(client, guest, idle_max).await {
        tracing::debug!(%address, %error, "a connection to a machine ended");
    }
}

/// What is said goes out at once, and a peer that has vanished is noticed.
fn prepare(client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    sockopt::set_socket_keepalive(client, true)?;
    sockopt::set_tcp_keepidle(client, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(client, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(client, KEEPALIVE_COUNT)?;
    Ok(())
}

/// Copies both ways until both have said all they had to say, one of them fails, or nobody says anything.
async fn relay(
    client: impl AsyncRead + AsyncWrite,
    guest: impl AsyncRead + AsyncWrite,
    idle_max: Option<Duration>,
) -> io::Result<()> {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_guest, to_guest) = tokio::io::split(guest);
    let clock = Clock::new();
    let both = async {
        tokio::try_join!(pump(from_client, to_guest, &clock), pump(from_guest, to_client, &clock),)
    };
    match idle_max {
        None => both.await.map(drop),
        Some(idle_max) => tokio::select! {
            result = both => result.map(drop),
            () = clock.silent_for(idle_max) => Err(io::ErrorKind::TimedOut.into()),
        },
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    clock: &Clock,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            // The other direction may have more to say.
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        clock.heard();
    }
}

/// When something was heard last.
struct Clock {
    begun: Instant,
    heard_ms: AtomicU64,
}

impl Clock {
    fn new() -> Self {
        Self { begun: Instant::now(), heard_ms: AtomicU64::new(0) }
    }

    fn heard(&self) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(ms, Ordering::Relaxed);
    }

    /// Returns when nothing has been heard for `time`.
    async fn silent_for(&self, time: Duration) {
        loop {
            let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
            let until = self.begun + heard + time;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests;
