//! Says of something that strangers can bring about at will that it happens, and not each time.
//!
//! Invariant: at most one word in [`PAUSE`]; none is lost without being counted in the next.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two words.
const PAUSE: Duration = Duration::from_secs(10);

/// When it was said last, and how often it has happened since.
#[derive(Debug, Default)]
pub(crate) struct Rarely(Mutex<(Option<Instant>, u64)>);

impl Rarely {
    /// It happens. Returns how often it has since it was last said, if it is to be said now.
    pub(crate) fn happens(&self) -> Option<u64> {
        self.happens_at(Instant::now())
    }

    fn happens_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (said_at, count) = &mut *state;
        *count += 1;
        if said_at.is_some_and(|at| now.duration_since(at) < PAUSE) {
            return None;
        }
        *said_at = Some(now);
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_others_are_counted() {
        let (rarely, now) = (Rarely::default(), Instant::now());
        let said: Vec<_> = (0..1000).filter_map(|_| rarely.happens_at(now)).collect();
        assert_eq!(said, [1]);
        assert_eq!(rarely.happens_at(now + PAUSE), Some(1000));
        assert_eq!(rarely.happens_at(now + PAUSE), None);
    }
}
