//! A name for each request, in its answer (`X-Request-Id`) and in the log.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

/// Numbers that a thread takes at a time, so that threads seldom meet at the counter.
const RANGE: u64 = 1024;

static NEXT_RANGE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static NEXT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// The name of one request: 16 hexadecimal digits, different from every other of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    /// The next one.
    #[must_use]
    pub fn next() -> Self {
        let number = NEXT.with(|range| {
            let (mut next, mut end) = range.get();
            if next == end {
                next = NEXT_RANGE.fetch_add(RANGE, Ordering::Relaxed);
                end = next + RANGE;
            }
            range.set((next + 1, end));
            next
        });
        // Odd factor: distinct numbers give distinct names, and the names do not tell how many there were.
        Self(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed())
    }

    /// As a header's value.
    #[must_use]
    pub fn header(self) -> HeaderValue {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0u8; 16];
        for (index, digit) in text.iter_mut().enumerate() {
            *digit = DIGITS[(self.0 >> (60 - 4 * index) & 0xf) as usize];
        }
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Another for each start of the server.
fn seed() -> u64 {
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one(std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_requests_share_a_name() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| (0..5000).map(|_| RequestId::next().0).collect::<Vec<_>>())
            })
            .collect();
        let mut all: Vec<u64> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20_000);
    }

    #[test]
    fn header_and_log_show_the_same() {
        let id = RequestId::next();
        assert_eq!(id.header().to_str().unwrap(), id.to_string());
    }
}
