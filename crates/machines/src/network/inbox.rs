//! Cuts the bytes that come from QEMU into frames.
//!
//! Invariant: holds at most [`INBOX_BYTES`], whatever lengths are announced. Not here: what a frame means.

use std::io;
use std::ops::Range;

/// Bytes read at once, and the most that is kept.
const INBOX_BYTES: usize = 64 * 1024;
/// The longest frame that is looked at: Ethernet's header, a tag and 1500 bytes. Longer ones are skipped.
const FRAME_BYTES_MAX: usize = 1518;
/// The longest frame that QEMU passes on (its `NET_BUFSIZE`); a longer claim is not QEMU's.
const CLAIM_BYTES_MAX: usize = 4096 + 65536;
/// Each frame follows its length, big-endian.
const LENGTH_BYTES: usize = 4;

/// What was read and not yet handed on.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of a frame that is too long, still to come.
    skip: usize,
}

impl Inbox {
    /// Room to read into; never empty after [`Inbox::next`] has returned `None`.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes = vec![0; INBOX_BYTES];
        }
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.bytes[self.end..]
    }

    /// Counts bytes that were read into [`Inbox::room`].
    pub(super) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Where the next frame lies in [`Inbox::frame`]; `None` until more is read.
    ///
    /// # Errors
    /// When a length is announced that QEMU never announces.
    pub(super) fn next(&mut self) -> io::Result<Option<Range<usize>>> {
        loop {
            let skipped = self.skip.min(self.end - self.start);
            self.start += skipped;
            self.skip -= skipped;
            let held = &self.bytes[self.start..self.end];
            let Some((length, rest)) = held.split_first_chunk::<LENGTH_BYTES>() else {
                return Ok(None);
            };
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length > CLAIM_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a frame of {length} bytes was announced, which QEMU never does"),
                ));
            }
            if length > FRAME_BYTES_MAX {
                self.start += LENGTH_BYTES;
                self.skip = length;
                continue;
            }
            if rest.len() < length {
                return Ok(None);
            }
            let first = self.start + LENGTH_BYTES;
            self.start = first + length;
            return Ok(Some(first..first + length));
        }
    }

    /// The bytes of a frame.
    pub(super) fn frame(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Gives the memory back where nothing is held.
    pub(super) fn release(&mut self) {
        if self.start == self.end {
            *self = Self { skip: self.skip, ..Self::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `piece`, and returns the frames' lengths and whether the end was an error.
    fn check(bytes: &[u8], piece: usize, expected: &[usize], fails: bool) {
        let mut inbox = Inbox::default();
        let mut seen = Vec::new();
        let mut failed = false;
        'all: for part in bytes.chunks(piece) {
            inbox.room()[..part.len()].copy_from_slice(part);
            inbox.filled(part.len());
            loop {
                match inbox.next() {
                    Ok(Some(range)) => seen.push(inbox.frame(range).len()),
                    Ok(None) => break,
                    Err(_) => {
                        failed = true;
                        break 'all;
                    }
                }
            }
            assert!(!inbox.room().is_empty());
        }
        assert_eq!((seen.as_slice(), failed), (expected, fails), "in pieces of {piece}");
    }

    fn frames(lengths: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for length in lengths {
            bytes.extend(length.to_be_bytes());
            bytes.extend(std::iter::repeat_n(7, usize::try_from(*length).unwrap()));
        }
        bytes
    }

    #[test]
    fn frames_come_whole_however_they_are_split() {
        let bytes = frames(&[60, 0, 1514, 1518, 1, 42]);
        for piece in [1, 3, 4, 5, 61, 1000, 65536] {
            check(&bytes, piece, &[60, 0, 1514, 1518, 1, 42], false);
        }
    }

    #[test]
    fn a_frame_too_long_is_skipped_and_the_next_one_is_seen() {
        let bytes = frames(&[60, 1519, 61, 69_632, 62]);
        for piece in [1, 7, 1523, 65_536] {
            check(&bytes, piece, &[60, 61, 62], false);
        }
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        for length in [69_633, 0x8000_0000, u32::MAX] {
            let mut bytes = frames(&[60]);
            bytes.extend(length.to_be_bytes());
            check(&bytes, 3, &[60], true);
        }
    }

    #[test]
    fn memory_is_given_back_only_where_nothing_is_held() {
        let mut inbox = Inbox::default();
        inbox.room()[..2].copy_from_slice(&[0, 0]);
        inbox.filled(2);
        inbox.release();
        assert_eq!((inbox.end, inbox.bytes.len()), (2, INBOX_BYTES));
        inbox.start = 2;
        inbox.release();
        assert_eq!(inbox.bytes.capacity(), 0);
        assert!(inbox.next().unwrap().is_none());
    }
}
