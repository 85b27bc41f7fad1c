//! Room for the connections of one door: how many there may be, of whom, and who gives way.
//!
//! Invariant: there are never more than `connections_max` places taken. A newcomer (whose request is not whole,
//! who has not logged in) may lose the place: the oldest of the address with the most of them. Who is settled keeps it,
//! until it is told that it need not any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machines::ports::peer;

/// A connection that can be told to end.
pub(crate) trait GivesWay {
    /// Ends it; its place is somebody else's.
    fn give_way(&self);
}

/// All places.
#[derive(Debug)]
pub(crate) struct Places<C: GivesWay> {
    connections_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken<C>>,
}

#[derive(Debug)]
struct Taken<C> {
    next: u64,
    /// Connections that keep their place.
    settled: usize,
    /// How many may still lose it.
    open: usize,
    /// They, by address and age.
    by_address: HashMap<IpAddr, BTreeMap<u64, C>>,
    /// How many each address has.
    counts: BTreeSet<(usize, IpAddr)>,
}

/// A place that is taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<C: GivesWay> {
    places: Arc<Places<C>>,
    group: IpAddr,
    number: u64,
    is_settled: bool,
}

impl<C: GivesWay> Places<C> {
    /// So many, and so many for each address (each /64 of IPv6) of those who are not settled.
    pub(crate) fn new(connections_max: usize, per_address_max: usize) -> Arc<Self> {
        let (by_address, counts) = (HashMap::new(), BTreeSet::new());
        let taken = Taken { next: 0, settled: 0, open: 0, by_address, counts };
        Arc::new(Self { connections_max, per_address_max, taken: Mutex::new(taken) })
    }

    /// Takes a place for `client` from `address`, of somebody else's where none is free; `None` when all are settled.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, client: C) -> Option<Place<C>> {
        let group = peer(address);
        let mut taken = self.lock();
        if taken.count(group) >= self.per_address_max {
            taken.evict(group);
        }
        if taken.settled + taken.open >= self.connections_max {
            taken.evict_for(group);
        }
        if taken.settled + taken.open >= self.connections_max {
            return None;
        }
        let number = taken.next;
        taken.next += 1;
        taken.insert(group, number, client);
        Some(Place { places: Arc::clone(self), group, number, is_settled: false })
    }

    /// Makes somebody give way who is not settled: the system has no socket left.
    pub(crate) fn give_way(&self) {
        self.lock().evict_anyone();
    }

    fn lock(&self) -> MutexGuard<'_, Taken<C>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: GivesWay> Taken<C> {
    fn count(&self, group: IpAddr) -> usize {
        self.by_address.get(&group).map_or(0, BTreeMap::len)
    }

    fn insert(&mut self, group: IpAddr, number: u64, client: C) {
        let clients = self.by_address.entry(group).or_default();
        self.counts.remove(&(clients.len(), group));
        clients.insert(number, client);
        self.counts.insert((clients.len(), group));
        self.open += 1;
    }

    /// `None`: it was evicted before.
    fn remove(&mut self, group: IpAddr, number: u64) -> Option<C> {
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

    /// Whoever has as many as anybody takes none from others.
    fn evict_for(&mut self, group: IpAddr) {
        match self.counts.last() {
            Some(&(most, _)) if self.count(group) == most => self.evict(group),
            _ => self.evict_anyone(),
        }
    }

    fn evict_anyone(&mut self) {
        if let Some(&(_, group)) = self.counts.last() {
            self.evict(group);
        }
    }

    fn evict(&mut self, group: IpAddr) {
        let oldest = self.by_address.get(&group).and_then(|all| all.keys().next().copied());
        if let Some(client) = oldest.and_then(|number| self.remove(group, number)) {
            client.give_way();
        }
    }
}

impl<C: GivesWay> Place<C> {
    /// The place is kept until the end. `false` when it had to be given up just before.
    pub(crate) fn settle(&mut self) -> bool {
        let mut taken = self.places.lock();
        if !self.is_settled && taken.remove(self.group, self.number).is_some() {
            taken.settled += 1;
            self.is_settled = true;
        }
        self.is_settled
    }
}

impl<C: GivesWay> Place<C> {
    /// The place may be lost again; `client` is told then. It counts as one that has just come.
    pub(crate) fn unsettle(&mut self, client: C) {
        let mut taken = self.places.lock();
        if !std::mem::replace(&mut self.is_settled, false) {
            return;
        }
        taken.settled -= 1;
        if taken.count(self.group) >= self.places.per_address_max {
            taken.evict(self.group);
        }
        self.number = taken.next;
        taken.next += 1;
        taken.insert(self.group, self.number, client);
    }
}

impl<C: GivesWay> Drop for Place<C> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if self.is_settled {
            taken.settled -= 1;
        } else {
            taken.remove(self.group, self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{GivesWay, Place, Places};

    #[derive(Debug, Clone, Default)]
    struct Client(Arc<AtomicBool>);

    impl GivesWay for Client {
        fn give_way(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    impl Client {
        fn is_closed(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn take(places: &Arc<Places<Client>>, address: &str, client: &Client) -> Place<Client> {
        places.take(address.parse().unwrap(), client.clone()).unwrap()
    }

    #[test]
    fn the_oldest_of_the_busiest_address_gives_way() {
        let places = Places::new(4, 10);
        let busy = [Client::default(), Client::default(), Client::default()];
        let lonely = Client::default();
        let mut held: Vec<_> = busy.iter().map(|it| take(&places, "10.0.0.1", it)).collect();
        held.push(take(&places, "10.0.0.2", &lonely));
        held.push(take(&places, "10.0.0.3", &Client::default()));
        let closed: Vec<bool> = busy.iter().chain([&lonely]).map(Client::is_closed).collect();
        assert_eq!(closed, [true, false, false, false]);
        assert!(!held[0].settle(), "what was evicted is not carried out");
        assert!(held[1].settle());
    }

    #[test]
    fn who_has_as_many_as_anybody_takes_none_from_others() {
        let places = Places::new(2, 10);
        let (own, other) = (Client::default(), Client::default());
        let _held = (take(&places, "10.0.0.1", &own), take(&places, "10.0.0.9", &other));
        let _next = take(&places, "10.0.0.1", &Client::default());
        assert!(own.is_closed() && !other.is_closed());
    }

    #[test]
    fn one_address_has_no_more_than_its_share() {
        let places = Places::new(100, 2);
        let all = [Client::default(), Client::default(), Client::default()];
        let of_one = ["2001:db8::1", "2001:db8::2:0", "2001:db8::ffff:0:0:1"];
        let each = all.iter().zip(of_one);
        let _held: Vec<_> = each.map(|(client, ip)| take(&places, ip, client)).collect();
        assert_eq!(all.iter().map(Client::is_closed).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn who_need_not_be_kept_gives_way_again() {
        let places = Places::new(2, 10);
        let done = Client::default();
        let mut first = take(&places, "10.0.0.1", &done);
        let mut second = take(&places, "10.0.0.1", &Client::default());
        assert!(first.settle() && second.settle());
        first.unsettle(done.clone());
        let _third = take(&places, "10.0.0.2", &Client::default());
        assert!(done.is_closed());
        // It has lost its place, and takes none from others by ending.
        drop((first, second));
        let taken = places.lock();
        assert_eq!((taken.settled, taken.open), (0, 1));
    }

    #[test]
    fn who_is_settled_keeps_the_place() {
        let places = Places::new(2, 10);
        let mut first = take(&places, "10.0.0.1", &Client::default());
        let mut second = take(&places, "10.0.0.1", &Client::default());
        assert!(first.settle() && second.settle());
        assert!(places.take("10.0.0.2".parse().unwrap(), Client::default()).is_none());
        drop(first);
        let third = take(&places, "10.0.0.2", &Client::default());
        drop((second, third));
        let taken = places.lock();
        assert_eq!((taken.settled, taken.open), (0, 0));
        assert!(taken.by_address.is_empty() && taken.counts.is_empty());
    }
}
