//! Which packages could be upgraded, as apt sees it. A system without apt has none.

use std::io;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

/// How long apt may take.
const LOOK_MAX: Duration = Duration::from_secs(120);

/// The longest answer of apt that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The packages found.
#[derive(Debug, Default)]
pub(super) struct Upgrades {
    packages: Vec<String>,
    /// `None`: nobody has looked yet.
    looked_at: Option<SystemTime>,
}

impl Upgrades {
    #[cfg(test)]
    pub(super) fn is_known(&self) -> bool {
        self.looked_at.is_some()
    }

    pub(super) fn to_json(&self) -> Value {
        let checked = self.looked_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        json!({
            "count": self.packages.len(),
            "packages": self.packages,
            "checked": checked.map(|since| since.as_secs()),
        })
    }
}

/// How apt is asked: a simulation, which needs no rights, takes no lock and changes nothing. It can
/// take a processor for seconds, so it stands behind everything else.
pub(super) const APT: &[&str] =
    &["nice", "-n", "19", "apt-get", "--just-print", "-o", "Debug::NoLocking=true", "upgrade"];

/// The exit code of `nice` when there is no such program.
const NO_SUCH_PROGRAM: i32 = 127;

/// Asks `apt` (usually [`APT`]); whatever goes wrong is logged and means none.
pub(super) async fn look(apt: &[&str]) -> Upgrades {
    let answer = timeout(LOOK_MAX, ask(apt)).await;
    let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let packages = match answer {
        Ok(answer) => packages(&answer),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "systeminfo: apt could not be asked for upgrades");
            Vec::new()
        }
    };
    Upgrades { packages, looked_at: Some(SystemTime::now()) }
}

async fn ask(apt: &[&str]) -> io::Result<String> {
    let (program, arguments) = apt.split_first().ok_or(io::ErrorKind::NotFound)?;
    #[expect(clippy::disallowed_methods, reason = "the one process of this plugin; ended with it")]
    let mut apt = Command::new(program);
    let mut apt = apt
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut answer = Vec::new();
    if let Some(stdout) = apt.stdout.take() {
        stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    }
    let status = apt.wait().await?;
    match status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Some(NO_SUCH_PROGRAM) => Err(io::ErrorKind::NotFound.into()),
        _ => Err(io::Error::other(status.to_string())),
    }
}

/// The names in lines like `Inst bash [5.1-1] (5.1-2 Debian:12 [amd64])`.
fn packages(answer: &str) -> Vec<String> {
    let installs = answer.lines().filter_map(|line| line.strip_prefix("Inst "));
    installs.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &str, expected: &[&str]) {
        assert_eq!(packages(answer), expected);
    }

    #[test]
    fn only_what_would_be_installed_counts() {
        check("", &[]);
        check(
            "Reading package lists...\nInst bash [5.1-1] (5.1-2 Debian:12 [amd64])\n\
             Inst libc6 [2.36] (2.37 Debian:12 [amd64]) []\nConf bash (5.1-2 Debian:12 [amd64])\n",
            &["bash", "libc6"],
        );
    }

    #[test]
    fn what_nobody_has_looked_for_says_so() {
        let unknown = json!({ "count": 0, "packages": [], "checked": null });
        assert_eq!(Upgrades::default().to_json(), unknown);
    }

    #[track_caller]
    fn check_look(found: &Upgrades, expected: &[&str]) {
        assert_eq!(found.packages, expected);
        assert!(found.is_known());
    }

    #[tokio::test]
    async fn looking_always_ends_with_an_answer() {
        check_look(&look(&["printf", "Inst bash [1] (2)\n"]).await, &["bash"]);
        check_look(&look(&["false"]).await, &[]);
        check_look(&look(&["no-such-program"]).await, &[]);
        check_look(&look(&["nice", "no-such-program"]).await, &[]);
    }
}
