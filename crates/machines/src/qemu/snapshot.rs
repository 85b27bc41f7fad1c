//! Makes templates and machines from them.
//!
//! Invariant: for one recipe one template is made at a time; whoever needs the same one meanwhile waits for it, because
//! that takes no longer than booting. A recipe that failed is not tried again for a while, and machines boot instead.
//! Beside those that are being made there are never more templates than allowed, whatever sizes of machines are asked for:
//! the one that was used longest ago makes room, but never that of the usual machine, or one that is being cloned.
//!
//! Not here: what makes a template good ([`super::template`]), and when machines boot instead.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::command::STATE_SOCKET;
use super::launch::{Folder, Running, failed};
use super::qmp::Qmp;
use super::template::{self, DEVICES, DEVICES_BYTES_MAX, Recipe, Template, remove_replaced};
use crate::hypervisor::HypervisorError;

/// How long the devices' state may take to be saved or restored; it takes some milliseconds.
const STATE_LIMIT: Duration = Duration::from_secs(20);
/// How long a recipe that failed is not tried again.
const FAILED_FOR: Duration = Duration::from_secs(60);
/// The usual machine's template and another: fewer cannot be kept.
const COUNT_MIN: usize = 2;
/// Begins the name of a template that is being made.
const BUILDING: &str = ".building-";

/// All templates of one server.
#[derive(Debug)]
pub(super) struct Snapshots {
    folder: PathBuf,
    file_mode: u32,
    count_max: usize,
    known: Arc<Known>,
    /// The key of the one that is never thrown away to make room.
    usual: OnceLock<String>,
}

/// By the recipe's key. Who works with a template holds its state, and no one else takes it for unused.
type Known = Mutex<HashMap<String, Arc<tokio::sync::Mutex<State>>>>;

#[derive(Debug)]
enum State {
    Unknown,
    Good(Arc<Template>),
    Failed { why: String, at: Instant },
}

impl Snapshots {
    /// Templates in `folder`, which is made; what was being made when an earlier server ended is removed.
    /// Not `read_only` where QEMU is too old to open memory for reading alone and let the guest write its own copy.
    /// At most `count_max` are kept, and two at least: the usual machine's and another.
    pub(super) fn open(
        folder: PathBuf,
        read_only: bool,
        count_max: usize,
    ) -> Result<Self, HypervisorError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&folder)
            .map_err(|e| failed("making", &folder, e))?;
        for entry in fs::read_dir(&folder).map_err(|error| failed("reading", &folder, error))? {
            let entry = entry.map_err(|error| failed("reading", &folder, error))?;
            if entry.file_name().to_string_lossy().starts_with(BUILDING) {
                fs::remove_dir_all(entry.path())
                    .map_err(|error| failed("removing", &entry.path(), error))?;
            }
        }
        let file_mode = if read_only { 0o444 } else { 0o644 };
        Ok(Self {
            folder,
            file_mode,
            count_max: count_max.max(COUNT_MIN),
            known: Arc::default(),
            usual: OnceLock::new(),
        })
    }

    /// Names the template of the machine that is asked for most: it is never thrown away to make room. The first counts.
    pub(super) fn spare(&self, recipe: &Recipe) {
        if let Ok(key) = recipe.key() {
            let _ = self.usual.set(key);
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The template for a recipe. Where there is none, `build` makes its files in a folder that is empty.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) async fn template(
        &self,
        recipe: &Recipe,
        build: impl AsyncFnOnce(&Path) -> Result<(), HypervisorError>,
    ) -> Result<Arc<Template>, String> {
        let key = recipe.key().map_err(|error| error.to_string())?;
        let state = Arc::clone(
            self.known
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key.clone())
                .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(State::Unknown))),
        );
        let mut state = state.lock().await;
        match &*state {
            State::Good(template) if template.is_untouched() => {
                template.is_used();
                return Ok(Arc::clone(template));
            }
            State::Good(_) => self.discard(&key, "its files have changed"),
            State::Failed { why, at } if at.elapsed() < FAILED_FOR => return Err(why.clone()),
            State::Failed { .. } | State::Unknown => {}
        }
        // Whoever leaves meanwhile leaves the next one to begin anew.
        *state = State::Unknown;
        let result = match self.load(&key, recipe).await {
            Some(template) => {
                template.is_used();
                Ok(template)
            }
            None => self.build(&key, recipe, build).await,
        };
        *state = match &result {
            Ok(template) => State::Good(Arc::clone(template)),
            Err(why) => State::Failed { why: why.clone(), at: Instant::now() },
        };
        result
    }

    /// Throws a template away that no machine could be made from, unless there is another in its place.
    pub(super) async fn reject(&self, recipe: &Recipe, template: &Arc<Template>, why: &str) {
        let Ok(key) = recipe.key() else { return };
        let state = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(state) = state {
            let mut state = state.lock().await;
            if !matches!(&*state, State::Good(known) if Arc::ptr_eq(known, template)) {
                return;
            }
            self.discard(&key, why);
            *state = State::Failed {
                why: format!("its snapshot was thrown away: {why}"),
                at: Instant::now(),
            };
        }
    }

    async fn load(&self, key: &str, recipe: &Recipe) -> Option<Arc<Template>> {
        let (folder, recipe) = (self.folder.join(key), recipe.clone());
        let loaded = blocking(move || {
            if folder.exists() { Template::load(&folder, &recipe).map(Some) } else { Ok(None) }
        });
        match loaded.await {
            Ok(template) => template.map(Arc::new),
            Err(error) => {
                self.discard(key, &error.to_string());
                None
            }
        }
    }

    async fn build(
        &self,
        key: &str,
        recipe: &Recipe,
        build: impl AsyncFnOnce(&Path) -> Result<(), HypervisorError>,
    ) -> Result<Arc<Template>, String> {
        let begun = Instant::now();
        let mode = self.file_mode;
        self.make_room(key).await.map_err(|error| format!("no room for a snapshot: {error}"))?;
        let building = Building::make(self.folder.join(format!("{BUILDING}{key}")))?;
        build(&building.0).await.map_err(|error| format!("no snapshot could be made: {error}"))?;
        let (from, to, parent, made_from) =
            (building.0.clone(), self.folder.join(key), self.folder.clone(), recipe.clone());
        let template = blocking(move || {
            let template = Template::complete(&from, &to, &made_from, mode)?;
            remove_replaced(&parent, &made_from)?;
            Ok(template)
        });
        let template =
            template.await.map_err(|error| format!("no snapshot could be kept: {error}"))?;
        // Others may have been made beside this one.
        if let Err(error) = self.make_room(key).await {
            tracing::warn!(%error, "a snapshot that is too many could not be removed");
        }
        tracing::info!(image = %recipe.image, memory_mb = recipe.memory_mb, vcpus = recipe.vcpus,
            millis = begun.elapsed().as_millis(), "a snapshot was made");
        Ok(Arc::new(template))
    }

    /// Throws away what was used longest ago, until there is room for `key`. Machines that run on a template are not
    /// harmed.
    async fn make_room(&self, key: &str) -> io::Result<()> {
        let (folder, known, count_max) =
            (self.folder.clone(), Arc::clone(&self.known), self.count_max);
        let usual = self.usual.get().map(String::as_str);
        let kept: Vec<String> = usual.into_iter().chain([key]).map(str::to_owned).collect();
        blocking(move || {
            let mut others = template::by_use(&folder)?;
            let is_new = kept.last().is_some_and(|key| !others.contains(key));
            let surplus = (others.len() + usize::from(is_new)).saturating_sub(count_max);
            others.retain(|other| !kept.contains(other));
            for oldest in others.into_iter().take(surplus) {
                if forget(&known, &oldest) {
                    tracing::info!(snapshot = oldest, "a snapshot makes room for another");
                    fs::remove_dir_all(folder.join(oldest))?;
                }
            }
            Ok(())
        })
        .await
    }

    fn discard(&self, key: &str, why: &str) {
        let folder = self.folder.join(key);
        tracing::warn!(snapshot = %folder.display(), why, "a snapshot is thrown away");
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!(snapshot = %folder.display(), %error, "it could not be removed");
        }
    }
}

/// Forgets a template, and failures that are over; `false` where somebody works with it.
fn forget(known: &Known, key: &str) -> bool {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    // References are made under this lock alone: who has the only one is alone.
    let is_used = |state: &Arc<tokio::sync::Mutex<State>>| {
        let is_cloned =
            matches!(state.try_lock().as_deref(), Ok(State::Good(it)) if Arc::strong_count(it) > 1);
        is_cloned || Arc::strong_count(state) > 1
    };
    if known.get(key).is_some_and(is_used) {
        return false;
    }
    known.remove(key);
    known.retain(|_, state| match state.try_lock().as_deref() {
        Ok(State::Unknown) => Arc::strong_count(state) > 1,
        Ok(State::Failed { at, .. }) => at.elapsed() < FAILED_FOR,
        Ok(State::Good(_)) | Err(_) => true,
    });
    true
}

/// A folder of a template that is being made; removed unless it was renamed.
struct Building(PathBuf);

impl Building {
    fn make(path: PathBuf) -> Result<Self, String> {
        let made = if path.exists() { fs::remove_dir_all(&path) } else { Ok(()) };
        made.and_then(|()| fs::DirBuilder::new().mode(0o700).create(&path))
            .map_err(|error| format!("making {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        // Renamed when all went well, else a rest that the next attempt removes too.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Stops a guest and saves its devices' state; its memory is in a file already. QEMU ends.
pub(super) async fn save(qmp: &Qmp, folder: &Folder, target: &Path) -> io::Result<()> {
    let socket = folder.socket(STATE_SOCKET);
    let listener = UnixListener::bind(&socket)?;
    // QEMU may be another user; nobody else can enter the folder.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
    qmp.ask("stop", Value::Null).await?;
    set_capabilities(qmp).await?;
    qmp.ask("migrate", json!({"uri": format!("unix:{STATE_SOCKET}")})).await?;
    let receive = async {
        let (stream, _) = listener.accept().await?;
        let mut devices = Vec::new();
        let mut stream = stream.take(DEVICES_BYTES_MAX);
        stream.read_to_end(&mut devices).await?;
        migrated(qmp).await?;
        io::Result::Ok(devices)
    };
    let devices =
        timeout(STATE_LIMIT, receive).await.map_err(|_| late("saving its devices' state"))??;
    qmp.ask("quit", Value::Null).await?;
    fs::write(target.join(DEVICES), devices)
}

/// Gives a QEMU that waits for it the devices' state. The guest does not go on yet.
pub(super) async fn restore(running: &Running, devices: &[u8]) -> io::Result<()> {
    let qmp = &running.qmp;
    set_capabilities(qmp).await?;
    qmp.ask("migrate-incoming", json!({"uri": format!("unix:{STATE_SOCKET}")})).await?;
    let send = async {
        let mut stream = UnixStream::connect(running.folder.socket(STATE_SOCKET)).await?;
        stream.write_all(devices).await?;
        stream.shutdown().await?;
        migrated(qmp).await
    };
    timeout(STATE_LIMIT, send).await.map_err(|_| late("restoring its devices' state"))?
}

/// Memory that a file holds stays out of the state, and QEMU tells how far it is.
async fn set_capabilities(qmp: &Qmp) -> io::Result<()> {
    let on = |name: &str| json!({"capability": name, "state": true});
    let capabilities = json!({"capabilities": [on("x-ignore-shared"), on("events")]});
    qmp.ask("migrate-set-capabilities", capabilities).await.map(drop)
}

async fn migrated(qmp: &Qmp) -> io::Result<()> {
    let mut seen = qmp.seen();
    let over = |status: &Option<String>| {
        matches!(status.as_deref(), Some("completed" | "failed" | "cancelled"))
    };
    let seen = seen
        .wait_for(|seen| seen.closed || over(&seen.migration))
        .await
        .map_err(io::Error::other)?;
    match seen.migration.as_deref() {
        Some("completed") => Ok(()),
        _ if seen.closed => Err(io::Error::new(io::ErrorKind::BrokenPipe, "QEMU ended")),
        _ => Err(io::Error::other("QEMU could not do it")),
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} took too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::command::TEMPLATE_MEMORY;

    fn recipe(memory_mb: u32) -> Recipe {
        Recipe { memory_mb, ..Recipe::of("small") }
    }

    /// Has a template made, or taken out of what there is.
    async fn ask(snapshots: &Snapshots, memory_mb: u32) {
        let build = async |folder: &Path| {
            fs::write(folder.join(TEMPLATE_MEMORY), memory_mb.to_string()).unwrap();
            fs::write(folder.join(DEVICES), "devices").unwrap();
            Ok(())
        };
        let template = snapshots.template(&recipe(memory_mb), build).await.unwrap();
        // Files tell times in steps; a use is later than the one before.
        let manifest = fs::metadata(template.folder.join("snapshot.json")).unwrap();
        while manifest.modified().unwrap() >= std::time::SystemTime::now() {
            tokio::task::yield_now().await;
        }
    }

    fn kept(snapshots: &Snapshots) -> Vec<u32> {
        let folders = fs::read_dir(snapshots.folder()).unwrap();
        let memory = |folder: fs::DirEntry| fs::read_to_string(folder.path().join(TEMPLATE_MEMORY));
        let mut kept: Vec<u32> =
            folders.map(|it| memory(it.unwrap()).unwrap().parse().unwrap()).collect();
        kept.sort_unstable();
        kept
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_makes_room_but_never_the_usual_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshots");
        let snapshots = Snapshots::open(path.clone(), true, 3).unwrap();
        snapshots.spare(&recipe(1));
        for memory_mb in [1, 2, 3, 2, 4] {
            ask(&snapshots, memory_mb).await;
        }
        assert_eq!(kept(&snapshots), [1, 2, 4]);
        // Another server knows it, too: it is not told by anything in memory.
        drop(snapshots);
        let snapshots = Snapshots::open(path, true, 3).unwrap();
        ask(&snapshots, 2).await;
        ask(&snapshots, 5).await;
        assert_eq!(kept(&snapshots), [2, 4, 5]);
        for memory_mb in 10..200 {
            ask(&snapshots, memory_mb).await;
        }
        assert_eq!(kept(&snapshots).len(), 3);
        assert_eq!(snapshots.known.lock().unwrap().len(), 3);
    }
}
