//! Room for connections: how many there may be, of whom, and who gives way.
//!
//! Invariant: there are never more than `connections_max` places taken. Who has no request yet may lose the place: the
//! oldest of the address with the most of them. Whose request is whole keeps it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Client;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    connections_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// Connections whose request is whole.
    settled: usize,
    /// How many still have none.
    open: usize,
    /// They, by address and age.
    by_address: HashMap<IpAddr, BTreeMap<u64, Client>>,
    /// How many each address has.
    counts: BTreeSet<(usize, IpAddr)>,
}

/// A place that is taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    group: IpAddr,
    number: u64,
    is_settled: bool,
}

impl Places {
    pub(super) fn new(connections_max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { connections_max, per_address_max, taken: Mutex::default() })
    }

    /// Takes a place for `client`, of somebody else's where none is free; `None` when everybody's request is being
    /// carried out.
    pub(super) fn take(self: &Arc<Self>, client: &Client) -> Option<Place> {
        let group = group(client.address().ip());
        let mut taken = self.lock();
        if taken.count(group) >= self.per_address_max {
            taken.evict(group);
        }
        if taken.settled + taken.open >= self.connections_max {
            taken.evict_anyone();
        }
        if taken.settled + taken.open >= self.connections_max {
            return None;
        }
        let number = taken.next;
        taken.next += 1;
        taken.insert(group, number, client.clone());
        Some(Place { places: Arc::clone(self), group, number, is_settled: false })
    }

    /// Makes somebody give way who has no request yet: the system has no socket left.
    pub(super) fn give_way(&self) {
        self.lock().evict_anyone();
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn count(&self, group: IpAddr) -> usize {
        self.by_address.get(&group).map_or(0, BTreeMap::len)
    }

    fn insert(&mut self, group: IpAddr, number: u64, client: Client) {
        let clients = self.by_address.entry(group).or_default();
        self.counts.remove(&(clients.len(), group));
        clients.insert(number, client);
        self.counts.insert((clients.len(), group));
        self.open += 1;
    }

    /// `None`: it was evicted before.
    fn remove(&mut self, group: IpAddr, number: u64) -> Option<Client> {
        let clients = self.by_address.get_mut(&group)?;
        let count = clients.len();
        let client = clients.remove(&number)?;
        self.counts.remove(&(count, group));
        if count > 1 {
            self.counts.insert((count - 1, group));
        } else {
            self.by_address.remove(&group);
        }
        self.open -= 1;
        Some(client)
    }

    fn evict_anyone(&mut self) {
        if let Some(&(_, group)) = self.counts.last() {
            self.evict(group);
        }
    }

    fn evict(&mut self, group: IpAddr) {
        let oldest = self.by_address.get(&group).and_then(|all| all.keys().next().copied());
        if let Some(client) = oldest.and_then(|number| self.remove(group, number)) {
            client.close();
        }
    }
}

impl Place {
    /// The request is whole: the place is kept until the end. `false` when it had to be given up just before.
    pub(super) fn settle(&mut self) -> bool {
        let mut taken = self.places.lock();
        if !self.is_settled && taken.remove(self.group, self.number).is_some() {
            taken.settled += 1;
            self.is_settled = true;
        }
        self.is_settled
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if self.is_settled {
            taken.settled -= 1;
        } else {
            taken.remove(self.group, self.number);
        }
    }
}

/// Addresses that one peer has at will count as one: a /64 of IPv6.
fn group(address: IpAddr) -> IpAddr {
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
    use super::{Client, Places};

    fn client(address: &str) -> Client {
        Client::new(address.parse().unwrap())
    }

    #[test]
    fn the_oldest_of_the_busiest_address_gives_way() {
        let places = Places::new(4, 10);
        let busy: Vec<Client> = (0..3).map(|_| client("10.0.0.1:1")).collect();
        let lonely = client("10.0.0.2:1");
        let mut held: Vec<_> = busy.iter().map(|client| places.take(client).unwrap()).collect();
        held.push(places.take(&lonely).unwrap());
        held.push(places.take(&client("10.0.0.3:1")).unwrap());
        let closed: Vec<bool> = busy.iter().chain([&lonely]).map(Client::is_closed).collect();
        assert_eq!(closed, [true, false, false, false]);
        assert!(!held[0].settle(), "what was evicted is not carried out");
        assert!(held[1].settle());
    }

    #[test]
    fn one_address_has_no_more_than_its_share() {
        let places = Places::new(100, 2);
        let all: Vec<Client> = (0..3).map(|n| client(&format!("[2001:db8::{n}]:1"))).collect();
        let _held: Vec<_> = all.iter().map(|client| places.take(client).unwrap()).collect();
        assert_eq!(all.iter().map(Client::is_closed).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn whose_request_is_whole_keeps_the_place() {
        let places = Places::new(2, 10);
        let mut first = places.take(&client("10.0.0.1:1")).unwrap();
        let mut second = places.take(&client("10.0.0.1:2")).unwrap();
        assert!(first.settle() && second.settle());
        assert!(places.take(&client("10.0.0.2:1")).is_none());
        drop(first);
        let third = places.take(&client("10.0.0.2:1")).unwrap();
        drop((second, third));
        let taken = places.lock();
        assert_eq!((taken.settled, taken.open), (0, 0));
        assert!(taken.by_address.is_empty() && taken.counts.is_empty());
    }
}
