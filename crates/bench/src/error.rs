//! Why a measurement ended without a number.
//!
//! Invariant: none of these is ever swallowed; a load with one failed request has no result.

use std::io;

/// What went wrong, where, in words that say what to look at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// The peer does not speak the protocol, or a part of it that is not read here.
    #[error("{0}")]
    Protocol(String),
    /// The peer understood and refused, or gave something else than what is measured.
    #[error("{what}: answered {answer}")]
    Unexpected { what: &'static str, answer: String },
    #[error("{0} did not end within its time")]
    TooSlow(&'static str),
}

impl LoadError {
    /// For `map_err`: names what was being done.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: source.into() }
    }

    pub(crate) fn protocol(what: &str, bytes: &[u8]) -> Self {
        Self::Protocol(format!("{what}: {}", shown(bytes)))
    }

    pub(crate) fn unexpected(what: &'static str, answer: &[u8]) -> Self {
        Self::Unexpected { what, answer: shown(answer) }
    }
}

/// The beginning of `bytes`, printable.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 300;
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).into_owned()
}
