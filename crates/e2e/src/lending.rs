//! A server that lends machines, and what of them can be seen on this computer.
//!
//! Invariant: no QEMU that such a server started outlives it here, although it would elsewhere.
//! Not here: what is done inside of a machine (`guest`).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use crate::{Guest, Server, Setup, Signal};

/// A running server that lends machines.
#[derive(Debug)]
pub struct Lending {
    server: Server,
    _ends: Ends,
}

impl Deref for Lending {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Lending {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// Ends the machines of a directory when it goes.
#[derive(Debug)]
pub struct Ends(PathBuf);

impl Ends {
    /// Those of a server to be.
    #[must_use]
    pub fn of(setup: &Setup) -> Self {
        Self(setup.path().to_owned())
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        for pid in qemu_of(&self.0) {
            signal(pid, Signal::KILL);
        }
    }
}

/// Where the images are that `make test` builds.
///
/// # Panics
/// When they are not built.
#[must_use]
pub fn images() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.images");
    let folder = std::env::var_os("GATEHOUSE_TEST_IMAGES").map_or(built, PathBuf::from);
    assert!(
        folder.join("small/image.toml").exists(),
        "no image in {}: build it with `images/build small`, or let `make test` do it",
        folder.display()
    );
    folder
}

/// Sends a signal to a process that may have ended.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(handle) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
        let _ = pidfd_send_signal(&handle, signal);
    }
}

/// Every QEMU whose command line names this directory.
fn qemu_of(directory: &Path) -> Vec<u32> {
    let name = directory.display().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let program = line.split('\0').next().unwrap_or_default();
        program.contains("qemu-system") && line.contains(&name)
    })
    .collect()
}

impl Lending {
    /// What such a server needs: machines of 128 MiB of the small image, and no classic door, whose keys take seconds to
    /// make.
    #[must_use]
    pub fn setup() -> Setup {
        Setup::new()
            .set("containers", "state", "{dir}/m")
            .set("containers", "images", &images().display().to_string())
            .set("containers", "bind_address", "127.0.0.1")
            .set("containers", "container_memory", "128")
            .set("containers", "container_vcpus", "1")
            .set("containers", "domain_type", "qemu")
            .set("containers", "classic", "off")
    }

    /// Starts one with the settings of [`Self::setup`].
    #[must_use]
    pub fn start() -> Self {
        Self::start_in(Self::setup())
    }

    /// Starts one with these settings.
    #[must_use]
    pub fn start_in(setup: Setup) -> Self {
        let ends = Ends::of(&setup);
        Self { server: setup.start(), _ends: ends }
    }

    fn arguments(&self) -> [OsString; 3] {
        ["serve".into(), "-i".into(), self.path("gatehouse.ini").into_os_string()]
    }

    /// Ends the server with `signal` and starts it again on the same state. Its port is another.
    ///
    /// # Panics
    /// When its log tells of a panic.
    pub fn restart(&mut self, signal: Signal) {
        self.restart_then(signal, || ());
    }

    /// As [`Self::restart`], with something done while no server runs.
    ///
    /// # Panics
    /// When its log tells of a panic.
    pub fn restart_then(&mut self, signal: Signal, between: impl FnOnce()) {
        self.server.signal(signal);
        let log = self.server.process.wait().stderr;
        assert!(!log.contains("panicked"), "{log}");
        between();
        let arguments = self.arguments();
        self.server.start_again(&arguments);
    }

    /// Has a machine made, which must work, and gives the whole answer.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn lend(&self, wish: &Value) -> Value {
        let reply = self.post("/machines").json(wish).send();
        assert_eq!(reply.status, 201, "{}\n{}", reply.text(), self.log().so_far());
        reply.json()
    }

    /// As [`Self::lend`], with nothing wished.
    #[must_use]
    pub fn lend_any(&self) -> Value {
        self.lend(&json!({}))
    }

    /// The ids of all machines.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<String> {
        let list = self.get_json("/machines");
        let machines = list["machines"].as_array().cloned().unwrap_or_default();
        machines.iter().map(|machine| text(&machine["id"])).collect()
    }

    /// How many places are left.
    ///
    /// # Panics
    /// When it does not tell.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.get_json("/machines")["available"].as_u64().expect("a number")
    }

    /// Every QEMU of this server.
    #[must_use]
    pub fn qemu(&self) -> Vec<u32> {
        qemu_of(&self.path(""))
    }

    /// The QEMU of one machine.
    ///
    /// # Panics
    /// When it has none, or more.
    #[must_use]
    pub fn qemu_of(&self, id: &str) -> u32 {
        let found = qemu_of(&self.path("m/running").join(id));
        assert_eq!(found.len(), 1, "of {id}: {found:?}");
        found[0]
    }

    /// The machines that have a folder, or a record beside it.
    #[must_use]
    pub fn folders(&self) -> BTreeSet<String> {
        let folders = fs::read_dir(self.path("m/running")).into_iter().flatten().flatten();
        let names = folders.map(|folder| folder.file_name().to_string_lossy().into_owned());
        names.map(|name| name.trim_end_matches(".json").to_owned()).collect()
    }

    /// Waits until nothing is left of any machine: no place taken, no process, no folder, no port.
    pub fn wait_for_nothing(&self) {
        crate::wait_until("everything to be undone", || {
            let nobody = self.ids().is_empty() && self.qemu().is_empty();
            (nobody && self.folders().is_empty() && self.ports() == [self.address().port()])
                .then_some(())
        });
    }

    /// The TCP ports that the server listens on.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        listening(self.process.pid())
    }

    /// The user's login on a machine, by the password of the answer that lent it.
    #[must_use]
    pub fn enter(&self, lent: &Value) -> Option<Guest> {
        Guest::enter(port(lent), &text(&lent["username"]), &text(&lent["password"]))
    }
}

/// A text that must be one.
///
/// # Panics
/// When it is none.
#[track_caller]
#[must_use]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

/// The port of an answer.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn port(lent: &Value) -> u16 {
    lent["port"].as_u64().and_then(|port| port.try_into().ok()).expect("a port")
}

/// The id of an answer's machine.
#[must_use]
pub fn id(lent: &Value) -> String {
    text(&lent["machine"]["id"])
}

/// How long "within a second" is on a computer that does other things besides.
pub const SOON: Duration = Duration::from_secs(5);

/// The TCP ports that a process listens on, sorted.
fn listening(pid: u32) -> Vec<u16> {
    let sockets: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/net/{table}")));
    let lines = tables.iter().flatten().flat_map(|table| table.lines());
    let ports = lines.filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (&local, &state, &inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (state == "0A" && sockets.contains(inode)).then_some(port)
    });
    let ports: BTreeSet<u16> = ports.collect();
    ports.into_iter().collect()
}
