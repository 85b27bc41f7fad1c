//! For development: reloads when a plugin, a file beside it or the configuration changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Editors write in several steps; this long after the last one they are done.
const SETTLE: Duration = Duration::from_millis(150);
/// However many steps there are: this long after the first one it is time.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// Tells when something that matters has changed.
#[derive(Debug)]
pub struct Watch {
    changes: mpsc::Receiver<PathBuf>,
    /// Read by nobody: it watches as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches the directories and the file.
    ///
    /// # Errors
    /// When one of them cannot be watched.
    pub fn new(directories: &[PathBuf], config: Option<&Path>) -> notify::Result<Self> {
        let (sender, changes) = mpsc::channel(64);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let Ok(event) = event else { return };
                if event.kind.is_access() {
                    return;
                }
                for path in event.paths.into_iter().filter(|path| matters(path)) {
                    // A full queue means that a reload is due anyway.
                    let _ = sender.try_send(path);
                }
            })?;
        for directory in directories {
            watcher.watch(directory, RecursiveMode::Recursive)?;
        }
        if let Some(config) = config {
            // The directory, not the file: editors replace the file itself.
            let beside = config.parent().filter(|parent| !parent.as_os_str().is_empty());
            watcher.watch(beside.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
        }
        Ok(Self { changes, _watcher: watcher })
    }

    /// Waits for a change and until it has settled; returns the file that changed first.
    pub async fn change(&mut self) -> PathBuf {
        let Some(path) = self.changes.recv().await else {
            // The watcher lives as long as we do, so this does not happen; then nothing changes.
            return std::future::pending().await;
        };
        let settled = async {
            while let Ok(Some(_)) = tokio::time::timeout(SETTLE, self.changes.recv()).await {}
        };
        // Whether it has settled or not: it is time.
        let _ = tokio::time::timeout(SETTLE_MAX, settled).await;
        path
    }
}

fn matters(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.')
        // No `.json`: plugins keep their state in such files, and would be reloaded by writing it.
        && [".py", ".ini", ".toml"].iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_and_compiled_files_do_not_matter() {
        assert!(matters(Path::new("/p/hello.py")) && matters(Path::new("gatehouse.ini")));
        for other in ["/p/.hello.py.swp", "/p/hello.py~", "/p/__pycache__/hello.cpython-311.pyc"] {
            assert!(!matters(Path::new(other)), "{other}");
        }
    }
}
