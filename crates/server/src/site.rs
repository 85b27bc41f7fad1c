//! The running server as requests and changes see it: plugins, rules, and where they come from.
//!
//! Invariant: changes happen one at a time, and a change that fails leaves everything as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use plugins::builtin::files::FileSettings;
use plugins::python::PythonSettings;
use plugins::registry::{ChangeError, Outcome, Registry};
use plugins::settings::Settings;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::config::{Config, Overrides, Problems};
use crate::dispatch::Dispatch;
use crate::http::body::Room;
use crate::http::listener::TlsAcceptorBox;
use crate::http::policy::Policy;
use crate::http::tls::{self, TlsError};
use crate::lending::Lending;
use crate::log;

/// Where the configuration comes from, each time it is read.
#[derive(Debug, Clone)]
pub struct Origin {
    /// What is read.
    pub source: Source,
    /// What the command line says instead.
    pub overrides: Overrides,
}

/// Where the settings stand that the command line does not give.
#[derive(Debug, Clone)]
pub enum Source {
    /// In this file.
    File(PathBuf),
    /// In the program: this machine only, plugins from a folder, every request logged.
    Default,
    /// In the program: every interface, no plugins; the database comes from the command line.
    Tasks,
}

const DEFAULT: &str = include_str!("../default.ini");
const TASKS: &str = include_str!("../tasks.ini");

impl Origin {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(&self) -> Result<Config, Problems> {
        let text = match &self.source {
            Source::File(file) => return Config::load(file, &self.overrides, &variable),
            Source::Default => DEFAULT,
            Source::Tasks => TASKS,
        };
        Config::embedded("the embedded configuration", text, &self.overrides, &variable)
    }

    fn file(&self) -> Option<&Path> {
        match &self.source {
            Source::File(file) => Some(file),
            Source::Default | Source::Tasks => None,
        }
    }
}

/// An environment variable; the embedded configuration finds its plugins by one that has a default.
fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if name != "GATEHOUSE_PLUGINS" || value.is_some() {
        return value;
    }
    let folders = ["plugins", "examples/plugins"];
    folders.iter().find(|folder| PathBuf::from(folder).is_dir()).map(ToString::to_string)
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The configuration cannot be used; the old one stays in force.
    #[error("the configuration cannot be used, the old one stays in force: {0}")]
    Config(String),
    /// The plugins could not be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// The running server.
#[derive(Debug)]
pub struct Site {
    /// The plugins.
    pub registry: Registry,
    /// The rules for requests.
    pub policy: ArcSwap<Policy>,
    /// Tasks and events, where they are configured.
    pub dispatch: Option<Arc<Dispatch>>,
    /// Machines, where they are configured.
    pub lending: Option<Arc<Lending>>,
    /// Memory for bodies of requests.
    pub body_room: Room,
    /// How TLS is spoken, if it is.
    pub tls: ArcSwapOption<TlsAcceptorBox>,
    config: ArcSwap<Config>,
    origin: Origin,
    log: log::Handle,
    changing: Mutex<()>,
}

impl Site {
    /// A server with the rules of `config` and no plugins yet.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn new(
        origin: Origin,
        config: Config,
        registry: Registry,
        dispatch: Option<Dispatch>,
        lending: Option<Lending>,
        log: log::Handle,
    ) -> Result<Self, TlsError> {
        let tls = ArcSwapOption::new(acceptor(&config)?);
        Ok(Self {
            registry,
            dispatch: dispatch.map(Arc::new),
            lending: lending.map(Arc::new),
            policy: ArcSwap::from_pointee(Policy::of(&config)),
            body_room: Room::new(config.limits.body_bytes_max),
            tls,
            config: ArcSwap::from_pointee(config),
            origin,
            log,
            changing: Mutex::default(),
        })
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    fn read(&self) -> Result<Config, SiteError> {
        self.origin.read().map_err(|problems| {
            tracing::error!("the configuration cannot be used:\n{problems}");
            SiteError::Config(problems.to_string())
        })
    }

    fn put_in_force(&self, config: Config) {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        self.log.set_level(config.log.level);
        self.policy.store(Arc::new(Policy::of(&config)));
        self.config.store(Arc::new(config));
    }

    /// Loads all plugins for the first time.
    ///
    /// # Errors
    /// When a plugin directory cannot be read.
    pub async fn load_all(&self) -> Result<Outcome, ChangeError> {
        self.registry.apply(&Arc::new(settings(&self.config(), &self.origin))).await
    }

    /// Reads the configuration and certificates again and brings everything to what they say.
    ///
    /// # Errors
    /// When they cannot be used, or a plugin directory cannot be read: nothing has changed then.
    pub async fn reload_all(&self) -> Result<Outcome, SiteError> {
        let _turn = self.changing.lock().await;
        let config = self.read()?;
        let tls = acceptor(&config).map_err(|error| SiteError::Config(error.to_string()))?;
        let settings = Arc::new(settings(&config, &self.origin));
        let outcome = self.registry.apply(&settings).await?;
        self.tls.store(tls);
        self.log.reopen();
        self.put_in_force(config);
        tracing::info!(plugins = ?outcome.names, "reloaded");
        Ok(outcome)
    }

    /// Reads the configuration again and brings the plugin `name` to what it and its file say.
    ///
    /// # Errors
    /// When there is no such plugin, or its new version fails: the old one goes on then.
    pub async fn reload(&self, name: &str) -> Result<(), SiteError> {
        let _turn = self.changing.lock().await;
        let config = self.read()?;
        self.registry.reload(name, &Arc::new(settings(&config, &self.origin))).await?;
        self.put_in_force(config);
        tracing::info!(plugin = name, "reloaded");
        Ok(())
    }

    /// Loads a file that was added to a plugin directory; returns the names of its plugins.
    ///
    /// # Errors
    /// When there is none, or it fails.
    pub async fn load(&self, file: &str) -> Result<Vec<String>, SiteError> {
        let _turn = self.changing.lock().await;
        let config = self.read()?;
        let settings = Arc::new(settings(&config, &self.origin));
        let names = self.registry.load(file, &settings).await?;
        self.put_in_force(config);
        tracing::info!(plugin = file, "loaded");
        Ok(names)
    }

    /// Takes the plugin `name` out of service.
    ///
    /// # Errors
    /// When there is none.
    pub async fn unload(&self, name: &str) -> Result<(), SiteError> {
        let _turn = self.changing.lock().await;
        let settings = Arc::new(settings(&self.config(), &self.origin));
        self.registry.unload(name, &settings).await?;
        tracing::info!(plugin = name, "unloaded");
        Ok(())
    }
}

fn acceptor(config: &Config) -> Result<Option<Arc<TlsAcceptorBox>>, TlsError> {
    let acceptor = config.tls.as_ref().map(tls::acceptor).transpose()?;
    Ok(acceptor.map(|acceptor| Arc::new(TlsAcceptorBox(acceptor))))
}

/// The part of the configuration that the plugins' room is told.
fn settings(config: &Config, origin: &Origin) -> Settings {
    Settings {
        directories: config.paths.plugins.clone(),
        parameters: config.plugin_parameters.clone(),
        config: with_logging(config),
        args: arguments(config, origin),
        python: python(config),
        files: files(config),
    }
}

/// The older program adds the level to what plugins see; so do we.
fn with_logging(config: &Config) -> Map<String, Value> {
    let mut sections = config.sections.clone();
    let logging = sections.entry("logging").or_insert_with(|| json!({}));
    if let Some(logging) = logging.as_object_mut() {
        logging.entry("level").or_insert_with(|| json!(config.log.level.name().to_uppercase()));
    }
    sections
}

fn arguments(config: &Config, origin: &Origin) -> Map<String, Value> {
    Map::from_iter([
        ("ini_file".to_owned(), json!(origin.file().map(shown))),
        ("log".to_owned(), json!(config.log.file.as_ref().map(shown))),
        ("level".to_owned(), json!(config.log.level.name().to_uppercase())),
    ])
}

/// A path as text; bytes that are none do not keep plugins from starting.
fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

fn python(config: &Config) -> PythonSettings {
    use crate::config::Level;
    let python = &config.python;
    PythonSettings {
        interpreter: python.interpreter.clone(),
        memory_bytes_max: python.memory_mib_max.saturating_mul(1 << 20),
        start_timeout: python.start_timeout,
        hang_timeout: python.hang_timeout,
        stop_timeout: python.stop_timeout,
        calls_max: python.calls_max,
        reply_bytes_max: config.limits.reply_bytes_max,
        handler_timeout: config.limits.handler_timeout,
        log_level: match config.log.level {
            Level::Error => "ERROR",
            Level::Warning => "WARNING",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        },
    }
}

fn files(config: &Config) -> Option<FileSettings> {
    let files = &config.file_server;
    let (route, directory) = files.documents.clone()?;
    Some(FileSettings {
        route,
        directory,
        index_file: files.index_file.clone(),
        markdown_css: files.markdown_css.clone(),
        highlight_css: files.highlight_css.clone(),
        markdown_envelope: files.markdown_envelope.clone(),
        common_log: files.common_log.clone(),
        log_includes: files.log_includes,
    })
}
