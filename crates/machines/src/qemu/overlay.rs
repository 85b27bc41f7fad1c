//! A disk of one's own on top of an image's disk, which is never written: a template's, for what its guest writes while it
//! boots, and that of a machine that boots with a larger disk than its image has.
//!
//! Invariant: an overlay is as large as the disk below it, or larger.
//!
//! Not here: disks of clones, and of machines that boot with a disk of the image's size. QEMU makes those itself, as
//! files without a name that end with it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use super::command::OVERLAY;
use super::process::{self, Launch, User};
use super::program::find;
use crate::hypervisor::HypervisorError;
use crate::qemu::launch::failed;

/// Makes disks; it comes with QEMU.
const PROGRAM: &str = "qemu-img";
/// How long that may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How a qcow2 file begins, and where in it the disk's size is told, in bytes, most significant first (QEMU's
/// docs/interop/qcow2.txt).
const MAGIC: &[u8; 4] = b"QFI\xfb";
/// See [`MAGIC`].
const SIZE_AT: usize = 24;

/// Makes the overlay of `disk` in a machine's folder, of `size_mb` at least, for QEMU that runs as `user` to write.
///
/// # Errors
/// When the disk is no qcow2 file, the program is missing or fails, or the file cannot be given away.
pub(super) async fn make(
    folder: &Path,
    disk: &Path,
    size_mb: u32,
    user: Option<User>,
) -> Result<(), HypervisorError> {
    let missing = "disks need qemu-img, which is not installed (Debian: qemu-utils)";
    let program =
        find(Path::new(PROGRAM)).ok_or_else(|| HypervisorError::Unusable(missing.to_owned()))?;
    let below = size(disk).map_err(|error| failed("reading", disk, error))?;
    let bytes = below.max(u64::from(size_mb) << 20);
    // A name that is not absolute would be looked for beside the overlay.
    let disk = std::path::absolute(disk).map_err(|error| failed("finding", disk, error))?;
    let disk = disk.display().to_string();
    let bytes = bytes.to_string();
    let words = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &disk, OVERLAY, &bytes];
    let arguments: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let launch = Launch { program: &program, arguments: &arguments, directory: folder, user: None };
    process::run(launch, LIMIT).await.map_err(|error| HypervisorError::Start(error.to_string()))?;
    let overlay = folder.join(OVERLAY);
    let Some(user) = user else { return Ok(()) };
    chown(&overlay, Some(user.uid), Some(user.gid))
        .map_err(|error| failed("giving away", &overlay, error))
}

/// The size of the disk that a qcow2 file holds, in bytes.
fn size(disk: &Path) -> io::Result<u64> {
    let mut begin = [0; SIZE_AT + 8];
    File::open(disk)?.read_exact(&mut begin)?;
    let (head, size) = begin.split_at(SIZE_AT);
    match size.try_into() {
        Ok(size) if head.starts_with(MAGIC) => Ok(u64::from_be_bytes(size)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a qcow2 file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a disk and an overlay of it, and looks at the overlay's size.
    async fn check(disk_mb: u64, wanted_mb: u32, expected_mb: u64) {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("a, disk.qcow2");
        let mut head = [0; 104];
        head[..4].copy_from_slice(MAGIC);
        // Version 3, clusters of 64 KiB, and where its tables are: enough for an empty one to be opened.
        head[7] = 3;
        head[23] = 16;
        head[SIZE_AT..SIZE_AT + 8].copy_from_slice(&(disk_mb << 20).to_be_bytes());
        head[36 + 3] = 1;
        head[40 + 5] = 3;
        head[48 + 5] = 1;
        head[56 + 3] = 1;
        head[99] = 4;
        head[103] = 104;
        let mut file = head.to_vec();
        file.resize(4 << 16, 0);
        // The table of counters names the block of counters, which counts each of these four clusters once.
        file[(1 << 16) + 5] = 2;
        for cluster in 0..4 {
            file[(2 << 16) + 2 * cluster + 1] = 1;
        }
        std::fs::write(&disk, file).unwrap();
        make(folder.path(), &disk, wanted_mb, None).await.unwrap();
        assert_eq!(size(&folder.path().join(OVERLAY)).unwrap(), expected_mb << 20);
    }

    #[tokio::test]
    async fn an_overlay_is_never_smaller_than_its_disk() {
        check(8, 0, 8).await;
        check(8, 4, 8).await;
        check(8, 32, 32).await;
    }

    #[tokio::test]
    async fn what_is_no_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("d");
        std::fs::write(&disk, [b'x'; 64]).unwrap();
        let error = make(folder.path(), &disk, 0, None).await.unwrap_err().to_string();
        assert!(error.contains("not a qcow2 file"), "{error}");
    }
}
