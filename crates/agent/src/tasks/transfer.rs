//! `downloadfile` and `uploadfile`.
//!
//! Invariant: a file at its place is whole and has the checksum that was told; what is not yet so
//! lies beside it under another name and goes when the download fails.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::Workshop;
use crate::digest::{Hashing, is_sha256};
use crate::running::Job;
use crate::stop::Cancel;
use crate::task::{Failure, Fields, Outcome, failed, nothing};

/// What is copied at once, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// The header by which a server tells a file's checksum.
const CHECKSUM: &str = "x-checksum-sha256";

/// Fetches `url` to `out`; checks `sha256` where the task or the server gives one.
pub(super) fn downloadfile(shop: &Workshop, job: &Job, fields: Fields<'_>) -> Outcome {
    let (url, out) = (fields.text("url")?, fields.path("out")?);
    let expected = checksum(fields)?;
    let Some(parent) = out.parent().filter(|_| !out.is_dir()) else {
        return Err(Failure::new(format!("{}: this is a directory", out.display())));
    };
    // As the system would make any file: open to whom its mask lets.
    let file = fetch(shop, job, url, parent, 0o666, expected)?;
    persist(file, &out)?;
    Ok(nothing())
}

/// The checksum that a task gives, if it gives one.
pub(super) fn checksum(fields: Fields<'_>) -> Result<Option<String>, Failure> {
    match fields.text_if_any("sha256")? {
        Some(text) if !is_sha256(text) => {
            Err(Failure::new("field 'sha256' must be 64 hexadecimal digits"))
        }
        found => Ok(found.map(str::to_ascii_lowercase)),
    }
}

/// Puts a fetched file at its place, for good.
pub(super) fn persist(file: NamedTempFile, out: &Path) -> Result<(), Failure> {
    let parent = out.parent().unwrap_or(Path::new("/"));
    file.persist(out).map_err(|error| failed(out.display())(error.error))?;
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed(parent.display()))
}

/// Fetches `url` into a new file in `dir` that goes unless it is persisted.
pub(super) fn fetch(
    shop: &Workshop,
    job: &Job,
    url: &str,
    dir: &Path,
    mode: u32,
    expected: Option<String>,
) -> Result<NamedTempFile, Failure> {
    let mut file = tempfile::Builder::new()
        .prefix(".gatehouse-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(failed(dir.display()))?;
    let response = shop.connection.download(url, shop.config.transfer_max);
    let mut response = response.map_err(|error| Failure::new(format!("the download: {error}")))?;
    let told = response.headers().get(CHECKSUM).and_then(|value| value.to_str().ok());
    let told = told.map(str::to_ascii_lowercase);
    let mut body = Hashing::new(response.body_mut().as_reader());
    copy(&mut body, &mut file, shop.config.file_bytes_max, &job.cancel)?;
    let (_, found) = body.finish();
    for wanted in [expected, told].into_iter().flatten() {
        if wanted != found {
            let msg = format!("the download has the checksum {found}, expected was {wanted}");
            return Err(Failure::new(msg));
        }
    }
    file.as_file().sync_all().map_err(failed(dir.display()))?;
    Ok(file)
}

fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    bytes_max: u64,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        if let Some(reason) = cancel.reason() {
            return Err(Failure::new(reason));
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("the download broke off")(error)),
        };
        bytes += count as u64;
        if bytes > bytes_max {
            return Err(Failure::new(format!("the file has more than {bytes_max} bytes")));
        }
        to.write_all(&buffer[..count]).map_err(failed("writing the file"))?;
    }
}

/// Gives `path` to the server to keep for a while; tells where.
pub(super) fn uploadfile(shop: &Workshop, job: &Job, fields: Fields<'_>) -> Outcome {
    let path = fields.path("path")?;
    let at = || failed(path.display());
    // Looked at before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(&path).map_err(at())?.is_file() {
        return Err(Failure::new(format!("{}: not a regular file", path.display())));
    }
    let file = File::open(&path).map_err(at())?;
    let bytes = file.metadata().map_err(at())?.len();
    let bytes_max = shop.config.file_bytes_max;
    if bytes > bytes_max {
        return Err(Failure::new(format!("the file has more than {bytes_max} bytes")));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A file that grows meanwhile is sent as long as it was.
    let content = Cancellable { inner: file.take(bytes), cancel: &job.cancel };
    let mut content = Hashing::new(content);
    let answer = shop.connection.upload(&name, &mut content, bytes, shop.config.transfer_max);
    if let Some(reason) = job.cancel.reason() {
        return Err(Failure::new(reason));
    }
    let answer = answer.map_err(|error| Failure::new(format!("the upload: {error}")))?;
    let (sent, sha256) = content.finish();
    let Some(url) = answer.get("url").and_then(Value::as_str) else {
        return Err(Failure::new("the upload: the server does not tell where the file is"));
    };
    let stored = answer.get("sha256").and_then(Value::as_str);
    if stored.is_some_and(|stored| !stored.eq_ignore_ascii_case(&sha256)) {
        return Err(Failure::new("the upload: the server has another checksum; send it again"));
    }
    Ok(json!({"url": url, "bytes": sent, "sha256": sha256}))
}

/// Reads until the task is given up.
struct Cancellable<'a, R> {
    inner: R,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.cancel.reason() {
            Some(reason) => Err(io::Error::other(reason)),
            None => self.inner.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_ends_at_its_limit_and_when_it_is_given_up() {
        let copied = |bytes_max, cancel: &Cancel| {
            copy(&mut &[0; 100][..], &mut io::sink(), bytes_max, cancel)
        };
        let cancel = Cancel::default();
        assert_eq!(copied(100, &cancel), Ok(()));
        assert!(copied(99, &cancel).is_err());
        cancel.fire("stopped");
        assert_eq!(copied(100, &cancel), Err(Failure::new("stopped")));
    }
}
