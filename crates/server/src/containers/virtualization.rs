//! What runs containers: how many and how large they may be, and those that there are.
//!
//! Invariant: a container that a handler makes is counted, told of and undone as one that CREATE makes. It stays only when
//! its client was answered with success.

use std::sync::{Arc, Weak};

use machines::{Lent, MachineError, MachineId, Machines, Order};
use wire::Secret;
use wire::container::Response;

use super::handlers::{self, Container, Shared};
use super::{creation, interfaces};
use crate::config::containers::{Machines as MachinesConfig, OnShutdown};
use crate::config::{Config, Overrides, Problems};
use crate::tcp::Client;
use crate::tcp::events::Teller;
use crate::tcp::verbs::{Answer, complaint, data, tell_failure};

/// What runs containers, and how many and how large they may be. That of a server
/// ([`ServerInterface::runtime_virtualization_interface`]) and its copies act on the server's containers while it runs;
/// they may be called from any thread, but not from asynchronous code where they wait.
///
/// [`ServerInterface::runtime_virtualization_interface`]: super::ServerInterface::runtime_virtualization_interface
#[derive(Debug, Clone)]
pub struct VirtualizationInterface {
    /// Limits, images, ports and QEMU, as section `[containers]` of the configuration has them. `state` and `iso` are
    /// overruled by what else the server is given, and there is no warm pool.
    pub machines: MachinesConfig,
    /// Handlers hold copies of this, and the server holds them.
    server: Weak<Shared>,
}

impl VirtualizationInterface {
    /// Every default of the configuration, but that containers are taken back when the server stops.
    ///
    /// # Errors
    /// When the defaults do not fit this machine.
    pub fn new() -> Result<Self, Problems> {
        let text = "[containers]\n";
        let config = Config::embedded("defaults", text, &Overrides::default(), &|_| None)?;
        let mut machines = config.containers.ok_or_else(Problems::default)?.machines;
        machines.images = interfaces::state_home().join("gatehouse/machines/images");
        machines.on_shutdown = OnShutdown::Stop;
        Ok(Self { machines, server: Weak::new() })
    }

    /// The same settings for `server` alone.
    pub(super) fn of(self, server: &Arc<Shared>) -> Self {
        Self { server: Arc::downgrade(server), ..self }
    }

    /// Makes a container for `client` as CREATE does: with a place of its own, events at each step, its credentials
    /// stored. Waits until it is there. It is undone when the client is not answered with success: it has gone, was
    /// closed or refused, or a handler panicked.
    ///
    /// # Errors
    /// When it cannot be had; when the session of `client` has ended; when the server does not run.
    pub fn create_container(&self, client: &Client, order: Order) -> Result<Lent, MachineError> {
        let (shared, asker) = (self.server()?, client.clone());
        let made = shared.clone().wait_for(async move {
            let ended = || MachineError::Ended("its client's session has ended".to_owned());
            let made = tokio::select! {
                biased;
                () = asker.ended() => Err(ended()),
                made = creation::create(&shared, order, asker.clone()) => made,
            };
            // Whatever a handler does with what it gets, an answer of success alone is what keeps the container.
            let made = made.and_then(|mut lent| {
                let is_in_time = asker.is_to_know(lent.handover.pass_on());
                if is_in_time { Ok(lent) } else { Err(ended()) }
            });
            if let Err(error) = &made {
                let teller = Teller::new(Some(handlers::listening(&shared)));
                tell_failure(&teller, &asker, error).await;
            }
            made
        });
        made.unwrap_or(Err(MachineError::Closing))
    }

    /// Takes a container back as DESTROY does, for `client` who must know its token, and tells of it.
    ///
    /// # Errors
    /// When there is no such container, the token is not its own, or the server does not run.
    pub fn destroy_container(
        &self,
        client: &Client,
        uuid: MachineId,
        client_token: &Secret,
    ) -> Result<(), MachineError> {
        let (shared, client, token) = (self.server()?, client.clone(), client_token.clone());
        let work = shared.clone().wait_for(async move {
            // Begun, it is brought to its end.
            creation::destroy(&shared, uuid, &token, client).await
        });
        work.unwrap_or(Err(MachineError::Closing))
    }

    /// Takes a container back for the program itself: no token is asked for, and no event told.
    ///
    /// # Errors
    /// When there is no such container, or the server does not run.
    pub fn stop_container(&self, uuid: MachineId) -> Result<(), MachineError> {
        let (shared, machines) = (self.server()?, self.running()?);
        let work = shared.wait_for(async move { machines.end(uuid).await });
        work.unwrap_or(Err(MachineError::Closing))
    }

    /// Containers that are there or being made, the oldest first; none while the server does not run.
    #[must_use]
    pub fn containers(&self) -> Vec<Container> {
        let Ok(machines) = self.running() else { return Vec::new() };
        let container = |it: machines::Summary| Container { uuid: it.id, summary: Some(it) };
        machines.list(None).into_iter().map(container).collect()
    }

    /// One of them.
    #[must_use]
    pub fn container(&self, uuid: MachineId) -> Option<Container> {
        let summary = self.running().ok()?.show(uuid).ok()?;
        Some(Container { uuid, summary: Some(summary) })
    }

    fn server(&self) -> Result<Arc<Shared>, MachineError> {
        self.server.upgrade().ok_or(MachineError::Closing)
    }

    fn running(&self) -> Result<Machines, MachineError> {
        self.server()?.machines().ok_or(MachineError::Closing)
    }
}

/// The documented answer to who asked for a container, and the text for one who cannot have it.
#[must_use]
pub fn created(client: &Client, made: Result<Lent, MachineError>) -> Response {
    answer(client, made.map(|lent| Answer::Lent(Box::new(lent))))
}

/// The documented answer to who gave a container back.
#[must_use]
pub fn destroyed(client: &Client, done: Result<(), MachineError>) -> Response {
    answer(client, done.map(|()| Answer::Destroyed))
}

fn answer(client: &Client, outcome: Result<Answer, MachineError>) -> Response {
    match outcome {
        Ok(answer) => Response::ok(data(&answer)),
        Err(error) => Response::refuse(&complaint(&error).0, client.generation()),
    }
}
