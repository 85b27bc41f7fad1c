//! The SSH gateway put together: its keys in the state folder, the machines it leads to, the port it listens on.
//!
//! Invariant: its three private keys are files of this user alone, made once: the gateway's own host key, the one that
//! signs certificates, and the one by which machines let the gateway in.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use machines::guest::ssh_key::SshKey;
use machines::lifecycle::State;
use machines::{MachineId, Machines, Summary};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::LendingError;
use crate::http::connection::wait_for_drain;
use crate::sockets;
use crate::ssh::authority::{Authority, IssueError, key_file};
use crate::ssh::{Directory, Entry, Gateway, Settings, Visit};
use crate::tcp::IpFilter;

/// Connections of one address that have not logged in: logging in takes seconds at most.
const STRANGERS_PER_ADDRESS_MAX: usize = 64;
/// How long a stranger may take to log in.
const LOGIN_MAX: Duration = Duration::from_secs(10);
/// The least of an id that names a machine.
const PREFIX_CHARS_MIN: usize = 8;
/// The label by whose value a machine can be named.
const NAME_LABEL: &str = "name";
/// How long a certificate is good: it is needed to log in, and not afterwards.
const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(300);

/// The keys of the gateway.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    host: SshKey,
    authority: SshKey,
    machines: SshKey,
}

impl Keys {
    /// Reads them from the folder `state`, or makes them. Blocks.
    pub(super) fn open(state: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state)?;
        Ok(Self {
            host: key_file(&state.join("gateway_host_key"))?,
            authority: key_file(&state.join("gateway_authority_key"))?,
            machines: key_file(&state.join("gateway_key"))?,
        })
    }

    /// What machines are given to let the gateway in.
    pub(super) fn authorized_line(&self) -> String {
        self.machines.public_line("gatehouse-gateway")
    }
}

/// The gateway and where it listens.
#[derive(Debug)]
pub struct Open {
    gateway: Arc<Gateway>,
    authority: Authority,
    sockets: std::sync::Mutex<Vec<TcpListener>>,
    /// Its port.
    pub port: u16,
    /// `SHA256:…` of its host key.
    pub fingerprint: String,
    /// Its host key as `known_hosts` has it.
    pub host_key: String,
}

/// A certificate that was signed.
#[derive(Debug)]
pub struct Issued {
    /// A line for OpenSSH.
    pub certificate: String,
    /// Until when it is good.
    pub valid_until: SystemTime,
}

impl Open {
    pub(super) async fn bind(bind_to: &str, port: u16) -> Result<Vec<TcpListener>, LendingError> {
        Ok(sockets::bind(bind_to, port).await?)
    }

    pub(super) fn new(
        sockets: Vec<TcpListener>,
        keys: &Keys,
        machines: &Machines,
        connections_max: usize,
        ip_filter: Option<IpFilter>,
    ) -> Self {
        let address = sockets.first().and_then(|socket| socket.local_addr().ok());
        let port = address.map_or(0, |address| address.port());
        tracing::info!(port, "the SSH gateway leads to all machines");
        let authority = Authority::new(keys.authority.clone());
        let settings = Settings {
            host_key: keys.host.clone(),
            authority: authority.clone(),
            connections_max,
            strangers_per_address_max: STRANGERS_PER_ADDRESS_MAX,
            login_max: LOGIN_MAX,
            ip_filter,
        };
        Self {
            gateway: Gateway::new(settings, directory(machines.clone(), keys.machines.clone())),
            authority,
            sockets: std::sync::Mutex::new(sockets),
            port,
            fingerprint: keys.host.fingerprint(),
            host_key: keys.host.public_line("").trim_end().to_owned(),
        }
    }

    /// Takes connections until `drain` says stop; those that are open go on until this is dropped or their time is over.
    pub(super) async fn run(&self, drain: watch::Receiver<Option<Duration>>) {
        let sockets = std::mem::take(
            &mut *self.sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let mut serving = JoinSet::new();
        for socket in sockets {
            let mut drain = drain.clone();
            let stop = async move { wait_for_drain(&mut drain).await };
            serving.spawn(Arc::clone(&self.gateway).serve(socket, stop));
        }
        while serving.join_next().await.is_some() {}
    }

    /// A certificate by which the holder of `public_key` may log in to `machine` for some minutes. `holder` is for the log.
    ///
    /// # Errors
    /// When `public_key` is none.
    pub fn issue(
        &self,
        public_key: &str,
        machine: MachineId,
        holder: &str,
    ) -> Result<Issued, IssueError> {
        let valid_until = SystemTime::now() + CERTIFICATE_VALIDITY;
        let certificate =
            self.authority.issue(public_key, machine, holder, CERTIFICATE_VALIDITY)?;
        Ok(Issued { certificate, valid_until })
    }
}

fn directory(machines: Machines, key: SshKey) -> Directory {
    let all = machines.clone();
    Directory {
        find: Box::new(move |name| entry(find(all.list(None), name)?, &key)),
        connect: Box::new(move |id, port| {
            let machines = machines.clone();
            Box::pin(async move { machines.connect(id, port).await.map_err(std::io::Error::other) })
        }),
        note: Box::new(note),
    }
}

/// The one machine that is meant by `name`: a whole id, enough of its beginning, or what its label says.
fn find(list: Vec<Summary>, name: &str) -> Option<Summary> {
    let (by_id, others): (Vec<_>, Vec<_>) = list
        .into_iter()
        .filter(|machine| machine.state == State::Ready)
        .partition(|it| name.len() >= PREFIX_CHARS_MIN && it.id.to_string().starts_with(name));
    let is_called = |it: &Summary| it.labels.get(NAME_LABEL).is_some_and(|label| label == name);
    // Nobody can take the place of an id by a label.
    let found: Vec<Summary> = match by_id.is_empty() {
        true => others.into_iter().filter(is_called).collect(),
        false => by_id,
    };
    <[Summary; 1]>::try_from(found).ok().map(|[one]| one)
}

fn entry(machine: Summary, key: &SshKey) -> Option<Entry> {
    Some(Entry {
        id: machine.id,
        user: machine.username?,
        host_key: machine.host_key.map(|key| key.fingerprint),
        authorized_keys: machine.ssh_public_key.into_iter().collect(),
        key: Some(key.clone()),
    })
}

fn note(visit: Visit<'_>) {
    let Visit { from, machine, by, holder, is_admitted } = visit;
    let machine = machine.map(|id| id.to_string());
    if is_admitted {
        tracing::info!(%from, machine, by, holder, "logged in by the SSH gateway");
    } else {
        tracing::debug!(%from, machine, by, holder, "not let in by the SSH gateway");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn machine(label: Option<&str>) -> Summary {
        let label = label.map(|label| (NAME_LABEL.to_owned(), label.to_owned()));
        Summary {
            id: MachineId::random(),
            state: State::Ready,
            image: "small".into(),
            memory_mb: 1,
            vcpus: 1,
            port: Some(1),
            username: Some("u".into()),
            host_key: None,
            owner: None,
            ssh_public_key: None,
            labels: BTreeMap::from_iter(label),
            created_at: SystemTime::now(),
            expires_at: None,
        }
    }

    #[test]
    fn a_name_means_one_machine_or_none() {
        let one = machine(Some("web"));
        let id = one.id.to_string();
        let impostor = machine(Some(&id[..8]));
        let list = vec![one.clone(), impostor, machine(Some("db")), machine(Some("db"))];
        let check = |name: &str, expected: Option<MachineId>| {
            let found = find(list.clone(), name).map(|machine| machine.id);
            assert_eq!(found, expected, "{name}");
        };
        check(&id, Some(one.id));
        check(&id[..8], Some(one.id));
        check(&id[..7], None);
        check("web", Some(one.id));
        check("db", None);
        check("", None);
        let starting = Summary { state: State::Starting, ..one };
        assert!(find(vec![starting], &id).is_none());
    }

    #[test]
    fn keys_last_and_are_three() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let (first, second) = (Keys::open(&state).unwrap(), Keys::open(&state).unwrap());
        assert_eq!(first.host.fingerprint(), second.host.fingerprint());
        assert_eq!(first.authorized_line(), second.authorized_line());
        assert_ne!(first.host.fingerprint(), first.authority.fingerprint());
        assert_ne!(first.machines.fingerprint(), first.authority.fingerprint());
    }
}
