//! The plugins in force, swapped whole.
//!
//! A request reads one snapshot ([`Registry::current`]); a change makes another and swaps it in. What
//! the old one ran is retired afterwards, so a call is never cut by a reload.
//!
//! Invariant: changes happen one at a time (`changing`), and a change that fails changes nothing.
//! Not here: reading the configuration; who asks hands over the [`Settings`] to apply.

use std::collections::HashMap;
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
use crate::settings::{RESERVED, Settings};
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
            let started = started.map_err(|error| error.to_string()).and_then(|unit| {
                let unfit = |unit: &Unit| {
                    unit.worse_than(before.as_ref()).or_else(|| changing.name_problem(unit))
                };
                // A file that is new is taken as it is: what can be used of it serves.
                match unit.as_ref().filter(|_| before.is_some()).and_then(unfit) {
                    Some(why) => Err(why),
                    None => Ok(unit),
                }
            });
            match started {
                Ok(unit) => {
                    outcome.failures.extend(unit.as_ref().and_then(Unit::failure));
                    changing.units.extend(unit);
                    replaced.extend(before);
                }
                Err(why) => {
                    let label = source.label();
                    tracing::error!(plugin = label, "{why}");
                    outcome.failures.push((label, why, before.is_some()));
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
        let mut ids = HashMap::new();
        let mut turn = Turn::now();
        for (index, source) in sources.into_iter().enumerate() {
            let (settings, package) = (Arc::clone(settings), Arc::clone(&self.package));
            // In order, so that whoever waits for a turn waits for one that has passed the gate. (The
            // gate is never closed.)
            let place = Arc::clone(&gate).acquire_owned().await;
            let (finish, next) = Turn::after();
            let mine = std::mem::replace(&mut turn, next);
            let begun = source.clone();
            let task = starts.spawn(async move {
                let started = Unit::start(&begun, &settings, &package, mine.clone()).await;
                // One that failed before its turn does not bring the next one's forward.
                mine.comes().await;
                drop((finish, place));
                started
            });
            ids.insert(task.id(), (index, source));
        }
        let mut started = Vec::new();
        while let Some(one) = starts.join_next_with_id().await {
            let (id, one) = match one {
                Ok((id, one)) => (id, one),
                Err(panic) => (panic.id(), Err(StartError::Parameter(panic.to_string()))),
            };
            started.extend(ids.remove(&id).map(|(index, source)| (index, source, one)));
        }
        started.sort_by_key(|(index, ..)| *index);
        started.into_iter().map(|(_, source, started)| (source, started)).collect()
    }

    /// Starts a new version of the plugin `name` and swaps it in. With it come what else `settings` and
    /// the directories say: keys of the other plugins, files that were added, files that are gone. (The
    /// other plugins' code and parameters wait for their own reload.)
    ///
    /// # Errors
    /// When there is no such plugin, or its new version fails: nothing has changed then.
    pub async fn reload(&self, name: &str, settings: &Arc<Settings>) -> Result<(), ChangeError> {
        let mut changing = self.changing.lock().await;
        let sources = discover(settings)?;
        let known = changing.position(name).map(|at| changing.units[at].source.clone());
        let mut fresh = None;
        if let Some(source) = known.filter(|source| !source.is_gone()) {
            fresh = Some(self.start_anew(&changing, &source, settings).await?);
        }
        let retired = self.follow(&mut changing, sources, settings).await;
        if let Some(unit) = fresh {
            self.replace(&mut changing, unit, settings);
        } else {
            self.publish(&mut changing, &mut Vec::new());
        }
        for unit in retired {
            changing.retire(Some(unit), settings);
        }
        match changing.position(name) {
            Some(_) => Ok(()),
            None => Err(ChangeError::Unknown(name.to_owned())),
        }
    }

    /// Takes in files that were added and gives everybody the access that `settings` say; returns the
    /// units whose files are gone.
    async fn follow(
        &self,
        changing: &mut Changing,
        sources: Vec<Source>,
        settings: &Arc<Settings>,
    ) -> Vec<Unit> {
        let is_known = |source: &Source| changing.units.iter().any(|unit| unit.source == *source);
        let added = sources.iter().filter(|source| !is_known(source)).cloned().collect();
        // Waiting comes first: whoever asked may leave meanwhile, and then nothing has changed.
        let started = self.start_units(added, settings).await;
        let is_listed = |unit: &Unit| sources.contains(&unit.source);
        let (units, gone) = changing.units.drain(..).partition(is_listed);
        changing.units = units;
        for unit in &mut changing.units {
            unit.refresh_access(settings);
        }
        for (source, started) in started {
            match started {
                Ok(unit) => changing.units.extend(unit),
                Err(error) => tracing::error!(plugin = source.label(), "{error}"),
            }
        }
        gone
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
        let mut unit = self.start_anew(&changing, &source, settings).await?;
        unit.restore();
        let names = unit.names();
        self.replace(&mut changing, unit, settings);
        Ok(names)
    }

    /// Starts a version of `source` that can take the place of the one there is.
    async fn start_anew(
        &self,
        changing: &Changing,
        source: &Source,
        settings: &Arc<Settings>,
    ) -> Result<Unit, ChangeError> {
        let failed = |why: &dyn std::fmt::Display| ChangeError::Failed(why.to_string());
        let started = Unit::start(source, settings, &self.package, Turn::now()).await;
        let Some(mut unit) = started.map_err(|error| failed(&error))? else {
            return Err(failed(&format!("{}: defines no plugin", source.label())));
        };
        let before = changing.units.iter().find(|unit| unit.source == *source);
        if let Some(before) = before {
            unit.inherit(before);
        }
        let unfit = unit.worse_than(before).or_else(|| changing.name_problem(&unit));
        match unfit {
            None => Ok(unit),
            Some(why) => {
                unit.retire(Duration::ZERO).await;
                Err(failed(&why))
            }
        }
    }

    /// Puts `unit` in place of the version of it that there is, if any.
    fn replace(&self, changing: &mut Changing, unit: Unit, settings: &Arc<Settings>) {
        let at = changing.units.iter().position(|other| other.source == unit.source);
        let before = match at {
            Some(at) => Some(std::mem::replace(&mut changing.units[at], unit)),
            None => {
                changing.units.push(unit);
                None
            }
        };
        self.publish(changing, &mut Vec::new());
        changing.retire(before, settings);
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
        changing.let_files_win();
        let mut routes = Routes::default();
        for unit in &changing.units {
            for endpoint in unit.endpoints() {
                let name = endpoint.name.clone();
                if let Err(error) = routes.add(&name, endpoint, &RESERVED) {
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
    /// A plugin of one's own takes the place of the built-in one of the same name.
    fn let_files_win(&mut self) {
        let own_name = Source::SystemInfo.label();
        let is_own =
            |unit: &Unit| unit.source != Source::SystemInfo && unit.names().contains(&own_name);
        if self.units.iter().any(is_own) {
            self.units.retain(|unit| unit.source != Source::SystemInfo);
        }
    }

    /// Why the names of `unit` cannot be used beside those of the other units.
    fn name_problem(&self, unit: &Unit) -> Option<String> {
        if unit.source == Source::SystemInfo {
            return None; // It gives way by itself; see `let_files_win`.
        }
        let mut routes = Routes::default();
        let others = self
            .units
            .iter()
            .filter(|other| other.source != unit.source && other.source != Source::SystemInfo);
        for name in others.flat_map(Unit::names) {
            // One that cannot be used is not in anybody's way.
            let _ = routes.add(&name, (), &RESERVED);
        }
        let mut names = unit.names().into_iter();
        names.find_map(|name| routes.add(&name, (), &RESERVED).err()).map(|error| error.to_string())
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.units.iter().position(|unit| unit.names().iter().any(|known| known == name))
    }

    fn retire(&mut self, unit: Option<Unit>, settings: &Settings) {
        // Those that have ended leave nothing to collect.
        while self.retiring.try_join_next().is_some() {}
        if let Some(unit) = unit {
            let limit = unit.longest_call().max(settings.python.handler_timeout);
            self.retiring.spawn(async move { unit.retire(limit).await });
        }
    }
}
