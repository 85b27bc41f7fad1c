//! The file of handings-out, beside the database.
//!
//! A handing-out is noted at the moment it is written to a connection, which can wait for no sync; so it is appended
//! here, where it survives the end of the process at any moment. After a loss of power a task that had just been
//! handed out may be handed out again.
//!
//! Invariant: the last record of a task that has not ended says how far its handing-out has come.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use database::{Database, DatabaseError};

use crate::store::{ClaimNote, Progress};
use crate::task::{Claim, TaskId};

const RECORD_BYTES: usize = 40;
const HEAD: &[u8; 8] = b"gh-claim";
/// The file is written anew when it has become so much longer, or twice as long.
const GROWTH_MIN: u64 = 4 << 20;

/// The file. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct ClaimFile(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    length: u64,
    /// How long it may become before it is written anew.
    length_max: u64,
    /// The last note of each task that has not ended.
    notes: HashMap<TaskId, ClaimNote>,
    has_failed: bool,
}

impl ClaimFile {
    /// Opens the file that belongs to `database`, and locks it.
    pub(super) fn open(database: &Database) -> Result<Self, DatabaseError> {
        let mut path = database.path().as_os_str().to_owned();
        path.push("-claims");
        let path = PathBuf::from(path);
        let failed = |why: String| DatabaseError::Open { path: path.clone(), why };
        let file = open_private(&path).map_err(|error| failed(error.to_string()))?;
        file.try_lock().map_err(|_| failed("another server serves from this database".into()))?;
        let (notes, length) = read(&file).map_err(|error| failed(error.to_string()))?;
        // What lies behind the end is of an earlier time and must not be met again when the end moves there.
        file.set_len(length).map_err(|error| failed(error.to_string()))?;
        let length_max = length + GROWTH_MIN;
        let inner =
            Inner { path: path.clone(), file, length, length_max, notes, has_failed: false };
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last note of each task.
    pub(super) fn notes(&self) -> HashMap<TaskId, ClaimNote> {
        self.inner().notes.clone()
    }

    /// Appends a note.
    pub(super) fn note(&self, note: ClaimNote) {
        let mut inner = self.inner();
        // The end of a task, or its next handing-out, can overtake the news that it has been sent.
        let held = inner.notes.get(&note.task).map(|held| held.claim);
        if held > Some(note.claim) || (held.is_none() && note.progress != Progress::Sending) {
            return;
        }
        inner.notes.insert(note.task, note);
        let written = inner.file.write_all_at(&record(&note), inner.length);
        match written {
            Ok(()) => inner.length += RECORD_BYTES as u64,
            Err(error) if !inner.has_failed => {
                inner.has_failed = true;
                tracing::error!(
                    "{}: {error}; after a crash, tasks may be handed out twice",
                    inner.path.display()
                );
            }
            Err(_) => {}
        }
        if inner.length > inner.length_max {
            let notes: Vec<_> = inner.notes.values().copied().collect();
            if let Err(error) = inner.rewrite(&notes) {
                tracing::warn!("{}: {error}", inner.path.display());
            }
        }
    }

    /// The task has ended: nothing need be known of it.
    pub(super) fn forget(&self, task: TaskId) {
        self.inner().notes.remove(&task);
    }

    /// Keeps these notes alone.
    pub(super) fn rewrite(&self, notes: &[ClaimNote]) -> Result<(), DatabaseError> {
        let mut inner = self.inner();
        let path = inner.path.clone();
        inner.rewrite(notes).map_err(|error| DatabaseError::Open { path, why: error.to_string() })
    }
}

impl Inner {
    /// In place: all notes behind the old ones first, then the head that says where they begin.
    fn rewrite(&mut self, notes: &[ClaimNote]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(notes.len() * RECORD_BYTES);
        for note in notes {
            bytes.extend_from_slice(&record(note));
        }
        // What is moved to the front may overwrite nothing that is still needed; where it would, it goes behind.
        let head_bytes = (HEAD.len() + 8) as u64;
        let old_start = start(&self.file)?;
        let fits = head_bytes + (bytes.len() + RECORD_BYTES) as u64 <= old_start;
        let at = if fits { head_bytes } else { self.length.max(head_bytes) };
        self.file.write_all_at(&bytes, at)?;
        let end = at + bytes.len() as u64;
        // A record of zeros ends the list, whatever stood there.
        self.file.write_all_at(&[0; RECORD_BYTES], end)?;
        let mut head = HEAD.to_vec();
        head.extend_from_slice(&at.to_le_bytes());
        self.file.write_all_at(&head, 0)?;
        if fits {
            self.file.set_len(end)?;
        }
        self.length = end;
        // Many tasks may be under way: then the next time is as far away as what has now been written is long.
        self.length_max = end + GROWTH_MIN.max(bytes.len() as u64);
        self.notes = notes.iter().map(|note| (note.task, *note)).collect();
        Ok(())
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Where the records begin; a file without a head has none.
fn start(file: &File) -> io::Result<u64> {
    let mut head = [0; 16];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) if head.starts_with(HEAD) => {
            Ok(u64::from_le_bytes(head[8..].try_into().unwrap_or_default()))
        }
        Ok(()) => Ok(16),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(16),
        Err(error) => Err(error),
    }
}

fn read(file: &File) -> io::Result<(HashMap<TaskId, ClaimNote>, u64)> {
    let mut notes = HashMap::new();
    let start = start(file)?;
    let length = file.metadata()?.len();
    let bytes = usize::try_from(length.saturating_sub(start)).unwrap_or(0);
    let mut content = vec![0; bytes];
    file.read_exact_at(&mut content, start)?;
    let mut end = start;
    for bytes in content.chunks_exact(RECORD_BYTES) {
        let Some(note) = note(bytes) else { break };
        notes.insert(note.task, note);
        end += RECORD_BYTES as u64;
    }
    Ok((notes, end))
}

fn record(note: &ClaimNote) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[0..8].copy_from_slice(&note.task.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&note.claim.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&note.until_ms.unwrap_or(0).to_le_bytes());
    bytes[24..32].copy_from_slice(&note.taken_at.to_le_bytes());
    bytes[32..36].copy_from_slice(&note.attempts.to_le_bytes());
    bytes[36] = match note.progress {
        Progress::Sending => 1,
        Progress::Sent => 2,
        Progress::Returned => 3,
    };
    bytes
}

fn note(bytes: &[u8]) -> Option<ClaimNote> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let progress = match bytes.get(36)? {
        1 => Progress::Sending,
        2 => Progress::Sent,
        3 => Progress::Returned,
        _ => return None,
    };
    Some(ClaimNote {
        task: TaskId(number(0)?),
        claim: Claim(number(8)?),
        until_ms: Some(number(16)?).filter(|until| *until > 0),
        taken_at: number(24)?,
        attempts: u32::from_le_bytes(bytes.get(32..36)?.try_into().ok()?),
        progress,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(directory: &tempfile::TempDir) -> Database {
        Database::open(&directory.path().join("t.db"), &[super::super::MIGRATIONS]).unwrap()
    }

    fn sample(task: u64, progress: Progress) -> ClaimNote {
        ClaimNote {
            task: TaskId(task),
            claim: Claim(task + 100),
            progress,
            attempts: 3,
            until_ms: (task.is_multiple_of(2)).then_some(99),
            taken_at: 7,
        }
    }

    #[test]
    fn the_last_note_of_a_task_is_found_after_a_new_start() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(&directory);
        let file = ClaimFile::open(&database).unwrap();
        for task in 1..=4 {
            file.note(sample(task, Progress::Sending));
        }
        file.note(sample(2, Progress::Sent));
        file.note(sample(3, Progress::Returned));
        drop(file);
        let notes = ClaimFile::open(&database).unwrap().notes();
        assert_eq!(notes.len(), 4);
        assert_eq!(notes[&TaskId(1)], sample(1, Progress::Sending));
        assert_eq!(notes[&TaskId(2)], sample(2, Progress::Sent));
        assert_eq!(notes[&TaskId(3)], sample(3, Progress::Returned));
    }

    #[test]
    fn a_long_file_is_written_anew_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(&directory);
        let file = ClaimFile::open(&database).unwrap();
        for task in 1..=2 {
            file.note(sample(task, Progress::Sending));
            file.note(sample(task, Progress::Sent));
        }
        for task in 10..300_000 {
            file.note(sample(task, Progress::Sending));
            file.forget(TaskId(task));
        }
        file.note(sample(5, Progress::Sending));
        let length = file.inner().file.metadata().unwrap().len();
        assert!(length <= 3 * GROWTH_MIN, "{length}");
        drop(file);
        let notes = ClaimFile::open(&database).unwrap().notes();
        for (task, progress) in [(1, Progress::Sent), (2, Progress::Sent), (5, Progress::Sending)] {
            assert_eq!(notes.get(&TaskId(task)), Some(&sample(task, progress)));
        }
    }

    #[test]
    fn a_torn_record_at_the_end_is_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(&directory);
        let file = ClaimFile::open(&database).unwrap();
        file.note(sample(1, Progress::Sending));
        let end = file.inner().length;
        file.inner().file.write_all_at(&record(&sample(2, Progress::Sent))[..20], end).unwrap();
        drop(file);
        let file = ClaimFile::open(&database).unwrap();
        assert_eq!(file.notes().len(), 1);
        file.note(sample(3, Progress::Sending));
        drop(file);
        assert_eq!(ClaimFile::open(&database).unwrap().notes().len(), 2);
    }

    #[test]
    fn what_a_rewriting_left_behind_the_end_is_not_met_again() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(&directory);
        let file = ClaimFile::open(&database).unwrap();
        // The end of the records, and behind it what was there before: the process ended before it was cut off.
        let sent = sample(1, Progress::Sent);
        file.note(sample(1, Progress::Sending));
        file.note(sent);
        {
            let inner = file.inner();
            inner.file.write_all_at(&[0; RECORD_BYTES], inner.length).unwrap();
            let stale = record(&sample(1, Progress::Returned));
            inner.file.write_all_at(&stale, inner.length + RECORD_BYTES as u64).unwrap();
        }
        drop(file);
        let file = ClaimFile::open(&database).unwrap();
        assert_eq!(file.notes()[&TaskId(1)], sent);
        file.note(sample(2, Progress::Sending));
        drop(file);
        assert_eq!(ClaimFile::open(&database).unwrap().notes()[&TaskId(1)], sent);
    }

    #[test]
    fn many_tasks_under_way_are_not_written_anew_for_each_note() {
        const TASKS: u64 = 150_000;
        let directory = tempfile::tempdir().unwrap();
        let file = ClaimFile::open(&database(&directory)).unwrap();
        let mut rewritings = 0;
        let mut length = file.inner().length;
        for task in (1..=TASKS).chain(1..=TASKS) {
            file.note(sample(task, Progress::Sending));
            let new = file.inner().length;
            rewritings += u32::from(new != length + RECORD_BYTES as u64);
            length = new;
        }
        assert!((1..=4).contains(&rewritings), "{rewritings}");
    }

    #[test]
    fn two_servers_do_not_share_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let database = database(&directory);
        let _held = ClaimFile::open(&database).unwrap();
        let refused = ClaimFile::open(&database).unwrap_err();
        assert!(refused.to_string().contains("another server"), "{refused}");
    }
}
