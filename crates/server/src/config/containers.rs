//! `[containers]` and its sub-sections: machines that are lent, and the doors to them.
//!
//! Invariant: there is a [`Containers`] when the file has the section; every limit in it is set.
//! Not here: how a single setting is read (`raw`).

use std::path::PathBuf;
use std::time::Duration;

use wire::Secret;

use super::IpNetwork;
use super::raw::Raw;
use super::source::canonical;
use super::table as t;
use crate::tcp::IpFilter;
use crate::tcp::rsa_keys::KeyFiles;

/// Machines that are lent, and the doors to them.
#[derive(Debug, Clone)]
pub struct Containers {
    /// What machines are like and how many there may be.
    pub machines: Machines,
    /// The port of the encrypted protocol; `None` when `classic` is off.
    pub classic: Option<Classic>,
    /// `[containers.web_server]`: the documented routes on a port of their own, when it has a `listen_port`.
    pub web_server: Option<WebServer>,
    /// `bind_address`: where all these ports listen.
    pub bind_to: String,
    /// `[containers.access_token]`, when enabled: the file of access tokens.
    pub access_tokens: Option<PathBuf>,
    /// `access_token_database_file_path`: the same, whether enabled or not.
    pub access_token_file: PathBuf,
    /// `public_rsa_key_file_path`, `private_rsa_key_file_path`.
    pub key_files: KeyFiles,
    /// `ssh_gateway_port`: one port for the SSH of all machines.
    pub ssh_gateway_port: Option<u16>,
}

/// What machines are like and how many there may be.
#[derive(Debug, Clone)]
pub struct Machines {
    /// `state`: the folder of running machines and snapshots.
    pub state: PathBuf,
    /// `images`: the folder of images.
    pub images: PathBuf,
    /// `default_image`: the name of an image in it.
    pub default_image: Option<String>,
    /// `container_iso_file_path`: an image that is a bare ISO file; it is the default one when there is no
    /// `default_image`.
    pub iso: Option<PathBuf>,
    /// `max_allowed_running_container_domains`.
    pub count_max: usize,
    /// `container_memory`, in MiB.
    pub memory_mb: u32,
    /// `container_memory_max`, in MiB: the most that a client may ask for.
    pub memory_mb_max: u32,
    /// `container_vcpus`.
    pub vcpus: u32,
    /// `container_vcpus_max`: the most that a client may ask for.
    pub vcpus_max: u32,
    /// `cpu_percent_max`: of one processor; `None`, written 0, is without limit.
    pub cpu_percent_max: Option<u32>,
    /// `bandwidth_kib_max`: KiB a second through the forwarded port and the gateway, each way; `None`, written 0, is without limit.
    pub bandwidth_kib_max: Option<u64>,
    /// `upload_kib_max`: KiB a second that a machine sends, by whatever way; `None`, written 0, is without limit.
    pub upload_kib_max: Option<u64>,
    /// `download_kib_max`: KiB a second that a machine is sent; `None`, written 0, is without limit.
    pub download_kib_max: Option<u64>,
    /// The disk of a machine whose image is one.
    pub disk: Disk,
    /// `domain_type`.
    pub accelerator: Accelerator,
    /// `wait_max_tryout`: seconds until a guest must be ready; `None`, written -1, is without end.
    pub ready_timeout: Option<Duration>,
    /// `endpoint_username`.
    pub endpoint_username: String,
    /// `endpoint_password`.
    pub endpoint_password: Secret,
    /// `endpoint_listen_port`.
    pub endpoint_port: u16,
    /// `[containers.port_forwarding] port_range`, both ends included.
    pub ports: PortRange,
    /// `pool`: machines that are kept ready.
    pub pool: usize,
    /// `ttl_default_secs`: a machine's lifetime; `None`, written 0, is without end.
    pub ttl_default: Option<Duration>,
    /// `ttl_max_secs`: the longest that a client may ask for; `None`, written 0, is without end.
    pub ttl_max: Option<Duration>,
    /// `quota`: machines of one access token or account; `None`, written 0, is without limit.
    pub quota: Option<usize>,
    /// `internet`.
    pub internet: bool,
    /// `network_allow`: private networks that guests may reach.
    pub network_allow: Vec<IpNetwork>,
    /// `network_deny`: networks that guests may not reach, whatever else is set.
    pub network_deny: Vec<IpNetwork>,
    /// `[containers.ip_filter]`, when enabled: who may have machines and reach them.
    pub ip_filter: Option<IpFilter>,
    /// `on_shutdown`.
    pub on_shutdown: OnShutdown,
    /// What machines are cloned from.
    pub snapshots: Snapshots,
}

/// The disk of a machine whose image is one.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    /// `container_disk`: its least size in MiB; 0 is the image's own.
    pub size_mb: u32,
    /// `disk_kib_max`: KiB a second, read and written; 0 is without limit.
    pub kib_max: u64,
    /// `disk_operations_max`: readings and writings a second; 0 is without limit.
    pub operations_max: u64,
}

/// What machines are cloned from.
#[derive(Debug, Clone, Copy)]
pub struct Snapshots {
    /// `snapshot`: whether machines are clones of a snapshot where that is safe.
    pub is_on: bool,
    /// `snapshots_max`: how many are kept.
    pub count_max: usize,
    /// `snapshot_foreign`: whether images without our agent are snapshotted.
    pub is_foreign_on: bool,
}

/// The port of the encrypted protocol.
#[derive(Debug, Clone)]
pub struct Classic {
    /// `listen_port`.
    pub port: u16,
    /// `timeout`: until a client's request must be whole; `None`, written 0, is without end.
    pub client_timeout: Option<Duration>,
    /// `enable_onetime_rsa_keys`: keys made anew at each start and kept nowhere.
    pub has_onetime_keys: bool,
    /// `connections_max`.
    pub connections_max: usize,
    /// `connections_per_address_max`.
    pub connections_per_address_max: usize,
}

/// The documented routes on a port of their own.
#[derive(Debug, Clone)]
pub struct WebServer {
    /// `listen_port`.
    pub port: u16,
    /// `ssl_pem_certificate_file_path` and `ssl_pem_private_key_file_path`, when `enable_ssl` is on.
    pub tls: Option<super::Tls>,
}

/// What runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// KVM where it works, else emulation.
    Auto,
    /// KVM, or nothing.
    Kvm,
    /// Emulation in software.
    Emulation,
}

/// What becomes of machines when the server ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnShutdown {
    /// They run on; the next server takes them over.
    Keep,
    /// They are ended.
    Stop,
}

/// Ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last; not below the first.
    pub last: u16,
}

/// A limit of time that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeLimit(pub(super) Option<Duration>);

/// Keys of the older program that are passed over, and what to do instead.
const PASSED_OVER: [(&str, &str, &str); 11] = [
    ("containers", "nat_interface_name", NETWORK),
    ("containers", "bridge_interface_name", NETWORK),
    ("containers", "log_file_path", "set `file` in [log]"),
    ("containers", "pid_file_path", "set `pidfile` in [paths]"),
    ("containers", "user", "start the server as the user that it should be"),
    ("containers.web_server", "log_file_path", "set `file` in [log]"),
    ("containers.web_server", "pid_file_path", "set `pidfile` in [paths]"),
    ("containers.web_server", "user", "start the server as the user that it should be"),
    (LOG_ROTATION, "enabled", ROTATION),
    (LOG_ROTATION, "log_archive_folder_path", ROTATION),
    (LOG_ROTATION, "max_log_lines_amount", ROTATION),
];
const NETWORK: &str = "machines need no interface of the host";
const ROTATION: &str = "set `lines_max`, `rotation` and `archive` in [log]";
/// A section without settings of ours.
const LOG_ROTATION: &str = "containers.log_rotation";

/// What to do instead of setting `key`, where the older program knew it and here it has no meaning.
pub(super) fn passed_over(section: &str, key: &str) -> Option<&'static str> {
    if section == LOG_ROTATION {
        return Some(ROTATION);
    }
    let known = PASSED_OVER.iter().find(|known| (known.0, known.1) == (section, key));
    known.map(|known| known.2)
}

/// Whether a table of that name inside of another is a section.
pub(super) fn is_sub_section(name: &str) -> bool {
    name.contains('.') && (t::owns(name) || name == LOG_ROTATION)
}

/// Whether the name is one of a section that only the older program had.
pub(super) fn is_passed_over(name: &str) -> bool {
    canonical(name) == LOG_ROTATION
}

/// Where machines and images are kept that nobody gave a place: also for commands that know no configuration.
#[must_use]
pub fn usual_state() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/gatehouse/machines".into();
    }
    let absolute = |name: &str| {
        std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir);
    state.join("gatehouse/machines")
}

/// `None`: something is wrong. `Some(None)`: there is no such section, so there are no machines.
pub(super) fn read(raw: &mut Raw<'_>) -> Option<Option<Containers>> {
    let machines = machines(raw);
    let classic = classic(raw);
    let web_server = web_server(raw);
    let bind_to = raw.read(&t::CONTAINERS_BIND);
    let has_tokens = raw.read(&t::TOKENS_ENABLED);
    let token_file = raw.read(&t::TOKENS_FILE);
    let public = raw.read(&t::KEY_PUBLIC);
    let private = raw.read(&t::KEY_PRIVATE);
    let ssh_gateway_port = raw.read(&t::SSH_GATEWAY_PORT);
    let sections = &raw.resolver.document.sections;
    let is_there = sections.iter().any(|section| {
        let name = canonical(&section.name);
        name == "containers" || is_sub_section(&name)
    });
    let machines = machines?;
    let beside = |path: Option<PathBuf>, name: &str| path.unwrap_or(machines.state.join(name));
    let key_files =
        KeyFiles { public: beside(public, "public.pem"), private: beside(private, "private.pem") };
    let access_token_file = beside(token_file, "access_token.db");
    raw.amend(&t::KEY_PUBLIC.row, &key_files.public);
    raw.amend(&t::KEY_PRIVATE.row, &key_files.private);
    raw.amend(&t::TOKENS_FILE.row, &access_token_file);
    let containers = Containers {
        classic: classic?,
        web_server: web_server?,
        bind_to: bind_to?,
        access_tokens: has_tokens?.then(|| access_token_file.clone()),
        access_token_file,
        key_files,
        ssh_gateway_port,
        machines,
    };
    Some(is_there.then_some(containers))
}

fn machines(raw: &mut Raw<'_>) -> Option<Machines> {
    let state = raw.read(&t::STATE);
    let images = raw.read(&t::IMAGES);
    let default_image = raw.read(&t::DEFAULT_IMAGE);
    let iso = raw.read(&t::ISO);
    let count_max = raw.read(&t::MACHINES_MAX);
    let memory_mb = raw.read(&t::MEMORY);
    let memory_mb_max = raw.read(&t::MEMORY_MAX);
    let vcpus = raw.read(&t::VCPUS);
    let vcpus_max = raw.read(&t::VCPUS_MAX);
    let cpu_percent_max = raw.read(&t::CPU_PERCENT_MAX);
    let bandwidth_kib_max = raw.read(&t::BANDWIDTH_KIB_MAX);
    let upload_kib_max = raw.read(&t::UPLOAD_KIB_MAX);
    let download_kib_max = raw.read(&t::DOWNLOAD_KIB_MAX);
    let disk = disk(raw);
    let accelerator = raw.read(&t::DOMAIN_TYPE);
    let ready_timeout = raw.read(&t::WAIT_MAX_TRYOUT);
    let endpoint_username = raw.read(&t::ENDPOINT_USERNAME);
    let endpoint_password = raw.read(&t::ENDPOINT_PASSWORD);
    let endpoint_port = raw.read(&t::ENDPOINT_PORT);
    let ports = raw.read(&t::PORT_RANGE);
    let pool = raw.read(&t::POOL);
    let ttl_default = raw.read(&t::TTL_DEFAULT);
    let ttl_max = raw.read(&t::TTL_MAX);
    let quota = raw.read(&t::QUOTA);
    let internet = raw.read(&t::INTERNET);
    let network_allow = raw.read(&t::NETWORK_ALLOW);
    let network_deny = raw.read(&t::NETWORK_DENY);
    let ip_filter = ip_filter(raw);
    let on_shutdown = raw.read(&t::ON_SHUTDOWN);
    let snapshots = snapshots(raw);
    let state = state.unwrap_or_else(usual_state);
    let images = images.unwrap_or_else(|| state.join("images"));
    raw.amend(&t::STATE.row, &state);
    raw.amend(&t::IMAGES.row, &images);
    let (count_max, ports) = (count_max?, ports?);
    check_range(raw, count_max, ports);
    Some(Machines {
        state,
        images,
        default_image,
        iso,
        count_max,
        memory_mb: memory_mb?,
        memory_mb_max: memory_mb_max?.max(memory_mb?),
        vcpus: vcpus?,
        vcpus_max: vcpus_max?.max(vcpus?),
        cpu_percent_max: cpu_percent_max.map(|percent| (percent > 0).then_some(percent))?,
        bandwidth_kib_max: bandwidth_kib_max.map(|kib| (kib > 0).then_some(kib))?,
        upload_kib_max: upload_kib_max.map(|kib| (kib > 0).then_some(kib))?,
        download_kib_max: download_kib_max.map(|kib| (kib > 0).then_some(kib))?,
        disk: disk?,
        accelerator: accelerator?,
        ready_timeout: ready_timeout?.0,
        endpoint_username: endpoint_username?,
        endpoint_password: endpoint_password?,
        endpoint_port: endpoint_port?,
        ports,
        pool: pool?,
        ttl_default: ttl_default?.0,
        ttl_max: ttl_max?.0,
        quota: quota.map(|count| (count > 0).then_some(count))?,
        internet: internet?,
        network_allow: network_allow?,
        network_deny: network_deny?,
        ip_filter: ip_filter?,
        on_shutdown: on_shutdown?,
        snapshots: snapshots?,
    })
}

fn disk(raw: &mut Raw<'_>) -> Option<Disk> {
    let size_mb = raw.read(&t::DISK);
    let kib_max = raw.read(&t::DISK_KIB_MAX);
    let operations_max = raw.read(&t::DISK_OPERATIONS_MAX);
    Some(Disk { size_mb: size_mb?, kib_max: kib_max?, operations_max: operations_max? })
}

fn snapshots(raw: &mut Raw<'_>) -> Option<Snapshots> {
    let is_on = raw.read(&t::SNAPSHOT);
    let count_max = raw.read(&t::SNAPSHOTS_MAX);
    let is_foreign_on = raw.read(&t::SNAPSHOT_FOREIGN);
    Some(Snapshots { is_on: is_on?, count_max: count_max?, is_foreign_on: is_foreign_on? })
}

/// Every machine needs a port.
fn check_range(raw: &mut Raw<'_>, count_max: usize, ports: PortRange) {
    let count = usize::from(ports.last - ports.first) + 1;
    if count >= count_max {
        return;
    }
    let rows = [&t::PORT_RANGE.row, &t::MACHINES_MAX.row];
    if let Some(node) = rows.iter().find_map(|row| raw.given(row)) {
        let message =
            format!("{count} ports are not enough for {count_max} machines: widen `port_range`");
        raw.problems.push(raw.resolver.problem(node, message));
    }
}

/// `Some(None)`: switched off.
fn classic(raw: &mut Raw<'_>) -> Option<Option<Classic>> {
    let is_on = raw.read(&t::CLASSIC);
    let port = raw.read(&t::CLASSIC_PORT);
    let client_timeout = raw.read(&t::CLIENT_TIMEOUT);
    let has_onetime_keys = raw.read(&t::ONETIME_KEYS);
    let connections_max = raw.read(&t::CLASSIC_CONNECTIONS_MAX);
    let per_address_max = raw.read(&t::CLASSIC_PER_ADDRESS_MAX);
    let classic = Classic {
        port: port?,
        client_timeout: client_timeout?.0,
        has_onetime_keys: has_onetime_keys?,
        connections_max: connections_max?,
        connections_per_address_max: per_address_max?,
    };
    Some(is_on?.then_some(classic))
}

/// `Some(None)`: it has no port.
fn web_server(raw: &mut Raw<'_>) -> Option<Option<WebServer>> {
    let port = raw.read(&t::WEB_PORT);
    let has_tls = raw.read(&t::WEB_TLS);
    let keyfile = raw.read(&t::WEB_KEYFILE);
    let certfile = raw.read(&t::WEB_CERTFILE);
    let Some(port) = port else { return Some(None) };
    if !has_tls? {
        return Some(Some(WebServer { port, tls: None }));
    }
    for (missing, row) in
        [(keyfile.is_none(), &t::WEB_KEYFILE.row), (certfile.is_none(), &t::WEB_CERTFILE.row)]
    {
        if missing {
            raw.needs(row, &t::WEB_TLS.row);
        }
    }
    let tls = super::Tls { certfile: certfile?, keyfile: keyfile? };
    Some(Some(WebServer { port, tls: Some(tls) }))
}

/// `Some(None)`: switched off.
fn ip_filter(raw: &mut Raw<'_>) -> Option<Option<IpFilter>> {
    let is_on = raw.read(&t::FILTER_ENABLED);
    let denied = raw.read(&t::FILTER_DENIED);
    let allowed = raw.read(&t::FILTER_ALLOWED);
    let filter = IpFilter { denied: denied?, allowed: allowed? };
    Some(is_on?.then_some(filter))
}

#[cfg(test)]
mod tests;
