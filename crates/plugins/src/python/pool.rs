//! All workers of one plugin file, as one version of it.
//!
//! Invariant: a pool never changes what it runs. A reload makes another pool; this one is retired:
//! calls that it has begun end on it, later ones are turned away with [`LinkError::Closed`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::link::{Link, LinkError};
use super::seat::{Job, LaunchError, Loaded, Running, Seat, SeatState};
use crate::call::{Call, CallError, Reply};
use crate::turn::Turn;

/// The workers of one file.
#[derive(Debug)]
pub struct Pool {
    seats: Vec<Arc<Seat>>,
    changed: watch::Sender<u64>,
    /// The time calls get to finish, once the pool is to stop.
    stop: watch::Sender<Option<Duration>>,
    keepers: Mutex<JoinSet<()>>,
}

impl Pool {
    /// Starts `workers` workers, which load the file when `turn` comes, and waits until all are ready.
    ///
    /// Returns `None` instead of a pool when the file gives nothing to call.
    ///
    /// # Errors
    /// When one of them does not get ready.
    pub async fn start(
        job: Job,
        workers: usize,
        turn: Turn,
    ) -> Result<(Option<Arc<Self>>, Loaded), LaunchError> {
        let job = Arc::new(job);
        let mut launches = JoinSet::new();
        for _ in 0..workers {
            let (job, turn) = (Arc::clone(&job), turn.clone());
            launches.spawn(async move { job.launch_in_turn(turn.comes()).await });
        }
        let mut ready: Vec<Running> = Vec::with_capacity(workers);
        let mut loaded: Option<Loaded> = None;
        while let Some(launch) = launches.join_next().await {
            let ended = || LaunchError::Ended { how: "was given up".into() };
            let (running, now) = launch.map_err(|_| ended())??;
            ready.push(running);
            match &loaded {
                None => loaded = Some(now),
                Some(first) if first.plugins == now.plugins => {}
                Some(first) => return Err(LaunchError::different(first, &now)),
            }
        }
        let Some(loaded) = loaded else {
            return Err(LaunchError::Nonsense("no worker was asked for".into()));
        };
        if loaded.plugins.is_empty() {
            return Ok((None, loaded));
        }
        Ok((Some(Self::seated(&job, ready, &loaded)), loaded))
    }

    fn seated(job: &Arc<Job>, ready: Vec<Running>, loaded: &Loaded) -> Arc<Self> {
        let changed = watch::Sender::new(0);
        let stop = watch::Sender::new(None);
        let mut keepers = JoinSet::new();
        let mut seats = Vec::with_capacity(ready.len());
        for running in ready {
            let seat = Arc::new(Seat::new(changed.clone()));
            seat.fill(&running);
            seats.push(Arc::clone(&seat));
            let (job, plugins, stop) = (Arc::clone(job), loaded.plugins.clone(), stop.subscribe());
            keepers.spawn(async move { seat.keep(&job, running, &plugins, stop).await });
        }
        Arc::new(Self { seats, changed, stop, keepers: Mutex::new(keepers) })
    }

    /// Makes one call on the least busy worker; waits for one that is being started.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the pool is retired; else what became of the call.
    pub async fn call(&self, slot: u32, call: &Call, limit: Duration) -> Result<Reply, LinkError> {
        if let Some(link) = self.least_busy() {
            match link.call(slot, call, limit).await {
                Err(LinkError::Closed) => {}
                outcome => return outcome,
            }
        }
        self.call_when_up(slot, call, limit).await
    }

    fn least_busy(&self) -> Option<Arc<Link>> {
        if let [seat] = &self.seats[..] {
            return seat.link().clone();
        }
        let links = self.seats.iter().filter_map(|seat| seat.link().clone());
        links.min_by_key(|link| link.in_flight())
    }

    async fn call_when_up(
        &self,
        slot: u32,
        call: &Call,
        limit: Duration,
    ) -> Result<Reply, LinkError> {
        let deadline = Instant::now() + limit;
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.is_retired() {
                return Err(LinkError::Closed);
            }
            if let Some(link) = self.least_busy().filter(|link| !link.is_closed()) {
                match link.call(slot, call, deadline - Instant::now()).await {
                    Err(LinkError::Closed) => {}
                    outcome => return outcome,
                }
            }
            if let Some(retry_secs) = self.resting() {
                return Err(LinkError::Call(CallError::Unavailable { retry_secs }));
            }
            if tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
                let limit_secs = limit.as_secs_f64();
                return Err(LinkError::Call(CallError::TimedOut { limit_secs }));
            }
        }
    }

    /// When every seat rests after crashes: the whole seconds until the first tries again.
    fn resting(&self) -> Option<u64> {
        let now = Instant::now();
        let mut soonest: Option<Duration> = None;
        for seat in &self.seats {
            let SeatState::Resting(until) = seat.state() else { return None };
            let pause = until.saturating_duration_since(now);
            soonest = Some(soonest.map_or(pause, |other| other.min(pause)));
        }
        soonest.map(|pause| pause.as_secs() + 1)
    }

    fn is_retired(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Turns new calls away and ends the workers: calls get `limit` to finish. Returns when all have
    /// ended.
    pub async fn retire(&self, limit: Duration) {
        self.stop.send_replace(Some(limit));
        for seat in &self.seats {
            if let Some(link) = &*seat.link() {
                link.stop();
            }
        }
        self.changed.send_modify(|version| *version += 1);
        let mut keepers =
            std::mem::take(&mut *self.keepers.lock().unwrap_or_else(PoisonError::into_inner));
        while keepers.join_next().await.is_some() {}
    }
}
