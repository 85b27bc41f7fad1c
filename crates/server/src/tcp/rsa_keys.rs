//! The server's RSA keys in their two files.
//!
//! Invariant: the private file is readable by its owner alone from its first byte on; a file is there whole or not at
//! all; both belong together.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use wire::Secret;
use wire::container::{KeyError, KeyPair};

/// The documented size.
pub const BITS_DEFAULT: u32 = 4096;
/// The longest file that is read; a key of 8192 bits has some 6500 bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles {
    /// PEM of SubjectPublicKeyInfo.
    pub public: PathBuf,
    /// PEM of PKCS#8, unencrypted.
    pub private: PathBuf,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// A file failed.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no such key.
    #[error("{path}: {source}")]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The two files do not belong together.
    #[error("{public} is not the public half of {private}; remove it, or put the right one there")]
    Strangers {
        /// The public one.
        public: PathBuf,
        /// The private one.
        private: PathBuf,
    },
    /// There is a public file alone.
    #[error(
        "{public} is there and {private} is not; put it back, or remove the public file to have new keys made"
    )]
    NoPrivate {
        /// The public one.
        public: PathBuf,
        /// The private one.
        private: PathBuf,
    },
    /// They cannot be made.
    #[error("new RSA keys: {0}")]
    Make(KeyError),
}

impl KeyFiles {
    /// Reads the keys; makes them where there are none, and the public file where it alone is missing. Blocks, for
    /// seconds where keys are made.
    ///
    /// # Errors
    /// When a file cannot be read or written, or they do not belong together.
    pub fn load(&self) -> Result<KeyPair, KeyFileError> {
        let Some(private) = read(&self.private)? else {
            if self.public.exists() {
                let (public, private) = (self.public.clone(), self.private.clone());
                return Err(KeyFileError::NoPrivate { public, private });
            }
            return self.make(BITS_DEFAULT);
        };
        let keys = KeyPair::from_private_pem(&private)
            .map_err(|source| KeyFileError::Key { path: self.private.clone(), source })?;
        match read(&self.public)? {
            None => write(&self.public, keys.public_pem(), 0o644)?,
            Some(public) if public.expose().trim() == keys.public_pem().trim() => {}
            Some(_) => {
                let (public, private) = (self.public.clone(), self.private.clone());
                return Err(KeyFileError::Strangers { public, private });
            }
        }
        Ok(keys)
    }

    /// Makes new keys of 2048, 3072, 4096 or 8192 bits in the place of whatever was there. Blocks for seconds.
    ///
    /// # Errors
    /// For another size, and when a file cannot be written.
    pub fn make(&self, bits: u32) -> Result<KeyPair, KeyFileError> {
        let keys = KeyPair::generate(bits).map_err(KeyFileError::Make)?;
        let private = keys.private_pem().map_err(KeyFileError::Make)?;
        // The private one first: it can give the public one back, the other way is closed.
        match fs::remove_file(&self.public) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(KeyFileError::File { path: self.public.clone(), source });
            }
            _ => {}
        }
        write(&self.private, private.expose(), 0o600)?;
        write(&self.public, keys.public_pem(), 0o644)?;
        Ok(keys)
    }
}

/// `None`: it is not there.
fn read(path: &Path) -> Result<Option<Secret>, KeyFileError> {
    use std::io::Read as _;
    let mut text = String::new();
    let outcome =
        fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match outcome {
        Ok(_) => Ok(Some(Secret::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyFileError::File { path: path.to_owned(), source }),
    }
}

/// Whole or not at all: beside it first, then in its place.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), KeyFileError> {
    let outcome = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        // One that was left behind may have other permissions.
        let _ = fs::remove_file(&beside);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    outcome().map_err(|source| KeyFileError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::{KeyFileError, KeyFiles};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn files() -> (tempfile::TempDir, KeyFiles) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join("rsa").join(name);
        let files = KeyFiles { public: path("public.pem"), private: path("private.pem") };
        (folder, files)
    }

    #[test]
    fn keys_are_made_once_and_read_from_then_on() {
        let (_folder, files) = files();
        let made = files.make(2048).unwrap();
        assert_eq!(files.load().unwrap().fingerprint(), made.fingerprint());
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files.private), mode(&files.public)), (0o600, 0o644));
        fs::remove_file(&files.public).unwrap();
        assert_eq!(files.load().unwrap().fingerprint(), made.fingerprint());
        assert_eq!(fs::read_to_string(&files.public).unwrap(), made.public_pem());
        assert_ne!(files.make(2048).unwrap().fingerprint(), made.fingerprint());
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let (_folder, files) = files();
        files.make(2048).unwrap();
        let public = fs::read_to_string(&files.public).unwrap();
        files.make(2048).unwrap();
        fs::write(&files.public, public).unwrap();
        assert!(matches!(files.load(), Err(KeyFileError::Strangers { .. })));
        fs::remove_file(&files.private).unwrap();
        assert!(matches!(files.load(), Err(KeyFileError::NoPrivate { .. })));
        fs::write(&files.private, "no key").unwrap();
        assert!(matches!(files.load(), Err(KeyFileError::Key { .. })));
    }
}
