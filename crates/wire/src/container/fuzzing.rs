//! What fuzz targets reach beyond the public: exists in builds with `--cfg fuzzing` alone.
//!
//! Invariant: judges, and changes nothing of what it judges. A rule that is broken panics, which is what a fuzzer sees.

use std::sync::Arc;

use super::cipher::{BLOCK_BYTES, Session};
use super::frame::{Generation, HEADER_BYTES, Input, header, number, within};
use super::keys::KeyPair;
use super::packet;
use super::server::{ServerSide, Unlocked};
use super::{REQUEST_BYTES_MAX, Refusal};

/// A length: read, compared with its limit, and written again.
pub fn length(bytes: &[u8]) {
    let text = &bytes[..bytes.len().min(HEADER_BYTES)];
    let found = number(text);
    if let Some(number) = found {
        assert!(number <= 99_999_999, "{number} of {text:?}");
        let again = usize::try_from(number).ok().and_then(header);
        assert_eq!(again.as_ref().and_then(|header| super::frame::number(header)), found);
    }
    match within(found, REQUEST_BYTES_MAX, "it") {
        Ok(length) => assert!((1..=REQUEST_BYTES_MAX).contains(&(length as u64))),
        Err(refusal) => assert_eq!(refusal, Refusal::Length("it")),
    }
}

/// What comes in `pieces` goes out as `takes` asks, whole and in order.
pub fn input(bytes: &[u8], piece: usize, takes: &[u8]) {
    let (mut input, mut out, mut takes) = (Input::default(), Vec::new(), takes.iter().cycle());
    for piece in bytes.chunks(piece.max(1)) {
        input.put(piece);
        while let Some(taken) =
            takes.next().and_then(|&count| input.take(usize::from(count).max(1)))
        {
            out.extend(taken);
        }
    }
    let rest = input.len();
    out.extend(input.take(rest).unwrap_or_default());
    assert_eq!(out, bytes);
}

/// A packet opened under a key that the peer knows, in every form that there is.
pub fn packet(key_and_iv: &[u8], bytes: &[u8]) {
    let session = || Session::from_bytes(key_and_iv);
    let Some(mut clear) = session() else { return };
    let opened = packet::open_clear(&mut clear, bytes);
    assert!(opened.plain.is_none_or(|plain| plain.len() < bytes.len().max(1)));
    let plain = session().and_then(|mut session| packet::open_with_iv(&mut session, bytes));
    assert!(plain.is_none_or(|plain| plain.len() + BLOCK_BYTES < bytes.len()));
    if let Some(number) = session().and_then(|session| packet::sealed_number(&session, bytes)) {
        assert!(bytes.len() > BLOCK_BYTES || number < 1_000_000_000_000_000);
    }
}

/// A server whose keys were exchanged, with a key that the peer knows.
#[must_use]
pub fn secured(keys: Arc<KeyPair>, key_and_iv: &[u8]) -> Option<ServerSide> {
    let session = Session::from_bytes(key_and_iv)?;
    let block = Vec::new();
    Some(ServerSide::secured(keys, Unlocked { session, block }))
}

/// What a client sends for a request: its length and its packet.
///
/// # Errors
/// When it is longer than the protocol can say, or there is no such key.
pub fn seal(
    key_and_iv: &[u8],
    generation: Generation,
    plain: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let mut session = Session::from_bytes(key_and_iv).ok_or(Refusal::Block)?;
    let sealed = packet::seal(&mut session, generation, plain)?;
    Ok((sealed.length, sealed.packet))
}
