//! RSA keys: pairs of our own, and public keys that peers send.
//!
//! Invariant: a key that was taken can do what the protocol asks of it; private keys are never shown and are wiped from
//! memory when they are dropped.
//! Not here: files.
//!
//! Private operations are aws-lc's, which are fast and take the same time for every input. Public ones are too where it
//! knows the key's size (2048 to 8192 bits), and those of the `rsa` crate elsewhere.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use rsa::pkcs1::RsaPublicKeyRef;
use rsa::pkcs8::der::Decode;
use rsa::pkcs8::{Document, EncodePublicKey, LineEnding, SecretDocument, SubjectPublicKeyInfoRef};
use rsa::{BoxedUint, RsaPublicKey};
use sha2::{Digest, Sha256};

use super::cipher::{NoRandomness, randomize};
use crate::Secret;

/// Key sizes that can carry an AES key and that any client has had.
const BITS: std::ops::RangeInclusive<usize> = 912..=16384;
/// Public exponents have at most this many bits; greater ones only cost time.
const EXPONENT_BITS_MAX: usize = 33;
/// Sizes whose public operation is aws-lc's.
const FAST_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// It is not PEM.
    NotPem,
    /// It is PEM of something else: another kind of key, or an encrypted one.
    NotRsa,
    /// Its modulus is even or has too few or too many bits.
    Size {
        /// How many it has.
        bits: usize,
    },
    /// Its exponent is even, below 3 or has more than 33 bits.
    Exponent,
    /// It does not work.
    Unusable,
    /// Pairs of this size are not made.
    Bits {
        /// How many were asked for.
        bits: u32,
    },
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotPem => f.write_str("not a PEM text"),
            Self::NotRsa => f.write_str("not an RSA key of the expected kind"),
            Self::Size { bits } => write!(f, "a modulus of {bits} bits cannot be used"),
            Self::Exponent => f.write_str("the exponent cannot be used"),
            Self::Unusable => f.write_str("the key does not work"),
            Self::Bits { bits } => {
                write!(f, "{bits} bits: keys of 2048, 3072, 4096 or 8192 bits can be made")
            }
        }
    }
}

impl std::error::Error for KeyError {}

impl From<NoRandomness> for KeyError {
    fn from(_: NoRandomness) -> Self {
        Self::Unusable
    }
}

/// A public key that a peer sent. Made by [`PublicKey::from_pem`], which is cheap; encrypting is not.
#[derive(Debug, Clone)]
pub struct PublicKey {
    /// SubjectPublicKeyInfo.
    der: Arc<[u8]>,
    bits: usize,
}

impl PublicKey {
    /// Reads a PEM of SubjectPublicKeyInfo (`BEGIN PUBLIC KEY`) or, as old tools write it, of PKCS#1
    /// (`BEGIN RSA PUBLIC KEY`).
    ///
    /// # Errors
    /// When it is not an RSA key of 912 to 16384 bits with a sane exponent.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let pem = std::str::from_utf8(pem).map_err(|_| KeyError::NotPem)?;
        let (label, document) = Document::from_pem(pem.trim()).map_err(|_| KeyError::NotPem)?;
        let inner = match label {
            "PUBLIC KEY" => inner_key(document.as_bytes())?,
            "RSA PUBLIC KEY" => document.as_bytes(),
            _ => return Err(KeyError::NotRsa),
        };
        let (key, bits) = numbers(inner)?;
        let der = key.to_public_key_der().map_err(|_| KeyError::NotRsa)?;
        Ok(Self { der: der.as_bytes().into(), bits })
    }

    /// Bits of its modulus.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Bytes of what it encrypts to.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bits.div_ceil(8)
    }

    /// How long encrypting takes, counted in private operations of 4096 bits; what is less than half of one is nothing.
    pub(super) fn cost(&self) -> u32 {
        if FAST_BITS.contains(&self.bits) {
            return 0;
        }
        let factor = u32::try_from(self.bits / 4096).unwrap_or(u32::MAX);
        factor.saturating_mul(factor) / 2
    }

    /// RSA-OAEP with SHA-256. Takes from a tenth of a millisecond to some ten, by the key's size.
    ///
    /// # Errors
    /// When the key does not work, or the text is too long for it.
    pub fn encrypt(&self, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        if FAST_BITS.contains(&self.bits) {
            let key = PublicEncryptingKey::from_der(&self.der).map_err(|_| KeyError::Unusable)?;
            let key = OaepPublicEncryptingKey::new(key).map_err(|_| KeyError::Unusable)?;
            let mut sealed = vec![0; key.ciphertext_size()];
            let length = key
                .encrypt(&OAEP_SHA256_MGF1SHA256, plain, &mut sealed, None)
                .map_err(|_| KeyError::Unusable)?
                .len();
            sealed.truncate(length);
            return Ok(sealed);
        }
        let (key, _) = numbers(inner_key(&self.der)?)?;
        let padding = rsa::Oaep::<sha2::Sha256>::new();
        key.encrypt(&mut SystemRandom, padding, plain).map_err(|_| KeyError::Unusable)
    }
}

/// The PKCS#1 key inside of a SubjectPublicKeyInfo.
fn inner_key(der: &[u8]) -> Result<&[u8], KeyError> {
    let info = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::NotRsa)?;
    if info.algorithm.oid != rsa::pkcs1::ALGORITHM_OID {
        return Err(KeyError::NotRsa);
    }
    info.subject_public_key.as_bytes().ok_or(KeyError::NotRsa)
}

/// Reads and judges modulus and exponent before anything is computed with them.
fn numbers(pkcs1: &[u8]) -> Result<(RsaPublicKey, usize), KeyError> {
    let key = RsaPublicKeyRef::from_der(pkcs1).map_err(|_| KeyError::NotRsa)?;
    let (modulus, exponent) = (key.modulus.as_bytes(), key.public_exponent.as_bytes());
    let bits = bits_of(modulus);
    if !BITS.contains(&bits) || is_even(modulus) {
        return Err(KeyError::Size { bits });
    }
    let exponent_bits = bits_of(exponent);
    if !(2..=EXPONENT_BITS_MAX).contains(&exponent_bits) || is_even(exponent) {
        return Err(KeyError::Exponent);
    }
    let number = |bytes: &[u8]| BoxedUint::from_be_slice_vartime(bytes);
    let key = RsaPublicKey::new_with_size_limits(number(modulus), number(exponent), BITS);
    Ok((key.map_err(|_| KeyError::Unusable)?, bits))
}

/// Bits of a big-endian number.
fn bits_of(number: &[u8]) -> usize {
    let start = number.iter().position(|&byte| byte != 0).unwrap_or(number.len());
    let number = &number[start..];
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

fn is_even(number: &[u8]) -> bool {
    number.last().is_none_or(|last| last.is_multiple_of(2))
}

/// The system's random bytes in the form that `rsa` asks for.
struct SystemRandom;

impl rsa::rand_core::TryRng for SystemRandom {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        // aws-lc ends the program rather than give bytes that could be guessed.
        assert!(randomize(bytes).is_ok(), "the system gives no random bytes");
        Ok(())
    }
}

impl rsa::rand_core::TryCryptoRng for SystemRandom {}

/// A key pair of our own.
#[derive(Clone)]
pub struct KeyPair {
    private: PrivateDecryptingKey,
    public_pem: Arc<str>,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyPair({} bits, {})", self.bits(), self.fingerprint())
    }
}

impl KeyPair {
    /// Makes a pair of 2048, 3072, 4096 or 8192 bits. Takes from a tenth of a second to a minute.
    ///
    /// # Errors
    /// For another size, or when the system has no random bytes.
    pub fn generate(bits: u32) -> Result<Self, KeyError> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            8192 => KeySize::Rsa8192,
            _ => return Err(KeyError::Bits { bits }),
        };
        let private = PrivateDecryptingKey::generate(size).map_err(|_| KeyError::Unusable)?;
        Self::new(private)
    }

    /// Reads an unencrypted PKCS#8 PEM (`BEGIN PRIVATE KEY`) of 2048 to 8192 bits.
    ///
    /// # Errors
    /// When it is not such a key.
    pub fn from_private_pem(pem: &Secret) -> Result<Self, KeyError> {
        let (label, document) =
            SecretDocument::from_pem(pem.expose().trim()).map_err(|_| KeyError::NotPem)?;
        if label != "PRIVATE KEY" {
            return Err(KeyError::NotRsa);
        }
        let private =
            PrivateDecryptingKey::from_pkcs8(document.as_bytes()).map_err(|_| KeyError::NotRsa)?;
        Self::new(private)
    }

    fn new(private: PrivateDecryptingKey) -> Result<Self, KeyError> {
        let der: PublicKeyX509Der<'_> =
            private.public_key().as_der().map_err(|_| KeyError::Unusable)?;
        let document = Document::try_from(der.as_ref()).map_err(|_| KeyError::Unusable)?;
        let pem = document.to_pem("PUBLIC KEY", LineEnding::LF).map_err(|_| KeyError::Unusable)?;
        Ok(Self { private, public_pem: pem.into() })
    }

    /// Bits of its modulus.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.private.key_size_bits()
    }

    /// The public half: PEM of SubjectPublicKeyInfo in lines of 64 columns, the last one ended too.
    #[must_use]
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// Both halves: PEM of PKCS#8 in lines of 64 columns.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn private_pem(&self) -> Result<Secret, KeyError> {
        let der: Pkcs8V1Der<'_> = self.private.as_der().map_err(|_| KeyError::Unusable)?;
        let document = SecretDocument::try_from(der.as_ref()).map_err(|_| KeyError::Unusable)?;
        let pem = document.to_pem("PRIVATE KEY", LineEnding::LF).map_err(|_| KeyError::Unusable)?;
        Ok(Secret::new(pem.as_str()))
    }

    /// What people compare: SHA-256 of the public PEM, 64 hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self.public_pem.as_bytes())
    }

    /// Bytes of what is encrypted to it.
    pub(super) fn bytes(&self) -> usize {
        self.private.key_size_bytes()
    }

    /// The other half of [`PublicKey::encrypt`]. Takes milliseconds.
    ///
    /// # Errors
    /// When it was not encrypted to this key.
    pub(super) fn decrypt(&self, sealed: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, KeyError> {
        let key = OaepPrivateDecryptingKey::new(self.private.clone());
        let key = key.map_err(|_| KeyError::Unusable)?;
        let mut plain = zeroize::Zeroizing::new(vec![0; key.min_output_size()]);
        let length = key
            .decrypt(&OAEP_SHA256_MGF1SHA256, sealed, &mut plain, None)
            .map_err(|_| KeyError::Unusable)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

/// SHA-256 in hexadecimal digits.
pub(super) fn fingerprint(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{KeyError, KeyPair, PublicKey};

    #[test]
    fn a_pair_is_read_back_from_its_files() {
        let pair = KeyPair::generate(2048).unwrap();
        let again = KeyPair::from_private_pem(&pair.private_pem().unwrap()).unwrap();
        assert_eq!(again.public_pem(), pair.public_pem());
        assert_eq!((pair.public_pem().len(), pair.bits()), (451, 2048));
        assert!(pair.public_pem().lines().all(|line| line.len() <= 64));
        let public = PublicKey::from_pem(pair.public_pem().as_bytes()).unwrap();
        assert_eq!(*again.decrypt(&public.encrypt(b"text").unwrap()).unwrap(), b"text");
        assert_eq!(KeyPair::generate(1024).unwrap_err(), KeyError::Bits { bits: 1024 });
    }

    #[test]
    fn a_pair_is_not_shown_by_debug() {
        let pair = KeyPair::generate(2048).unwrap();
        assert_eq!(format!("{pair:?}"), format!("KeyPair(2048 bits, {})", pair.fingerprint()));
    }
}
