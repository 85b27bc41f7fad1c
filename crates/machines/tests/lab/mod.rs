//! A place to lend machines in: a folder of its own, and a look at what runs for it.

#![expect(clippy::unwrap_used, reason = "a laboratory fails where it stands")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machines::guest::GuestError;
use machines::guest::shell::{Bounds, Shell};
use machines::guest::ssh::{self, Login, Proof};
use machines::guest::ssh_key::SshKey;
use machines::hypervisor::{Ending, GuestStream, Later, Vm};
use machines::image::Images;
use machines::machine::{Lent, MachineId};
use machines::manager::DefaultImage;
use machines::network::NetworkPolicy;
use machines::ports::{Limits, Ports};
use machines::qemu::{Qemu, QemuSettings, Wanted};
use machines::{Machines, Settings};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use wire::Secret;

/// A place to lend machines in.
pub(crate) struct Lab {
    directory: tempfile::TempDir,
}

/// Where the images are that `make test` builds.
pub(crate) fn images() -> PathBuf {
    let given = std::env::var_os("GATEHOUSE_TEST_IMAGES").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.images");
    let folder = given.unwrap_or(built);
    assert!(
        folder.join("small/image.toml").exists(),
        "no image in {}: build it with `images/build small`, or let `make test` do it",
        folder.display()
    );
    folder
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// A server of machines on this place.
    pub(crate) async fn open(&self, change: impl FnOnce(&mut Settings)) -> Machines {
        self.open_on(|_| {}, change).await
    }

    /// The same, on a QEMU that is used otherwise.
    pub(crate) async fn open_on(
        &self,
        change_qemu: impl FnOnce(&mut QemuSettings),
        change: impl FnOnce(&mut Settings),
    ) -> Machines {
        let directory = self.directory.path().to_owned();
        let mut qemu = QemuSettings {
            program: "qemu-system-x86_64".into(),
            accelerator: Wanted::Qemu,
            user: None,
            snapshots: directory.join("snapshots"),
            snapshots_max: 8,
            network: Arc::new(NetworkPolicy::default()),
            snapshot: true,
            snapshot_foreign: false,
            limits: false,
            cpu_percent_max: None,
            disk_mb: 0,
            disk_bytes_per_second: 0,
            disk_operations_per_second: 0,
            endpoint: endpoint(),
            ready_within: Duration::from_secs(90),
        };
        change_qemu(&mut qemu);
        let mut settings = settings(directory);
        change(&mut settings);
        let ports = Ports::new(20_000..=29_999, vec!["127.0.0.1".parse().unwrap()]);
        let qemu = Arc::new(Qemu::open(qemu).await.unwrap());
        Machines::open(settings, qemu, Arc::new(Images::open(images())), ports).await.unwrap()
    }

    /// Of how many machines there is a folder or a record.
    pub(crate) fn folders(&self) -> usize {
        let entries = std::fs::read_dir(self.directory.path().join("running"));
        let stems = entries.into_iter().flatten().flatten().map(|it| it.path().with_extension(""));
        stems.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Where the record of a machine is.
    pub(crate) fn record(&self, id: MachineId) -> PathBuf {
        self.directory.path().join("running").join(format!("{id}.json"))
    }

    fn pids(&self) -> Vec<i32> {
        let ours = self.directory.path().join("running");
        let ours = ours.to_str().unwrap();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|it| it.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(ours)
        })
        .collect()
    }

    /// How many processes run for machines of this place.
    pub(crate) fn processes(&self) -> usize {
        self.pids().len()
    }

    /// Kills them all; says how many there were.
    pub(crate) fn kill_all(&self) -> usize {
        let pids = self.pids();
        for pid in &pids {
            let pid = rustix::process::Pid::from_raw(*pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        pids.len()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn endpoint() -> Login {
    let proof = Proof::Password(Secret::new("endpoint"));
    Login { user: "endpoint".into(), proof, port: 22 }
}

fn settings(directory: PathBuf) -> Settings {
    Settings {
        directory,
        machines_max: 6,
        quota: None,
        image: DefaultImage::Named("small".into()),
        memory_mb: 256,
        memory_mb_max: 512,
        vcpus: 1,
        vcpus_max: 2,
        ttl: None,
        ttl_max: None,
        pool: 0,
        starts_at_once: 2,
        keeps: false,
        claim_within: Duration::from_secs(600),
        gateway_key: None,
        endpoint: endpoint(),
        forwarding: Limits::default(),
    }
}

/// Whether nobody listens at a port of this machine.
pub(crate) async fn is_refused(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_err()
}

/// A machine as its user sees it: an address and a port.
#[derive(Debug)]
struct Outside {
    port: u16,
    ended: watch::Sender<Option<Ending>>,
}

impl Vm for Outside {
    fn connect(&self, _: u16) -> Later<'_, std::io::Result<Box<dyn GuestStream>>> {
        Box::pin(async {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            Ok(Box::new(stream) as Box<dyn GuestStream>)
        })
    }

    fn ask_agent(&self, _: Secret) -> Later<'_, std::io::Result<String>> {
        unreachable!("users do not speak to agents")
    }

    fn pause(&self) -> Later<'_, std::io::Result<()>> {
        unreachable!("users do not pause")
    }

    fn resume(&self) -> Later<'_, std::io::Result<()>> {
        unreachable!("users do not resume")
    }

    fn kill(&self) -> Later<'_, ()> {
        unreachable!("users do not kill")
    }

    fn ended(&self) -> watch::Receiver<Option<Ending>> {
        self.ended.subscribe()
    }

    fn console(&self, _: usize) -> Later<'_, std::io::Result<Vec<u8>>> {
        unreachable!("users have no console")
    }
}

/// Somebody logs in by the public port.
pub(crate) async fn enter(lent: &Lent, login: &Login) -> Result<Shell, GuestError> {
    let vm = Outside { port: lent.port, ended: watch::Sender::new(None) };
    let host_key = lent.host_key.as_ref().map(|key| key.fingerprint.as_str());
    ssh::open(&vm, login, host_key, Instant::now() + Duration::from_secs(30)).await
}

async fn run_as(lent: &Lent, proof: Proof, command: &str) -> String {
    let login = Login { user: lent.username.clone(), proof, port: 22 };
    let shell = enter(lent, &login).await.unwrap();
    let output = shell.run(command, Bounds::within(Duration::from_secs(30))).await;
    output.map_or_else(|error| error.to_string(), |it| String::from_utf8(it.stdout).unwrap())
}

/// What a command says that the user of a machine runs over the public port.
pub(crate) async fn said(lent: &Lent, command: &str) -> String {
    run_as(lent, Proof::Password(lent.password.clone()), command).await
}

/// Runs a command that may end the machine.
pub(crate) async fn run(lent: &Lent, command: &str) -> String {
    said(lent, command).await
}

/// The user gets in by password and the command says this.
pub(crate) async fn check_login(lent: &Lent, command: &str, expected: &str) {
    assert_eq!(said(lent, command).await.trim(), expected);
}

/// The user gets in by a key.
pub(crate) async fn check_key_login(lent: &Lent, key: &SshKey) {
    let user = run_as(lent, Proof::Key(key.clone()), "id -un").await;
    assert_eq!(user.trim(), lent.username);
}
