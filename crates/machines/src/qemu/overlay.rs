//! A template's own disk: what its guest writes while it boots, on top of the image's disk, which is never written.
//!
//! Invariant: an overlay is as large as the disk below it.
//!
//! Not here: disks of machines. QEMU makes those itself, as files without a name that end with it.

use std::io;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use super::command::TEMPLATE_DISK;
use super::process::{self, Launch, User};
use super::program::find;
use crate::hypervisor::HypervisorError;
use crate::qemu::launch::failed;

/// Makes disks; it comes with QEMU.
const PROGRAM: &str = "qemu-img";
/// How long that may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Makes the overlay of `disk` in a template's folder, for QEMU that runs as `user` to write.
///
/// # Errors
/// When the program is missing or fails, or the file cannot be given away.
pub(super) async fn make(
    folder: &Path,
    disk: &Path,
    user: Option<User>,
) -> Result<(), HypervisorError> {
    let missing = "snapshots of disks need qemu-img, which is not installed (Debian: qemu-utils)";
    let program =
        find(Path::new(PROGRAM)).ok_or_else(|| HypervisorError::Unusable(missing.to_owned()))?;
    let arguments = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
    let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    // A name that is not absolute would be looked for beside the overlay.
    let disk = std::path::absolute(disk).map_err(|error| failed("finding", disk, error))?;
    arguments.extend([disk.display().to_string(), TEMPLATE_DISK.to_owned()]);
    let launch = Launch { program: &program, arguments: &arguments, directory: folder, user: None };
    let made = process::run(launch, LIMIT).await;
    made.map_err(|error: io::Error| HypervisorError::Start(error.to_string()))?;
    let overlay = folder.join(TEMPLATE_DISK);
    let Some(user) = user else { return Ok(()) };
    chown(&overlay, Some(user.uid), Some(user.gid))
        .map_err(|error| failed("giving away", &overlay, error))
}
