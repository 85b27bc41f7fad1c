//! The answer to a write, when it is on the disk.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::DatabaseError;

/// Resolves when what was written is on the disk, or is known not to be. Dropping it changes nothing about the write.
#[derive(Debug)]
#[must_use = "a write is not acknowledged before this says so"]
pub struct Ack<T>(oneshot::Receiver<Result<T, DatabaseError>>);

/// An acknowledgement and the call that gives it.
pub(crate) fn pair<T>() -> (Ack<T>, impl FnOnce(Result<T, DatabaseError>)) {
    let (sender, receiver) = oneshot::channel();
    // Nobody waits any more: the write stands all the same.
    (Ack(receiver), move |outcome| drop(sender.send(outcome)))
}

impl<T> Ack<T> {
    /// Waits on a thread that has no runtime.
    ///
    /// # Errors
    /// Why it could not be written.
    pub fn wait(self) -> Result<T, DatabaseError> {
        self.0.blocking_recv().unwrap_or(Err(DatabaseError::Ended))
    }
}

impl<T> Future for Ack<T> {
    type Output = Result<T, DatabaseError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| outcome.unwrap_or(Err(DatabaseError::Ended)))
    }
}
