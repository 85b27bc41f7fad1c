//! Packets: a length message and what it announces, in the form of each generation.
//!
//! Invariant: after a packet of generations 3 and 4, both sides go on with the IV that it brought.

use super::cipher::{BLOCK_BYTES, NoRandomness, Session, fresh_iv};
use super::frame::{Generation, header, number};
use super::{RESPONSE_BYTES_MAX, Refusal};

/// Bytes of an encrypted length message.
pub(super) const SEALED_HEADER_BYTES: usize = BLOCK_BYTES;
/// Every packet is made of blocks of this many bytes.
pub(super) const BLOCK: usize = BLOCK_BYTES;

/// A message ready to be sent: its length first, the rest when the peer has confirmed that.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) length: Vec<u8>,
    pub(super) packet: Vec<u8>,
}

impl From<NoRandomness> for Refusal {
    fn from(_: NoRandomness) -> Self {
        Self::Block
    }
}

/// Seals `plain` and moves `session` on.
pub(super) fn seal(
    session: &mut Session,
    generation: Generation,
    plain: &[u8],
) -> Result<Sealed, Refusal> {
    let mut packet = session.seal(plain);
    if packet.len() as u64 > RESPONSE_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    if generation == Generation::One {
        let length = header(packet.len()).ok_or(Refusal::TooLong)?;
        return Ok(Sealed { length: length.to_vec(), packet });
    }
    let next = fresh_iv()?;
    packet.extend_from_slice(&next);
    let length = match generation {
        Generation::Four => session.seal(packet.len().to_string().as_bytes()),
        Generation::One | Generation::Three => {
            header(packet.len()).ok_or(Refusal::TooLong)?.to_vec()
        }
    };
    session.iv = next;
    Ok(Sealed { length, packet })
}

/// The number in an encrypted length message; `None` when it does not decrypt to digits alone.
pub(super) fn sealed_number(session: &Session, message: &[u8]) -> Option<u64> {
    let digits = session.open(message)?;
    // One block holds 15 digits and padding, so the number fits.
    number(&digits).filter(|_| !digits.contains(&b'='))
}

/// What a packet held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) generation: Generation,
    /// `None`: it did not decrypt.
    pub(super) plain: Option<Vec<u8>>,
}

/// Opens a packet whose length came in the clear: of generation 1 or 3, which its content tells.
pub(super) fn open_clear(session: &mut Session, packet: &[u8]) -> Opened {
    let without_iv = packet.split_last_chunk::<BLOCK_BYTES>();
    let three = without_iv.and_then(|(sealed, _)| session.open(sealed));
    let one = session.open(packet);
    let is_three = match (&one, &three) {
        (None, Some(_)) => true,
        // The noise of a next IV looks like padding once in 256; a text of generation 1 that does so when it is cut is
        // none that anybody prints.
        (Some(one), Some(_)) => !is_object(one),
        (_, None) => false,
    };
    if !is_three {
        return Opened { generation: Generation::One, plain: one };
    }
    advance(session, packet);
    Opened { generation: Generation::Three, plain: three }
}

/// Opens a packet that brings the next IV.
pub(super) fn open_with_iv(session: &mut Session, packet: &[u8]) -> Option<Vec<u8>> {
    let (sealed, _) = packet.split_last_chunk::<BLOCK_BYTES>()?;
    let plain = session.open(sealed)?;
    advance(session, packet);
    Some(plain)
}

fn advance(session: &mut Session, packet: &[u8]) {
    if let Some((_, iv)) = packet.split_last_chunk::<BLOCK_BYTES>() {
        session.iv = *iv;
    }
}

fn is_object(plain: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(plain).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{Generation, Opened, Session, open_clear, open_with_iv, seal, sealed_number};

    const PLAIN: &[u8] = br#"{"verb": "STAT", "parameters": {}}"#;

    fn pair() -> (Session, Session) {
        let session = Session::fresh(32).unwrap();
        let other = Session::from_bytes(&session.to_bytes()).unwrap();
        (session, other)
    }

    #[test]
    fn a_stat_has_the_documented_sizes() {
        let (mut session, other) = pair();
        let one = seal(&mut session, Generation::One, PLAIN).unwrap();
        assert_eq!((&one.length[..], one.packet.len()), (&b"48======"[..], 48));
        let four = seal(&mut session, Generation::Four, PLAIN).unwrap();
        assert_eq!(sealed_number(&other, &four.length), Some(64));
        assert_eq!(four.packet.len(), 64);
    }

    #[test]
    fn the_generation_of_a_clear_packet_is_told_by_its_content() {
        let generations = [Generation::One, Generation::Three];
        // What is no request is answered in its own generation, too.
        let texts: [&[u8]; 4] = [PLAIN, b"", b"nonsense", b"[1, 2, 3, 4, 5, 6]"];
        for (generation, text) in
            generations.into_iter().flat_map(|it| texts.map(|text| (it, text)))
        {
            // Chance pads the wrong reading correctly once in 256.
            for _ in 0..2000 {
                let (mut session, mut other) = pair();
                let sealed = seal(&mut session, generation, text).unwrap();
                let expected = Opened { generation, plain: Some(text.to_vec()) };
                assert_eq!(open_clear(&mut other, &sealed.packet), expected);
                assert_eq!(session.iv, other.iv);
            }
        }
    }

    #[test]
    fn a_packet_that_brings_an_iv_is_followed_by_the_next() {
        let (mut session, mut other) = pair();
        for _ in 0..3 {
            let sealed = seal(&mut session, Generation::Four, PLAIN).unwrap();
            assert_eq!(sealed_number(&other, &sealed.length), Some(64));
            assert_eq!(open_with_iv(&mut other, &sealed.packet).unwrap(), PLAIN);
        }
    }

    #[test]
    fn a_sealed_length_is_digits_alone() {
        let (session, _) = pair();
        for text in ["-1", "", " 1", "1=", "1.0", "1e3", "abc"] {
            assert_eq!(sealed_number(&session, &session.seal(text.as_bytes())), None, "{text}");
        }
        let greatest = session.seal(b"999999999999999");
        assert_eq!(sealed_number(&session, &greatest), Some(999_999_999_999_999));
    }
}
