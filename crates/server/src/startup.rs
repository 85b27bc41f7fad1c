//! Puts the server together and runs it: read → log → bind → load → serve → drain.
//!
//! Invariant: sockets are bound before plugins are loaded and served after, so a port in use is told at
//! once and the first request already meets every plugin.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use database::DatabaseError;
use plugins::python::package::Package;
use plugins::registry::{ChangeError, Outcome, Registry};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::announce::Announce;
use crate::config::{Config, Problems};
use crate::dispatch::Dispatch;
use crate::http::listener::Listener;
use crate::http::tls::TlsError;
use crate::lending::{self, Lending, LendingError};
use crate::log;
use crate::open_files;
use crate::pid_file::PidFile;
use crate::shutdown::{Signals, Wish};
use crate::site::{Origin, Site, Source};
use crate::sockets::{self, BindError};
use crate::watch::Watch;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the configuration comes from.
    pub origin: Origin,
    /// Whether changed files are reloaded by themselves.
    pub watch: bool,
    /// What is said on standard output.
    pub announce: Announce,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(Problems),
    /// The log file cannot be opened.
    #[error("[log] file: {0}")]
    Log(io::Error),
    /// Nothing to listen on.
    #[error("[network] {0}")]
    Bind(#[from] BindError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database of tasks and accounts cannot be used.
    #[error("[tasks] database: {0}")]
    Database(#[from] DatabaseError),
    /// Machines cannot be lent.
    #[error("[containers] {0}")]
    Lending(#[from] LendingError),
    /// The plugin directory cannot be read.
    #[error("[paths] plugins: {0}")]
    Plugins(#[from] ChangeError),
    /// The Python package cannot be written anywhere.
    #[error("no place for the embedded Python package (set XDG_CACHE_HOME): {0}")]
    Package(io::Error),
    /// The pid file cannot be written.
    #[error("[paths] pidfile {0}: {1}")]
    Pidfile(PathBuf, io::Error),
    /// A file or directory cannot be watched.
    #[error("--watch: {0}")]
    Watch(#[from] notify::Error),
    /// The system refuses something that every system gives.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Runs the server until a signal ends it.
///
/// # Errors
/// When it cannot start.
pub fn run(options: &Options) -> Result<(), StartError> {
    let about = format!("gatehouse {}, pid {}", env!("CARGO_PKG_VERSION"), std::process::id());
    options.announce.say(&about);
    let config = options.origin.read().map_err(StartError::Config)?;
    let log = log::start(&config.log).map_err(StartError::Log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    open_files::raise();
    let dispatch = config.tasks.clone().map(Dispatch::open).transpose()?;
    let outcome = runtime()?.block_on(serve(options, config, dispatch, log.clone()));
    log.flush();
    outcome
}

/// One thread where there is one processor: no thread then waits for another.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = if processors == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.enable_all().thread_name("gatehouse").build()
}

async fn serve(
    options: &Options,
    config: Config,
    dispatch: Option<Dispatch>,
    log: log::Handle,
) -> Result<(), StartError> {
    let mut signals = Signals::listen()?;
    let sockets = bind(&config).await?;
    warn_if_open(&config, &sockets);
    let package = Package::install().map_err(StartError::Package)?;
    let _pid_file = config.paths.pidfile.as_deref().map(write_pid_file).transpose()?;
    let lending = open_lending(options, &config).await?;
    let registry = Registry::new(package);
    let site = Site::new(options.origin.clone(), config, registry, dispatch, lending, log)?;
    let site = Arc::new(site);
    let outcome = tokio::select! {
        outcome = site.load_all() => outcome?,
        () = ended(&mut signals) => return Ok(()),
    };
    let mut beside = JoinSet::new();
    if let Some(dispatch) = site.dispatch.clone() {
        beside.spawn(async move { dispatch.run().await });
    }
    let lending_drain = watch::Sender::new(None);
    if let Some(lending) = site.lending.clone() {
        let drain = lending_drain.subscribe();
        beside.spawn(async move { lending.run(drain).await });
    }
    let classic = serve_classic(&site, &lending_drain);
    let mut watch = start_watch(options, &site)?;
    let addresses = addresses(&site.config(), &sockets)?;
    let mut doors = Doors::open(&site, sockets, options.announce);
    announce(options, &addresses, &outcome);
    loop {
        tokio::select! {
            wish = signals.next() => match wish {
                // Without a file there is nothing to read again; the older program ended, too.
                Wish::Reload if matches!(options.origin.source, Source::Tasks) => break,
                Wish::Reload => {}
                Wish::End => break,
            },
            path = change(watch.as_mut()) => tracing::info!("{} has changed", path.display()),
        }
        // A reload may take long; the end does not wait for it, and what it had begun goes with it.
        tokio::select! {
            () = reload(&site, &mut doors) => {}
            () = ended(&mut signals) => break,
        }
    }
    tokio::select! {
        () = end(&site, doors, classic, &lending_drain) => {}
        () = ended(&mut signals) => tracing::warn!("ended at once, without waiting for requests"),
    }
    Ok(())
}

/// The port of `[network]`, where this process has it.
async fn bind(config: &Config) -> Result<Vec<TcpListener>, BindError> {
    if !config.opens_http {
        return Ok(Vec::new());
    }
    sockets::bind(&config.network.bind_to, config.network.port).await
}

fn write_pid_file(path: &Path) -> Result<PidFile, StartError> {
    PidFile::write(path).map_err(|error| StartError::Pidfile(path.to_owned(), error))
}

/// Opens the third job, where it is configured. Who has configured nothing gets the other jobs also where this one
/// cannot be had.
async fn open_lending(options: &Options, config: &Config) -> Result<Option<Lending>, LendingError> {
    let Some(containers) = config.containers.clone() else { return Ok(None) };
    let is_unasked = matches!(options.origin.source, Source::Default);
    if is_unasked && !lending::has_default_image(&containers) {
        tracing::info!("no machines are lent: `gatehouse image build small` makes their image");
        return Ok(None);
    }
    match Lending::open(containers, open_files::shares_now(config)).await {
        Err(error) if is_unasked => {
            tracing::warn!("no machines are lent: {error}");
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

async fn change(watch: Option<&mut Watch>) -> PathBuf {
    match watch {
        Some(watch) => watch.change().await,
        None => std::future::pending().await,
    }
}

async fn ended(signals: &mut Signals) {
    while signals.next().await != Wish::End {}
}

fn start_watch(options: &Options, site: &Site) -> Result<Option<Watch>, notify::Error> {
    if !options.watch {
        return Ok(None);
    }
    let config = site.config();
    Watch::new(&config.paths.plugins, config.file.as_deref()).map(Some)
}

fn addresses(config: &Config, sockets: &[TcpListener]) -> io::Result<Vec<String>> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    sockets.iter().map(|socket| Ok(format!("{scheme}://{}", socket.local_addr()?))).collect()
}

/// Tells whoever starts it that others can listen in.
fn warn_if_open(config: &Config, sockets: &[TcpListener]) {
    let addresses = sockets.iter().filter_map(|socket| socket.local_addr().ok());
    let mut open = addresses.filter(|address| !address.ip().to_canonical().is_loopback());
    if let Some(address) = open.next().filter(|_| config.tls.is_none()) {
        tracing::warn!(
            "{address} is open to other machines without TLS: passwords and keys can be read on the way \
             (set [ssl], or bind to 127.0.0.1 behind a proxy that speaks TLS)"
        );
    }
}

fn announce(options: &Options, addresses: &[String], outcome: &Outcome) {
    match addresses {
        [] => tracing::info!("ready"),
        addresses => tracing::info!(plugins = ?outcome.names, "ready on {}", addresses.join(" ")),
    }
    // Systemd, if it started us, may now start what depends on us.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    options.announce.ready(addresses, &outcome.names);
}

/// Reads everything again. What cannot be used leaves the old in force, and the log says so.
async fn reload(site: &Arc<Site>, doors: &mut Doors) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]);
    match site.reload_all().await {
        Ok(outcome) => {
            for (file, why, _) in outcome.failures {
                tracing::error!(plugin = file, "not reloaded: {why}");
            }
            doors.move_to(site).await;
        }
        Err(error) => tracing::error!("{error}"),
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// The classic door to machines, where there is one; ended by `drain`.
fn serve_classic(site: &Site, drain: &watch::Sender<Option<Duration>>) -> JoinSet<()> {
    let mut classic = JoinSet::new();
    if let Some(lending) = site.lending.clone() {
        let drain = drain.subscribe();
        classic.spawn(async move { lending.run_door(drain).await });
    }
    classic
}

/// Requests finish, then machines are let go and plugins are told.
async fn end(
    site: &Site,
    doors: Doors,
    mut classic: JoinSet<()>,
    lending_drain: &watch::Sender<Option<Duration>>,
) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let limit = site.config().limits.drain_timeout;
    tracing::info!("ending: requests in flight have {limit:?}");
    if let Some(dispatch) = &site.dispatch {
        dispatch.close();
    }
    // Nobody waits for a machine that is not there yet; who has one is still told of it.
    if let Some(lending) = &site.lending {
        lending.machines.stop_lending();
    }
    lending_drain.send_replace(Some(limit));
    tokio::join!(doors.drain(limit), async { while classic.join_next().await.is_some() {} });
    if let Some(lending) = &site.lending {
        lending.machines.close().await;
    }
    site.registry.shut_down(Duration::ZERO).await;
    tracing::info!("ended");
}

/// The sockets that are served, and the way to others.
struct Doors {
    announce: Announce,
    bound_to: (String, u16),
    drain: watch::Sender<Option<Duration>>,
    listeners: JoinSet<()>,
    /// The documented routes of machines on their own port, which never moves.
    web: JoinSet<()>,
    web_drain: watch::Sender<Option<Duration>>,
}

impl Doors {
    fn open(site: &Arc<Site>, sockets: Vec<TcpListener>, announce: Announce) -> Self {
        let config = site.config();
        let port = bound_port(&sockets).unwrap_or(config.network.port);
        let bound_to = (config.network.bind_to.clone(), port);
        let mut doors = Self {
            announce,
            bound_to,
            drain: watch::Sender::new(None),
            listeners: JoinSet::new(),
            web: JoinSet::new(),
            web_drain: watch::Sender::new(None),
        };
        doors.serve(site, sockets);
        if let Some(web) = site.lending.as_ref().and_then(|lending| lending.take_web()) {
            let shares = open_files::shares_now(&config);
            for socket in web.sockets {
                let listener = Listener::new(socket, Arc::clone(site), shares.web);
                let listener = listener.of_containers(web.tls.clone());
                doors.web.spawn(listener.run(doors.web_drain.subscribe()));
            }
        }
        doors
    }

    fn serve(&mut self, site: &Arc<Site>, sockets: Vec<TcpListener>) {
        let connections_max = open_files::shares_now(&site.config()).http;
        for socket in sockets {
            let listener = Listener::new(socket, Arc::clone(site), connections_max);
            self.listeners.spawn(listener.run(self.drain.subscribe()));
        }
    }

    /// Where the configuration names another address: listens there first, then leaves the old one.
    async fn move_to(&mut self, site: &Arc<Site>) {
        let config = site.config();
        let wanted = (config.network.bind_to.clone(), config.network.port);
        if !config.opens_http {
            return;
        }
        // Port 0 is content with whichever port there is.
        if wanted.0 == self.bound_to.0 && [0, self.bound_to.1].contains(&wanted.1) {
            return;
        }
        match sockets::bind(&wanted.0, wanted.1).await {
            Ok(sockets) => {
                for address in addresses(&config, &sockets).unwrap_or_default() {
                    self.announce.say(&format!("listening on {address}"));
                }
                let old = std::mem::replace(&mut self.drain, watch::Sender::new(None));
                old.send_replace(Some(config.limits.drain_timeout));
                self.bound_to = (wanted.0, bound_port(&sockets).unwrap_or(wanted.1));
                self.serve(site, sockets);
            }
            Err(error) => tracing::error!("the old address stays in use: {error}"),
        }
    }

    async fn drain(mut self, limit: Duration) {
        self.drain.send_replace(Some(limit));
        self.web_drain.send_replace(Some(limit));
        while self.listeners.join_next().await.is_some() {}
        while self.web.join_next().await.is_some() {}
    }
}

/// The port that the sockets listen on.
fn bound_port(sockets: &[TcpListener]) -> Option<u16> {
    sockets.first()?.local_addr().ok().map(|address| address.port())
}
