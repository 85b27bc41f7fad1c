//! Carries the write-ahead log over into the database, beside the thread that writes.
//!
//! Most of the work is done on a connection of its own, while writes go on; what came meanwhile is little, and the
//! writer carries that over itself, so that the log can begin anew. So no write waits for megabytes to be synced.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release,
};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::error::DatabaseError;
use crate::open;

/// The log is carried over when it has this many pages (4 MiB).
const PAGES: usize = 1024;
/// The writer does not wait any longer for the work beside it when the log has this many (128 MiB).
const PAGES_MAX: usize = 32 * PAGES;

/// The work beside the writer.
pub(crate) struct Checkpoints {
    /// Pages in the log, as SQLite told after the last commit.
    pub(crate) pages: Arc<AtomicUsize>,
    is_asked: bool,
    is_done: Arc<AtomicBool>,
    ask: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    pub(crate) fn start(path: &Path) -> Result<Self, DatabaseError> {
        let connection = open::for_checkpoints(path)?;
        let (ask, asked) = sync_channel(1);
        let is_done = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_done);
        let thread = std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || work(&connection, &asked, &done))
            .map_err(|error| DatabaseError::Open {
                path: path.to_owned(),
                why: error.to_string(),
            })?;
        Ok(Self {
            pages: Arc::default(),
            is_asked: false,
            is_done,
            ask: Some(ask),
            thread: Some(thread),
        })
    }

    /// Between two batches of the writer, whose connection is `own`.
    pub(crate) fn look(&mut self, own: &Connection) {
        let pages = self.pages.load(Relaxed);
        if pages < PAGES {
            return;
        }
        if self.is_asked && !self.is_done.swap(false, AcqRel) && pages < PAGES_MAX {
            return;
        }
        if self.is_asked {
            self.is_asked = false;
            carry_over(own);
            // The next commit begins the log anew, and tells so.
            self.pages.store(0, Relaxed);
        } else {
            self.is_asked = self.ask.as_ref().is_some_and(|ask| ask.try_send(()).is_ok());
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(connection: &Connection, asked: &Receiver<()>, is_done: &AtomicBool) {
    while asked.recv().is_ok() {
        carry_over(connection);
        is_done.store(true, Release);
    }
}

fn carry_over(connection: &Connection) {
    if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(PASSIVE)") {
        tracing::warn!("the write-ahead log was not carried over: {error}");
    }
}
