//! The real program against a scripted server.
#![expect(clippy::unwrap_used, reason = "a failed step fails its test")]

mod agent;
mod commands;
mod delivery;
mod faults;
mod files;
mod server;
mod setup;
