//! `/files`: one leaves a file, others fetch it.

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use plugins::builtin::files::FileBody;
use plugins::builtin::files::conditions::{Verdict, judge};
use plugins::call::Body;
use serde_json::json;

use super::refusal::Refusal;
use super::sessions::{done_by, refused_to};
use super::{Answer, Endpoint, Request, answer};
use crate::accounts::Act;
use crate::files::name::hex;
use crate::files::{FileError, FileId, FileName, Found, NewFile, Stored};
use crate::http::body;

/// The longest a file may be told to be kept, in seconds: 30 days.
pub(super) const TTL_SECS_MAX: u64 = 30 * 86_400;
/// The most often a file may be fetched.
pub(super) const USES_MAX: u32 = 1_000_000;
/// What need not be escaped in a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const X_CHECKSUM_SHA256: HeaderName = HeaderName::from_static("x-checksum-sha256");

/// The endpoint at `NAME` or `ID/NAME`.
pub(super) fn find(file: &str) -> Option<Endpoint> {
    match file.split_once('/') {
        None => Some(Endpoint::NewFile),
        Some((id, name)) if !name.contains('/') => Some(Endpoint::File(FileId::parse(id))),
        Some(_) => None,
    }
}

/// A file that was put.
pub(super) struct Put {
    stored: Stored,
    name: FileName,
    lifetime: Duration,
    uses: u32,
}

impl Put {
    /// What follows the prefix of a path to it.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.stored.id, utf8_percent_encode(self.name.as_str(), ESCAPED))
    }
}

/// Takes a file.
pub(super) async fn put(request: &mut Request<'_>) -> Answer {
    let put = store(request).await?;
    Ok(answer::json(&json!({
        "error": false,
        "url": format!("/files/{}", put.path()),
        "id": put.stored.id.to_string(),
        "bytes": put.stored.bytes,
        "sha256": hex(&put.stored.sha256),
        "expires_in": put.lifetime.as_secs(),
        "uses": put.uses,
    })))
}

/// Takes the body as a file; at no time is more than a piece of it in memory.
pub(super) async fn store(request: &mut Request<'_>) -> Result<Put, Refusal> {
    let by = request.who_may(Act::PutFile).await?;
    let name = name(request).ok_or_else(|| {
        Refusal::bad("A file's name has 1 to 255 bytes, and no slash or control character")
    })?;
    let config = &request.dispatch.config;
    let parameters = request.parameters()?;
    let ttl = parameters.secs("ttl", 1, TTL_SECS_MAX)?;
    let uses = parameters.number("uses", 1, USES_MAX)?.unwrap_or(config.file_uses);
    drop(parameters);
    let lifetime = ttl.unwrap_or(config.file_lifetime);
    let new = NewFile { name: name.clone(), lifetime, uses, by: by.account.0 };
    let stored = receive(request, new, &by.name).await;
    if stored.is_err() {
        refused_to(request, &by.name, "put file", name.as_str()).await;
    }
    Ok(Put { stored: stored?, name, lifetime, uses })
}

async fn receive(request: &mut Request<'_>, new: NewFile, by: &str) -> Result<Stored, Refusal> {
    let files = &request.dispatch.files;
    let limit_bytes = files.bytes_max();
    if request.incoming.size_hint().lower() > limit_bytes {
        return Err(FileError::TooLong { limit_bytes }.into());
    }
    let mut draft = files.begin().await?;
    while let Some(piece) = body::next_piece(request.incoming, request.policy)
        .await
        .map_err(|error| Refusal::of_body(&error))?
    {
        draft = draft.add(&piece).await?;
    }
    let what = format!("{}/{}", draft.id(), new.name.as_str());
    Ok(draft.keep(new, done_by(request, by, "put file", &what)).await?)
}

/// The last part of the path as a name.
fn name(request: &Request<'_>) -> Option<FileName> {
    let path = request.head.uri.path();
    let last = path.strip_suffix('/').unwrap_or(path).rsplit('/').next()?;
    FileName::parse(&percent_decode_str(last).decode_utf8().ok()?)
}

/// Gives or removes a file.
pub(super) async fn file(request: &mut Request<'_>, id: Option<FileId>) -> Answer {
    if request.is(&Method::GET) { give(request, id).await } else { remove(request, id).await }
}

async fn remove(request: &Request<'_>, id: Option<FileId>) -> Answer {
    let by = request.who_may(Act::Send).await?;
    let (id, name) = id.zip(name(request)).ok_or_else(Refusal::no_file)?;
    let what = format!("{id}/{}", name.as_str());
    let rider = done_by(request, &by.name, "remove file", &what);
    let removed = request.dispatch.files.remove(id, name, rider).await;
    if matches!(removed, Ok(true)) {
        return Ok(answer::ok());
    }
    refused_to(request, &by.name, "remove file", &what).await;
    removed?;
    Err(Refusal::no_file())
}

/// Gives a file, or a part of it: each answer with bytes of it is a use.
pub(super) async fn give(request: &Request<'_>, id: Option<FileId>) -> Answer {
    request.who_may(Act::GetFile).await?;
    let (id, name) = id.zip(name(request)).ok_or_else(Refusal::no_file)?;
    let files = &request.dispatch.files;
    let found = files.find(id, name.clone()).await?.ok_or_else(Refusal::no_file)?;
    let is_get = request.head.method == Method::GET;
    let etag = HeaderValue::try_from(format!("\"{}\"", hex(&found.sha256)));
    let etag = etag.map_err(|_| Refusal::no_file())?;
    let verdict = judge(&request.head.headers, &etag, None, found.bytes, is_get);
    let part = match verdict {
        Verdict::Whole => None,
        Verdict::Part { first, last } => Some((first, last)),
        Verdict::NotModified => {
            let mut answer = answer::empty();
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer.headers_mut().insert(header::ETAG, etag);
            return Ok(answer);
        }
        Verdict::PreconditionFailed => {
            let message = "The file is another than If-Match says";
            return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, message));
        }
        Verdict::Unsatisfiable => return Ok(out_of_range(found.bytes)),
    };
    if is_get && !files.spend(id).await? {
        return Err(Refusal::no_file());
    }
    Ok(content(found, &name, etag, part))
}

fn out_of_range(bytes: u64) -> Response<Body> {
    let message = "The file has no such part";
    let mut answer = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, message).response();
    insert(&mut answer, header::CONTENT_RANGE, &format!("bytes */{bytes}"));
    answer
}

/// Something to keep, not to run: whoever left it may be anybody's machine.
fn content(
    found: Found,
    name: &FileName,
    etag: HeaderValue,
    part: Option<(u64, u64)>,
) -> Response<Body> {
    let Found { file, bytes, sha256 } = found;
    let (offset, length) = part.map_or((0, bytes), |(first, last)| (first, last - first + 1));
    let body = FileBody::new(file, offset, length);
    let mut answer = Response::new(Body::File(Box::new(body)));
    let headers = answer.headers_mut();
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, octets);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::ETAG, etag);
    insert(&mut answer, X_CHECKSUM_SHA256, &hex(&sha256));
    let name = utf8_percent_encode(name.as_str(), ESCAPED);
    insert(
        &mut answer,
        header::CONTENT_DISPOSITION,
        &format!("attachment; filename*=UTF-8''{name}"),
    );
    if let Some((first, last)) = part {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        insert(&mut answer, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{bytes}"));
    }
    answer
}

fn insert(answer: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_files_are_told_apart() {
        let check = |path: &str, expected| assert_eq!(find(path), expected, "{path}");
        let id = "00112233445566778899aabbccddeeff";
        check("report.txt", Some(Endpoint::NewFile));
        check(&format!("{id}/report.txt"), Some(Endpoint::File(FileId::parse(id))));
        check("1/report.txt", Some(Endpoint::File(None)));
        check(&format!("{id}/a/b"), None);
    }
}
