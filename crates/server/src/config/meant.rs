//! From settings as written to the configuration as meant.
//!
//! Invariant: every setting is read before anything is given up, so that all mistakes show at once.
//! Not here: how a single setting is read (`raw`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use super::kinds::Documents;
use super::problem::Problems;
use super::raw::{Effective, Origin, Raw};
use super::source::{Document, canonical};
use super::table as t;
use super::value::Resolver;
use super::{
    Config, Cors, FileServer, Limits, Log, LogRotation, Network, Overrides, Paths, Python,
    RotationAction, TasksConfig, Tls, containers, mask, parameters,
};

/// What the document means; `None` when something is wrong with it, which is in `problems` then.
pub(super) fn config(
    resolver: &Resolver<'_>,
    overrides: &Overrides,
    file: Option<&Path>,
    problems: &mut Problems,
) -> Option<Config> {
    let directory = file.and_then(Path::parent);
    let warnings = Problems::default();
    let mut raw = Raw { resolver, directory, problems, warnings, effective: Vec::new() };
    raw.check_names();
    let network = network(&mut raw, overrides);
    let limits = limits(&mut raw);
    let plugins = raw.read(&t::PLUGINS);
    let paths_documents = raw.read(&t::PATHS_DOCUMENTS);
    let pidfile = raw.read(&t::PIDFILE);
    let tls = tls(&mut raw);
    let cors = cors(&mut raw);
    let apikey = raw.read(&t::APIKEY);
    let directories = plugins.as_deref().unwrap_or_default();
    let plugin_parameters = parameters::read(&mut raw, directories, apikey.is_some());
    let file_server = file_server(&mut raw, paths_documents);
    let python = python(&mut raw);
    let tasks = tasks(&mut raw, overrides);
    let containers = containers::read(&mut raw);
    let log = log(&mut raw, overrides);
    remember_others(&mut raw);
    let Raw { warnings, effective, .. } = raw;
    Some(Config {
        file: file.map(Path::to_owned),
        opens_http: true,
        run_as: None,
        network: network?,
        limits: limits?,
        paths: Paths { plugins: plugins?, pidfile },
        tls,
        cors,
        apikey,
        plugin_parameters,
        file_server: file_server?,
        python: python?,
        tasks: tasks?,
        containers: containers?,
        log: log?,
        sections: sections(resolver),
        warnings: warnings.into_vec(),
        effective,
    })
}

fn network(raw: &mut Raw<'_>, overrides: &Overrides) -> Option<Network> {
    let bind_to = raw.read_or(&t::BINDTO, overrides.bind.clone());
    let port = raw.read_or(&t::PORT, overrides.port);
    let trusted_proxies = raw.read(&t::TRUSTED_PROXIES);
    Some(Network { bind_to: bind_to?, port: port?, trusted_proxies: trusted_proxies? })
}

fn limits(raw: &mut Raw<'_>) -> Option<Limits> {
    let connections_max = raw.read(&t::CONNECTIONS_MAX);
    let header_timeout = raw.read(&t::HEADER_TIMEOUT);
    let body_timeout = raw.read(&t::BODY_TIMEOUT);
    let idle_timeout = raw.read(&t::IDLE_TIMEOUT);
    let body_bytes_max = raw.read(&t::BODY_BYTES_MAX);
    let reply_bytes_max = raw.read(&t::REPLY_BYTES_MAX);
    let handler_timeout = raw.read(&t::HANDLER_TIMEOUT);
    let drain_timeout = raw.read(&t::DRAIN_TIMEOUT);
    Some(Limits {
        connections_max: connections_max?,
        header_timeout: header_timeout?,
        body_timeout: body_timeout?,
        idle_timeout: idle_timeout?,
        body_bytes_max: body_bytes_max?,
        reply_bytes_max: reply_bytes_max?,
        handler_timeout: handler_timeout?,
        drain_timeout: drain_timeout?,
    })
}

fn tls(raw: &mut Raw<'_>) -> Option<Tls> {
    let enabled = raw.read(&t::SSL_ENABLED);
    let certfile = raw.read(&t::CERTFILE);
    let keyfile = raw.read(&t::KEYFILE);
    if !enabled? {
        return None;
    }
    for (missing, row) in
        [(certfile.is_none(), &t::CERTFILE.row), (keyfile.is_none(), &t::KEYFILE.row)]
    {
        if missing {
            raw.needs(row, &t::SSL_ENABLED.row);
        }
    }
    Some(Tls { certfile: certfile?, keyfile: keyfile? })
}

fn cors(raw: &mut Raw<'_>) -> Option<Cors> {
    let enabled = raw.read(&t::CORS_ENABLED);
    let origins = raw.read(&t::ORIGIN_URL);
    let (enabled, origins) = (enabled?, origins?);
    if enabled && origins.is_empty() {
        raw.needs(&t::ORIGIN_URL.row, &t::CORS_ENABLED.row);
    }
    enabled.then_some(Cors { origins })
}

fn file_server(raw: &mut Raw<'_>, paths_documents: Option<Documents>) -> Option<FileServer> {
    let own = raw.read(&t::DOCUMENTS);
    let index_file = raw.read(&t::INDEXFILE);
    let markdown_css = raw.read(&t::MARKDOWN_CSS);
    let highlight_css = raw.read(&t::HIGHLIGHT_CSS);
    let markdown_envelope = raw.read(&t::MARKDOWN_ENVELOPE);
    let common_log = raw.read(&t::COMMON_LOG);
    let log_includes = raw.read(&t::LOG_INCLUDES);
    Some(FileServer {
        documents: documents(raw, own, paths_documents),
        index_file: index_file?,
        markdown_css,
        highlight_css,
        markdown_envelope,
        common_log,
        log_includes: log_includes?,
    })
}

/// The one of both that counts, with its route name.
fn documents(
    raw: &mut Raw<'_>,
    own: Option<Documents>,
    of_paths: Option<Documents>,
) -> Option<(String, PathBuf)> {
    let Some(own) = own else {
        let Documents { route, directory } = of_paths?;
        let route = route.unwrap_or_else(|| "doc".to_owned());
        let named = Documents { route: Some(route.clone()), directory: directory.clone() };
        raw.amend(&t::PATHS_DOCUMENTS.row, &named);
        return Some((route, directory));
    };
    if of_paths.is_some_and(|other| other != own)
        && let Some(node) = raw.given(&t::PATHS_DOCUMENTS.row)
    {
        let message = "left out: `documents` in [file_server] counts";
        raw.warnings.push(raw.resolver.problem(node, message));
    }
    let Documents { route, directory } = own;
    let route = route.or_else(|| base_name(&directory));
    if route.is_none()
        && let Some(node) = raw.given(&t::DOCUMENTS.row)
    {
        let message = "the directory has no name of its own; write `route:directory`";
        raw.problems.push(raw.resolver.problem(node, message));
    }
    raw.amend(&t::DOCUMENTS.row, &Documents { route: route.clone(), directory: directory.clone() });
    route.map(|route| (route, directory))
}

/// The directory's own name, also when it was written as `.` or `../x/..`.
fn base_name(directory: &Path) -> Option<String> {
    let real = || directory.canonicalize().ok()?.file_name().map(std::ffi::OsStr::to_owned);
    let name = directory.file_name().map(std::ffi::OsStr::to_owned).or_else(real)?;
    name.into_string().ok()
}

fn python(raw: &mut Raw<'_>) -> Option<Python> {
    let interpreter = raw.read(&t::INTERPRETER);
    let venv = raw.read(&t::VENV);
    let memory_mib_max = raw.read(&t::MEMORY_MAX_MIB);
    let start_timeout = raw.read(&t::START_TIMEOUT);
    let hang_timeout = raw.read(&t::HANG_TIMEOUT);
    let stop_timeout = raw.read(&t::STOP_TIMEOUT);
    let calls_max = raw.read(&t::CALLS_MAX);
    let of_venv = || venv.as_ref().map(|venv| venv.join("bin/python3"));
    let interpreter = interpreter.or_else(of_venv).unwrap_or_else(|| PathBuf::from("python3"));
    raw.amend(&t::INTERPRETER.row, &interpreter);
    Some(Python {
        interpreter,
        venv,
        memory_mib_max: memory_mib_max?,
        start_timeout: start_timeout?,
        hang_timeout: hang_timeout?,
        stop_timeout: stop_timeout?,
        calls_max: calls_max?,
    })
}

/// `None`: something is wrong. `Some(None)`: there is no database, so there are no tasks.
fn tasks(raw: &mut Raw<'_>, overrides: &Overrides) -> Option<Option<TasksConfig>> {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let database = raw.read_or(&t::TASKS_DATABASE, overrides.database.clone());
    let wait = raw.read(&t::TASKS_WAIT);
    let events_max = raw.read(&t::EVENTS_MAX);
    let queue_max = raw.read(&t::QUEUE_MAX);
    let history_days = raw.read(&t::HISTORY_DAYS);
    let session_days = raw.read(&t::SESSION_DAYS);
    let audit_days = raw.read(&t::AUDIT_DAYS);
    let selfreg_agents_max = raw.read(&t::SELFREG_AGENTS_MAX);
    let attempts_max = raw.read(&t::ATTEMPTS_MAX);
    let output_bytes_max = raw.read(&t::OUTPUT_BYTES_MAX);
    let files = raw.read(&t::FILES);
    let file_bytes_max = raw.read(&t::FILE_BYTES_MAX);
    let file_lifetime = raw.read(&t::FILE_SECS);
    let file_uses = raw.read(&t::FILE_USES);
    let days = |days: u64| DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX));
    let Some(database) = database else {
        warn_of_tasks_without_database(raw);
        return Some(None);
    };
    let files = files.unwrap_or_else(|| beside(&database, ".files"));
    raw.amend(&t::FILES.row, &files);
    Some(Some(TasksConfig {
        database,
        wait: wait?,
        events_max: events_max?,
        queue_max: queue_max?,
        history: history_days.map(|count| (count > 0).then(|| days(count)))?,
        session: days(session_days?),
        audit: audit_days.map(|count| (count > 0).then(|| days(count)))?,
        selfreg_agents_max: selfreg_agents_max?,
        attempts_max: attempts_max?,
        output_bytes_max: output_bytes_max?,
        files,
        file_bytes_max: file_bytes_max?,
        file_lifetime: file_lifetime?,
        file_uses: file_uses?,
    }))
}

/// `path` with `end` behind its name.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

/// Whoever sets something about tasks expects that there are some.
fn warn_of_tasks_without_database(raw: &mut Raw<'_>) {
    let document: &Document = raw.resolver.document;
    let section = document.find(t::TASKS_DATABASE.row.section);
    let first = section.and_then(|section| document.own_nodes(section).next());
    if let Some(node) = first {
        let message = "without `database` in [tasks] there are no tasks";
        raw.warnings.push(raw.resolver.problem(node, message));
    }
}

fn log(raw: &mut Raw<'_>, overrides: &Overrides) -> Option<Log> {
    let level = raw.read_or(&t::LEVEL, overrides.level);
    let format = raw.read(&t::FORMAT);
    let file = raw.read_or(&t::LOG_FILE, overrides.log_file.clone());
    let access = raw.read(&t::ACCESS);
    let lines_max = raw.read(&t::LOG_LINES_MAX);
    let action = raw.read(&t::LOG_ROTATION);
    let folder = raw.read(&t::LOG_ARCHIVE);
    let folder = folder.or_else(|| file.as_deref().map(folder_of));
    if let Some(folder) = &folder {
        raw.amend(&t::LOG_ARCHIVE.row, folder);
    }
    let archive = folder.filter(|_| action == Some(RotationAction::Archive));
    let lines_max = lines_max?;
    let rotation = (lines_max > 0).then_some(LogRotation { lines_max, archive });
    Some(Log {
        level: level?,
        format: format?,
        file,
        access: access?,
        rotation: action.map(|_| rotation)?,
        to_stdout: overrides.log_to_stdout,
    })
}

/// The folder that a file is in.
fn folder_of(file: &Path) -> PathBuf {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_owned()
}

/// Every section as plugins see it.
fn sections(resolver: &Resolver<'_>) -> Map<String, Value> {
    let document = resolver.document;
    let mut all = Map::new();
    for (index, section) in document.sections.iter().enumerate() {
        if document.default_section() == Some(index) {
            continue;
        }
        let members = document.nodes(index).into_iter().filter_map(|node| {
            let value = resolver.value(node)?.value.clone();
            Some((document.entry(node).key.clone(), value))
        });
        all.insert(section.name.clone(), Value::Object(members.collect()));
    }
    all
}

/// What the table does not know: parameters and the sections of plugins.
fn remember_others(raw: &mut Raw<'_>) {
    let document: &Document = raw.resolver.document;
    for (index, section) in document.sections.iter().enumerate() {
        let name = canonical(&section.name);
        let parameters = document.holds_parameters(index);
        let is_default = document.default_section() == Some(index);
        if is_default || (t::owns(&name) && !parameters) {
            continue;
        }
        for node in document.own_nodes(index) {
            let Some(resolved) = raw.resolver.value(node) else {
                continue;
            };
            let entry = document.entry(node);
            raw.effective.push(Effective {
                section: if parameters { name.clone() } else { section.name.clone() },
                key: entry.key.clone(),
                value: resolved.value.clone(),
                origin: Origin::File { file: document.file.clone(), line: entry.line },
                // The name of a plugin's file says nothing about what is in its parameters.
                secret: !parameters && mask::sounds_secret(&entry.key),
            });
        }
    }
}
