//! Takes connections on a leased port to the SSH server of one machine.
//!
//! Invariant: whatever a client or a guest does, it costs its own connection; all of them, and the port, end with the
//! machine or with the [`Forwarder`], whichever is first.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Lease;
use super::bandwidth::Pace;
use crate::guest::ssh::PORT;
use crate::hypervisor::{Ending, Vm};

/// How much is read of a connection at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// What a machine that was silent may send at full speed: this time's worth of its bandwidth.
const BANDWIDTH_CREDIT: Duration = Duration::from_millis(250);
/// How long is waited after an error that is nobody's: no file descriptor is left, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A client that has vanished is noticed after about this time, even if nobody has anything to say.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
/// Between two signs of life that are asked for.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(30);
/// How many of them may stay without answer.
const KEEPALIVE_COUNT: u32 = 4;

/// Limits of what is forwarded to one machine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time; more are closed at once.
    pub connections_max: usize,
    /// New connections in a second, and as many at once after a pause; more are closed at once. 0 for no limit.
    pub connections_per_second: u32,
    /// Bytes in a second, all connections together, to the machine and from it each. 0 for no limit.
    pub bytes_per_second: u64,
    /// How long a connection may be silent in both directions; for ever where there is none.
    pub idle_max: Option<Duration>,
    /// How long the guest may take to accept a connection.
    pub connect_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 64,
            connections_per_second: 20,
            bytes_per_second: 0,
            idle_max: None,
            connect_max: Duration::from_secs(10),
        }
    }
}

/// Forwards as long as it lives.
#[derive(Debug)]
pub struct Forwarder {
    port: u16,
    listening: JoinSet<()>,
    desk: Arc<Desk>,
}

impl Forwarder {
    /// Begins to take connections. Needs a tokio runtime.
    #[must_use]
    pub fn start(lease: Lease, vm: Arc<dyn Vm>, limits: Limits) -> Self {
        let Lease { port, listeners } = lease;
        let desk = Desk::new(vm, limits);
        let mut listening = JoinSet::new();
        for listener in listeners {
            listening.spawn(take(listener, Arc::clone(&desk)));
        }
        Self { port, listening, desk }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.desk.open.load(Ordering::Relaxed)
    }

    /// Whether anybody was ever let through.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.desk.was_used.load(Ordering::Relaxed)
    }

    /// Closes the port and all connections. When this returns, the port is closed.
    pub async fn stop(mut self) {
        self.listening.shutdown().await;
    }
}

/// What the connections of a machine share.
#[derive(Debug)]
struct Desk {
    vm: Arc<dyn Vm>,
    limits: Limits,
    newcomers: Option<Pace>,
    inward: Option<Pace>,
    outward: Option<Pace>,
    open: AtomicUsize,
    was_used: AtomicBool,
}

impl Desk {
    fn new(vm: Arc<dyn Vm>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            vm,
            newcomers: Pace::new(limits.connections_per_second.into(), Duration::from_secs(1)),
            inward: Pace::new(limits.bytes_per_second, BANDWIDTH_CREDIT),
            outward: Pace::new(limits.bytes_per_second, BANDWIDTH_CREDIT),
            open: AtomicUsize::new(0),
            was_used: AtomicBool::new(false),
            limits,
        })
    }
}

/// One of the places for connections.
struct Place(Arc<Desk>);

impl Place {
    fn taken_of(desk: &Arc<Desk>) -> Option<Self> {
        let before = desk.open.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(desk));
        (before < desk.limits.connections_max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes connections until the machine ends.
async fn take(listener: TcpListener, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    let mut ended = desk.vm.ended();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, address)) => {
                    if let Some(place) = admit(&desk, address) {
                        connections.spawn(connect(client, address, place));
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
    let place = Place::taken_of(desk);
    let is_in_pace = desk.newcomers.as_ref().is_none_or(Pace::try_spend);
    if place.is_none() || !is_in_pace {
        tracing::debug!(%address, "too many connections to a machine: one is closed");
        return None;
    }
    place
}

async fn connect(client: TcpStream, address: SocketAddr, place: Place) {
    let desk = &place.0;
    if let Err(error) = prepare(&client) {
        tracing::debug!(%address, %error, "a connection to a machine ended at once");
        return;
    }
    let guest = match timeout(desk.limits.connect_max, desk.vm.connect(PORT)).await {
        Ok(Ok(guest)) => guest,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "the guest does not take a connection");
            return;
        }
        Err(_) => {
            tracing::debug!(%address, "the guest does not take a connection in time");
            return;
        }
    };
    desk.was_used.store(true, Ordering::Relaxed);
    if let Err(error) = relay(client, guest, desk).await {
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
    desk: &Desk,
) -> io::Result<()> {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_guest, to_guest) = tokio::io::split(guest);
    let clock = Clock::new();
    let both = async {
        tokio::try_join!(
            pump(from_client, to_guest, desk.inward.as_ref(), &clock),
            pump(from_guest, to_client, desk.outward.as_ref(), &clock),
        )
    };
    match desk.limits.idle_max {
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
    pace: Option<&Pace>,
    clock: &Clock,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            // The other direction may have more to say.
            return to.shutdown().await;
        }
        if let Some(pace) = pace {
            pace.spend(count).await;
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
