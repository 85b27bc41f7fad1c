//! What every store must do, checked against a real one.
//!
//! Each check gets an empty store of its own and may start it again as often as it likes.

mod events;
mod tasks;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{EventQuery, Loaded, SharedStore, StoreError, TaskQuery, Then};
use crate::settings::Settings;
use crate::task::{AgentId, Ending, EventId, Outcome, Task, TaskId};

/// Opens what a closed store has left.
type Reopen = Box<dyn FnMut(SharedStore) -> SharedStore>;

/// A store that can be closed and opened again.
pub(crate) struct Restarting {
    store: Option<SharedStore>,
    reopen: Reopen,
}

impl Restarting {
    /// `reopen` gets the last reference to the store.
    pub(crate) fn new(store: SharedStore, reopen: Reopen) -> Self {
        Self { store: Some(store), reopen }
    }

    fn store(&self) -> &SharedStore {
        self.store.as_ref().expect("the store is open between restarts")
    }

    /// Closes the store, opens it again, and says what it begins with.
    fn restart(&mut self) -> Loaded {
        let store = self.store.take().expect("the store is open between restarts");
        self.store = Some((self.reopen)(store));
        self.store().load().unwrap()
    }

    /// Calls `change`, and gives what it is told.
    fn told<T: Send + 'static>(
        &self,
        change: impl FnOnce(&SharedStore, Then<T>),
    ) -> Result<T, StoreError> {
        let (tell, told) = mpsc::channel();
        change(self.store(), Box::new(move |outcome| tell.send(outcome).unwrap()));
        told.recv_timeout(Duration::from_secs(60)).expect("the store answers")
    }

    fn add_task(&self, task: &Task) {
        self.told(|store, then| store.add_task(task.clone(), None, then)).unwrap();
    }

    fn end_task(&self, ending: &Ending) {
        self.told(|store, then| store.end_task(ending.clone(), None, then)).unwrap();
    }

    fn add_event(&self, agent: AgentId, body: &'static str) -> EventId {
        self.told(|store, then| store.add_event(agent, 5, body.into(), then)).unwrap()
    }

    fn forget(&self, agent: AgentId) {
        self.told(|store, then| store.forget(agent, then)).unwrap();
    }

    /// Keeps house until `is_done`; the work may be done in many steps on another thread.
    fn keep_house_until(&self, settings: &Settings, is_done: impl Fn(&SharedStore) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !is_done(self.store()) {
            assert!(Instant::now() < give_up, "the house is not in order");
            self.store().keep_house(settings);
            std::thread::yield_now();
        }
    }
}

const ANN: AgentId = AgentId(1);
const BOB: AgentId = AgentId(2);

fn task(id: u64, agent: AgentId) -> Task {
    Task {
        id: TaskId(id),
        agent,
        body: format!("{{\"n\":{id}}}").into(),
        priority: 0,
        attempts_max: 5,
        enqueued_at: 1000 + id,
        expires_at: None,
        by: "ops".into(),
    }
}

fn ending(id: u64, outcome: Outcome, ended_at: u64) -> Ending {
    Ending {
        task: TaskId(id),
        outcome,
        attempts: 1,
        taken_at: Some(7),
        ended_at,
        reason: None,
        result: Some("true".into()),
    }
}

fn all_events(agent: Option<AgentId>) -> EventQuery {
    EventQuery { agent, after: EventId(0), limit: 1_000_000, newest: false }
}

fn all_tasks(agent: Option<AgentId>) -> TaskQuery {
    TaskQuery { agent, outcome: None, open: false, before: TaskId(u64::MAX), limit: 1_000_000 }
}

/// All of it; `fresh` makes an empty store.
pub(crate) fn all(fresh: impl Fn() -> Restarting) {
    for (about, check) in events::CHECKS.iter().chain(tasks::CHECKS) {
        // Shown by a test that fails.
        println!("{about}");
        let mut store = fresh();
        store.store().load().unwrap();
        check(&mut store);
    }
}

/// What is to hold, and what checks it.
type Check = (&'static str, fn(&mut Restarting));
