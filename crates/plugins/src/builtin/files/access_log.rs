//! The access log in Common Log Format, written by a thread of its own.
//!
//! Invariant: a request never waits for the log. A full queue or a full disk loses lines, counts them,
//! and says so once in a while; the log goes on when there is room again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode, Version};
use jiff::tz::TimeZone;

/// How many lines may wait for the disk.
const LINES_MAX: usize = 4096;

/// How long the end of the server waits for the last lines.
const LAST_LINES_MAX: Duration = Duration::from_secs(1);

/// One answered request.
#[derive(Debug, Clone)]
pub struct AccessLine {
    /// Who asked.
    pub ip: IpAddr,
    /// How.
    pub method: Method,
    /// Path and query as they came.
    pub target: String,
    /// The protocol's version.
    pub version: Version,
    /// The answer's status.
    pub status: StatusCode,
    /// The length of the answer's body, in bytes.
    pub bytes: u64,
    /// When the request came.
    pub time: SystemTime,
}

/// The door to the writing thread; dropping it waits (not for long) for the last lines.
#[derive(Debug)]
pub(super) struct AccessLog {
    /// `None` only while dropping.
    lines: Option<SyncSender<AccessLine>>,
    lost: Arc<AtomicU64>,
    ended: Mutex<Receiver<()>>,
}

impl AccessLog {
    /// Opens the file for appending and starts the writer.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let writer = Writer { file: append(&path)?, path, partial: false };
        let (lines, queue) = sync_channel(LINES_MAX);
        let (ended_tx, ended) = sync_channel(1);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            writer.run(&queue, &counter);
            drop(ended_tx);
        })?;
        Ok(Self { lines: Some(lines), lost, ended: Mutex::new(ended) })
    }

    pub(super) fn write(&self, line: AccessLine) {
        let full = self.lines.as_ref().is_none_or(|lines| lines.try_send(line).is_err());
        if full {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        // Disconnected means ended; a disk that hangs is not waited for.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _: Result<(), RecvTimeoutError> = ended.recv_timeout(LAST_LINES_MAX);
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    /// Did the last write stop within a line?
    partial: bool,
}

impl Writer {
    fn run(mut self, queue: &Receiver<AccessLine>, lost: &AtomicU64) {
        let mut batch = String::new();
        let mut told = 0;
        while let Ok(line) = queue.recv() {
            let mut count = 0;
            batch.clear();
            for line in std::iter::once(line).chain(queue.try_iter()).take(LINES_MAX) {
                count += 1;
                append_line(&mut batch, &line, &TimeZone::system());
            }
            if let Err(error) = self.write(&batch) {
                let lost = lost.fetch_add(count, Ordering::Relaxed) + count;
                // A full disk must not fill the other log.
                if lost >= told * 2 {
                    told = lost.max(1);
                    tracing::warn!(%error, lost, path = %self.path.display(), "access log: lines lost");
                }
            }
        }
    }

    fn write(&mut self, batch: &str) -> io::Result<()> {
        self.follow_rotation()?;
        if self.partial {
            self.file.write_all(b"\n")?;
        }
        self.partial = true;
        self.file.write_all(batch.as_bytes())?;
        self.partial = false;
        Ok(())
    }

    /// Goes on in a new file when the old one was moved away.
    fn follow_rotation(&mut self) -> io::Result<()> {
        let ours = self.file.metadata()?;
        let same = std::fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if !same {
            self.file = append(&self.path)?;
            self.partial = false;
        }
        Ok(())
    }
}

fn append(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn append_line(batch: &mut String, line: &AccessLine, zone: &TimeZone) {
    use std::fmt::Write;
    let time = jiff::Timestamp::try_from(line.time).unwrap_or_default().to_zoned(zone.clone());
    // Writing to a String cannot fail.
    let _ = write!(batch, "{} - - [{}] \"", line.ip, time.strftime("%d/%b/%Y:%H:%M:%S %z"));
    append_escaped(batch, line.method.as_str());
    batch.push(' ');
    append_escaped(batch, &line.target);
    let _ = writeln!(batch, " {:?}\" {} {}", line.version, line.status.as_u16(), line.bytes);
}

/// Nobody writes a line of his own into the log.
fn append_escaped(batch: &mut String, text: &str) {
    use std::fmt::Write;
    for c in text.chars() {
        match c {
            '"' | '\\' => batch.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(batch, "\\x{:02x}", u32::from(c));
            }
            c => batch.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(target: &str) -> AccessLine {
        AccessLine {
            ip: IpAddr::from([192, 0, 2, 7]),
            method: Method::GET,
            target: target.to_owned(),
            version: Version::HTTP_11,
            status: StatusCode::OK,
            bytes: 2326,
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(971_211_336),
        }
    }

    #[track_caller]
    fn check(target: &str, expected: &str) {
        let mut batch = String::new();
        append_line(&mut batch, &line(target), &TimeZone::fixed(jiff::tz::offset(-7)));
        assert_eq!(batch, format!("192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] {expected}\n"));
    }

    #[test]
    fn a_line_is_in_common_log_format() {
        check("/a.gif?b=1", "\"GET /a.gif?b=1 HTTP/1.1\" 200 2326");
    }

    #[test]
    fn a_target_cannot_forge_a_line() {
        check("/\" 200\n", "\"GET /\\\" 200\\x0a HTTP/1.1\" 200 2326");
    }

    #[test]
    fn all_lines_are_there_after_the_log_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let log = AccessLog::open(path.clone()).unwrap();
        for _ in 0..100 {
            log.write(line("/x"));
        }
        assert_eq!(log.lost(), 0);
        drop(log);
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 100);
    }

    #[test]
    fn a_log_that_was_moved_away_is_begun_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut writer =
            Writer { file: append(&path).unwrap(), path: path.clone(), partial: false };
        writer.write("one\n").unwrap();
        fs::rename(&path, directory.path().join("old.log")).unwrap();
        writer.write("two\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "two\n");
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let Ok(file) = OpenOptions::new().append(true).open("/dev/full") else { return };
        let (sender, queue) = sync_channel(8);
        sender.send(line("/x")).unwrap();
        sender.send(line("/y")).unwrap();
        drop(sender);
        let lost = AtomicU64::new(0);
        Writer { path: "/dev/full".into(), file, partial: false }.run(&queue, &lost);
        assert_eq!(lost.load(Ordering::Relaxed), 2);
    }
}
