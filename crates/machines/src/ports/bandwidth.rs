//! A pace that is kept by whoever spends and waits: so much a second, and a little at once.
//!
//! Invariant: over any time, no more is spent than the rate allows and the credit on top of it; who was idle for long is
//! owed no more than the credit.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many units a second.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: NonZeroU64,
    credit: Duration,
    /// When all that was spent will have been earned.
    paid: Mutex<Instant>,
}

impl Pace {
    /// `per_second` units a second, and what is earned in the time `credit` at once; none where there is no limit (0).
    pub(crate) fn new(per_second: u64, credit: Duration) -> Option<Self> {
        let per_second = NonZeroU64::new(per_second)?;
        let paid = Mutex::new(earlier(Instant::now(), credit));
        Some(Self { per_second, credit, paid })
    }

    /// Spends `count` units; tells when they will have been earned.
    pub(crate) fn spend(&self, count: usize) -> Instant {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        *paid = self.owed(*paid) + self.price(count);
        *paid
    }

    /// Spends one unit if it has been earned.
    pub(crate) fn try_spend(&self) -> bool {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let until = self.owed(*paid) + self.price(1);
        let is_earned = until <= Instant::now();
        if is_earned {
            *paid = until;
        }
        is_earned
    }

    /// What was not spent is forgotten but for the credit.
    fn owed(&self, paid: Instant) -> Instant {
        paid.max(earlier(Instant::now(), self.credit))
    }

    fn price(&self, count: usize) -> Duration {
        let nanos = (count as u128) * 1_000_000_000 / u128::from(self.per_second.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn earlier(now: Instant, by: Duration) -> Instant {
    now.checked_sub(by).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn spending_takes_as_long_as_earning() {
        let pace = Pace::new(1000, Duration::from_secs(1)).unwrap();
        let begun = Instant::now();
        for _ in 0..10 {
            sleep_until(pace.spend(500)).await;
        }
        // The first thousand is the credit.
        assert_eq!(begun.elapsed().as_secs(), 4);
        tokio::time::advance(Duration::from_secs(3600)).await;
        let idle = Instant::now();
        sleep_until(pace.spend(3000)).await;
        assert_eq!(idle.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn two_who_spend_share_what_is_earned() {
        let pace = Pace::new(1000, Duration::ZERO).unwrap();
        let begun = Instant::now();
        tokio::join!(sleep_until(pace.spend(1000)), sleep_until(pace.spend(1000)));
        assert_eq!(begun.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_earned_is_refused_and_costs_nothing() {
        let pace = Pace::new(2, Duration::from_secs(1)).unwrap();
        let allowed = (0..100).filter(|_| pace.try_spend()).count();
        assert_eq!(allowed, 2);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(pace.try_spend() && !pace.try_spend());
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert!(Pace::new(0, Duration::ZERO).is_none());
    }
}
