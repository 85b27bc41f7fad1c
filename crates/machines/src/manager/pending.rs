//! A machine on its way to who asked for it.
//!
//! Invariant: as long as it was not finished, dropping it undoes everything. Nobody can log in to it before its
//! identity is its own: its port is opened last.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::Instant;

use super::driver::{self, Command, Driver, Lending, Started, Stop};
use super::{DefaultImage, Handover, Shared, order, pool};
use crate::credentials::{self, Login, TokenHash};
use crate::error::MachineError;
use crate::guest::agent::{self, Identity, User};
use crate::guest::shell::{Bounds, Shell};
use crate::guest::{ssh, ssh_key, warm_up};
use crate::hypervisor::{Boot, Start, Vm};
use crate::image::{Image, ImageError};
use crate::lifecycle::Event;
use crate::machine::{HostKey, Lent, MachineId, Order, Summary};

/// How long making a user may take, and as long the login that tries it out. An emulated guest needs seconds.
const SET_UP_MAX: Duration = Duration::from_secs(60);

/// How far a machine is; a later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It has a place and waits for its turn to start.
    Queued,
    /// Its virtual machine is being started.
    Starting,
    /// Its guest runs; identity and user are being made.
    SettingUp,
    /// It is there.
    Ready,
}

/// A machine on its way to who asked for it: [`Pending::start`], [`Pending::set_up`], [`Pending::finish`].
#[derive(Debug)]
pub struct Pending {
    pub(super) shared: Arc<Shared>,
    pub(super) id: MachineId,
    pub(super) order: Order,
    pub(super) image: Arc<Image>,
    step: watch::Sender<Step>,
    stop: watch::Sender<Option<Stop>>,
    started: Option<oneshot::Receiver<Started>>,
    /// Held until it is there: so many machines start at a time.
    permit: Option<OwnedSemaphorePermit>,
    vm: Option<Arc<dyn Vm>>,
    identity: Option<Identity>,
    login: Option<Login>,
    host_key: Option<HostKey>,
    is_finished: bool,
}

/// Takes a place for `order`, and a spare machine if there is one like it, which is woken here: where that fails, another
/// is made in its place.
pub(super) async fn begin(shared: &Arc<Shared>, order: Order) -> Result<Pending, MachineError> {
    let image = find_image(shared, &order).await?;
    let id = MachineId::random();
    let summary = order::meant(&shared.settings, &order, &image, id)?;
    while let Some(pending) = pool::take(shared, &summary, &order, &image)? {
        // One may have died and not be missed yet.
        match pending.leave_pool().await {
            Ok(()) => return Ok(pending),
            Err(error) => tracing::warn!(machine = %pending.id, %error, "a spare is thrown away"),
        }
        pending.throw_away().await;
    }
    enter(shared, summary, order, image, true)
}

/// Enters a machine and sets its driver to work.
pub(super) fn enter(
    shared: &Arc<Shared>,
    summary: Summary,
    order: Order,
    image: Arc<Image>,
    has_place: bool,
) -> Result<Pending, MachineError> {
    let id = summary.id;
    let (memory_mb, vcpus) = (summary.memory_mb, summary.vcpus);
    let (driver, stop) = driver::enter(shared, summary, has_place)?;
    let directory = driver.directory();
    let boot = Boot { id, directory, image: Arc::clone(&image), memory_mb, vcpus };
    let step = watch::Sender::new(Step::Queued);
    let (started, receiver) = oneshot::channel();
    driver::spawn(shared, Driver::start(driver, boot, step.clone(), started));
    Ok(Pending {
        shared: Arc::clone(shared),
        id,
        order,
        image,
        step,
        stop,
        started: Some(receiver),
        permit: None,
        vm: None,
        identity: None,
        login: None,
        host_key: None,
        is_finished: false,
    })
}

pub(super) async fn find_image(
    shared: &Arc<Shared>,
    order: &Order,
) -> Result<Arc<Image>, MachineError> {
    let default = &shared.settings.image;
    let name = order.image.clone().unwrap_or_else(|| default.name());
    let iso = match default {
        DefaultImage::Iso(path) if default.name() == name => Some(path.clone()),
        _ => None,
    };
    let images = Arc::clone(&shared.images);
    let wanted = name.clone();
    // What it is made of may have to be summed.
    let found = tokio::task::spawn_blocking(move || match iso {
        Some(path) => images.bare_iso(&path),
        None => images.get(&wanted),
    });
    let is_asked_for = order.image.is_some();
    let unusable = |why: String| MachineError::Image { name, why };
    match found.await {
        // Somebody else's mistake, and none of the operator's.
        Ok(Err(ImageError::NotFound { name, .. } | ImageError::Name(name))) if is_asked_for => {
            Err(MachineError::Order(format!("image: there is none called {name:?}")))
        }
        Ok(found) => found.map_err(|error| unusable(error.to_string())),
        Err(error) => Err(unusable(error.to_string())),
    }
}

impl Pending {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> MachineId {
        self.id
    }

    /// How far it is, as it goes on.
    #[must_use]
    pub fn steps(&self) -> watch::Receiver<Step> {
        self.step.subscribe()
    }

    /// What can be seen of it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn summary(&self) -> Result<Summary, MachineError> {
        self.shared.register().show(self.id)
    }

    /// Whether its guest is set up by an agent of ours, and needs no shell for that.
    #[must_use]
    pub fn has_agent(&self) -> bool {
        self.image.has_agent
    }

    /// What was started.
    ///
    /// # Errors
    /// When [`Pending::start`] has not been called.
    pub fn vm(&self) -> Result<&Arc<dyn Vm>, MachineError> {
        self.vm.as_ref().ok_or_else(|| MachineError::SetUp("it was not started".into()))
    }

    /// Waits until its guest runs and gives it an identity of its own. Done already, it does nothing.
    ///
    /// # Errors
    /// When the virtual machine cannot be had, or its guest not be reached.
    pub async fn start(&mut self) -> Result<(), MachineError> {
        self.wait_for_guest().await.map_err(|error| self.shared.cause(error))
    }

    async fn wait_for_guest(&mut self) -> Result<(), MachineError> {
        let Some(started) = self.started.take() else { return Ok(()) };
        let gone = || MachineError::Ended("it was stopped".into());
        let (vm, start, permit) = started.await.map_err(|_| gone())??;
        if let Start::Cold { because } = start {
            tracing::info!(machine = %self.id, because, "booted, not cloned from a snapshot");
        }
        self.permit = Some(permit);
        self.step.send_replace(Step::SettingUp);
        if self.image.has_agent {
            let identity = Identity::random(self.id)?;
            agent::refresh(&*vm, Some((&identity, self.image.host_key))).await?;
            self.identity = Some(identity);
        }
        self.vm = Some(vm);
        Ok(())
    }

    async fn leave_pool(&self) -> Result<(), MachineError> {
        self.step.send_replace(Step::SettingUp);
        let vm = self.vm()?;
        let resumed = vm.resume().await;
        resumed.map_err(|source| MachineError::Io { what: "a spare machine".into(), source })?;
        agent::refresh(&**vm, None).await?;
        // The gateway's it has already.
        if self.order.ssh_public_key.is_some()
            && let Some(keys) = self.authorized_keys()?
        {
            agent::replace_keys(&**vm, &keys).await?;
        }
        Ok(())
    }

    fn authorized_keys(&self) -> Result<Option<String>, MachineError> {
        let keys = [&self.order.ssh_public_key, &self.shared.settings.gateway_key];
        let mut lines = String::new();
        for key in keys.into_iter().flatten() {
            lines = lines + &ssh_key::authorized_line(key)? + "\n";
        }
        Ok((!lines.is_empty()).then_some(lines))
    }

    /// Makes the user, by the guest's agent or else by the endpoint's shell, and logs in once: what is lent works.
    ///
    /// # Errors
    /// When the guest does not do as it should.
    pub async fn set_up(&mut self) -> Result<(), MachineError> {
        self.make_user().await.map_err(|error| self.shared.cause(error))
    }

    async fn make_user(&mut self) -> Result<(), MachineError> {
        if self.login.is_some() {
            return Ok(());
        }
        if !self.image.has_agent {
            let shell = self.open_shell().await?;
            return self.set_up_by(shell).await;
        }
        let login = Login::random().map_err(|error| MachineError::SetUp(error.to_string()))?;
        let vm = self.vm()?;
        let keys = self.authorized_keys()?;
        let user = User {
            name: &login.username,
            password: &login.password,
            port: ssh::PORT,
            authorized_keys: keys.as_deref(),
        };
        agent::set_up(&**vm, &user).await?;
        self.try_out(login).await
    }

    /// Logs in as the endpoint user, where the guest lets it in.
    ///
    /// # Errors
    /// When the guest does not let it in in time.
    pub async fn open_shell(&self) -> Result<Shell, MachineError> {
        let deadline = Instant::now() + SET_UP_MAX;
        let vm = self.vm()?;
        Ok(ssh::open(&**vm, &self.shared.settings.endpoint, None, deadline).await?)
    }

    /// Makes the user by a shell that is open, as the contract with images says, and closes it.
    ///
    /// # Errors
    /// When the guest says anything but nothing.
    pub async fn set_up_by(&mut self, shell: Shell) -> Result<(), MachineError> {
        let login = Login::random().map_err(|error| MachineError::SetUp(error.to_string()))?;
        let user = User {
            name: &login.username,
            password: &login.password,
            port: ssh::PORT,
            authorized_keys: None,
        };
        shell.set_up(&user, Instant::now() + SET_UP_MAX).await?;
        shell.close();
        self.try_out(login).await?;
        self.let_key_in().await
    }

    /// Lets the key in that was asked for, as the new user, since the contract with images knows passwords only.
    async fn let_key_in(&self) -> Result<(), MachineError> {
        let (Some(keys), Some(login)) = (self.authorized_keys()?, &self.login) else {
            return Ok(());
        };
        let user = ssh::Login {
            user: login.username.clone(),
            proof: ssh::Proof::Password(login.password.clone()),
            port: ssh::PORT,
        };
        let fingerprint = self.host_key.as_ref().map(|key| key.fingerprint.as_str());
        let deadline = Instant::now() + SET_UP_MAX;
        let shell = ssh::open(&**self.vm()?, &user, fingerprint, deadline).await?;
        let quoted = keys.trim_end().replace('\'', r"'\''");
        let command = format!(
            "umask 077 && mkdir -p .ssh && printf '%s\\n' '{quoted}' >>.ssh/authorized_keys"
        );
        let done = shell.run(&command, Bounds::within(SET_UP_MAX)).await?;
        shell.close();
        match done.exit {
            Some(0) => Ok(()),
            _ => Err(MachineError::SetUp("the SSH key could not be written in the guest".into())),
        }
    }

    async fn try_out(&mut self, login: Login) -> Result<(), MachineError> {
        let given = self.identity.as_ref().map(|identity| &identity.host_key);
        let expected = given.map(ssh_key::SshKey::fingerprint);
        let public = given.map(|key| key.public_line("").trim_end().to_owned());
        let deadline = Instant::now() + SET_UP_MAX;
        let vm = self.vm()?;
        let (user, password) = (&login.username, &login.password);
        let fingerprint = warm_up(&**vm, user, password, expected.as_deref(), deadline).await?;
        self.host_key = Some(HostKey { public, fingerprint });
        self.login = Some(login);
        Ok(())
    }

    /// Opens the port and lends it.
    ///
    /// # Errors
    /// When no port is free or the record cannot be written.
    pub async fn finish(mut self) -> Result<Lent, MachineError> {
        let no_login = || MachineError::SetUp("it was not set up".into());
        let Login { username, password } = self.login.clone().ok_or_else(no_login)?;
        let token = credentials::token().map_err(|error| MachineError::SetUp(error.to_string()))?;
        let lending = Lending {
            token: TokenHash::of(&token),
            username: username.clone(),
            host_key: self.host_key.clone(),
            has_agent: self.image.has_agent,
            lifetime: order::lifetime(&self.shared.settings, self.order.ttl)?,
        };
        let lent = self.lend(lending).await;
        let summary = lent.map_err(|error| self.shared.cause(error))?;
        // From here on the handover takes it back.
        self.is_finished = true;
        self.step.send_replace(Step::Ready);
        Ok(Lent {
            id: self.id,
            token,
            image_sha256: self.image.sha256.clone(),
            username,
            password,
            port: summary.port.unwrap_or_default(),
            host_key: summary.host_key,
            expires_at: summary.expires_at,
            handover: Handover::of(&self.shared, self.id),
        })
    }

    async fn lend(&self, lending: Lending) -> Result<Summary, MachineError> {
        let gone = || MachineError::Ended("it was stopped".into());
        let commands = self.shared.register().commands_of_any(self.id)?;
        let (done, lent) = oneshot::channel();
        let lend = Command::Lend { lending: Box::new(lending), done };
        commands.send(lend).await.map_err(|_| gone())?;
        lent.await.map_err(|_| gone())?
    }

    /// Puts it into the warm pool: set up, tried out, paused.
    pub(super) async fn park(&mut self) -> Result<(), MachineError> {
        let paused = self.vm()?.pause().await;
        paused.map_err(|source| MachineError::Io { what: "a spare machine".into(), source })?;
        self.permit = None;
        if self.shared.register().advance(self.id, Event::Parked) {
            Ok(())
        } else {
            Err(MachineError::Ended("it was stopped".into()))
        }
    }

    /// Makes it the answer to `order`.
    pub(super) fn give_to(&mut self, order: Order) {
        self.order = order;
    }

    /// Undoes it, and returns when its place is free.
    async fn throw_away(self) {
        let stop = self.stop.clone();
        drop(self);
        // Its driver goes last.
        stop.closed().await;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_finished {
            self.stop.send_if_modified(|stop| Stop::Abandoned.put(stop));
        }
    }
}
