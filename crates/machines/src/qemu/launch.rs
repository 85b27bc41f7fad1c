//! Starts a QEMU in a folder and takes its monitor over.
//!
//! Invariant: whoever leaves before [`Running::process`] is kept leaves no process behind.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::cgroup::Group;
use super::command::{self, MONITOR_SOCKET, Plan};
use super::process::{Launch, Process, User};
use super::qmp::Qmp;
use crate::hypervisor::HypervisorError;

/// How long QEMU may take until its monitor answers; it takes some hundredths of a second.
const MONITOR_LIMIT: Duration = Duration::from_secs(20);
/// How long is waited for the end of a process whose monitor has gone.
const END_LIMIT: Duration = Duration::from_secs(2);

/// A folder that is held open, so that sockets in it can be reached by names that are short enough.
#[derive(Debug)]
pub(super) struct Folder {
    open: File,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self, HypervisorError> {
        let open = File::open(path).map_err(|source| failed("opening", path, source))?;
        Ok(Self { open })
    }

    /// The path of a socket in it, as long as this lives: at most 107 bytes fit into a socket's address.
    pub(super) fn socket(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.open.as_raw_fd()))
    }
}

/// A QEMU whose monitor answers.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) qmp: Qmp,
    pub(super) folder: Folder,
    /// What it may use of the host.
    pub(super) group: Group,
}

impl Running {
    /// Starts what is planned.
    pub(super) async fn start(
        plan: &Plan<'_>,
        user: Option<User>,
    ) -> Result<Self, HypervisorError> {
        let folder = Folder::open(plan.directory)?;
        let monitor = folder.socket(MONITOR_SOCKET);
        // Left by an attempt to start the same machine in another way.
        let _ = std::fs::remove_file(&monitor);
        let listener = UnixListener::bind(&monitor).map_err(|source| {
            failed("listening on", &plan.directory.join(MONITOR_SOCKET), source)
        })?;
        if let Some(user) = user {
            chown(plan.directory, Some(user.uid), Some(user.gid))
                .map_err(|source| failed("giving away", plan.directory, source))?;
        }
        let arguments = command::arguments(plan);
        let launch = Launch {
            program: &plan.program.path,
            arguments: &arguments,
            directory: plan.directory,
            user,
        };
        let mut process = Process::start(launch, Some(listener.into()))
            .map_err(|error| HypervisorError::Start(error.to_string()))?;
        let connected = tokio::select! {
            // An early end says more than the connection that breaks because of it.
            biased;
            said = process.ended() => return Err(HypervisorError::Start(said)),
            connected = timeout(MONITOR_LIMIT, Qmp::connect(&monitor)) => connected,
        };
        match connected {
            Ok(Ok(qmp)) => Ok(Self { process, qmp, folder, group: Group::default() }),
            Ok(Err(error)) => Err(process_failed(&mut process, &error).await),
            Err(_) => {
                let error =
                    io::Error::new(io::ErrorKind::TimedOut, "QEMU's monitor did not answer");
                Err(process_failed(&mut process, &error).await)
            }
        }
    }

    /// What went wrong when a command failed: the process' last words where it has ended, else the command's error.
    pub(super) async fn failed(&mut self, error: &io::Error) -> HypervisorError {
        process_failed(&mut self.process, error).await
    }
}

/// The process is gone afterwards, so that another can be started in its folder.
async fn process_failed(process: &mut Process, error: &io::Error) -> HypervisorError {
    if error.kind() == io::ErrorKind::BrokenPipe
        && let Ok(said) = timeout(END_LIMIT, process.ended()).await
    {
        return HypervisorError::Start(said);
    }
    process.handle().kill();
    process.ended().await;
    HypervisorError::Start(error.to_string())
}

/// An error of a file.
pub(super) fn failed(doing: &str, path: &Path, source: io::Error) -> HypervisorError {
    HypervisorError::Io { what: format!("{doing} {}", path.display()), source }
}
