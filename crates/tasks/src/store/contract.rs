//! What every store must do, checked against a real one.

use std::sync::Arc;

use super::{SharedStore, Then};

/// A store that can be closed and opened again.
pub(crate) struct Restarting {
    pub(crate) store: SharedStore,
}

impl Restarting {
    /// One that keeps nothing over a new start.
    pub(crate) fn never(store: SharedStore) -> Self {
        Self { store }
    }
}

/// Waits for a change.
fn done<T: Send + 'static>(change: impl FnOnce(Then<T>)) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    change(Box::new(move |outcome| tell.send(outcome).unwrap()));
    told.recv().unwrap().unwrap()
}

/// All of it.
pub(crate) fn all(restarting: &mut Restarting) {
    events_are_numbered_in_order(&restarting.store);
}

fn events_are_numbered_in_order(store: &SharedStore) {
    let agent = crate::task::AgentId(1);
    let add = |body: &'static str| done(|then| store.add_event(agent, 5, body.into(), then));
    let ids = [add("1"), add("2"), add("3")];
    assert!(ids.is_sorted());
    let query = super::EventQuery { agent: Some(agent), after: ids[0], limit: 10, newest: false };
    let found: Vec<_> = store.events(&query).unwrap().into_iter().map(|event| event.id).collect();
    assert_eq!(found, ids[1..]);
    let _ = Arc::clone(store);
}
