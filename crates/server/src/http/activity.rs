//! How long a connection has been doing what: the basis of its time limits.
//!
//! The socket notes what moves, the service notes requests, and one watchdog per connection looks at
//! the notes when they could have become too old. So a request costs a few stores and no timer.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::cargo::Cargo;
use super::way_back::WayBack;

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

/// A request that has been parked for so long is set aside. Agents that are kept busy park for less, and pay nothing;
/// when thousands connect at a time, few of them hold all that a connection needs at first.
const LEAVE_AFTER: Duration = Duration::from_millis(50);

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
    /// Since when a request is parked that may be set aside; 0 is not.
    parked_since: AtomicU64,
    /// How its answer comes back.
    way_back: AtomicU8,
    /// Whether something was written that has not been flushed.
    is_unflushed: AtomicBool,
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
            parked_since: AtomicU64::new(0),
            way_back: AtomicU8::new(0),
            is_unflushed: AtomicBool::new(false),
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

    /// The request that is parked may be set aside: hyper is not needed for it until its answer is there.
    pub fn may_leave(&self, way_back: WayBack) {
        self.way_back.store(way_back.bits(), Relaxed);
        self.parked_since.store(self.now(), Relaxed);
    }

    /// The request that was parked is so no longer.
    pub fn stays(&self) {
        self.parked_since.store(0, Relaxed);
    }

    /// Returns when a request has been parked for long and may be set aside. Is to be polled by the task that answers
    /// the requests: nobody else wakes it.
    pub async fn long_parked(&self) -> WayBack {
        loop {
            let since = poll_fn(|_| match self.parked_since.load(Relaxed) {
                0 => Poll::Pending,
                since => Poll::Ready(since),
            });
            let since = since.await;
            // One timer for many requests: the next ones begin while it runs.
            let leave_at = self.accepted + Duration::from_millis(since) + LEAVE_AFTER;
            tokio::time::sleep_until(leave_at).await;
            while self.parked_since.load(Relaxed) == since {
                if !self.is_unflushed.load(Relaxed) {
                    return WayBack::from_bits(self.way_back.load(Relaxed));
                }
                // The client has not taken the answer before. hyper waits for that itself, but what it had written and
                // not sent would be lost here.
                tokio::time::sleep(LEAVE_AFTER).await;
            }
        }
    }

    /// Bytes have come.
    pub fn has_read(&self) {
        let now = self.now();
        self.last_move.store(now, Relaxed);
        let is_between = self.requests.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0;
        if is_between && !self.has_frames.load(Relaxed) {
            self.head_since.store(now, Relaxed);
        }
    }

    /// Bytes have left.
    pub fn has_written(&self) {
        self.last_move.store(self.now(), Relaxed);
        self.blocked_since.store(0, Relaxed);
    }

    /// The client takes nothing.
    pub fn is_blocked(&self) {
        if self.blocked_since.load(Relaxed) == 0 {
            self.blocked_since.store(self.now(), Relaxed);
        }
    }

    /// Bytes are about to be written, with all the tasks that they carry.
    pub fn leaves(&self) {
        self.is_unflushed.store(true, Relaxed);
        self.cargo.leaves();
    }

    /// All that was to be written has been.
    pub fn has_left(&self) {
        self.is_unflushed.store(false, Relaxed);
        self.cargo.has_left();
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
    async fn who_is_parked_leaves_once_what_was_written_before_has_left() {
        let activity = Activity::new();
        let way_back = WayBack::from_bits(3);
        activity.leaves();
        activity.may_leave(way_back);
        let left = activity.long_parked();
        tokio::pin!(left);
        assert!(tokio::time::timeout(Duration::from_secs(9), left.as_mut()).await.is_err());
        activity.has_left();
        assert_eq!(left.await, way_back);
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
