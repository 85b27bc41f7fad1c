//! What a machine's process may use of the host: processor time, memory, tasks.
//!
//! Invariant: a group holds one machine and is removed with it. Where groups cannot be made, machines run without, and
//! that is said once. Both forms of the kernel's interface are plain files.
//!
//! Not here: what the guest is given; its memory is QEMU's affair.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

/// Where the kernel shows its groups.
const ROOT: &str = "/sys/fs/cgroup";
/// The group of all machines, below the server's own.
const MACHINES: &str = "gatehouse-machines";
/// Where the server goes when its own group must be free of processes to have groups below it.
const SERVER: &str = "gatehouse-server";
/// Memory beside the guest's: QEMU itself and translated code.
const OVERHEAD_MB: u64 = 384;
/// QEMU has about four tasks, and one for each processor.
const TASKS_MAX: u32 = 64;
/// The time that processor shares are counted in, in microseconds.
const PERIOD_MICROS: u64 = 100_000;

/// How often making a group is tried.
const TRIES_MAX: u32 = 5;

static SAID: Once = Once::new();
static MAKING: Mutex<()> = Mutex::new(());

/// The groups of one machine; one, or one for each kind of limit.
#[derive(Debug, Default)]
pub(super) struct Group {
    folders: Vec<PathBuf>,
}

impl Group {
    /// Puts a process into a group of its own named `name`, as far as that is possible here.
    pub(super) fn limit(name: &str, pid: u32, memory_mb: u32, cpu_percent: u32) -> Self {
        // One at a time: a group that has no process yet looks like one that is left over.
        let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut group = Self::default();
        for (parent, files) in plan(Path::new(ROOT), &own, memory_mb, cpu_percent) {
            let machines = parent.join(MACHINES);
            remove_empty(&machines);
            let folder = machines.join(name);
            let put = || {
                prepare(&parent)?;
                fs::create_dir_all(&folder)?;
                fill(&folder, &files)?;
                fs::write(folder.join("cgroup.procs"), pid.to_string())
            };
            // Another server on this host may take it for one that is left over, until the process is in it.
            let mut done = put();
            for _ in 1..TRIES_MAX {
                if !done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                    break;
                }
                done = put();
            }
            group.folders.push(folder.clone());
            if let Err(error) = done {
                SAID.call_once(|| {
                    tracing::warn!(group = %folder.display(), %error, "machines run without some of their limits");
                });
            }
        }
        group
    }

    /// Those of a machine that an earlier server put there.
    pub(super) fn of(name: &str) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let parents = plan(Path::new(ROOT), &own, 0, 0);
        Self {
            folders: parents
                .into_iter()
                .map(|(parent, _)| parent.join(MACHINES).join(name))
                .collect(),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            // Refused while the process is there, when the machine outlives the server.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// One file of a group, and what is written to it.
type Limit = (&'static str, String);

/// Below which groups a machine's are made, and what is written there. `own` is the server's `/proc/self/cgroup`.
fn plan(root: &Path, own: &str, memory_mb: u32, cpu_percent: u32) -> Vec<(PathBuf, Vec<Limit>)> {
    let memory = (u64::from(memory_mb) + OVERHEAD_MB) << 20;
    let quota = u64::from(cpu_percent) * PERIOD_MICROS / 100;
    let mut found = Vec::new();
    for line in own.lines() {
        let Some((controllers, path)) =
            line.split_once(':').and_then(|(_, rest)| rest.split_once(':'))
        else {
            continue;
        };
        // Where the server has moved itself to, its machines are beside it.
        let path = path.strip_suffix(SERVER).unwrap_or(path).trim_matches('/');
        let below = |name: &str| root.join(name).join(path);
        for controller in controllers.split(',') {
            let limits: Vec<Limit> = match controller {
                "cpu" => vec![
                    ("cpu.cfs_period_us", PERIOD_MICROS.to_string()),
                    ("cpu.cfs_quota_us", quota.to_string()),
                ],
                "memory" => vec![("memory.limit_in_bytes", memory.to_string())],
                "pids" => vec![("pids.max", TASKS_MAX.to_string())],
                // The second form has one line without a name.
                "" if root.join("cgroup.controllers").exists() => vec![
                    ("cpu.max", format!("{quota} {PERIOD_MICROS}")),
                    ("memory.max", memory.to_string()),
                    ("pids.max", TASKS_MAX.to_string()),
                ],
                _ => continue,
            };
            let parent = if controller.is_empty() { below("") } else { below(controllers) };
            found.push((parent, limits));
        }
    }
    found
}

/// Removes what is left of machines whose start was given up.
fn remove_empty(machines: &Path) {
    for entry in fs::read_dir(machines).into_iter().flatten().flatten() {
        // The kernel refuses where there are processes, and to remove its own files.
        let _ = fs::remove_dir(entry.path());
    }
}

/// In the second form, a group with groups below it may hold no process and must pass its controllers on.
fn prepare(parent: &Path) -> io::Result<()> {
    let control = parent.join("cgroup.subtree_control");
    if !control.exists() {
        return Ok(());
    }
    let wanted = "+cpu +memory +pids";
    if fs::write(&control, wanted).is_err() {
        let server = parent.join(SERVER);
        fs::create_dir_all(&server)?;
        fs::write(server.join("cgroup.procs"), std::process::id().to_string())?;
        fs::write(&control, wanted)?;
    }
    fs::create_dir_all(parent.join(MACHINES))?;
    fs::write(parent.join(MACHINES).join("cgroup.subtree_control"), wanted)
}

fn fill(folder: &Path, files: &[Limit]) -> io::Result<()> {
    files.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(second_form: bool, own: &str, expected: &[(&str, &[(&str, &str)])]) {
        let root = tempfile::tempdir().unwrap();
        if second_form {
            fs::write(root.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
        }
        let expected: Vec<(PathBuf, Vec<Limit>)> = expected
            .iter()
            .map(|(path, files)| {
                let files =
                    files.iter().map(|(name, text)| (fs_name(name), (*text).to_owned())).collect();
                (root.path().join(path), files)
            })
            .collect();
        assert_eq!(plan(root.path(), own, 128, 200), expected);
    }

    fn fs_name(name: &str) -> &'static str {
        name.to_owned().leak()
    }

    #[test]
    fn both_forms_are_known() {
        let second: &[(&str, &str)] =
            &[("cpu.max", "200000 100000"), ("memory.max", "536870912"), ("pids.max", "64")];
        check(
            true,
            "0::/system.slice/gatehouse.service\n",
            &[("system.slice/gatehouse.service", second)],
        );
        check(
            false,
            "5:devices:/\n4:memory:/a\n2:cpu,cpuacct:/\n0::/\n",
            &[
                ("memory/a", &[("memory.limit_in_bytes", "536870912")]),
                ("cpu,cpuacct", &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "200000")]),
            ],
        );
        check(true, "0::/a/gatehouse-server\n", &[("a", second)]);
        check(false, "nonsense", &[]);
    }
}
