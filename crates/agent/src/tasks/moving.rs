//! `movefile`, from one file system to another too.
//!
//! Invariant: what is moved is whole at its old place or at its new one; a move that fails leaves
//! nothing half done behind.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::files::check_named;
use crate::stop::Cancel;
use crate::task::{Failure, Fields, Outcome, failed, nothing};

/// How deep a directory may be that is copied.
const DEPTH_MAX: usize = 256;

/// Moves a file or a directory. A file at the new place is replaced, as `rename` does.
pub(super) fn movefile(fields: Fields<'_>, cancel: &Cancel) -> Outcome {
    let (from, to) = (fields.path("frompath")?, fields.path("topath")?);
    check_named(&from)?;
    check_named(&to)?;
    match fs::rename(&from, &to) {
        Ok(()) => Ok(nothing()),
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            move_by_copy(&from, &to, cancel).map(|()| nothing())
        }
        Err(error) => Err(failed(format_args!("{} to {}", from.display(), to.display()))(error)),
    }
}

/// Copies beside the new place, puts the copy there in one step, then deletes the original.
fn move_by_copy(from: &Path, to: &Path, cancel: &Cancel) -> Result<(), Failure> {
    let parent = to.parent().unwrap_or(Path::new("/"));
    let place = tempfile::Builder::new().prefix(".moving-").tempdir_in(parent);
    let place = place.map_err(failed(parent.display()))?;
    let copied = place.path().join("copy");
    copy(from, &copied, cancel, DEPTH_MAX).map_err(failed(from.display()))?;
    fs::rename(&copied, to).map_err(failed(to.display()))?;
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed(parent.display()))?;
    let is_dir = fs::symlink_metadata(from).is_ok_and(|found| found.is_dir());
    let deleted = if is_dir { fs::remove_dir_all(from) } else { fs::remove_file(from) };
    deleted.map_err(failed(format_args!("{} is copied, but not deleted", from.display())))
}

fn copy(from: &Path, to: &Path, cancel: &Cancel, depth: usize) -> io::Result<()> {
    if let Some(reason) = cancel.reason() {
        return Err(io::Error::other(reason));
    }
    let found = fs::symlink_metadata(from)?;
    if found.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if found.is_file() {
        fs::copy(from, to)?;
        return File::open(to)?.sync_all();
    }
    let name = from.display();
    if !found.is_dir() {
        return Err(io::Error::other(format!("{name} is neither a file, a link nor a directory")));
    }
    let deeper = depth.checked_sub(1);
    let deeper = deeper.ok_or_else(|| io::Error::other(format!("{name} is too deep")))?;
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()), cancel, deeper)?;
    }
    // Last: a directory that may not be written could not have been filled.
    fs::set_permissions(to, found.permissions())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use serde_json::json;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_is_moved_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        let body = json!({"frompath": from, "topath": to});
        assert_eq!(movefile(Fields(&body), &Cancel::default()), Ok(nothing()));
        assert_eq!(fs::read_to_string(&to).unwrap(), "new");
        assert!(movefile(Fields(&body), &Cancel::default()).is_err(), "it is not there any more");
    }

    #[test]
    fn a_copy_across_file_systems_keeps_contents_permissions_and_links() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/run"), "#!").unwrap();
        fs::set_permissions(from.join("sub/run"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("sub/run", from.join("link")).unwrap();
        fs::set_permissions(from.join("sub"), fs::Permissions::from_mode(0o700)).unwrap();
        move_by_copy(&from, &to, &Cancel::default()).unwrap();
        assert_eq!(names(dir.path()), ["b"]);
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("sub/run"), mode("sub")), (0o750, 0o700));
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("sub/run"));
    }

    #[test]
    fn a_move_that_fails_leaves_the_original_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("file"), "x").unwrap();
        let _socket = UnixListener::bind(from.join("socket")).unwrap();
        assert!(move_by_copy(&from, &to, &Cancel::default()).is_err());
        assert_eq!(
            (names(dir.path()), names(&from)),
            (vec!["a".into()], vec!["file".into(), "socket".into()])
        );
        let cancel = Cancel::default();
        cancel.fire("stopped");
        fs::remove_file(from.join("socket")).unwrap();
        assert!(move_by_copy(&from, &to, &cancel).is_err());
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn another_file_system_is_reached_where_there_is_one() {
        use std::os::unix::fs::MetadataExt;
        let Ok(there) = tempfile::tempdir_in("/dev/shm") else { return };
        let here = tempfile::tempdir().unwrap();
        let device = |dir: &Path| fs::metadata(dir).unwrap().dev();
        if device(here.path()) == device(there.path()) {
            return;
        }
        fs::write(here.path().join("a"), "x").unwrap();
        let body = json!({"frompath": here.path().join("a"), "topath": there.path().join("b")});
        assert_eq!(movefile(Fields(&body), &Cancel::default()), Ok(nothing()));
        assert_eq!((names(here.path()).len(), names(there.path())), (0, vec!["b".to_owned()]));
    }
}
