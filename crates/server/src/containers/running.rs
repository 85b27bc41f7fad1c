//! A run of the server, from binding its port to the end of its last container, on a thread of its own.
//!
//! Invariant: when a run is over, nothing of it is left: no port, no thread, and no container unless they are to stay.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::watch;

use super::handlers::{Occasion, Shared};
use super::interfaces::{DatabaseInterface, state_home};
use super::{DEFAULT_SERVER_BIND_ADDRESS, EVENT_STOPPED, RsaWrapper, VirtualizationInterface};
use crate::config::containers::OnShutdown;
use crate::lending::{LendingError, open_machines, open_qemu};
use crate::shutdown::{Signals, Wish};
use crate::sockets::{self, BindError};
use crate::tcp::{Door, DoorSettings, Verbs};

/// How long clients whose requests are being carried out are waited for.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long handlers that have not returned are waited for after that.
const HANDLERS_MAX: Duration = Duration::from_secs(5);
/// Clients connected at a time; one more takes the place of who has no request yet.
const CONNECTIONS_MAX: usize = 4096;
/// Clients without a request yet, of one address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 512;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It runs, or has not ended yet.
    #[error("the server runs already; stop it first, and not in one of its own handlers")]
    IsRunning,
    /// The port cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// What runs containers cannot be used.
    #[error(transparent)]
    Lending(#[from] LendingError),
    /// The system gives no thread, or no signals.
    #[error("starting the server: {0}")]
    System(#[from] std::io::Error),
    /// Its thread has ended at once.
    #[error("the server's thread ended while it was starting")]
    Ended,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuntimeStatistics {
    /// Whether it runs.
    pub is_running: bool,
    /// Failures of its own, panics of handlers included, since it was started last.
    pub recorded_runtime_errors_amount: u64,
    /// Seconds since it was started; 0 when it does not run.
    pub uptime: u64,
    /// Containers that can still be made; 0 when it does not run.
    pub available_containers_amount: u64,
}

/// What a run needs.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub iso: Option<PathBuf>,
    pub bind_address: String,
    pub listen_port: u16,
    pub client_timeout: Option<Duration>,
    pub virtualization: VirtualizationInterface,
    pub database: DatabaseInterface,
    pub rsa: RsaWrapper,
    pub verbs: Verbs,
    pub shared: Arc<Shared>,
    /// Whether signals that end a program stop the server.
    pub heeds_signals: bool,
}

/// A run of the server.
#[derive(Debug)]
pub(super) struct Run {
    pub address: Option<SocketAddr>,
    pub since: Instant,
    stop: watch::Sender<Option<Duration>>,
    over: Arc<Latch>,
}

impl Run {
    /// Returns when clients are served.
    pub(super) fn begin(plan: Plan) -> Result<Self, StartError> {
        let stop = watch::Sender::new(None);
        let over = Arc::new(Latch::default());
        let (tell, told) = mpsc::sync_channel(1);
        let (drain, release) = (stop.clone(), Release(Arc::clone(&over)));
        thread::Builder::new().name("containers".to_owned()).spawn(move || {
            let _release = release;
            run(&plan, &drain, &tell);
        })?;
        let address = told.recv().map_err(|_| StartError::Ended)??;
        Ok(Self { address, since: Instant::now(), stop, over })
    }

    /// Says that it is to end. Does not wait.
    pub(super) fn stop(&self) {
        self.stop.send_replace(Some(DRAIN_MAX));
    }

    pub(super) fn is_over(&self) -> bool {
        *self.over.is_set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be waited for when this is not there any more.
    pub(super) fn over(&self) -> Arc<Latch> {
        Arc::clone(&self.over)
    }
}

/// Set once, waited for by threads.
#[derive(Debug, Default)]
pub(super) struct Latch {
    is_set: Mutex<bool>,
    bell: Condvar,
}

impl Latch {
    pub(super) fn wait(&self) {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.bell.wait_while(is_set, |is_set| !*is_set));
    }
}

/// Sets the latch also when the thread panics.
struct Release(Arc<Latch>);

impl Drop for Release {
    fn drop(&mut self) {
        *self.0.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.bell.notify_all();
    }
}

type Started = mpsc::SyncSender<Result<Option<SocketAddr>, StartError>>;

fn run(plan: &Plan, drain: &watch::Sender<Option<Duration>>, started: &Started) {
    let mut builder = Builder::new_multi_thread();
    builder.thread_name("containers").max_blocking_threads(plan.shared.threads_max());
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // Who waits for this is told, or gone.
            let _ = started.send(Err(error.into()));
            return;
        }
    };
    if let Err(error) = runtime.block_on(serve(plan, drain, started)) {
        let _ = started.send(Err(error));
    }
    runtime.shutdown_timeout(HANDLERS_MAX);
}

async fn serve(
    plan: &Plan,
    drain: &watch::Sender<Option<Duration>>,
    started: &Started,
) -> Result<(), StartError> {
    let bind_to = match plan.bind_address.as_str() {
        DEFAULT_SERVER_BIND_ADDRESS => "0.0.0.0",
        named => named,
    };
    let mut signals = if plan.heeds_signals { Some(Signals::listen()?) } else { None };
    // Before the folder is opened: who has the port is the only one to use its folder.
    let sockets = sockets::bind(bind_to, plan.listen_port).await?;
    let address = sockets.first().and_then(|socket| socket.local_addr().ok());
    let mut config = plan.virtualization.machines.clone();
    // Its machines are set up before anybody asks; handlers are to see that of each.
    config.pool = 0;
    config.iso = plan.iso.clone().or(config.iso);
    config.state = match plan.database.directory() {
        Some(directory) => directory.to_owned(),
        None => {
            let port = address.map_or(plan.listen_port, |address| address.port());
            state_home().join(format!("gatehouse/embedded/{bind_to}-{port}"))
        }
    };
    let machines = open_machines(&config, bind_to, &open_qemu(&config).await?, None).await?;
    let settings = DoorSettings {
        client_timeout: plan.client_timeout,
        connections_max: CONNECTIONS_MAX,
        connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX,
        // An embedding program looks at addresses itself, in `on_connection`.
        ip_filter: None,
        access_tokens: None,
        keys: Arc::clone(&plan.rsa.keys),
    };
    let listening = Some(super::handlers::listening_in_turn(&plan.shared));
    let door = Door::new(settings, plan.verbs.clone(), listening);
    plan.shared.put_machines(Some(machines.clone()));
    let _ = started.send(Ok(address));
    tokio::select! {
        () = door.run(sockets, drain.subscribe()) => {}
        () = stop_at_a_signal(signals.as_mut(), drain) => {}
    }
    machines.close().await;
    plan.shared.put_machines(None);
    let has_left_nothing = config.on_shutdown == OnShutdown::Stop;
    if plan.database.directory().is_none() && plan.listen_port == 0 && has_left_nothing {
        // The next run will have another port, and nothing to find here.
        let _ = std::fs::remove_dir_all(&config.state);
    }
    plan.shared.tell(Occasion { event: EVENT_STOPPED, ..Occasion::default() }).await;
    Ok(())
}

/// Never ends: the door does, when it was told to.
async fn stop_at_a_signal(signals: Option<&mut Signals>, drain: &watch::Sender<Option<Duration>>) {
    if let Some(signals) = signals {
        while signals.next().await != Wish::End {}
        drain.send_replace(Some(DRAIN_MAX));
    }
    std::future::pending::<()>().await;
}
