//! STAT by the encrypted protocol: a new connection for each, and one key of each client for all of its connections.
//!
//! Invariant: every answer is decrypted and read. Clients do their RSA work in this process; how much that was is told
//! as the load's share of a core.

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wire::container::{ClientSide, Generation, KeyPair, Progress, REQUEST_VERB_STAT};

use crate::Window;
use crate::error::LoadError;
use crate::samples::Samples;

/// Bits of a client's key: the fewest that the library makes.
const KEY_BITS: u32 = 2048;
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the server speaks the encrypted protocol.
    #[arg(long)]
    server: SocketAddrV4,
    #[arg(long, default_value_t = 1)]
    clients: usize,
    #[command(flatten)]
    window: Window,
}

pub(super) fn run(arguments: &Arguments) -> Result<Value, LoadError> {
    let failed = |error| LoadError::Protocol(format!("a client's key: {error}"));
    let keys = (0..arguments.clients).map(|_| KeyPair::generate(KEY_BITS).map(Arc::new));
    let keys = keys.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let samples = Mutex::new(arguments.window.samples());
    let server = SocketAddr::from(arguments.server);
    std::thread::scope(|scope| {
        let samples = &samples;
        let start = |keys| scope.spawn(move || ask_on(server, &keys, samples));
        let clients: Vec<_> = keys.into_iter().map(start).collect();
        clients.into_iter().try_for_each(|client| client.join().unwrap_or(Err(super::died())))
    })?;
    Ok(samples.into_inner().unwrap_or_else(PoisonError::into_inner).summary())
}

/// Asks again and again until the window closes.
fn ask_on(
    server: SocketAddr,
    keys: &Arc<KeyPair>,
    samples: &Mutex<Samples>,
) -> Result<(), LoadError> {
    let request = json!({ "verb": REQUEST_VERB_STAT, "parameters": {} });
    loop {
        let began = Instant::now();
        ask(server, ClientSide::new(Arc::clone(keys), Generation::Four, &request, None))?;
        let now = Instant::now();
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.record(began, now);
        if samples.is_over(now) {
            return Ok(());
        }
    }
}

fn ask(server: SocketAddr, mut side: ClientSide) -> Result<(), LoadError> {
    let what = "STAT";
    let mut stream =
        TcpStream::connect_timeout(&server, LIMIT).map_err(LoadError::io("connecting"))?;
    stream.set_nodelay(true).map_err(LoadError::io(what))?;
    stream.set_read_timeout(Some(LIMIT)).map_err(LoadError::io(what))?;
    let mut buffer = [0; 4096];
    loop {
        let progress = side.advance();
        let output = side.take_output();
        stream.write_all(&output).map_err(LoadError::io(what))?;
        match progress.map_err(|refusal| LoadError::Protocol(format!("{what}: {refusal}")))? {
            Progress::Response(response) if response.success => return Ok(()),
            Progress::Response(response) => {
                return Err(LoadError::unexpected(what, response.message.as_bytes()));
            }
            Progress::Read => {}
        }
        match stream.read(&mut buffer).map_err(LoadError::io(what))? {
            0 => return Err(LoadError::Protocol(format!("{what}: closed without an answer"))),
            count => side.feed(&buffer[..count]),
        }
    }
}
