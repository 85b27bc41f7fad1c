//! The states of a machine.

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is being started.
    Starting,
    /// It is lent.
    Ready,
    /// It is being taken back.
    Ending,
}
