//! Tasks that the answers of a connection carry, until it is known whether they arrived.
//!
//! The protocol has no acknowledgement. A task counts as received when the answer that carries it has been written
//! and the connection is not reset within the next second; otherwise it goes back to its place in the queue.
//!
//! Invariant: a task whose answer was never written whole is put back when the connection goes (`Delivery` sees to
//! it when it is dropped).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tasks::delivery::Delivery;
use tokio::time::Instant;

/// How long a reset after the answer means that it did not arrive.
pub const GRACE: Duration = Duration::from_secs(1);

/// What one connection carries.
#[derive(Debug, Default)]
pub struct Cargo {
    is_loaded: AtomicBool,
    /// Whether the next flush completes an answer that carries something.
    is_leaving: AtomicBool,
    carried: Mutex<Vec<Carried>>,
}

#[derive(Debug)]
struct Carried {
    delivery: Delivery,
    sent_at: Option<Instant>,
}

impl Cargo {
    fn carried(&self) -> MutexGuard<'_, Vec<Carried>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next answer carries `deliveries`.
    pub fn load(&self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut carried = self.carried();
        carried.retain(|it| it.sent_at.is_none_or(|at| now < at + GRACE));
        carried.extend(deliveries.into_iter().map(|delivery| Carried { delivery, sent_at: None }));
        self.is_loaded.store(true, Relaxed);
    }

    /// Bytes are about to be written.
    pub fn leaves(&self) {
        if !self.is_loaded.load(Relaxed) {
            return;
        }
        for it in self.carried().iter_mut() {
            it.delivery.sending();
        }
        self.is_leaving.store(true, Relaxed);
    }

    /// All that was to be written has been.
    pub fn has_left(&self) {
        if !self.is_leaving.swap(false, Relaxed) {
            return;
        }
        self.is_loaded.store(false, Relaxed);
        let now = Instant::now();
        for it in self.carried().iter_mut().filter(|it| it.sent_at.is_none()) {
            it.delivery.sent();
            it.sent_at = Some(now);
        }
    }

    /// The connection was reset.
    pub fn is_lost(&self) {
        let now = Instant::now();
        for it in std::mem::take(&mut *self.carried()) {
            if it.sent_at.is_none_or(|at| now < at + GRACE) {
                it.delivery.lost();
            }
        }
    }

    /// Until when a reset would mean that something did not arrive.
    pub fn in_doubt_until(&self) -> Option<Instant> {
        let latest = self.carried().iter().filter_map(|it| it.sent_at).max()?;
        Some(latest + GRACE).filter(|until| *until > Instant::now())
    }
}
