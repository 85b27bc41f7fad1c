//! What happens at the door, told to who embeds it: the twelve documented events.
//!
//! Invariant: a listener is waited for. What it is told of goes on when it has answered; when it has closed the client,
//! nothing goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use machines::MachineId;
use wire::container::{Errors, Request};

use super::{Client, Later};

/// Who is told of events.
pub type Listening = Arc<dyn Fn(Event) -> Later<()> + Send + Sync>;

/// What happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The door is open (`EVENT_STARTED`).
    Started,
    /// The door is closed (`EVENT_STOPPED`).
    Stopped,
    /// Somebody has connected; keys are not exchanged yet (`EVENT_CONNECTION`).
    Connection(Client),
    /// Keys are exchanged (`EVENT_CLIENT`).
    Client(Client),
    /// A request that keeps the rules is there (`EVENT_REQUEST`).
    Request {
        /// Whose.
        client: Client,
        /// Which.
        request: Request,
    },
    /// A request breaks a rule (`EVENT_MALFORMED_REQUEST`).
    MalformedRequest {
        /// Whose.
        client: Client,
        /// What is wrong with it.
        errors: Errors,
    },
    /// Nothing is known by the request's verb (`EVENT_UNKNOWN_VERB`).
    UnknownVerb(Client),
    /// The server failed (`EVENT_RUNTIME_ERROR`).
    RuntimeError {
        /// How.
        error: RuntimeError,
        /// For whom, where it was for somebody.
        client: Option<Client>,
    },
    /// A machine is being set up: its endpoint can be talked to (`EVENT_CREATED_ENDPOINT_SHELL`).
    EndpointShell {
        /// For whom.
        client: Client,
        /// Which machine.
        machine: MachineId,
    },
    /// A machine is lent (`EVENT_CREATED_CONTAINER`).
    Created {
        /// To whom.
        client: Client,
        /// Which.
        machine: MachineId,
    },
    /// A machine was given back (`EVENT_DESTROYED_CONTAINER`).
    Destroyed {
        /// By whom.
        client: Client,
        /// Which.
        machine: MachineId,
    },
    /// A client whose keys had been exchanged is gone (`EVENT_CLIENT_CLOSED`).
    ClientClosed(Client),
}

impl Event {
    /// The documented number.
    #[must_use]
    pub fn number(&self) -> u8 {
        match self {
            Self::Client(_) => 1,
            Self::ClientClosed(_) => 2,
            Self::Connection(_) => 3,
            Self::Created { .. } => 4,
            Self::EndpointShell { .. } => 5,
            Self::Destroyed { .. } => 6,
            Self::MalformedRequest { .. } => 7,
            Self::Request { .. } => 8,
            Self::RuntimeError { .. } => 9,
            Self::Started => 10,
            Self::Stopped => 11,
            Self::UnknownVerb(_) => 12,
        }
    }
}

/// A failure of the server's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeError {
    /// Where: the verb that was carried out.
    pub name: String,
    /// Of which kind.
    pub class: &'static str,
    /// What is known of it, for logs. Never for clients.
    pub trace: String,
}

/// Tells whoever listens, and counts failures.
#[derive(Clone, Default)]
pub struct Teller {
    listening: Option<Listening>,
    errors: Arc<AtomicU64>,
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teller").field("errors", &self.errors).finish_non_exhaustive()
    }
}

impl Teller {
    /// Tells `listening`, or nobody.
    #[must_use]
    pub fn new(listening: Option<Listening>) -> Self {
        Self { listening, errors: Arc::default() }
    }

    /// Tells of `event` and waits until the listener has answered.
    pub async fn tell(&self, event: Event) {
        if matches!(event, Event::RuntimeError { .. }) {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(listening) = &self.listening {
            listening(event).await;
        }
    }

    /// Logs and tells that something failed for `client`.
    pub async fn fail(&self, client: &Client, class: &'static str, trace: String) {
        let verb = client.request().map_or("request", |request| request.verb.as_str());
        tracing::error!(client = client.id(), "(client ID {}) {verb} failed: {trace}", client.id());
        let error = RuntimeError { name: verb.to_owned(), class, trace };
        self.tell(Event::RuntimeError { error, client: Some(client.clone()) }).await;
    }

    /// How many failures there were.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}
