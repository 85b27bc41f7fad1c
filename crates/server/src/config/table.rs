//! Every setting the server owns, once.
//!
//! Invariant: parsing, unknown-key errors, `config show` and `docs/configuration.md` are all made
//! from this table; a setting that is not here does not exist.
//! Not here: how a value is read (`kinds`) and what becomes of it (`meant`).

use std::path::PathBuf;
use std::time::Duration;

use wire::Secret;

use super::containers::{Accelerator, OnShutdown, PortRange, TimeLimit};
use super::kinds::{self, Documents, Kind, Range};
use super::{AccessLog, IpNetwork, Level, LogFormat, RotationAction};
use crate::tcp::ip_filter::IpRule;

/// What is known about a setting, whatever its type.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    /// Other spellings of the key.
    pub(super) aliases: &'static [&'static str],
    /// What a value must be, for people.
    pub(super) expects: &'static str,
    /// Which numbers.
    pub(super) range: Option<Range>,
    /// As it would be written.
    pub(super) default: Option<&'static str>,
    pub(super) in_force: InForce,
    pub(super) about: &'static str,
    pub(super) secret: bool,
}

impl Row {
    /// What a value must be, with its range.
    pub(super) fn expected(&self) -> String {
        match self.range {
            Some(Range { least: Some(least), greatest }) => {
                format!("{}, {least} to {greatest}", self.expects)
            }
            Some(Range { least: None, greatest }) => {
                format!("{} above 0, at most {greatest}", self.expects)
            }
            None => self.expects.to_owned(),
        }
    }

    /// Whether `key` is one of its spellings.
    pub(super) fn is_called(&self, key: &str) -> bool {
        self.key == key || self.aliases.contains(&key)
    }
}

/// When a changed value is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InForce {
    /// After any reload: the control routes or SIGHUP.
    Reload,
    /// After SIGHUP.
    Hangup,
    /// After a new start.
    Start,
}

/// A row and the type it gives.
pub(super) struct Setting<T: 'static> {
    pub(super) row: Row,
    pub(super) kind: Kind<T>,
}

/// A section the server owns.
pub(super) struct Room {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
}

/// The sections the server owns, in the order they are shown.
pub(super) const ROOMS: [Room; 16] = [
    Room { name: "network", about: "Where to listen and whom to believe." },
    Room { name: "limits", about: "What one peer may cost." },
    Room { name: "paths", about: "Directories and files." },
    Room {
        name: "ssl",
        about: "TLS 1.2 and 1.3. A certificate that cannot be read stops the start.",
    },
    Room { name: "cors", about: "Which web pages of other origins may ask." },
    Room { name: "auth", about: "The global key." },
    Room { name: "plugin_parms", about: "Parameters of plugins: one key per plugin file." },
    Room { name: "file_server", about: "Static files and markdown." },
    Room { name: "python", about: "How Python plugins are run." },
    Room {
        name: "tasks",
        about: "Tasks for agents and events from them: on when `database` is set. One task, event or result is \
                at most `body_bytes_max` of [limits] long. See [the operating guide](dispatch.md).",
    },
    Room {
        name: "containers",
        about: "Temporary machines: lent when there is this section. The keys of the older program's file keep their \
                names, here and in the four sections below; those that have no meaning here (`nat_interface_name`, \
                …) are passed over with a note. `gatehouse config import` makes this \
                section of such a file.",
    },
    Room {
        name: "containers.web_server",
        about: "`/stat`, `/create` and `/destroy` on a port of their own.",
    },
    Room { name: "containers.port_forwarding", about: "Ports that lead to machines." },
    Room {
        name: "containers.ip_filter",
        about: "Which addresses may have machines and reach them: at the classic door, the documented routes, \
                `/machines`, the SSH gateway and the ports of machines.",
    },
    Room { name: "containers.access_token", about: "Whether every request needs an access token." },
    Room { name: "log", about: "What is written down and where." },
];

macro_rules! settings {
    ($($name:ident: $type:ty = [$section:literal] $key:literal $([= $($alias:literal),+])?, $kind:expr,
        $default:expr, $in_force:ident, $about:literal;)*) => {
        $(pub(super) static $name: Setting<$type> = Setting {
            row: Row {
                section: $section,
                key: $key,
                aliases: &[$($($alias),+)?],
                expects: $kind.expects,
                range: $kind.range,
                default: $default,
                in_force: InForce::$in_force,
                about: $about,
                secret: $kind.secret,
            },
            kind: $kind,
        };)*
        /// All of them, in the order they are shown.
        pub(super) static ROWS: &[&Row] = &[$(&$name.row),*];
    };
}

settings! {
    BINDTO: String = ["network"] "bindto", kinds::HOST, Some("127.0.0.1"), Hangup,
        "Where to listen. `0.0.0.0` or `::` for all interfaces.";
    PORT: u16 = ["network"] "port" [= "listen"], kinds::PORT, Some("9192"), Hangup,
        "TCP port. 0 takes a free one.";
    TRUSTED_PROXIES: Vec<IpNetwork> = ["network"] "trusted_proxies", kinds::NETWORKS, Some(""), Hangup,
        "Peers whose `X-Forwarded-For` says who the client is.";

    CONNECTIONS_MAX: usize = ["limits"] "connections_max", kinds::count(1, 1_000_000), Some("20000"), Start,
        "Connections open at once; at most as many as the process may have files, less what other doors need.";
    HEADER_TIMEOUT: Duration = ["limits"] "header_timeout_secs", kinds::seconds(3600), Some("10"), Hangup,
        "Time for the whole head of a request; for connections opened from then on.";
    BODY_TIMEOUT: Duration = ["limits"] "body_timeout_secs", kinds::seconds(3600), Some("30"), Hangup,
        "Time between two pieces of a body.";
    IDLE_TIMEOUT: Duration = ["limits"] "idle_timeout_secs", kinds::seconds(86400), Some("75"), Hangup,
        "How long a connection without a request is kept; for those opened from then on.";
    BODY_BYTES_MAX: usize = ["limits"] "body_bytes_max", kinds::bytes(1, 1 << 30), Some("16MiB"), Hangup,
        "Longest body of a request; a longer one is answered with 413.";
    REPLY_BYTES_MAX: usize = ["limits"] "reply_bytes_max", kinds::bytes(1, 1 << 30), Some("64MiB"), Hangup,
        "Longest answer of a plugin that does not stream.";
    HANDLER_TIMEOUT: Duration = ["limits"] "handler_timeout_secs", kinds::seconds(86400), Some("30"), Hangup,
        "A plugin's time for one request; then the answer is 504.";
    DRAIN_TIMEOUT: Duration = ["limits"] "drain_timeout_secs", kinds::seconds(3600), Some("10"), Hangup,
        "Time for requests in flight when the server ends.";

    PLUGINS: Vec<PathBuf> = ["paths"] "plugins" [= "pluginpath"], kinds::PATHS, Some(""), Reload,
        "Directories of plugins, in this order.";
    PATHS_DOCUMENTS: Documents = ["paths"] "documents", kinds::DOCUMENTS, None, Reload,
        "As `documents` in [file_server]; without a route name it is `doc`.";
    PIDFILE: PathBuf = ["paths"] "pidfile", kinds::PATH, None, Start,
        "File that holds the process id while the server runs.";

    SSL_ENABLED: bool = ["ssl"] "enabled" [= "enable"], kinds::SWITCH, Some("false"), Hangup,
        "Whether to speak TLS. Then both files below are needed.";
    CERTFILE: PathBuf = ["ssl"] "certfile", kinds::PATH, None, Hangup,
        "Certificate chain, PEM.";
    KEYFILE: PathBuf = ["ssl"] "keyfile", kinds::PATH, None, Hangup,
        "Private key, PEM.";

    CORS_ENABLED: bool = ["cors"] "enabled" [= "enable"], kinds::SWITCH, Some("false"), Hangup,
        "Whether pages of other origins may ask. Then `origin_url` is needed.";
    ORIGIN_URL: Vec<String> = ["cors"] "origin_url", kinds::ORIGINS, Some(""), Hangup,
        "Origins that may ask.";

    APIKEY: Secret = ["auth"] "apikey", kinds::KEY, None, Reload,
        "Key for the control routes and for plugins with `auth_type=global`.";

    DOCUMENTS: Documents = ["file_server"] "documents", kinds::DOCUMENTS, None, Reload,
        "Route name and directory; without a route name it is the directory's own.";
    INDEXFILE: String = ["file_server"] "indexfile", kinds::FILE_NAME, Some("index.html"), Reload,
        "File served for a directory.";
    MARKDOWN_CSS: String = ["file_server"] "markdown_css", kinds::TEXT, None, Reload,
        "URL of the style sheet for markdown pages.";
    HIGHLIGHT_CSS: String = ["file_server"] "highlight_css", kinds::TEXT, None, Reload,
        "URL of the style sheet for highlighted code.";
    MARKDOWN_ENVELOPE: PathBuf = ["file_server"] "markdown_envelope", kinds::PATH, None, Reload,
        "HTML file around a markdown page, with `{title}`, `{markdown_css}`, `{highlight_css}`, `{mdhtml}`.";
    COMMON_LOG: PathBuf = ["file_server"] "common_log", kinds::PATH, None, Reload,
        "File for the Common Log Format.";
    LOG_INCLUDES: bool = ["file_server"] "log_includes", kinds::SWITCH, Some("false"), Reload,
        "Whether included files are logged as well.";

    INTERPRETER: PathBuf = ["python"] "interpreter", kinds::COMMAND, None, Reload,
        "Python program: a path, or a name to look up in `PATH`. Without it `bin/python3` of `venv`, else `python3`.";
    VENV: PathBuf = ["python"] "venv", kinds::PATH, None, Reload,
        "Directory of a virtual environment.";
    MEMORY_MAX_MIB: u64 = ["python"] "memory_max_mib", kinds::whole(0, 1 << 24), Some("1024"), Reload,
        "Memory of one worker, in MiB. 0 is without limit.";
    START_TIMEOUT: Duration = ["python"] "start_timeout_secs", kinds::seconds(3600), Some("30"), Reload,
        "Time until a worker is ready.";
    HANG_TIMEOUT: Duration = ["python"] "hang_timeout_secs", kinds::seconds(3600), Some("10"), Reload,
        "How long a worker without a call may be silent until it is replaced.";
    STOP_TIMEOUT: Duration = ["python"] "stop_timeout_secs", kinds::seconds(3600), Some("5"), Reload,
        "Time for `terminate_plugin`.";
    CALLS_MAX: usize = ["python"] "calls_max", kinds::count(1, 1_000_000), Some("4096"), Reload,
        "Calls in flight or waiting for one plugin file.";

    TASKS_DATABASE: PathBuf = ["tasks"] "database", kinds::OWN_PATH, None, Start,
        "File with accounts, tasks and events; made when it is not there. A relative path begins at the \
         configuration file, in any case.";
    TASKS_WAIT: Duration = ["tasks"] "wait_secs", kinds::seconds(60), Some("26"), Start,
        "How long a poll waits for a task, and a sender for a result, when they do not say.";
    EVENTS_MAX: usize = ["tasks"] "events_max", kinds::count(1, 1_000_000), Some("512"), Start,
        "Newest events kept of one agent.";
    QUEUE_MAX: usize = ["tasks"] "queue_max", kinds::count(1, 1_000_000), Some("10000"), Start,
        "Tasks that wait for one agent; one more is refused.";
    HISTORY_DAYS: u64 = ["tasks"] "history_days", kinds::whole(0, 36500), Some("30"), Start,
        "How long a task that has ended is kept with its result. 0 keeps all.";
    SESSION_DAYS: u64 = ["tasks"] "session_days", kinds::whole(1, 3650), Some("30"), Start,
        "How long a session lives that is not used.";
    AUDIT_DAYS: u64 = ["tasks"] "audit_days", kinds::whole(0, 36500), Some("0"), Start,
        "How long an entry of the audit log is kept. 0 keeps all.";
    SELFREG_AGENTS_MAX: usize = ["tasks"] "selfreg_agents_max", kinds::count(0, 10_000_000), Some("10000"), Start,
        "Self-registration adds no agent when there are so many, however they were made.";
    ATTEMPTS_MAX: u32 = ["tasks"] "attempts_max", kinds::times(1, 1000), Some("5"), Start,
        "Claims of one task; when the last one fails, the task is dead.";
    OUTPUT_BYTES_MAX: usize = ["tasks"] "output_bytes_max", kinds::bytes(1, 1 << 30), Some("1MiB"), Start,
        "What is kept of one task's output.";
    FILES: PathBuf = ["tasks"] "files", kinds::OWN_PATH, None, Start,
        "Directory of files in transfer; made when it is not there. Without it the database's path with \
         `.files` behind it. A relative path begins at the configuration file, in any case.";
    FILE_BYTES_MAX: usize = ["tasks"] "file_bytes_max", kinds::bytes(1, 1 << 30), Some("32MiB"), Start,
        "Longest file in transfer; a longer one is answered with 413.";
    FILE_SECS: Duration = ["tasks"] "file_secs", kinds::seconds(2_592_000), Some("3600"), Start,
        "How long a file in transfer is kept, when its sender does not say.";
    FILE_USES: u32 = ["tasks"] "file_uses", kinds::times(1, 1_000_000), Some("5"), Start,
        "How often a file in transfer may be fetched, when its sender does not say.";

    STATE: PathBuf = ["containers"] "state", kinds::OWN_PATH, None, Start,
        "Directory of running machines and snapshots; made when it is not there. A relative path begins at the \
         configuration file, in any case. Without it `/var/lib/gatehouse/machines` for root, else \
         `gatehouse/machines` in `$XDG_STATE_HOME` or `~/.local/state`.";
    IMAGES: PathBuf = ["containers"] "images", kinds::OWN_PATH, None, Start,
        "Directory of images. Without it `images` in `state`.";
    DEFAULT_IMAGE: String = ["containers"] "default_image", kinds::FILE_NAME, None, Start,
        "Image of machines whose client names none. Without it the ISO file, else the small image.";
    ISO: PathBuf = ["containers"] "container_iso_file_path" [= "container_iso_path"], kinds::PATH, None, Start,
        "ISO file that machines boot from.";
    MACHINES_MAX: usize = ["containers"] "max_allowed_running_container_domains" [= "max_allowed_running_containers"],
        kinds::count(1, 10_000), Some("6"), Start,
        "Machines at a time.";
    MEMORY: u32 = ["containers"] "container_memory", kinds::times(32, 1 << 20), Some("1024"), Start,
        "Memory of a machine, in MiB.";
    MEMORY_MAX: u32 = ["containers"] "container_memory_max", kinds::times(32, 1 << 20), Some("4096"), Start,
        "The most that a client may ask for, in MiB.";
    VCPUS: u32 = ["containers"] "container_vcpus", kinds::times(1, 256), Some("2"), Start,
        "Processors of a machine.";
    VCPUS_MAX: u32 = ["containers"] "container_vcpus_max", kinds::times(1, 256), Some("4"), Start,
        "The most that a client may ask for.";
    CPU_PERCENT_MAX: u32 = ["containers"] "cpu_percent_max", kinds::times(0, 25_600), Some("0"), Start,
        "Of one processor, for one machine, where control groups allow it. 0 is without limit.";
    BANDWIDTH_KIB_MAX: u64 = ["containers"] "bandwidth_kib_max", kinds::whole(0, 1 << 24), Some("0"), Start,
        "KiB a second through the port of one machine and the SSH gateway together, each way. 0 is without limit.";
    UPLOAD_KIB_MAX: u64 = ["containers"] "upload_kib_max", kinds::whole(0, 1 << 24), Some("0"), Start,
        "KiB a second that one machine sends, all its traffic together: to the internet and to who enters it. 0 is \
         without limit.";
    DOWNLOAD_KIB_MAX: u64 = ["containers"] "download_kib_max", kinds::whole(0, 1 << 24), Some("0"), Start,
        "KiB a second that one machine is sent, all its traffic together. 0 is without limit.";
    DISK: u32 = ["containers"] "container_disk", kinds::times(0, 1 << 24), Some("0"), Start,
        "Size of the disk of a machine whose image is one, in MiB, where that is more than the image's own. 0 is the \
         image's own.";
    DISK_KIB_MAX: u64 = ["containers"] "disk_kib_max", kinds::whole(0, 1 << 24), Some("0"), Start,
        "KiB a second that one machine reads and writes of its disk. 0 is without limit.";
    DISK_OPERATIONS_MAX: u64 = ["containers"] "disk_operations_max", kinds::whole(0, 1 << 24), Some("0"), Start,
        "Readings and writings a second of one machine. 0 is without limit.";
    DOMAIN_TYPE: Accelerator = ["containers"] "domain_type", kinds::ACCELERATOR, Some("auto"), Start,
        "`auto` takes KVM where it works and emulation elsewhere; `qemu` is emulation.";
    WAIT_MAX_TRYOUT: TimeLimit = ["containers"] "wait_max_tryout", kinds::TRYOUTS, Some("120"), Start,
        "Seconds until a guest must be ready, before it is set up. -1 is without end.";
    ENDPOINT_USERNAME: String = ["containers"] "endpoint_username", kinds::NAME, Some("endpoint"), Start,
        "User of images without our agent, by whom the client's user is made.";
    ENDPOINT_PASSWORD: Secret = ["containers"] "endpoint_password", kinds::KEY, Some("endpoint"), Start,
        "That user's password.";
    ENDPOINT_PORT: u16 = ["containers"] "endpoint_listen_port", kinds::OPEN_PORT, Some("22"), Start,
        "Port of the SSH server inside such images.";
    POOL: usize = ["containers"] "pool", kinds::count(0, 1000), Some("0"), Start,
        "Machines that are kept ready, so that the next client waits for none.";
    TTL_DEFAULT: TimeLimit = ["containers"] "ttl_default_secs", kinds::TIME_LIMIT, Some("0"), Start,
        "Lifetime of a machine whose client names none, in seconds. 0 is without end.";
    TTL_MAX: TimeLimit = ["containers"] "ttl_max_secs", kinds::TIME_LIMIT, Some("0"), Start,
        "The longest lifetime that a client may ask for, in seconds. 0 is without end.";
    QUOTA: usize = ["containers"] "quota", kinds::count(0, 10_000), Some("0"), Start,
        "Machines at a time of one access token or account. 0 is without limit.";
    INTERNET: bool = ["containers"] "internet", kinds::SWITCH, Some("false"), Start,
        "Whether guests reach the internet. They never reach this machine or its private networks.";
    NETWORK_ALLOW: Vec<IpNetwork> = ["containers"] "network_allow", kinds::NETWORKS, Some(""), Start,
        "Private networks that guests may reach all the same.";
    NETWORK_DENY: Vec<IpNetwork> = ["containers"] "network_deny", kinds::NETWORKS, Some(""), Start,
        "Networks that guests may not reach whatever `internet` and `network_allow` say.";
    ON_SHUTDOWN: OnShutdown = ["containers"] "on_shutdown", kinds::ON_SHUTDOWN, Some("keep"), Start,
        "What becomes of machines when the server ends: `keep` lets the next server take them over.";
    SNAPSHOT: bool = ["containers"] "snapshot", kinds::SWITCH, Some("true"), Start,
        "Whether machines are clones of a snapshot where that is safe. Without, each of them boots.";
    SNAPSHOTS_MAX: usize = ["containers"] "snapshots_max", kinds::count(2, 10_000), Some("8"), Start,
        "Snapshots that are kept, one for each image and size of machine: about 100 MB each. For one more, the one \
         goes that was used longest ago, but never that of the usual machine.";
    SNAPSHOT_FOREIGN: bool = ["containers"] "snapshot_foreign", kinds::SWITCH, Some("false"), Start,
        "Whether machines of images without our agent start from a snapshot too. Their clones share what such images \
         keep secret.";
    SSH_GATEWAY_PORT: u16 = ["containers"] "ssh_gateway_port", kinds::PORT, None, Start,
        "One port for the SSH of all machines. 0 takes a free one.";
    CONTAINERS_BIND: String = ["containers"] "bind_address", kinds::CONTAINERS_HOST, Some("0.0.0.0"), Start,
        "Where the ports of this section and those of machines listen. `::` is every address of IPv4 and IPv6.";
    CLASSIC: bool = ["containers"] "classic", kinds::SWITCH, Some("true"), Start,
        "Whether the encrypted protocol of existing clients is spoken.";
    CLASSIC_PORT: u16 = ["containers"] "listen_port", kinds::PORT, Some("6150"), Start,
        "Port of that protocol. 0 takes a free one.";
    CLIENT_TIMEOUT: TimeLimit = ["containers"] "timeout", kinds::TIME_LIMIT, Some("10"), Start,
        "Seconds until a client's request must be whole. 0 is without end.";
    ONETIME_KEYS: bool = ["containers"] "enable_onetime_rsa_keys", kinds::SWITCH, Some("false"), Start,
        "Whether RSA keys are made anew at each start and kept nowhere.";
    KEY_PUBLIC: PathBuf = ["containers"] "public_rsa_key_file_path", kinds::OWN_PATH, None, Start,
        "PEM file of the server's public RSA key; made when it is not there. Without it `public.pem` in `state`.";
    KEY_PRIVATE: PathBuf = ["containers"] "private_rsa_key_file_path", kinds::OWN_PATH, None, Start,
        "PEM file of the server's private RSA key. Without it `private.pem` in `state`.";
    CLASSIC_CONNECTIONS_MAX: usize = ["containers"] "connections_max", kinds::count(8, 1_000_000), Some("4096"), Start,
        "Clients of that protocol connected at a time, and no more than an eighth of the files the process may have. \
         One more takes the place of who has no request yet.";
    CLASSIC_PER_ADDRESS_MAX: usize = ["containers"] "connections_per_address_max", kinds::count(1, 1_000_000),
        Some("512"), Start,
        "Clients without a request yet, of one address.";

    WEB_PORT: u16 = ["containers.web_server"] "listen_port", kinds::PORT, None, Start,
        "The port; the older program's is 8080. Without it the routes are on the port of [network] alone.";
    WEB_TLS: bool = ["containers.web_server"] "enable_ssl", kinds::SWITCH, Some("false"), Start,
        "Whether to speak TLS there. Then both files below are needed.";
    WEB_KEYFILE: PathBuf = ["containers.web_server"] "ssl_pem_private_key_file_path", kinds::PATH, None, Start,
        "Private key, PEM.";
    WEB_CERTFILE: PathBuf = ["containers.web_server"] "ssl_pem_certificate_file_path", kinds::PATH, None, Start,
        "Certificate chain, PEM.";

    PORT_RANGE: PortRange = ["containers.port_forwarding"] "port_range", kinds::PORT_RANGE, Some("10000 20000"), Start,
        "First and last port; every machine has one.";

    FILTER_ENABLED: bool = ["containers.ip_filter"] "enabled", kinds::SWITCH, Some("false"), Start,
        "Whether to filter.";
    FILTER_DENIED: Vec<IpRule> = ["containers.ip_filter"] "denied_ip_list", kinds::IP_RULES, Some(""), Start,
        "Who may not. With `any` among them, nobody but who is allowed below.";
    FILTER_ALLOWED: Vec<IpRule> = ["containers.ip_filter"] "allowed_ip_list", kinds::IP_RULES, Some("any"), Start,
        "Who may where `any` is denied.";

    TOKENS_ENABLED: bool = ["containers.access_token"] "enabled", kinds::SWITCH, Some("false"), Start,
        "Whether every request needs one. Make them by `gatehouse access-token add`.";
    TOKENS_FILE: PathBuf = ["containers.access_token"] "access_token_database_file_path"
        [= "access_tokens_database_path"], kinds::OWN_PATH, None, Start,
        "SQLite file of access tokens, as the older program keeps it. Without it `access_token.db` in `state`.";

    LEVEL: Level = ["log"] "level", kinds::LEVEL, Some("info"), Hangup,
        "From which severity on. `-v LEVEL` wins.";
    FORMAT: LogFormat = ["log"] "format", kinds::FORMAT, Some("text"), Start,
        "For people, or one JSON object a line.";
    LOG_FILE: PathBuf = ["log"] "file", kinds::PATH, None, Start,
        "Instead of standard error. `-l FILE` wins. SIGHUP opens the same file again.";
    LOG_LINES_MAX: u64 = ["log"] "lines_max", kinds::whole(0, 1_000_000_000), Some("0"), Start,
        "Lines after which the file is begun anew. 0 is never.";
    LOG_ROTATION: RotationAction = ["log"] "rotation", kinds::ROTATION, Some("archive"), Start,
        "What becomes of what it held: `archive` keeps it as `archived_<date>_<time>.zip`, `delete` does not.";
    LOG_ARCHIVE: PathBuf = ["log"] "archive", kinds::OWN_PATH, None, Start,
        "Directory of such archives; made when it is not there. Without it that of the file.";
    ACCESS: AccessLog = ["log"] "access", kinds::ACCESS, Some("errors"), Hangup,
        "Which requests get a line: none, those answered with 5xx, all.";
}

/// Whether the server owns the section of that name (in its one spelling).
pub(super) fn owns(section: &str) -> bool {
    ROOMS.iter().any(|room| room.name == section)
}

/// The settings of one section.
pub(super) fn rows_of(section: &str) -> impl Iterator<Item = &'static Row> {
    ROWS.iter().copied().filter(move |row| row.section == section)
}

#[cfg(test)]
mod tests {
    use super::{ROWS, owns};

    #[test]
    fn each_setting_has_a_home_and_a_name_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for row in ROWS {
            assert!(owns(row.section), "{}", row.section);
            for key in row.aliases.iter().chain([&row.key]) {
                assert!(names.insert((row.section, *key)), "[{}] {key} twice", row.section);
            }
            assert!(row.about.ends_with('.'), "{}", row.about);
        }
    }
}
