//! Finds the machines that earlier servers left running, by their folders.
//!
//! A process is one of ours when it was told to keep its pid file in a machine's folder, by an argument of its own, and
//! belongs to whom our machines belong to. Nothing that is written on disk is believed, as a number may have passed to
//! another process since.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::command::PID_FILE;
use super::process::{Handle, User};

/// A QEMU that runs in a folder.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) handle: Handle,
    /// The machine's folder.
    pub(super) folder: PathBuf,
}

/// Every QEMU that runs in a folder directly in `parent`.
pub(super) fn find(parent: &Path, user: Option<User>) -> io::Result<Vec<Orphan>> {
    let parent = std::path::absolute(parent)?;
    let own = rustix::process::geteuid().as_raw();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        // Processes come and go while we look.
        let Some(pid) =
            entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        else {
            continue;
        };
        let Some(folder) = folder_of(pid, &parent, own, user) else { continue };
        let Ok(Some(handle)) = Handle::open(pid) else { continue };
        // The number may have passed on before we held it; now it cannot any more.
        if folder_of(pid, &parent, own, user).as_ref() == Some(&folder) {
            found.push(Orphan { handle, folder });
        }
    }
    Ok(found)
}

fn folder_of(pid: u32, parent: &Path, own: u32, user: Option<User>) -> Option<PathBuf> {
    let owner = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    if owner != own && Some(owner) != user.map(|user| user.uid) {
        return None;
    }
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    folder(&command).filter(|folder| folder.parent() == Some(parent))
}

/// The folder that a command line names.
fn folder(command: &[u8]) -> Option<PathBuf> {
    let mut arguments = command.split(|&byte| byte == 0);
    arguments.find(|&argument| argument == b"-pidfile")?;
    let file = Path::new(std::str::from_utf8(arguments.next()?).ok()?);
    (file.file_name()? == PID_FILE).then(|| file.parent().map(Path::to_owned)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, expected: Option<&str>) {
        assert_eq!(
            folder(command.replace(' ', "\0").as_bytes()),
            expected.map(PathBuf::from),
            "{command}"
        );
    }

    #[test]
    fn a_machine_is_known_by_its_pid_file() {
        check("qemu -name a -pidfile /r/1/qemu.pid -m 256 ", Some("/r/1"));
        check("qemu -pidfile /r/1/other.pid ", None);
        check("qemu -pidfile", None);
        check("vi /r/1/qemu.pid", None);
        check("", None);
    }
}
