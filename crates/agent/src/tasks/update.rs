//! `update`: the agent replaces its own program.
//!
//! Invariant: only a file with the checksum that the task gives, and that shows on this very machine
//! that it is an agent, takes the program's place; that happens in one step.

use std::time::Duration;

use serde_json::json;

use super::Workshop;
use super::command::ask;
use super::transfer::{checksum, fetch, persist};
use crate::process::End;
use crate::running::Job;
use crate::task::{Failure, Fields, Outcome};

/// How long the new program may take to tell its version.
const VERSION_MAX: Duration = Duration::from_secs(10);
/// What it begins with.
const NAME: &str = "gatehouse-agent ";

/// Fetches `url`, checks it, puts it in this program's place; the agent then restarts by itself.
pub(super) fn update(shop: &Workshop, job: &Job, fields: Fields<'_>) -> Outcome {
    let url = fields.text("url")?;
    let expected = checksum(fields)?;
    let expected = expected.ok_or_else(|| Failure::new("field 'sha256' is missing"))?;
    let program = &shop.program;
    let Some(dir) = program.parent() else {
        return Err(Failure::new(format!("{}: not a program's place", program.display())));
    };
    let new = fetch(shop, job, url, dir, 0o755, Some(expected))?;
    // A file that is open for writing cannot be run.
    let new = tempfile::NamedTempFile::from_parts(reopen(&new)?, new.into_temp_path());
    let (end, version) = ask(shop, job, new.path(), &["--version"], VERSION_MAX)?;
    let version = version.lines().next().unwrap_or_default().trim();
    let Some(version) = version.strip_prefix(NAME).filter(|_| end == End::Status(0)) else {
        return Err(Failure::new("what was fetched does not run here as a gatehouse-agent"));
    };
    persist(new, program)?;
    shop.replaced.request();
    let msg = format!("updated from {} to {version}; restarting", env!("CARGO_PKG_VERSION"));
    Ok(json!({"error": false, "msg": msg, "version": version}))
}

fn reopen(new: &tempfile::NamedTempFile) -> Result<std::fs::File, Failure> {
    std::fs::File::open(new.path()).map_err(crate::task::failed("the fetched file"))
}
