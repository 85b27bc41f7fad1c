//! `machines`: asks for machines as their users do, logs in, and gives them back.
//!
//! Invariant: a machine counts when a command was answered in it, and every machine that was got is given back, in time
//! or not; one that is refused ends the load.
//! Not here: HTTP ([`rest`]), SSH ([`ssh`]), the encrypted protocol ([`classic`]), what QEMU uses ([`guests`]).

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::LoadError;
use crate::process::Process;
use crate::samples::{latencies, nanos_of};

mod classic;
mod guests;
mod rest;
mod ssh;

use rest::{Created, Rest};

/// How long the server may take to be at rest, and its pool to be full.
const REST_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    load: Load,
}

#[derive(Debug, clap::Subcommand)]
enum Load {
    /// One machine after the other: got, used for one command, given back.
    Create(Create),
    /// Many machines at once.
    Burst(Burst),
    /// STAT by the encrypted protocol, with a key that is used again.
    Stat(classic::Arguments),
    /// Machines that do nothing: memory and processor time, theirs and the server's.
    Hold(Hold),
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct Server {
    /// Where the server speaks HTTP.
    #[arg(long)]
    server: SocketAddrV4,
    /// The server's process.
    #[arg(long)]
    pid: u32,
    /// Memory of each machine in MiB; as the server has it otherwise.
    #[arg(long)]
    memory: Option<u32>,
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    server: Server,
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Machines that the server keeps ready: each time it has that many again before the next is asked for.
    #[arg(long, default_value_t = 0)]
    pool: usize,
}

#[derive(Debug, clap::Args)]
struct Burst {
    #[command(flatten)]
    server: Server,
    #[arg(long, default_value_t = 10)]
    count: usize,
}

#[derive(Debug, clap::Args)]
struct Hold {
    #[command(flatten)]
    server: Server,
    #[arg(long, default_value_t = 1)]
    count: usize,
    #[arg(long, default_value_t = 10.0)]
    idle_secs: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, LoadError> {
    match &arguments.load {
        Load::Create(arguments) => create(arguments),
        Load::Burst(arguments) => burst(arguments),
        Load::Stat(arguments) => classic::run(arguments),
        Load::Hold(arguments) => hold(arguments),
    }
}

/// Nanoseconds of each machine.
#[derive(Default)]
struct Times {
    created: Vec<u64>,
    answered: Vec<u64>,
    destroyed: Vec<u64>,
}

fn create(arguments: &Create) -> Result<Value, LoadError> {
    let rest = Rest::new(arguments.server.server, arguments.server.memory);
    let server = Process(arguments.server.pid);
    let mut times = Times::default();
    for _ in 0..arguments.count {
        guests::come_to_rest(server, arguments.pool, REST_LIMIT)?;
        let began = Instant::now();
        let created = rest.create()?;
        times.created.push(nanos_of(began.elapsed()));
        // Given back even when the command fails; the first thing that went wrong is told.
        let answered = answered(&created);
        let began = Instant::now();
        let destroyed = rest.destroy(&created);
        times.destroyed.push(nanos_of(began.elapsed()));
        times.answered.push(answered?);
        destroyed?;
        created.check_gone()?;
    }
    Ok(json!({
        "create": latencies(&mut times.created),
        "first_command": latencies(&mut times.answered),
        "destroy": latencies(&mut times.destroyed),
    }))
}

fn answered(created: &Created) -> Result<u64, LoadError> {
    let began = Instant::now();
    ssh::first_command(created)?;
    Ok(nanos_of(began.elapsed()))
}

fn burst(arguments: &Burst) -> Result<Value, LoadError> {
    let rest = Rest::new(arguments.server.server, arguments.server.memory);
    guests::come_to_rest(Process(arguments.server.pid), 0, REST_LIMIT)?;
    let began = Instant::now();
    let one = || -> Result<(Created, Result<u64, LoadError>), LoadError> {
        let created = rest.create()?;
        let usable = ssh::first_command(&created).map(|()| nanos_of(began.elapsed()));
        Ok((created, usable))
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..arguments.count).map(|_| scope.spawn(one)).collect();
        asking.into_iter().map(|asked| asked.join().unwrap_or(Err(died()))).collect()
    });
    let (mut usable, mut failed) = (Vec::new(), None);
    for outcome in all {
        let (created, nanos) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                failed = Some(error);
                continue;
            }
        };
        let destroyed = rest.destroy(&created);
        match nanos.and_then(|nanos| destroyed.map(|()| nanos)) {
            Ok(nanos) => usable.push(nanos),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or_else(|| Ok(latencies(&mut usable)), Err)
}

fn died() -> LoadError {
    LoadError::Protocol("a thread of this load ended early".to_owned())
}

fn hold(arguments: &Hold) -> Result<Value, LoadError> {
    let rest = Rest::new(arguments.server.server, arguments.server.memory);
    let server = Process(arguments.server.pid);
    let before = server.rss_bytes()?;
    let mut held = Vec::with_capacity(arguments.count);
    let measured = fill(&rest, arguments.count, &mut held).and_then(|()| {
        guests::come_to_rest(server, 0, REST_LIMIT)?;
        guests::idle(server, &held, Duration::from_secs_f64(arguments.idle_secs))
    });
    let mut destroyed = Ok(());
    for created in &held {
        destroyed = rest.destroy(created).and(destroyed);
    }
    let mut measured = measured?;
    destroyed?;
    measured["count"] = json!(arguments.count);
    measured["server_rss_before_bytes"] = json!(before);
    Ok(measured)
}

fn fill(rest: &Rest, count: usize, held: &mut Vec<Created>) -> Result<(), LoadError> {
    for _ in 0..count {
        let created = rest.create()?;
        let used = ssh::first_command(&created);
        held.push(created);
        used?;
    }
    Ok(())
}
