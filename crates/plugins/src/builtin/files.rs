//! The file server: a directory of documents, read only.
//!
//! Invariant: nothing outside the directory is ever sent (`root`), and no thread that serves others
//! waits for a disk: what the kernel has in memory is taken at once, the rest by threads that may block.
//! Not here: sockets, keys and methods other than GET and HEAD; the door answers those.
//!
//! Decided: directories are never listed; names that begin with a dot are absent, except `.well-known`;
//! what may not be read is absent too; several ranges at once get the whole document.

mod access_log;
mod answer;
mod body;
pub mod conditions;
mod document;
mod highlight;
mod magic;
mod markdown;
mod pages;
mod path;
mod root;
mod shelf;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, StatusCode, Version};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

pub use self::access_log::AccessLine;
pub use self::body::{FileBody, PIECE_BYTES_MAX};

use self::access_log::AccessLog;
use self::answer::{Source, absent, answer, redirect};
use self::document::Document;
use self::path::DocPath;
use self::root::{Miss, Patience, Root};
use self::shelf::{Found, Shelf};
use crate::call::{Call, CallError, Reply};

/// How many pages are rendered at once: each takes a processor while it lasts.
const RENDERED_AT_ONCE_MAX: usize = 2;

/// The file server's settings, as the configuration gives them.
#[derive(Debug, Clone)]
pub struct FileSettings {
    /// The first part of the path, without slashes.
    pub route: String,
    /// The directory to serve.
    pub directory: PathBuf,
    /// The name of the file that stands for its directory; usually `index.html`.
    pub index_file: String,
    /// The URL of the style sheet linked from rendered markdown.
    pub markdown_css: Option<String>,
    /// The URL of the style sheet for highlighted code (Pygments' class names).
    pub highlight_css: Option<String>,
    /// A file with `{title}`, `{markdown_css}`, `{highlight_css}` and `{mdhtml}` to put pages in.
    pub markdown_envelope: Option<PathBuf>,
    /// Where requests are logged in Common Log Format.
    pub common_log: Option<PathBuf>,
    /// Are files that a page includes logged as well?
    pub log_includes: bool,
}

/// Why the file server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum FileServerError {
    /// The directory cannot be opened.
    #[error("documents directory {path} cannot be opened")]
    Directory {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log cannot be written.
    #[error("common_log {path} cannot be opened for writing")]
    CommonLog {
        /// As configured.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Serves one directory. Cheap to call from many tasks at once.
#[derive(Debug)]
pub struct FileServer {
    shelf: Arc<Shelf>,
    /// The turn to render a page.
    renderers: Semaphore,
    log: Option<AccessLog>,
}

impl FileServer {
    /// The methods it answers; the door refuses the others.
    pub const METHODS: [Method; 2] = [Method::GET, Method::HEAD];

    /// Takes hold of the directory and opens the log.
    ///
    /// # Errors
    /// When one of them cannot be opened.
    pub fn open(settings: FileSettings) -> Result<Self, FileServerError> {
        let root = Root::open(&settings.directory).map_err(|source| {
            FileServerError::Directory { path: settings.directory.clone(), source }
        })?;
        let log = match settings.common_log.clone() {
            None => None,
            Some(path) => Some(
                AccessLog::open(path.clone())
                    .map_err(|source| FileServerError::CommonLog { path, source })?,
            ),
        };
        let renderers = Semaphore::new(RENDERED_AT_ONCE_MAX);
        Ok(Self { shelf: Arc::new(Shelf::new(settings, root)), renderers, log })
    }

    /// The first part of the path it answers to, without slashes.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.shelf.settings.route
    }

    /// Answers a GET or a HEAD.
    ///
    /// # Errors
    /// [`CallError::Io`] when the system fails under it (too many open files, a broken disk). What is
    /// absent or must not be seen is an answer: 404.
    pub async fn call(&self, call: &Call) -> Result<Reply, CallError> {
        let Some(subpath) = &call.subpath else {
            return Ok(redirect(&DocPath::root().url(self.route()), call));
        };
        let Some(path) = DocPath::parse(subpath) else { return Ok(absent()) };
        match self.find(path).await {
            Ok(Found::Redirect(location)) => Ok(redirect(&location, call)),
            Ok(Found::Kept(document)) => {
                self.log_includes(call, &document);
                Ok(answer(call, &document.about, Source::Memory(document.bytes.clone())))
            }
            Ok(Found::Open { about, file, len }) => {
                Ok(answer(call, &about, Source::Disk { file, len }))
            }
            Err(Miss::Absent) => Ok(absent()),
            Ok(Found::Unmade { .. }) | Err(Miss::WouldBlock) => {
                Err(CallError::Io(io::ErrorKind::WouldBlock.into()))
            }
            Err(Miss::Failed(error)) => Err(CallError::Io(error)),
        }
    }

    /// Notes an answered request in the access log, if there is one. Never waits: with a full queue
    /// or a full disk the line is lost and counted.
    pub fn log(&self, line: AccessLine) {
        if let Some(log) = &self.log {
            log.write(line);
        }
    }

    /// Is there an access log? If not, no line needs to be made.
    #[must_use]
    pub fn is_logging(&self) -> bool {
        self.log.is_some()
    }

    /// How many lines the access log has lost since the start.
    #[must_use]
    pub fn log_lines_lost(&self) -> u64 {
        self.log.as_ref().map_or(0, AccessLog::lost)
    }

    /// Notes the files that a page is made of, where that is wanted.
    fn log_includes(&self, call: &Call, page: &Document) {
        let (Some(log), true) = (&self.log, self.shelf.settings.log_includes) else { return };
        for (url, bytes) in &page.includes {
            log.write(AccessLine {
                ip: call.client_ip,
                method: call.method.clone(),
                target: url.clone(),
                version: Version::HTTP_11,
                status: StatusCode::OK,
                bytes: *bytes,
                time: SystemTime::now(),
            });
        }
    }

    async fn find(&self, path: DocPath<'_>) -> Result<Found, Miss> {
        let root_is_due = self.shelf.root_is_due();
        let found = if root_is_due {
            Err(Miss::WouldBlock)
        } else {
            self.shelf.find(&path, Patience::Cached)
        };
        let found = match found {
            Err(Miss::WouldBlock) => {
                let path = path.into_owned();
                self.blocking(move |shelf| {
                    if root_is_due {
                        shelf.follow_directory();
                    }
                    shelf.find(&path, Patience::Blocking)
                })
                .await
            }
            found => found,
        };
        match found {
            Ok(Found::Unmade { path, kind }) => {
                // Never closed, so there is always a turn.
                let _turn = self.renderers.acquire().await;
                self.blocking(move |shelf| shelf.make(&path, kind)).await
            }
            found => found,
        }
    }

    /// Does what may wait for the disk, or take long, on a thread that may.
    async fn blocking(
        &self,
        work: impl FnOnce(&Shelf) -> Result<Found, Miss> + Send + 'static,
    ) -> Result<Found, Miss> {
        let shelf = Arc::clone(&self.shelf);
        let worked = spawn_blocking(move || work(&shelf)).await;
        worked.map_err(|lost| Miss::Failed(io::Error::other(lost)))?
    }
}
