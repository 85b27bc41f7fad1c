//! Who is connected to a machine, by address: nobody takes all of its connections.
//!
//! Invariant: no address (and no /64 of IPv6) has more connections than its share or makes them faster than allowed; what
//! is remembered of those that have none is bounded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::bandwidth::Pace;

/// Addresses that are remembered while they are not connected.
const REMEMBERED_MAX: usize = 256;

/// All of them.
#[derive(Debug)]
pub(super) struct Callers {
    each_max: usize,
    each_per_second: u32,
    by_address: HashMap<IpAddr, Caller>,
}

#[derive(Debug)]
struct Caller {
    open: usize,
    pace: Option<Pace>,
}

impl Callers {
    /// So many connections of each, and so many new ones in a second; 0 for no limit of these.
    pub(super) fn new(each_max: usize, each_per_second: u32) -> Self {
        Self { each_max, each_per_second, by_address: HashMap::new() }
    }

    /// Counts one more of `address`; `false` when that is too many, or too soon.
    pub(super) fn enter(&mut self, address: IpAddr) -> bool {
        if self.by_address.len() > REMEMBERED_MAX {
            self.by_address.retain(|_, caller| caller.open > 0);
        }
        let per_second = self.each_per_second.into();
        let caller = self.by_address.entry(peer(address)).or_insert_with(|| Caller {
            open: 0,
            pace: Pace::new(per_second, Duration::from_secs(1)),
        });
        let is_let_in =
            caller.open < self.each_max && caller.pace.as_ref().is_none_or(Pace::try_spend);
        caller.open += usize::from(is_let_in);
        is_let_in
    }

    /// One less of `address`, which was let in.
    pub(super) fn leave(&mut self, address: IpAddr) {
        if let Some(caller) = self.by_address.get_mut(&peer(address)) {
            caller.open = caller.open.saturating_sub(1);
        }
    }
}

/// Addresses that one peer has at will count as one: a /64 of IPv6.
#[must_use]
pub fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let bits = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_has_its_share_and_its_pace() {
        let mut callers = Callers::new(2, 3);
        let (one, other) = (ip("10.0.0.1"), ip("10.0.0.2"));
        assert!(callers.enter(one) && callers.enter(one) && !callers.enter(one));
        assert!(callers.enter(other), "another has a share of its own");
        callers.leave(one);
        assert!(callers.enter(one));
        callers.leave(one);
        assert!(!callers.enter(one), "too soon");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(callers.enter(one));
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_and_the_forgotten_take_no_memory() {
        let mut callers = Callers::new(1, 0);
        assert!(callers.enter(ip("2001:db8::1")) && !callers.enter(ip("2001:db8::2:3:4:5")));
        for n in 0..10_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            assert!(callers.enter(address));
            callers.leave(address);
        }
        assert!(callers.by_address.len() <= REMEMBERED_MAX + 2, "{}", callers.by_address.len());
        assert!(!callers.enter(ip("2001:db8::6")), "who is connected is not forgotten");
    }
}
