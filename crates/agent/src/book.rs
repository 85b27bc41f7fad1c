//! What became of tasks, on disk.
//!
//! Invariant: a task is written down before it begins, and its result before it is sent; both are on
//! the disk itself when the function returns. A task that was begun once is never begun again.
//! Not here: sending (`courier`).
//!
//! ```text
//! begun/ID     it runs, or it ran when the agent was ended
//! results/ID   the server does not have it yet
//! done/ID      the server has it; kept a while in case it asks again
//! ```

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::task::{Failure, Offer, TaskId};

/// How many delivered results are kept.
const DONE_MAX: usize = 1000;
/// How many bytes of delivered results are kept.
const DONE_BYTES_MAX: u64 = 64 << 20;
/// For how long: a server that asks again does so within minutes.
const DONE_FOR: Duration = Duration::from_secs(24 * 3600);

/// A task and, once it has ended, its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) claim: Option<String>,
    /// The checksum of the task.
    pub(crate) digest: String,
    pub(crate) result: Option<Value>,
}

/// What is known of a task that is offered.
#[derive(Debug, PartialEq)]
pub(crate) enum Known {
    /// Nothing: it may begin.
    New,
    /// It has run.
    Ended(Record),
}

/// The directory of records. One agent at a time holds it.
#[derive(Debug)]
pub(crate) struct Book {
    dir: PathBuf,
    done_max: usize,
    /// Its lock tells other agents that the directory is taken.
    _lock: File,
}

impl Book {
    /// Opens the book in `dir`, which is made if need be. Gives what is still to be sent: results, and
    /// for tasks that ran when the agent was ended a result that says so.
    ///
    /// # Errors
    /// When it cannot be read or written, or another agent uses it.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Vec<Record>)> {
        for sub in ["begun", "results", "done"] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir.join(sub))?;
        }
        let lock = File::create(dir.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another agent uses it; give each its own state_dir"))?;
        let book = Self { dir: dir.to_owned(), done_max: DONE_MAX, _lock: lock };
        for record in book.records("begun")? {
            let has_result = book.path("results", &record.id).exists();
            if has_result {
                // It was ended between the two steps of `finish`.
                fs::remove_file(book.path("begun", &record.id))?;
            } else {
                let msg = "the agent was ended while the task ran; it is not run again";
                let result = Some(Failure::new(msg).into_result());
                book.finish(&Record { result, ..record })?;
            }
        }
        let pending = book.records("results")?;
        Ok((book, pending))
    }

    /// What is known of the task that is offered.
    pub(crate) fn look(&self, offer: &Offer) -> Known {
        let digest = offer.digest();
        let found = ["results", "done"].iter().find_map(|sub| {
            let path = self.path(sub, offer.id.as_str());
            let record = read(&path).filter(|record| record.digest == digest)?;
            (*sub == "results" || age(&path) < DONE_FOR).then_some(record)
        });
        found.map_or(Known::New, |record| {
            Known::Ended(Record { claim: offer.claim.clone(), ..record })
        })
    }

    /// Writes down that the task begins.
    ///
    /// # Errors
    /// When it could not be written; then the task must not begin.
    pub(crate) fn begin(&self, offer: &Offer) -> io::Result<()> {
        let record = Record {
            id: offer.id.as_str().to_owned(),
            claim: offer.claim.clone(),
            digest: offer.digest(),
            result: None,
        };
        self.write("begun", &record)
    }

    /// Writes down what came of it.
    ///
    /// # Errors
    /// When it could not be written.
    pub(crate) fn finish(&self, record: &Record) -> io::Result<()> {
        self.write("results", record)?;
        remove_if_there(&self.path("begun", &record.id))
    }

    /// The server has the result.
    ///
    /// # Errors
    /// When it could not be moved; it will be sent again after a restart, which does no harm.
    pub(crate) fn delivered(&self, id: &TaskId) -> io::Result<()> {
        let id = id.as_str();
        match fs::rename(self.path("results", id), self.path("done", id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // There is one where the result could not be written.
        remove_if_there(&self.path("begun", id))?;
        self.prune()
    }

    /// Takes away delivered results that are too many, too large together, or too old.
    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.dir.join("done"))? {
            let path = entry?.path();
            files.push((age(&path), fs::metadata(&path).map_or(0, |found| found.len()), path));
        }
        files.sort_unstable();
        let mut bytes = 0;
        for (index, (age, length, path)) in files.iter().enumerate() {
            bytes += length;
            if index >= self.done_max || bytes > DONE_BYTES_MAX || *age > DONE_FOR {
                remove_if_there(path)?;
            }
        }
        Ok(())
    }

    fn path(&self, sub: &str, id: &str) -> PathBuf {
        self.dir.join(sub).join(id)
    }

    /// Writes beside, then renames: a reader finds the whole record or none.
    fn write(&self, sub: &str, record: &Record) -> io::Result<()> {
        let dir = self.dir.join(sub);
        let mut file = NamedTempFile::new_in(&self.dir)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.as_file().sync_data()?;
        file.persist(dir.join(&record.id)).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()
    }

    /// The records in `sub`. One that cannot be read is of no use to anybody and goes.
    fn records(&self, sub: &str) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(self.dir.join(sub))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match read(&path).filter(|record| record.id == name && TaskId::parse(&name).is_some()) {
                Some(record) => records.push(record),
                None => {
                    tracing::warn!("{}: not a record; removed", path.display());
                    remove_if_there(&path)?;
                }
            }
        }
        records.sort_by_key(|record| (record.id.len(), record.id.clone()));
        Ok(records)
    }
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn age(path: &Path) -> Duration {
    let modified = fs::metadata(path).and_then(|found| found.modified());
    // A time to come, after the clock went back, counts as now.
    modified
        .map_or(Duration::MAX, |time| SystemTime::now().duration_since(time).unwrap_or_default())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn offer(id: &str, claim: &str, body: Value) -> Offer {
        Offer { id: TaskId::parse(id).unwrap(), claim: Some(claim.to_owned()), body }
    }

    fn ended(offer: &Offer, result: Value) -> Record {
        Record {
            id: offer.id.to_string(),
            claim: offer.claim.clone(),
            digest: offer.digest(),
            result: Some(result),
        }
    }

    #[test]
    fn a_task_that_ran_gives_its_result_again_under_the_new_claim() {
        let dir = tempfile::tempdir().unwrap();
        let (book, _) = Book::open(dir.path()).unwrap();
        let first = offer("7", "c1", json!({"type": "x"}));
        assert_eq!(book.look(&first), Known::New);
        book.begin(&first).unwrap();
        book.finish(&ended(&first, json!(1))).unwrap();
        let again = offer("7", "c2", json!({"type": "x"}));
        assert_eq!(book.look(&again), Known::Ended(ended(&again, json!(1))));
        book.delivered(&first.id).unwrap();
        assert_eq!(book.look(&again), Known::Ended(ended(&again, json!(1))));
        assert_eq!(book.look(&offer("7", "c3", json!({"type": "y"}))), Known::New);
    }

    #[test]
    fn results_that_were_not_delivered_are_there_after_a_restart_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (book, pending) = Book::open(dir.path()).unwrap();
        assert_eq!(pending, []);
        let tasks = ["10", "9", "8"].map(|id| offer(id, "c", json!({})));
        for task in &tasks {
            book.begin(task).unwrap();
            book.finish(&ended(task, json!(true))).unwrap();
        }
        book.delivered(&tasks[2].id).unwrap();
        drop(book);
        let (_, pending) = Book::open(dir.path()).unwrap();
        assert_eq!(pending, [ended(&tasks[1], json!(true)), ended(&tasks[0], json!(true))]);
    }

    #[test]
    fn a_task_that_ran_when_the_agent_was_killed_is_reported_and_not_run_again() {
        let dir = tempfile::tempdir().unwrap();
        let task = offer("7", "c", json!({"type": "x"}));
        Book::open(dir.path()).unwrap().0.begin(&task).unwrap();
        let (book, pending) = Book::open(dir.path()).unwrap();
        assert_eq!(pending.len(), 1);
        assert_eq!(pending[0].result.as_ref().unwrap()["error"], true);
        assert!(matches!(book.look(&task), Known::Ended(_)));
        drop(book);
        assert_eq!(Book::open(dir.path()).unwrap().1, pending, "and once only");
    }

    #[test]
    fn delivered_results_are_kept_in_number() {
        let dir = tempfile::tempdir().unwrap();
        let (mut book, _) = Book::open(dir.path()).unwrap();
        book.done_max = 3;
        for id in 0..6 {
            let task = offer(&id.to_string(), "c", json!({}));
            book.finish(&ended(&task, json!(id))).unwrap();
            book.delivered(&task.id).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path().join("done")).unwrap().count(), 3);
    }

    #[test]
    fn two_agents_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (_book, _) = Book::open(dir.path()).unwrap();
        assert!(Book::open(dir.path()).unwrap_err().to_string().contains("another agent"));
    }

    #[test]
    fn a_torn_record_does_not_keep_the_agent_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        drop(Book::open(dir.path()).unwrap());
        fs::write(dir.path().join("results/5"), "{\"id\":").unwrap();
        fs::write(dir.path().join("begun/x"), "{}").unwrap();
        assert_eq!(Book::open(dir.path()).unwrap().1, []);
        assert!(!dir.path().join("results/5").exists());
    }
}
