//! Begins the log file anew when it has so many lines, and keeps what it held in an archive where that is wanted.
//!
//! Invariant: a file is emptied only when its archive is whole and on the disk. What fails is tried again after as many
//! lines more, not at each line. The file itself stays, so that whoever else writes to it goes on to.
//! Not here: what is written.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use rawzip::{CompressionMethod, ZipArchiveWriter};

use crate::config::LogRotation;

/// Archives of one second, at the most.
const SAME_SECOND_MAX: u32 = 1000;
const READ_BYTES: usize = 64 << 10;

/// How long the file is and may be.
#[derive(Debug)]
pub(super) struct Rotation {
    settings: LogRotation,
    lines: u64,
    /// It is due at so many lines.
    due_at: u64,
}

impl Rotation {
    pub(super) fn new(settings: LogRotation) -> Self {
        let due_at = settings.lines_max;
        Self { settings, lines: 0, due_at }
    }

    /// Counts the lines of the file at `path`. One that cannot be read is taken for an empty one.
    pub(super) fn begin(&mut self, path: &Path) {
        self.lines = File::open(path).and_then(count_lines).unwrap_or(0);
        self.due_at = self.settings.lines_max;
    }

    /// Counts what was written.
    pub(super) fn count(&mut self, bytes: &[u8]) {
        self.lines = self.lines.saturating_add(lines_of(bytes));
    }

    /// Begins `file`, which is the one at `path`, anew if it is long enough; `None` when it is not.
    pub(super) fn rotate_if_due(&mut self, path: &Path, file: &File) -> Option<io::Result<()>> {
        if self.lines < self.due_at {
            return None;
        }
        let kept = match &self.settings.archive {
            Some(folder) => archive(path, folder),
            None => Ok(()),
        };
        let outcome = kept.and_then(|()| file.set_len(0));
        match outcome {
            Ok(()) => (self.lines, self.due_at) = (0, self.settings.lines_max),
            Err(_) => self.due_at = self.lines.saturating_add(self.settings.lines_max),
        }
        Some(outcome)
    }
}

fn lines_of(bytes: &[u8]) -> u64 {
    let count = bytes.iter().filter(|byte| **byte == b'\n').count();
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn count_lines(mut file: File) -> io::Result<u64> {
    let mut piece = vec![0; READ_BYTES];
    let mut lines = 0_u64;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(lines),
            count => lines = lines.saturating_add(lines_of(&piece[..count])),
        }
    }
}

/// Writes what is at `path` to a new archive in `folder`.
fn archive(path: &Path, folder: &Path) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(named)?;
    let (unfinished, finished) = free_names(folder)?;
    let written =
        write_archive(path, &unfinished).and_then(|()| fs::rename(&unfinished, &finished));
    written.map_err(|error| {
        // What is half written is of no use.
        let _ = fs::remove_file(&unfinished);
        named(error)
    })
}

fn write_archive(path: &Path, archive: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut writer = ZipArchiveWriter::new(BufWriter::new(File::create(archive)?));
    let started = writer.new_file(&name).compression_method(CompressionMethod::DEFLATE).start();
    let (mut entry, config) = started.map_err(io::Error::other)?;
    let mut packed = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
    io::copy(&mut File::open(path)?, &mut packed)?;
    let (encoder, descriptor) = packed.finish().map_err(io::Error::other)?;
    encoder.finish()?;
    entry.finish(descriptor).map_err(io::Error::other)?;
    let file = writer.finish().map_err(io::Error::other)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// A name for an archive of now that is not taken, before and after it is whole.
fn free_names(folder: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let now = jiff::Zoned::now().strftime("%Y-%m-%d_%H-%M-%S").to_string();
    let names = (1..=SAME_SECOND_MAX).map(|count| match count {
        1 => format!("archived_{now}.zip"),
        count => format!("archived_{now}_{count}.zip"),
    });
    let free = names.map(|name| folder.join(name)).find(|path| !path.exists());
    let finished = free.ok_or_else(|| io::Error::from(io::ErrorKind::AlreadyExists))?;
    let mut unfinished = finished.clone().into_os_string();
    unfinished.push(".new");
    Ok((unfinished.into(), finished))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::io::{Read as _, Write as _};
    use std::path::{Path, PathBuf};

    use super::Rotation;
    use crate::config::LogRotation;

    /// A log file that is written through a rotation.
    struct Log {
        path: PathBuf,
        file: File,
        rotation: Rotation,
    }

    impl Log {
        fn new(folder: &Path, before: &str, archive: Option<PathBuf>) -> Self {
            let path = folder.join("server.txt");
            fs::write(&path, before).unwrap();
            let file = OpenOptions::new().append(true).open(&path).unwrap();
            let mut rotation = Rotation::new(LogRotation { lines_max: 4, archive });
            rotation.begin(&path);
            Self { path, file, rotation }
        }

        /// Writes a line; whether the file was begun anew, or should have been.
        fn write(&mut self, line: &str) -> Option<bool> {
            self.file.write_all(line.as_bytes()).unwrap();
            self.rotation.count(line.as_bytes());
            self.rotation.rotate_if_due(&self.path, &self.file).map(|outcome| outcome.is_ok())
        }
    }

    fn archives(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
        found.sort();
        found
    }

    fn unpacked(archive: &Path) -> String {
        let bytes = fs::read(archive).unwrap();
        let archive = rawzip::ZipArchive::from_slice(&bytes).unwrap();
        let entry = archive.entries().next_entry().unwrap().unwrap();
        assert_eq!(entry.file_path().try_normalize().unwrap().as_ref(), "server.txt");
        let packed = archive.get_entry(entry.wayfinder()).unwrap();
        let unpacking = flate2::bufread::DeflateDecoder::new(packed.data());
        let mut text = String::new();
        packed.verifying_reader(unpacking).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_file_of_so_many_lines_is_archived_and_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("made/archive");
        let mut log = Log::new(folder.path(), "1\n2\n", Some(archive.clone()));
        assert_eq!(log.write("3\n"), None);
        assert_eq!(log.write("4\n"), Some(true));
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "");
        let first = archives(&archive);
        let name = first[0].file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("archived_2") && name.ends_with(".zip"), "{name}");
        assert_eq!(unpacked(&first[0]), "1\n2\n3\n4\n");
        // The next ones have names of their own, also within the same second.
        assert_eq!(log.write("5\n6\n7\n8\n9\n"), Some(true));
        let second = archives(&archive);
        assert_eq!(second.len(), 2);
        let held: Vec<String> = second.iter().map(|path| unpacked(path)).collect();
        assert!(held.contains(&"5\n6\n7\n8\n9\n".to_owned()), "{held:?}");
        assert_eq!(log.write("10\n"), None);
    }

    #[test]
    fn what_is_not_to_be_kept_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(folder.path(), "1\n2\n3\n4\n5\n", None);
        assert_eq!(log.write("6\n"), Some(true));
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "");
        assert_eq!(archives(folder.path()), [log.path]);
    }

    #[test]
    fn a_file_whose_archive_fails_goes_on_and_is_tried_again_later() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("archive");
        fs::write(&archive, "no folder").unwrap();
        let mut log = Log::new(folder.path(), "1\n2\n3\n", Some(archive.clone()));
        assert_eq!(log.write("4\n"), Some(false));
        assert_eq!(log.write("5\n"), None);
        assert_eq!(log.write("6\n7\n"), None);
        fs::remove_file(&archive).unwrap();
        assert_eq!(log.write("8\n"), Some(true));
        assert_eq!(unpacked(&archives(&archive)[0]), "1\n2\n3\n4\n5\n6\n7\n8\n");
    }
}
