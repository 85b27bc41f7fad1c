//! One line per request, written when its answer has left.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;
use http::{Method, StatusCode, Uri};
use plugins::builtin::files::{AccessLine, FileServer};
use tokio::time::Instant;

use super::request_id::RequestId;
use crate::config::AccessLog;

/// What the line will say.
#[derive(Debug)]
pub struct Line {
    /// The request.
    pub id: RequestId,
    /// Who asked.
    pub client: IpAddr,
    /// How.
    pub method: Method,
    /// For what.
    pub uri: Uri,
    /// In which version of HTTP.
    pub version: http::Version,
    /// The answer.
    pub status: StatusCode,
    /// Bytes of its body that have left.
    pub bytes: u64,
    /// When the request's head had come.
    pub begin: Instant,
    /// The same by the clock on the wall, for the file server's own log.
    pub began_at: SystemTime,
    /// Whether it goes to the server's log.
    pub is_logged: bool,
    /// The file server that answered, for its own log.
    pub files: Option<Arc<FileServer>>,
}

/// Whether a request with this answer gets a line in the server's log.
#[must_use]
pub fn is_wanted(which: AccessLog, status: StatusCode) -> bool {
    match which {
        AccessLog::Off => false,
        AccessLog::Errors => status.is_server_error(),
        AccessLog::All => true,
    }
}

/// What a line in the log says of a request whose client left before the answer; nobody is sent it.
const CLIENT_LEFT: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

impl Line {
    /// The line of a request whose head has just come.
    #[must_use]
    pub fn begin(id: RequestId, client: IpAddr, head: &Parts, which: AccessLog) -> Box<Self> {
        Box::new(Self {
            id,
            client,
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            status: CLIENT_LEFT,
            bytes: 0,
            begin: Instant::now(),
            began_at: SystemTime::now(),
            is_logged: is_wanted(which, CLIENT_LEFT),
            files: None,
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_logged {
            // The query may hold a key, so only the path is written down.
            tracing::info!(
                target: "access",
                id = %self.id,
                client = %self.client,
                method = %self.method,
                path = self.uri.path(),
                status = self.status.as_u16(),
                bytes = self.bytes,
                micros = u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX),
            );
        }
        if let Some(files) = &self.files {
            files.log(AccessLine {
                ip: self.client,
                method: self.method.clone(),
                target: self.uri.path().to_owned(),
                version: self.version,
                status: self.status,
                bytes: self.bytes,
                time: self.began_at,
            });
        }
    }
}
