//! How a command ended, for the shell.

use std::process::ExitCode;

/// How a command that found its server ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// All is well: exit code 0.
    #[default]
    Fine,
    /// Some task had not ended when the waiting did: 4.
    TimedOut,
    /// Some task ended with an error: 3. The agent said so, a command's own exit code was not 0, or
    /// there is no result since the task was cancelled, expired, was given up, or never sent.
    Failed,
    /// The operator had enough of waiting: 130, as shells have it.
    Interrupted,
}

impl Outcome {
    /// The exit code for it.
    #[must_use]
    pub fn code(self) -> ExitCode {
        match self {
            Self::Fine => ExitCode::SUCCESS,
            Self::TimedOut => ExitCode::from(4),
            Self::Failed => ExitCode::from(3),
            Self::Interrupted => ExitCode::from(130),
        }
    }
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Fine
    }
}
