//! Plugins in Python, each file in worker processes of its own.
//!
//! `package` puts `plugincore` where an interpreter finds it, `process` starts and ends one process,
//! `link` speaks to it, `seat` keeps one place filled, `pool` is all seats of a file.

pub mod link;
pub mod output;
pub mod package;
pub mod pool;
pub mod process;
pub mod protocol;
pub mod seat;
pub mod stream;

use std::path::PathBuf;
use std::time::Duration;

/// How Python plugins are run.
#[derive(Debug, Clone)]
pub struct PythonSettings {
    /// The interpreter.
    pub interpreter: PathBuf,
    /// A worker's memory for data, in bytes; 0 is without limit.
    pub memory_bytes_max: u64,
    /// Until a worker is ready.
    pub start_timeout: Duration,
    /// Without a sign of life.
    pub hang_timeout: Duration,
    /// For `terminate_plugin` at the end.
    pub stop_timeout: Duration,
    /// Calls in flight or waiting for one worker.
    pub calls_max: usize,
    /// Bytes of a whole answer.
    pub reply_bytes_max: usize,
    /// A plugin's time for one call, unless its class says otherwise.
    pub handler_timeout: Duration,
    /// `self.log` leaves out what is more detailed: ERROR, WARNING, INFO, DEBUG.
    pub log_level: &'static str,
}
