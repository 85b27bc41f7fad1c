//! What all who connect to one machine share, whichever way they come: its limits.
//!
//! Invariant: by its port and by the SSH gateway together, no more connections are open to a machine and no more bytes
//! pass in a second than its [`Limits`] allow.
//! Not here: what the server itself asks of a guest, which goes by [`Vm`] and is not counted.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until, timeout};

use super::bandwidth::Pace;
use super::callers::Callers;
use crate::hypervisor::{GuestStream, Vm};

/// What a machine that was silent may send at full speed: this time's worth of its bandwidth.
const BANDWIDTH_CREDIT: Duration = Duration::from_millis(250);
/// The part of the connections that those by the port leave to those by the gateway: a fourth.
const GATEWAY_SHARE: usize = 4;
/// The most that a connection takes of the bandwidth at once.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// And the least that this is for a machine of little bandwidth.
const PIECE_BYTES_MIN: usize = 512;
/// A piece is what passes in this part of a second, or others would wait long for their turn.
const PIECES_PER_SECOND: u64 = 16;

/// Limits of what is forwarded to one machine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time; more are closed at once. A fourth of them is left to the gateway.
    pub connections_max: usize,
    /// Of these, those of one address, or of one /64 of IPv6, by the machine's own port.
    pub connections_per_address_max: usize,
    /// New connections of one address in a second, and as many at once after a pause; more are closed at once. All that
    /// come by the gateway count as one. 0 for no limit.
    pub connections_per_second: u32,
    /// Bytes in a second, all connections together, to the machine and from it each. 0 for no limit.
    pub bytes_per_second: u64,
    /// How long a connection to its port may be silent in both directions; for ever where there is none.
    pub idle_max: Option<Duration>,
    /// How long the guest may take to accept a connection.
    pub connect_max: Duration,
    /// Who may connect to its port.
    pub admission: Admission,
}

/// Which addresses may connect. The default: all.
#[derive(Clone, Default)]
pub struct Admission(Option<Arc<Admits>>);

type Admits = dyn Fn(IpAddr) -> bool + Send + Sync;

impl Admission {
    /// Those for which `admits` says yes.
    #[must_use]
    pub fn of(admits: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(admits)))
    }

    /// Whether `address` may.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        self.0.as_ref().is_none_or(|admits| admits(address.to_canonical()))
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Admission(some)" } else { "Admission(all)" })
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 64,
            connections_per_address_max: 32,
            connections_per_second: 20,
            bytes_per_second: 0,
            idle_max: None,
            connect_max: Duration::from_secs(10),
            admission: Admission::default(),
        }
    }
}

/// A machine that can be connected to, and what of its limits is used.
#[derive(Debug)]
pub struct Desk {
    vm: Arc<dyn Vm>,
    limits: Limits,
    /// Of those who come by the gateway.
    newcomers: Option<Pace>,
    /// Of those who come by the port.
    callers: Mutex<Callers>,
    inward: Option<Pace>,
    outward: Option<Pace>,
    open: AtomicUsize,
    was_entered: AtomicBool,
}

impl Desk {
    /// Of `vm`, to which nobody is connected.
    #[must_use]
    pub fn new(vm: Arc<dyn Vm>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            vm,
            newcomers: Pace::new(limits.connections_per_second.into(), Duration::from_secs(1)),
            callers: Mutex::new(Callers::new(
                limits.connections_per_address_max,
                limits.connections_per_second,
            )),
            inward: Pace::new(limits.bytes_per_second, BANDWIDTH_CREDIT),
            outward: Pace::new(limits.bytes_per_second, BANDWIDTH_CREDIT),
            open: AtomicUsize::new(0),
            was_entered: AtomicBool::new(false),
            limits,
        })
    }

    /// The machine itself, for what is not counted.
    #[must_use]
    pub fn vm(&self) -> &Arc<dyn Vm> {
        &self.vm
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many connections are open.
    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether the guest ever took a connection of anybody's.
    #[must_use]
    pub fn was_entered(&self) -> bool {
        self.was_entered.load(Ordering::Relaxed)
    }

    /// A place for one more connection, unless there are too many or they come too fast. `from` is its address; `None` for
    /// the gateway, which counts addresses by itself.
    #[must_use]
    pub fn admit(self: &Arc<Self>, from: Option<IpAddr>) -> Option<Place> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let mut place = Place { desk: Arc::clone(self), counted: None };
        if before >= self.limits.connections_max {
            return None;
        }
        let is_for_gateway = self.limits.connections_max / GATEWAY_SHARE;
        match from {
            // Whoever floods the port leaves the other way in.
            Some(_) if before >= self.limits.connections_max - is_for_gateway => return None,
            None if self.newcomers.as_ref().is_none_or(Pace::try_spend) => {}
            Some(address) if self.callers().enter(address) => place.counted = Some(address),
            _ => return None,
        }
        Some(place)
    }

    fn callers(&self) -> MutexGuard<'_, Callers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to a port of the guest, within the limits.
    ///
    /// # Errors
    /// `QuotaExceeded` when there is no place; `TimedOut` and others when the guest does not accept.
    pub async fn connect(self: &Arc<Self>, port: u16) -> io::Result<Visit> {
        let full = || io::Error::new(io::ErrorKind::QuotaExceeded, "too many connections to it");
        self.admit(None).ok_or_else(full)?.connect(port).await
    }

    fn piece_bytes(&self) -> usize {
        let bytes = usize::try_from(self.limits.bytes_per_second / PIECES_PER_SECOND);
        bytes.unwrap_or(usize::MAX).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX)
    }
}

/// A place for one connection; given back when dropped.
#[derive(Debug)]
pub struct Place {
    desk: Arc<Desk>,
    /// As whose it is counted.
    counted: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(address) = self.counted {
            self.desk.callers().leave(address);
        }
        self.desk.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place {
    /// Connects to a port of the guest.
    ///
    /// # Errors
    /// `TimedOut` and others when the guest does not accept.
    pub async fn connect(self, port: u16) -> io::Result<Visit> {
        let connecting = timeout(self.desk.limits.connect_max, self.desk.vm.connect(port));
        let guest = connecting.await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the guest took no connection in time")
        })??;
        self.desk.was_entered.store(true, Ordering::Relaxed);
        Ok(Visit { guest, place: self, inward: Inward::default(), outward: Outward::default() })
    }
}

/// A connection to a guest, no faster than its machine may be.
pub struct Visit {
    guest: Box<dyn GuestStream>,
    place: Place,
    inward: Inward,
    outward: Outward,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Visit")
    }
}

/// To the guest: how many bytes may be written, once they are earned.
#[derive(Default)]
struct Inward {
    wait: Option<Pin<Box<Sleep>>>,
    paid_bytes: usize,
}

/// From the guest: what was read and is told once it is earned.
#[derive(Default)]
struct Outward {
    wait: Option<Pin<Box<Sleep>>>,
    piece: Vec<u8>,
    told_bytes: usize,
}

/// Waits for what is waited for, if anything is.
fn poll_wait(wait: &mut Option<Pin<Box<Sleep>>>, context: &mut Context<'_>) -> Poll<()> {
    if let Some(sleep) = wait {
        ready!(sleep.as_mut().poll(context));
        *wait = None;
    }
    Poll::Ready(())
}

impl AsyncRead for Visit {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { guest, place, outward, .. } = self.get_mut();
        let desk = &place.desk;
        let Some(pace) = &desk.outward else {
            return Pin::new(guest).poll_read(context, buffer);
        };
        if outward.told_bytes == outward.piece.len() {
            outward.piece.resize(desk.piece_bytes(), 0);
            outward.told_bytes = outward.piece.len();
            let mut piece = ReadBuf::new(&mut outward.piece);
            ready!(Pin::new(guest).poll_read(context, &mut piece))?;
            let count = piece.filled().len();
            outward.piece.truncate(count);
            outward.told_bytes = 0;
            if count > 0 {
                outward.wait = Some(Box::pin(sleep_until(pace.spend(count))));
            }
        }
        ready!(poll_wait(&mut outward.wait, context));
        let left = &outward.piece[outward.told_bytes..];
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        outward.told_bytes += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { guest, place, inward, .. } = self.get_mut();
        let desk = &place.desk;
        let Some(pace) = desk.inward.as_ref().filter(|_| !bytes.is_empty()) else {
            return Pin::new(guest).poll_write(context, bytes);
        };
        if inward.paid_bytes == 0 {
            inward.paid_bytes = bytes.len().min(desk.piece_bytes());
            inward.wait = Some(Box::pin(sleep_until(pace.spend(inward.paid_bytes))));
        }
        ready!(poll_wait(&mut inward.wait, context));
        let count = bytes.len().min(inward.paid_bytes);
        let written = ready!(Pin::new(guest).poll_write(context, &bytes[..count]))?;
        inward.paid_bytes -= written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().guest).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().guest).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;
    use crate::ports::guest::Guest;

    fn desk(limits: Limits) -> (Arc<Guest>, Arc<Desk>) {
        let guest = Guest::new(true);
        let vm = Arc::clone(&guest) as Arc<dyn Vm>;
        (guest, Desk::new(vm, limits))
    }

    #[tokio::test(start_paused = true)]
    async fn bandwidth_is_limited_for_all_connections_together() {
        let (guest, desk) = desk(Limits { bytes_per_second: 10_000, ..Limits::default() });
        let begun = Instant::now();
        let visit = async |visit: io::Result<Visit>, mut end: tokio::io::DuplexStream| {
            let (mut from, mut to) = tokio::io::split(visit.unwrap());
            let (mut end_from, mut end_to) = tokio::io::split(&mut end);
            let bytes = vec![1; 50_000];
            let mut heard = [vec![0; 50_000], vec![0; 50_000]];
            let [out, inside] = &mut heard;
            let (a, b, c, d) = tokio::join!(
                to.write_all(&bytes),
                end_to.write_all(&bytes),
                from.read_exact(out),
                end_from.read_exact(inside),
            );
            assert!(a.is_ok() && b.is_ok() && c.is_ok() && d.is_ok());
            assert!(heard.iter().all(|heard| *heard == bytes));
        };
        let (one, two) = (desk.connect(22).await, desk.connect(22).await);
        let (two_end, one_end) = (guest.end(), guest.end());
        tokio::join!(visit(one, one_end), visit(two, two_end));
        // A quarter of a second's worth is credit.
        assert!((9..=10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        assert_eq!(desk.connections(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_all_lets_another_say_something() {
        let (guest, desk) = desk(Limits { bytes_per_second: 10_000, ..Limits::default() });
        let (mut greedy, mut modest) =
            (desk.connect(22).await.unwrap(), desk.connect(22).await.unwrap());
        let (mut modest_end, mut greedy_end) = (guest.end(), guest.end());
        let flood = vec![1; 1_000_000];
        let mut sink = vec![0; 1_000_000];
        let said = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let begun = Instant::now();
            modest.write_all(b"x").await.unwrap();
            modest_end.read_exact(&mut [0]).await.unwrap();
            begun.elapsed()
        };
        let took = tokio::select! {
            took = said => took,
            _ = async { tokio::join!(greedy.write_all(&flood), greedy_end.read_exact(&mut sink)) } =>
                panic!("too fast"),
        };
        assert!(took < Duration::from_millis(200), "{took:?}");
    }

    #[tokio::test]
    async fn places_are_those_of_all_who_connect() {
        let (_guest, desk) = desk(Limits { connections_max: 2, ..Limits::default() });
        let (first, _second) = (desk.connect(22).await.unwrap(), desk.admit(None).unwrap());
        let refused = desk.connect(22).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
        drop(first);
        assert!(desk.connect(22).await.is_ok());
    }
}
