//! Remembers which passwords have been verified, so that the slow hash is computed once and not on every
//! request.
//!
//! Invariant: no password is kept, only its HMAC under a random key of this process together with the
//! account and the stored hash; one that is changed or removed is therefore never taken for verified.
//! An account is exempt from the limits on guessing only at places where it has been right before: else
//! the limits would keep nobody from trying passwords until one is the remembered one.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::hmac;

use super::AccountId;
use super::attempts::Place;
use super::token::{self, Digest};

/// Places of one account that are remembered; the one that came first is forgotten first.
const PLACES_MAX: usize = 4;
/// Wrong passwords that are remembered, of all accounts.
const WRONG_MAX: usize = 4096;

/// What one account has shown since it was loaded.
#[derive(Debug, Default)]
pub(super) struct Proven(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    right: Option<Digest>,
    places: VecDeque<Place>,
}

/// What is remembered of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recall {
    /// It is right, and was shown at this place before.
    Right,
    /// It is right, but was never shown at this place.
    RightElsewhere,
    /// Nothing: it may be wrong, or was not verified yet.
    Unknown,
}

impl Proven {
    /// What is remembered of the password with this tag, shown at `place`.
    pub(super) fn recall(&self, tag: &Digest, place: Place) -> Recall {
        let seen = self.seen();
        match &seen.right {
            Some(right) if right.matches(tag) && seen.places.contains(&place) => Recall::Right,
            Some(right) if right.matches(tag) => Recall::RightElsewhere,
            _ => Recall::Unknown,
        }
    }

    /// Whether the account has been right at `place`.
    pub(super) fn knows(&self, place: Place) -> bool {
        self.seen().places.contains(&place)
    }

    /// The password with this tag was verified.
    pub(super) fn remember(&self, tag: Digest) {
        self.seen().right = Some(tag);
    }

    /// The account was right at `place`.
    pub(super) fn remember_place(&self, place: Place) {
        let mut seen = self.seen();
        if !seen.places.contains(&place) {
            if seen.places.len() >= PLACES_MAX {
                seen.places.pop_front();
            }
            seen.places.push_back(place);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the tags of passwords, and remembers those of wrong ones.
#[derive(Debug)]
pub(super) struct Tags {
    key: hmac::Key,
    wrong: Mutex<Wrong>,
}

#[derive(Debug, Default)]
struct Wrong {
    known: HashSet<Digest>,
    in_order: VecDeque<Digest>,
}

impl Tags {
    /// With a new key.
    pub(super) fn new() -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &token::random()), wrong: Mutex::default() }
    }

    /// The tag of `password` for the account with this stored hash.
    pub(super) fn of(&self, account: AccountId, stored: &str, password: &str) -> Digest {
        let account = account.0.to_le_bytes();
        Digest::keyed(&self.key, &[&account, stored.as_bytes(), password.as_bytes()])
    }

    /// The tag of `password` for a name that no account has.
    pub(super) fn of_nobody(&self, name: &str, password: &str) -> Digest {
        Digest::keyed(&self.key, &[name.as_bytes(), password.as_bytes()])
    }

    /// Whether it is known to be wrong.
    pub(super) fn is_wrong(&self, tag: &Digest) -> bool {
        self.wrong().known.contains(tag)
    }

    /// It is wrong.
    pub(super) fn remember_wrong(&self, tag: Digest) {
        let mut wrong = self.wrong();
        if !wrong.known.insert(tag) {
            return;
        }
        wrong.in_order.push_back(tag);
        if wrong.in_order.len() > WRONG_MAX
            && let Some(oldest) = wrong.in_order.pop_front()
        {
            wrong.known.remove(&oldest);
        }
    }

    fn wrong(&self) -> MutexGuard<'_, Wrong> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::of(text.parse().unwrap())
    }

    #[test]
    fn a_password_is_remembered_for_its_account_and_its_hash_alone() {
        let tags = Tags::new();
        let proven = Proven::default();
        let here = place("192.0.2.1");
        proven.remember(tags.of(AccountId(1), "hash", "right"));
        proven.remember_place(here);
        let check = |account, stored, password, expected| {
            let tag = tags.of(AccountId(account), stored, password);
            assert_eq!(proven.recall(&tag, here), expected, "{account} {stored} {password}");
        };
        check(1, "hash", "right", Recall::Right);
        check(1, "hash", "wrong", Recall::Unknown);
        check(1, "other hash", "right", Recall::Unknown);
        check(2, "hash", "right", Recall::Unknown);
        check(1, "hashr", "ight", Recall::Unknown);
        assert_eq!(Proven::default().recall(&tags.of_nobody("", ""), here), Recall::Unknown);
    }

    #[test]
    fn another_process_makes_other_tags() {
        let tag = || Tags::new().of(AccountId(1), "hash", "right");
        assert_ne!(tag(), tag());
    }

    #[test]
    fn the_last_four_places_are_remembered() {
        let proven = Proven::default();
        let tag = Tags::new().of_nobody("", "");
        proven.remember(tag);
        assert_eq!(proven.recall(&tag, place("192.0.2.1")), Recall::RightElsewhere);
        for last in [1, 1, 2, 3, 4] {
            proven.remember_place(place(&format!("192.0.2.{last}")));
        }
        assert_eq!(proven.recall(&tag, place("192.0.2.1")), Recall::Right);
        proven.remember_place(place("192.0.2.5"));
        assert_eq!(proven.recall(&tag, place("192.0.2.1")), Recall::RightElsewhere);
        assert!(proven.knows(place("192.0.2.5")) && !proven.knows(place("192.0.2.1")));
    }

    #[test]
    fn wrong_ones_are_remembered_within_bounds() {
        let tags = Tags::new();
        let tag = |number: usize| tags.of_nobody("a", &number.to_string());
        for number in 0..=WRONG_MAX {
            tags.remember_wrong(tag(number));
            tags.remember_wrong(tag(number));
        }
        assert!(
            !tags.is_wrong(&tag(0)) && tags.is_wrong(&tag(1)) && tags.is_wrong(&tag(WRONG_MAX))
        );
        let wrong = tags.wrong();
        assert_eq!((wrong.known.len(), wrong.in_order.len()), (WRONG_MAX, WRONG_MAX));
    }
}
