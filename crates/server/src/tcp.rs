//! The classic door: the encrypted protocol of containers, on a port of its own.
//!
//! Invariant: accepting waits for nobody. A connection costs a socket and little memory until its request is whole; it
//! has a limited time for that, and gives way to others when there are too many. RSA work is done beside, at most one
//! operation for each processor.
//! Not here: the bytes (`wire::container`) and what becomes of machines (`machines`).

pub mod access_tokens;
pub mod client;
mod connection;
pub mod events;
mod handovers;
pub mod ip_filter;
pub mod listener;
pub mod rsa_keys;
#[cfg(test)]
mod tests;
mod turns;
pub mod verbs;

use std::pin::Pin;

pub use access_tokens::AccessTokens;
pub use client::Client;
pub use events::{Event, Listening, RuntimeError};
pub use ip_filter::IpFilter;
pub use listener::{Door, DoorSettings, Statistics};
pub use verbs::{Act, Action, Answer, Call, Handler, Verbs};

/// Something that will be there later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;
