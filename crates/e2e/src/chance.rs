//! Numbers that look like chance and come again with their seed.
//!
//! Invariant: one seed, one row of numbers. Not here: anything that must not be guessed.

use std::time::{SystemTime, UNIX_EPOCH};

/// A row of numbers.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The row of `SEED` in the environment, or of the time; and the seed.
    #[must_use]
    pub fn of_today() -> (Self, u64) {
        let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::from(time.subsec_nanos()) + 1
        });
        (Self::of(seed), seed)
    }

    /// The row of this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        // Zero would stay zero for ever.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// The next number, below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }
}
