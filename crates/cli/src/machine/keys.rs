//! With which SSH key a machine is entered: the one that was named, the user's own, or one that is made.
//!
//! Invariant: a private key is never read; only the public one goes to the server.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::key_line::{KeyLine, LINE_BYTES_MAX};
use crate::CliError;
use crate::screen::Screen;
use crate::session::Surroundings;

/// The user's own keys, the one that is preferred first.
const USUAL: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// A key for a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// A line of `authorized_keys`.
    pub(super) public: String,
    /// What `ssh -i` takes: the private key, or the public one where an agent has the private.
    pub(super) identity_file: PathBuf,
}

/// The key that `named` means (public, or the private one beside it); without a name the user's
/// usual one, or one that is made. What was chosen is said. `None` where no key can be had.
pub(super) fn choose(
    named: Option<&Path>,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Option<Key>, CliError> {
    if let Some(file) = named {
        return read_named(file).map(Some);
    }
    for name in around.home.iter().flat_map(|home| USUAL.map(|name| home.join(".ssh").join(name))) {
        let public = with_pub(&name);
        // One that is there and cannot be used must not keep from a machine.
        if let Ok(key) = read_public(&public) {
            screen.note(&format!("with the SSH key {}", public.display()));
            return Ok(Some(key));
        }
    }
    make(around, screen)
}

/// The key that was made before, or a new one.
fn make(around: &Surroundings<'_>, screen: &mut Screen<'_>) -> Result<Option<Key>, CliError> {
    let Some(kept) = &around.kept else {
        screen.note("no SSH key: the machine takes its password alone");
        return Ok(None);
    };
    let file = kept.own_key()?;
    let public = with_pub(&file);
    if !public.exists() {
        let name = text(&file)?;
        let arguments = ["-q", "-t", "ed25519", "-N", "", "-C", "gatehouse", "-f", name];
        match around.programs.run("ssh-keygen", &arguments.map(str::to_owned)) {
            Ok(true) => screen.note(&format!("made an SSH key for machines: {}", public.display())),
            Ok(false) => {
                let why = format!("ssh-keygen could not make a key in {}", file.display());
                screen.note(&format!("no SSH key ({why}): the machine takes its password alone"));
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                screen.note(
                    "no SSH key (none in ~/.ssh, and no ssh-keygen to make one): the machine takes \
                     its password alone",
                );
                return Ok(None);
            }
            Err(error) => {
                return Err(CliError::Refused(format!("cannot start ssh-keygen: {error}")));
            }
        }
    }
    let key = read_public(&public)?;
    screen.note(&format!("with the SSH key {}", public.display()));
    Ok(Some(key))
}

/// The key in `file`, which is the public one or the private one beside it.
fn read_named(file: &Path) -> Result<Key, CliError> {
    let beside = with_pub(file);
    if file.extension().is_none_or(|extension| extension != "pub") && beside.exists() {
        return read_public(&beside);
    }
    read_public(file)
}

/// The first key in `file`.
fn read_public(file: &Path) -> Result<Key, CliError> {
    let failed = |source| CliError::File { file: file.to_owned(), source };
    let mut contents = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(LINE_BYTES_MAX as u64 * 2).read_to_end(&mut contents).map_err(failed)?;
    let contents = String::from_utf8_lossy(&contents);
    let lines = contents.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let Some(line) = lines.into_iter().find(|line| KeyLine::parse(line).is_some()) else {
        return Err(CliError::Refused(format!(
            "{}: no public SSH key; name the one that ends in .pub",
            file.display()
        )));
    };
    let private = file.with_extension("");
    let is_beside =
        file.extension().is_some_and(|extension| extension == "pub") && private.exists();
    let identity_file = if is_beside { private } else { file.to_owned() };
    let identity_file = std::path::absolute(identity_file).map_err(failed)?;
    Ok(Key { public: line.to_owned(), identity_file })
}

fn with_pub(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// The key with which a machine is entered, by the file that `ssh -i` takes.
pub(super) fn of_identity(file: &str) -> Result<Key, CliError> {
    read_named(Path::new(file))
}

/// A path as an argument.
pub(super) fn text(path: &Path) -> Result<&str, CliError> {
    path.to_str().ok_or_else(|| {
        CliError::Refused(format!("{}: its name is not UTF-8; move it elsewhere", path.display()))
    })
}
