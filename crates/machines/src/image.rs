//! Images that machines are started from: a folder with a manifest, or a bare ISO file.
//!
//! Invariant: an [`Image`] that was given out is, at that moment, what its manifest says: each file was summed, and is
//! summed again when it has been touched. A file is never followed out of its image's folder.
//!
//! Everything here reads and writes files and waits for them: call it where waiting is allowed.
//! Not here: what a guest does (`images/` of the repository) and who may ask.

mod manifest;
mod process;
mod sources;
mod store;
mod sums;

use std::io;
use std::path::PathBuf;

use crate::error::MachineError;

pub use sources::Sources;
pub use store::{Checked, FileState, Images, Listed, runs_from};

/// What a machine is started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// What is booted.
    pub media: Media,
    /// Whether the guest has our agent: clones of a snapshot can be given an identity of their own.
    pub has_agent: bool,
    /// How the agent takes an SSH host key.
    pub host_key: HostKeyForm,
    /// The least memory it works with, in MiB.
    pub memory_mb_min: u32,
    /// Of what is booted: 64 hexadecimal digits. Told to clients.
    pub sha256: String,
}

/// What is booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// A kernel with its initial file system, loaded directly.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// The initial file system.
        initrd: PathBuf,
        /// The kernel's command line.
        cmdline: String,
    },
    /// A CD-ROM that boots by BIOS.
    Iso(PathBuf),
    /// A qcow2 disk, which is never written: each machine has an overlay.
    Disk {
        /// The disk.
        disk: PathBuf,
        /// Whether it is told about the endpoint user by a NoCloud seed.
        nocloud: bool,
    },
}

/// The form of an SSH host key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKeyForm {
    /// Dropbear's own.
    Dropbear,
    /// OpenSSH's.
    OpenSsh,
}

/// Why an image cannot be had, or what was asked of it not be done. The text says where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is none of that name.
    #[error("image {name}: there is no {}; build it with `gatehouse image build {name}`", .manifest.display())]
    NotFound {
        /// The name.
        name: String,
        /// The manifest that would be its own.
        manifest: PathBuf,
    },
    /// It cannot be a name.
    #[error("{0:?} cannot be an image's name: 1 to 63 of a-z, 0-9 and hyphens, no hyphen first")]
    Name(String),
    /// Its manifest is wrong.
    #[error("{}: {why}", .file.display())]
    Manifest {
        /// The manifest.
        file: PathBuf,
        /// What is wrong; names the key.
        why: String,
    },
    /// A file is not what the manifest says.
    #[error(
        "image {name}: {file} is not what image.toml says: it was changed or is damaged; build the image again"
    )]
    Changed {
        /// The image.
        name: String,
        /// Its file.
        file: String,
    },
    /// Machines run from it.
    #[error("image {0} is in use; destroy its machines first")]
    InUse(String),
    /// It could not be built.
    #[error("image {name} could not be built: {why}")]
    Build {
        /// The image.
        name: String,
        /// Why not.
        why: String,
    },
    /// A file failed.
    #[error("{what} {}: {source}", .path.display())]
    Io {
        /// What was done.
        what: &'static str,
        /// To which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl ImageError {
    /// For `map_err`: what was done, and to which path.
    fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

impl From<ImageError> for MachineError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::NotFound { ref name, .. }
            | ImageError::Changed { ref name, .. }
            | ImageError::InUse(ref name)
            | ImageError::Name(ref name)
            | ImageError::Build { ref name, .. } => {
                Self::Image { name: name.clone(), why: error.to_string() }
            }
            ImageError::Manifest { file, why } => {
                Self::Image { name: file.display().to_string(), why }
            }
            ImageError::Io { what, path, source } => {
                Self::Io { what: format!("{what} {}", path.display()), source }
            }
        }
    }
}
