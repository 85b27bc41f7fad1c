//! What a plugin gets and what it gives, whatever it is made of.
//!
//! Invariant: a [`Call`] is complete: its body has been read and was within the limit.
//! Not here: who may call (the door decides), and how a Python worker is told (`python::protocol`).

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use crate::builtin::files::FileBody;
use crate::python::stream::Pieces;

/// One request to a plugin.
#[derive(Debug)]
pub struct Call {
    /// The method of the request.
    pub method: Method,
    /// Path and query as they came.
    pub uri: Uri,
    /// What follows the route: `None` for `/name`, empty for `/name/`, percent-decoded.
    pub subpath: Option<String>,
    /// The headers as they came.
    pub headers: HeaderMap,
    /// The whole body; empty when there was none.
    pub body: Bytes,
    /// The fields of a form body (urlencoded or multipart), in order.
    pub form: Option<Vec<(String, FormValue)>>,
    /// Who asks, trusted proxies taken into account.
    pub client_ip: IpAddr,
}

/// The value of a form's field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormValue {
    /// Text that was typed.
    Text(String),
    /// A file that was chosen.
    File(Bytes),
}

/// What a plugin answers.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Headers of the answer; the door adds its own.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
}

impl Reply {
    /// A whole answer with its content type.
    #[must_use]
    pub fn full(
        status: StatusCode,
        content_type: http::HeaderValue,
        body: impl Into<Bytes>,
    ) -> Self {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(http::header::CONTENT_TYPE, content_type);
        Self { status, headers, body: Body::full(body) }
    }

    /// A JSON answer.
    #[must_use]
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self::full(status, http::HeaderValue::from_static("application/json"), body.to_string())
    }
}

/// Why a call got no answer from its plugin. The door turns each into a status once.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The plugin did not answer in time.
    #[error("the plugin did not answer within {limit_secs} s")]
    TimedOut {
        /// The limit that passed, in seconds.
        limit_secs: f64,
    },
    /// The plugin's process ended while it worked on the call.
    #[error("the plugin's process ended while it worked on this request")]
    WorkerLost,
    /// The plugin has no running process now; another try may succeed.
    #[error("the plugin is not running; it is started again in {retry_secs} s")]
    Unavailable {
        /// When another try makes sense, in whole seconds.
        retry_secs: u64,
    },
    /// The plugin was taken out of service while the request was on its way to it.
    #[error("the plugin has been unloaded")]
    Unloaded,
    /// More calls wait for the plugin than it may have.
    #[error("too many requests wait for this plugin")]
    Busy,
    /// The answer is longer than an answer may be.
    #[error("the plugin's answer is longer than {limit_bytes} bytes")]
    ReplyTooLarge {
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// The file system failed under a built-in plugin.
    #[error("reading failed")]
    Io(#[from] std::io::Error),
}

/// The body of an answer: known whole, arriving in pieces, or read from a file as it is sent.
#[derive(Debug)]
pub enum Body {
    /// All of it, or nothing any more.
    Full(Option<Bytes>),
    /// Pieces from a plugin, as they come.
    Pieces(Box<Pieces>),
    /// A file, or a part of one.
    File(Box<FileBody>),
    /// Pieces that the server itself makes as it goes.
    Stream(UnsyncBoxBody<Bytes, BodyError>),
}

/// A body that broke off after its headers were sent.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct BodyError(pub String);

impl Body {
    /// A body known whole.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Full(if bytes.is_empty() { None } else { Some(bytes) })
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::Full(None)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pieces(pieces) => Pin::new(&mut **pieces).poll_piece(cx),
            Self::File(file) => Pin::new(&mut **file).poll_frame(cx),
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Pieces(_) => false,
            Self::File(file) => file.is_end_stream(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Pieces(_) => SizeHint::default(),
            Self::File(file) => file.size_hint(),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}
