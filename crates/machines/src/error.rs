//! Why a machine cannot be had, or what was asked of it not be done.

use crate::hypervisor::HypervisorError;

/// What went wrong. Doors decide how to say it; the text is for people and names no secret.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// All places are taken.
    #[error("all {max} places for machines are taken")]
    NoCapacity {
        /// How many there are.
        max: usize,
    },
    /// Who asks has as many as allowed.
    #[error("{owner} has {max} machines, which is the most allowed")]
    Quota {
        /// Who asks.
        owner: String,
        /// How many are allowed.
        max: usize,
    },
    /// No free port is left in the range.
    #[error("no port from {first} to {last} is free")]
    NoPort {
        /// The first of the range.
        first: u16,
        /// The last of the range.
        last: u16,
    },
    /// There is no such machine.
    #[error("no such machine")]
    NotFound,
    /// The machine is somebody else's.
    #[error("the token is not this machine's")]
    WrongToken,
    /// The order asks for what cannot be.
    #[error("{0}")]
    Order(String),
    /// The image cannot be used.
    #[error("image {name}: {why}")]
    Image {
        /// Which.
        name: String,
        /// Why not.
        why: String,
    },
    /// The virtual machine could not be had.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// The guest was there and its user could not be made.
    #[error("the guest could not be set up: {0}")]
    SetUp(String),
    /// The machine ended while it was being started.
    #[error("the machine ended while it was being started: {0}")]
    Ended(String),
    /// A file of ours failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done, and to which path.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The server ends.
    #[error("the server is stopping and starts no machines")]
    Closing,
}
