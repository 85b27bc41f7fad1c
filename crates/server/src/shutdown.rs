//! What signals ask for.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A wish of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Read everything again (SIGHUP; the older program's SIGUSR1 as well).
    Reload,
    /// Finish and end (SIGINT, SIGTERM, SIGABRT).
    End,
}

/// The signals that the server heeds.
#[derive(Debug)]
pub struct Signals {
    reload: [Signal; 2],
    end: [Signal; 3],
}

impl Signals {
    /// Begins to listen; from now on none of them ends the process by itself.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> std::io::Result<Self> {
        // Not in tokio's list of names: 6 is SIGABRT on every Linux.
        let abort = SignalKind::from_raw(6);
        Ok(Self {
            reload: [signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?],
            end: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(abort)?,
            ],
        })
    }

    /// The next wish.
    pub async fn next(&mut self) -> Wish {
        let [hup, usr1] = &mut self.reload;
        let [int, term, abort] = &mut self.end;
        tokio::select! {
            _ = hup.recv() => Wish::Reload,
            _ = usr1.recv() => Wish::Reload,
            _ = int.recv() => Wish::End,
            _ = term.recv() => Wish::End,
            _ = abort.recv() => Wish::End,
        }
    }
}
