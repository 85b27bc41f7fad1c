//! The QEMU that is installed: where it is, how old it is, and what its q35 machine is called.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::{self, Launch};
use crate::hypervisor::HypervisorError;

/// The oldest that will do: the first with `-netdev stream`.
const OLDEST: (u32, u32) = (7, 2);
/// How long it may take to tell about itself.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// An installed QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Absolute.
    pub(super) path: PathBuf,
    /// The number that is compared.
    pub(super) version: (u32, u32),
    /// What it says of itself.
    pub(super) version_text: String,
    /// The versioned name of its newest q35 machine.
    pub(super) machine: String,
    /// Changes when the file is replaced: device, inode, size and times of change.
    pub(super) stamp: String,
}

impl Program {
    /// Finds a program by its name or path and asks it.
    pub(super) async fn find(name: &Path) -> Result<Self, HypervisorError> {
        let unusable = |why: String| HypervisorError::Unusable(why);
        let path = find(name).ok_or_else(|| {
            unusable(format!(
                "{} is not installed; machines need it (Debian: qemu-system-x86)",
                name.display()
            ))
        })?;
        let stamp = stamp(&path).map_err(|source| HypervisorError::Io {
            what: format!("reading {}", path.display()),
            source,
        })?;
        let ask = async |argument: &[&str]| {
            let arguments: Vec<String> = argument.iter().map(|&text| text.to_owned()).collect();
            let launch = Launch {
                program: &path,
                arguments: &arguments,
                directory: Path::new("/"),
                user: None,
            };
            process::run(launch, ANSWER_LIMIT).await.map_err(|error| unusable(error.to_string()))
        };
        let told = ask(&["-version"]).await?;
        let version_text = told.lines().next().unwrap_or_default().trim().to_owned();
        let version = version(&version_text).ok_or_else(|| {
            unusable(format!("{} does not tell its version: {version_text:?}", path.display()))
        })?;
        if version < OLDEST {
            let (major, minor) = OLDEST;
            return Err(unusable(format!(
                "{} is too old: {version_text}; {major}.{minor} is needed",
                path.display()
            )));
        }
        let machine = machine(&ask(&["-machine", "help"]).await?)
            .ok_or_else(|| unusable(format!("{} knows no q35 machine", path.display())))?;
        Ok(Self { path, version, version_text, machine, stamp })
    }

    /// Whether a memory file can be opened read-only and the guest's memory be written all the same.
    pub(super) fn knows_rom(&self) -> bool {
        self.version >= (8, 2)
    }

    #[cfg(test)]
    pub(super) fn of_version(major: u32, minor: u32) -> Self {
        Self {
            path: "/usr/bin/qemu-system-x86_64".into(),
            version: (major, minor),
            version_text: format!("QEMU emulator version {major}.{minor}.0"),
            machine: format!("pc-q35-{major}.{minor}"),
            stamp: String::new(),
        }
    }
}

/// Where a program is: a path as it is, a bare name as it is found in `PATH`.
pub(super) fn find(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return std::path::absolute(name).ok().filter(|path| path.is_file());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_absolute() && path.is_file())
}

/// Changes when a file is replaced or written, also by who sets its time back: that of its last change nobody can set.
pub(super) fn stamp(path: &Path) -> io::Result<String> {
    let found = std::fs::metadata(path)?;
    Ok(format!(
        "{}:{}:{}:{}.{:09}:{}.{:09}",
        found.dev(),
        found.ino(),
        found.size(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec()
    ))
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("QEMU emulator version ")?.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The name that `q35` stands for.
fn machine(help: &str) -> Option<String> {
    let line = help.lines().find(|line| line.split_whitespace().next() == Some("q35"))?;
    let (_, name) = line.split_once("(alias of ")?;
    let name = name.split_once(')')?.0;
    name.starts_with("pc-q35-").then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_version(text: &str, expected: Option<(u32, u32)>) {
        assert_eq!(version(text), expected, "{text}");
    }

    #[test]
    fn a_version_is_read() {
        check_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", Some((10, 0)));
        check_version("QEMU emulator version 7.2.22", Some((7, 2)));
        check_version("QEMU emulator version 11.0", Some((11, 0)));
        check_version("QEMU emulator version", None);
        check_version("", None);
    }

    #[test]
    fn the_machine_is_the_one_that_q35_stands_for() {
        let help = "Supported machines are:\npc      Standard PC (alias of pc-i440fx-10.0)\n\
                    q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-10.0)\n\
                    pc-q35-9.2           Standard PC (Q35 + ICH9, 2009)\n";
        assert_eq!(machine(help).as_deref(), Some("pc-q35-10.0"));
        assert_eq!(machine("none   empty machine\n"), None);
    }

    #[tokio::test]
    async fn what_is_no_qemu_is_refused_with_its_name() {
        let error = Program::find(Path::new("no-such-qemu")).await.unwrap_err().to_string();
        assert!(error.starts_with("no-such-qemu is not installed"), "{error}");
        let error = Program::find(Path::new("/bin/true")).await.unwrap_err().to_string();
        assert_eq!(error, "/bin/true does not tell its version: \"\"");
    }
}
