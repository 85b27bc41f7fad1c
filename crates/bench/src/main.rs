//! `dispatch-load`: puts load on a dispatch server, and the same kind of load on those it is
//! compared with.
//!
//! Invariant: one thread, so that it has one core, but for clients of machines, which wait for each other; prints one line of JSON when everything that was
//! asked was answered, and nothing but an error otherwise.
//! Not here: starting servers, comparing numbers (`benches/dispatch`).

use std::io::Write;
use std::net::SocketAddrV4;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

mod accounts;
mod disk;
mod error;
mod events;
mod fill;
mod http;
mod jetstream;
mod machines;
mod nats;
mod parked;
mod process;
mod reactor;
mod redis;
mod request_reply;
mod roundtrip;
mod samples;

use error::LoadError;
use process::Process;
use samples::Samples;

#[derive(Debug, Parser)]
#[command(about = "Puts load on a dispatch server, prints numbers as JSON")]
struct Arguments {
    #[command(subcommand)]
    load: Load,
}

#[derive(Debug, Subcommand)]
enum Load {
    /// Agents that report events.
    Events(events::Arguments),
    /// Tasks from admins to parked agents, and their results.
    Roundtrip(roundtrip::Arguments),
    /// Very many parked agents: memory, idle time, delivery.
    Parked(parked::Arguments),
    /// Makes a history of tasks.
    Fill(fill::Arguments),
    /// NATS: requests and replies, nothing stored.
    Nats(Pairs),
    /// NATS JetStream: tasks and results, both stored.
    Jetstream(Pairs),
    /// NATS JetStream: events, each acknowledged.
    JetstreamEvents(Pairs),
    /// Redis: tasks and results through lists.
    Redis(Pairs),
    /// What the disk can make durable.
    Disk(disk::Arguments),
    /// Temporary machines.
    Machines(machines::Arguments),
}

/// Another server, and who talk through it.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Pairs {
    /// Where it listens.
    #[arg(long)]
    server: SocketAddrV4,
    /// Who send tasks, and as many who do them; or connections that report events.
    #[arg(long, default_value_t = 64)]
    pairs: usize,
    #[command(flatten)]
    window: Window,
}

/// When a load is measured.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Window {
    #[arg(long, default_value_t = 5.0)]
    secs: f64,
    /// Not measured, before it.
    #[arg(long, default_value_t = 1.0)]
    warm_up_secs: f64,
    /// The server's process, to tell how much of a core it used.
    #[arg(long)]
    pid: Option<u32>,
}

impl Window {
    fn samples(self) -> Samples {
        Samples::new(self.warm_up_secs, self.secs, self.pid.map(Process))
    }
}

fn run(load: &Load) -> Result<Value, LoadError> {
    match load {
        Load::Events(arguments) => events::run(arguments),
        Load::Roundtrip(arguments) => roundtrip::run(arguments),
        Load::Parked(arguments) => parked::run(arguments),
        Load::Fill(arguments) => fill::run(arguments),
        Load::Nats(arguments) => request_reply::run(arguments),
        Load::Jetstream(arguments) => jetstream::run(arguments),
        Load::JetstreamEvents(arguments) => jetstream::run_events(arguments),
        Load::Redis(arguments) => redis::run(arguments),
        Load::Disk(arguments) => disk::run(arguments),
        Load::Machines(arguments) => machines::run(arguments),
    }
}

fn main() -> ExitCode {
    let printed = match run(&Arguments::parse().load) {
        Ok(numbers) => writeln!(std::io::stdout(), "{numbers}"),
        Err(error) => {
            // Where even that cannot be written, the exit code speaks.
            let _ = writeln!(std::io::stderr(), "dispatch-load: {error}");
            return ExitCode::FAILURE;
        }
    };
    if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
