//! Telling threads to stop: all of them ([`Stop`]), or one task with what it started ([`Cancel`]).
//!
//! Invariant: once told, told for good; a waiter that comes later is not kept waiting.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The lock of `mutex`. What our locks guard is whole between any two statements, so that a thread
/// that panicked left nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request to stop that waiters notice at once.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    requested: Mutex<bool>,
    bell: Condvar,
}

impl Stop {
    /// Asks everyone to stop.
    pub(crate) fn request(&self) {
        *lock(&self.requested) = true;
        self.bell.notify_all();
    }

    /// Whether it was asked.
    pub(crate) fn is_requested(&self) -> bool {
        *lock(&self.requested)
    }

    /// Waits for `time`, or until it is asked; tells which: true when asked.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let waited =
            self.bell.wait_timeout_while(lock(&self.requested), time, |requested| !*requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A request to give up one task, with the reason, and the leash of what runs for it.
#[derive(Debug, Default)]
pub(crate) struct Cancel(Mutex<CancelState>);

#[derive(Debug, Default)]
struct CancelState {
    reason: Option<&'static str>,
    leash: Option<UnixStream>,
}

impl Cancel {
    /// Gives the task up; the first reason stays. What is on the leash ends.
    pub(crate) fn fire(&self, reason: &'static str) {
        let mut state = lock(&self.0);
        state.reason.get_or_insert(reason);
        if let Some(leash) = &state.leash {
            // Hung up already is as good.
            let _ = leash.shutdown(Shutdown::Write);
        }
    }

    /// Why the task was given up, if it was.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        lock(&self.0).reason
    }

    /// Keeps the leash of a process; pulls it at once when the task was given up before.
    pub(crate) fn hold(&self, leash: UnixStream) {
        let mut state = lock(&self.0);
        if state.reason.is_some() {
            let _ = leash.shutdown(Shutdown::Write);
        }
        state.leash = Some(leash);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_waiter_that_comes_after_the_request_does_not_wait() {
        let stop = Stop::default();
        assert!(!stop.wait(Duration::ZERO));
        stop.request();
        assert!(stop.wait(Duration::from_secs(3600)));
    }

    #[test]
    fn a_leash_is_pulled_whether_it_comes_before_or_after_the_request() {
        for early in [true, false] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let cancel = Cancel::default();
            if early {
                cancel.hold(ours);
                cancel.fire("first");
                cancel.fire("second");
            } else {
                cancel.fire("first");
                cancel.hold(ours);
            }
            assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "hung up");
            assert_eq!(cancel.reason(), Some("first"));
        }
    }
}
