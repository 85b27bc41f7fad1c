//! Every setting the server owns, once.
//!
//! Invariant: parsing, unknown-key errors, `config show` and `docs/configuration.md` are all made
//! from this table; a setting that is not here does not exist.
//! Not here: how a value is read (`kinds`) and what becomes of it (`meant`).

use std::path::PathBuf;
use std::time::Duration;

use wire::Secret;

use super::kinds::{self, Documents, Kind, Range};
use super::{AccessLog, IpNetwork, Level, LogFormat};

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
pub(super) const ROOMS: [Room; 11] = [
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
        "Connections open at once.";
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

    LEVEL: Level = ["log"] "level", kinds::LEVEL, Some("info"), Hangup,
        "From which severity on. `-v LEVEL` wins.";
    FORMAT: LogFormat = ["log"] "format", kinds::FORMAT, Some("text"), Start,
        "For people, or one JSON object a line.";
    LOG_FILE: PathBuf = ["log"] "file", kinds::PATH, None, Start,
        "Instead of standard error. `-l FILE` wins. SIGHUP opens the same file again.";
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
