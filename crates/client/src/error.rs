//! Why a call brought no good answer, in words for the person who made it.
//!
//! Invariant: no variant can hold a key.

use std::path::PathBuf;
use std::time::Duration;

/// Why a call brought no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is no address of a server.
    #[error("`{url}` is not the address of a server: {why}")]
    BadAddress {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The key has characters that a header cannot carry. It is not shown.
    #[error("the key has characters that cannot be sent, such as a line end in its middle")]
    BadKey,
    /// The file of trusted certificates cannot be used.
    #[error("{}: no certificates to trust: {why}", file.display())]
    BadRoots {
        /// The file as given.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing answers at the address.
    #[error("cannot reach {url}: {why}; is the server running, and is this its address?")]
    CannotConnect {
        /// The address of the server.
        url: String,
        /// What the system or the network says.
        why: String,
    },
    /// A secure connection could not be agreed on.
    #[error(
        "no secure connection to {url}: {why}; a certificate of your own is trusted by its \
         authority's file (--ca-file)"
    )]
    NotTrusted {
        /// The address of the server.
        url: String,
        /// What is wrong with its certificate.
        why: String,
    },
    /// The server was reached, and then did not answer in time.
    #[error("{url} did not answer within {limit_secs} s")]
    TimedOut {
        /// The address of the server.
        url: String,
        /// The limit that passed, in seconds.
        limit_secs: u64,
    },
    /// The server wants a key, or another one.
    #[error("{url} refuses: {hint}")]
    Unauthorized {
        /// The address of the server.
        url: String,
        /// What may help.
        hint: &'static str,
    },
    /// The server says no, and why.
    #[error("{error} (status {status})")]
    Refused {
        /// The status of the answer.
        status: u16,
        /// The server's own words.
        error: String,
    },
    /// What answers does not speak like a Gatehouse server.
    #[error("{url} answers something unexpected: {why}; is it a Gatehouse server?")]
    Unexpected {
        /// The address that was asked.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// A fetched file is not what the server says it is.
    #[error(
        "{path} came damaged: its length or checksum is not what the server says; fetch it again"
    )]
    Damaged {
        /// The file as it was asked for.
        path: String,
    },
    /// There was no place for what was fetched.
    #[error("cannot write what was fetched: {0}")]
    NotWritten(std::io::Error),
}

impl ClientError {
    /// Whether the same call may succeed a little later: the server is away or busy.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::CannotConnect { .. }
                | Self::TimedOut { .. }
                | Self::Refused { status: 502..=504, .. }
        )
    }

    /// The error for a call that failed below HTTP.
    pub(crate) fn transport(url: &str, limit: Duration, error: ureq::Error) -> Self {
        use std::io::ErrorKind::InvalidData;
        let url = url.to_owned();
        match error {
            // A failed handshake comes as invalid data from the stream.
            ureq::Error::Io(error) if url.starts_with("https") && error.kind() == InvalidData => {
                Self::NotTrusted { url, why: error.to_string() }
            }
            ureq::Error::Rustls(error) => Self::NotTrusted { url, why: error.to_string() },
            ureq::Error::Tls(why) => Self::NotTrusted { url, why: why.to_owned() },
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                Self::CannotConnect { url, why: "nothing answers there".to_owned() }
            }
            ureq::Error::Timeout(_) => Self::TimedOut { url, limit_secs: limit.as_secs() },
            ureq::Error::BodyExceedsLimit(bytes) => {
                Self::Unexpected { url, why: format!("more than {bytes} bytes") }
            }
            error @ (ureq::Error::Protocol(_)
            | ureq::Error::Http(_)
            | ureq::Error::LargeResponseHeader(..)) => {
                Self::Unexpected { url, why: error.to_string() }
            }
            // The list is open; what is left is the way to the server.
            error => Self::CannotConnect { url, why: error.to_string() },
        }
    }
}
