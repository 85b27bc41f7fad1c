//! Puts the embedded `plugincore` package where an interpreter finds it.
//!
//! Invariant: a worker runs the code that this binary carries, whatever lies in the directory: each file
//! is compared at start and rewritten where it differs.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$((
            concat!("plugincore/", $name),
            include_str!(concat!("../../../../python/plugincore/", $name)),
        )),*]
    };
}

/// Every file of the package: its path and its text.
const FILES: &[(&str, &str)] = embedded![
    "__init__.py",
    "answers.py",
    "baseplugin.py",
    "calls.py",
    "channel.py",
    "configfile.py",
    "lean.py",
    "loading.py",
    "logjam.py",
    "py.typed",
    "request.py",
    "response.py",
    "steps.py",
    "testing.py",
    "worker.py",
];

/// The program that an interpreter is started with. Its directory comes first in `sys.path`, so this
/// `plugincore` wins over an installed one.
const PROGRAM: (&str, &str) = (
    "gatehouse_worker.py",
    "from plugincore.lean import import_asyncio\n\nimport_asyncio()\n\n\
     from plugincore.worker import main\n\nmain()\n",
);

/// The program to start a worker with.
#[derive(Debug, Clone)]
pub struct Package {
    program: PathBuf,
}

impl Package {
    /// Writes the package below the user's cache directory, or below a directory for temporary files
    /// that belongs to this user alone.
    ///
    /// # Errors
    /// When no such directory can be made or written.
    pub fn install() -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no directory for caches");
        for base in candidates() {
            match install_below(&base) {
                Ok(package) => return Ok(package),
                Err(error) => {
                    last = io::Error::new(error.kind(), format!("{}: {error}", base.display()));
                }
            }
        }
        Err(last)
    }

    /// What the interpreter is given to run.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Puts back what somebody (a cleaner of caches, say) has taken away since.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn restore(&self) -> io::Result<()> {
        write_files(self.program.parent().unwrap_or(Path::new("/")))
    }
}

fn candidates() -> Vec<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    [
        variable("CACHE_DIRECTORY"),
        variable("XDG_CACHE_HOME").map(|path| path.join("gatehouse")),
        variable("HOME").map(|path| path.join(".cache/gatehouse")),
        Some(std::env::temp_dir().join(format!("gatehouse-{uid}"))),
    ]
    .into_iter()
    .flatten()
    .filter(|path| path.is_absolute())
    .collect()
}

fn install_below(base: &Path) -> io::Result<Package> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(base)?;
    let found = fs::symlink_metadata(base)?;
    if !found.is_dir()
        || found.uid() != rustix::process::getuid().as_raw()
        || found.mode() & 0o022 != 0
    {
        let message = "is not a directory that this user alone may write";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let directory = base.join(format!("python-{:016x}", fingerprint()));
    write_files(&directory)?;
    Ok(Package { program: directory.join(PROGRAM.0) })
}

fn write_files(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory.join("plugincore"))?;
    for (name, text) in FILES.iter().chain([&PROGRAM]) {
        let path = directory.join(name);
        if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            replace(&path, text)?;
        }
    }
    Ok(())
}

/// Names the directory after what is in it: another build's files lie elsewhere, and its server may still
/// be running.
fn fingerprint() -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    FILES.hash(&mut hasher);
    PROGRAM.hash(&mut hasher);
    hasher.finish()
}

/// A worker that starts meanwhile sees the old file or the new one, never half of one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    fs::write(&draft, text)?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_package_is_embedded() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/plugincore");
        let mut there: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "__pycache__")
            .map(|name| format!("plugincore/{name}"))
            .collect();
        there.sort();
        let embedded: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(there, embedded);
    }

    #[test]
    fn a_changed_or_missing_file_is_put_right() {
        let base = tempfile::tempdir().unwrap();
        let package = install_below(base.path()).unwrap();
        let victim = package.program().with_file_name("plugincore").join("worker.py");
        fs::write(&victim, "raise SystemExit").unwrap();
        package.restore().unwrap();
        assert!(fs::read_to_string(&victim).unwrap().contains("def main()"));
        fs::remove_dir_all(package.program().parent().unwrap()).unwrap();
        package.restore().unwrap();
        assert!(fs::read_to_string(victim).unwrap().contains("def main()"));
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = install_below(base.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
