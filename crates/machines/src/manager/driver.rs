//! The one task that changes one machine, from its folder to the last file of it.
//!
//! Invariant: whatever ends a machine (its owner, its time, the guest, a fault, the server), it ends here, and its
//! place is free only after its process, its port and its folder are gone.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::pending::Step;
use super::{Shared, off_thread};
use crate::credentials::TokenHash;
use crate::error::MachineError;
use crate::hypervisor::{Boot, Ending, Start, Vm};
use crate::lifecycle::{Event, State};
use crate::machine::{HostKey, MachineId, Summary};
use crate::ports::{Desk, Forwarder, Lease};
use crate::record::Record;

use super::register::Entry;

/// Words that may wait for a driver.
const COMMANDS_MAX: usize = 8;
/// The clock may be set while a machine runs; how long a wrong idea of its end lasts at most.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why a machine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Who asked for it went away before it was lent, or a step failed.
    Abandoned,
    /// It was asked for.
    Asked,
    /// Its lifetime is over.
    Expired,
    /// The server closes.
    Closing,
    /// The server closes, and leaves what is lent.
    Leave,
}

impl Stop {
    /// The first reason stays.
    pub(super) fn put(self, stop: &mut Option<Self>) -> bool {
        let is_first = stop.is_none();
        *stop = stop.or(Some(self));
        is_first
    }
}

/// What a driver is asked.
#[derive(Debug)]
pub(super) enum Command {
    /// To open the machine to its owner.
    Lend { lending: Box<Lending>, done: oneshot::Sender<Result<Summary, MachineError>> },
    /// To note that its owner knows of it.
    Told,
    /// To end it at another time.
    Extend { expires_at: SystemTime, done: oneshot::Sender<Result<(), MachineError>> },
}

/// What makes a machine somebody's.
#[derive(Debug)]
pub(super) struct Lending {
    pub token: TokenHash,
    pub username: String,
    pub host_key: Option<HostKey>,
    pub has_agent: bool,
    pub lifetime: Option<Duration>,
}

/// What started a machine, or why not.
pub(super) type Started = Result<(Arc<dyn Vm>, Start, OwnedSemaphorePermit), MachineError>;

/// The owner of one machine.
pub(super) struct Driver {
    shared: Arc<Shared>,
    id: MachineId,
    directory: PathBuf,
    commands: mpsc::Receiver<Command>,
    stop: watch::Receiver<Option<Stop>>,
    gone: watch::Sender<bool>,
    /// Once it is lent.
    lent: Option<(Record, Forwarder)>,
    /// When it is taken back unless somebody has entered it: nobody may know of it.
    claim_by: Option<Instant>,
}

/// Enters a machine and gives it its driver. `check` is asked under the same lock: what it allows is what is entered.
pub(super) fn enter(
    shared: &Arc<Shared>,
    summary: Summary,
    has_place: bool,
) -> Result<(Driver, watch::Sender<Option<Stop>>), MachineError> {
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let (stop, stopped) = watch::channel(None);
    let (gone, is_gone) = watch::channel(false);
    let id = summary.id;
    let mut register = shared.register();
    if shared.is_closing() {
        return Err(MachineError::Closing);
    }
    if has_place {
        register.check_room(summary.owner.as_deref())?;
    }
    register.enter(Entry {
        summary,
        token: None,
        desk: None,
        has_place,
        commands,
        stop: stop.clone(),
        gone: is_gone,
    });
    drop(register);
    let directory = shared.running().join(id.to_string());
    let shared = Arc::clone(shared);
    let driver = Driver {
        shared,
        id,
        directory,
        commands: receiver,
        stop: stopped,
        gone,
        lent: None,
        claim_by: None,
    };
    Ok((driver, stop))
}

/// Lets `driver` work until its machine is gone.
pub(super) fn spawn(shared: &Shared, work: impl Future<Output = ()> + Send + 'static) {
    let mut drivers = shared.drivers.lock().unwrap_or_else(PoisonError::into_inner);
    while drivers.try_join_next().is_some() {}
    drivers.spawn(work);
}

impl Driver {
    /// The folder of the machine.
    pub(super) fn directory(&self) -> PathBuf {
        self.directory.clone()
    }

    /// Starts what `boot` says when its turn has come, tells `started`, and goes on until the machine is gone.
    pub(super) async fn start(
        mut self,
        boot: Boot,
        step: watch::Sender<Step>,
        started: oneshot::Sender<Started>,
    ) {
        let shared = Arc::clone(&self.shared);
        let outcome = tokio::select! {
            biased;
            _ = stopped(&mut self.stop) => Err(MachineError::Ended("it was stopped".into())),
            outcome = start_vm(&shared, boot, step) => outcome,
        };
        let desk = outcome.as_ref().ok().map(|(vm, ..)| desk(&shared, vm));
        if let Some(desk) = &desk {
            let mut register = shared.register();
            register.change(self.id, |entry| entry.desk = Some(Arc::clone(desk)));
            register.advance(self.id, Event::Started);
        }
        // Nobody listens any more: then `stop` says so too.
        let _ = started.send(outcome);
        match desk {
            Some(desk) => self.live(desk).await,
            None => self.undo(None).await,
        }
    }

    /// Goes on with a machine that an earlier server lent.
    pub(super) async fn take_over(mut self, record: Record, lease: Lease, desk: Arc<Desk>) {
        if !record.is_told {
            self.claim_by = Some(Instant::now() + self.shared.settings.claim_within);
        }
        self.lent = Some((record, Forwarder::start(lease, Arc::clone(&desk))));
        self.live(desk).await;
    }

    async fn live(mut self, desk: Arc<Desk>) {
        let mut ended = desk.vm().ended();
        let why = loop {
            let expires_at = self.lent.as_ref().and_then(|(record, _)| record.expires_at);
            tokio::select! {
                biased;
                why = stopped(&mut self.stop) => break format!("{why:?}"),
                ending = ending(&mut ended) => break ending,
                () = until(expires_at) => break format!("{:?}", Stop::Expired),
                () = at(self.claim_by) => {
                    if !desk.was_entered() {
                        break "nobody was told of it, and nobody has entered it".to_owned();
                    }
                    self.is_told().await;
                }
                Some(command) = self.commands.recv() => self.obey(command, &desk).await,
            }
        };
        if *self.stop.borrow() == Some(Stop::Leave) && self.lent.is_some() {
            // What was said before is still heard: that its owner knows of it, above all.
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command, &desk).await;
            }
            tracing::info!(machine = %self.id, "left running: the next server takes it over");
            self.leave();
            return;
        }
        tracing::info!(machine = %self.id, why, "ends");
        self.undo(Some(Arc::clone(desk.vm()))).await;
    }

    async fn obey(&mut self, command: Command, desk: &Arc<Desk>) {
        // Who asked may have gone; a machine that was lent to nobody is stopped by who asked for it.
        match command {
            Command::Lend { lending, done } => {
                let _ = done.send(self.lend(*lending, desk).await);
            }
            Command::Told => self.is_told().await,
            Command::Extend { expires_at, done } => {
                let _ = done.send(self.extend(expires_at).await);
            }
        }
    }

    async fn lend(&mut self, lending: Lending, desk: &Arc<Desk>) -> Result<Summary, MachineError> {
        let lease = self.shared.ports.lease()?;
        let mut summary = self.shared.register().show(self.id)?;
        let expires_at = lending.lifetime.and_then(|ttl| SystemTime::now().checked_add(ttl));
        summary.port = Some(lease.port());
        summary.username = Some(lending.username.clone());
        summary.host_key.clone_from(&lending.host_key);
        summary.expires_at = expires_at;
        summary.state = State::Ready;
        let record = record_of(&summary, lending, lease.port());
        // Durable first: a server that is killed now finds the machine, whose owner may just have been told of it.
        self.write(record.clone()).await?;
        let mut register = self.shared.register();
        // Looked at under the lock: what is not to be lent any more is not.
        if self.stop.borrow().is_some() || !register.advance(self.id, Event::Lent) {
            return Err(MachineError::Ended("it was stopped".into()));
        }
        register.change(self.id, |entry| {
            entry.summary = summary.clone();
            entry.token = Some(record.token.clone());
        });
        drop(register);
        self.lent = Some((record, Forwarder::start(lease, Arc::clone(desk))));
        Ok(summary)
    }

    /// Its owner knows of it, or somebody does.
    async fn is_told(&mut self) {
        self.claim_by = None;
        let Some((record, _)) = &mut self.lent else { return };
        record.is_told = true;
        let record = record.clone();
        if let Err(error) = self.write(record).await {
            tracing::warn!(machine = %self.id, "it could not be noted that its owner knows of it: {error}");
        }
    }

    async fn extend(&mut self, expires_at: SystemTime) -> Result<(), MachineError> {
        let Some((record, _)) = &self.lent else { return Err(MachineError::NotFound) };
        // Whoever extends it knows of it.
        let record = Record { expires_at: Some(expires_at), is_told: true, ..record.clone() };
        self.write(record.clone()).await?;
        self.claim_by = None;
        self.shared.register().change(self.id, |it| it.summary.expires_at = Some(expires_at));
        if let Some((old, _)) = &mut self.lent {
            *old = record;
        }
        Ok(())
    }

    async fn write(&self, record: Record) -> Result<(), MachineError> {
        let directory = self.directory();
        let what = format!("the record of machine {}", self.id);
        off_thread(move || what, move || record.write(&directory)).await
    }

    /// Gives everything back: first what others see, last the place.
    async fn undo(mut self, vm: Option<Arc<dyn Vm>>) {
        self.shared.register().advance(self.id, Event::Stop);
        if let Some((_, forwarder)) = self.lent.take() {
            forwarder.stop().await;
        }
        if let Some(vm) = vm {
            vm.kill().await;
        }
        let directory = self.directory();
        let removed = off_thread(String::new, move || remove_folder(&directory)).await;
        if let Err(error) = removed {
            tracing::warn!(machine = %self.id, "its folder could not be removed, the next start tries again: {error}");
        }
        self.leave();
    }

    fn leave(self) {
        self.shared.register().remove(self.id);
        self.gone.send_replace(true);
        self.shared.pool_bell.notify_one();
    }
}

/// Where all who connect to `vm` are counted.
pub(super) fn desk(shared: &Shared, vm: &Arc<dyn Vm>) -> Arc<Desk> {
    Desk::new(Arc::clone(vm), shared.settings.forwarding.clone())
}

async fn start_vm(shared: &Shared, boot: Boot, step: watch::Sender<Step>) -> Started {
    let closed = |_| MachineError::Closing;
    let permit = Arc::clone(&shared.starts).acquire_owned().await.map_err(closed)?;
    step.send_replace(Step::Starting);
    let directory = boot.directory.clone();
    let what = directory.display().to_string();
    off_thread(move || what, move || super::private_folder(&directory)).await?;
    let (vm, start) = shared.hypervisor.start(boot).await?;
    Ok((vm, start, permit))
}

/// The record first: a folder without one is cleaned away by the next server.
pub(super) fn remove_folder(directory: &std::path::Path) -> std::io::Result<()> {
    Record::remove(directory)?;
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn record_of(summary: &Summary, lending: Lending, port: u16) -> Record {
    Record {
        version: Record::VERSION,
        id: summary.id,
        token: lending.token,
        image: summary.image.clone(),
        has_agent: lending.has_agent,
        memory_mb: summary.memory_mb,
        vcpus: summary.vcpus,
        port,
        username: lending.username,
        host_key: lending.host_key,
        owner: summary.owner.clone(),
        ssh_public_key: summary.ssh_public_key.clone(),
        labels: summary.labels.clone(),
        created_at: summary.created_at,
        expires_at: summary.expires_at,
        is_told: false,
    }
}

/// Returns once the machine is to end.
async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stop.wait_for(Option::is_some).await {
        Ok(why) => why.unwrap_or(Stop::Abandoned),
        // Its entry is gone: nobody can ask anything of it any more.
        Err(_) => Stop::Abandoned,
    }
}

/// Returns once the virtual machine has ended, with how.
async fn ending(ended: &mut watch::Receiver<Option<Ending>>) -> String {
    // An error means that its handle is gone, which cannot be while the driver holds it.
    let ending = ended.wait_for(Option::is_some).await.ok().and_then(|ending| ending.clone());
    ending.map_or_else(String::new, |ending| format!("{ending:?}"))
}

/// Returns at `moment`; never without one.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Returns at `moment` by the clock on the wall, also if that is set meanwhile; never without one.
async fn until(moment: Option<SystemTime>) {
    let Some(moment) = moment else { return std::future::pending().await };
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        // A millisecond more, or the last round would be made many times.
        tokio::time::sleep(left.min(LOOK_EVERY) + Duration::from_millis(1)).await;
    }
}
