//! The tasks that run now.
//!
//! Invariant: a task is in the list from before it begins until its result is written down; never
//! more of them than there are places.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::connection::{CallError, Connection};
use crate::stop::{Cancel, Stop, lock};
use crate::task::TaskId;

/// After a heartbeat that did not get through.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How often is looked for heartbeats that are due.
const TICK: Duration = Duration::from_secs(1);
/// The operator's reason, as the result tells it.
const CANCELLED: &str = "the task was cancelled";

/// One task that runs.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: TaskId,
    pub(crate) digest: String,
    claim: Mutex<Option<String>>,
    pub(crate) cancel: Cancel,
    beat_at: Mutex<Instant>,
}

impl Job {
    /// A task held under `claim` for `lease`.
    pub(crate) fn new(id: TaskId, digest: String, claim: Option<String>, lease: Duration) -> Self {
        let beat_at = Mutex::new(Instant::now() + lease / 3);
        Self { id, digest, claim: Mutex::new(claim), cancel: Cancel::default(), beat_at }
    }

    /// The claim that counts now.
    pub(crate) fn claim(&self) -> Option<String> {
        lock(&self.claim).clone()
    }

    /// The server has offered the task again: from now on under this claim.
    fn adopt(&self, claim: Option<String>, lease: Duration) {
        *lock(&self.claim) = claim;
        *lock(&self.beat_at) = Instant::now() + lease / 3;
    }

    /// Something looks as if the claim were lost: the next heartbeat is due now.
    pub(crate) fn beat_soon(&self) {
        *lock(&self.beat_at) = Instant::now();
    }

    fn beat(&self, connection: &Connection, lease: Duration) {
        let Some(claim) = self.claim() else { return };
        if Instant::now() < *lock(&self.beat_at) {
            return;
        }
        let next = match connection.heartbeat(&self.id, &claim, lease) {
            Ok(lease) => lease / 3,
            Err(error) if error.is_cancelled() => {
                tracing::info!("task {}: cancelled by the server", self.id);
                self.cancel.fire(CANCELLED);
                lease
            }
            // The claim has run out, perhaps while the network was away. The task goes on: the server
            // offers it again, and the claim is renewed then.
            Err(error) if matches!(error, CallError::Refused { status: 409, .. }) => {
                tracing::warn!("task {}: {error}; it goes on", self.id);
                lease / 3
            }
            Err(error) => {
                tracing::warn!("task {}: no heartbeat: {error}", self.id);
                AGAIN_AFTER
            }
        };
        *lock(&self.beat_at) = Instant::now() + next;
    }
}

/// All of them, and the places.
#[derive(Debug)]
pub(crate) struct Running {
    jobs: Mutex<BTreeMap<TaskId, Arc<Job>>>,
    changed: Condvar,
    places: usize,
}

impl Running {
    /// No tasks, and `places` places.
    pub(crate) fn new(places: usize) -> Self {
        Self { jobs: Mutex::default(), changed: Condvar::new(), places }
    }

    /// Waits for a free place, and tells how many there are.
    pub(crate) fn free(&self, stop: &Stop) -> Option<usize> {
        let waits = |jobs: &mut BTreeMap<_, _>| jobs.len() >= self.places && !stop.is_requested();
        let jobs = self.changed.wait_while(lock(&self.jobs), waits);
        let count = jobs.unwrap_or_else(PoisonError::into_inner).len();
        (!stop.is_requested()).then(|| self.places.saturating_sub(count))
    }

    /// Wakes those who wait for a place, to see that they are to stop.
    pub(crate) fn wake(&self) {
        drop(lock(&self.jobs));
        self.changed.notify_all();
    }

    /// Whether the very task runs already; then it goes on under the new claim.
    pub(crate) fn adopt(
        &self,
        id: &TaskId,
        digest: &str,
        claim: Option<String>,
        lease: Duration,
    ) -> bool {
        let jobs = lock(&self.jobs);
        let job = jobs.get(id).filter(|job| job.digest == digest);
        job.inspect(|job| job.adopt(claim, lease)).is_some()
    }

    /// Adds a task, unless the agent is to stop; tells whether it did. Who asks to stop first and
    /// looks at the tasks then sees them all.
    pub(crate) fn add(&self, job: Arc<Job>, stop: &Stop) -> bool {
        let mut jobs = lock(&self.jobs);
        let goes_on = !stop.is_requested();
        if goes_on {
            jobs.insert(job.id.clone(), job);
        }
        goes_on
    }

    /// Takes a task away.
    pub(crate) fn remove(&self, id: &TaskId) {
        lock(&self.jobs).remove(id);
        self.changed.notify_all();
    }

    /// Waits until no task runs, at most for `limit`; tells whether that is so.
    pub(crate) fn wait_empty(&self, limit: Duration) -> bool {
        let waited =
            self.changed.wait_timeout_while(lock(&self.jobs), limit, |jobs| !jobs.is_empty());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }

    /// Gives up all of them.
    pub(crate) fn cancel_all(&self, reason: &'static str) {
        for job in self.all() {
            job.cancel.fire(reason);
        }
    }

    /// Tells the server again and again that the tasks are being worked on, until `stop`.
    pub(crate) fn keep_alive(&self, connection: &Connection, lease: Duration, stop: &Stop) {
        while !stop.wait(TICK.min(lease / 6)) {
            for job in self.all() {
                job.beat(connection, lease);
            }
        }
    }

    fn all(&self) -> Vec<Arc<Job>> {
        lock(&self.jobs).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: &str) -> Arc<Job> {
        let id = TaskId::parse(id).unwrap();
        Arc::new(Job::new(id, "d".to_owned(), Some("c1".to_owned()), Duration::from_secs(60)))
    }

    #[test]
    fn a_task_that_runs_takes_the_new_claim_and_another_task_of_its_number_does_not() {
        let running = Running::new(2);
        let job = job("7");
        assert!(running.add(Arc::clone(&job), &Stop::default()));
        let lease = Duration::from_secs(60);
        assert!(running.adopt(&job.id, "d", Some("c2".to_owned()), lease));
        assert_eq!(job.claim().as_deref(), Some("c2"));
        assert!(!running.adopt(&job.id, "other", Some("c3".to_owned()), lease));
        assert_eq!(job.claim().as_deref(), Some("c2"));
    }

    #[test]
    fn a_place_is_waited_for_until_a_task_ends_or_the_agent_is_to_stop() {
        let (running, stop) = (Running::new(1), Stop::default());
        assert_eq!(running.free(&stop), Some(1));
        assert!(running.add(job("7"), &stop));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| running.free(&stop));
            running.remove(&TaskId::parse("7").unwrap());
            assert_eq!(waiting.join().unwrap(), Some(1));
        });
        assert!(running.add(job("8"), &stop));
        stop.request();
        running.wake();
        assert_eq!(running.free(&stop), None);
        assert!(!running.add(job("9"), &stop));
    }
}
