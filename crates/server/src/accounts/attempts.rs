//! Limits how often somebody may guess. Pure: the time is passed in.
//!
//! Invariant: an address and an account each have a number of failures at once and then one in three
//! seconds, and what is remembered of them is bounded whoever tries. An account is meant by the name that
//! was given, whether or not there is one of that name, so that the limit does not tell which names exist.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The time in which one failure is forgiven.
const FORGIVEN_EVERY: Duration = Duration::from_secs(3);
const FAILURES_PER_ADDRESS: u32 = 20;
const FAILURES_PER_ACCOUNT: u32 = 10;
/// How many addresses, and how many accounts, are remembered in each of two generations.
const REMEMBERED_MAX: usize = 32_768;

/// Too many failures: what is left to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// Whole seconds until the next attempt is allowed; at least 1.
    pub retry_secs: u64,
}

/// The account that is guessed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// The one of this name.
    Named(&'a str),
    /// Any that has a pass-code instead of a name.
    Passcodes,
    /// None: what is guessed is whole addresses of accounts, such as hardware ids.
    Unnamed,
}

/// Who has failed how often.
#[derive(Debug)]
pub struct Attempts {
    addresses: Buckets<Place>,
    accounts: Buckets<u64>,
    hashing: RandomState,
}

/// One attempt as both limits know it.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    place: Place,
    account: Option<u64>,
}

impl Attempts {
    /// Nobody has failed yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            addresses: Buckets::new(FAILURES_PER_ADDRESS),
            accounts: Buckets::new(FAILURES_PER_ACCOUNT),
            hashing: RandomState::new(),
        }
    }

    /// What an attempt of `address` at `target` counts against.
    #[must_use]
    pub fn attempt(&self, address: IpAddr, target: Target<'_>) -> Attempt {
        let account = match target {
            Target::Named(name) => Some(self.hashing.hash_one((true, name))),
            Target::Passcodes => Some(self.hashing.hash_one(false)),
            Target::Unnamed => None,
        };
        Attempt { place: Place::of(address), account }
    }

    /// Whether `attempt` may be made at `now`.
    ///
    /// # Errors
    /// When there were too many failures.
    pub fn check(&self, attempt: Attempt, now: Instant) -> Result<(), TooMany> {
        let waits = [
            self.addresses.wait(&attempt.place, now),
            attempt.account.map_or(Duration::ZERO, |account| self.accounts.wait(&account, now)),
        ];
        let longest = waits.into_iter().max().unwrap_or_default();
        if longest.is_zero() {
            return Ok(());
        }
        Err(TooMany {
            retry_secs: longest.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX),
        })
    }

    /// Counts `attempt` as failed, if it may be made. It is taken *before* the outcome is known, so that
    /// many at once do not get past the limit; [`Self::forgive`] gives it back when it was right.
    ///
    /// # Errors
    /// When there were too many failures; then nothing is counted.
    pub fn take(&mut self, attempt: Attempt, now: Instant) -> Result<(), TooMany> {
        self.check(attempt, now)?;
        self.addresses.take(attempt.place, now);
        if let Some(account) = attempt.account {
            self.accounts.take(account, now);
        }
        Ok(())
    }

    /// Gives back what [`Self::take`] has counted: it was no failure.
    pub fn forgive(&mut self, attempt: Attempt) {
        self.addresses.give_back(&attempt.place);
        if let Some(account) = attempt.account {
            self.accounts.give_back(&account);
        }
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self::new()
    }
}

impl Attempt {
    /// Where it comes from.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }
}

/// An address as it is counted: one IPv4 address, or the 64 bits of IPv6 that one customer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(u128);

impl Place {
    /// The place of `address`.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits() >> 64 << 64,
        })
    }
}

/// Token buckets, each kept as the time at which it will be full again.
///
/// Two generations bound the memory: when the young one has enough, it becomes the old one and the old
/// one is forgotten. Whoever fails stays young.
#[derive(Debug)]
struct Buckets<K> {
    allowed: u32,
    young: HashMap<K, Instant>,
    old: HashMap<K, Instant>,
}

impl<K: Hash + Eq> Buckets<K> {
    fn new(allowed: u32) -> Self {
        Self { allowed, young: HashMap::new(), old: HashMap::new() }
    }

    fn full_at(&self, key: &K) -> Option<Instant> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    /// How long until one more failure is allowed.
    fn wait(&self, key: &K, now: Instant) -> Duration {
        let missing =
            self.full_at(key).map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        (missing + FORGIVEN_EVERY).saturating_sub(FORGIVEN_EVERY * self.allowed)
    }

    fn take(&mut self, key: K, now: Instant) {
        let full_at = self.full_at(&key).map_or(now, |at| at.max(now)) + FORGIVEN_EVERY;
        if self.young.len() >= REMEMBERED_MAX && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, full_at);
    }

    fn give_back(&mut self, key: &K) {
        if let Some(at) = self.young.get_mut(key).or_else(|| self.old.get_mut(key)) {
            *at -= FORGIVEN_EVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stretch of attempts that all fail, `secs` after the start.
    struct Stretch {
        secs: u64,
        address: &'static str,
        target: Target<'static>,
        allowed: usize,
        retry_secs: u64,
    }

    #[track_caller]
    fn check(stretches: &[Stretch]) {
        let start = Instant::now();
        let mut attempts = Attempts::new();
        for (index, stretch) in stretches.iter().enumerate() {
            let now = start + Duration::from_secs(stretch.secs);
            let attempt = attempts.attempt(stretch.address.parse().unwrap(), stretch.target);
            let allowed = (0..100).take_while(|_| attempts.take(attempt, now).is_ok()).count();
            let refused = attempts.check(attempt, now);
            let expected = Err(TooMany { retry_secs: stretch.retry_secs });
            assert_eq!((allowed, refused), (stretch.allowed, expected), "stretch {index}");
        }
    }

    const NAMES: [&str; 2] = ["a", "b"];

    fn stretch(
        secs: u64,
        address: &'static str,
        target: Target<'static>,
        allowed: usize,
    ) -> Stretch {
        Stretch { secs, address, target, allowed, retry_secs: 3 }
    }

    #[test]
    fn an_account_allows_ten_failures_and_then_one_in_three_seconds() {
        let at = |secs, allowed| stretch(secs, "192.0.2.1", Target::Named("a"), allowed);
        check(&[at(0, 10), at(0, 0), at(3, 1), at(6, 1), at(12, 2), at(1000, 10)]);
        check(&[at(0, 10), Stretch { retry_secs: 1, ..at(2, 0) }]);
    }

    #[test]
    fn an_address_allows_twenty_failures_at_whatever_accounts() {
        let at = |name, allowed| stretch(0, "127.0.0.1", Target::Named(name), allowed);
        check(&[at(NAMES[0], 10), at(NAMES[1], 10), at("c", 0)]);
        let unnamed = |secs, allowed| stretch(secs, "192.0.2.1", Target::Unnamed, allowed);
        check(&[unnamed(0, 20), unnamed(30, 10)]);
        check(&[stretch(0, "192.0.2.1", Target::Passcodes, 10)]);
    }

    #[test]
    fn addresses_of_one_network_are_one_and_others_are_apart() {
        let at = |address, target, allowed| stretch(0, address, target, allowed);
        check(&[
            at("2001:db8::1", Target::Unnamed, 20),
            at("2001:db8::2", Target::Unnamed, 0),
            at("2001:db8:0:1::1", Target::Unnamed, 20),
            at("192.0.2.1", Target::Unnamed, 20),
            at("::ffff:192.0.2.1", Target::Unnamed, 0),
        ]);
        // The account's limit holds over all addresses.
        check(&[at("192.0.2.1", Target::Named("a"), 10), at("192.0.2.2", Target::Named("a"), 0)]);
    }

    #[test]
    fn what_was_right_does_not_count() {
        let mut attempts = Attempts::new();
        let now = Instant::now();
        let attempt = attempts.attempt("192.0.2.1".parse().unwrap(), Target::Named("a"));
        for _ in 0..100 {
            attempts.take(attempt, now).unwrap();
            attempts.forgive(attempt);
        }
        assert_eq!(attempts.check(attempt, now), Ok(()));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest_first() {
        let mut attempts = Attempts::new();
        let now = Instant::now();
        let at = |attempts: &Attempts, bits: u32| {
            attempts.attempt(IpAddr::V4(std::net::Ipv4Addr::from_bits(bits)), Target::Unnamed)
        };
        let steady = at(&attempts, 0);
        while attempts.take(steady, now).is_ok() {}
        for bits in 1..=u32::try_from(REMEMBERED_MAX).unwrap() {
            attempts.take(at(&attempts, bits), now).unwrap();
        }
        assert!(attempts.check(steady, now).is_err(), "forgotten after one generation");
        assert!(attempts.addresses.young.len() <= REMEMBERED_MAX);
        for bits in 0..=u32::try_from(3 * REMEMBERED_MAX).unwrap() {
            attempts.take(at(&attempts, bits + (1 << 20)), now).unwrap();
        }
        assert_eq!(attempts.check(steady, now), Ok(()));
        assert!(attempts.addresses.old.len() <= REMEMBERED_MAX);
    }
}
