//! What a process has written so far, and waiting for more of it.
//!
//! Invariant: a reader is always drained, so that the process never blocks on a full pipe.
//! Not here: what the lines mean.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::DEADLINE;

/// Longer output than this forgets its beginning, in bytes.
const KEPT_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Default)]
struct State {
    text: String,
    closed: bool,
}

/// The output of a process, growing.
#[derive(Debug, Clone, Default)]
pub struct Text {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Text {
    /// Reads `source` to its end on a thread of its own.
    pub(crate) fn drain(source: impl Read + Send + 'static) -> Self {
        let text = Self::default();
        let writer = text.clone();
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(source.read_until(b'\n', &mut line), Ok(count) if count > 0) {
                writer.update(|state| {
                    if state.text.len() > KEPT_BYTES_MAX {
                        state.text.clear();
                    }
                    state.text.push_str(&String::from_utf8_lossy(&line));
                });
                line.clear();
            }
            writer.update(|state| state.closed = true);
        });
        text
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let (state, changed) = &*self.shared;
        change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    /// Everything so far.
    #[must_use]
    pub fn so_far(&self) -> String {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }

    /// Waits for a whole line that `wanted` accepts and gives it back.
    ///
    /// # Panics
    /// When the deadline passes or the output ends without such a line; the message holds `what`
    /// and the whole output.
    pub fn wait_for_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let whole = state.text.rfind('\n').map_or("", |last| &state.text[..last]);
            if let Some(line) = whole.lines().find(|line| wanted(line)) {
                return line.to_owned();
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.closed {
                let text = state.text.clone();
                // Released first: a poisoned lock would hide this message from the other threads.
                drop(state);
                panic!("no line with {what}; the whole output:\n{text}");
            }
            state = changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for a line that contains every one of `parts`.
    ///
    /// # Panics
    /// As [`Self::wait_for_line`].
    pub fn wait_for(&self, parts: &[&str]) -> String {
        self.wait_for_line(&parts.join(" … "), |line| {
            parts.iter().all(|part| line.contains(part))
        })
    }

    /// Waits until the process closed this output and gives all of it.
    ///
    /// # Panics
    /// When the deadline passes first.
    #[must_use]
    pub fn to_end(&self) -> String {
        let (state, changed) = &*self.shared;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, late) = changed
            .wait_timeout_while(state, DEADLINE, |state| !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        let text = state.text.clone();
        drop(state);
        assert!(!late.timed_out(), "the output is still open; so far:\n{text}");
        text
    }
}
