//! The one thread that writes.
//!
//! Invariant: a job is told its outcome after the transaction that held it was committed with a sync, or has failed;
//! jobs run and are told in the order in which they were submitted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;

use crate::FOREIGN_CHANGE_DELAY;
use crate::checkpoint::Checkpoints;
use crate::error::DatabaseError;

/// More writes than this never wait; whoever comes then is told so at once.
const WAITING_MAX: usize = 100_000;
/// Jobs of one transaction.
const BATCH_MAX: usize = 2048;
/// How long the thread waits, at most, for others to share a sync when many were seen to write at once; and never
/// longer than half a commit takes.
const GATHER_MAX: Duration = Duration::from_micros(400);
/// Fewer than this at once are not waited for.
const GATHER_MIN: usize = 4;

/// Something to be written.
pub(crate) trait Job: Send {
    /// Does it, within the transaction of a batch; the error is why it alone failed.
    fn run(&mut self, connection: &Connection) -> Result<(), DatabaseError>;
    /// The transaction was committed, or not.
    fn end(self: Box<Self>, outcome: Result<(), DatabaseError>);
}

/// A job that gives a value, and who is told of it.
pub(crate) struct Typed<T, J, A> {
    has_savepoint: bool,
    job: Option<J>,
    value: Option<Result<T, DatabaseError>>,
    then: A,
}

impl<T, J, A> Typed<T, J, A> {
    pub(crate) fn new(has_savepoint: bool, job: J, then: A) -> Self {
        Self { has_savepoint, job: Some(job), value: None, then }
    }
}

impl<T, J, A> Job for Typed<T, J, A>
where
    T: Send,
    J: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send,
    A: FnOnce(Result<T, DatabaseError>) + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), DatabaseError> {
        let Some(job) = self.job.take() else { return Ok(()) };
        let value =
            if self.has_savepoint { within_savepoint(connection, job) } else { job(connection) };
        let value = value.map_err(DatabaseError::from);
        let outcome = value.as_ref().map(|_| ()).map_err(DatabaseError::clone);
        self.value = Some(value);
        outcome
    }

    fn end(self: Box<Self>, outcome: Result<(), DatabaseError>) {
        let value = self.value.unwrap_or(Err(DatabaseError::Ended));
        (self.then)(outcome.and(value));
    }
}

fn within_savepoint<T>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
) -> Result<T, rusqlite::Error> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let outcome = job(connection);
    if outcome.is_err() && !connection.is_autocommit() {
        connection.prepare_cached("ROLLBACK TO job")?.execute([])?;
    }
    if !connection.is_autocommit() {
        connection.prepare_cached("RELEASE job")?.execute([])?;
    }
    outcome
}

/// What waits for the thread.
#[derive(Default)]
struct Queue {
    jobs: Vec<Box<dyn Job>>,
    is_closed: bool,
    /// The thread is woken when so many wait.
    wanted: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl Shared {
    /// Waits until `wanted` jobs are there, the queue is closed, or some time has passed.
    fn wait<'a>(
        &self,
        mut queue: MutexGuard<'a, Queue>,
        wanted: usize,
        at_most: Duration,
    ) -> MutexGuard<'a, Queue> {
        queue.wanted = wanted;
        let waited = self.arrived.wait_timeout_while(queue, at_most, |queue| {
            queue.jobs.len() < queue.wanted && !queue.is_closed
        });
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the thread; dropping it waits for what was submitted.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    pub(crate) foreign: watch::Sender<u64>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Writer {
    pub(crate) fn start(path: &Path, mut connection: Connection) -> Result<Self, DatabaseError> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { wanted: 1, ..Queue::default() }),
            arrived: Condvar::new(),
        });
        let foreign = watch::Sender::new(0);
        let checkpoints = Checkpoints::start(path)?;
        // SQLite's own hook would make the writes of a batch wait for a checkpoint.
        let seen = Arc::clone(&checkpoints.pages);
        connection
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
                seen.store(usize::try_from(pages).unwrap_or(0), Relaxed);
                Ok(())
            }))
            .map_err(|error| DatabaseError::of_opening(path, &error))?;
        let mut desk = Desk {
            shared: Arc::clone(&shared),
            connection,
            foreign: foreign.clone(),
            checkpoints,
            data_version: None,
            looked_at: Instant::now(),
            crowd: 0,
            last_batch: 0,
            last_commit: Duration::ZERO,
        };
        desk.look_for_foreign_changes();
        let thread = std::thread::Builder::new()
            .name("database".into())
            .spawn(move || desk.work())
            .map_err(|error| DatabaseError::Open {
                path: path.to_owned(),
                why: error.to_string(),
            })?;
        Ok(Self { shared, thread: Some(thread), foreign })
    }

    pub(crate) fn submit(&self, job: Box<dyn Job>) {
        let mut queue = self.shared.queue();
        if queue.is_closed || queue.jobs.len() >= WAITING_MAX {
            let why = if queue.is_closed { DatabaseError::Ended } else { DatabaseError::Busy };
            drop(queue);
            return job.end(Err(why));
        }
        queue.jobs.push(job);
        let is_enough = queue.jobs.len() == queue.wanted;
        drop(queue);
        if is_enough {
            self.shared.arrived.notify_one();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue().is_closed = true;
        self.shared.arrived.notify_one();
        let Some(thread) = self.thread.take() else { return };
        // The last owner may be a job that ended on the thread itself, which then ends by itself.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// The thread's own things.
struct Desk {
    shared: Arc<Shared>,
    connection: Connection,
    foreign: watch::Sender<u64>,
    checkpoints: Checkpoints,
    data_version: Option<i64>,
    looked_at: Instant,
    /// How many were lately seen to write at once.
    crowd: usize,
    last_batch: usize,
    last_commit: Duration,
}

impl Desk {
    fn work(mut self) {
        let mut batch = Vec::new();
        while self.take(&mut batch) {
            if self.looked_at.elapsed() >= FOREIGN_CHANGE_DELAY / 4 {
                self.look_for_foreign_changes();
            }
            if batch.is_empty() {
                continue;
            }
            let begin = Instant::now();
            let outcome = self.commit_caught(&mut batch);
            self.last_commit = begin.elapsed();
            if let Err(error) = &outcome {
                tracing::error!(writes = batch.len(), "nothing of a batch was written: {error}");
            }
            for job in batch.drain(..) {
                let outcome = outcome.clone();
                // Whoever waits for the next one must be told all the same.
                if catch_unwind(AssertUnwindSafe(|| job.end(outcome))).is_err() {
                    tracing::error!("who was to be told of a write failed");
                }
            }
            // After the jobs have been told, so that nobody waits for it.
            self.checkpoints.look(&self.connection);
        }
        let _ = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    /// Takes what waits; returns with nothing after a while, and says whether to go on.
    ///
    /// A sync costs the same for one write and for fifty. Where many were seen to write at once, half of them are
    /// waited for: while their writes are synced the others can get theirs ready.
    fn take(&mut self, batch: &mut Vec<Box<dyn Job>>) -> bool {
        let mut queue = self.shared.queue();
        // What has gathered while the last batch was committed, and that batch, were there at once.
        self.crowd = (self.crowd + queue.jobs.len() + self.last_batch).div_ceil(2);
        if queue.jobs.is_empty() && !queue.is_closed {
            queue = self.shared.wait(queue, 1, FOREIGN_CHANGE_DELAY / 2);
        }
        let wanted = self.crowd / 2;
        if wanted >= GATHER_MIN && !queue.jobs.is_empty() && queue.jobs.len() < wanted {
            queue = self.shared.wait(queue, wanted, GATHER_MAX.min(self.last_commit / 2));
        }
        let goes_on = !queue.is_closed || !queue.jobs.is_empty();
        if queue.jobs.len() <= BATCH_MAX {
            std::mem::swap(&mut queue.jobs, batch);
        } else {
            batch.extend(queue.jobs.drain(..BATCH_MAX));
        }
        self.last_batch = batch.len();
        goes_on
    }

    /// A job that panics ends its batch, not the thread: nobody would ever be told again.
    fn commit_caught(&self, batch: &mut [Box<dyn Job>]) -> Result<(), DatabaseError> {
        catch_unwind(AssertUnwindSafe(|| self.commit(batch))).unwrap_or_else(|_| {
            if !self.connection.is_autocommit() {
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            Err(DatabaseError::Other("a write has failed in an unforeseen way".into()))
        })
    }

    fn commit(&self, batch: &mut [Box<dyn Job>]) -> Result<(), DatabaseError> {
        let run = |sql| self.connection.prepare_cached(sql)?.execute([]);
        run("BEGIN IMMEDIATE")?;
        for job in &mut *batch {
            let outcome = job.run(&self.connection);
            if self.connection.is_autocommit() {
                // A full disk or a damaged file ends the transaction inside a job.
                return Err(outcome.err().unwrap_or(DatabaseError::Full));
            }
        }
        run("COMMIT").map_err(|error| {
            let _ = run("ROLLBACK");
            DatabaseError::from(error)
        })?;
        Ok(())
    }

    /// The counter that SQLite keeps for a connection changes with the commits of all others.
    fn look_for_foreign_changes(&mut self) {
        self.looked_at = Instant::now();
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut ask| ask.query_row([], |row| row.get(0)));
        if let Ok(version) = version {
            if self.data_version.is_some_and(|known| known != version) {
                self.foreign.send_modify(|count| *count += 1);
            }
            self.data_version = Some(version);
        }
    }
}
