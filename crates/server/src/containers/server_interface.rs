//! The server as an embedding program has it: made, given handlers, started, stopped.
//!
//! Invariant: at most one run at a time; dropped, it is stopped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wire::container::{Errors, KeyError};

use super::handlers::{self, Container, NoSuchEvent, Occasion, Shared};
use super::running::{Plan, Run};
use super::{
    DEFAULT_CLIENT_TIMEOUT, DEFAULT_SERVER_BIND_ADDRESS, DEFAULT_SERVER_LISTEN_PORT,
    DatabaseInterface, EndpointShell, RsaWrapper, RuntimeStatistics, StartError,
    VirtualizationInterface, creation,
};
use crate::config::Problems;
use crate::tcp::{Client, RuntimeError, Verbs};

/// What a server is made of; what is absent it makes itself.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// The ISO file that containers boot from; the image `small` where absent.
    pub container_iso_path: Option<PathBuf>,
    /// Where the server and its containers' ports listen; empty is all addresses of IPv4.
    pub bind_address: String,
    /// The server's port; 0 takes a free one, which [`ServerInterface::address`] tells.
    pub listen_port: u16,
    /// Until a client's request must be whole, and again until its answer must have been taken; `None` is without end.
    pub client_timeout: Option<Duration>,
    /// What runs containers.
    pub runtime_virtualization_interface: Option<VirtualizationInterface>,
    /// Where it is kept what is known of them.
    pub runtime_database_interface: Option<DatabaseInterface>,
    /// The server's keys.
    pub runtime_rsa_wrapper: Option<RsaWrapper>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            container_iso_path: None,
            bind_address: DEFAULT_SERVER_BIND_ADDRESS.to_owned(),
            listen_port: DEFAULT_SERVER_LISTEN_PORT,
            client_timeout: Some(Duration::from_secs(DEFAULT_CLIENT_TIMEOUT)),
            runtime_virtualization_interface: None,
            runtime_database_interface: None,
            runtime_rsa_wrapper: None,
        }
    }
}

/// Why a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// No keys can be made.
    #[error("new RSA keys: {0}")]
    Keys(#[from] KeyError),
    /// The defaults do not fit this machine.
    #[error("{0}")]
    Defaults(#[from] Problems),
}

/// A server of containers. Its methods may be called from any thread, but not from asynchronous code where they wait.
#[derive(Debug)]
pub struct ServerInterface {
    pub(super) plan: Plan,
    run: Mutex<Option<Run>>,
}

/// Set up.
impl ServerInterface {
    /// A server that does not run yet. Takes up to some seconds where keys must be made.
    ///
    /// # Errors
    /// When something that it was not given cannot be made.
    pub fn new(parameters: Parameters) -> Result<Self, MakeError> {
        Self::with_turns(parameters, handlers::TURNS)
    }

    pub(super) fn with_turns(parameters: Parameters, turns: usize) -> Result<Self, MakeError> {
        let database = parameters.runtime_database_interface.unwrap_or_default();
        let virtualization = match parameters.runtime_virtualization_interface {
            Some(given) => given,
            None => VirtualizationInterface::new()?,
        };
        let rsa = match parameters.runtime_rsa_wrapper {
            Some(given) => given,
            None => RsaWrapper::new()?,
        };
        let shared = Arc::new(Shared::new(database.slot(), turns));
        let plan = Plan {
            iso: parameters.container_iso_path,
            bind_address: parameters.bind_address,
            listen_port: parameters.listen_port,
            client_timeout: parameters.client_timeout,
            virtualization: virtualization.of(&shared),
            database,
            rsa,
            verbs: Verbs::builtin(&creation::act(&shared)),
            shared,
            heeds_signals: false,
        };
        Ok(Self { plan, run: Mutex::default() })
    }

    /// What runs its containers, to copy into handlers that make or destroy some.
    #[must_use]
    pub fn runtime_virtualization_interface(&self) -> &VirtualizationInterface {
        &self.plan.virtualization
    }

    /// What is known of its containers.
    #[must_use]
    pub fn runtime_database_interface(&self) -> &DatabaseInterface {
        &self.plan.database
    }

    /// Its keys.
    #[must_use]
    pub fn runtime_rsa_wrapper(&self) -> &RsaWrapper {
        &self.plan.rsa
    }

    /// Lets `routine` be told of an event, one of `EVENT_…`, in the place of who was told before.
    ///
    /// # Errors
    /// For any other number.
    pub fn set_event_handler<F>(&self, event: u8, routine: F) -> Result<(), NoSuchEvent>
    where
        F: Fn(&Occasion) + Send + Sync + 'static,
    {
        self.plan.shared.set(event, Arc::new(routine))
    }
}

/// Start and stop.
impl ServerInterface {
    /// Starts it. Asynchronously, this returns as soon as clients are served; else when the server was stopped, which
    /// signals that end a program (`SIGINT`, `SIGTERM`) do then.
    ///
    /// # Errors
    /// When it runs already, or its port or what runs its containers cannot be used.
    pub fn start(&self, asynchronous: bool) -> Result<(), StartError> {
        let over = {
            let mut run = self.run();
            if run.as_ref().is_some_and(|run| !run.is_over()) {
                return Err(StartError::IsRunning);
            }
            self.plan.shared.forget_errors();
            let plan = Plan { heeds_signals: !asynchronous, ..self.plan.clone() };
            run.insert(Run::begin(plan)?).over()
        };
        if !asynchronous {
            over.wait();
        }
        Ok(())
    }

    /// Stops it and its containers, and waits until that is done; in a handler of its own it is only told to stop. What
    /// does not run is left alone.
    pub fn stop(&self) {
        let over = match self.run().as_ref() {
            Some(run) => {
                run.stop();
                run.over()
            }
            None => return,
        };
        if !handlers::is_handler() {
            over.wait();
        }
    }

    /// Stops and starts it; with port 0 it may have another port then.
    ///
    /// # Errors
    /// As for [`ServerInterface::start`]; and in a handler of its own, where it cannot have stopped yet.
    pub fn restart(&self, asynchronous: bool) -> Result<(), StartError> {
        self.stop();
        self.start(asynchronous)
    }

    /// How it is.
    #[must_use]
    pub fn runtime_statistics(&self) -> RuntimeStatistics {
        let run = self.run();
        let running = run.as_ref().filter(|run| !run.is_over());
        let available = self.plan.shared.machines().map_or(0, |machines| machines.stat().available);
        RuntimeStatistics {
            is_running: running.is_some(),
            recorded_runtime_errors_amount: self.plan.shared.errors(),
            uptime: running.map_or(0, |run| run.since.elapsed().as_secs()),
            available_containers_amount: u64::try_from(available).unwrap_or(u64::MAX),
        }
    }

    /// Where it listens, while it runs.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.run().as_ref().filter(|run| !run.is_over()).and_then(|run| run.address)
    }

    fn run(&self) -> MutexGuard<'_, Option<Run>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServerInterface {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One method for each event: `routine` is told of it, in the place of who was told before.
impl ServerInterface {
    /// Keys are exchanged with a client.
    pub fn on_client(&self, routine: impl Fn(&Client) + Send + Sync + 'static) {
        self.of_client(super::EVENT_CLIENT, routine);
    }

    /// A client with whom keys had been exchanged is gone.
    pub fn on_client_closed(&self, routine: impl Fn(&Client) + Send + Sync + 'static) {
        self.of_client(super::EVENT_CLIENT_CLOSED, routine);
    }

    /// Somebody has connected, before keys are exchanged: an address, and a connection that can be closed.
    pub fn on_connection(&self, routine: impl Fn(&Client) + Send + Sync + 'static) {
        self.of_client(super::EVENT_CONNECTION, routine);
    }

    /// A container runs whose user is not made yet. A handler that closes the client has it undone.
    pub fn on_created_container(
        &self,
        routine: impl Fn(&Client, &Container) + Send + Sync + 'static,
    ) {
        self.of_container(super::EVENT_CREATED_CONTAINER, routine);
    }

    /// A shell is open on a container whose user is not made yet. Closing it ends the session.
    pub fn on_created_endpoint_shell(
        &self,
        routine: impl Fn(&EndpointShell, &Container, &Client) + Send + Sync + 'static,
    ) {
        self.set(super::EVENT_CREATED_ENDPOINT_SHELL, move |it| {
            if let Occasion {
                endpoint_shell: Some(shell),
                container: Some(container),
                client: Some(client),
                ..
            } = it
            {
                routine(shell, container, client);
            }
        });
    }

    /// A client has given its container back.
    pub fn on_destroyed_container(
        &self,
        routine: impl Fn(&Client, &Container) + Send + Sync + 'static,
    ) {
        self.of_container(super::EVENT_DESTROYED_CONTAINER, routine);
    }

    /// A request breaks a rule.
    pub fn on_malformed_request(&self, routine: impl Fn(&Client, &Errors) + Send + Sync + 'static) {
        self.set(super::EVENT_MALFORMED_REQUEST, move |it| {
            if let (Some(client), Some(errors)) = (&it.client, &it.errors) {
                routine(client, errors);
            }
        });
    }

    /// A request that keeps the rules is there: [`Client::request`].
    pub fn on_request(&self, routine: impl Fn(&Client) + Send + Sync + 'static) {
        self.of_client(super::EVENT_REQUEST, routine);
    }

    /// The server, or a handler, failed; for a client or for none.
    pub fn on_runtime_error(
        &self,
        routine: impl Fn(&RuntimeError, Option<&Client>) + Send + Sync + 'static,
    ) {
        self.set(super::EVENT_RUNTIME_ERROR, move |it| {
            if let Some(error) = &it.runtime_error {
                routine(error, it.client.as_ref());
            }
        });
    }

    /// Clients are served from now on.
    pub fn on_started(&self, routine: impl Fn() + Send + Sync + 'static) {
        self.set(super::EVENT_STARTED, move |_| routine());
    }

    /// The server has stopped.
    pub fn on_stopped(&self, routine: impl Fn() + Send + Sync + 'static) {
        self.set(super::EVENT_STOPPED, move |_| routine());
    }

    /// Nothing is known by the verb of a request.
    pub fn on_unknown_verb(&self, routine: impl Fn(&Client) + Send + Sync + 'static) {
        self.of_client(super::EVENT_UNKNOWN_VERB, routine);
    }

    fn of_client(&self, event: u8, routine: impl Fn(&Client) + Send + Sync + 'static) {
        self.set(event, move |it| {
            if let Some(client) = &it.client {
                routine(client);
            }
        });
    }

    fn of_container(
        &self,
        event: u8,
        routine: impl Fn(&Client, &Container) + Send + Sync + 'static,
    ) {
        self.set(event, move |it| {
            if let (Some(client), Some(container)) = (&it.client, &it.container) {
                routine(client, container);
            }
        });
    }

    fn set(&self, event: u8, routine: impl Fn(&Occasion) + Send + Sync + 'static) {
        let known = self.set_event_handler(event, routine);
        debug_assert_eq!(known, Ok(()), "a documented event");
    }
}
