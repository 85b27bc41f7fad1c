//! What the answers of a connection carry, until it is known whether it arrived: tasks, and news of a machine.
//!
//! The protocol has no acknowledgement. A task counts as received when the answer that carries it has been written
//! and the connection is not reset within the next second; otherwise it goes back to its place in the queue. A machine
//! counts as told of when the answer has been written: a reset afterwards may come of a client that has read it.
//!
//! Invariant: what was never written whole is put back when the connection goes (`Delivery` and `Handover` see to it when
//! they are dropped).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Response;
use machines::manager::Handover;
use tasks::delivery::Delivery;
use tokio::time::Instant;

/// How long a reset after the answer means that it did not arrive.
pub const GRACE: Duration = Duration::from_secs(1);

/// What one connection carries.
#[derive(Debug, Default)]
pub struct Cargo {
    is_loaded: AtomicBool,
    /// Whether the next flush completes an answer that carries something.
    is_leaving: AtomicBool,
    carried: Mutex<Vec<Carried>>,
}

/// One thing that an answer carries.
#[derive(Debug)]
enum Goods {
    /// To an agent.
    Task(Delivery),
    /// To its owner.
    Machine(Handover),
}

impl Goods {
    fn sending(&mut self) {
        match self {
            Self::Task(delivery) => delivery.sending(),
            Self::Machine(_) => {}
        }
    }

    fn sent(&mut self) {
        match self {
            Self::Task(delivery) => delivery.sent(),
            Self::Machine(handover) => handover.told(),
        }
    }

    fn lost(self) {
        match self {
            Self::Task(delivery) => delivery.lost(),
            // Dropped, it is taken back unless its owner was told.
            Self::Machine(_) => {}
        }
    }
}

/// What an answer is to carry, from the endpoint to the connection. What never gets there is put back: another request
/// of the same connection (HTTP/2) does not tell for it that it has left.
#[derive(Debug, Clone)]
pub struct Freight(Arc<Mutex<Vec<Goods>>>);

impl Freight {
    /// `answer` carries `deliveries`.
    pub fn put<B>(deliveries: Vec<Delivery>, answer: &mut Response<B>) {
        if !deliveries.is_empty() {
            let goods = deliveries.into_iter().map(Goods::Task).collect();
            answer.extensions_mut().insert(Self(Arc::new(Mutex::new(goods))));
        }
    }

    /// `answer` tells of a machine.
    pub fn put_machine<B>(handover: Handover, answer: &mut Response<B>) {
        let goods = vec![Goods::Machine(handover)];
        answer.extensions_mut().insert(Self(Arc::new(Mutex::new(goods))));
    }

    /// The first byte of the answer is about to be written.
    pub fn leaves(&self) {
        let mut goods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        goods.iter_mut().for_each(Goods::sending);
    }

    /// What `answer` carries.
    pub fn take<B>(answer: &mut Response<B>) -> Option<Self> {
        answer.extensions_mut().remove()
    }
}

#[derive(Debug)]
struct Carried {
    goods: Goods,
    sent_at: Option<Instant>,
}

impl Cargo {
    fn carried(&self) -> MutexGuard<'_, Vec<Carried>> {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next bytes that leave carry `freight`.
    pub fn load(&self, freight: &Freight) {
        let mut goods = freight.0.lock().unwrap_or_else(PoisonError::into_inner);
        let goods = std::mem::take(&mut *goods);
        let now = Instant::now();
        let mut carried = self.carried();
        carried.retain(|it| it.sent_at.is_none_or(|at| now < at + GRACE));
        carried.extend(goods.into_iter().map(|goods| Carried { goods, sent_at: None }));
        self.is_loaded.store(true, Relaxed);
    }

    /// Bytes are about to be written.
    pub fn leaves(&self) {
        if !self.is_loaded.load(Relaxed) {
            return;
        }
        for it in self.carried().iter_mut() {
            it.goods.sending();
        }
        self.is_leaving.store(true, Relaxed);
    }

    /// All that was to be written has been.
    pub fn has_left(&self) {
        if !self.is_leaving.swap(false, Relaxed) {
            return;
        }
        self.is_loaded.store(false, Relaxed);
        let now = Instant::now();
        for it in self.carried().iter_mut().filter(|it| it.sent_at.is_none()) {
            it.goods.sent();
            it.sent_at = Some(now);
        }
    }

    /// The connection was reset.
    pub fn is_lost(&self) {
        let now = Instant::now();
        for it in std::mem::take(&mut *self.carried()) {
            if it.sent_at.is_none_or(|at| now < at + GRACE) {
                it.goods.lost();
            }
        }
    }

    /// Until when a reset would mean that something did not arrive.
    pub fn in_doubt_until(&self) -> Option<Instant> {
        let latest = self.carried().iter().filter_map(|it| it.sent_at).max()?;
        Some(latest + GRACE).filter(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::BodyExt as _;
    use plugins::call::Body;
    use tasks::store::memory::MemoryStore;
    use tasks::task::NewTask;
    use tasks::{AgentId, Dispatcher, Settings};

    use super::*;
    use crate::http::activity::Activity;
    use crate::http::body::Sent;

    const AGENT: AgentId = AgentId(1);

    /// Tasks that are there at once.
    async fn take(room: &Dispatcher) -> Vec<Delivery> {
        room.poll(AGENT, 9, None, Instant::now()).await.unwrap()
    }

    /// An answer that carries the one task that there is, over a connection with these notes.
    async fn answer(room: &Dispatcher, activity: &Arc<Activity>) -> Sent {
        let mut response = Response::new(Body::full(Bytes::from_static(b"{}")));
        let deliveries = take(room).await;
        assert_eq!(deliveries.len(), 1);
        Freight::put(deliveries, &mut response);
        let freight = Freight::take(&mut response);
        let request = activity.begin(http::Version::HTTP_2);
        Sent::new(response.into_body(), None, freight, true, request)
    }

    async fn room_with_a_task() -> Dispatcher {
        let room = Dispatcher::open(Arc::new(MemoryStore::default()), Settings::default()).unwrap();
        let task = NewTask {
            agent: AGENT,
            body: "{}".into(),
            priority: 0,
            ttl_secs: None,
            attempts_max: None,
            by: "ops".into(),
        };
        room.enqueue(task).unwrap().stored.await.unwrap().unwrap();
        room
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_http2_has_left_when_its_end_is_asked_for() {
        for pieces in 0..=3 {
            let room = room_with_a_task().await;
            let activity = Activity::new();
            let mut sent = answer(&room, &activity).await;
            let mut found = Vec::new();
            for _ in 0..pieces {
                found.extend(sent.frame().await.unwrap().unwrap().into_data().unwrap());
                activity.cargo.leaves();
                activity.cargo.has_left();
            }
            assert_eq!(found, b"{}"[..pieces.min(2)]);
            let is_whole = pieces == 3;
            assert_eq!(http_body::Body::is_end_stream(&sent), is_whole);
            drop(sent);
            drop(activity);
            assert_eq!(take(&room).await.is_empty(), is_whole, "{pieces} pieces");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_answer_sends_does_not_carry_a_task_away() {
        let room = room_with_a_task().await;
        let activity = Activity::new();
        let given_up = answer(&room, &activity).await;
        activity.cargo.leaves();
        activity.cargo.has_left();
        drop(given_up);
        let sent = answer(&room, &activity).await;
        sent.collect().await.unwrap();
        activity.cargo.leaves();
        activity.cargo.has_left();
        drop(activity);
        assert!(take(&room).await.is_empty(), "it has been delivered");
    }
}
