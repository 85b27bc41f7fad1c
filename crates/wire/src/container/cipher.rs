//! AES in CBC mode with PKCS#7 padding, and the key in force.
//!
//! Invariant: a key is 16, 24 or 32 bytes; keys are wiped from memory when they are dropped.

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use zeroize::Zeroizing;

/// Bytes of a block, and of an IV.
pub(super) const BLOCK_BYTES: usize = 16;
/// The longest key and its IV.
pub(super) const KEY_AND_IV_BYTES_MAX: usize = 32 + BLOCK_BYTES;

/// An AES key and the IV that is next.
pub(super) struct Session {
    key: Zeroizing<Vec<u8>>,
    pub(super) iv: [u8; BLOCK_BYTES],
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session(…)")
    }
}

/// The system has no random bytes; nothing can go on without.
#[derive(Debug)]
pub(super) struct NoRandomness;

/// Fills `bytes` with what nobody can guess.
pub(super) fn randomize(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| NoRandomness)
}

/// 16 bytes that nobody can guess.
pub(super) fn fresh_iv() -> Result<[u8; BLOCK_BYTES], NoRandomness> {
    let mut iv = [0; BLOCK_BYTES];
    randomize(&mut iv)?;
    Ok(iv)
}

impl Session {
    /// A new key of `key_bytes` bytes.
    pub(super) fn fresh(key_bytes: usize) -> Result<Self, NoRandomness> {
        let mut key = Zeroizing::new(vec![0; key_bytes]);
        randomize(&mut key)?;
        Ok(Self { key, iv: fresh_iv()? })
    }

    /// Takes a key with its IV behind it; `None` for a length that is none of AES.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key, iv) = bytes.split_last_chunk::<BLOCK_BYTES>()?;
        let is_key = matches!(key.len(), 16 | 24 | 32);
        is_key.then(|| Self { key: Zeroizing::new(key.to_vec()), iv: *iv })
    }

    /// The key with its IV behind it.
    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_AND_IV_BYTES_MAX));
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&self.iv);
        bytes
    }

    pub(super) fn key_bytes(&self) -> usize {
        self.key.len()
    }

    /// Encrypts under the current IV.
    pub(super) fn seal(&self, plain: &[u8]) -> Vec<u8> {
        fn with<C: BlockModeEncrypt>(cipher: Option<C>, plain: &[u8]) -> Vec<u8> {
            // The lengths of key and IV are this type's invariant.
            cipher.map(|cipher| cipher.encrypt_padded_vec::<Pkcs7>(plain)).unwrap_or_default()
        }
        let (key, iv) = (&self.key, &self.iv);
        match key.len() {
            16 => with(cbc::Encryptor::<Aes128>::new_from_slices(key, iv).ok(), plain),
            24 => with(cbc::Encryptor::<Aes192>::new_from_slices(key, iv).ok(), plain),
            _ => with(cbc::Encryptor::<Aes256>::new_from_slices(key, iv).ok(), plain),
        }
    }

    /// Decrypts under the current IV; `None` when length or padding are wrong.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        fn with<C: BlockModeDecrypt>(cipher: Option<C>, sealed: &[u8]) -> Option<Vec<u8>> {
            cipher?.decrypt_padded_vec::<Pkcs7>(sealed).ok()
        }
        let (key, iv) = (&self.key, &self.iv);
        match key.len() {
            16 => with(cbc::Decryptor::<Aes128>::new_from_slices(key, iv).ok(), sealed),
            24 => with(cbc::Decryptor::<Aes192>::new_from_slices(key, iv).ok(), sealed),
            _ => with(cbc::Decryptor::<Aes256>::new_from_slices(key, iv).ok(), sealed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Session;

    #[test]
    fn every_key_length_opens_what_it_sealed_and_no_other_is_a_key() {
        for key_bytes in [16, 24, 32] {
            let session = Session::fresh(key_bytes).unwrap();
            for length in [0, 1, 15, 16, 17, 1000] {
                let plain = vec![b'x'; length];
                let sealed = session.seal(&plain);
                assert_eq!(sealed.len(), (length / 16 + 1) * 16);
                assert_eq!(session.open(&sealed).as_deref(), Some(&plain[..]));
            }
            let copy = Session::from_bytes(&session.to_bytes()).unwrap();
            assert_eq!(copy.open(&session.seal(b"same")).unwrap(), b"same");
        }
        for length in [0, 15, 16, 31, 33, 47, 49, 64] {
            assert!(Session::from_bytes(&vec![0; length]).is_none(), "{length}");
        }
    }

    #[test]
    fn what_is_cut_does_not_open() {
        let session = Session::fresh(32).unwrap();
        let sealed = session.seal(b"some text that is longer than a block");
        assert_eq!(session.open(&sealed[..sealed.len() - 1]), None);
        assert_eq!(session.open(&[]), None);
    }

    #[test]
    fn a_session_is_not_shown_by_debug() {
        assert_eq!(format!("{:?}", Session::fresh(32).unwrap()), "Session(…)");
    }
}
