//! The shell on a container that is being set up, for plain programs.
//!
//! Invariant: it is one shell, however often it is copied. Who closes it ends the session of the client.

use std::sync::{Arc, Mutex, PoisonError};

use machines::guest::GuestError;
use machines::guest::shell::{Bounds, Output, Shell};
use tokio::runtime::Handle;

/// A login as the endpoint user of a container. Copies are the same.
#[derive(Debug, Clone)]
pub struct EndpointShell {
    shell: Arc<Mutex<Option<Arc<Shell>>>>,
    runtime: Handle,
    host_key_fingerprint: String,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The shell is closed, or the set-up has gone on.
    #[error("the endpoint's shell is closed")]
    Closed,
    /// The guest does not do as it should.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

impl EndpointShell {
    /// Must be called on a thread of the server's runtime.
    pub(super) fn new(shell: Shell) -> Self {
        let host_key_fingerprint = shell.host_key_fingerprint().to_owned();
        let shell = Arc::new(Mutex::new(Some(Arc::new(shell))));
        Self { shell, runtime: Handle::current(), host_key_fingerprint }
    }

    /// `SHA256:…` of the container's SSH host key.
    #[must_use]
    pub fn host_key_fingerprint(&self) -> &str {
        &self.host_key_fingerprint
    }

    /// Runs `command` by the shell of the endpoint user and waits for its end. Must not be called from asynchronous code.
    ///
    /// # Errors
    /// When the shell is closed, or the command breaks one of `bounds`' limits of time.
    pub fn run(&self, command: &str, bounds: Bounds) -> Result<Output, ShellError> {
        let shell = self.get().ok_or(ShellError::Closed)?;
        Ok(self.runtime.block_on(shell.run(command, bounds))?)
    }

    /// Closes it, which ends the session of the client: its container is undone.
    pub fn close(&self) {
        drop(self.take());
    }

    /// Whether it is closed, or the connection to the container is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.get().is_none_or(|shell| shell.is_closed())
    }

    /// The shell itself, to go on with; `None` when it is closed or still used.
    pub(super) fn take_back(&self) -> Option<Shell> {
        Arc::try_unwrap(self.take()?).ok().filter(|shell| !shell.is_closed())
    }

    fn get(&self) -> Option<Arc<Shell>> {
        self.shell.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self) -> Option<Arc<Shell>> {
        self.shell.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
