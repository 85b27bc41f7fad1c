//! The folder of images: listed, checked, taken, removed, built.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::manifest::{self, Kind, Manifest};
use super::sources::Sources;
use super::sums::{self, Sums};
use super::{HostKeyForm, Image, ImageError, Media, process};
use crate::record::Record;

/// Sums of an image's files, beside them.
const SUMS: &str = ".sums";
/// The least memory of a bare ISO in MiB, of which nothing is known.
const BARE_MEMORY_MB_MIN: u32 = 64;

/// The images of a folder, one folder each.
#[derive(Debug)]
pub struct Images {
    directory: PathBuf,
    /// One at a time sums files: who waits finds what the other remembered.
    summing: Mutex<()>,
}

/// An image as it is listed: read, not summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// `kernel`, `iso` or `disk`; empty where the manifest is wrong.
    pub kind: String,
    /// For people.
    pub description: String,
    /// Whether it has our agent.
    pub has_agent: bool,
    /// The size of its files.
    pub bytes: u64,
    /// Why it cannot be used, if it cannot.
    pub problem: Option<String>,
}

/// A file of an image that was summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its name.
    pub file: String,
    /// What was found.
    pub state: FileState,
}

/// What was found of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// It is what the manifest says.
    Good,
    /// It is another.
    Differs,
    /// It cannot be read, because of this.
    Unreadable(String),
}

impl Images {
    /// The images in `directory`, which need not be there yet.
    #[must_use]
    pub fn open(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), summing: Mutex::new(()) }
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All of them by name, also those that cannot be used.
    ///
    /// # Errors
    /// When the folder cannot be read; that it is not there is no error.
    pub fn list(&self) -> Result<Vec<Listed>, ImageError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ImageError::io("reading", &self.directory)(error)),
        };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(ImageError::io("reading", &self.directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if manifest::is_name(&name) && entry.path().join(manifest::FILE).is_file() {
                listed.push(self.look_at(name));
            }
        }
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    fn look_at(&self, name: String) -> Listed {
        let folder = self.directory.join(&name);
        let mut listed = Listed {
            name,
            kind: String::new(),
            description: String::new(),
            has_agent: false,
            bytes: 0,
            problem: None,
        };
        match Manifest::read(&folder, &listed.name) {
            Ok(manifest) => {
                manifest.kind.word().clone_into(&mut listed.kind);
                listed.description.clone_from(&manifest.description);
                listed.has_agent = manifest.agent;
                for file in manifest.sums.keys() {
                    match fs::symlink_metadata(folder.join(file)) {
                        Ok(found) => listed.bytes += found.len(),
                        Err(error) => listed.problem = Some(format!("{file}: {error}")),
                    }
                }
            }
            Err(error) => listed.problem = Some(error.to_string()),
        }
        listed
    }

    /// An image that is what its manifest says. Files that were touched since they were summed last are summed again.
    ///
    /// # Errors
    /// When there is none of that name, its manifest is wrong, or a file is not what the manifest says.
    pub fn get(&self, name: &str) -> Result<Arc<Image>, ImageError> {
        let (folder, manifest) = self.read(name)?;
        let _alone = self.summing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = folder.join(SUMS);
        let mut sums = Sums::load(&kept);
        let mut fresh = false;
        for file in manifest.kind.files() {
            let path = folder.join(file);
            let (sha256, read) = sums.of(&path).map_err(ImageError::io("reading", path))?;
            fresh |= read;
            if manifest.sums.get(file) != Some(&sha256) {
                return Err(ImageError::Changed { name: name.to_owned(), file: file.to_owned() });
            }
        }
        if fresh {
            sums.keep(&kept);
        }
        let sha256 = told(&manifest);
        Ok(Arc::new(manifest.image(&folder, sha256)))
    }

    /// An image without a manifest: an ISO that boots by BIOS and keeps the guest contract. Its sum is remembered in a
    /// hidden file beside it where that can be written.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn bare_iso(&self, iso: &Path) -> Result<Arc<Image>, ImageError> {
        let _alone = self.summing.lock().unwrap_or_else(PoisonError::into_inner);
        let name = iso.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // An operator may well have a link here; what is summed is then what is booted.
        let iso = iso.canonicalize().map_err(ImageError::io("reading", iso))?;
        let kept = iso.with_file_name(format!(".{name}{SUMS}"));
        let mut sums = Sums::load(&kept);
        let (sha256, read) = sums.of(&iso).map_err(ImageError::io("reading", &iso))?;
        if read {
            sums.keep(&kept);
        }
        Ok(Arc::new(Image {
            name,
            media: Media::Iso(iso),
            has_agent: false,
            host_key: HostKeyForm::OpenSsh,
            memory_mb_min: BARE_MEMORY_MB_MIN,
            sha256,
        }))
    }

    /// Sums every file of an image, whatever is remembered.
    ///
    /// # Errors
    /// When there is none of that name, or its manifest is wrong.
    pub fn verify(&self, name: &str) -> Result<Vec<Checked>, ImageError> {
        let (folder, manifest) = self.read(name)?;
        let check = |(file, sum): (&String, &String)| {
            let found = sums::open(&folder.join(file)).and_then(|open| sums::sum(&open));
            let state = match found {
                Ok(found) if found == *sum => FileState::Good,
                Ok(_) => FileState::Differs,
                Err(error) => FileState::Unreadable(error.to_string()),
            };
            Checked { file: file.clone(), state }
        };
        Ok(manifest.sums.iter().map(check).collect())
    }

    /// Removes an image, unless `in_use` says that machines run from the folder it is given.
    ///
    /// # Errors
    /// When there is none of that name, it is in use, or its files cannot be removed.
    pub fn remove(&self, name: &str, in_use: impl FnOnce(&Path) -> bool) -> Result<(), ImageError> {
        let folder = self.folder(name)?;
        if !folder.join(manifest::FILE).is_file() {
            return Err(ImageError::NotFound {
                name: name.to_owned(),
                manifest: folder.join(manifest::FILE),
            });
        }
        if in_use(&folder) {
            return Err(ImageError::InUse(name.to_owned()));
        }
        // Away at once: nobody takes an image that is half there.
        let gone = self.directory.join(format!(".removed-{name}-{}", uuid::Uuid::new_v4()));
        fs::rename(&folder, &gone).map_err(ImageError::io("removing", &folder))?;
        let removed =
            if gone.is_symlink() { fs::remove_file(&gone) } else { fs::remove_dir_all(&gone) };
        removed.map_err(ImageError::io("removing", &gone))
    }

    /// Builds an image anew and puts it here in one step; an older one stays until then. With `if_changed` one that was
    /// made from the same sources is left as it is. Takes minutes, and the network; what is said meanwhile goes to
    /// `progress`, line by line.
    ///
    /// # Errors
    /// When there is no such recipe, or with the last lines that were said.
    pub fn build(
        &self,
        name: &str,
        sources: &Sources,
        if_changed: bool,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Arc<Image>, ImageError> {
        self.folder(name)?;
        let failed = |why: String| ImageError::Build { name: name.to_owned(), why };
        if *sources == Sources::Embedded && !Sources::names().contains(&name) {
            return Err(failed(format!(
                "there is no recipe; there are {}",
                Sources::names().join(", ")
            )));
        }
        fs::create_dir_all(&self.directory).map_err(ImageError::io("making", &self.directory))?;
        let scratch = self.directory.join(format!(".sources-{}", uuid::Uuid::new_v4()));
        let built = sources
            .lay_out(&scratch)
            .map_err(ImageError::io("writing", &scratch))
            .and_then(|folder| {
                process::build(&folder, name, &self.directory, if_changed, progress).map_err(failed)
            });
        // Where nothing was laid out there is nothing to remove.
        let _ = fs::remove_dir_all(&scratch);
        built?;
        self.get(name)
    }

    fn folder(&self, name: &str) -> Result<PathBuf, ImageError> {
        if manifest::is_name(name) {
            Ok(self.directory.join(name))
        } else {
            Err(ImageError::Name(name.to_owned()))
        }
    }

    fn read(&self, name: &str) -> Result<(PathBuf, Manifest), ImageError> {
        let folder = self.folder(name)?;
        Manifest::read(&folder, name).map(|manifest| (folder, manifest))
    }
}

/// Whether a virtual machine runs on this host that was started from files of `folder`, or is lent as a machine of an
/// image of this name, as far as this user can see. A clone opens its snapshot alone, so that its command line does not tell.
#[must_use]
pub fn runs_from(folder: &Path) -> bool {
    let canonical = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let start = [canonical.as_os_str().as_bytes(), b"/"].concat();
    let name = folder.file_name().unwrap_or_default();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.map(|process| process.path()).any(|process| {
        fs::read(process.join("cmdline")).is_ok_and(|cmdline| {
            is_virtual_machine(&cmdline)
                && (names(&cmdline, &start) || image_of(&process).is_some_and(|it| *name == *it))
        })
    })
}

/// Whether a command line, whose words end with NUL, is a virtual machine's.
fn is_virtual_machine(cmdline: &[u8]) -> bool {
    let program = cmdline.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    program.starts_with(b"qemu-system")
}

/// Whether it names something that starts so.
fn names(cmdline: &[u8], start: &[u8]) -> bool {
    cmdline.windows(start.len()).any(|part| part == start)
}

/// The image of the machine that is lent from the folder in which a process works.
fn image_of(process: &Path) -> Option<String> {
    let directory = fs::read_link(process.join("cwd")).ok()?;
    Some(Record::read(&directory).ok()??.image)
}

/// The sum that clients are told: of the ISO or disk; of a kernel without an ISO beside it, that of the line
/// `KERNEL-SUM INITRD-SUM`.
fn told(manifest: &Manifest) -> String {
    let sum = |file: &str| manifest.sums.get(file).cloned().unwrap_or_default();
    match &manifest.kind {
        Kind::Kernel { iso: Some(file), .. } | Kind::Iso(file) | Kind::Disk { disk: file, .. } => {
            sum(file)
        }
        Kind::Kernel { kernel, initrd, iso: None, .. } => {
            sums::sum_of_text(&format!("{} {}\n", sum(kernel), sum(initrd)))
        }
    }
}

#[cfg(test)]
mod tests;
