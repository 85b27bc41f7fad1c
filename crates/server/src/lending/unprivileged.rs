//! Whom QEMU runs as when the server is root: somebody who owns nothing.
//!
//! Invariant: QEMU runs as root only where the folders cannot be reached otherwise, and the log says so.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use machines::qemu::User;

/// `nobody`, on every system.
const NOBODY: u32 = 65_534;

/// Whom QEMU is to run as; `None` is as the server.
pub(super) fn user(state: &Path, images: &Path) -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    if let Err(why) = open_the_way(state, images) {
        tracing::warn!("QEMU runs as root: {why}");
        return None;
    }
    // Who may use KVM is known by the group of its file.
    let gid = fs::metadata("/dev/kvm").map_or(NOBODY, |kvm| kvm.gid());
    Some(User { uid: NOBODY, gid: if gid == 0 { NOBODY } else { gid } })
}

/// Lets others pass through our folders, not look into them.
fn open_the_way(state: &Path, images: &Path) -> Result<(), String> {
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    for folder in [state.to_owned(), state.join("running"), state.join("snapshots")] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(&folder);
        made.map_err(|error| told(&folder, error))?;
        let passable = fs::Permissions::from_mode(0o711);
        fs::set_permissions(&folder, passable).map_err(|error| told(&folder, error))?;
    }
    for path in [state, images] {
        let path = fs::canonicalize(path).map_err(|error| told(path, error))?;
        for folder in path.ancestors() {
            let found = fs::metadata(folder).map_err(|error| told(folder, error))?;
            if found.mode() & 0o001 == 0 {
                return Err(format!(
                    "another user cannot pass through {}; `chmod o+x` it, or start the server as a user of its own",
                    folder.display()
                ));
            }
        }
    }
    Ok(())
}
