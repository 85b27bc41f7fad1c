//! The server's log: lines for an operator, on standard error or in a file.
//!
//! Invariant: logging never holds up a request. Lines go through a bounded queue to one thread; when the
//! disk is full or slow they are dropped and counted, and the count is the first line that fits again.

pub(crate) mod rarely;
mod rotation;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{Registry, reload};

use crate::config::{Level, Log, LogFormat};
use rotation::Rotation;

/// How long the end of the process waits for its last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Lines that may wait.
const QUEUE_LINES: usize = 8192;

enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it has been written.
    Flush(SyncSender<()>),
}

/// What can be changed while the server runs.
#[derive(Clone)]
pub struct Handle {
    level: reload::Handle<LevelFilter, Registry>,
    queue: SyncSender<Message>,
    reopen: Arc<AtomicBool>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("log::Handle")
    }
}

impl Handle {
    /// Leaves out what is more detailed than `level` from now on.
    pub fn set_level(&self, level: Level) {
        // It fails only when the subscriber is gone, and then nobody logs.
        let _ = self.level.modify(|filter| *filter = filter_of(level));
    }

    /// Opens the file again before the next line: it may have been moved away by a log rotation.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Waits, not for long, until what was logged is written.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        // A full queue is one that nobody writes down: whoever reads our output may have stopped.
        while let Err(TrySendError::Full(back)) = self.queue.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = written.recv_timeout(FLUSH_TIMEOUT);
    }
}

fn filter_of(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warning => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    }
}

/// Starts logging as `settings` say. Once per process.
///
/// # Errors
/// When the file cannot be opened.
pub fn start(settings: &Log) -> io::Result<Handle> {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let target = Target::open(settings)?;
    let is_terminal = settings.file.is_none() && io::stderr().is_terminal();
    let (queue, lines) = sync_channel(QUEUE_LINES);
    let lost = Arc::new(AtomicU64::new(0));
    let reopen = Arc::new(AtomicBool::new(false));
    let writer = Writer { queue: queue.clone(), lost: Arc::clone(&lost) };
    std::thread::Builder::new().name("log".into()).spawn({
        let reopen = Arc::clone(&reopen);
        move || target.write_all(&lines, &lost, &reopen)
    })?;
    let (filter, level) = reload::Layer::new(filter_of(settings.level));
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in one process (tests of a library) keeps the first one's subscriber.
    let _ = match settings.format {
        LogFormat::Text => registry
            .with(tracing_subscriber::fmt::layer().with_ansi(is_terminal).with_writer(writer))
            .try_init(),
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer))
            .try_init(),
    };
    Ok(Handle { level, queue, reopen })
}

/// The one that writes.
struct Target {
    /// Without it lines go to standard error.
    file: Option<(PathBuf, File)>,
    /// Where the file is begun anew now and then.
    rotation: Option<Rotation>,
    to_stdout: bool,
}

impl Target {
    fn open(settings: &Log) -> io::Result<Self> {
        let file = settings.file.as_deref().map(|path| {
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            };
            Ok::<_, io::Error>((path.to_owned(), open(path).map_err(named)?))
        });
        let rotation = settings.rotation.clone().filter(|_| file.is_some()).map(Rotation::new);
        Ok(Self { file: file.transpose()?, rotation, to_stdout: settings.to_stdout })
    }

    fn write_all(mut self, lines: &Receiver<Message>, lost: &AtomicU64, reopen: &AtomicBool) {
        self.begin();
        while let Ok(message) = lines.recv() {
            if reopen.swap(false, Ordering::Relaxed) {
                self.reopen();
            }
            match message {
                Message::Line(line) => {
                    if self.to_stdout {
                        // The other place has the line, whoever reads here or does not.
                        let _ = io::stdout().write_all(&line);
                    }
                    self.write_line(&line, lost);
                    self.rotate();
                }
                Message::Flush(done) => {
                    let _ = done.send(());
                }
            }
        }
    }

    /// Learns how long the file is, and begins it anew if that is long already.
    fn begin(&mut self) {
        if let (Some((path, _)), Some(rotation)) = (&self.file, &mut self.rotation) {
            rotation.begin(path);
        }
        self.rotate();
    }

    fn rotate(&mut self) {
        let (Some((path, file)), Some(rotation)) = (&self.file, &mut self.rotation) else { return };
        if let Some(Err(error)) = rotation.rotate_if_due(path, file) {
            let line =
                format!("(the log goes on in the same file: archiving it failed: {error})\n");
            let _ = self.write(line.as_bytes());
        }
    }

    fn write_line(&mut self, line: &[u8], lost: &AtomicU64) {
        let before = lost.swap(0, Ordering::Relaxed);
        if before > 0 && self.write(format!("({before} log lines were lost)\n").as_bytes()).is_err()
        {
            lost.fetch_add(before, Ordering::Relaxed);
        }
        if self.write(line).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some((_, file)) = &mut self.file else { return io::stderr().write_all(bytes) };
        file.write_all(bytes)?;
        if let Some(rotation) = &mut self.rotation {
            rotation.count(bytes);
        }
        Ok(())
    }

    /// A file that cannot be opened again leaves the old one in use.
    fn reopen(&mut self) {
        if let Some((path, file)) = &mut self.file
            && let Ok(fresh) = open(path)
        {
            *file = fresh;
            self.begin();
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[derive(Clone)]
struct Writer {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl MakeWriter<'_> for Writer {
    type Writer = Entry;

    fn make_writer(&self) -> Entry {
        Entry { line: Vec::with_capacity(256), to: self.clone() }
    }
}

/// One line on its way; it is handed over when it is complete.
struct Entry {
    line: Vec<u8>,
    to: Writer,
}

impl Write for Entry {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.line);
        if self.to.queue.try_send(Message::Line(line)).is_err() {
            self.to.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
