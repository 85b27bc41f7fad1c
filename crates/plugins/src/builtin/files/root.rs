//! Opens what lies beneath one directory, and nothing else.
//!
//! Invariant: every file handed out was reached without leaving the directory, whatever the path says
//! and whatever changes on disk meanwhile; the kernel checks it (`openat2`, `RESOLVE_BENEATH`).
//! Not here: which names may be asked for (`path`), and what is made of a file.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// How often a lookup that a rename disturbed is tried again.
const DISTURBED_TRIES_MAX: usize = 8;

/// A directory, held open: it stays this one even when its name is given to another.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    /// Canonical; only the slow way compares with it.
    path: PathBuf,
}

/// May a lookup wait for the disk?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Only what the kernel has in memory: for the threads that serve everybody.
    Cached,
    /// As long as it takes: for threads that may block.
    Blocking,
}

/// Why nothing was opened.
#[derive(Debug)]
pub(super) enum Miss {
    /// There is no such thing, or it must not be seen: a stranger gets one answer for both.
    Absent,
    /// The disk would have to be asked; only with [`Patience::Cached`].
    WouldBlock,
    /// The system failed.
    Failed(io::Error),
}

/// What is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To learn what it is; devices and pipes do not notice.
    Look,
    /// To read it.
    Read,
}

impl Purpose {
    const fn flags(self) -> OFlags {
        match self {
            Self::Look => OFlags::PATH.union(OFlags::CLOEXEC),
            // A pipe that takes the file's place between look and open must not hold the thread.
            Self::Read => {
                OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY)
            }
        }
    }
}

/// Says that a file is the same and unchanged: any edit moves at least one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    /// Seconds and nanoseconds of the last change to the content.
    pub(super) mtime: (i64, i64),
    /// The same of the last change to content or attributes, which nobody can set back.
    pub(super) ctime: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File(Stamp),
}

impl Root {
    /// Takes hold of the directory.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { directory, path })
    }

    /// Is this still the directory of that name?
    pub(super) fn is(&self, path: &Path) -> bool {
        let same = |there: Metadata| {
            rustix::fs::fstat(&self.directory)
                .is_ok_and(|ours| (ours.st_dev, ours.st_ino) == (there.dev(), there.ino()))
        };
        fs::metadata(path).is_ok_and(same)
    }

    /// Says what `path` is. Pipes, sockets and devices are [`Miss::Absent`].
    pub(super) fn look(&self, path: &str, patience: Patience) -> Result<Kind, Miss> {
        let seen = File::from(self.reach(path, Purpose::Look, patience)?);
        let metadata = seen.metadata().map_err(Miss::Failed)?;
        if metadata.is_dir() {
            Ok(Kind::Directory)
        } else if metadata.is_file() {
            Ok(Kind::File(Stamp::of(&metadata)))
        } else {
            Err(Miss::Absent)
        }
    }

    /// Opens the regular file at `path` for reading, with its stamp as of now.
    pub(super) fn read(&self, path: &str, patience: Patience) -> Result<(File, Stamp), Miss> {
        // Looking first keeps `open` away from devices, where opening is already an act.
        let Kind::File(_) = self.look(path, patience)? else { return Err(Miss::Absent) };
        let file = File::from(self.reach(path, Purpose::Read, patience)?);
        let metadata = file.metadata().map_err(Miss::Failed)?;
        // Replaced in between is fine as long as it is a file again.
        if metadata.is_file() { Ok((file, Stamp::of(&metadata))) } else { Err(Miss::Absent) }
    }

    fn reach(&self, path: &str, purpose: Purpose, patience: Patience) -> Result<OwnedFd, Miss> {
        let path = if path.is_empty() { "." } else { path };
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if patience == Patience::Cached {
            resolve |= ResolveFlags::CACHED;
        }
        for _ in 0..DISTURBED_TRIES_MAX {
            match openat2(&self.directory, path, purpose.flags(), Mode::empty(), resolve) {
                Ok(found) => return Ok(found),
                // Not in memory, a kernel without RESOLVE_CACHED, or something for the slow way.
                Err(Errno::AGAIN | Errno::INVAL | Errno::XDEV | Errno::NOSYS | Errno::PERM)
                    if patience == Patience::Cached =>
                {
                    return Err(Miss::WouldBlock);
                }
                // A rename elsewhere made the kernel unsure.
                Err(Errno::AGAIN) => {}
                // A link with an absolute target, a kernel before 5.6, or a sandbox that refuses.
                Err(Errno::XDEV | Errno::NOSYS | Errno::PERM) => {
                    return self.walk(path, purpose);
                }
                Err(error) => return Err(miss(error)),
            }
        }
        Err(Miss::Absent)
    }

    /// The slow way: resolve every link first, and then go there from the root without following any.
    ///
    /// Whoever swaps a directory for a link meanwhile is stopped by `O_NOFOLLOW`.
    fn walk(&self, path: &str, purpose: Purpose) -> Result<OwnedFd, Miss> {
        let real = fs::canonicalize(self.path.join(path)).map_err(miss_io)?;
        let inside = real.strip_prefix(&self.path).map_err(|_| Miss::Absent)?;
        let mut names = inside.components().peekable();
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let last = purpose.flags() | OFlags::NOFOLLOW;
        let mut reached: Option<OwnedFd> = None;
        while let Some(name) = names.next() {
            let Component::Normal(name) = name else { return Err(Miss::Absent) };
            let from: BorrowedFd<'_> = reached.as_ref().map_or(self.directory.as_fd(), AsFd::as_fd);
            let flags = if names.peek().is_some() { step } else { last };
            reached = Some(openat(from, name, flags, Mode::empty()).map_err(miss)?);
        }
        match reached {
            Some(reached) => Ok(reached),
            None => openat(&self.directory, ".", last, Mode::empty()).map_err(miss),
        }
    }
}

/// Looks at a file that the owner named in the configuration, wherever it is.
pub(super) fn look_anywhere(path: &Path, patience: Patience) -> Result<Stamp, Miss> {
    let metadata = match patience {
        Patience::Blocking => fs::metadata(path).map_err(miss_io)?,
        Patience::Cached => {
            let flags = Purpose::Look.flags();
            let seen = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED)
                .map_err(|_| Miss::WouldBlock)?;
            File::from(seen).metadata().map_err(Miss::Failed)?
        }
    };
    if metadata.is_file() { Ok(Stamp::of(&metadata)) } else { Err(Miss::Absent) }
}

fn miss(error: Errno) -> Miss {
    match error {
        // `NXIO` is a socket or a device without a driver.
        Errno::NOENT
        | Errno::NOTDIR
        | Errno::LOOP
        | Errno::NAMETOOLONG
        | Errno::ACCESS
        | Errno::PERM
        | Errno::INVAL
        | Errno::ILSEQ
        | Errno::NXIO => Miss::Absent,
        other => Miss::Failed(other.into()),
    }
}

fn miss_io(error: io::Error) -> Miss {
    match Errno::from_io_error(&error) {
        Some(errno) => miss(errno),
        None => Miss::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn documents() -> (tempfile::TempDir, Root) {
        let outer = tempfile::tempdir().unwrap();
        let docs = outer.path().join("docs");
        fs::create_dir_all(docs.join("sub")).unwrap();
        fs::create_dir_all(outer.path().join("docs-private")).unwrap();
        fs::write(outer.path().join("secret"), "secret").unwrap();
        fs::write(outer.path().join("docs-private/secret"), "secret").unwrap();
        fs::write(docs.join("sub/page"), "page").unwrap();
        symlink("sub/page", docs.join("relative")).unwrap();
        symlink(docs.join("sub/page"), docs.join("absolute")).unwrap();
        symlink(docs.join("sub"), docs.join("absolute-directory")).unwrap();
        symlink("../secret", docs.join("out")).unwrap();
        symlink(outer.path().join("secret"), docs.join("absolute-out")).unwrap();
        symlink("../docs-private", docs.join("sibling")).unwrap();
        symlink("../docs/sub/page", docs.join("out-and-in")).unwrap();
        symlink("loop", docs.join("loop")).unwrap();
        symlink("/proc/self/root", docs.join("magic")).unwrap();
        let root = Root::open(&docs).unwrap();
        (outer, root)
    }

    /// Both ways must agree on every path.
    #[track_caller]
    fn check(path: &str, reached: bool) {
        let (_outer, root) = documents();
        assert_eq!(root.read(path, Patience::Blocking).is_ok(), reached, "openat2: {path}");
        let walked = root
            .walk(path, Purpose::Look)
            .is_ok_and(|found| File::from(found).metadata().unwrap().is_file());
        assert_eq!(walked, reached, "walk: {path}");
    }

    #[test]
    fn links_that_stay_inside_work() {
        check("sub/page", true);
        check("relative", true);
        check("absolute", true);
        check("absolute-directory/page", true);
        check("out-and-in", true);
    }

    #[test]
    fn links_that_leave_are_absent() {
        check("out", false);
        check("absolute-out", false);
        check("sibling/secret", false);
        check("magic/etc/passwd", false);
        check("loop", false);
    }

    #[test]
    fn paths_that_leave_are_absent() {
        check("../secret", false);
        check("sub/../../secret", false);
        check("../docs-private/secret", false);
    }

    #[test]
    fn a_pipe_is_absent_and_holds_nobody() {
        let (outer, root) = documents();
        let pipe = outer.path().join("docs/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
        assert!(matches!(root.read("pipe", Patience::Blocking), Err(Miss::Absent)));
    }

    #[test]
    fn an_edit_that_keeps_the_size_moves_the_stamp() {
        let (outer, root) = documents();
        let (_, before) = root.read("sub/page", Patience::Blocking).unwrap();
        // A new file under the same name, as editors write.
        fs::write(outer.path().join("docs/new"), "PAGE").unwrap();
        fs::rename(outer.path().join("docs/new"), outer.path().join("docs/sub/page")).unwrap();
        let (_, after) = root.read("sub/page", Patience::Blocking).unwrap();
        assert_ne!(before, after);
    }
}
