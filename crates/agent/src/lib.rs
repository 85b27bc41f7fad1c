//! The agent: fetches tasks from a server, runs them on this machine, reports what came of them.
//!
//! Invariant: a task that the server offers is run once at most; what came of it is on this disk until
//! the server has it. Nothing runs whose type the configuration does not allow.
//! Not here: what tasks mean to anyone (`tasks` in the server), and the operator's side (`cli`).

mod arguments;
mod backoff;
mod book;
mod commands;
mod config;
mod connection;
mod courier;
mod digest;
mod enrolment;
mod output;
mod process;
mod run;
mod running;
mod stop;
mod supervisor;
mod task;
mod tasks;
mod tree;

pub use commands::main;
