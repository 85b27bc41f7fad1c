//! What the room is told by the configuration.

use std::time::Duration;

/// Limits of tasks and events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Events that are kept of each agent; the newest.
    pub events_max: usize,
    /// Tasks that may wait for one agent.
    pub queue_max: usize,
    /// How often a task is handed out under leases before it is given up, unless the task says otherwise.
    pub attempts_max: u32,
    /// How long a task that was handed out without a lease may go without a result before it is given up.
    pub result_timeout: Duration,
    /// How long an ended task is kept; `None` is for ever.
    pub history: Option<Duration>,
    /// The most output that is kept of one task, in bytes.
    pub output_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            events_max: 512,
            queue_max: 10_000,
            attempts_max: 5,
            result_timeout: Duration::from_secs(7 * 24 * 3600),
            history: Some(Duration::from_secs(30 * 24 * 3600)),
            output_bytes_max: 1 << 20,
        }
    }
}
