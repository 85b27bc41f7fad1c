//! Who is told of events, and of what.
//!
//! Invariant: a handler runs on a thread that may block, and is waited for. One that panics closes the client that it
//! was told of: what it may have wanted to forbid does not happen. Handlers that clients cause never hold all threads:
//! what they wait for needs some too.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use machines::{MachineId, Machines, Summary};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wire::container::Errors;

use super::{EVENT_RUNTIME_ERROR, EVENT_UNKNOWN_VERB, EndpointShell};
use crate::tcp::{Client, Event, Later, Listening, RuntimeError};

/// Handlers of requests that run at a time, and as many of events; as many threads as both are left for what they wait for.
pub(super) const TURNS: usize = 128;
const EVENTS: usize = EVENT_UNKNOWN_VERB as usize;

/// What a handler is told: which event, and the documented arguments that this event has.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Occasion {
    /// Which event: one of `EVENT_…`.
    pub event: u8,
    /// `client_instance`, and `client_socket` where no keys are exchanged yet.
    pub client: Option<Client>,
    /// `container_instance`
    pub container: Option<Container>,
    /// `endpoint_shell_instance`
    pub endpoint_shell: Option<EndpointShell>,
    /// `cerberus_error_dict`
    pub errors: Option<Errors>,
    /// `name`, `ex_class` and `traceback`
    pub runtime_error: Option<RuntimeError>,
}

/// A container, as handlers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// By which clients name it.
    pub uuid: MachineId,
    /// What it is like, or was before it was destroyed; absent when it is not known.
    pub summary: Option<Summary>,
}

/// A number that is no event's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is the number of no event: they are EVENT_CLIENT (1) to EVENT_UNKNOWN_VERB (12)")]
pub struct NoSuchEvent(pub u8);

type Routine = Arc<dyn Fn(&Occasion) + Send + Sync>;

/// What all parts of an embedded server share.
pub(super) struct Shared {
    routines: RwLock<[Option<Routine>; EVENTS]>,
    machines: Slot,
    /// While the server runs.
    runtime: RwLock<Option<Handle>>,
    errors: AtomicU64,
    request_turns: Arc<Semaphore>,
    event_turns: Arc<Semaphore>,
    threads_max: usize,
}

/// The machines, while the server runs.
pub(super) type Slot = Arc<RwLock<Option<Machines>>>;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("errors", &self.errors).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(machines: Slot, turns: usize) -> Self {
        Self {
            routines: RwLock::default(),
            machines,
            runtime: RwLock::default(),
            errors: AtomicU64::default(),
            request_turns: Arc::new(Semaphore::new(turns)),
            event_turns: Arc::new(Semaphore::new(turns)),
            threads_max: 4 * turns,
        }
    }

    pub(super) fn set(&self, event: u8, routine: Routine) -> Result<(), NoSuchEvent> {
        let index = usize::from(event).checked_sub(1);
        let mut routines = self.routines.write().unwrap_or_else(PoisonError::into_inner);
        let place = index.and_then(|index| routines.get_mut(index));
        *place.ok_or(NoSuchEvent(event))? = Some(routine);
        Ok(())
    }

    pub(super) fn get(&self, event: u8) -> Option<Routine> {
        let index = usize::from(event).checked_sub(1)?;
        let routines = self.routines.read().unwrap_or_else(PoisonError::into_inner);
        routines.get(index)?.clone()
    }

    pub(super) fn machines(&self) -> Option<Machines> {
        self.machines.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Must be called on a thread of the server's runtime.
    pub(super) fn put_machines(&self, machines: Option<Machines>) {
        let runtime = machines.as_ref().map(|_| Handle::current());
        *self.runtime.write().unwrap_or_else(PoisonError::into_inner) = runtime;
        *self.machines.write().unwrap_or_else(PoisonError::into_inner) = machines;
    }

    /// Does `work` on the server's runtime while this thread waits; nothing where the server does not run, or ends first.
    /// A panic of it goes on here.
    pub(super) fn wait_for<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let runtime = self.runtime.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        match runtime.block_on(runtime.spawn(work)) {
            Ok(done) => Some(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => None,
            },
        }
    }

    /// For handlers of requests, each of which holds a thread.
    pub(super) fn request_turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.request_turns)
    }

    /// Threads for what blocks.
    pub(super) fn threads_max(&self) -> usize {
        self.threads_max
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    pub(super) fn forget_errors(&self) {
        self.errors.store(0, Ordering::Relaxed);
    }

    /// Tells whoever wants to know, and waits for the end of it.
    pub(super) async fn tell(&self, occasion: Occasion) {
        if occasion.event == EVENT_RUNTIME_ERROR {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        let (event, client) = (occasion.event, occasion.client.clone());
        let Some(routine) = self.get(event) else { return };
        let Err(trace) = run(move || routine(&occasion)).await else { return };
        tracing::error!(event, "the handler of an event panicked: {trace}");
        if let Some(client) = &client {
            client.close();
        }
        self.errors.fetch_add(1, Ordering::Relaxed);
        let Some(routine) = self.get(EVENT_RUNTIME_ERROR).filter(|_| event != EVENT_RUNTIME_ERROR)
        else {
            return;
        };
        let error = RuntimeError { name: format!("event {event}"), class: "Panic", trace };
        let runtime_error = Some(error);
        let failed =
            Occasion { event: EVENT_RUNTIME_ERROR, client, runtime_error, ..Occasion::default() };
        // Its own panic has nobody left to be told of.
        let _ = run(move || routine(&failed)).await;
    }
}

/// What the door tells, as handlers know it.
pub(super) fn listening_in_turn(shared: &Arc<Shared>) -> Listening {
    let (shared, at_once) = (Arc::clone(shared), listening(shared));
    Arc::new(move |event| -> Later<()> {
        let has_routine = shared.get(event.number()).is_some();
        let told = at_once(event);
        if !has_routine {
            return told;
        }
        let turns = Arc::clone(&shared.event_turns);
        Box::pin(async move {
            // Nobody closes it.
            let _turn = turns.acquire().await;
            told.await;
        })
    })
}

/// The same for what is done while a handler waits. What is told elsewhere with more to say is passed over.
pub(super) fn listening(shared: &Arc<Shared>) -> Listening {
    let shared = Arc::clone(shared);
    Arc::new(move |event| -> Later<()> {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            if let Some(occasion) = occasion(event) {
                shared.tell(occasion).await;
            }
        })
    })
}

fn occasion(event: Event) -> Option<Occasion> {
    let base = Occasion { event: event.number(), ..Occasion::default() };
    Some(match event {
        // `running` and `creation` tell of these.
        Event::Stopped
        | Event::EndpointShell { .. }
        | Event::Created { .. }
        | Event::Destroyed { .. } => return None,
        Event::Started => base,
        Event::Connection(client)
        | Event::Client(client)
        | Event::ClientClosed(client)
        | Event::UnknownVerb(client)
        | Event::Request { client, .. } => Occasion { client: Some(client), ..base },
        Event::MalformedRequest { client, errors } => {
            Occasion { client: Some(client), errors: Some(errors), ..base }
        }
        Event::RuntimeError { error, client } => {
            Occasion { client, runtime_error: Some(error), ..base }
        }
    })
}

thread_local! {
    static IS_HANDLER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs a handler: waiting for the server here would wait for itself.
pub(super) fn is_handler() -> bool {
    IS_HANDLER.get()
}

struct Mark;

impl Drop for Mark {
    fn drop(&mut self) {
        IS_HANDLER.set(false);
    }
}

/// Runs a closure of the embedding program. An error tells of its panic.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let work = tokio::task::spawn_blocking(move || {
        IS_HANDLER.set(true);
        let _mark = Mark;
        work()
    });
    work.await.map_err(|error| error.to_string())
}
