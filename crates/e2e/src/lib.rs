//! The harness: starts the real program in a directory of its own and talks to it from outside.
//!
//! Invariant: nothing is shared between two tests but the program file; every wait has a deadline.
//! Not here: what must be true of the program (`tests/all`).

#![expect(clippy::expect_used, reason = "this crate is test code: a failed step fails the test")]

mod chance;
mod dispatch;
mod guest;
mod http;
mod kin;
pub mod lending;
mod link;
mod process;
mod raw;
mod receiver;
mod schema;
mod server;
mod setup;
mod sse;
mod text;

use std::time::{Duration, Instant};

pub use chance::Chance;
pub use dispatch::{Caller, Dispatch, encoded};
pub use guest::Guest;
pub use http::{Reply, Request};
pub use kin::{descendants, is_running, peak_memory_kib};
pub use lending::Lending;
pub use link::{Link, Outcome};
pub use process::{Exit, Process, Signal, program, run, run_reading};
pub use raw::Connection;
pub use receiver::Receiver;
pub use schema::{fits, form};
pub use server::Server;
pub use setup::{Setup, free_port};
pub use sse::{Message, Stream};
pub use text::Text;

/// How long any one step may take before its test fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Asks `look` again and again until it finds something.
///
/// # Panics
/// When [`DEADLINE`] passes first; the message names `what`.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}
