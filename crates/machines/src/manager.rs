//! All machines of this server: what doors ask, and who keeps count.
//!
//! Invariant: a place is taken before anything is started, and each machine is changed by one task alone, its
//! driver. Everything else sends it a word and waits.

mod adoption;
mod driver;
mod handover;
mod lock;
mod order;
mod pending;
mod pool;
mod register;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::Secret;

use crate::error::MachineError;
use crate::hypervisor::{GuestStream, Hypervisor};
use crate::image::Images;
use crate::machine::{Lent, MachineId, Order, Summary};
use crate::ports::Ports;

use driver::{Command, Stop};
pub use handover::{Handover, Telling};
pub use pending::{Pending, Step};
use register::Register;

/// How machines are lent.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where running machines are kept, in a folder `running`.
    pub directory: PathBuf,
    /// The most machines at a time.
    pub machines_max: usize,
    /// The most machines of one owner.
    pub quota: Option<usize>,
    /// The image of an order that names none.
    pub image: DefaultImage,
    /// Memory of a machine in MiB, unless the order says otherwise; and the most that an order may say.
    pub memory_mb: u32,
    /// See `memory_mb`.
    pub memory_mb_max: u32,
    /// Processors of a machine, unless the order says otherwise; and the most that an order may say.
    pub vcpus: u32,
    /// See `vcpus`.
    pub vcpus_max: u32,
    /// Lifetime of a machine, unless the order says otherwise.
    pub ttl: Option<Duration>,
    /// The longest lifetime, from now, that an order or an extension may say.
    pub ttl_max: Option<Duration>,
    /// Machines that are kept started and set up, for those who come.
    pub pool: usize,
    /// Machines that are started at the same time; others wait their turn.
    pub starts_at_once: usize,
    /// Whether machines outlive the server.
    pub keeps: bool,
    /// A machine of an earlier server that may have ended before it could tell the owner is taken back when nobody has
    /// entered it for so long.
    pub claim_within: Duration,
    /// The user by which images without an agent are set up.
    pub endpoint: crate::guest::ssh::Login,
    /// A public key that machines with an agent let in beside their owner's: that of the SSH gateway.
    pub gateway_key: Option<String>,
    /// Limits of those who connect to a machine, by its public port and by [`Machines::connect`] together.
    pub forwarding: crate::ports::Limits,
}

/// The image of an order that names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultImage {
    /// One of the folder of images.
    Named(String),
    /// A bare ISO, which can also be asked for by the name of its file.
    Iso(PathBuf),
}

impl DefaultImage {
    /// By which name it can be asked for.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Named(name) => name.clone(),
            Self::Iso(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }
}

/// What the server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Since when it lends machines.
    pub uptime: Duration,
    /// Places that are free.
    pub available: usize,
    /// Places that are taken.
    pub taken: usize,
    /// Machines in the warm pool.
    pub spare: usize,
}

/// All machines of this server. Clones are the same.
#[derive(Debug, Clone)]
pub struct Machines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    hypervisor: Arc<dyn Hypervisor>,
    images: Arc<Images>,
    ports: Ports,
    register: Mutex<Register>,
    drivers: Mutex<JoinSet<()>>,
    /// One permit for each machine that may be starting.
    starts: Arc<Semaphore>,
    spares: Mutex<Vec<pool::Spare>>,
    /// Rings when a spare was taken or the pool is to be looked at for another reason.
    pool_bell: tokio::sync::Notify,
    since: Instant,
    is_closing: watch::Sender<bool>,
    /// Until it is closed.
    lock: Mutex<Option<std::fs::File>>,
}

impl Shared {
    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> PathBuf {
        self.settings.directory.join("running")
    }

    fn is_closing(&self) -> bool {
        *self.is_closing.borrow()
    }

    /// Why a machine that is being made is none any more: `error`, unless that comes of the server's end.
    fn cause(&self, error: MachineError) -> MachineError {
        if self.is_closing() { MachineError::Closing } else { error }
    }
}

impl Machines {
    /// Finds what an earlier server lent and cleans away what it left half done; then takes orders.
    ///
    /// # Errors
    /// When the folder of machines cannot be made or read, or another server has it.
    pub async fn open(
        settings: Settings,
        hypervisor: Arc<dyn Hypervisor>,
        images: Arc<Images>,
        ports: Ports,
    ) -> Result<Self, MachineError> {
        let directory = settings.directory.clone();
        let what = directory.display().to_string();
        let lock = off_thread(|| what, move || lock::lock(&directory)).await?;
        let shared = Arc::new(Shared {
            register: Mutex::new(Register::new(settings.machines_max, settings.quota)),
            starts: Arc::new(Semaphore::new(settings.starts_at_once.max(1))),
            settings,
            hypervisor,
            images,
            ports,
            drivers: Mutex::default(),
            spares: Mutex::default(),
            pool_bell: tokio::sync::Notify::new(),
            since: Instant::now(),
            is_closing: watch::Sender::new(false),
            lock: Mutex::new(Some(lock)),
        });
        adoption::adopt_all(&shared).await?;
        Ok(Self(shared))
    }

    /// Keeps the warm pool full, until the server closes.
    pub async fn run(&self) {
        pool::keep_full(&self.0).await;
    }

    /// What can be said of the server.
    #[must_use]
    pub fn stat(&self) -> Stat {
        // One lock after the other: the pool takes both in the other order.
        let spare = self.0.spares.lock().unwrap_or_else(PoisonError::into_inner).len();
        let register = self.0.register();
        Stat {
            uptime: self.0.since.elapsed(),
            available: register.available(),
            taken: register.taken(),
            spare,
        }
    }

    /// What runs the machines, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        self.0.hypervisor.describe()
    }

    /// The images that machines can be started from.
    #[must_use]
    pub fn images(&self) -> &Arc<Images> {
        &self.0.images
    }

    /// Takes a place for what `order` asks. Nothing has been started yet; what is returned goes through the steps, and
    /// dropped at any of them it undoes all.
    ///
    /// # Errors
    /// When the order asks for what cannot be, no place is free, or the server closes.
    pub async fn order(&self, order: Order) -> Result<Pending, MachineError> {
        pending::begin(&self.0, order).await
    }

    /// Lends a machine: [`Machines::order`] and all its steps. Dropped before its end, everything is undone; so it is when
    /// what is returned is dropped before the owner was [told](Handover::told).
    ///
    /// # Errors
    /// When any of them fails; everything is undone then.
    pub async fn create(&self, order: Order) -> Result<Lent, MachineError> {
        let mut pending = self.order(order).await?;
        pending.start().await?;
        pending.set_up().await?;
        pending.finish().await
    }

    /// Takes a machine back at once, for who holds its token.
    ///
    /// # Errors
    /// When there is no such machine, or the token is another's. Who does not know the token learns from neither text
    /// whether the machine exists, if a door says the same for both.
    pub async fn destroy(&self, id: MachineId, token: &Secret) -> Result<(), MachineError> {
        let mut gone = {
            let register = self.0.register();
            register.check_token(id, token)?;
            // Of several at once one takes it back; for the others it is gone.
            register.stop_first(id, Stop::Asked)?
        };
        let _ = gone.wait_for(|gone| *gone).await;
        Ok(())
    }

    /// Takes a machine back at once, for who may take any.
    ///
    /// # Errors
    /// When there is no such machine.
    pub async fn end(&self, id: MachineId) -> Result<(), MachineError> {
        let mut gone = self.0.register().stop(id, Stop::Asked)?;
        // An error means that its driver is gone, and so is the machine.
        let _ = gone.wait_for(|gone| *gone).await;
        Ok(())
    }

    /// Whether `token` is that of machine `id`.
    ///
    /// # Errors
    /// When there is no such machine, or the token is another's.
    pub fn check_token(&self, id: MachineId, token: &Secret) -> Result<(), MachineError> {
        self.0.register().check_token(id, token)
    }

    /// Sets the end of a machine's lifetime to `ttl` from now. Returns the new end.
    ///
    /// # Errors
    /// When there is no such machine, it is not lent, or the lifetime is longer than allowed.
    pub async fn extend(&self, id: MachineId, ttl: Duration) -> Result<SystemTime, MachineError> {
        let ttl = order::lifetime(&self.0.settings, Some(ttl))?.unwrap_or(ttl);
        let expires_at = SystemTime::now()
            .checked_add(ttl)
            .ok_or_else(|| MachineError::Order("ttl: later than this clock can tell".into()))?;
        let commands = self.0.register().commands(id)?;
        let (done, extended) = oneshot::channel();
        let extend = Command::Extend { expires_at, done };
        commands.send(extend).await.map_err(|_| MachineError::NotFound)?;
        extended.await.map_err(|_| MachineError::NotFound)??;
        Ok(expires_at)
    }

    /// Machines that were asked for, the oldest first; those of `owner` alone if given.
    #[must_use]
    pub fn list(&self, owner: Option<&str>) -> Vec<Summary> {
        self.0.register().list(owner)
    }

    /// One machine.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn show(&self, id: MachineId) -> Result<Summary, MachineError> {
        self.0.register().show(id)
    }

    /// The last of what a machine printed on its console.
    ///
    /// # Errors
    /// When there is no such machine, or its console cannot be read.
    pub async fn console(&self, id: MachineId, bytes_max: usize) -> Result<Vec<u8>, MachineError> {
        let desk = self.0.register().desk(id)?;
        let read = desk.vm().console(bytes_max).await;
        read.map_err(|source| MachineError::Io { what: format!("the console of {id}"), source })
    }

    /// Connects to a port of a machine that is lent, within the limits that its public port has: they are the same.
    ///
    /// # Errors
    /// When there is no such machine, too many are connected, or it does not answer.
    pub async fn connect(
        &self,
        id: MachineId,
        port: u16,
    ) -> Result<Box<dyn GuestStream>, MachineError> {
        let desk = self.0.register().desk(id)?;
        match desk.connect(port).await {
            Ok(visit) => Ok(Box::new(visit)),
            Err(source) => Err(MachineError::Io { what: format!("port {port} of {id}"), source }),
        }
    }

    /// Lends no more: machines that are being started are undone, and the pool is emptied. Owners can still be told of
    /// those that are lent.
    pub fn stop_lending(&self) {
        self.0.is_closing.send_replace(true);
        self.0.pool_bell.notify_one();
        drop(std::mem::take(&mut *self.0.spares.lock().unwrap_or_else(PoisonError::into_inner)));
        self.0.register().stop_unlent(Stop::Closing);
    }

    /// Ends: as [`Machines::stop_lending`]; then machines that are lent are kept or taken back, as configured. Returns
    /// when all of it is done.
    pub async fn close(&self) {
        self.stop_lending();
        let stop = if self.0.settings.keeps { Stop::Leave } else { Stop::Closing };
        self.0.register().stop_all(stop);
        let mut drivers =
            std::mem::take(&mut *self.0.drivers.lock().unwrap_or_else(PoisonError::into_inner));
        while drivers.join_next().await.is_some() {}
        drop(self.0.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Makes a folder that only this user may enter. Blocks.
fn private_folder(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Does `work`, which blocks, elsewhere.
async fn off_thread<T: Send + 'static>(
    what: impl FnOnce() -> String,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, MachineError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(|source| MachineError::Io { what: what(), source })
}

/// Machines by name.
type ById<T> = HashMap<MachineId, T>;
