//! The real program against a scripted server.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "these are tests; what fails, fails the test"
)]

mod agent;
mod commands;
mod delivery;
mod faults;
mod files;
mod server;
mod setup;
