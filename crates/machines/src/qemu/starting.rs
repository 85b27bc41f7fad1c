//! How a machine comes to run: as a clone of a snapshot, which is made where there is none, or by booting.
//!
//! Invariant: whoever gives up waiting leaves no process behind, and a start that failed has left its folder.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::accelerator::{self, Accelerator};
use super::agent_socket::AgentSocket;
use super::cgroup::Group;
use super::command::{self, AGENT_SOCKET, Disk, Memory, NETWORK_SOCKET, Plan};
use super::launch::{Folder, Running};
use super::program::stamp;
use super::qmp::Qmp;
use super::template::{self, Recipe, Template};
use super::vm::QemuVm;
use super::{Guard, Qemu, end, overlay, seed, snapshot};
use crate::guest::ssh;
use crate::hypervisor::{Boot, HypervisorError};
use crate::image::{Image, Media};
use crate::network::Network;

/// How long the guest of a clone may take to answer; it takes some hundredths of a second.
const CLONE_LIMIT: Duration = Duration::from_secs(20);
/// How long QEMU may take to open its network's socket, and the pause between looking.
const ATTACH_LIMIT: Duration = Duration::from_secs(5);
/// See [`ATTACH_LIMIT`].
const ATTACH_PAUSE: Duration = Duration::from_millis(1);
/// How many clones are tried before it is put down to the snapshot.
const CLONES_TRIED: u32 = 2;
/// When what was asked of the agent of a clone is taken for lost.
const CLONE_LOST_AFTER: Duration = Duration::from_secs(2);
/// When what was asked of the agent of a guest that boots is taken for lost.
const BOOT_LOST_AFTER: Duration = Duration::from_secs(30);
/// How long a guest's SSH server may take to greet before its state is saved without that.
const WARM_UP_LIMIT: Duration = Duration::from_secs(5);

impl Qemu {
    pub(super) async fn template(
        &self,
        image: &Image,
        memory_mb: u32,
        vcpus: u32,
    ) -> Result<(Arc<Template>, Recipe), String> {
        if !self.settings.snapshot {
            return Err("snapshots are switched off".to_owned());
        }
        if !image.has_agent && !self.settings.snapshot_foreign {
            return Err(
                "the image has no agent that could give a clone an identity of its own".to_owned()
            );
        }
        let recipe = self
            .recipe(image, memory_mb, vcpus)
            .map_err(|error| format!("image {}: {error}", image.name))?;
        let build = async |folder: &Path| self.build(image, &recipe, folder).await;
        let template = self.snapshots.template(&recipe, build).await?;
        Ok((template, recipe))
    }

    fn plan<'a>(
        &'a self,
        name: &'a str,
        directory: &'a Path,
        image: &'a Image,
        memory: Memory,
    ) -> Plan<'a> {
        let (program, accelerator) = (&self.program, self.accelerator);
        Plan {
            program,
            accelerator,
            name,
            directory,
            media: &image.media,
            memory_mb: 0,
            vcpus: 1,
            memory,
            disk: Disk {
                size_mb: self.settings.disk_mb,
                bytes_per_second: self.settings.disk_bytes_per_second,
                operations_per_second: self.settings.disk_operations_per_second,
            },
        }
    }

    pub(super) fn recipe(&self, image: &Image, memory_mb: u32, vcpus: u32) -> io::Result<Recipe> {
        let plan = Plan {
            memory_mb,
            vcpus,
            ..self.plan("template", Path::new(""), image, Memory::Template)
        };
        let files: Vec<&PathBuf> = match &image.media {
            Media::Kernel { kernel, initrd, .. } => vec![kernel, initrd],
            Media::Iso(iso) => vec![iso],
            Media::Disk { disk, .. } => vec![disk],
        };
        let stamps = files.into_iter().map(|path| {
            stamp(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })
        });
        Ok(Recipe {
            format: Recipe::FORMAT,
            image: image.name.clone(),
            image_sha256: image.sha256.clone(),
            image_stamps: stamps.collect::<Result<_, _>>()?,
            program: self.program.version_text.clone(),
            program_stamp: self.program.stamp.clone(),
            arguments: command::arguments(&plan),
            processor: if self.accelerator == Accelerator::Kvm {
                accelerator::processor()
            } else {
                String::new()
            },
            memory_mb,
            vcpus,
            disk_mb: match image.media {
                Media::Disk { .. } => plan.disk.size_mb,
                Media::Kernel { .. } | Media::Iso(_) => 0,
            },
        })
    }

    /// Boots a guest and leaves its state in `folder`.
    async fn build(
        &self,
        image: &Image,
        recipe: &Recipe,
        folder: &Path,
    ) -> Result<(), HypervisorError> {
        let name = format!("gatehouse-template-{}", image.name);
        let plan = self.plan(&name, folder, image, Memory::Template);
        let plan = Plan { memory_mb: recipe.memory_mb, vcpus: recipe.vcpus, ..plan };
        let (vm, guard) = self.running(&plan, image, self.settings.ready_within, None).await?;
        // Has the guest run once what every login runs.
        let _ = timeout(WARM_UP_LIMIT, vm.greeting()).await;
        let failed =
            |error: io::Error| HypervisorError::Start(format!("saving its state: {error}"));
        snapshot::save(vm.qmp(), vm.folder(), folder).await.map_err(failed)?;
        // It has been told to quit.
        guard.handle.gone().await;
        if self.settings.user.is_some() {
            template::take_ownership(folder, self.program.knows_rom()).map_err(failed)?;
        }
        Ok(())
    }

    /// Starts what is planned and waits until its guest answers. Who drops the guard ends it.
    async fn running(
        &self,
        plan: &Plan<'_>,
        image: &Image,
        limit: Duration,
        template: Option<&Template>,
    ) -> Result<(QemuVm, Guard), HypervisorError> {
        self.make_files(plan).await?;
        let mut running = Running::start(plan, self.settings.user).await?;
        let attached = async {
            let network = self.attach(&running.folder, &running.qmp).await?;
            if let Some(template) = template {
                snapshot::restore(&running, &template.devices).await?;
            }
            let agent = match image.has_agent {
                true => Some(AgentSocket::fresh(running.folder.socket(AGENT_SOCKET)).await?),
                false => None,
            };
            if template.is_some() {
                // QEMU 10.0 crashes when the agent's line is taken up while it restores, and an agent that sees its line
                // come up late speaks to nobody for a moment. So: after the one, before the other, and not at once.
                running.qmp.ask("query-status", Value::Null).await?;
                running.qmp.ask("cont", Value::Null).await?;
            }
            io::Result::Ok((network, agent))
        };
        let (network, agent) = match attached.await {
            Ok(attached) => attached,
            Err(error) => return Err(running.failed(&error).await),
        };
        let guard = Guard::of(running.process.handle());
        if self.settings.limits && plan.memory != Memory::Template {
            let pid = running.process.handle().pid();
            let own = plan.vcpus.saturating_mul(100);
            let cpu_percent = self.settings.cpu_percent_max.map_or(own, |most| most.min(own));
            running.group = Group::limit(plan.name, pid, plan.memory_mb, cpu_percent);
        }
        // Ours are ready when their agent is; where others listen before they are set up is configured.
        let ssh_port = if image.has_agent { ssh::PORT } else { self.settings.endpoint.port };
        let vm = QemuVm::new(running, network, agent, ssh_port);
        let lost_after = if template.is_some() { CLONE_LOST_AFTER } else { BOOT_LOST_AFTER };
        let answered = timeout(limit, vm.ready(lost_after)).await;
        if matches!(answered, Ok(Ok(()))) {
            return Ok((vm, guard));
        }
        let last = vm.last_line().await;
        // Another may be started in its folder.
        end(&guard.handle).await;
        match answered {
            Ok(Err(why)) => Err(HypervisorError::Start(format!("{why}; console: {last}"))),
            _ => Err(HypervisorError::NotReady { secs: limit.as_secs(), last }),
        }
    }

    /// Makes what a disk image needs in the machine's folder; a clone has the template's.
    async fn make_files(&self, plan: &Plan<'_>) -> Result<(), HypervisorError> {
        let Media::Disk { disk, nocloud } = plan.media else { return Ok(()) };
        if plan.has_overlay() {
            overlay::make(plan.directory, disk, plan.disk.size_mb, self.settings.user).await?;
        }
        if *nocloud && !matches!(plan.memory, Memory::Clone(_)) {
            seed::make(plan.directory, plan.name, &self.settings.endpoint)?;
        }
        Ok(())
    }

    /// Takes the guest's network over. QEMU opens its socket in a thread of its own, which may be a moment behind, and
    /// crashes when a guest sends before it has noticed that we are there, which it does as soon as it is restored.
    pub(super) async fn attach(&self, folder: &Folder, qmp: &Qmp) -> io::Result<Network> {
        let path = folder.socket(NETWORK_SOCKET);
        let mut seen = qmp.seen();
        let attach = async {
            let network = loop {
                match Network::attach(&path, Arc::clone(&self.settings.network)).await {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    attached => break attached?,
                }
                tokio::time::sleep(ATTACH_PAUSE).await;
            };
            let noticed = seen
                .wait_for(|seen| seen.closed || seen.networked)
                .await
                .is_ok_and(|seen| !seen.closed);
            if noticed {
                Ok(network)
            } else {
                Err(io::Error::new(io::ErrorKind::BrokenPipe, "QEMU ended"))
            }
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "QEMU did not take its network up");
        timeout(ATTACH_LIMIT, attach).await.map_err(|_| late())?
    }

    pub(super) async fn cloned(&self, boot: &Boot) -> Result<(QemuVm, Guard), String> {
        let (template, recipe) = self.template(&boot.image, boot.memory_mb, boot.vcpus).await?;
        let name = format!("gatehouse-{}", boot.id);
        let memory = Memory::Clone(template.folder.clone());
        let plan = self.plan(&name, &boot.directory, &boot.image, memory);
        let plan = Plan { memory_mb: boot.memory_mb, vcpus: boot.vcpus, ..plan };
        let mut last = None;
        for _ in 0..CLONES_TRIED {
            let limit = CLONE_LIMIT.min(self.settings.ready_within);
            match self.running(&plan, &boot.image, limit, Some(&template)).await {
                Ok(cloned) => return Ok(cloned),
                Err(error) => {
                    tracing::warn!(machine = %boot.id, %error, "a clone did not come up");
                    last = Some(error);
                }
            }
        }
        let why = last.map_or_else(String::new, |error| error.to_string());
        self.snapshots.reject(&recipe, &template, &why).await;
        Err(format!("no clone could be made: {why}"))
    }

    pub(super) async fn booted(&self, boot: &Boot) -> Result<(QemuVm, Guard), HypervisorError> {
        let name = format!("gatehouse-{}", boot.id);
        let plan = self.plan(&name, &boot.directory, &boot.image, Memory::Own);
        let plan = Plan { memory_mb: boot.memory_mb, vcpus: boot.vcpus, ..plan };
        self.running(&plan, &boot.image, self.settings.ready_within, None).await
    }
}
