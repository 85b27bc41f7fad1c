//! Holds traffic to a rate.
//!
//! Invariant: what passes is at most the rate's due plus one helping, over any span.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

/// Helpings per second: traffic passes in pieces of a rate's twentieth.
const HELPINGS_PER_SECOND: u64 = 20;
/// The least of a helping, so that the longest frame always fits.
const HELPING_BYTES_MIN: u64 = 4096;

/// A rate and what of it is used.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<NonZeroU64>,
    free_at: Instant,
}

impl Pace {
    /// A rate in bytes per second; `None` never holds anything.
    pub(super) fn new(rate: Option<NonZeroU64>) -> Self {
        Self { rate, free_at: Instant::now() }
    }

    /// Until when nothing may pass; `None` where something may pass now.
    pub(super) fn held_until(&self) -> Option<Instant> {
        (self.rate.is_some() && self.free_at > Instant::now()).then_some(self.free_at)
    }

    /// How many bytes may pass at once.
    pub(super) fn helping(&self) -> usize {
        self.rate.map_or(usize::MAX, |rate| {
            let bytes = (rate.get() / HELPINGS_PER_SECOND).max(HELPING_BYTES_MIN);
            usize::try_from(bytes).unwrap_or(usize::MAX)
        })
    }

    /// Counts bytes that have passed.
    pub(super) fn passed(&mut self, bytes: usize) {
        if let Some(rate) = self.rate {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
            let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            self.free_at = self.free_at.max(Instant::now()) + cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept_over_time() {
        let mut pace = Pace::new(NonZeroU64::new(100_000));
        let start = Instant::now();
        let mut passed = 0;
        while passed < 1_000_000 {
            if let Some(until) = pace.held_until() {
                tokio::time::sleep_until(until).await;
            }
            passed += pace.helping();
            pace.passed(pace.helping());
        }
        let seconds = start.elapsed().as_secs_f64();
        assert!((9.8..=10.2).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn rest_is_not_saved_up() {
        let mut pace = Pace::new(NonZeroU64::new(100_000));
        tokio::time::advance(Duration::from_secs(60)).await;
        pace.passed(100_000);
        assert_eq!(pace.held_until(), Some(Instant::now() + Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_is_held() {
        let mut pace = Pace::new(None);
        pace.passed(usize::MAX);
        assert_eq!((pace.held_until(), pace.helping()), (None, usize::MAX));
    }
}
