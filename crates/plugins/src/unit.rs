//! What is loaded and retired together: one plugin file, or one built-in plugin.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::builtin::files::{FileServer, FileServerError};
use crate::builtin::systeminfo::SystemInfo;
use crate::parameters::{self, Access};
use crate::python::package::Package;
use crate::python::pool::Pool;
use crate::python::protocol;
use crate::python::seat::{Failure, Job, LaunchError, LoadedPlugin, log_failures};
use crate::registry::{ChangeError, Endpoint};
use crate::settings::{RESERVED, Settings};
use crate::turn::Turn;

/// What a plugin is made of.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// Python workers.
    Python {
        /// The workers of its file.
        pool: Arc<Pool>,
        /// Its place in the file.
        slot: u32,
    },
    /// The file server.
    Files(Arc<FileServer>),
    /// System information.
    SystemInfo(Arc<SystemInfo>),
}

/// Where a unit comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Python file.
    File(PathBuf),
    /// The file server, under this route.
    Files(String),
    /// System information.
    SystemInfo,
}

impl Source {
    /// What people call it: the file's name without `.py`, or the route.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            Self::Files(route) => route.clone(),
            Self::SystemInfo => "systeminfo".into(),
        }
    }

    /// Whether there is nothing left to load.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::File(path) if !path.is_file())
    }
}

/// All that `settings` name: the files of each directory in name order, then what is built in.
///
/// # Errors
/// When a directory cannot be read.
pub fn discover(settings: &Settings) -> Result<Vec<Source>, ChangeError> {
    let mut sources = Vec::new();
    for directory in &settings.directories {
        let mut files = python_files(directory)
            .map_err(|error| ChangeError::Directory(directory.clone(), error))?;
        files.sort();
        sources.extend(files.into_iter().map(Source::File));
    }
    if let Some(files) = &settings.files {
        sources.push(Source::Files(files.route.clone()));
    }
    if settings.parameters("systeminfo").get("enabled") != Some(&json!(false)) {
        sources.push(Source::SystemInfo);
    }
    Ok(sources)
}

fn python_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // An editor's hidden draft is no plugin, and a package's own file is none either.
        if name.ends_with(".py")
            && !name.starts_with('.')
            && name != "__init__.py"
            && path.is_file()
        {
            // Worker processes do not share our idea of the current directory once it changes.
            files.push(std::path::absolute(&path)?);
        }
    }
    Ok(files)
}

/// Why a unit did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A parameter that the server itself reads makes no sense.
    #[error("{0}")]
    Parameter(String),
    /// No worker got ready.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The file, or a class in it, failed.
    #[error("{}", in_a_line(.0))]
    Broken(Vec<Failure>),
    /// The documents cannot be served.
    #[error(transparent)]
    Files(#[from] FileServerError),
}

fn in_a_line(failures: &[Failure]) -> String {
    let each = failures.iter().map(|failure| match failure.class.as_str() {
        "" => failure.error.clone(),
        class => format!("class {class}: {}", failure.error),
    });
    each.collect::<Vec<_>>().join("; ")
}

/// One loaded unit.
pub struct Unit {
    /// Where it comes from.
    pub source: Source,
    access: Access,
    timeout: Duration,
    content: Content,
    /// Plugins of the file that were unloaded one by one.
    unloaded: Vec<String>,
}

enum Content {
    Python { pool: Arc<Pool>, plugins: Vec<LoadedPlugin>, failures: Vec<Failure> },
    Files(Arc<FileServer>),
    SystemInfo(Arc<SystemInfo>),
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Unit {
    /// Starts what `source` names, a file's code when `turn` comes; `None` when a file defines no plugin.
    ///
    /// # Errors
    /// When it, or any part of it, does not work.
    pub async fn start(
        source: &Source,
        settings: &Settings,
        package: &Arc<Package>,
        turn: Turn,
    ) -> Result<Option<Self>, StartError> {
        let label = source.label();
        let content = match source {
            Source::File(path) => match start_file(path, &label, settings, package, turn).await? {
                Some(content) => content,
                None => return Ok(None),
            },
            Source::Files(_) => match &settings.files {
                Some(files) => Content::Files(Arc::new(FileServer::open(files.clone())?)),
                None => return Ok(None),
            },
            Source::SystemInfo => Content::SystemInfo(Arc::new(SystemInfo::start())),
        };
        let timeout = settings.python.handler_timeout;
        let access = access(source, settings);
        Ok(Some(Self { source: source.clone(), access, timeout, content, unloaded: Vec::new() }))
    }

    /// The names of its plugins.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.endpoints().into_iter().map(|endpoint| endpoint.name).collect()
    }

    /// Takes one plugin out of service; returns whether others are left.
    pub fn unload(&mut self, name: &str) -> bool {
        self.unloaded.push(name.to_owned());
        !self.endpoints().is_empty()
    }

    /// Leaves out of service what was unloaded of the version `before`.
    pub fn inherit(&mut self, before: &Self) {
        self.unloaded.clone_from(&before.unloaded);
    }

    /// Its plugins, to be called.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let endpoint = |name: String, runtime, methods, timeout| Endpoint {
            name,
            access: self.access.clone(),
            methods,
            timeout,
            runtime,
        };
        let mut endpoints = match &self.content {
            Content::Python { pool, plugins, .. } => (0..)
                .zip(plugins)
                .map(|(slot, plugin)| {
                    let runtime = Runtime::Python { pool: Arc::clone(pool), slot };
                    let timeout = own_timeout(plugin).unwrap_or(self.timeout);
                    endpoint(
                        plugin.name.trim_matches('/').into(),
                        runtime,
                        methods(plugin),
                        timeout,
                    )
                })
                .collect(),
            Content::Files(files) => {
                let methods = FileServer::METHODS.to_vec();
                let runtime = Runtime::Files(Arc::clone(files));
                vec![endpoint(self.source.label(), runtime, methods, self.timeout)]
            }
            Content::SystemInfo(info) => {
                let methods = SystemInfo::METHODS.to_vec();
                let runtime = Runtime::SystemInfo(Arc::clone(info));
                vec![endpoint(self.source.label(), runtime, methods, self.timeout)]
            }
        };
        endpoints.retain(|endpoint| !self.unloaded.contains(&endpoint.name));
        endpoints
    }

    /// Why it is worse than the version `before`: classes fail that did not fail then.
    #[must_use]
    pub fn worse_than(&self, before: Option<&Self>) -> Option<String> {
        let failures = |unit: &Self| match &unit.content {
            Content::Python { failures, .. } => failures.clone(),
            Content::Files(_) | Content::SystemInfo(_) => Vec::new(),
        };
        let old = before.map(failures)?;
        let is_new = |new: &Failure| !old.iter().any(|failure| failure.class == new.class);
        let new: Vec<Failure> = failures(self).into_iter().filter(is_new).collect();
        (!new.is_empty()).then(|| in_a_line(&new))
    }

    /// What failed in its file while other plugins of it are in service: label, reason, `false`.
    #[must_use]
    pub fn failure(&self) -> Option<(String, String, bool)> {
        match &self.content {
            Content::Python { failures, .. } if !failures.is_empty() => {
                Some((self.source.label(), in_a_line(failures), false))
            }
            _ => None,
        }
    }

    /// The longest time that one of its calls may take.
    #[must_use]
    pub fn longest_call(&self) -> Duration {
        self.endpoints().iter().map(|endpoint| endpoint.timeout).max().unwrap_or_default()
    }

    /// Who may call it, after the configuration has changed.
    pub fn refresh_access(&mut self, settings: &Settings) {
        self.access = access(&self.source, settings);
    }

    /// Puts everything that was unloaded back into service.
    pub fn restore(&mut self) {
        self.unloaded.clear();
    }

    /// Ends it: calls that it has begun get `limit` to finish.
    pub async fn retire(self, limit: Duration) {
        if let Content::Python { pool, .. } = self.content {
            pool.retire(limit).await;
        }
    }
}

/// Who may call the plugins of `source`.
fn access(source: &Source, settings: &Settings) -> Access {
    let label = source.label();
    // It tells about the machine; strangers learn that only when the operator says so.
    if *source == Source::SystemInfo && !settings.parameters.contains_key(&label.to_lowercase()) {
        return Access::Local;
    }
    let (access, problem) = parameters::access(&settings.parameters(&label));
    if let Some(problem) = problem {
        tracing::error!(plugin = label, "{problem}");
    }
    access
}

async fn start_file(
    path: &Path,
    label: &str,
    settings: &Settings,
    package: &Arc<Package>,
    turn: Turn,
) -> Result<Option<Content>, StartError> {
    let parameters = settings.parameters(label);
    let workers = parameters::workers(&parameters).map_err(StartError::Parameter)?;
    if parameters.is_empty() && RESERVED.contains(&label) {
        // Not an error yet: the class may be called otherwise.
        tracing::debug!(plugin = label, "the file is named like a route of the server");
    }
    let job = Job {
        label: label.to_owned(),
        hello: hello(path, &parameters, settings)?,
        settings: settings.python.clone(),
        package: Arc::clone(package),
    };
    let (pool, loaded) = Pool::start(job, workers, turn).await?;
    log_failures(label, &loaded.failures);
    match pool {
        Some(pool) => {
            if !loaded.failures.is_empty() {
                tracing::error!(
                    plugin = label,
                    "{}; the file's other plugins are loaded",
                    in_a_line(&loaded.failures)
                );
            }
            Ok(Some(Content::Python { pool, plugins: loaded.plugins, failures: loaded.failures }))
        }
        None if loaded.failures.is_empty() => Ok(None),
        None => Err(StartError::Broken(loaded.failures)),
    }
}

fn hello(
    path: &Path,
    parameters: &parameters::Parameters,
    settings: &Settings,
) -> Result<String, StartError> {
    let python = &settings.python;
    let unfit =
        || StartError::Parameter(format!("{}: the file's name is not UTF-8", path.display()));
    let hello = json!({
        "version": protocol::VERSION,
        "file": path.to_str().ok_or_else(unfit)?,
        "parameters": parameters,
        "config": settings.config,
        "args": settings.args,
        "log_level": python.log_level,
        "memory_bytes_max": python.memory_bytes_max,
        "reply_bytes_max": python.reply_bytes_max,
        "stop_secs": python.stop_timeout.as_secs_f64(),
    });
    Ok(hello.to_string())
}

/// The longest time that a class may ask for one call: a day, as the configuration's longest.
const TIMEOUT_SECS_MAX: f64 = 86_400.0;

fn own_timeout(plugin: &LoadedPlugin) -> Option<Duration> {
    plugin
        .timeout_secs
        .and_then(|secs| Duration::try_from_secs_f64(secs.min(TIMEOUT_SECS_MAX)).ok())
        .filter(|d| !d.is_zero())
}

fn methods(plugin: &LoadedPlugin) -> Vec<Method> {
    let mut methods: Vec<Method> =
        plugin.methods.iter().filter_map(|name| Method::from_bytes(name.as_bytes()).ok()).collect();
    if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
        methods.push(Method::HEAD);
    }
    methods
}
