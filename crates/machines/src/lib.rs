//! Temporary virtual machines with SSH: started, lent, taken back.
//!
//! Invariant: a place, a port, a folder and a process belong to exactly one machine, and all four are given back when
//! it ends, however it ends. Nobody can log in to a machine before its identity is its own.
//!
//! Not here: HTTP, the container protocol and who may ask; doors translate, this room decides.

pub mod credentials;
pub mod error;
pub mod guest;
pub mod hypervisor;
pub mod image;
pub mod lifecycle;
pub mod machine;
pub mod manager;
pub mod network;
pub mod ports;
pub mod qemu;
pub mod record;

pub use error::MachineError;
pub use machine::{HostKey, Lent, MachineId, Order, Summary};
pub use manager::{Machines, Settings};
