//! Who is there: places, owners, and where each machine's driver listens. Holds no lock and waits for nothing.
//!
//! Invariant: a place is taken from before anything is started until the machine's driver says that all is undone.
//! Spares have no place; they take one when they are lent.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use wire::Secret;

use super::ById;
use super::driver::{Command, Stop};
use crate::credentials::TokenHash;
use crate::error::MachineError;
use crate::lifecycle::{Event, State, next};
use crate::machine::{MachineId, Summary};
use crate::ports::Desk;

/// What is known of a machine.
#[derive(Debug)]
pub(super) struct Entry {
    pub summary: Summary,
    /// Once it is lent.
    pub token: Option<TokenHash>,
    /// Once its guest runs.
    pub desk: Option<Arc<Desk>>,
    /// Whether it counts.
    pub has_place: bool,
    pub commands: mpsc::Sender<Command>,
    pub stop: watch::Sender<Option<Stop>>,
    pub gone: watch::Receiver<bool>,
}

/// All machines.
#[derive(Debug)]
pub(super) struct Register {
    machines: ById<Entry>,
    machines_max: usize,
    quota: Option<usize>,
}

impl Register {
    pub(super) fn new(machines_max: usize, quota: Option<usize>) -> Self {
        Self { machines: ById::new(), machines_max, quota }
    }

    pub(super) fn taken(&self) -> usize {
        self.machines.values().filter(|entry| entry.has_place).count()
    }

    pub(super) fn available(&self) -> usize {
        self.machines_max.saturating_sub(self.taken())
    }

    /// Whether `owner` may have one more.
    pub(super) fn check_room(&self, owner: Option<&str>) -> Result<(), MachineError> {
        if self.available() == 0 {
            return Err(MachineError::NoCapacity { max: self.machines_max });
        }
        let (Some(owner), Some(max)) = (owner, self.quota) else { return Ok(()) };
        let placed = self.machines.values().filter(|entry| entry.has_place);
        let owned = placed.filter(|entry| entry.summary.owner.as_deref() == Some(owner)).count();
        if owned >= max {
            return Err(MachineError::Quota { owner: owner.to_owned(), max });
        }
        Ok(())
    }

    pub(super) fn enter(&mut self, entry: Entry) {
        self.machines.insert(entry.summary.id, entry);
    }

    pub(super) fn remove(&mut self, id: MachineId) {
        self.machines.remove(&id);
    }

    fn entry(&self, id: MachineId) -> Result<&Entry, MachineError> {
        self.machines.get(&id).ok_or(MachineError::NotFound)
    }

    /// Machines somebody was told of: a machine that is still being made is nobody's to see but its maker's.
    fn lent(&self, id: MachineId) -> Result<&Entry, MachineError> {
        self.entry(id)
            .and_then(|it| if it.token.is_some() { Ok(it) } else { Err(MachineError::NotFound) })
    }

    /// Changes what is known of a machine, as long as it is there.
    pub(super) fn change(&mut self, id: MachineId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.machines.get_mut(&id) {
            change(entry);
        }
    }

    /// Moves a machine on. `false`: it cannot go there from where it is.
    pub(super) fn advance(&mut self, id: MachineId, event: Event) -> bool {
        let Some(entry) = self.machines.get_mut(&id) else { return false };
        match next(entry.summary.state, event) {
            Some(state) => {
                entry.summary.state = state;
                true
            }
            None => false,
        }
    }

    pub(super) fn check_token(&self, id: MachineId, token: &Secret) -> Result<(), MachineError> {
        let kept = self.lent(id)?.token.as_ref().ok_or(MachineError::NotFound)?;
        if kept.matches(token) { Ok(()) } else { Err(MachineError::WrongToken) }
    }

    /// Tells a machine to end; who holds what is returned sees when it has.
    pub(super) fn stop(
        &self,
        id: MachineId,
        why: Stop,
    ) -> Result<watch::Receiver<bool>, MachineError> {
        let entry = self.lent(id)?;
        entry.stop.send_if_modified(|stop| why.put(stop));
        Ok(entry.gone.clone())
    }

    /// As [`Register::stop`], for who alone may do it: a machine that ends already is none.
    pub(super) fn stop_first(
        &self,
        id: MachineId,
        why: Stop,
    ) -> Result<watch::Receiver<bool>, MachineError> {
        let entry = self.lent(id)?;
        if entry.stop.send_if_modified(|stop| why.put(stop)) {
            Ok(entry.gone.clone())
        } else {
            Err(MachineError::NotFound)
        }
    }

    pub(super) fn stop_unlent(&self, why: Stop) {
        for entry in self.machines.values().filter(|entry| entry.token.is_none()) {
            entry.stop.send_if_modified(|stop| why.put(stop));
        }
    }

    pub(super) fn stop_all(&self, why: Stop) {
        for entry in self.machines.values() {
            entry.stop.send_if_modified(|stop| why.put(stop));
        }
    }

    pub(super) fn commands(&self, id: MachineId) -> Result<mpsc::Sender<Command>, MachineError> {
        Ok(self.lent(id)?.commands.clone())
    }

    /// Those of a machine that may still be on its way.
    pub(super) fn commands_of_any(
        &self,
        id: MachineId,
    ) -> Result<mpsc::Sender<Command>, MachineError> {
        Ok(self.entry(id)?.commands.clone())
    }

    pub(super) fn desk(&self, id: MachineId) -> Result<Arc<Desk>, MachineError> {
        self.lent(id)?.desk.clone().ok_or(MachineError::NotFound)
    }

    pub(super) fn show(&self, id: MachineId) -> Result<Summary, MachineError> {
        self.entry(id).map(|entry| entry.summary.clone())
    }

    pub(super) fn list(&self, owner: Option<&str>) -> Vec<Summary> {
        let placed = self.machines.values().filter(|entry| entry.has_place);
        let mut list: Vec<Summary> = placed
            .map(|entry| &entry.summary)
            .filter(|it| owner.is_none() || it.owner.as_deref() == owner)
            .cloned()
            .collect();
        list.sort_by(|a, b| a.created_at.cmp(&b.created_at).then(a.id.cmp(&b.id)));
        list
    }

    /// A spare becomes somebody's.
    pub(super) fn give(&mut self, id: MachineId, given: Summary) -> Result<(), MachineError> {
        self.check_room(given.owner.as_deref())?;
        let entry = self.machines.get_mut(&id).ok_or(MachineError::NotFound)?;
        let state = next(entry.summary.state, Event::Unparked).ok_or(MachineError::NotFound)?;
        entry.summary = Summary { id, state, created_at: SystemTime::now(), ..given };
        entry.has_place = true;
        Ok(())
    }

    /// Whether a machine is in this state.
    pub(super) fn is(&self, id: MachineId, state: State) -> bool {
        self.machines.get(&id).is_some_and(|entry| entry.summary.state == state)
    }
}
