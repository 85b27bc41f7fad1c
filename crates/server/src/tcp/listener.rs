//! Accepts clients and gives each a task of its own.
//!
//! Invariant: between two accepts nothing is waited for but the system.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use wire::container::KeyPair;

use super::connection::{self, Served};
use super::events::{Event, Listening, Teller};
use super::turns::Turns;
use super::{AccessTokens, Client, IpFilter, Verbs};
use crate::log::rarely::Rarely;
use crate::places::Places;

/// When accepting fails: a moment for others to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How the door is kept.
#[derive(Debug)]
pub struct DoorSettings {
    /// Until a client's request must be whole, and again until its answer must have been taken; `None` is without end.
    /// What is done in between is not limited.
    pub client_timeout: Option<Duration>,
    /// Connections open at a time.
    pub connections_max: usize,
    /// Connections of one address (of one /64 of IPv6) whose request is not there yet.
    pub connections_per_address_max: usize,
    /// Who may connect; `None` is everybody.
    pub ip_filter: Option<IpFilter>,
    /// What every request must bring; `None` is nothing.
    pub access_tokens: Option<Arc<AccessTokens>>,
    /// The server's keys.
    pub keys: Arc<KeyPair>,
}

/// The classic door.
#[derive(Debug)]
pub struct Door {
    shared: Arc<Shared>,
}

/// What all connections use.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: DoorSettings,
    pub(super) verbs: Verbs,
    pub(super) teller: Teller,
    /// RSA operations at a time.
    pub(super) rsa: Arc<Turns>,
    /// Of clients that found no place.
    refusals: Rarely,
    /// Of accepting.
    failures: Rarely,
    places: Arc<Places<Client>>,
    opened_at: Instant,
}

/// How the door is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Failures of the server's own since it was made.
    pub runtime_errors: u64,
    /// How long it has been there.
    pub uptime: Duration,
}

impl Door {
    /// A door that is not open yet. Requests are carried out by `verbs`; `listening` is told what happens.
    #[must_use]
    pub fn new(settings: DoorSettings, verbs: Verbs, listening: Option<Listening>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let places = Places::new(settings.connections_max, settings.connections_per_address_max);
        let shared = Shared {
            settings,
            verbs,
            teller: Teller::new(listening),
            rsa: Turns::new(processors),
            refusals: Rarely::default(),
            failures: Rarely::default(),
            places,
            opened_at: Instant::now(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// How it is.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics {
            runtime_errors: self.shared.teller.errors(),
            uptime: self.shared.opened_at.elapsed(),
        }
    }

    /// Serves what arrives at `sockets` until `drain` says stop. Then requests that are being carried out are waited for,
    /// at most for the time that it carries; who has none yet is let go at once.
    pub async fn run(&self, sockets: Vec<TcpListener>, drain: watch::Receiver<Option<Duration>>) {
        let mut doors = JoinSet::new();
        self.shared.teller.tell(Event::Started).await;
        for socket in sockets {
            doors.spawn(accept_all(Arc::clone(&self.shared), socket, drain.clone()));
        }
        while doors.join_next().await.is_some() {}
        self.shared.teller.tell(Event::Stopped).await;
    }
}

async fn accept_all(
    shared: Arc<Shared>,
    socket: TcpListener,
    mut drain: watch::Receiver<Option<Duration>>,
) {
    let mut connections = JoinSet::new();
    let limit = loop {
        tokio::select! {
            biased;
            limit = drained(&mut drain) => break limit,
            accepted = socket.accept() => match accepted {
                Ok((stream, address)) => {
                    if let Some(served) = admit(&shared, stream, address) {
                        connections.spawn(connection::serve(served, drain.clone()));
                    }
                }
                Err(error) => {
                    // No file is left, mostly: who has said nothing yet gives one back.
                    if let Some(count) = shared.failures.happens() {
                        tracing::warn!(count, "accepting a client failed: {error}");
                    }
                    shared.places.give_way();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    };
    drop(socket);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limit, all).await.is_err() {
        tracing::warn!("clients whose requests were still carried out after {limit:?} are cut");
        // Waited for: what they were to be told of is taken back before machines are let go.
        connections.shutdown().await;
    }
}

/// Filters before a byte is sent, and finds room.
fn admit(shared: &Arc<Shared>, stream: TcpStream, address: SocketAddr) -> Option<Served> {
    let filter = shared.settings.ip_filter.as_ref();
    if filter.is_some_and(|filter| !filter.admits(address.ip())) {
        tracing::debug!(%address, "refused: its address is not admitted");
        return None;
    }
    let client = Client::new(address);
    let Some(place) = shared.places.take(address.ip(), client.clone()) else {
        if let Some(count) = shared.refusals.happens() {
            tracing::warn!(%address, count, "refused: every connection is busy");
        }
        return None;
    };
    Some(Served { shared: Arc::clone(shared), stream, client, place })
}

/// Waits until the door is to close; how long that may take.
pub(super) async fn drained(drain: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match drain.wait_for(Option::is_some).await {
        Ok(limit) => limit.unwrap_or_default(),
        Err(_) => Duration::ZERO,
    }
}
