//! Runs virtual machines with QEMU, which is driven directly: a process and a monitor socket per machine.
//!
//! Invariant: a machine's files lie in its own folder and its process is known by that folder, so that every process is
//! found again after the server was killed at any moment. A machine is a clone of a snapshot where its identity can be
//! made its own, and boots otherwise, for a reason that is told.
//!
//! Not here: who gets a machine, for how long, and what is done in it.

mod accelerator;
mod agent_socket;
mod cgroup;
mod command;
mod iso9660;
mod launch;
mod orphans;
mod overlay;
mod process;
mod program;
mod qmp;
mod seed;
mod snapshot;
mod starting;
mod template;
#[cfg(test)]
mod tests;
mod vm;

#[cfg(fuzzing)]
pub use qmp::fuzz as fuzz_monitor;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

pub use self::accelerator::{Accelerator, Wanted};
use self::agent_socket::AgentSocket;
use self::cgroup::Group;
use self::command::{AGENT_SOCKET, MONITOR_SOCKET};
use self::launch::{Folder, Running};
pub use self::process::User;
use self::process::{Handle, Process};
use self::program::Program;
use self::qmp::Qmp;
use self::snapshot::Snapshots;
use self::vm::QemuVm;
use crate::guest::ssh::{self, Login};
use crate::hypervisor::{Boot, Hypervisor, HypervisorError, Later, Start, Started, Vm};
use crate::image::Image;
use crate::machine::MachineId;
pub use crate::network::NetworkPolicy;

/// How long the monitor of a machine that an earlier server left may take to answer.
const ADOPT_LIMIT: Duration = Duration::from_secs(5);

/// How QEMU is used.
#[derive(Debug, Clone)]
pub struct QemuSettings {
    /// The program: a path, or a name that is looked for in `PATH`.
    pub program: PathBuf,
    /// How guests' code is run.
    pub accelerator: Wanted,
    /// Whom QEMU runs as; as the server where absent. Must be able to read the images and to pass through the folders
    /// above the machines' folders.
    pub user: Option<User>,
    /// Where snapshots are kept: some 100 MB each. May be in memory.
    pub snapshots: PathBuf,
    /// The most of them, of all images and sizes of machines together: two at least.
    pub snapshots_max: usize,
    /// What guests may reach.
    pub network: Arc<NetworkPolicy>,
    /// Whether machines are started from snapshots where that is safe.
    pub snapshot: bool,
    /// Whether also those whose images have no agent of ours: their clones share keys and random numbers.
    pub snapshot_foreign: bool,
    /// Whether a machine's use of the host is limited by control groups, as far as the server may make them.
    pub limits: bool,
    /// With those limits: the most that a machine may use of processors, in hundredths of one; as many as it has where
    /// absent.
    pub cpu_percent_max: Option<u32>,
    /// The least size of the disk of a machine whose image is one, in MiB; 0 for that of the image.
    pub disk_mb: u32,
    /// The most that such a machine reads and writes of it, both together; 0 for no limit.
    pub disk_bytes_per_second: u64,
    /// The most readings and writings; 0 for no limit.
    pub disk_operations_per_second: u64,
    /// The user by which guests without an agent of ours are set up, and where their SSH server listens until then.
    pub endpoint: Login,
    /// How long a guest may take to boot.
    pub ready_within: Duration,
}

/// Runs virtual machines with QEMU.
#[derive(Debug)]
pub struct Qemu {
    settings: QemuSettings,
    program: Program,
    accelerator: Accelerator,
    snapshots: Snapshots,
}

impl Qemu {
    /// Looks at the installed QEMU, finds out which accelerator works, and ends what was left of making snapshots.
    ///
    /// # Errors
    /// When QEMU is missing or too old, when KVM is wanted and does not work, or when the folder cannot be used.
    pub async fn open(settings: QemuSettings) -> Result<Self, HypervisorError> {
        let program = Program::find(&settings.program).await?;
        if let Ok(left) = orphans::find(&settings.snapshots, settings.user) {
            for orphan in left {
                end(&orphan.handle).await;
            }
        }
        let snapshots = Snapshots::open(
            settings.snapshots.clone(),
            program.knows_rom(),
            settings.snapshots_max,
        )?;
        let accelerator = choose(&settings, &program, snapshots.folder()).await?;
        Ok(Self { settings, program, accelerator, snapshots })
    }

    /// Makes the snapshot that the usual machine is started from, so that the first need not wait for it. It is kept
    /// whatever other machines are asked for.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub async fn prepare(&self, image: &Image, memory_mb: u32, vcpus: u32) -> Result<(), String> {
        if let Ok(recipe) = self.recipe(image, memory_mb, vcpus) {
            self.snapshots.spare(&recipe);
        }
        self.template(image, memory_mb, vcpus).await.map(drop)
    }

    async fn adopted(&self, boot: &Boot) -> Result<Option<Arc<dyn Vm>>, HypervisorError> {
        let parent = boot.directory.parent().unwrap_or(Path::new("/"));
        let found = orphans::find(parent, self.settings.user)
            .map_err(|e| launch::failed("reading", Path::new("/proc"), e))?;
        let Some(orphan) = found.into_iter().find(|orphan| orphan.folder == boot.directory) else {
            return Ok(None);
        };
        let guard = Guard::of(&orphan.handle);
        let folder = Folder::open(&boot.directory)?;
        let connect = async {
            let qmp = Qmp::connect(&folder.socket(MONITOR_SOCKET)).await?;
            let status = qmp.ask("query-status", Value::Null).await?;
            let network = self.attach(&folder, &qmp).await?;
            std::io::Result::Ok((
                qmp,
                network,
                status["status"].as_str().unwrap_or_default().to_owned(),
            ))
        };
        let why = match timeout(ADOPT_LIMIT, connect).await {
            Ok(Ok((qmp, network, status))) if matches!(status.as_str(), "running" | "paused") => {
                guard.disarm();
                let agent =
                    boot.image.has_agent.then(|| AgentSocket::used(folder.socket(AGENT_SOCKET)));
                let running = Running {
                    process: Process::adopted(orphan.handle),
                    qmp,
                    folder,
                    group: Group::of(&format!("gatehouse-{}", boot.id)),
                };
                return Ok(Some(Arc::new(QemuVm::new(running, network, agent, ssh::PORT))));
            }
            Ok(Ok((.., status))) => format!("it is in the state {status}"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its monitor does not answer".to_owned(),
        };
        tracing::warn!(machine = %boot.id, why, "a machine of an earlier server cannot be taken over and is ended");
        end(&orphan.handle).await;
        Ok(None)
    }
}

impl Hypervisor for Qemu {
    fn describe(&self) -> String {
        let how = match self.accelerator {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "software emulation",
        };
        format!("{}, {how}", self.program.version_text)
    }

    fn start(&self, boot: Boot) -> Later<'_, Result<Started, HypervisorError>> {
        Box::pin(async move {
            let (vm, guard, start) = match self.cloned(&boot).await {
                Ok((vm, guard)) => (vm, guard, Start::Snapshot),
                Err(because) => {
                    tracing::info!(machine = %boot.id, because, "a machine boots");
                    let (vm, guard) = self.booted(&boot).await?;
                    (vm, guard, Start::Cold { because })
                }
            };
            guard.disarm();
            Ok((Arc::new(vm) as Arc<dyn Vm>, start))
        })
    }

    fn adopt(&self, boot: Boot) -> Later<'_, Result<Option<Arc<dyn Vm>>, HypervisorError>> {
        Box::pin(async move { self.adopted(&boot).await })
    }

    fn sweep(&self, running: PathBuf, keep: Vec<MachineId>) -> Later<'_, usize> {
        Box::pin(async move {
            let keep: Vec<PathBuf> = keep.iter().map(|id| running.join(id.to_string())).collect();
            let found = orphans::find(&running, self.settings.user).unwrap_or_else(|error| {
                tracing::warn!(%error, "processes of earlier servers cannot be looked for");
                Vec::new()
            });
            let mut ended = 0;
            for orphan in found.into_iter().filter(|orphan| !keep.contains(&orphan.folder)) {
                end(&orphan.handle).await;
                ended += 1;
            }
            ended
        })
    }
}

/// Ends a process unless it is disarmed.
struct Guard {
    handle: Handle,
    armed: bool,
}

impl Guard {
    fn of(handle: &Handle) -> Self {
        Self { handle: handle.clone(), armed: true }
    }

    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            self.handle.kill();
        }
    }
}

async fn end(handle: &Handle) {
    handle.kill();
    handle.gone().await;
}

async fn choose(
    settings: &QemuSettings,
    program: &Program,
    folder: &Path,
) -> Result<Accelerator, HypervisorError> {
    if settings.accelerator == Wanted::Qemu {
        return Ok(Accelerator::Tcg);
    }
    let probed = accelerator::probe(program, Accelerator::Kvm, folder, settings.user).await;
    match (probed, settings.accelerator) {
        (Ok(()), _) => Ok(Accelerator::Kvm),
        (Err(why), Wanted::Kvm) => {
            Err(HypervisorError::Unusable(format!("KVM does not work here: {why}")))
        }
        (Err(why), _) => {
            tracing::warn!(
                why,
                "KVM does not work here; machines run in software, which is slower"
            );
            Ok(Accelerator::Tcg)
        }
    }
}
