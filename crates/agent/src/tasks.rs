//! The types of tasks: which there are, which may run here, and what runs for each.
//!
//! Invariant: nothing runs that the configuration does not allow by name.

mod command;
mod files;
mod moving;
mod system;
mod transfer;
mod update;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::config::Config;
use crate::connection::Connection;
use crate::running::Job;
use crate::stop::Stop;
use crate::task::{Failure, Fields, Outcome, unsupported};

/// The name in `allow` that stands for all executables of the tasks directory.
const ALL_CUSTOM: &str = "custom";

/// What tasks work with.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) config: Config,
    pub(crate) connection: Connection,
    /// This program's file, which `update` replaces.
    pub(crate) program: PathBuf,
    /// The program that watches over commands: this very one, also after its file was replaced.
    pub(crate) supervisor: PathBuf,
    /// Told when the program's file was replaced.
    pub(crate) replaced: Stop,
    /// Told when no further task is to begin.
    pub(crate) stop: Stop,
}

/// A type of task.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    ExecuteCmd,
    ProcList,
    DirContents,
    DownloadFile,
    UploadFile,
    DeleteFile,
    MoveFile,
    Update,
    SystemInfo,
    /// An executable of the tasks directory.
    Custom(PathBuf),
}

impl Kind {
    fn parse(name: &str, tasks_dir: Option<&Path>) -> Option<Self> {
        Some(match name {
            "execute_cmd" => Self::ExecuteCmd,
            "proclist" => Self::ProcList,
            "dircontents" => Self::DirContents,
            "downloadfile" => Self::DownloadFile,
            "uploadfile" => Self::UploadFile,
            "deletefile" => Self::DeleteFile,
            "movefile" => Self::MoveFile,
            "update" => Self::Update,
            "systeminfo" => Self::SystemInfo,
            ALL_CUSTOM => return None,
            name if is_type_name(name) => {
                let path = tasks_dir?.join(name);
                let found = fs::metadata(&path).ok()?;
                if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
                    return None;
                }
                Self::Custom(path)
            }
            _ => return None,
        })
    }
}

/// Whether `name` can name a type: letters, digits, `_` and `-`, 64 at most. It cannot lead out of
/// the tasks directory.
pub(crate) fn is_type_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// Does what the task says; gives what the server is to get.
pub(crate) fn run(shop: &Arc<Workshop>, job: &Arc<Job>, body: &Value) -> Value {
    act(shop, job, body).unwrap_or_else(Failure::into_result)
}

fn act(shop: &Arc<Workshop>, job: &Arc<Job>, body: &Value) -> Outcome {
    let name = body.get("type").and_then(Value::as_str).ok_or_else(unsupported)?;
    let kind = Kind::parse(name, shop.config.tasks_dir.as_deref()).ok_or_else(unsupported)?;
    check_allowed(&shop.config, name, &kind)?;
    if let Some(reason) = job.cancel.reason() {
        return Err(Failure::new(reason));
    }
    let fields = Fields(body);
    match kind {
        Kind::ExecuteCmd => command::execute(shop, job, fields),
        Kind::Custom(program) => command::custom(shop, job, name, program, fields),
        Kind::ProcList => Ok(system::proclist()),
        Kind::SystemInfo => Ok(system::systeminfo()),
        Kind::DirContents => files::dircontents(fields),
        Kind::DeleteFile => files::deletefile(fields),
        Kind::MoveFile => moving::movefile(fields, &job.cancel),
        Kind::DownloadFile => transfer::downloadfile(shop, job, fields),
        Kind::UploadFile => transfer::uploadfile(shop, job, fields),
        Kind::Update => update::update(shop, job, fields),
    }
}

fn check_allowed(config: &Config, name: &str, kind: &Kind) -> Result<(), Failure> {
    let by_kind = matches!(kind, Kind::Custom(_)) && config.allow.contains(ALL_CUSTOM);
    if by_kind || config.allow.contains(name) {
        return Ok(());
    }
    Err(Failure::new(format!("task type '{name}' is not enabled on this agent")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_name_of_an_executable_file_is_a_custom_type() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            fs::write(dir.path().join(name), "").unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        make("good", 0o755);
        make("custom", 0o755);
        make("plain-text", 0o644);
        make("with.dot", 0o755);
        fs::create_dir(dir.path().join("folder")).unwrap();
        let kind = |name| Kind::parse(name, Some(dir.path()));
        assert_eq!(kind("good"), Some(Kind::Custom(dir.path().join("good"))));
        for name in
            ["custom", "plain-text", "with.dot", "folder", "absent", "../good", "", "screenshot"]
        {
            assert_eq!(kind(name), None, "{name}");
        }
        assert_eq!(Kind::parse("good", None), None);
    }
}
