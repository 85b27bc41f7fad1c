//! Taking turns: plugin files are loaded in the order of their names, though their interpreters start
//! side by side.

use tokio::sync::watch;

/// The right to go on once somebody before has finished.
#[derive(Debug, Clone)]
pub struct Turn(watch::Receiver<()>);

/// Dropped when the one that holds it has finished: the next turn has come then.
#[derive(Debug)]
pub struct Finish {
    /// Read by nobody: that it is dropped is what counts.
    _before: watch::Sender<()>,
}

impl Turn {
    /// A turn, and what ends the wait for it.
    #[must_use]
    pub fn after() -> (Finish, Self) {
        let (sender, receiver) = watch::channel(());
        (Finish { _before: sender }, Self(receiver))
    }

    /// A turn that has come already.
    #[must_use]
    pub fn now() -> Self {
        Self::after().1
    }

    /// Waits for it.
    pub async fn comes(mut self) {
        // Nothing is ever sent: the channel only closes.
        while self.0.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_comes_when_the_one_before_has_finished() {
        let (finish, turn) = Turn::after();
        let mut waiting = now(turn.clone().comes());
        assert!(waiting.is_none());
        drop(finish);
        waiting = now(turn.comes());
        assert!(waiting.is_some());
        assert!(now(Turn::now().comes()).is_some());
    }

    /// What `future` is at once, if it is anything at once.
    fn now<F: Future>(future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
