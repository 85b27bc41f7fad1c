//! The dispatcher on a store in memory, and on one whose answers a test holds back (`gated`).

mod ending;
mod gated;
mod polling;
mod time;

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use self::gated::{Gated, Mode};
use super::*;
use crate::delivery::Delivery;
use crate::ledger::Judgement;
use crate::store::memory::MemoryStore;
use crate::store::{EventQuery, Late};
use crate::task::{Claim, Outcome, State, View};

const ANN: AgentId = AgentId(1);
const BOB: AgentId = AgentId(2);
const LEASE: Duration = Duration::from_secs(60);

/// A room over a store whose answers the test holds back, lets fail or lets pass.
struct Room {
    store: Arc<Gated>,
    dispatcher: Dispatcher,
}

impl Room {
    fn new() -> Self {
        Self::with(Settings { attempts_max: 2, queue_max: 100, ..Settings::default() })
    }

    fn with(settings: Settings) -> Self {
        Self::over(Arc::new(MemoryStore::default()), settings)
    }

    fn over(memory: Arc<MemoryStore>, settings: Settings) -> Self {
        let store = Arc::new(Gated::new(memory));
        let dispatcher = Dispatcher::open(Arc::clone(&store) as SharedStore, settings).unwrap();
        Self { store, dispatcher }
    }

    /// What a new start makes of what is stored.
    fn restart(&self) -> Self {
        Self::over(Arc::clone(&self.store.inner), self.dispatcher.shared.settings)
    }

    fn send(&self, new: NewTask) -> Enqueued {
        self.dispatcher.enqueue(new).unwrap()
    }

    /// Sends a task that is stored.
    async fn queue(&self, agent: AgentId) -> Enqueued {
        let mut sent = self.send(new_task(agent));
        (&mut sent.stored).await.unwrap().unwrap();
        sent
    }

    /// What is there at once.
    async fn take(&self, agent: AgentId, max: usize, lease: Option<Duration>) -> Vec<Delivery> {
        self.dispatcher.poll(agent, max, lease, Instant::now()).await.unwrap()
    }

    /// The next task, handed out and sent.
    async fn take_one(&self, lease: Option<Duration>) -> Delivery {
        let mut delivery = self.take(ANN, 1, lease).await.pop().expect("a task is queued");
        delivery.sending();
        delivery.sent();
        delivery
    }

    async fn result(&self, task: TaskId, claim: Option<Claim>) -> Result<Judgement, StoreError> {
        self.dispatcher.complete(ANN, task, claim, "1".into()).await
    }

    async fn view(&self, task: TaskId) -> View {
        self.dispatcher.task(task).await.unwrap().expect("the task is known")
    }

    async fn state(&self, task: TaskId) -> State {
        self.view(task).await.state
    }

    /// A poll that waits, on a task of its own.
    fn park(&self, polls: &mut JoinSet<Vec<u64>>, agent: AgentId) {
        let dispatcher = self.dispatcher.clone();
        polls.spawn(async move {
            let until = Instant::now() + LEASE;
            let mut found = dispatcher.poll(agent, 1, None, until).await.unwrap();
            found.iter_mut().for_each(Delivery::sending);
            found.iter_mut().for_each(Delivery::sent);
            found.iter().map(|delivery| delivery.task().0).collect()
        });
    }
}

fn new_task(agent: AgentId) -> NewTask {
    NewTask {
        agent,
        body: "{}".into(),
        priority: 0,
        ttl_secs: None,
        attempts_max: None,
        by: "ops".into(),
    }
}

/// One whose body does not stay in memory.
fn long_task(agent: AgentId) -> NewTask {
    NewTask { body: vec![b'1'; 100_000].into(), ..new_task(agent) }
}

/// Lets everything run that can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn ids(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.task().0).collect()
}
