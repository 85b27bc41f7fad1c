//! How the answer to a request that has left hyper comes back to it (`parked`).
//!
//! Invariant: hyper writes the answer to what stands for a request as it would have written the one to the request.

use http::header::CONNECTION;
use http::request::Parts;
use http::{Method, Version};

/// What of a request decides how its answer is written, and whether the connection stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayBack {
    is_old: bool,
    keeps: bool,
}

impl WayBack {
    /// The way back of a request that has no body; others have none.
    #[must_use]
    pub fn of(head: &Parts) -> Option<Self> {
        let is_old = match head.version {
            Version::HTTP_11 => false,
            Version::HTTP_10 => true,
            _ => return None,
        };
        let says = |word: &str| {
            let lines = head.headers.get_all(CONNECTION).iter().filter_map(|it| it.to_str().ok());
            lines.flat_map(|it| it.split(',')).any(|it| it.trim().eq_ignore_ascii_case(word))
        };
        let keeps = !says("close") && (!is_old || says("keep-alive"));
        (head.method == Method::GET).then_some(Self { is_old, keeps })
    }

    /// As few bits as there are.
    #[must_use]
    pub fn bits(self) -> u8 {
        u8::from(self.is_old) | u8::from(self.keeps) << 1
    }

    /// The opposite of [`WayBack::bits`].
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self { is_old: bits & 1 != 0, keeps: bits & 2 != 0 }
    }

    /// A request whose answer hyper writes as it would have written the one to the request that left.
    #[must_use]
    pub fn head(self, is_last: bool) -> &'static [u8] {
        match (self.is_old, self.keeps && !is_last) {
            (false, true) => b"GET / HTTP/1.1\r\n\r\n",
            (false, false) => b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
            (true, true) => b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
            (true, false) => b"GET / HTTP/1.0\r\n\r\n",
        }
    }
}
