//! The encrypted protocol by which clients ask for machines: three generations of it, both sides, as state machines.
//!
//! Invariant: nothing here does I/O or waits. Bytes are fed in as they come, in pieces of any size; what is to be sent is
//! taken out; RSA operations, which take milliseconds, are handed out as [`Unlock`] for a thread of their own. No length
//! that a peer claims is believed before it is compared with a limit.
//! Not here: what a verb does, time limits and addresses.
//!
//! The protocol is for existing clients. AES-CBC comes without a MAC and nobody is authenticated: it hides requests from
//! who only listens, no more. The server answers with an AES key of its own, so that a recorded connection cannot be
//! played back.

mod cipher;
mod client;
mod errors;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keys;
mod message;
mod packet;
mod parameters;
mod server;
#[cfg(test)]
mod tests;

pub use client::{ClientSide, Progress};
pub use errors::Errors;
pub use frame::Generation;
pub use keys::{KeyError, KeyPair, PublicKey};
pub use message::{
    ACCESS_TOKEN, Complaint, REQUEST_VERB_CREATE, REQUEST_VERB_DESTROY, REQUEST_VERB_STAT,
    RESPONSE_MSG_BAD_AUTH, RESPONSE_MSG_BAD_REQ, RESPONSE_MSG_INTERNAL_ERROR, RESPONSE_MSG_OK,
    RESPONSE_MSG_REFUSED_REQ, RESPONSE_MSG_UNAVAILABLE, Request, Response, Unreadable, is_verb,
};
pub use parameters::{Create, Destroy};
pub use server::{Next, ServerSide, Unlock, Unlocked};

/// The longest PEM of a public key that is read, in bytes. The longest that can be meant, 16384 bits, has 2880.
pub const KEY_BYTES_MAX: u64 = 16 << 10;
/// The longest request, encrypted, in bytes.
pub const REQUEST_BYTES_MAX: u64 = 1 << 20;
/// The longest answer that a client reads and a server sends, encrypted, in bytes.
pub const RESPONSE_BYTES_MAX: u64 = 16 << 20;
/// Bytes that a peer may have sent before it is their turn.
pub const SURPLUS_BYTES_MAX: usize = 4 << 10;

/// Why a connection ends without an answer. The text is for logs; it holds nothing that the peer sent but numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The announced length is not a number, not above 0 or above what is allowed.
    Length(&'static str),
    /// The public key cannot be used.
    Key(KeyError),
    /// The peer did not confirm this step by `1`.
    NotConfirmed(&'static str),
    /// The AES key did not decrypt, or is not one.
    Block,
    /// Bytes came that nobody asked for.
    Surplus,
    /// The answer is longer than the protocol can say.
    TooLong,
    /// The server's key is not the expected one.
    Stranger,
    /// An answer of the server that is none.
    Response(&'static str),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length(what) => write!(f, "the length of {what} is not one that is allowed"),
            Self::Key(error) => write!(f, "the public key: {error}"),
            Self::NotConfirmed(what) => write!(f, "{what} was not confirmed"),
            Self::Block => f.write_str("the AES key did not decrypt, or is not one"),
            Self::Surplus => f.write_str("bytes came that nobody asked for"),
            Self::TooLong => f.write_str("the answer is longer than the protocol can say"),
            Self::Stranger => f.write_str("the server's key is not the expected one"),
            Self::Response(why) => write!(f, "the answer {why}"),
        }
    }
}

impl std::error::Error for Refusal {}
