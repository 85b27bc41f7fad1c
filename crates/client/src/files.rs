//! Files that pass through the server.
//!
//! Invariant: a file is never held in memory, and what was fetched is good only if its length and,
//! where the server tells it, its checksum agree.

use std::io::{self, Read, Write};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use ureq::SendBody;
use ureq::http::Method;
use wire::dispatch::StoredFile;

use crate::call::{Patience, Route};
use crate::tasks::number;
use crate::{Client, ClientError};

/// How long a transfer may stand still.
const STALLED: Patience = Patience::Each(Duration::from_secs(60));
/// How much is copied at once.
const PIECE_BYTES: usize = 64 << 10;

/// Where a transfer stands: bytes done, and of how many where that is known.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

/// A file to give to the server.
pub struct Upload<'a> {
    /// The last part of its future address.
    pub name: &'a str,
    /// Its contents.
    pub contents: &'a mut dyn Read,
    /// How many bytes `contents` gives.
    pub bytes: u64,
    /// How many seconds it is kept.
    pub ttl_secs: Option<u64>,
    /// How often it may be fetched.
    pub uses: Option<u64>,
}

/// What a fetched file turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its length.
    pub bytes: u64,
    /// Its checksum in hexadecimal.
    pub sha256: String,
}

impl Client {
    /// Gives a file to the server.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 413 for a file that is too long.
    pub fn put_file(
        &self,
        upload: Upload<'_>,
        progress: Progress<'_>,
    ) -> Result<StoredFile, ClientError> {
        let route = Route::new("files")
            .segment(upload.name)
            .with_some("ttl", upload.ttl_secs)
            .with_some("uses", upload.uses);
        let length = upload.bytes.to_string();
        let headers =
            [("Content-Type", "application/octet-stream"), ("Content-Length", length.as_str())];
        // A file that grows meanwhile is sent as long as it was announced.
        let contents = upload.contents.take(upload.bytes);
        let mut counted = Counted { contents, done: 0, total: upload.bytes, progress };
        let body = SendBody::from_reader(&mut counted);
        self.json(Method::POST, &route, &headers, body, STALLED)
    }

    /// Writes the file at `path`, as [`StoredFile::url`] names it, to `to`.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with 404 for a file that is unknown, expired or
    /// used up; [`ClientError::Damaged`] when it is not what the server says it is;
    /// [`ClientError::NotWritten`] when `to` fails.
    pub fn get_file(
        &self,
        path: &str,
        to: &mut dyn Write,
        progress: Progress<'_>,
    ) -> Result<Fetched, ClientError> {
        let route = self.file_route(path)?;
        let response = self.send(Method::GET, &route, &[], SendBody::none(), STALLED)?;
        let total = number(response.headers(), "content-length");
        let expected = response.headers().get("x-checksum-sha256").cloned();
        let mut body = response.into_body().into_reader();
        let (mut sum, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE_BYTES]);
        loop {
            let length = match body.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(STALLED, error)),
            };
            sum.update(&piece[..length]);
            to.write_all(&piece[..length]).map_err(ClientError::NotWritten)?;
            bytes += length as u64;
            progress(bytes, total);
        }
        let sha256 = hexadecimal(&sum.finalize());
        let agrees = |expected: &ureq::http::HeaderValue| {
            expected.as_bytes().eq_ignore_ascii_case(sha256.as_bytes())
        };
        if total.is_some_and(|total| total != bytes) || !expected.as_ref().is_none_or(agrees) {
            return Err(ClientError::Damaged { path: path.to_owned() });
        }
        Ok(Fetched { bytes, sha256 })
    }

    /// Removes the file at `path`, as [`StoredFile::url`] names it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn remove_file(&self, path: &str) -> Result<(), ClientError> {
        self.done(Method::DELETE, &self.file_route(path)?)
    }

    /// `/files/ID/NAME`, or the same behind this server's own address. The key goes nowhere else.
    fn file_route(&self, path: &str) -> Result<Route, ClientError> {
        let bad = |why: &str| ClientError::BadAddress { url: path.to_owned(), why: why.to_owned() };
        let path = path.strip_prefix(&self.base_url).unwrap_or(path);
        if !path.starts_with('/') {
            return Err(bad(&format!("no file of {} is there", self.base_url)));
        }
        let mut route = Route::new("files");
        let pieces = path.strip_prefix("/files/").map(|rest| rest.split('/').collect::<Vec<_>>());
        for piece in pieces.filter(|pieces| pieces.len() == 2).unwrap_or_default() {
            let piece = percent_encoding::percent_decode_str(piece).decode_utf8_lossy();
            route = route.segment(piece);
        }
        if route.path() == "files" {
            return Err(bad("a file's address looks like /files/ID/NAME"));
        }
        Ok(route)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tells how much was read.
struct Counted<'a, R> {
    contents: R,
    done: u64,
    total: u64,
    progress: Progress<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.contents.read(buffer)?;
        if length == 0 && self.done < self.total && !buffer.is_empty() {
            return Err(io::Error::other("the file became shorter while it was sent"));
        }
        self.done += length as u64;
        (self.progress)(self.done, Some(self.total));
        Ok(length)
    }
}
