//! How long to wait before asking again.
//!
//! Invariant: a wait is random between nothing and a ceiling that doubles ("full jitter"), so that a
//! thousand agents whose server comes back do not all ask at once.

use std::time::Duration;

use ring::rand::SystemRandom;

use crate::connection::CallError;

/// The ceiling after the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// The ceiling after many.
const CEILING_MAX: Duration = Duration::from_secs(30);
/// What a server may ask us to wait.
const ASKED_MAX: Duration = Duration::from_secs(300);
/// Between these we ask again a server that does not know us: a human has to act first.
const REFUSED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(300));

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something went well: the next wait is a short one.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after `error`.
    pub(crate) fn next(&mut self, error: &CallError) -> Duration {
        let wait = wait(self.failures, error, random());
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

/// The wait after `failures` earlier ones; `random` is from 0 to 1.
fn wait(failures: u32, error: &CallError, random: f64) -> Duration {
    if let Some(asked) = error.retry_after() {
        // A little later, so that not everyone who was told the same comes at once.
        return asked.min(ASKED_MAX).mul_f64(1.0 + random / 10.0);
    }
    if error.is_authorization() {
        return REFUSED.0 + (REFUSED.1 - REFUSED.0).mul_f64(random);
    }
    FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(CEILING_MAX).mul_f64(random)
}

/// A random number from 0 to 1; the middle where the system has none.
fn random() -> f64 {
    ring::rand::generate::<[u8; 4]>(&SystemRandom::new())
        .map_or(0.5, |random| f64::from(u32::from_ne_bytes(random.expose())) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failures: u32, error: &CallError, from: u64, to: u64) {
        let millis = |random| u64::try_from(wait(failures, error, random).as_millis()).unwrap();
        assert_eq!((millis(0.0), millis(1.0)), (from, to), "after {failures}: {error}");
    }

    #[test]
    fn waits_are_anywhere_below_a_ceiling_that_doubles_up_to_half_a_minute() {
        let error = CallError::Unreachable("refused".to_owned());
        for (failures, ceiling) in [(0, 500), (1, 1000), (5, 16_000), (6, 30_000), (4000, 30_000)] {
            check(failures, &error, 0, ceiling);
        }
    }

    #[test]
    fn a_server_that_says_when_is_asked_then_and_within_reason() {
        let refused = |secs| CallError::refused(503, "", Some(Duration::from_secs(secs)));
        check(3, &refused(7), 7_000, 7_700);
        check(0, &refused(86_400), 300_000, 330_000);
    }

    #[test]
    fn a_server_that_does_not_know_us_is_left_alone_for_minutes() {
        check(0, &CallError::refused(403, "Authorization failure", None), 60_000, 300_000);
    }

    #[test]
    fn random_numbers_differ() {
        assert!((0..8).any(|_| random() < 0.5) || (0..60).any(|_| random() < 0.5));
        assert!((random() - random()).abs() > 0.0);
    }
}
