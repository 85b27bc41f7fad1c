//! What a command prints: kept up to a limit, and sent while it still prints.
//!
//! Invariant: bytes are in the order in which the command wrote them; beyond the limit they are read
//! and let go, so that the command is never held up by us.

use std::io::Read;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::connection::Connection;
use crate::running::Job;
use crate::stop::{Stop, lock};

/// How much is sent at once, in bytes.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// How long output is gathered before a piece is sent, so that a line at a time is not a call each.
const GATHER_FOR: Duration = Duration::from_millis(100);
/// How long after a lost claim the output is offered again.
const UNDER_ANOTHER_CLAIM: Duration = Duration::from_secs(2);
/// What is read from a command at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// The output of one command.
#[derive(Debug)]
pub(crate) struct Output {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    truncated: bool,
    ended: bool,
}

impl Output {
    /// Empty; `bytes_max` bytes are kept.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), bytes_max }
    }

    /// Reads all of `reader`, to its end.
    pub(crate) fn fill(&self, mut reader: impl Read) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.end();
    }

    fn push(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let room = self.bytes_max - state.bytes.len();
        state.truncated |= bytes.len() > room;
        state.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        drop(state);
        self.changed.notify_all();
    }

    /// Nothing more is to come.
    pub(crate) fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }

    /// Waits for the end, at most for `limit`; tells whether it has come.
    pub(crate) fn wait_end(&self, limit: Duration) -> bool {
        let waited =
            self.changed.wait_timeout_while(lock(&self.state), limit, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Everything, and whether something was let go.
    pub(crate) fn take(&self) -> (Vec<u8>, bool) {
        let state = lock(&self.state);
        (state.bytes.clone(), state.truncated)
    }

    /// Waits for bytes beyond `offset` and gives some; none at the end.
    fn piece(&self, offset: usize) -> Vec<u8> {
        let waits = |state: &mut State| state.bytes.len() <= offset && !state.ended;
        let state = self.changed.wait_while(lock(&self.state), waits);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let few = |state: &mut State| {
            state.bytes.len().saturating_sub(offset) < PIECE_BYTES_MAX && !state.ended
        };
        let state = self.changed.wait_timeout_while(state, GATHER_FOR, few);
        let state = state.unwrap_or_else(PoisonError::into_inner).0;
        let end = state.bytes.len().min(offset.saturating_add(PIECE_BYTES_MAX));
        state.bytes.get(offset..end).unwrap_or_default().to_vec()
    }

    /// Sends the output as it comes, from where the server has it, until its end or `give_up`.
    pub(crate) fn stream(&self, connection: &Connection, job: &Job, give_up: &Stop) {
        let mut backoff = Backoff::default();
        let mut offset = 0_u64;
        while let Ok(start) = usize::try_from(offset) {
            let piece = self.piece(start);
            if piece.is_empty() || give_up.is_requested() {
                return;
            }
            match connection.send_output(&job.id, job.claim().as_deref(), offset, &piece) {
                Ok(accepted) if accepted.capped => return,
                Ok(accepted) => {
                    backoff.reset();
                    offset = accepted.next;
                }
                Err(error) => match error.next_offset() {
                    // The server knows better what it has. It moves on, or we would ask for ever.
                    Some(next) if next != offset => offset = next,
                    // The claim has run out, or the task was cancelled. A heartbeat tells which; under
                    // another claim the server goes on taking it.
                    None if error.status() == Some(409) => {
                        job.beat_soon();
                        if give_up.wait(UNDER_ANOTHER_CLAIM) {
                            return;
                        }
                    }
                    // A server without this route, say: the result has it all.
                    _ if !error.is_passing() => return,
                    _ => {
                        if give_up.wait(backoff.next(&error)) {
                            return;
                        }
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_limit_is_read_and_let_go() {
        let output = Output::new(5);
        output.fill(&b"abcdefgh"[..]);
        assert_eq!(output.take(), (b"abcde".to_vec(), true));
        let output = Output::new(5);
        output.fill(&b"abcde"[..]);
        assert_eq!(output.take(), (b"abcde".to_vec(), false));
    }

    #[test]
    fn pieces_go_on_from_any_offset_and_end() {
        let output = Output::new(1 << 20);
        output.fill(&vec![b'x'; PIECE_BYTES_MAX + 10][..]);
        assert_eq!(output.piece(0).len(), PIECE_BYTES_MAX);
        assert_eq!(output.piece(PIECE_BYTES_MAX), b"xxxxxxxxxx");
        assert_eq!(output.piece(PIECE_BYTES_MAX + 10), b"");
        assert_eq!(output.piece(usize::MAX), b"");
    }
}
