//! How long a connection has been doing what: the basis of its time limits.
//!
//! The socket notes what moves, the service notes requests, and one watchdog per connection looks at
//! the notes when they could have become too old. So a request costs a few stores and no timer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::cargo::Cargo;
use super::parse_error::Exchange;

/// Limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimits {
    /// From a request's first byte to the end of its head; also for TLS and HTTP/2 to begin.
    pub header: Duration,
    /// Without a request; also for a client that takes nothing of its answer.
    pub idle: Duration,
}

/// A connection is looked at as often at least: a request that could have waited for an hour may be answered at once.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Notes about one connection; times in milliseconds since it was accepted.
#[derive(Debug)]
pub struct Activity {
    accepted: Instant,
    /// Since when a head is being received; 0 is not.
    head_since: AtomicU64,
    last_move: AtomicU64,
    /// Since when the client takes nothing; 0 is not.
    blocked_since: AtomicU64,
    requests: AtomicU32,
    /// HTTP/2 sends frames that belong to no request; only its first request has a head to wait for.
    has_frames: AtomicBool,
    /// Until when a request is known to wait; there is no need to look before.
    parked_until: AtomicU64,
    /// Tasks that its answers carry.
    pub cargo: Cargo,
}

impl Activity {
    /// A connection that was just accepted: its first head is due.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            accepted: Instant::now(),
            head_since: AtomicU64::new(1),
            last_move: AtomicU64::new(1),
            blocked_since: AtomicU64::new(0),
            requests: AtomicU32::new(0),
            has_frames: AtomicBool::new(false),
            parked_until: AtomicU64::new(0),
            cargo: Cargo::default(),
        })
    }

    /// Never 0, which means "not".
    fn now(&self) -> u64 {
        u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// A request's head has come; it lasts until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, version: http::Version) -> InRequest {
        if version == http::Version::HTTP_2 {
            self.has_frames.store(true, Relaxed);
        }
        self.head_since.store(0, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        InRequest(Arc::clone(self))
    }

    /// A request will wait for so long: with thousands of them, looking at each every few seconds is work.
    pub fn parks(&self, wait: Duration) {
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.parked_until.store(self.now().saturating_add(wait), Relaxed);
    }

    fn has_read(&self) {
        let now = self.now();
        self.last_move.store(now, Relaxed);
        let is_between = self.requests.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0;
        if is_between && !self.has_frames.load(Relaxed) {
            self.head_since.store(now, Relaxed);
        }
    }

    fn has_written(&self) {
        self.last_move.store(self.now(), Relaxed);
        self.blocked_since.store(0, Relaxed);
    }

    fn is_blocked(&self) {
        if self.blocked_since.load(Relaxed) == 0 {
            self.blocked_since.store(self.now(), Relaxed);
        }
    }

    /// When the connection is to be closed unless something moves before.
    fn deadline(&self, limits: &TimeLimits) -> Option<Instant> {
        let after =
            |since: u64, limit: Duration| self.accepted + Duration::from_millis(since) + limit;
        match self.blocked_since.load(Relaxed) {
            0 => {}
            since => return Some(after(since, limits.idle)),
        }
        if self.requests.load(Relaxed) > 0 {
            return None;
        }
        Some(match self.head_since.load(Relaxed) {
            0 => after(self.last_move.load(Relaxed), limits.idle),
            since => after(since, limits.header),
        })
    }

    /// Returns when a limit has passed.
    pub async fn overdue(&self, limits: TimeLimits) {
        // While a request runs there is nothing to wait for, but its end is not announced.
        let step = limits.header.min(limits.idle);
        loop {
            let now = Instant::now();
            match self.deadline(&limits) {
                Some(deadline) if deadline <= now => return,
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => {
                    let parked = Duration::from_millis(self.parked_until.load(Relaxed));
                    let parked = (self.accepted + parked).min(now + LOOK_EVERY);
                    tokio::time::sleep_until(parked.max(now + step)).await;
                }
            }
        }
    }
}

/// A request is under way as long as this lives.
#[derive(Debug)]
pub struct InRequest(Arc<Activity>);

impl InRequest {
    /// Tasks that answers of the connection carry.
    #[must_use]
    pub fn cargo(&self) -> &Cargo {
        &self.0.cargo
    }
}

impl Drop for InRequest {
    fn drop(&mut self) {
        self.0.last_move.store(self.0.now(), Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

/// A socket whose movements are noted, and on which hyper's bare errors get a body.
#[derive(Debug)]
pub struct Watched<S> {
    socket: S,
    activity: Arc<Activity>,
    exchange: Exchange,
    /// The time that a closed connection is still listened to.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    /// Notes the movements of `socket` in `activity`.
    pub fn new(socket: S, activity: Arc<Activity>) -> Self {
        Self { socket, activity, exchange: Exchange::default(), linger: None }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(_)) => self.activity.has_written(),
            Poll::Ready(Err(_)) => self.activity.cargo.is_lost(),
            Poll::Pending => self.activity.is_blocked(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.has_read();
            self.exchange.has_read(&buf.filled()[before..]);
        }
        if let Poll::Ready(Err(_)) = &read {
            self.activity.cargo.is_lost();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.activity.cargo.leaves();
        let written = if this.exchange.takes(buf) {
            this.exchange.poll_send(&mut this.socket, cx, buf.len())
        } else {
            Pin::new(&mut this.socket).poll_write(cx, buf)
        };
        this.exchange.has_written();
        this.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A bare answer is one piece; only then is a closer look due.
        if let [one] = bufs {
            return self.poll_write(cx, one);
        }
        self.activity.cargo.leaves();
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.exchange.has_written();
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        // hyper flushes when it has nothing more to write.
        if let Poll::Ready(Ok(())) = &flushed {
            self.activity.cargo.has_left();
        }
        flushed
    }

    /// Where the last answer carried a task, a reset is listened for a little longer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            let Some(until) = self.activity.cargo.in_doubt_until() else {
                return Poll::Ready(Ok(()));
            };
            self.linger = Some(Box::pin(tokio::time::sleep_until(until)));
        }
        let this = self.get_mut();
        while let Some(linger) = &mut this.linger {
            if linger.as_mut().poll(cx).is_ready() {
                break;
            }
            let mut space = [0; 512];
            let mut unwanted = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut this.socket).poll_read(cx, &mut unwanted)) {
                Ok(()) if unwanted.filled().is_empty() => break,
                Ok(()) => {}
                Err(_) => {
                    this.activity.cargo.is_lost();
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TimeLimits =
        TimeLimits { header: Duration::from_secs(10), idle: Duration::from_secs(75) };

    async fn check_overdue_after(activity: &Activity, secs: u64) {
        let begin = Instant::now();
        activity.overdue(LIMITS).await;
        let waited = begin.elapsed();
        assert!(
            waited >= Duration::from_secs(secs) && waited < Duration::from_secs(secs + 11),
            "{waited:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_cut_even_when_bytes_keep_coming() {
        let activity = Activity::new();
        let trickle = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                activity.has_read();
            }
        };
        tokio::select! {
            () = check_overdue_after(&activity, 9) => {}
            () = trickle => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_the_longer_limit_holds() {
        let activity = Activity::new();
        drop(activity.begin(http::Version::HTTP_11));
        check_overdue_after(&activity, 74).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_of_http2_begins_no_request() {
        let activity = Activity::new();
        drop(activity.begin(http::Version::HTTP_2));
        activity.has_read();
        check_overdue_after(&activity, 74).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_could_have_waited_long_and_did_not_has_no_longer_limits() {
        let activity = Activity::new();
        let request = activity.begin(http::Version::HTTP_11);
        activity.parks(Duration::from_secs(3600));
        let answered = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(request);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = check_overdue_after(&activity, 79) => {}
            () = answered => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_its_time() {
        let activity = Activity::new();
        let request = activity.begin(http::Version::HTTP_11);
        let waited =
            tokio::time::timeout(Duration::from_secs(3600), activity.overdue(LIMITS)).await;
        assert!(waited.is_err());
        activity.is_blocked();
        check_overdue_after(&activity, 74).await;
        drop(request);
    }
}
