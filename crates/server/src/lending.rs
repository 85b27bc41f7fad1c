//! The third job put together: machines, who may have one, and the classic door to them.
//!
//! Invariant: both doors make the same machines, and neither knows how.

pub mod gateway;
mod settings;
mod unprivileged;

use std::sync::Arc;
use std::time::Duration;

use machines::hypervisor::{Hypervisor, HypervisorError};
use machines::image::Images;
use machines::manager::DefaultImage;
use machines::ports::Ports;
use machines::qemu::Qemu;
use machines::{MachineError, Machines};
use tokio::net::TcpListener;
use tokio::sync::watch;
use wire::Secret;
use wire::container::{KeyError, KeyPair};

use crate::config::containers::{Containers, Machines as MachinesConfig, WebServer};
use crate::http::listener::TlsAcceptorBox;
use crate::http::tls::{self, TlsError};
use crate::open_files::Shares;
use crate::sockets::{self, BindError};
use crate::tcp::access_tokens::{self, AccessTokens};
use crate::tcp::rsa_keys::{BITS_DEFAULT, KeyFileError};
use crate::tcp::{Act, Action, Answer, Door, DoorSettings, Later, Verbs};

/// Why machines cannot be lent.
#[derive(Debug, thiserror::Error)]
pub enum LendingError {
    /// What runs them cannot be used.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// Their folder cannot be used.
    #[error(transparent)]
    Machines(#[from] MachineError),
    /// The keys of the classic door cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// Keys for this run cannot be made.
    #[error("new RSA keys: {0}")]
    NewKeys(#[from] KeyError),
    /// The certificate of the documented routes' own port cannot be used.
    #[error("web_server: {0}")]
    Tls(#[from] TlsError),
    /// The keys of the SSH gateway cannot be used.
    #[error("keys of the SSH gateway: {0}")]
    Gateway(std::io::Error),
    /// A port cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// What the routes of machines ask.
#[derive(Debug)]
pub struct Lending {
    /// The machines.
    pub machines: Machines,
    /// How it is configured.
    pub config: Containers,
    qemu: Arc<Qemu>,
    tokens: Option<Arc<AccessTokens>>,
    classic: Option<Classic>,
    web: std::sync::Mutex<Option<Web>>,
    /// The SSH gateway, where one is configured.
    pub gateway: Option<gateway::Open>,
}

/// The documented routes' own port.
#[derive(Debug)]
pub struct Web {
    /// What is listened on.
    pub sockets: Vec<TcpListener>,
    /// How TLS is spoken, if it is.
    pub tls: Option<Arc<TlsAcceptorBox>>,
}

/// The classic door, and where it listens.
#[derive(Debug)]
struct Classic {
    door: Door,
    sockets: std::sync::Mutex<Vec<TcpListener>>,
}

impl Lending {
    /// Binds the classic door, looks at QEMU, and takes over what an earlier server lent. Doors take as many connections as
    /// `shares` says.
    ///
    /// # Errors
    /// When anything of it cannot be used.
    pub async fn open(mut config: Containers, shares: Shares) -> Result<Self, LendingError> {
        make_absolute(&mut config.machines);
        let sockets = match &config.classic {
            Some(classic) => sockets::bind(&config.bind_to, classic.port).await?,
            None => Vec::new(),
        };
        warn_if_open(&config, &sockets);
        let web = match &config.web_server {
            Some(web) => Some(open_web(&config.bind_to, web).await?),
            None => None,
        };
        let gateway = match config.ssh_gateway_port {
            Some(port) => {
                let keys = gateway_keys(&config.machines).await?;
                Some((gateway::Open::bind(&config.bind_to, port).await?, keys))
            }
            None => None,
        };
        let gateway_key = gateway.as_ref().map(|(_, keys)| keys.authorized_line());
        let qemu = open_qemu(&config.machines).await?;
        let machines = open_machines(&config.machines, &config.bind_to, &qemu, gateway_key).await?;
        tracing::info!("machines run on {}", machines.describe());
        let filter = config.machines.ip_filter.clone();
        let gateway = gateway.map(|(sockets, keys)| {
            gateway::Open::new(sockets, &keys, &machines, shares.gateway, filter)
        });
        let tokens = config.access_tokens.clone().map(|path| Arc::new(AccessTokens::new(path)));
        let door = door(&config, shares.classic, tokens.clone(), &machines).await?;
        let sockets = std::sync::Mutex::new(sockets);
        let classic = door.map(|door| Classic { door, sockets });
        let web = std::sync::Mutex::new(web);
        Ok(Self { machines, config, qemu, tokens, classic, web, gateway })
    }

    /// Serves the classic door until `drain` says stop and the requests that it has are answered, or their time is over.
    pub async fn run_door(&self, drain: watch::Receiver<Option<Duration>>) {
        let Some(classic) = &self.classic else { return };
        let sockets = std::mem::take(
            &mut *classic.sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        classic.door.run(sockets, drain).await;
    }

    /// Does what goes on beside requests: the first snapshot, the warm pool and the SSH gateway, until `drain` says stop.
    pub async fn run(&self, drain: watch::Receiver<Option<Duration>>) {
        let gateway = async {
            if let Some(gateway) = &self.gateway {
                gateway.run(drain.clone()).await;
            }
        };
        let machines = async {
            self.prepare().await;
            self.machines.run().await;
        };
        tokio::join!(gateway, machines);
    }

    /// Makes the snapshot of the usual machine before anybody waits for it.
    async fn prepare(&self) {
        let (images, name) = (Arc::clone(self.machines.images()), self.default_image());
        // Its files may have to be summed. What is wrong with it is told to who asks for a machine.
        let image = tokio::task::spawn_blocking(move || images.get(&name)).await;
        let Ok(Ok(image)) = image else { return };
        let it = &self.config.machines;
        let memory_mb = it.memory_mb.max(image.memory_mb_min);
        if let Err(why) = self.qemu.prepare(&image, memory_mb, it.vcpus).await {
            tracing::info!(image = image.name, "its machines boot, each by itself: {why}");
        }
    }

    /// What carries out the documented verbs.
    #[must_use]
    pub fn act(&self) -> Act {
        act(self.machines.clone())
    }

    /// The sockets of the documented routes' own port, and how TLS is spoken there; once.
    #[must_use]
    pub fn take_web(&self) -> Option<Web> {
        self.web.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// Whether who asks must show an access token.
    #[must_use]
    pub fn wants_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Whose access token `token` is, as machines are counted; `None` if nobody's.
    ///
    /// # Errors
    /// When the file of tokens cannot be read.
    pub async fn owner_by_token(&self, token: &str) -> Result<Option<String>, String> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        access_tokens::owner(tokens, Secret::new(token)).await
    }

    /// The name of the image of who names none.
    #[must_use]
    pub fn default_image(&self) -> String {
        settings::default_image(&self.config.machines).name()
    }

    /// The port by which all machines can be reached, if there is one.
    #[must_use]
    pub fn gateway_port(&self) -> Option<u16> {
        self.gateway.as_ref().map(|gateway| gateway.port)
    }
}

async fn open_web(bind_to: &str, config: &WebServer) -> Result<Web, LendingError> {
    let acceptor = config.tls.as_ref().map(tls::acceptor).transpose()?;
    let tls = acceptor.map(|acceptor| Arc::new(TlsAcceptorBox(acceptor)));
    let sockets = sockets::bind(bind_to, config.port).await?;
    for address in sockets.iter().filter_map(|socket| socket.local_addr().ok()) {
        tracing::info!("the documented routes of containers are on {address}");
    }
    Ok(Web { sockets, tls })
}

/// Tells whoever starts it that anybody can have machines.
fn warn_if_open(config: &Containers, sockets: &[TcpListener]) {
    let is_guarded = config.access_tokens.is_some() || config.machines.ip_filter.is_some();
    let addresses = sockets.iter().filter_map(|socket| socket.local_addr().ok());
    let mut open = addresses.filter(|address| !address.ip().to_canonical().is_loopback());
    if let Some(address) = open.next().filter(|_| !is_guarded) {
        tracing::warn!(
            "{address} lends machines to whoever can reach it (set `enabled` in [containers.access_token] or \
             [containers.ip_filter], or `bind_address = 127.0.0.1` in [containers])"
        );
    }
}

/// QEMU works in the folder of its machine, where a relative path would mean something else.
fn make_absolute(config: &mut MachinesConfig) {
    let paths = [&mut config.state, &mut config.images].into_iter().chain(&mut config.iso);
    for path in paths {
        // An error is that of an empty path, which is told where it is used.
        if let Ok(absolute) = std::path::absolute(&*path) {
            *path = absolute;
        }
    }
}

/// Whether the folder of images has the one of who names none.
#[must_use]
pub fn has_default_image(config: &Containers) -> bool {
    match settings::default_image(&config.machines) {
        DefaultImage::Named(name) => config.machines.images.join(name).is_dir(),
        DefaultImage::Iso(path) => path.is_file(),
    }
}

async fn gateway_keys(config: &MachinesConfig) -> Result<gateway::Keys, LendingError> {
    let state = config.state.clone();
    let keys = tokio::task::spawn_blocking(move || gateway::Keys::open(&state)).await;
    keys.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(LendingError::Gateway)
}

/// What runs the machines that `it` describes.
pub(crate) async fn open_qemu(it: &MachinesConfig) -> Result<Arc<Qemu>, LendingError> {
    let user = unprivileged::user(&it.state, &it.images, it.iso.as_deref());
    Ok(Arc::new(Qemu::open(settings::of_qemu(it, user)).await?))
}

/// What `it` describes, with ports on the addresses of `bind_to`.
pub(crate) async fn open_machines(
    it: &MachinesConfig,
    bind_to: &str,
    qemu: &Arc<Qemu>,
    gateway_key: Option<String>,
) -> Result<Machines, LendingError> {
    let qemu: Arc<dyn Hypervisor> = Arc::<Qemu>::clone(qemu);
    let images = Arc::new(Images::open(&it.images));
    let addresses = sockets::addresses(bind_to).await?;
    let ports = Ports::new(it.ports.first..=it.ports.last, addresses);
    Ok(Machines::open(settings::of_machines(it, gateway_key), qemu, images, ports).await?)
}

async fn door(
    config: &Containers,
    connections_max: usize,
    access_tokens: Option<Arc<AccessTokens>>,
    machines: &Machines,
) -> Result<Option<Door>, LendingError> {
    let Some(classic) = &config.classic else { return Ok(None) };
    let (files, has_onetime_keys) = (config.key_files.clone(), classic.has_onetime_keys);
    // Keys take seconds to make.
    let keys = tokio::task::spawn_blocking(move || -> Result<KeyPair, LendingError> {
        if has_onetime_keys { Ok(KeyPair::generate(BITS_DEFAULT)?) } else { Ok(files.load()?) }
    });
    let keys = keys.await.map_err(|error| MachineError::SetUp(error.to_string()))??;
    let settings = DoorSettings {
        client_timeout: classic.client_timeout,
        connections_max,
        connections_per_address_max: classic.connections_per_address_max,
        ip_filter: config.machines.ip_filter.clone(),
        access_tokens,
        keys: Arc::new(keys),
    };
    Ok(Some(Door::new(settings, Verbs::builtin(&act(machines.clone())), None)))
}

/// Carries out what the documented verbs ask.
fn act(machines: Machines) -> Act {
    Arc::new(move |action| -> Later<Result<Answer, MachineError>> {
        let machines = machines.clone();
        Box::pin(async move {
            Ok(match action {
                Action::Stat => {
                    let stat = machines.stat();
                    let available = u64::try_from(stat.available).unwrap_or(u64::MAX);
                    Answer::Stat { uptime_secs: stat.uptime.as_secs(), available }
                }
                Action::Create { order, .. } => {
                    Answer::Lent(Box::new(machines.create(*order).await?))
                }
                Action::Destroy { id, token, .. } => {
                    machines.destroy(id, &token).await?;
                    Answer::Destroyed
                }
            })
        })
    })
}
