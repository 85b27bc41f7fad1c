//! `disk`: how often the disk makes a write durable, one after the other.
//!
//! This bounds what any store can acknowledge: with 64 clients that each wait for their answer, a
//! commit carries at most 64 of their events.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use crate::error::LoadError;
use crate::samples::{latencies, nanos_of};

/// A log is begun anew at this length, as a write-ahead log is.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the file is made and removed; on the disk that is asked about.
    #[arg(long)]
    dir: PathBuf,
    /// What each write is long.
    #[arg(long, default_value_t = 16384)]
    bytes: usize,
    #[arg(long, default_value_t = 2.0)]
    secs: f64,
    /// Clients that wait for one commit together.
    #[arg(long, default_value_t = 64)]
    clients: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, LoadError> {
    let path = arguments.dir.join("dispatch-load.log");
    let measured = File::create(&path)
        .map_err(LoadError::io(path.display().to_string()))
        .and_then(|file| measure(file, arguments));
    // Half a measurement leaves no file either.
    let removed = std::fs::remove_file(&path).map_err(LoadError::io(path.display().to_string()));
    let (appending, overwriting) = measured?;
    removed?;
    let per_sec = |value: &Value| value["per_sec"].as_f64().unwrap_or_default();
    let best = per_sec(&appending).max(per_sec(&overwriting));
    Ok(json!({
        "bytes": arguments.bytes,
        "clients": arguments.clients,
        "appending": appending,
        "overwriting": overwriting,
        "limit_per_sec": best * f64::from(arguments.clients),
    }))
}

/// First into a growing file, then over what is there, as a log does that was begun anew.
fn measure(mut file: File, arguments: &Arguments) -> Result<(Value, Value), LoadError> {
    let appending = write_for(&mut file, arguments)?;
    file.rewind().map_err(LoadError::io("the log"))?;
    let overwriting = write_for(&mut file, arguments)?;
    Ok((appending, overwriting))
}

fn write_for(file: &mut File, arguments: &Arguments) -> Result<Value, LoadError> {
    let bytes = vec![b'x'; arguments.bytes];
    let length = file.metadata().map_err(LoadError::io("the log"))?.len();
    // An empty file grows; one that has something is written over and never grown.
    let round = if length == 0 { LOG_BYTES_MAX } else { length };
    let (began, mut at, mut nanos) = (Instant::now(), 0, Vec::new());
    while began.elapsed().as_secs_f64() < arguments.secs {
        if at + bytes.len() as u64 > round {
            file.rewind().map_err(LoadError::io("the log"))?;
            at = 0;
        }
        let write = Instant::now();
        file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(LoadError::io("the log"))?;
        nanos.push(nanos_of(write.elapsed()));
        at += bytes.len() as u64;
    }
    let took = began.elapsed().as_secs_f64();
    let mut found = latencies(&mut nanos);
    found["per_sec"] = json!(nanos.len() as f64 / took);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_measured_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let arguments =
            Arguments { dir: dir.path().to_owned(), bytes: 512, secs: 0.01, clients: 64 };
        let found = run(&arguments).unwrap();
        assert!(found["limit_per_sec"].as_f64().unwrap() > 0.0, "{found}");
        assert!(found["appending"]["count"].as_u64() > Some(0), "{found}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
