//! Whose RSA work is done next, of all who wait for it.
//!
//! Invariant: at most so many works are done at a time, and over a busy time each peer (an address, or a /64 of IPv6) gets
//! as much of it as any other, however many connections it has and however expensive keys it sends. Work of who has gone
//! is not done.
//!
//! The order is that of self-clocked fair queueing: each work is stamped with when it would end if its peer worked alone
//! at its share from now or from the end of its last one, and the least stamp goes first.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Peers that are remembered for having worked, beside those that wait.
const REMEMBERED_MAX: usize = 1024;

/// All turns.
#[derive(Debug)]
pub(super) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Works that may be begun.
    free: usize,
    /// The stamp of the work that was begun last.
    clock: u64,
    /// By peer, the stamp of its last work.
    stamps: HashMap<IpAddr, u64>,
    /// By stamp, and by age where those are the same.
    waiting: BTreeMap<(u64, u64), oneshot::Sender<Turn>>,
    age: u64,
}

/// One work may be done until this is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

impl Turns {
    /// So many works at a time.
    pub(super) fn new(at_once: usize) -> Arc<Self> {
        let state = State {
            free: at_once.max(1),
            clock: 0,
            stamps: HashMap::new(),
            waiting: BTreeMap::new(),
            age: 0,
        };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Waits for the turn of a work of `peer` that costs so much. Dropped, it waits no more.
    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr, cost: u32) -> Turn {
        let (turn, place) = self.ask(peer, cost);
        let _waiting = Waiting { turns: self, peer, place, cost: cost.max(1).into() };
        self.go_on();
        match turn.await {
            Ok(turn) => turn,
            // Whoever asks is told: senders are dropped with the last of `self` alone.
            Err(_) => std::future::pending().await,
        }
    }

    fn ask(&self, peer: IpAddr, cost: u32) -> (oneshot::Receiver<Turn>, (u64, u64)) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        if state.stamps.len() > state.waiting.len() + REMEMBERED_MAX {
            let clock = state.clock;
            state.stamps.retain(|_, stamp| *stamp > clock);
        }
        let last = state.stamps.get(&peer).copied().unwrap_or_default();
        let stamp = last.max(state.clock).saturating_add(cost.max(1).into());
        let age = state.age;
        state.age += 1;
        state.stamps.insert(peer, stamp);
        state.waiting.insert((stamp, age), sender);
        (receiver, (stamp, age))
    }

    /// Lets those begin whose turn it is.
    fn go_on(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            if state.free == 0 {
                return;
            }
            let Some(((stamp, _), next)) = state.waiting.pop_first() else { return };
            if next.is_closed() {
                continue;
            }
            state.free -= 1;
            state.clock = state.clock.max(stamp);
            drop(state);
            // Who has gone in this moment gives the turn back by dropping it.
            let _ = next.send(Turn(Arc::clone(self)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits. Who goes away before the turn is forgotten, and has used nothing.
struct Waiting<'a> {
    turns: &'a Turns,
    peer: IpAddr,
    place: (u64, u64),
    cost: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        let is_forgotten = state.waiting.remove(&self.place).is_some();
        if let Some(stamp) = state.stamps.get_mut(&self.peer).filter(|_| is_forgotten) {
            *stamp = stamp.saturating_sub(self.cost);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        self.0.go_on();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// Peers and costs that wait while a turn is held; returns the order in which they get theirs.
    async fn order(asked: &[(u8, u32)]) -> Vec<(u8, u32)> {
        let turns = Turns::new(1);
        let held = turns.take(ip(255), 1).await;
        let mut waiting: Vec<_> =
            asked.iter().map(|&(peer, cost)| (peer, cost, turns.ask(ip(peer), cost).0)).collect();
        drop(held);
        let mut order = Vec::new();
        while !waiting.is_empty() {
            // A turn is in one channel at a time, and there at once.
            let at = waiting.iter_mut().position(|(.., turn)| {
                // What was received is dropped, and so is the next one's turn.
                turn.try_recv().is_ok()
            });
            let (peer, cost, _) = waiting.remove(at.expect("somebody's turn"));
            order.push((peer, cost));
        }
        order
    }

    #[tokio::test]
    async fn who_has_many_connections_waits_behind_who_has_one() {
        let found = order(&[(1, 1), (1, 1), (1, 1), (1, 1), (2, 1)]).await;
        assert_eq!(found, [(1, 1), (2, 1), (1, 1), (1, 1), (1, 1)]);
    }

    #[tokio::test]
    async fn who_sends_expensive_keys_waits_behind_who_does_not() {
        let found = order(&[(1, 8), (3, 8), (4, 8), (2, 1), (2, 1)]).await;
        assert_eq!(found, [(2, 1), (2, 1), (1, 8), (3, 8), (4, 8)]);
    }

    #[tokio::test]
    async fn what_is_not_waited_for_is_not_done() {
        let turns = Turns::new(1);
        let held = turns.take(ip(1), 1).await;
        for n in 0..5000_u32 {
            let mut waiting = Box::pin(turns.take(IpAddr::from(n.to_be_bytes()), 1));
            let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
            assert!(waiting.as_mut().poll(context).is_pending());
        }
        assert_eq!(turns.lock().waiting.len(), 0, "who has gone waits no more");
        drop(held);
        let second = turns.take(ip(2), 1).await;
        drop(second);
        let left = {
            let state = turns.lock();
            (state.waiting.len(), state.free)
        };
        assert_eq!(left, (0, 1));
        // What is remembered of peers is bounded, too.
        drop(turns.take(ip(3), 1).await);
        let remembered = turns.lock().stamps.len();
        assert!(remembered <= REMEMBERED_MAX + 1, "{remembered}");
    }
}
