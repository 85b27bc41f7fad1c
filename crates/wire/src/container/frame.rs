//! Lengths in front of messages, and bytes on their way.
//!
//! Invariant: a length is a number that was compared with a limit; a message is taken whole or not at all.

use super::Refusal;

/// Digits of a length in the clear.
pub(super) const HEADER_BYTES: usize = 8;
/// The greatest number that eight digits say.
const HEADER_NUMBER_MAX: usize = 99_999_999;
/// What confirms a step.
pub(super) const YES: u8 = b'1';
/// What refuses one.
pub(super) const NO: u8 = b'0';

/// How a client frames its messages; the server answers in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// Of the servers 1.0.0 to 2.1.2: clear lengths, one IV for all packets.
    One,
    /// Of the server 3.1.2: clear lengths, each packet brings the next IV.
    Three,
    /// Of the servers since 4.1.2: encrypted lengths, each packet brings the next IV.
    Four,
}

impl Generation {
    /// Whether its programs use the texts of the servers 1.x.
    #[must_use]
    pub fn has_old_texts(self) -> bool {
        self == Self::One
    }
}

/// `length` in eight bytes; `None` when it has more than eight digits.
pub(super) fn header(length: usize) -> Option<[u8; HEADER_BYTES]> {
    if length > HEADER_NUMBER_MAX {
        return None;
    }
    let mut header = [b'='; HEADER_BYTES];
    for (place, digit) in header.iter_mut().zip(length.to_string().bytes()) {
        *place = digit;
    }
    Some(header)
}

/// The number of a header `[0-9]{1,8}=*`; `None` when it is not one.
pub(super) fn number(header: &[u8]) -> Option<u64> {
    let end = header.iter().position(|&byte| byte == b'=').unwrap_or(header.len());
    let (digits, rest) = header.split_at(end);
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !is_number || rest.iter().any(|&byte| byte != b'=') {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A length above 0 and at most `greatest`, as one of this machine.
pub(super) fn within(
    number: Option<u64>,
    greatest: u64,
    what: &'static str,
) -> Result<usize, Refusal> {
    let fits = number.filter(|number| (1..=greatest).contains(number));
    fits.and_then(|number| usize::try_from(number).ok()).ok_or(Refusal::Length(what))
}

/// Bytes that came and were not taken yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    taken: usize,
}

impl Input {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// The next `count` bytes, once all of them are there.
    pub(super) fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let bytes = self.peek(count)?.to_vec();
        self.taken += count;
        if self.len() == 0 {
            // A megabyte of a request is not kept until the connection ends.
            *self = Self::default();
        }
        Some(bytes)
    }

    /// The same without taking them.
    pub(super) fn peek(&self, count: usize) -> Option<&[u8]> {
        self.bytes.get(self.taken..)?.get(..count)
    }

    /// Takes the peer's word on a step; `None`: it has not come yet.
    pub(super) fn take_yes(&mut self, step: &'static str) -> Option<Result<(), Refusal>> {
        let byte = self.take(1)?;
        Some(if byte == [YES] { Ok(()) } else { Err(Refusal::NotConfirmed(step)) })
    }
}

#[cfg(test)]
mod tests {
    use super::{Input, Refusal, header, number, within};

    #[test]
    fn a_header_says_a_number_and_nothing_else() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(number(text.as_bytes()), expected, "{text}");
        };
        check("800=====", Some(800));
        check("99999999", Some(99_999_999));
        check("0=======", Some(0));
        check("00000048", Some(48));
        for text in ["========", "-1======", "8 0=====", "8=0=====", "+8======", " 8======", ""] {
            check(text, None);
        }
        check("１=====", None);
        assert_eq!(number(&[b'1', 0xff, b'=', b'=', b'=', b'=', b'=', b'=']), None);
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for length in [0, 1, 48, 800, 99_999_999] {
            assert_eq!(number(&header(length).unwrap()), Some(length as u64));
        }
        assert_eq!(header(100_000_000), None);
    }

    #[test]
    fn a_length_beyond_its_limit_is_refused() {
        for number in [None, Some(0), Some(11), Some(1_000_000_000_000_000), Some(u64::MAX)] {
            assert_eq!(within(number, 10, "it"), Err(Refusal::Length("it")), "{number:?}");
        }
        assert_eq!(within(Some(10), 10, "it"), Ok(10));
    }

    #[test]
    fn bytes_are_taken_whole_and_in_order() {
        let mut input = Input::default();
        input.put(b"ab");
        assert_eq!(input.take(3), None);
        input.put(b"cd");
        assert_eq!(input.take(3).unwrap(), b"abc");
        input.put(b"e");
        assert_eq!((input.len(), input.take(2).unwrap()), (2, b"de".to_vec()));
    }
}
