//! A file's bytes, read piece by piece as the connection takes them.
//!
//! Invariant: at most one piece of a body is in memory, however slow its reader is: the next is read
//! into the same buffer once the connection has let go of the last. A reading thread is needed only
//! for what the page cache does not hold.
//! Not here: which bytes are wanted (`conditions`). There is no mapping of files into memory: a file
//! cut short by somebody else would end the server.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::call::BodyError;

/// The longest piece, in bytes: long enough that system calls cost little, short enough for a CPU's
/// second-level cache.
pub const PIECE_BYTES_MAX: usize = 64 * 1024;

/// A file, or a part of one, read as it is sent.
///
/// Breaks off with an error when the file turns out shorter than it was when the answer began.
#[derive(Debug)]
pub struct FileBody {
    state: State,
    desk: Arc<Desk>,
    /// Where the next piece begins in the file.
    offset: u64,
    /// How many bytes are still to come.
    left: u64,
}

#[derive(Debug)]
enum State {
    Idle(File),
    /// The page cache did not hold it, so a thread that may block reads it.
    Reading(JoinHandle<(File, Vec<u8>, io::Result<usize>)>),
    /// Nothing more can come.
    Broken,
}

/// Where the one buffer lies while no piece is out.
#[derive(Debug, Default)]
struct Desk(Mutex<Loan>);

#[derive(Debug, Default)]
struct Loan {
    buffer: Option<Vec<u8>>,
    /// Who waits for the buffer to come back.
    waker: Option<Waker>,
}

impl Desk {
    fn loan(&self) -> MutexGuard<'_, Loan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece on its way to the socket; dropping it gives the buffer back.
struct Piece {
    buffer: Vec<u8>,
    len: usize,
    desk: Arc<Desk>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut loan = self.desk.loan();
        loan.buffer = Some(std::mem::take(&mut self.buffer));
        let waker = loan.waker.take();
        drop(loan);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl FileBody {
    /// The `len` bytes from `offset` on.
    #[must_use]
    pub fn new(file: File, offset: u64, len: u64) -> Self {
        let buffer =
            vec![0; usize::try_from(len).map_or(PIECE_BYTES_MAX, |l| l.min(PIECE_BYTES_MAX))];
        let desk = Arc::new(Desk(Mutex::new(Loan { buffer: Some(buffer), waker: None })));
        Self { state: State::Idle(file), desk, offset, left: len }
    }

    /// Hands out what was read, or says that nothing can come any more.
    fn deliver(
        &mut self,
        file: File,
        buffer: Vec<u8>,
        outcome: io::Result<usize>,
    ) -> Result<Frame<Bytes>, BodyError> {
        let len = match outcome {
            Ok(0) => Err(BodyError("the file became shorter while it was sent".to_owned())),
            Ok(len) => Ok(len),
            Err(error) => Err(BodyError(error.to_string())),
        }?;
        self.state = State::Idle(file);
        self.offset += len as u64;
        self.left -= len as u64;
        let piece = Piece { buffer, len, desk: Arc::clone(&self.desk) };
        Ok(Frame::data(Bytes::from_owner(piece)))
    }

    /// Borrows the buffer; `None` while the last piece is still out.
    fn borrow_buffer(&self, cx: &Context<'_>) -> Option<Vec<u8>> {
        let mut loan = self.desk.loan();
        let buffer = loan.buffer.take();
        if buffer.is_none() {
            loan.waker = Some(cx.waker().clone());
        }
        buffer
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        if body.left == 0 {
            return Poll::Ready(None);
        }
        loop {
            match std::mem::replace(&mut body.state, State::Broken) {
                State::Idle(file) => {
                    let Some(mut buffer) = body.borrow_buffer(cx) else {
                        body.state = State::Idle(file);
                        return Poll::Pending;
                    };
                    let (offset, wanted) = (body.offset, wanted(&buffer, body.left));
                    if let Some(outcome) = read_cached(&file, &mut buffer[..wanted], offset) {
                        return Poll::Ready(Some(body.deliver(file, buffer, outcome)));
                    }
                    body.state = State::Reading(spawn_blocking(move || {
                        let outcome = file.read_at(&mut buffer[..wanted], offset);
                        (file, buffer, outcome)
                    }));
                }
                State::Reading(mut reading) => match Pin::new(&mut reading).poll(cx) {
                    Poll::Pending => {
                        body.state = State::Reading(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok((file, buffer, outcome))) => {
                        return Poll::Ready(Some(body.deliver(file, buffer, outcome)));
                    }
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready(Some(Err(BodyError(error.to_string()))));
                    }
                },
                State::Broken => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn wanted(buffer: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()))
}

/// Reads what the page cache holds; `None` when the disk would have to be waited for.
pub(super) fn read_cached(file: &File, into: &mut [u8], offset: u64) -> Option<io::Result<usize>> {
    loop {
        return match preadv2(file, &mut [IoSliceMut::new(into)], offset, ReadWriteFlags::NOWAIT) {
            Ok(len) => Some(Ok(len)),
            Err(Errno::INTR) => continue,
            // Not cached, or a file system or kernel that cannot promise not to wait.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => None,
            Err(error) => Some(Err(error.into())),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;

    use http_body::Body;

    use super::*;

    const LEN: usize = 3 * PIECE_BYTES_MAX + 17;

    fn file() -> (File, Vec<u8>) {
        let content: Vec<u8> = (0..LEN).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (file, content)
    }

    async fn next(body: &mut FileBody) -> Option<Result<Bytes, BodyError>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test]
    async fn check_every_part_arrives_byte_for_byte() {
        for (first, len) in [(0, LEN), (0, 1), (LEN - 1, 1), (5, PIECE_BYTES_MAX), (100, LEN - 100)]
        {
            let (file, content) = file();
            let mut body = FileBody::new(file, first as u64, len as u64);
            let mut got = Vec::new();
            while let Some(piece) = next(&mut body).await {
                got.extend_from_slice(&piece.unwrap());
                assert_eq!(body.size_hint().exact(), Some((len - got.len()) as u64));
            }
            assert_eq!(got, content[first..first + len], "{first}+{len}");
            assert!(body.is_end_stream());
        }
    }

    #[tokio::test]
    async fn nothing_more_is_read_while_a_piece_is_out() {
        let (file, _) = file();
        let mut body = FileBody::new(file, 0, LEN as u64);
        let held = next(&mut body).await.unwrap().unwrap();
        let pending =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx).is_pending())).await;
        assert!(pending);
        // From another task: the waiting body must be woken, not asked again by luck.
        let waiting = async { next(&mut body).await.unwrap().unwrap() };
        let release = async {
            tokio::task::yield_now().await;
            drop(held);
        };
        let (piece, ()) = tokio::join!(waiting, release);
        assert_eq!(piece.len(), PIECE_BYTES_MAX);
    }

    #[tokio::test]
    async fn a_file_that_becomes_shorter_breaks_the_answer_off() {
        let (file, _) = file();
        let mut body = FileBody::new(file.try_clone().unwrap(), 0, LEN as u64);
        assert!(next(&mut body).await.unwrap().is_ok());
        file.set_len(10).unwrap();
        assert!(next(&mut body).await.unwrap().is_err());
        assert!(next(&mut body).await.is_none());
    }
}
