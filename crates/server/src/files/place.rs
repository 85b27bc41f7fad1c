//! The directory of files in transfer, and the space in it.
//!
//! Invariant: what is counted as taken is what files and drafts take; nobody else's file in the directory is touched.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::{Mutex, mpsc};

use super::name::FileId;
use super::{FileError, Settings};

/// What the name of a draft ends in.
const DRAFT: &str = ".part";
/// What the shortest file counts for, in bytes, so that there are not too many of them.
pub(super) const COST_LEAST: u64 = 64 << 10;

/// A file whose row is no longer there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone {
    pub(super) id: FileId,
    pub(super) bytes: u64,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Place {
    settings: Settings,
    space: u64,
    taken: AtomicU64,
    going: mpsc::UnboundedSender<Gone>,
    gone: Mutex<mpsc::UnboundedReceiver<Gone>>,
}

impl Place {
    /// The directory with the `known` files. What is not known is removed if it is ours; what is known and not there
    /// is given back.
    pub(super) fn open(
        settings: Settings,
        space: u64,
        known: &[(FileId, u64)],
    ) -> Result<(Self, Vec<FileId>), FileError> {
        let (going, gone) = mpsc::unbounded_channel();
        let gone = Mutex::new(gone);
        let place = Self { settings, space, taken: AtomicU64::new(0), going, gone };
        let there = place.clean(&known.iter().map(|(id, _)| *id).collect())?;
        let (kept, missing): (Vec<_>, Vec<_>) =
            known.iter().partition(|(id, _)| there.contains(id));
        // More than there is space for, when that has become less: then nothing is taken until some have gone.
        place.taken.store(kept.iter().map(|(_, bytes)| cost(*bytes)).sum(), Relaxed);
        Ok((place, missing.into_iter().map(|(id, _)| id).collect()))
    }

    /// Removes what a crash has left, and says what is there.
    fn clean(&self, known: &HashSet<FileId>) -> io::Result<HashSet<FileId>> {
        let mut there = HashSet::new();
        let entries = match fs::read_dir(&self.settings.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(there),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            match FileId::parse(name) {
                Some(id) if known.contains(&id) => {
                    there.insert(id);
                    continue;
                }
                Some(_) => {}
                None if name.strip_suffix(DRAFT).is_some_and(|id| FileId::parse(id).is_some()) => {}
                // Somebody else's.
                None => continue,
            }
            fs::remove_file(entry.path())?;
        }
        Ok(there)
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.settings.bytes_max
    }

    /// Takes space, or none of it.
    pub(super) fn take(&self, bytes: u64) -> Result<(), FileError> {
        let fits = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.space);
        self.taken.fetch_update(Relaxed, Relaxed, fits).map(drop).map_err(|_| FileError::NoSpace)
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Relaxed);
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.settings.directory.join(id.to_string())
    }

    fn draft_path(&self, id: FileId) -> PathBuf {
        self.settings.directory.join(format!("{id}{DRAFT}"))
    }

    /// Makes an empty draft.
    pub(super) fn create(&self, id: FileId) -> io::Result<File> {
        let path = self.draft_path(id);
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match create() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let directory = &self.settings.directory;
                DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
                let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
                File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
                create()
            }
            created => created,
        }
    }

    /// The draft is written to its end: it becomes the file.
    pub(super) fn publish(&self, id: FileId) -> io::Result<()> {
        fs::rename(self.draft_path(id), self.path(id))?;
        File::open(&self.settings.directory)?.sync_all()
    }

    /// Removes a draft, also one that has become the file.
    pub(super) fn drop_draft(&self, id: FileId) {
        let removed = match fs::remove_file(self.draft_path(id)) {
            Err(error) if error.kind() == ErrorKind::NotFound => fs::remove_file(self.path(id)),
            removed => removed,
        };
        if let Err(error) = removed {
            tracing::warn!("a file that broke off stays until the next start: {error}");
        }
    }

    /// Opens a file; `None` when it has just gone.
    pub(super) fn read(&self, id: FileId) -> io::Result<Option<File>> {
        match File::open(self.path(id)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The file has no row any more; it is removed soon.
    pub(super) fn send_away(&self, gone: Gone) {
        // Nobody listens when the server ends; the next start sees to it.
        let _ = self.going.send(gone);
    }

    /// Waits for a file that is to be removed.
    pub(super) async fn next_gone(&self) -> Gone {
        match self.gone.lock().await.recv().await {
            Some(gone) => gone,
            // It does not happen: the sender is ours.
            None => std::future::pending().await,
        }
    }

    /// Removes a file and gives its space back.
    pub(super) fn discard(&self, gone: &Gone) -> io::Result<()> {
        match fs::remove_file(self.path(gone.id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.give_back(cost(gone.bytes));
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }
}

/// What a file of so many bytes counts for.
pub(super) fn cost(bytes: u64) -> u64 {
    bytes.max(COST_LEAST)
}
