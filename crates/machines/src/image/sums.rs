//! SHA-256 of files, remembered for as long as a file is untouched.
//!
//! Invariant: a sum is given only for a file whose size, times and inode are those it had when it was summed, before
//! and after. Whoever can write the remembered sums can write the images as well.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What changes when a file is touched. The time of the inode's last change cannot be set by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &fs::Metadata) -> Self {
        Self {
            size: file.size(),
            device: file.dev(),
            inode: file.ino(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    sha256: String,
}

/// Remembered sums, by path.
#[derive(Debug, Default)]
pub(super) struct Sums(BTreeMap<String, Known>);

impl Sums {
    /// What was remembered in `file`; nothing where that cannot be read.
    pub(super) fn load(file: &Path) -> Self {
        let known = fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self(known.unwrap_or_default())
    }

    /// Keeps them in `file`. That it cannot be written costs time at the next start, and nothing else.
    pub(super) fn keep(&self, file: &Path) {
        let fresh = file.with_extension("new");
        let written = serde_json::to_vec(&self.0)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&fresh, text))
            .and_then(|()| fs::rename(&fresh, file));
        if let Err(error) = written {
            tracing::debug!(file = %file.display(), %error, "sums of an image are not kept");
        }
    }

    /// The sum of a file, and whether it had to be read for that.
    pub(super) fn of(&mut self, path: &Path) -> io::Result<(String, bool)> {
        let key = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = open(path)?;
        let stamp = Stamp::of(&file.metadata()?);
        if let Some(known) = self.0.get(&key).filter(|known| known.stamp == stamp) {
            return Ok((known.sha256.clone(), false));
        }
        let sha256 = sum(&file)?;
        if Stamp::of(&file.metadata()?) != stamp {
            return Err(io::Error::other("it was changed while it was read"));
        }
        self.0.insert(key, Known { stamp, sha256: sha256.clone() });
        Ok((sha256, true))
    }
}

/// Opens a file of an image: a regular one, at this path itself.
pub(super) fn open(path: &Path) -> io::Result<File> {
    // A pipe in the place of a file would keep whoever opens it.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    File::open(path)
}

/// SHA-256 of all there is to read, in lower-case hexadecimal.
pub(super) fn sum(mut file: &File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// SHA-256 of a text.
pub(super) fn sum_of_text(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_only_when_it_was_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (path, kept) = (folder.path().join("a"), folder.path().join(".sums"));
        fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut sums = Sums::default();
        assert_eq!(sums.of(&path).unwrap(), (abc.to_owned(), true));
        assert_eq!(sums.of(&path).unwrap(), (abc.to_owned(), false));
        sums.keep(&kept);
        assert_eq!(Sums::load(&kept).of(&path).unwrap(), (abc.to_owned(), false));
        // Another file with the same bytes, moved to its place: its inode tells.
        fs::write(folder.path().join("b"), "abc").unwrap();
        fs::rename(folder.path().join("b"), &path).unwrap();
        assert_eq!(sums.of(&path).unwrap(), (abc.to_owned(), true));
        fs::write(&path, "abd").unwrap();
        assert_ne!(sums.of(&path).unwrap().0, abc);
    }

    #[test]
    fn what_is_remembered_badly_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join(".sums");
        fs::write(&kept, "{\"a\": 1}").unwrap();
        assert!(Sums::load(&kept).0.is_empty());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "abc").unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("link")).unwrap();
        assert!(open(&folder.path().join("a")).is_ok());
        assert!(open(&folder.path().join("link")).is_err());
        assert!(open(folder.path()).is_err());
    }
}
