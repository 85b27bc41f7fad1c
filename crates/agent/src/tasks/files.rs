//! `dircontents` and `deletefile`.

use std::fs;
use std::path::{Component, Path};

use serde_json::{Value, json};

use crate::task::{Failure, Fields, Outcome, failed, nothing};

/// How many entries of a directory are told.
const ENTRIES_MAX: usize = 20_000;

/// What is in a directory, by name.
pub(super) fn dircontents(fields: Fields<'_>) -> Outcome {
    let dir = fields.path("dir")?;
    let entries = fs::read_dir(&dir).map_err(failed(dir.display()))?;
    let mut contents = Vec::new();
    let mut truncated = false;
    for entry in entries {
        let entry = entry.map_err(failed(dir.display()))?;
        if contents.len() == ENTRIES_MAX {
            truncated = true;
            break;
        }
        let path = entry.path();
        // A link to a directory is one to whoever wants to go there; a broken one is not.
        let is_dir = fs::metadata(&path).is_ok_and(|found| found.is_dir());
        contents.push((entry.file_name().to_string_lossy().into_owned(), is_dir, path));
    }
    contents.sort_unstable();
    let contents: Vec<Value> = contents
        .into_iter()
        .map(|(name, dir, path)| json!({"name": name, "dir": dir, "fullpath": path.to_string_lossy()}))
        .collect();
    let mut result = json!({ "contents": contents });
    if truncated {
        result["truncated"] = true.into();
    }
    Ok(result)
}

/// Deletes a file, a link (not what it points to), or a directory with all that is in it.
pub(super) fn deletefile(fields: Fields<'_>) -> Outcome {
    let path = fields.path("path")?;
    check_named(&path)?;
    let found = fs::symlink_metadata(&path).map_err(failed(path.display()))?;
    let deleted = if found.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    deleted.map_err(failed(path.display()))?;
    Ok(nothing())
}

/// Whether the path names something inside a directory, without a step up: `/`, `/a/..` do not.
pub(super) fn check_named(path: &Path) -> Result<(), Failure> {
    let has_steps_up = path.components().any(|part| part == Component::ParentDir);
    if path.file_name().is_none() || has_steps_up {
        let path = path.display();
        return Err(Failure::new(format!("{path}: the root, or a path with `..`, is not touched")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn contents_are_told_by_name_and_links_by_where_they_lead() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b"), "").unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        symlink(dir.path().join("a"), dir.path().join("c")).unwrap();
        symlink("nowhere", dir.path().join("d")).unwrap();
        let result = dircontents(Fields(&json!({ "dir": dir.path() }))).unwrap();
        let entry = |name: &str, is_dir| json!({"name": name, "dir": is_dir, "fullpath": dir.path().join(name)});
        let contents = [entry("a", true), entry("b", false), entry("c", true), entry("d", false)];
        assert_eq!(result, json!({ "contents": contents }));
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_named() {
        let result = dircontents(Fields(&json!({"dir": "/no/such/dir"}))).unwrap_err();
        assert!(result.into_result()["msg"].as_str().unwrap().starts_with("/no/such/dir: "));
    }

    #[test]
    fn a_directory_is_deleted_with_its_contents_and_a_link_without_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree/deep");
        fs::create_dir_all(&tree).unwrap();
        fs::write(dir.path().join("kept"), "").unwrap();
        symlink(dir.path(), tree.join("link")).unwrap();
        let delete = |path: &Path| deletefile(Fields(&json!({ "path": path })));
        assert_eq!(delete(&dir.path().join("tree")), Ok(nothing()));
        assert!(!dir.path().join("tree").exists() && dir.path().join("kept").exists());
        assert_eq!(delete(&dir.path().join("kept")), Ok(nothing()));
        assert!(delete(&dir.path().join("kept")).is_err(), "it is not there any more");
    }

    #[test]
    fn the_root_and_steps_up_are_not_touched() {
        for path in ["/", "//", "/tmp/..", "/tmp/../tmp/no-such-thing", "/.", "relative"] {
            assert!(deletefile(Fields(&json!({ "path": path }))).is_err(), "{path}");
        }
    }
}
