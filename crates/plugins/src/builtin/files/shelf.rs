//! Where documents come from: the directory on disk, and what is kept of it in memory.
//!
//! Invariant: what is kept never answers for a file that changed since; both caches have a bound.
//! Not here: threads. Whoever asks says whether it may wait for the disk.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use quick_cache::sync::Cache;

use super::FileSettings;
use super::document::{
    About, Document, KEPT_BYTES_MAX, Weight, content_type, is_settled, read_whole,
};
use super::pages::{self, Page, PageKind};
use super::path::DocPath;
use super::root::{Kind, Miss, Patience, Root, Stamp};

/// What the small documents kept in memory may weigh together, in bytes.
pub(super) const KEPT_TOTAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// About how many that will be.
const KEPT_COUNT_GUESS: usize = 1024;

/// What the rendered pages kept in memory may weigh together, in bytes.
const PAGES_TOTAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// About how many that will be.
const PAGES_COUNT_GUESS: usize = 128;

/// How often it is looked whether the directory's name now belongs to another directory.
const ROOT_CHECK_EVERY: Duration = Duration::from_secs(1);

/// Where documents come from: the directory, and what is kept of it in memory.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) settings: FileSettings,
    root: ArcSwap<Root>,
    /// When the root was last compared with its name, in milliseconds since `began`.
    root_checked: AtomicU64,
    began: Instant,
    pub(super) kept: Cache<Box<str>, Arc<Document>, Weight>,
    made: Cache<Box<str>, Arc<Page>, pages::Weight>,
}

/// What a path led to.
pub(super) enum Found {
    /// A small document.
    Kept(Arc<Document>),
    /// One to be read as it is sent.
    Open { about: About, file: File, len: u64 },
    /// A page that has to be made first.
    Unmade { path: Box<str>, kind: PageKind },
    /// A directory asked for without its slash; here is the URL with it.
    Redirect(String),
}

impl Shelf {
    pub(super) fn new(settings: FileSettings, root: Root) -> Self {
        let kept = Cache::with_weighter(KEPT_COUNT_GUESS, KEPT_TOTAL_BYTES_MAX, Weight);
        let made = Cache::with_weighter(PAGES_COUNT_GUESS, PAGES_TOTAL_BYTES_MAX, pages::Weight);
        Self {
            settings,
            root: ArcSwap::from_pointee(root),
            root_checked: AtomicU64::new(0),
            began: Instant::now(),
            kept,
            made,
        }
    }

    /// True for one caller in each [`ROOT_CHECK_EVERY`].
    pub(super) fn root_is_due(&self) -> bool {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let checked = self.root_checked.load(Ordering::Relaxed);
        Duration::from_millis(now - checked.min(now)) >= ROOT_CHECK_EVERY
            && self
                .root_checked
                .compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Goes over to a directory that was put in the old one's place, as deployments do.
    pub(super) fn follow_directory(&self) {
        let directory: &Path = &self.settings.directory;
        if !self.root.load().is(directory)
            && let Ok(root) = Root::open(directory)
        {
            self.root.store(Arc::new(root));
        }
    }

    pub(super) fn find(&self, path: &DocPath<'_>, patience: Patience) -> Result<Found, Miss> {
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
        let Some(kind) = PageKind::of(path) else { return self.read(root, path, seen, patience) };
        match self.made.get(path) {
            Some(page) if page.is_current(root, &self.settings, seen, patience)? => {
                self.page(root, path, &page, seen, patience)
            }
            _ => Ok(Found::Unmade { path: path.into(), kind }),
        }
    }

    /// Makes a page, unless another request did meanwhile.
    pub(super) fn make(&self, path: &str, kind: PageKind) -> Result<Found, Miss> {
        let (root, patience) = (self.root.load(), Patience::Blocking);
        let Kind::File(seen) = root.look(path, patience)? else { return Err(Miss::Absent) };
        match self.file(&root, path, &seen, patience)? {
            Found::Unmade { .. } => {}
            found => return Ok(found),
        }
        let page = Arc::new(pages::make(&root, &self.settings, path, kind)?);
        if page.settled {
            self.made.insert(path.into(), Arc::clone(&page));
        }
        self.page(&root, path, &page, &seen, patience)
    }

    fn page(
        &self,
        root: &Root,
        path: &str,
        page: &Page,
        seen: &Stamp,
        patience: Patience,
    ) -> Result<Found, Miss> {
        match &page.document {
            Some(document) => Ok(Found::Kept(Arc::clone(document))),
            None => self.read(root, path, seen, patience),
        }
    }

    /// A file as it is; kept if it is small and still what was `seen`.
    fn read(
        &self,
        root: &Root,
        path: &str,
        seen: &Stamp,
        patience: Patience,
    ) -> Result<Found, Miss> {
        let (file, stamp) = root.read(path, patience)?;
        let about = About::file(content_type(path), &stamp);
        if stamp.size > KEPT_BYTES_MAX {
            return Ok(Found::Open { about, file, len: stamp.size });
        }
        let bytes = Bytes::from(read_whole(&file, &stamp, patience)?);
        let whole = bytes.len() as u64 == stamp.size;
        let document = Arc::new(Document { about, bytes, stamp, includes: Vec::new() });
        if whole && stamp == *seen && is_settled(&file, &stamp) {
            self.kept.insert(path.into(), Arc::clone(&document));
        }
        Ok(Found::Kept(document))
    }
}
