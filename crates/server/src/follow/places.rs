//! Room for those who follow.
//!
//! Invariant: no more have a place than there are. One who takes nothing for a while keeps it only as long as nobody
//! else asks: over HTTP/2 a stream can be open for ever without ever being read.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Whoever takes nothing for so long may lose their place. A stream that is read says something more often.
const STALLED: Duration = Duration::from_secs(60);

/// All places.
#[derive(Debug)]
pub struct Places {
    count_max: usize,
    taken: Mutex<Vec<Arc<State>>>,
}

#[derive(Debug)]
struct State {
    moved_at: Mutex<Instant>,
    is_lost: AtomicBool,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    state: Arc<State>,
}

impl Places {
    /// So many.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self { count_max, taken: Mutex::default() }
    }

    /// Takes one, if need be that of the one who has stalled for longest.
    #[must_use]
    pub fn take(&self) -> Option<Place> {
        let now = Instant::now();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|it| Arc::strong_count(it) > 1);
        if taken.len() >= self.count_max {
            let stalled = taken.iter().enumerate().min_by_key(|(_, it)| *it.moved_at());
            let (at, it) = stalled.filter(|(_, it)| now >= *it.moved_at() + STALLED)?;
            it.is_lost.store(true, Relaxed);
            taken.swap_remove(at);
        }
        let state = Arc::new(State { moved_at: Mutex::new(now), is_lost: AtomicBool::new(false) });
        taken.push(Arc::clone(&state));
        Some(Place { state })
    }
}

impl State {
    fn moved_at(&self) -> MutexGuard<'_, Instant> {
        self.moved_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whoever has it takes something; says whether they have it still.
    #[must_use]
    pub fn moves(&self) -> bool {
        *self.state.moved_at() = Instant::now();
        !self.state.is_lost.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_loses_their_place_to_who_asks() {
        let places = Places::new(2);
        let (first, second) = (places.take().unwrap(), places.take().unwrap());
        assert!(places.take().is_none());
        tokio::time::advance(STALLED / 2).await;
        assert!(second.moves());
        tokio::time::advance(STALLED / 2).await;
        assert!(first.moves(), "nobody has asked");
        assert!(places.take().is_none(), "both take something");
        tokio::time::advance(STALLED / 2).await;
        let third = places.take().unwrap();
        assert!(!second.moves() && first.moves() && third.moves());
        assert!(places.take().is_none());
        drop(second);
        assert!(places.take().is_none(), "it had none to give back");
        drop(first);
        assert!(places.take().is_some());
    }
}
