//! The file server: a directory of documents, read only.
//!
//! Invariant: nothing outside the directory is ever sent (`root`), and no thread that serves others
//! waits for a disk: what the kernel has in memory is taken at once, the rest by threads that may block.
//! Not here: sockets, keys and methods other than GET and HEAD; the door answers those.
//!
//! Decided: directories are never listed; names that begin with a dot are absent, except `.well-known`;
//! what may not be read is absent too; several ranges at once get the whole document.

mod access_log;
mod body;
mod conditions;
mod document;
mod path;
mod root;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use quick_cache::sync::Cache;
use serde_json::json;
use tokio::task::spawn_blocking;

pub use self::access_log::AccessLine;
pub use self::body::{FileBody, PIECE_BYTES_MAX};

use self::access_log::AccessLog;
use self::conditions::{Verdict, judge};
use self::document::{
    About, Document, KEPT_BYTES_MAX, Weight, content_type, is_settled, read_whole,
};
use self::path::DocPath;
use self::root::{Kind, Miss, Patience, Root, Stamp};
use crate::call::{Body, Call, CallError, Reply};

/// What the small documents kept in memory may weigh together, in bytes.
const KEPT_TOTAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// About how many that will be.
const KEPT_COUNT_GUESS: usize = 1024;

/// How often it is looked whether the directory's name now belongs to another directory.
const ROOT_CHECK_EVERY: Duration = Duration::from_secs(1);

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
        Ok(Self { shelf: Arc::new(Shelf::new(settings, root)), log })
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
                Ok(answer(call, &document.about, Source::Memory(document.bytes.clone())))
            }
            Ok(Found::Open { about, file, len }) => {
                Ok(answer(call, &about, Source::Disk { file, len }))
            }
            Err(Miss::Absent) => Ok(absent()),
            Err(Miss::WouldBlock) => Err(CallError::Io(io::ErrorKind::WouldBlock.into())),
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

    async fn find(&self, path: DocPath<'_>) -> Result<Found, Miss> {
        let root_is_due = self.shelf.root_is_due();
        if !root_is_due {
            match self.shelf.find(&path, Patience::Cached) {
                Err(Miss::WouldBlock) => {}
                found => return found,
            }
        }
        let (shelf, path) = (Arc::clone(&self.shelf), path.into_owned());
        let finding = spawn_blocking(move || {
            if root_is_due {
                shelf.follow_directory();
            }
            shelf.find(&path, Patience::Blocking)
        });
        finding.await.map_err(|lost| Miss::Failed(io::Error::other(lost)))?
    }
}

/// Where documents come from: the directory, and what is kept of it in memory.
#[derive(Debug)]
struct Shelf {
    settings: FileSettings,
    root: ArcSwap<Root>,
    /// When the root was last compared with its name, in milliseconds since `began`.
    root_checked: AtomicU64,
    began: Instant,
    kept: Cache<Box<str>, Arc<Document>, Weight>,
}

/// What a path led to.
enum Found {
    /// A small document.
    Kept(Arc<Document>),
    /// One to be read as it is sent.
    Open { about: About, file: File, len: u64 },
    /// A directory asked for without its slash; here is the URL with it.
    Redirect(String),
}

impl Shelf {
    fn new(settings: FileSettings, root: Root) -> Self {
        let kept = Cache::with_weighter(KEPT_COUNT_GUESS, KEPT_TOTAL_BYTES_MAX, Weight);
        Self {
            settings,
            root: ArcSwap::from_pointee(root),
            root_checked: AtomicU64::new(0),
            began: Instant::now(),
            kept,
        }
    }

    /// True for one caller in each [`ROOT_CHECK_EVERY`].
    fn root_is_due(&self) -> bool {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let checked = self.root_checked.load(Ordering::Relaxed);
        Duration::from_millis(now - checked.min(now)) >= ROOT_CHECK_EVERY
            && self
                .root_checked
                .compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Goes over to a directory that was put in the old one's place, as deployments do.
    fn follow_directory(&self) {
        let directory: &Path = &self.settings.directory;
        if !self.root.load().is(directory)
            && let Ok(root) = Root::open(directory)
        {
            self.root.store(Arc::new(root));
        }
    }

    fn find(&self, path: &DocPath<'_>, patience: Patience) -> Result<Found, Miss> {
        let root = self.root.load();
        match root.look(&path.text, patience)? {
            Kind::Directory if !path.slash => {
                Ok(Found::Redirect(path.url(&self.settings.route) + "/"))
            }
            Kind::Directory => {
                let index = path.join(&self.settings.index_file);
                match root.look(&index, patience)? {
                    Kind::Directory => Err(Miss::Absent),
                    Kind::File(stamp) => self.file(&root, &index, &stamp, patience),
                }
            }
            Kind::File(_) if path.slash => Err(Miss::Absent),
            Kind::File(stamp) => self.file(&root, &path.text, &stamp, patience),
        }
    }

    fn file(
        &self,
        root: &Root,
        path: &str,
        seen: &Stamp,
        patience: Patience,
    ) -> Result<Found, Miss> {
        if let Some(kept) = self.kept.get(path)
            && kept.stamp == *seen
        {
            return Ok(Found::Kept(kept));
        }
        let (file, stamp) = root.read(path, patience)?;
        let about = About::file(content_type(path), &stamp);
        if stamp.size > KEPT_BYTES_MAX {
            return Ok(Found::Open { about, file, len: stamp.size });
        }
        let bytes = Bytes::from(read_whole(&file, &stamp, patience)?);
        let whole = bytes.len() as u64 == stamp.size;
        let document = Arc::new(Document { about, bytes, stamp });
        if whole && is_settled(&file, &stamp) {
            self.kept.insert(path.into(), Arc::clone(&document));
        }
        Ok(Found::Kept(document))
    }
}

/// The bytes of an answer before it is known which of them are wanted.
enum Source {
    Memory(Bytes),
    Disk { file: File, len: u64 },
}

impl Source {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk { len, .. } => *len,
        }
    }

    /// The bytes `first..first + len`, which must be there.
    fn cut(self, first: u64, len: u64) -> Body {
        match self {
            Self::Disk { file, .. } => Body::File(Box::new(FileBody::new(file, first, len))),
            Self::Memory(bytes) => {
                // What is in memory has a length that fits.
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                Body::full(bytes.slice(at(first)..at(first + len)))
            }
        }
    }
}

fn answer(call: &Call, about: &About, source: Source) -> Reply {
    let len = source.len();
    let is_head = call.method == Method::HEAD;
    let verdict = judge(&call.headers, &about.etag, about.modified, len, !is_head);
    let mut headers = about.headers.clone();
    match verdict {
        Verdict::Whole if is_head => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
            Reply { status: StatusCode::OK, headers, body: Body::empty() }
        }
        Verdict::Whole => Reply { status: StatusCode::OK, headers, body: source.cut(0, len) },
        Verdict::Part { first, last } => {
            insert_range(&mut headers, &format!("bytes {first}-{last}/{len}"));
            let body = source.cut(first, last - first + 1);
            Reply { status: StatusCode::PARTIAL_CONTENT, headers, body }
        }
        Verdict::NotModified => {
            headers.remove(CONTENT_TYPE);
            Reply { status: StatusCode::NOT_MODIFIED, headers, body: Body::empty() }
        }
        Verdict::PreconditionFailed => {
            error(StatusCode::PRECONDITION_FAILED, "the document is not the version asked for")
        }
        Verdict::Unsatisfiable => {
            let mut reply = error(StatusCode::RANGE_NOT_SATISFIABLE, "no such part");
            insert_range(&mut reply.headers, &format!("bytes */{len}"));
            reply
        }
    }
}

fn insert_range(headers: &mut HeaderMap, range: &str) {
    if let Ok(range) = HeaderValue::from_str(range) {
        headers.insert(CONTENT_RANGE, range);
    }
}

fn absent() -> Reply {
    error(StatusCode::NOT_FOUND, "not found")
}

fn error(status: StatusCode, message: &str) -> Reply {
    Reply::json(status, &json!({ "error": message }))
}

/// To the same place with a slash at the end; what follows `?` goes along.
fn redirect(location: &str, call: &Call) -> Reply {
    let location = match call.uri.query() {
        Some(query) => format!("{location}?{query}"),
        None => location.to_owned(),
    };
    let mut reply = error(StatusCode::MOVED_PERMANENTLY, "this is a directory");
    if let Ok(location) = HeaderValue::from_str(&location) {
        reply.headers.insert(LOCATION, location);
    }
    reply
}
