//! The store for tests and trials: nothing survives the process.
//!
//! Invariant: the same promises as every store, but for the new start.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{
    ClaimNote, Event, EventQuery, LATE_MAX, Late, Loaded, OutputEnd, Progress, Rider, StoreError,
    Stored, TaskPage, TaskQuery, TaskStore, Then,
};
use crate::settings::Settings;
use crate::task::{AgentId, Ending, EventId, Task, TaskId, now_ms};

/// The store.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    tasks: BTreeMap<TaskId, Stored>,
    late: Vec<Late>,
    events: BTreeMap<EventId, Event>,
    cuts: BTreeMap<AgentId, EventId>,
    claims: BTreeMap<TaskId, ClaimNote>,
    outputs: BTreeMap<TaskId, Vec<u8>>,
    last_event: u64,
    next_task: u64,
    runs: u32,
}

impl Books {
    fn drop_task(&mut self, id: TaskId) {
        self.tasks.remove(&id);
        self.claims.remove(&id);
        self.outputs.remove(&id);
        self.late.retain(|late| late.task != id);
    }
}

impl MemoryStore {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TaskStore for MemoryStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        let mut books = self.books();
        books.runs += 1;
        let open = books.tasks.values().filter(|stored| stored.ending.is_none());
        let open = open.map(|s| (s.task.clone(), books.claims.get(&s.task.id).copied())).collect();
        Ok(Loaded {
            next_task: books.next_task.max(1),
            run: books.runs,
            last_event: EventId(books.last_event),
            open,
        })
    }

    fn add_task(&self, task: Task, _: Option<Rider>, then: Then<()>) {
        let mut books = self.books();
        books.next_task = books.next_task.max(task.id.0 + 1);
        books.tasks.insert(task.id, Stored { task, ending: None });
        drop(books);
        then(Ok(()));
    }

    fn end_task(&self, ending: Ending, _: Option<Rider>, then: Then<()>) {
        let mut books = self.books();
        books.claims.remove(&ending.task);
        let outcome = match books.tasks.get_mut(&ending.task) {
            Some(stored) if stored.ending.is_some() => {
                Err(StoreError::Constraint("the task has ended already".into()))
            }
            Some(stored) => {
                stored.ending = Some(ending);
                Ok(())
            }
            None => Ok(()),
        };
        drop(books);
        then(outcome);
    }

    fn add_late(&self, late: Late, then: Then<()>) {
        let mut books = self.books();
        if books.tasks.contains_key(&late.task)
            && books.late.iter().filter(|it| it.task == late.task).count() < LATE_MAX
        {
            books.late.push(late);
        }
        drop(books);
        then(Ok(()));
    }

    fn add_event(&self, agent: AgentId, at: u64, body: Bytes, then: Then<EventId>) {
        let mut books = self.books();
        books.last_event += 1;
        let id = EventId(books.last_event);
        books.events.insert(id, Event { id, agent, at, body });
        drop(books);
        then(Ok(id));
    }

    fn note_claim(&self, note: ClaimNote) {
        let mut books = self.books();
        let held = books.claims.get(&note.task).map(|held| held.claim);
        if held > Some(note.claim) || (held.is_none() && note.progress != Progress::Sending) {
            return;
        }
        books.claims.insert(note.task, note);
    }

    fn add_output(
        &self,
        task: TaskId,
        offset: u64,
        bytes: Bytes,
        bytes_max: u64,
        then: Then<OutputEnd>,
    ) {
        let mut books = self.books();
        let is_kept = books.tasks.contains_key(&task);
        let output = books.outputs.entry(task).or_default();
        let end = output.len() as u64;
        let known = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let new = bytes.get(known..).filter(|_| offset <= end).unwrap_or_default();
        let room = usize::try_from(bytes_max.saturating_sub(end)).unwrap_or(usize::MAX);
        output.extend_from_slice(&new[..new.len().min(room)]);
        let end = OutputEnd { next: output.len() as u64, is_capped: new.len() > room };
        if !is_kept {
            books.outputs.remove(&task);
        }
        drop(books);
        then(Ok(end));
    }

    fn forget(&self, agent: AgentId, then: Then<()>) {
        let mut books = self.books();
        let gone: Vec<TaskId> =
            books.tasks.values().filter(|s| s.task.agent == agent).map(|s| s.task.id).collect();
        for id in gone {
            books.drop_task(id);
        }
        books.events.retain(|_, event| event.agent != agent);
        books.cuts.remove(&agent);
        drop(books);
        then(Ok(()));
    }

    fn agents(&self) -> Result<Vec<AgentId>, StoreError> {
        let books = self.books();
        let tasks = books.tasks.values().map(|stored| stored.task.agent);
        let mut agents: Vec<_> = tasks.chain(books.events.values().map(|e| e.agent)).collect();
        agents.sort_unstable();
        agents.dedup();
        Ok(agents)
    }

    fn keep_house(&self, settings: &Settings) {
        let mut books = self.books();
        let mut counts: BTreeMap<AgentId, usize> = BTreeMap::new();
        let mut cuts = Vec::new();
        books.events = std::mem::take(&mut books.events)
            .into_iter()
            .rev()
            .filter(|(id, event)| {
                let count = counts.entry(event.agent).or_default();
                *count += 1;
                if *count > settings.events_max {
                    cuts.push((event.agent, *id));
                }
                *count <= settings.events_max
            })
            .collect();
        for (agent, id) in cuts {
            let cut = books.cuts.entry(agent).or_default();
            *cut = id.max(*cut);
        }
        let Some(history) = settings.history else { return };
        let age = u64::try_from(history.as_millis()).unwrap_or(u64::MAX);
        let before = now_ms().saturating_sub(age);
        let is_old = |stored: &&Stored| {
            stored.ending.as_ref().is_some_and(|ending| ending.ended_at < before)
        };
        let old: Vec<TaskId> =
            books.tasks.values().filter(is_old).map(|stored| stored.task.id).collect();
        for id in old {
            books.drop_task(id);
        }
    }

    fn task(&self, id: TaskId) -> Result<Option<Stored>, StoreError> {
        Ok(self.books().tasks.get(&id).cloned())
    }

    fn late(&self, id: TaskId) -> Result<Vec<Late>, StoreError> {
        Ok(self.books().late.iter().filter(|late| late.task == id).cloned().collect())
    }

    fn tasks(&self, query: &TaskQuery) -> Result<TaskPage, StoreError> {
        let books = self.books();
        let mut wanted =
            books.tasks.range(..query.before).rev().map(|(_, stored)| stored).filter(|s| {
                query.agent.is_none_or(|agent| agent == s.task.agent)
                    && query.wants(s.ending.as_ref())
            });
        let tasks: Vec<Stored> = wanted.by_ref().take(query.limit).cloned().collect();
        let next = tasks.last().map(|s| s.task.id).filter(|_| tasks.len() == query.limit);
        Ok(TaskPage { tasks, next })
    }

    fn events(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        let books = self.books();
        let is_meant = |event: &&Event| {
            event.id > query.after && query.agent.is_none_or(|agent| agent == event.agent)
        };
        let meant: Vec<&Event> = books.events.values().filter(is_meant).collect();
        let from = if query.newest { meant.len().saturating_sub(query.limit) } else { 0 };
        Ok(meant[from..].iter().take(query.limit).map(|event| (*event).clone()).collect())
    }

    fn dropped(
        &self,
        agent: Option<AgentId>,
        after: EventId,
    ) -> Result<Vec<(AgentId, EventId)>, StoreError> {
        let books = self.books();
        let cuts = books.cuts.iter().map(|(agent, cut)| (*agent, *cut));
        Ok(cuts.filter(|(a, cut)| *cut > after && agent.is_none_or(|it| it == *a)).collect())
    }

    fn output(
        &self,
        id: TaskId,
        offset: u64,
        max: usize,
    ) -> Result<(Bytes, OutputEnd), StoreError> {
        let books = self.books();
        let output = books.outputs.get(&id).map(Vec::as_slice).unwrap_or_default();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = output.get(from..).unwrap_or_default();
        let end = OutputEnd { next: output.len() as u64, is_capped: false };
        Ok((Bytes::copy_from_slice(&rest[..rest.len().min(max)]), end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_contract() {
        super::super::contract::all(|| {
            let store = std::sync::Arc::new(MemoryStore::default());
            // A new start is one more `load` here.
            super::super::contract::Restarting::new(store, Box::new(|store| store))
        });
    }
}
