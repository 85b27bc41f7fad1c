//! SHA-256, of bytes and of what is read or written.

use std::io::{self, Read};

use ring::digest::{Context, SHA256, digest};

/// The SHA-256 of `bytes`, in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// `bytes` in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Passes on what is read, and knows its checksum and length.
pub(crate) struct Hashing<R> {
    inner: R,
    context: Context,
    bytes: u64,
}

impl<R> Hashing<R> {
    /// Reads from `inner`.
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, context: Context::new(&SHA256), bytes: 0 }
    }

    /// How much was read, in bytes, and its SHA-256.
    pub(crate) fn finish(self) -> (u64, String) {
        (self.bytes, hex(self.context.finish().as_ref()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.context.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Whether `text` is a SHA-256 in hexadecimal.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn bytes_and_a_reader_have_the_known_checksum() {
        assert_eq!(sha256(b"abc"), ABC);
        let mut reader = Hashing::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish(), (3, ABC.to_owned()));
        assert!(is_sha256(ABC) && !is_sha256(&ABC[1..]) && !is_sha256(&ABC.replace('b', "g")));
    }
}
