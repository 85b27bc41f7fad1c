//! What the operator asked for, as meant: no options, every limit set.
//!
//! Invariant: a [`Config`] is whole. A file with one mistake gives no `Config`, only [`Problems`].
//! Not here: what was typed (`config/raw` and below).
//!
//! The way: text → `ini` or `toml_file` (or `import`, then `toml_file`) → `source::Document` → `value` (references and types) →
//! `raw` (each setting by its row of `table`) → `meant` → [`Config`].

pub mod containers;
mod document;
mod expansion;
mod import;
mod ini;
mod kinds;
mod load;
mod mask;
mod meant;
#[cfg(test)]
mod mutation_tests;
mod network;
mod older;
mod parameters;
mod problem;
mod raw;
mod show;
mod source;
mod spelling;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod toml_file;
mod value;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use wire::Secret;

pub use document::page as document_page;
pub use import::import;
pub use older::Role;
pub use problem::{Problem, Problems};
pub use raw::{Effective, Origin};
pub use show::{show, show_json};
pub use value::Environment;

/// What the command line says instead of the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `-l FILE`, relative to the working directory.
    pub log_file: Option<PathBuf>,
    /// `-v LEVEL`.
    pub level: Option<Level>,
    /// Where to listen.
    pub bind: Option<String>,
    /// On which port.
    pub port: Option<u16>,
    /// The tasks' database, relative to the working directory.
    pub database: Option<PathBuf>,
    /// Which part of the server this process is.
    pub role: Role,
    /// Whether the log is written to standard output as well.
    pub log_to_stdout: bool,
}

/// Everything the server was told. Its `Debug` is that of [`show`]: without secrets.
#[derive(Clone)]
pub struct Config {
    /// The file it came from; `None` for the embedded default.
    pub file: Option<PathBuf>,
    /// Whether the port of `[network]` is opened.
    pub opens_http: bool,
    /// `user` of the older program's file: whom a server that root starts is to be.
    pub run_as: Option<String>,
    /// `[network]`.
    pub network: Network,
    /// `[limits]`.
    pub limits: Limits,
    /// `[paths]`.
    pub paths: Paths,
    /// `[ssl]`, when enabled.
    pub tls: Option<Tls>,
    /// `[cors]`, when enabled.
    pub cors: Option<Cors>,
    /// `[auth] apikey`: the global key.
    pub apikey: Option<Secret>,
    /// `[plugin_parms]`: file name without `.py`, lower-case → the parameters of its plugins (typed).
    /// See [`Config::parameters_of`].
    pub plugin_parameters: BTreeMap<String, Map<String, Value>>,
    /// `[file_server]`.
    pub file_server: FileServer,
    /// `[python]`.
    pub python: Python,
    /// `[tasks]`, when it names a database.
    pub tasks: Option<TasksConfig>,
    /// `[containers]`, when there is this section.
    pub containers: Option<containers::Containers>,
    /// `[log]`.
    pub log: Log,
    /// Every section as plugins see it in `self.config` (section names as written, keys lower-case).
    pub sections: Map<String, Value>,
    /// What is doubtful but does not keep the server from starting.
    pub warnings: Vec<Problem>,
    /// Every value in force and where it comes from, for [`show`].
    pub effective: Vec<Effective>,
}

impl Config {
    /// The parameters of the plugins in the file `stem`.py; keys of the file are lower-case.
    #[must_use]
    pub fn parameters_of(&self, stem: &str) -> Option<&Map<String, Value>> {
        self.plugin_parameters.get(&stem.to_lowercase())
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&show(self))
    }
}

/// Where to listen and whom to believe.
#[derive(Debug, Clone)]
pub struct Network {
    /// `bindto`: an address or a host name (default 127.0.0.1).
    pub bind_to: String,
    /// `port` = `listen` (default 9192; 0 takes a free one).
    pub port: u16,
    /// `trusted_proxies`: addresses or networks (`10.0.0.0/8`) whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNetwork>,
}

/// An address range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNetwork {
    /// First address.
    pub address: IpAddr,
    /// Leading bits that count.
    pub prefix_bits: u8,
}

/// What one peer may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `connections_max`: open at once (default 20000).
    pub connections_max: usize,
    /// `header_timeout_secs`: for a request's whole head (default 10).
    pub header_timeout: Duration,
    /// `body_timeout_secs`: between two pieces of a body (default 30).
    pub body_timeout: Duration,
    /// `idle_timeout_secs`: a kept connection without a request (default 75).
    pub idle_timeout: Duration,
    /// `body_bytes_max`: of a request (default 16 MiB).
    pub body_bytes_max: usize,
    /// `reply_bytes_max`: of a plugin's answer that is not streamed (default 64 MiB).
    pub reply_bytes_max: usize,
    /// `handler_timeout_secs`: a plugin's time for one request (default 30).
    pub handler_timeout: Duration,
    /// `drain_timeout_secs`: for requests in flight at the end (default 10).
    pub drain_timeout: Duration,
}

/// Directories and files.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `plugins` = `pluginpath`: in this order.
    pub plugins: Vec<PathBuf>,
    /// `pidfile`.
    pub pidfile: Option<PathBuf>,
}

/// Certificate and key, both PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// `certfile`.
    pub certfile: PathBuf,
    /// `keyfile`.
    pub keyfile: PathBuf,
}

/// Which pages of other origins may ask.
#[derive(Debug, Clone)]
pub struct Cors {
    /// `origin_url`: exact origins, or `*`.
    pub origins: Vec<String>,
}

/// The file server's settings.
#[derive(Debug, Clone)]
pub struct FileServer {
    /// Route name and directory; `None` when no documents are configured.
    pub documents: Option<(String, PathBuf)>,
    /// `indexfile` (default index.html).
    pub index_file: String,
    /// `markdown_css`: URL of the style sheet for markdown pages.
    pub markdown_css: Option<String>,
    /// `highlight_css`: URL of the style sheet for highlighted code.
    pub highlight_css: Option<String>,
    /// `markdown_envelope`: a file with `{title} {markdown_css} {highlight_css} {mdhtml}`.
    pub markdown_envelope: Option<PathBuf>,
    /// `common_log`: a file for the Common Log Format.
    pub common_log: Option<PathBuf>,
    /// `log_includes`: whether included files are logged as well.
    pub log_includes: bool,
}

/// How Python plugins are run.
#[derive(Debug, Clone)]
pub struct Python {
    /// `interpreter` (default python3, from the virtual environment when one is set).
    pub interpreter: PathBuf,
    /// `venv`: a virtual environment's directory.
    pub venv: Option<PathBuf>,
    /// `memory_max_mib`: of one worker (default 1024; 0 is without limit).
    pub memory_mib_max: u64,
    /// `start_timeout_secs`: until a worker is ready (default 30).
    pub start_timeout: Duration,
    /// `hang_timeout_secs`: without a heartbeat, with no call running, until a worker is replaced (default 10).
    pub hang_timeout: Duration,
    /// `stop_timeout_secs`: for `terminate_plugin` (default 5).
    pub stop_timeout: Duration,
    /// `calls_max`: in flight or waiting for one plugin file (default 4096).
    pub calls_max: usize,
}

/// Tasks for agents and events from them.
#[derive(Debug, Clone)]
pub struct TasksConfig {
    /// `database`: the file with accounts, tasks and events.
    pub database: PathBuf,
    /// `wait_secs`: how long a poll and a sender wait when they do not say (default 26).
    pub wait: Duration,
    /// `events_max`: newest events kept of one agent (default 512).
    pub events_max: usize,
    /// `queue_max`: tasks that wait for one agent (default 10000).
    pub queue_max: usize,
    /// `history_days`: how long a task that has ended is kept (default 30 days); `None`, written 0, for ever.
    pub history: Option<Duration>,
    /// `session_days`: how long an unused session lives (default 30 days).
    pub session: Duration,
    /// `audit_days`: how long an entry of the audit log is kept; `None`, written 0 (the default), for ever.
    pub audit: Option<Duration>,
    /// `selfreg_agents_max`: self-registration adds no agent when there are so many (default 10000).
    pub selfreg_agents_max: usize,
    /// `attempts_max`: claims of one task before it is dead (default 5).
    pub attempts_max: u32,
    /// `output_bytes_max`: kept of one task's output (default 1 MiB).
    pub output_bytes_max: usize,
    /// `files`: the directory of files in transfer (default the database's path with `.files` behind it).
    pub files: PathBuf,
    /// `file_bytes_max`: of one file in transfer (default 32 MiB).
    pub file_bytes_max: usize,
    /// `file_secs`: how long a file in transfer is kept (default 3600).
    pub file_lifetime: Duration,
    /// `file_uses`: how often a file in transfer may be fetched (default 5).
    pub file_uses: u32,
}

/// What is written down and where.
#[derive(Debug, Clone)]
pub struct Log {
    /// `level`: error, warning, info, debug (default info).
    pub level: Level,
    /// `format`: text or json (default text).
    pub format: LogFormat,
    /// `file`: instead of standard error.
    pub file: Option<PathBuf>,
    /// `access`: which requests get a line (default errors).
    pub access: AccessLog,
    /// When the file is begun anew; `None`, with `lines_max` written 0 (the default), is never.
    pub rotation: Option<LogRotation>,
    /// Whether lines go to standard output as well.
    pub to_stdout: bool,
}

/// When the log file is begun anew, and what becomes of what it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRotation {
    /// `lines_max`: when it has so many lines.
    pub lines_max: u64,
    /// `rotation` is `archive`: the folder of archives, `archive` (default that of the file). `None`, with `delete`:
    /// it is forgotten.
    pub archive: Option<PathBuf>,
}

/// What becomes of what the log file held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationAction {
    /// It is kept in an archive.
    Archive,
    /// It is forgotten.
    Delete,
}

/// From which severity on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Errors alone.
    Error,
    /// And warnings.
    Warning,
    /// And what an operator wants to know.
    Info,
    /// And what a developer wants to know.
    Debug,
}

impl Level {
    /// Its name in any letter case; `WARN` is `warning`, `CRITICAL` is `error`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "error" | "critical" => Some(Self::Error),
            "warning" | "warn" => Some(Self::Warning),
            "info" => Some(Self::Info),
            "debug" => Some(Self::Debug),
            _ => None,
        }
    }

    /// As it is written in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

/// Which requests get a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    Off,
    /// Those answered with 5xx.
    Errors,
    /// All.
    All,
}
