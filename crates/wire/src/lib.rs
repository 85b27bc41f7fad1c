//! Bytes and names that other programs read, and the type that keeps secrets secret.
//!
//! Invariant: nothing here does I/O, and nothing here knows a runtime.

#[cfg(feature = "container")]
pub mod container;
pub mod dispatch;
pub mod machines;
pub mod secret;

pub use secret::Secret;
