//! A store whose answers a test holds in its hand.

use std::sync::{Condvar, MutexGuard};

use super::*;
use crate::store::{
    ClaimNote, Event, Loaded, OutputEnd, Rider, Stored, TaskPage, TaskQuery, TaskStore, Then,
};
use crate::task::Ending;

/// What becomes of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Pass,
    Fail,
    /// They wait for [`Gated::release`] or [`Gated::fail`].
    Hold,
}

type Held = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(super) struct Gated {
    pub(super) inner: Arc<MemoryStore>,
    mode: Mutex<Mode>,
    held: Mutex<Vec<Held>>,
    /// How many have read and now wait, and whether they must; whether reads fail.
    reads: Mutex<Reads>,
    turned: Condvar,
}

#[derive(Default)]
struct Reads {
    are_held: bool,
    waiting: usize,
    fail: bool,
    count: usize,
}

impl std::fmt::Debug for Gated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gated")
    }
}

impl Gated {
    pub(super) fn new(inner: Arc<MemoryStore>) -> Self {
        Self {
            inner,
            mode: Mutex::new(Mode::Pass),
            held: Mutex::default(),
            reads: Mutex::default(),
            turned: Condvar::new(),
        }
    }

    pub(super) fn mode(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn turn_held(&self, outcome: &Result<(), StoreError>) {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        assert!(!held.is_empty(), "something is held");
        held.into_iter().for_each(|held| held(outcome.clone()));
    }

    /// What is held is done.
    pub(super) fn release(&self) {
        self.turn_held(&Ok(()));
    }

    /// The first that is held fails.
    pub(super) fn fail_first(&self) {
        let first = self.held.lock().unwrap().remove(0);
        first(Err(StoreError::Full));
    }

    /// What is held fails.
    pub(super) fn fail(&self) {
        self.turn_held(&Err(StoreError::Full));
    }

    fn reads(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap()
    }

    /// Readers wait, after they have read.
    pub(super) fn hold_reads(&self, are_held: bool) {
        self.reads().are_held = are_held;
        self.turned.notify_all();
    }

    /// Until so many have read.
    pub(super) fn wait_for_read(&self, count: usize) {
        let reads = self.turned.wait_while(self.reads(), |reads| reads.count < count).unwrap();
        drop(reads);
    }

    /// How many reads there have been.
    pub(super) fn read_count(&self) -> usize {
        self.reads().count
    }

    pub(super) fn fail_reads(&self, fail: bool) {
        self.reads().fail = fail;
    }

    /// Until somebody has read and waits. Blocks the thread: the reader is on another.
    pub(super) fn wait_for_reader(&self) {
        let reads = self.turned.wait_while(self.reads(), |reads| reads.waiting == 0).unwrap();
        drop(reads);
    }

    fn change<T: 'static>(
        &self,
        then: Then<T>,
        change: impl FnOnce(&MemoryStore, Then<T>) + Send + 'static,
    ) {
        match *self.mode.lock().unwrap() {
            Mode::Pass => change(&self.inner, then),
            Mode::Fail => then(Err(StoreError::Full)),
            Mode::Hold => {
                let inner = Arc::clone(&self.inner);
                self.held.lock().unwrap().push(Box::new(move |outcome| match outcome {
                    Ok(()) => change(&inner, then),
                    Err(error) => then(Err(error)),
                }));
            }
        }
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let found = read(&self.inner);
        let mut reads = self.reads();
        reads.waiting += 1;
        reads.count += 1;
        self.turned.notify_all();
        let mut reads = self.turned.wait_while(reads, |reads| reads.are_held).unwrap();
        reads.waiting -= 1;
        if reads.fail { Err(StoreError::Full) } else { found }
    }
}

impl TaskStore for Gated {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.inner.load()
    }

    fn add_task(&self, task: Task, rider: Option<Rider>, then: Then<()>) {
        self.change(then, move |store, then| store.add_task(task, rider, then));
    }

    fn end_task(&self, ending: Ending, rider: Option<Rider>, then: Then<()>) {
        self.change(then, move |store, then| store.end_task(ending, rider, then));
    }

    fn add_late(&self, late: Late, then: Then<()>) {
        self.change(then, move |store, then| store.add_late(late, then));
    }

    fn add_event(&self, agent: AgentId, at: u64, body: Bytes, then: Then<EventId>) {
        self.change(then, move |store, then| store.add_event(agent, at, body, then));
    }

    fn note_claim(&self, note: ClaimNote) {
        self.inner.note_claim(note);
    }

    fn add_output(&self, task: TaskId, offset: u64, bytes: Bytes, max: u64, then: Then<OutputEnd>) {
        self.change(then, move |store, then| store.add_output(task, offset, bytes, max, then));
    }

    fn forget(&self, agent: AgentId, then: Then<()>) {
        self.change(then, move |store, then| store.forget(agent, then));
    }

    fn agents(&self) -> Result<Vec<AgentId>, StoreError> {
        self.inner.agents()
    }

    fn keep_house(&self, settings: &Settings) {
        self.inner.keep_house(settings);
    }

    fn task(&self, id: TaskId) -> Result<Option<Stored>, StoreError> {
        self.read(|store| store.task(id))
    }

    fn late(&self, id: TaskId) -> Result<Vec<Late>, StoreError> {
        self.inner.late(id)
    }

    fn tasks(&self, query: &TaskQuery) -> Result<TaskPage, StoreError> {
        self.read(|store| store.tasks(query))
    }

    fn events(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        self.inner.events(query)
    }

    fn dropped(
        &self,
        agent: Option<AgentId>,
        after: EventId,
    ) -> Result<Vec<(AgentId, EventId)>, StoreError> {
        self.inner.dropped(agent, after)
    }

    fn output(
        &self,
        id: TaskId,
        offset: u64,
        max: usize,
    ) -> Result<(Bytes, OutputEnd), StoreError> {
        self.read(|store| store.output(id, offset, max))
    }
}
