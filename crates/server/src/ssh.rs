//! The SSH gateway: one port for all machines, `ssh MACHINE@server`.
//!
//! Invariant: the gateway lets nobody in whom the machine itself has not let in, by its password, or for whom the server
//! has not signed a certificate or been given a key for this machine. It keeps no password.
//! Not here: which machines there are, which [`Directory`] tells, and who may have a certificate.

pub mod authority;
mod relay;
mod visitor;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use machines::MachineId;
use machines::guest::leash::leash;
use machines::guest::ssh_key::SshKey;
use machines::hypervisor::{GuestStream, Later};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, compression};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::accounts::attempts::{Attempt, Attempts, Target};
use crate::log::rarely::Rarely;
use crate::places::{GivesWay, Place, Places};
use crate::tcp::IpFilter;
use authority::Authority;
use visitor::Visitor;

/// Wrong answers are told after this time, whatever was wrong.
const REJECTION_TIME: Duration = Duration::from_secs(1);
/// How often a connection may try to log in: somebody's agent may hold some keys for others.
const TRIES_MAX: usize = 8;
/// Channels of one connection.
const CHANNELS_MAX: usize = 16;
/// After this time without a word a client is asked whether it is there.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(60);
/// How long is waited after an error of accepting that is nobody's.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A machine as the gateway needs to know it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which.
    pub id: MachineId,
    /// Its user.
    pub user: String,
    /// `SHA256:…` of its SSH host key, where the server gave it one.
    pub host_key: Option<String>,
    /// Public keys, as lines, whose holders may log in.
    pub authorized_keys: Vec<String>,
    /// The server's own key for this machine, which the machine lets in. Without it only the password works.
    pub key: Option<SshKey>,
}

/// The machine that somebody names.
pub type Find = dyn Fn(&str) -> Option<Entry> + Send + Sync;
/// A stream to a port of a machine.
pub type Connect =
    dyn Fn(MachineId, u16) -> Later<'static, io::Result<Box<dyn GuestStream>>> + Send + Sync;

/// Which machines there are.
pub struct Directory {
    /// The machine that somebody names: by its id, by what it begins with, or by a label.
    pub find: Box<Find>,
    /// Connects to a port of a machine.
    pub connect: Box<Connect>,
    /// Is told who logged in where and how, and who did not.
    pub note: Box<dyn Fn(Visit<'_>) + Send + Sync>,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Directory")
    }
}

/// An attempt to log in.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// From where.
    pub from: IpAddr,
    /// To which machine, if there is one of the name that was said.
    pub machine: Option<MachineId>,
    /// By what: `password`, `key` or `certificate`.
    pub by: &'static str,
    /// The certificate's key id: to whom it was issued.
    pub holder: Option<&'a str>,
    /// Whether the visitor was let in.
    pub is_admitted: bool,
}

/// How the gateway works.
#[derive(Debug)]
pub struct Settings {
    /// The gateway's own key.
    pub host_key: SshKey,
    /// Who signs certificates.
    pub authority: Authority,
    /// Connections at the same time. One more takes the place of who has not logged in.
    pub connections_max: usize,
    /// Connections of one address (of one /64 of IPv6) that have not logged in. One more takes the place of the oldest.
    pub strangers_per_address_max: usize,
    /// How long a stranger may take to log in.
    pub login_max: Duration,
    /// Who may connect; `None` is everybody.
    pub ip_filter: Option<IpFilter>,
}

/// Told when a stranger is to go, for others.
type Stranger = Arc<Notify>;

impl GivesWay for Stranger {
    fn give_way(&self) {
        self.notify_one();
    }
}

/// The gateway. Lives as long as [`Gateway::serve`] is polled.
#[derive(Debug)]
pub struct Gateway {
    directory: Directory,
    authority: Authority,
    config: Arc<Config>,
    places: Arc<Places<Stranger>>,
    login_max: Duration,
    ip_filter: Option<IpFilter>,
    attempts: Mutex<Attempts>,
    /// Of those who found no place.
    refusals: Rarely,
    /// Of accepting.
    failures: Rarely,
}

/// Who has a place.
struct Admitted {
    ip: IpAddr,
    gone: Stranger,
    place: Place<Stranger>,
}

impl Gateway {
    /// Makes it; nothing listens yet.
    #[must_use]
    pub fn new(settings: Settings, directory: Directory) -> Arc<Self> {
        let mut methods = MethodSet::empty();
        methods.push(MethodKind::PublicKey);
        methods.push(MethodKind::Password);
        let config = Config {
            server_id: SshId::Standard("SSH-2.0-Gatehouse".into()),
            methods,
            auth_rejection_time: REJECTION_TIME,
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: vec![(*settings.host_key.pair()).clone()],
            max_auth_attempts: TRIES_MAX,
            inactivity_timeout: None,
            keepalive_interval: Some(KEEPALIVE_EVERY),
            // What is compressed says more about what is inside than it saves.
            preferred: Preferred {
                compression: std::borrow::Cow::Borrowed(&[compression::NONE]),
                ..Preferred::DEFAULT
            },
            ..Config::default()
        };
        Arc::new(Self {
            directory,
            authority: settings.authority,
            config: Arc::new(config),
            places: Places::new(settings.connections_max, settings.strangers_per_address_max),
            login_max: settings.login_max,
            ip_filter: settings.ip_filter,
            refusals: Rarely::default(),
            failures: Rarely::default(),
            attempts: Mutex::default(),
        })
    }

    /// Takes connections until `stop`, then waits for those that are open. Dropping it ends them all.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future) {
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => break,
                accepted = listener.accept() => match accepted {
                    Ok((client, address)) => {
                        // Closed at once where there is no place.
                        if let Some(admitted) = self.admit(address) {
                            connections.spawn(Arc::clone(&self).receive(client, admitted));
                        }
                    }
                    Err(error) => {
                        if let Some(count) = self.failures.happens() {
                            tracing::warn!(%error, count, "the SSH gateway cannot take a connection");
                        }
                        self.places.give_way();
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    fn admit(&self, address: SocketAddr) -> Option<Admitted> {
        let ip = address.ip().to_canonical();
        if self.ip_filter.as_ref().is_some_and(|filter| !filter.admits(ip)) {
            tracing::debug!(%ip, "closed by the SSH gateway: its address is not admitted");
            return None;
        }
        let gone = Stranger::default();
        let place = self.places.take(ip, Arc::clone(&gone));
        if place.is_none()
            && let Some(count) = self.refusals.happens()
        {
            tracing::warn!(%ip, count, "closed by the SSH gateway: all its connections are in use");
        }
        Some(Admitted { ip, gone, place: place? })
    }

    async fn receive(self: Arc<Self>, client: TcpStream, admitted: Admitted) {
        let Admitted { ip, gone, mut place } = admitted;
        if client.set_nodelay(true).is_err() {
            return;
        }
        // russh runs a connection in a task of its own, which ends with the leash.
        let (leash, stream) = leash(client);
        let logged_in = Arc::new(Notify::new());
        let visitor = Visitor::new(Arc::clone(&self), ip, Arc::clone(&logged_in));
        let session = async {
            let running = russh::server::run_stream(Arc::clone(&self.config), stream, visitor);
            running.await?.await
        };
        let sent_away = async {
            tokio::select! {
                logged_in = tokio::time::timeout(self.login_max, logged_in.notified()) => {
                    match logged_in {
                        Ok(()) if place.settle() => std::future::pending().await,
                        Ok(()) => "a stranger gave way to another",
                        Err(_) => "nobody logged in in time",
                    }
                }
                () = gone.notified() => "a stranger gave way to another",
            }
        };
        tokio::select! {
            ended = session => {
                if let Err(error) = ended {
                    tracing::debug!(%ip, %error, "a connection to the SSH gateway ended");
                }
            }
            why = sent_away => tracing::debug!(%ip, "sent away by the SSH gateway: {why}"),
        }
        drop(leash);
    }

    /// Takes a try of `ip` at the machine of this name, if there may be another.
    fn try_once(&self, ip: IpAddr, name: &str) -> Option<Attempt> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = attempts.attempt(ip, Target::Named(name));
        attempts.take(attempt, Instant::now()).ok().map(|()| attempt)
    }

    /// It was no wrong try.
    fn forgive(&self, attempt: Attempt) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).forgive(attempt);
    }
}

#[cfg(test)]
mod tests;
