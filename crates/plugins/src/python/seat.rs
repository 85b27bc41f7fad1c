//! One place for a worker, kept filled: a worker that ends is replaced, at a growing distance when it
//! keeps ending.
//!
//! ```text
//!   Starting ──ready──▶ Up ──ended──▶ Starting (at once, the first time)
//!      ▲                                 │ failed, or ended soon again
//!      └────────── pause over ── Resting ◀┘            any ──stop──▶ Stopped
//! ```
//!
//! Invariant: one task ([`Seat::keep`]) changes a seat; everybody else reads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::PythonSettings;
use super::link::{Bounds, End, Link};
use super::package::Package;
use super::process::WorkerProcess;
use super::protocol;

/// The first pause after a worker that ended soon, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A worker that lived this long did not "end soon".
const LIVED_WELL: Duration = Duration::from_secs(10);

/// What to run: everything a worker needs to know.
#[derive(Debug)]
pub struct Job {
    /// The name under which its output is logged.
    pub label: String,
    /// The first message, JSON.
    pub hello: String,
    /// How workers are run.
    pub settings: PythonSettings,
    /// What they are run with.
    pub package: Arc<Package>,
}

/// What a worker says it has loaded.
#[derive(Debug, Clone, Deserialize)]
pub struct Loaded {
    /// The version of the protocol that it speaks.
    pub version: u32,
    /// The plugins that can be called, in the order of their slots.
    pub plugins: Vec<LoadedPlugin>,
    /// The classes that failed.
    pub failures: Vec<Failure>,
}

/// One plugin of a file.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct LoadedPlugin {
    /// Its route.
    pub name: String,
    /// The methods it answers, in capitals.
    pub methods: Vec<String>,
    /// Its own limit for one call.
    pub timeout_secs: Option<f64>,
}

/// Why a class, or the whole file, could not be used.
#[derive(Debug, Clone, Deserialize)]
pub struct Failure {
    /// The class; empty when the file itself failed.
    pub class: String,
    /// What went wrong, in a line: for the client.
    pub error: String,
    /// The same with its traceback: for the log.
    pub traceback: String,
}

/// Why a worker did not get ready.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The interpreter could not be started.
    #[error(transparent)]
    Start(#[from] io::Error),
    /// It took too long.
    #[error("the plugin was not ready within {0:?} ([python] start_timeout_secs)")]
    TimedOut(Duration),
    /// The process ended first.
    #[error("the worker process {how} before the plugin was ready")]
    Ended {
        /// How it ended.
        how: String,
    },
    /// Two workers of one file have not the same plugins.
    #[error("the workers of one file have loaded different plugins: {0}")]
    Different(String),
    /// The process answered something else.
    #[error("the worker process gave an answer that makes no sense: {0}")]
    Nonsense(String),
}

impl LaunchError {
    /// Tells what failed in one of two workers and not in the other.
    #[must_use]
    pub fn different(one: &Loaded, other: &Loaded) -> Self {
        let errors = one.failures.iter().chain(&other.failures).map(|failure| &*failure.error);
        Self::Different(errors.collect::<Vec<_>>().join("; "))
    }
}

/// A worker that is ready.
#[derive(Debug)]
pub struct Running {
    process: WorkerProcess,
    link: Arc<Link>,
    carrier: JoinSet<End>,
}

impl Job {
    /// Starts a worker and waits until it has loaded its file, which may have failed.
    ///
    /// # Errors
    /// When it did not get so far.
    pub async fn launch(&self) -> Result<(Running, Loaded), LaunchError> {
        self.launch_in_turn(std::future::ready(())).await
    }

    /// The same, but the file is loaded only when `turn` is over; the interpreter starts before.
    ///
    /// # Errors
    /// As for [`Job::launch`].
    pub async fn launch_in_turn(
        &self,
        turn: impl Future<Output = ()>,
    ) -> Result<(Running, Loaded), LaunchError> {
        let (process, socket) = WorkerProcess::start(&self.settings, &self.package, &self.label)?;
        let link = Link::new(Bounds {
            calls_max: self.settings.calls_max,
            reply_bytes_max: self.settings.reply_bytes_max,
            hang_timeout: self.settings.hang_timeout,
        });
        let (sender, hello) = oneshot::channel();
        let mut carrier = JoinSet::new();
        let carried = Arc::clone(&link);
        carrier.spawn(async move { carried.run(socket, sender).await });
        turn.await;
        link.hello(&self.hello);
        let running = Running { process, link, carrier };
        let limit = self.settings.start_timeout;
        match tokio::time::timeout(limit, hello).await {
            Err(_) => {
                running.process.end(Duration::ZERO).await;
                Err(LaunchError::TimedOut(limit))
            }
            Ok(Err(_)) => {
                let how = running.process.end(Duration::from_secs(1)).await;
                Err(LaunchError::Ended { how })
            }
            Ok(Ok(text)) => match serde_json::from_str::<Loaded>(&text) {
                Ok(loaded) if loaded.version == protocol::VERSION => Ok((running, loaded)),
                Ok(loaded) => Err(LaunchError::Nonsense(format!("version {}", loaded.version))),
                Err(error) => Err(LaunchError::Nonsense(error.to_string())),
            },
        }
    }
}

impl Running {
    /// Lets calls finish, at most for `limit`, lets the plugins say goodbye for `goodbye`, and ends it.
    pub async fn wind_down(mut self, limit: Duration, goodbye: Duration) {
        self.link.stop();
        let mut last = Instant::now() + limit;
        let mut was_cut = false;
        let mut quiet_since = None;
        loop {
            if tokio::time::timeout(Duration::from_millis(20), self.carrier.join_next())
                .await
                .is_ok()
            {
                break;
            }
            let now = Instant::now();
            if self.link.is_busy() {
                quiet_since = None;
            }
            let since: Instant = *quiet_since.get_or_insert(now);
            if !self.link.is_busy() && now >= since + goodbye || now >= last && was_cut {
                break;
            }
            if now >= last {
                // Calls that are still under way are given up; the plugins say goodbye all the same.
                self.link.stop_waiting();
                (was_cut, last) = (true, now + goodbye);
            }
        }
        // What the interpreter still has to do by itself (`atexit`) is part of the goodbye.
        self.process.end(goodbye.max(Duration::from_millis(500))).await;
    }
}

/// Where a seat stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SeatState {
    /// A worker is being started.
    Starting,
    /// A worker can be called.
    Up,
    /// The next start waits until then.
    Resting(Instant),
    /// No worker will come any more.
    Stopped,
}

/// One place for a worker.
#[derive(Debug)]
pub struct Seat {
    link: ArcSwapOption<Link>,
    state: watch::Sender<SeatState>,
    /// Rung at every change, for those who wait for any seat of the pool.
    changed: watch::Sender<u64>,
}

impl Seat {
    /// An empty seat that rings `changed`.
    #[must_use]
    pub fn new(changed: watch::Sender<u64>) -> Self {
        let state = watch::Sender::new(SeatState::Starting);
        Self { link: ArcSwapOption::empty(), state, changed }
    }

    /// The worker to call, if there is one now.
    pub fn link(&self) -> arc_swap::Guard<Option<Arc<Link>>> {
        self.link.load()
    }

    /// Where the seat stands.
    #[must_use]
    pub fn state(&self) -> SeatState {
        *self.state.borrow()
    }

    fn set(&self, state: SeatState) {
        self.state.send_replace(state);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Takes the first worker, which can be called from now on.
    pub(super) fn fill(&self, running: &Running) {
        self.link.store(Some(Arc::clone(&running.link)));
        self.set(SeatState::Up);
    }

    /// Keeps the seat filled, beginning with `running`, until `stop` carries the time that calls get
    /// to finish.
    pub async fn keep(
        &self,
        job: &Job,
        mut running: Running,
        loaded: &[LoadedPlugin],
        mut stop: watch::Receiver<Option<Duration>>,
    ) {
        let mut ended_soon = 0;
        loop {
            self.fill(&running);
            let since = Instant::now();
            let end = tokio::select! {
                end = running.carrier.join_next() => end.and_then(Result::ok).unwrap_or(End::HungUp),
                // A child of the worker may hold its end of the socket open after it.
                () = running.process.ended() => End::HungUp,
                limit = stopped(&mut stop) => {
                    self.link.store(None);
                    self.set(SeatState::Stopped);
                    return running.wind_down(limit, job.settings.stop_timeout).await;
                }
            };
            self.link.store(None);
            self.set(SeatState::Starting);
            report_end(running, end, &job.label).await;
            ended_soon = if since.elapsed() >= LIVED_WELL { 0 } else { ended_soon + 1 };
            match self.refill(job, loaded, &mut ended_soon, &mut stop).await {
                Some(next) => running = next,
                None => return self.set(SeatState::Stopped),
            }
        }
    }

    /// Starts workers until one is ready; `None` when the seat is to stop.
    async fn refill(
        &self,
        job: &Job,
        loaded: &[LoadedPlugin],
        ended_soon: &mut u32,
        stop: &mut watch::Receiver<Option<Duration>>,
    ) -> Option<Running> {
        loop {
            let pause = pause_after(*ended_soon);
            if !pause.is_zero() {
                self.set(SeatState::Resting(Instant::now() + pause));
                tokio::select! {
                    () = tokio::time::sleep(pause) => self.set(SeatState::Starting),
                    _ = stopped(stop) => return None,
                }
            }
            let launched = tokio::select! {
                launched = job.launch() => launched,
                _ = stopped(stop) => return None,
            };
            match launched {
                Ok((running, now)) if now.plugins == loaded => return Some(running),
                Ok((running, now)) => {
                    *ended_soon += 1;
                    log_failures(&job.label, &now.failures);
                    tracing::error!(
                        plugin = job.label,
                        "the file has changed and no longer gives the same plugins; reload it"
                    );
                    running.wind_down(Duration::ZERO, job.settings.stop_timeout).await;
                }
                Err(error) => {
                    *ended_soon += 1;
                    tracing::error!(plugin = job.label, "starting again failed: {error}");
                }
            }
        }
    }
}

/// Writes down what went wrong in a worker's file, with tracebacks.
pub fn log_failures(label: &str, failures: &[Failure]) {
    for failure in failures {
        tracing::error!(plugin = label, "{} {}", failure.class, failure.error);
        for line in failure.traceback.lines() {
            tracing::error!(plugin = label, "{line}");
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(limit) => limit.unwrap_or_default(),
        // The pool is gone: nobody will ever call again.
        Err(_) => Duration::ZERO,
    }
}

async fn report_end(running: Running, end: End, label: &str) {
    let pid = running.process.pid();
    let (limit, why) = match end {
        End::HungUp => (Duration::from_secs(1), String::new()),
        End::Silent => (Duration::ZERO, "gave no sign of life and ".into()),
        End::Malformed(what) => (Duration::ZERO, format!("sent {what} and ")),
    };
    let how = running.process.end(limit).await;
    tracing::error!(plugin = label, pid, "the worker process {why}{how}; starting another");
}

/// How long to wait before the next start, after `ended_soon` workers that ended soon in a row.
fn pause_after(ended_soon: u32) -> Duration {
    match ended_soon {
        0 | 1 => Duration::ZERO,
        n => PAUSE_FIRST.saturating_mul(1 << (n - 2).min(10)).min(PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_crash_is_mended_at_once_and_pauses_grow_to_a_limit() {
        let pauses: Vec<_> = (0..12).map(|n| pause_after(n).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000, 10000]);
    }
}
