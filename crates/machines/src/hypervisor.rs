//! The seam to what runs virtual machines. Every backend keeps the same promises.
//!
//! Invariant: a virtual machine whose handle is gone still runs; only [`Vm::kill`], the guest itself or a fault ends it.
//! Not here: users, ports and lifetimes, which the manager gives and takes.

#[cfg(test)]
pub(crate) mod contract;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use wire::Secret;

use crate::image::Image;
use crate::machine::MachineId;

/// Something that will be there later; the seam is used behind `dyn`.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection to a port of a guest.
pub trait GuestStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> GuestStream for T {}

/// A virtual machine that is to run.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Its name.
    pub id: MachineId,
    /// A folder of its own: exists, is empty, is removed by the caller when the machine has ended.
    pub directory: PathBuf,
    /// What it is started from.
    pub image: Arc<Image>,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Processors.
    pub vcpus: u32,
}

/// How a machine came to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// As a clone of a snapshot: its identity is its siblings' until it is refreshed.
    Snapshot,
    /// By booting, because of this.
    Cold {
        /// Why not by snapshot.
        because: String,
    },
}

/// Why a virtual machine has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// By [`Vm::kill`].
    Killed,
    /// The guest powered itself off.
    PoweredOff,
    /// The guest asked for a reset, which ends it: its default password would be open again.
    Reset,
    /// The guest's kernel gave up.
    Panicked,
    /// The process went away, with what is known of it.
    Died(String),
}

/// Why a virtual machine could not be had.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// The program that runs them is missing or too old.
    #[error("{0}")]
    Unusable(String),
    /// It did not start.
    #[error("the virtual machine did not start: {0}")]
    Start(String),
    /// It started and was not ready in time.
    #[error("the guest was not ready within {secs} seconds: {last}")]
    NotReady {
        /// How long was waited.
        secs: u64,
        /// What was seen last.
        last: String,
    },
    /// A file or a socket failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done, and to which path.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// A machine whose guest answers, and how it came to run.
pub type Started = (Arc<dyn Vm>, Start);

/// What runs virtual machines.
pub trait Hypervisor: fmt::Debug + Send + Sync {
    /// What it is, for people: program, version, accelerator.
    fn describe(&self) -> String;

    /// Starts a machine and waits until its guest answers: the agent of an image that has one, else the SSH server's
    /// greeting. Dropped while it waits, it leaves no process behind.
    fn start(&self, boot: Boot) -> Later<'_, Result<Started, HypervisorError>>;

    /// Finds a machine that was started by an earlier server; `None` where it does not run any more.
    fn adopt(&self, boot: Boot) -> Later<'_, Result<Option<Arc<dyn Vm>>, HypervisorError>>;

    /// Ends what earlier servers left running for folders in `running` other than those named `keep`. Returns how many
    /// processes it ended.
    fn sweep(&self, running: PathBuf, keep: Vec<MachineId>) -> Later<'_, usize>;
}

/// A virtual machine that runs.
pub trait Vm: fmt::Debug + Send + Sync {
    /// Connects to a TCP port of the guest. Limited to some seconds.
    fn connect(&self, port: u16) -> Later<'_, io::Result<Box<dyn GuestStream>>>;

    /// Asks the guest's agent; its answer without `ok`. An error for `error …`, and where there is no agent.
    fn ask_agent(&self, request: Secret) -> Later<'_, io::Result<String>>;

    /// Stops its processors; what it has stays.
    fn pause(&self) -> Later<'_, io::Result<()>>;

    /// Lets its processors go on.
    fn resume(&self) -> Later<'_, io::Result<()>>;

    /// Ends it at once and waits until its process is gone.
    fn kill(&self) -> Later<'_, ()>;

    /// Tells how it ended, once it has.
    fn ended(&self) -> watch::Receiver<Option<Ending>>;

    /// The last of what the guest printed on its console, at most `bytes_max`.
    fn console(&self, bytes_max: usize) -> Later<'_, io::Result<Vec<u8>>>;
}
