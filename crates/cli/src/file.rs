//! `gatehouse file …`: pass files through the server.
//!
//! Invariant: a file that was fetched appears under its name whole and checked, or not at all.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use client::{Client, Upload};
use serde_json::json;

use crate::screen::Screen;
use crate::session::{ServerOptions, Surroundings};
use crate::{CliError, Outcome, shown};

/// Bytes between two lines of progress.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Arguments of `gatehouse file`.
#[derive(Debug, Clone, clap::Args)]
pub struct FileArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: FileCommand,
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// What can be done with files.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum FileCommand {
    /// Give a file to the server; prints its address there
    Put {
        /// The file
        file: PathBuf,
        /// Its name there; without it the file's own
        #[arg(long)]
        name: Option<String>,
        /// Seconds that it is kept [default: the server's]
        #[arg(long, value_name = "SECS")]
        ttl: Option<u64>,
        /// How often it may be fetched [default: the server's]
        #[arg(long, value_name = "COUNT")]
        uses: Option<u64>,
    },
    /// Fetch a file from the server
    Get {
        /// Its address, as `file put` or a result tells it
        address: String,
        /// Where to write it, - for standard output; without it its own name in this directory, if
        /// nothing has that name yet
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Remove a file from the server
    Remove {
        /// Its address, as `file put` or a result tells it
        address: String,
    },
}

/// Does what `gatehouse file` is asked for.
pub(crate) fn run(
    args: &FileArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let client = around.client(&args.server)?;
    match &args.command {
        FileCommand::Put { file, name, ttl, uses } => {
            let own = file.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.clone().or(own).ok_or_else(|| {
                CliError::Refused(format!("{}: it has no name; give --name", file.display()))
            })?;
            put(&client, file, &name, (*ttl, *uses), screen)?;
        }
        FileCommand::Get { address, output } => get(&client, address, output.as_deref(), screen)?,
        FileCommand::Remove { address } => {
            client.remove_file(address)?;
            screen.say(&json!({ "removed": address }), || format!("removed {address}"))?;
        }
    }
    Ok(Outcome::Fine)
}

fn put(
    client: &Client,
    file: &Path,
    name: &str,
    (ttl_secs, uses): (Option<u64>, Option<u64>),
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let failed = |source| CliError::File { file: file.to_owned(), source };
    let mut contents = File::open(file).map_err(failed)?;
    let about = contents.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err(CliError::Refused(format!("{}: it is no file", file.display())));
    }
    let upload = Upload { name, contents: &mut contents, bytes: about.len(), ttl_secs, uses };
    let stored = client.put_file(upload, &mut progress(screen))?;
    screen.say(&stored, || format!("{}{}", client.base_url(), stored.url))
}

fn get(
    client: &Client,
    address: &str,
    output: Option<&Path>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    if output == Some(Path::new("-")) {
        // The progress would need the screen that the contents go to.
        client.get_file(address, &mut *screen.out, &mut |_, _| ())?;
        return Ok(screen.out.flush()?);
    }
    let to = match output {
        Some(to) => to.to_owned(),
        None => own_name(address)?,
    };
    let failed = |source| CliError::File { file: to.clone(), source };
    if output.is_none() && to.symlink_metadata().is_ok() {
        return Err(failed(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it exists; say with -o where to write",
        )));
    }
    let directory = match to.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut new = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let fetched = client.get_file(address, &mut new, &mut progress(screen))?;
    let kept = if output.is_some() { new.persist(&to) } else { new.persist_noclobber(&to) };
    kept.map_err(|error| failed(error.error))?;
    let value = json!({ "file": to, "bytes": fetched.bytes, "sha256": fetched.sha256 });
    screen.say(&value, || format!("{} ({})", to.display(), shown::bytes(fetched.bytes)))
}

/// The last part of an address, if it can be a file's name here.
fn own_name(address: &str) -> Result<PathBuf, CliError> {
    let last = address.rsplit('/').next().unwrap_or_default();
    let name = percent_encoding::percent_decode_str(last).decode_utf8_lossy().into_owned();
    let fits = Path::new(&name).file_name().is_some_and(|own| own == name.as_str())
        && !name.chars().any(char::is_control);
    if fits {
        Ok(PathBuf::from(name))
    } else {
        Err(CliError::Refused(format!("{address} ends in no name for a file; give one with -o")))
    }
}

/// Tells how far a transfer is, now and then.
fn progress<'a>(screen: &'a mut Screen<'_>) -> impl FnMut(u64, Option<u64>) + 'a {
    let mut told = 0;
    move |done, total| {
        let is_last = total == Some(done);
        if done >= told + PROGRESS_BYTES && !is_last {
            told = done;
            let total = total.map(|total| format!(" of {}", shown::bytes(total)));
            screen.progress(&format!("{}{}", shown::bytes(done), total.unwrap_or_default()));
        } else if is_last {
            screen.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::own_name;

    #[test]
    fn a_name_from_elsewhere_stays_in_this_directory() {
        assert_eq!(own_name("/files/x/a%20b").unwrap(), std::path::Path::new("a b"));
        for address in ["/files/x/..", "/files/x/", "/files/x/%2Fetc%2Fx", "a/%1b", "/x/a%2F.."] {
            assert!(own_name(address).is_err(), "{address}");
        }
    }
}
