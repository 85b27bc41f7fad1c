//! Images that machines are started from: a folder with a manifest, or a bare ISO file.

use std::path::PathBuf;

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
