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
pub(super) fn user(state: &Path, images: &Path, iso: Option<&Path>) -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    if let Err(why) = open_the_way(state, images, iso) {
        tracing::warn!("QEMU runs as root: {why}");
        return None;
    }
    // Who may use KVM is known by the group of its file.
    let gid = fs::metadata("/dev/kvm").map_or(NOBODY, |kvm| kvm.gid());
    Some(User { uid: NOBODY, gid: if gid == 0 { NOBODY } else { gid } })
}

/// Lets others pass through our folders, not look into them.
fn open_the_way(state: &Path, images: &Path, iso: Option<&Path>) -> Result<(), String> {
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    for folder in [state.to_owned(), state.join("running"), state.join("snapshots")] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(&folder);
        made.map_err(|error| told(&folder, error))?;
        let passable = fs::Permissions::from_mode(0o711);
        fs::set_permissions(&folder, passable).map_err(|error| told(&folder, error))?;
    }
    for path in [Some(state), Some(images), iso.and_then(Path::parent)].into_iter().flatten() {
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            // Nothing is read there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(told(path, error)),
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_are_closed_are_named_and_missing_ones_are_no_matter() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(open_the_way(&at("state"), &at("images"), None), Ok(()));
        fs::DirBuilder::new().mode(0o700).create(at("closed")).unwrap();
        let (closed, iso) = (at("closed"), at("closed/a.iso"));
        let why = open_the_way(&at("state"), &at("images"), Some(&iso)).unwrap_err();
        assert!(why.contains("pass through") && why.contains("closed"), "{why}");
        assert!(open_the_way(&at("state"), &closed, None).is_err());
    }
}
