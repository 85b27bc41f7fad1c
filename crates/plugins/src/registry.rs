//! The plugins in force, swapped whole.
//!
//! A request reads one snapshot ([`Registry::current`]); a change makes another and swaps it in. What
//! the old one ran is retired afterwards, so a call is never cut by a reload.
//!
//! Invariant: changes happen one at a time (`changing`), and a change that fails changes nothing.
//! Not here: reading the configuration; who asks hands over the [`Settings`] to apply.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::Method;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::call::{Call, CallError, Reply};
use crate::parameters::Access;
use crate::python::link::LinkError;
use crate::python::package::Package;
use crate::routes::Routes;
use crate::settings::Settings;
use crate::turn::Turn;
use crate::unit::{Runtime, Source, StartError, Unit, discover};

/// A plugin that can be called.
#[derive(Debug)]
pub struct Endpoint {
    /// Its route.
    pub name: String,
    /// Who may call it.
    pub access: Access,
    /// The methods it answers.
    pub methods: Vec<Method>,
    /// Its time for one call.
    pub timeout: Duration,
    /// What it is made of.
    pub runtime: Runtime,
}

/// The current set of plugins and the way to another.
#[derive(Debug)]
pub struct Registry {
    current: ArcSwap<Routes<Endpoint>>,
    changing: Mutex<Changing>,
    package: Arc<Package>,
}

#[derive(Debug, Default)]
struct Changing {
    units: Vec<Unit>,
    retiring: JoinSet<()>,
}

/// Why a change was not made, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such plugin.
    #[error("Plugin {0:?} not found")]
    Unknown(String),
    /// There is no such file in the plugin directories.
    #[error("no file {0:?} in the plugin directories")]
    NoFile(String),
    /// A plugin directory cannot be read.
    #[error("the plugin directory {0} cannot be read: {1}")]
    Directory(PathBuf, std::io::Error),
    /// The new version does not work; the old one, if there was one, goes on.
    #[error("{0}")]
    Failed(String),
}

/// What a change of everything did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Names in force now, in load order.
    pub names: Vec<String>,
    /// Files that failed: what they are called, why, and whether an older version goes on serving.
    pub failures: Vec<(String, String, bool)>,
}

impl Registry {
    /// No plugins yet.
    #[must_use]
    pub fn new(package: Package) -> Self {
        Self {
            current: ArcSwap::from_pointee(Routes::default()),
            changing: Mutex::default(),
            package: Arc::new(package),
        }
    }

    /// The set in force.
    pub fn current(&self) -> Guard<Arc<Routes<Endpoint>>> {
        self.current.load()
    }

    /// Makes one call. A call that meets a reload goes to the new version.
    ///
    /// # Errors
    /// What became of the call.
    pub async fn call(&self, endpoint: &Arc<Endpoint>, call: &Call) -> Result<Reply, CallError> {
        match &endpoint.runtime {
            Runtime::Python { pool, slot } => {
                match pool.call(*slot, call, endpoint.timeout).await {
                    Ok(reply) => Ok(reply),
                    Err(LinkError::Call(error)) => Err(error),
                    Err(LinkError::Closed) => self.call_successor(endpoint, call).await,
                }
            }
            Runtime::Files(files) => files.call(call).await,
            Runtime::SystemInfo(info) => info.call(call).await,
        }
    }

    /// The version that `endpoint` was of has been retired since the request looked it up.
    async fn call_successor(
        &self,
        endpoint: &Arc<Endpoint>,
        call: &Call,
    ) -> Result<Reply, CallError> {
        let Some(next) = self.current().get(&endpoint.name).cloned() else {
            return Err(CallError::Unloaded);
        };
        if Arc::ptr_eq(&next, endpoint) {
            return Err(CallError::Unloaded);
        }
        Box::pin(self.call(&next, call)).await
    }

    /// Brings everything to what `settings` say: new, changed and removed files, parameters, keys. Each
    /// file that fails keeps its old version, if it had one.
    ///
    /// # Errors
    /// When a plugin directory cannot be read; nothing has changed then.
    pub async fn apply(&self, settings: &Arc<Settings>) -> Result<Outcome, ChangeError> {
        let mut changing = self.changing.lock().await;
        let sources = discover(settings)?;
        let started = self.start_units(sources, settings).await;
        let mut old: Vec<Unit> = std::mem::take(&mut changing.units);
        let mut replaced: Vec<Unit> = Vec::new();
        let mut outcome = Outcome::default();
        for (source, started) in started {
            let before = old.iter().position(|unit| unit.source == source).map(|at| old.remove(at));
            match started {
                Ok(unit) => {
                    changing.units.extend(unit);
                    replaced.extend(before);
                }
                Err(error) => {
                    let label = source.label();
                    tracing::error!(plugin = label, "{error}");
                    outcome.failures.push((label, error.to_string(), before.is_some()));
                    changing.units.extend(before);
                }
            }
        }
        let names = self.publish(&mut changing, &mut outcome.failures);
        outcome.names = names;
        for unit in &old {
            tracing::info!(plugin = unit.source.label(), "removed");
        }
        // Only now: a call that is turned away by an old version must find the new one in the set.
        for unit in replaced.into_iter().chain(old) {
            changing.retire(Some(unit), settings);
        }
        Ok(outcome)
    }

    async fn start_units(
        &self,
        sources: Vec<Source>,
        settings: &Arc<Settings>,
    ) -> Vec<(Source, Result<Option<Unit>, StartError>)> {
        let gate = Arc::new(tokio::sync::Semaphore::new(settings.starts_at_once()));
        let mut starts = JoinSet::new();
        let mut turn = Turn::now();
        for (index, source) in sources.into_iter().enumerate() {
            let (settings, package) = (Arc::clone(settings), Arc::clone(&self.package));
            // In order, so that whoever waits for a turn waits for one that has passed the gate. (The
            // gate is never closed.)
            let place = Arc::clone(&gate).acquire_owned().await;
            let (finish, next) = Turn::after();
            let mine = std::mem::replace(&mut turn, next);
            starts.spawn(async move {
                let started = Unit::start(&source, &settings, &package, mine).await;
                drop((finish, place));
                (index, source, started)
            });
        }
        let mut started = Vec::new();
        while let Some(one) = starts.join_next().await {
            started.extend(one);
        }
        started.sort_by_key(|(index, ..)| *index);
        started.into_iter().map(|(_, source, started)| (source, started)).collect()
    }

    /// Starts a new version of the plugin `name` and swaps it in.
    ///
    /// # Errors
    /// When there is none, its file has gone (it is unloaded then), or the new version fails (the old
    /// one goes on).
    pub async fn reload(&self, name: &str, settings: &Arc<Settings>) -> Result<(), ChangeError> {
        let mut changing = self.changing.lock().await;
        let unknown = || ChangeError::Unknown(name.to_owned());
        let at = changing.position(name).ok_or_else(unknown)?;
        let source = changing.units[at].source.clone();
        if source.is_gone() {
            let unit = changing.units.remove(at);
            self.publish(&mut changing, &mut Vec::new());
            changing.retire(Some(unit), settings);
            return Err(unknown());
        }
        let started = Unit::start(&source, settings, &self.package, Turn::now()).await;
        let unit = started.map_err(|error| ChangeError::Failed(error.to_string()))?;
        let Some(mut unit) = unit else {
            return Err(ChangeError::Failed(format!("{}: defines no plugin", source.label())));
        };
        unit.inherit(&changing.units[at]);
        self.replace(&mut changing, at, unit, settings)
    }

    /// Loads the file called `file` (with or without `.py`), or a new version of it.
    ///
    /// # Errors
    /// When there is none, or it fails.
    pub async fn load(
        &self,
        file: &str,
        settings: &Arc<Settings>,
    ) -> Result<Vec<String>, ChangeError> {
        let mut changing = self.changing.lock().await;
        let wanted = file.strip_suffix(".py").unwrap_or(file);
        let source = discover(settings)?
            .into_iter()
            .find(|source| source.label() == wanted)
            .ok_or_else(|| ChangeError::NoFile(file.to_owned()))?;
        let started = Unit::start(&source, settings, &self.package, Turn::now()).await;
        let unit = started.map_err(|error| ChangeError::Failed(error.to_string()))?;
        let Some(unit) = unit else {
            return Err(ChangeError::Failed(format!("{wanted}: defines no plugin")));
        };
        let names = unit.names();
        let at = changing.units.iter().position(|unit| unit.source == source);
        let at = at.unwrap_or(changing.units.len());
        self.replace(&mut changing, at, unit, settings)?;
        Ok(names)
    }

    /// Puts `unit` at `at`, in place of what is there; takes it back when its names are taken.
    fn replace(
        &self,
        changing: &mut Changing,
        at: usize,
        unit: Unit,
        settings: &Arc<Settings>,
    ) -> Result<(), ChangeError> {
        let taken: Vec<String> = changing
            .units
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != at)
            .flat_map(|(_, other)| other.names())
            .filter(|name| unit.names().contains(name))
            .collect();
        if let Some(name) = taken.first() {
            let why = format!("the name {name:?} is taken by another plugin");
            changing.retire(Some(unit), settings);
            return Err(ChangeError::Failed(why));
        }
        let before = if at < changing.units.len() {
            Some(std::mem::replace(&mut changing.units[at], unit))
        } else {
            changing.units.push(unit);
            None
        };
        self.publish(changing, &mut Vec::new());
        changing.retire(before, settings);
        Ok(())
    }

    /// Takes the plugin `name` out of service; the workers of its file end with its last plugin.
    ///
    /// # Errors
    /// When there is none.
    pub async fn unload(&self, name: &str, settings: &Arc<Settings>) -> Result<(), ChangeError> {
        let mut changing = self.changing.lock().await;
        let at = changing.position(name).ok_or_else(|| ChangeError::Unknown(name.to_owned()))?;
        let emptied = (!changing.units[at].unload(name)).then(|| changing.units.remove(at));
        self.publish(&mut changing, &mut Vec::new());
        changing.retire(emptied, settings);
        Ok(())
    }

    /// Swaps the new set in; returns its names. A name that cannot be used is a failure of its file,
    /// and the rest of the set is in force all the same.
    fn publish(
        &self,
        changing: &mut Changing,
        failures: &mut Vec<(String, String, bool)>,
    ) -> Vec<String> {
        let mut routes = Routes::default();
        for unit in &changing.units {
            for endpoint in unit.endpoints() {
                let name = endpoint.name.clone();
                if let Err(error) = routes.add(&name, endpoint, &crate::settings::RESERVED) {
                    tracing::error!(plugin = unit.source.label(), "{error}");
                    failures.push((unit.source.label(), error.to_string(), false));
                }
            }
        }
        let names = routes.names().to_vec();
        self.current.store(Arc::new(routes));
        names
    }

    /// Ends everything: calls get `limit` to finish, then the plugins are told.
    pub async fn shut_down(&self, limit: Duration) {
        let mut changing = self.changing.lock().await;
        for unit in std::mem::take(&mut changing.units) {
            changing.retiring.spawn(async move { unit.retire(limit).await });
        }
        while changing.retiring.join_next().await.is_some() {}
    }
}

impl Changing {
    fn position(&self, name: &str) -> Option<usize> {
        self.units.iter().position(|unit| unit.names().iter().any(|known| known == name))
    }

    fn retire(&mut self, unit: Option<Unit>, settings: &Settings) {
        // Those that have ended leave nothing to collect.
        while self.retiring.try_join_next().is_some() {}
        if let Some(unit) = unit {
            let limit = settings.python.handler_timeout;
            self.retiring.spawn(async move { unit.retire(limit).await });
        }
    }
}
