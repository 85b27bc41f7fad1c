//! The configuration: as written, then as meant.
//!
//! Invariant: a [`Config`] is whole and within its limits; an error names the key.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use wire::Secret;

/// How long a configuration may be, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long a name may be, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Types that only look; they are on unless `allow` is given.
const HARMLESS: [&str; 3] = ["dircontents", "proclist", "systeminfo"];

/// What the agent goes by.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) secret: Secret,
    pub(crate) ca_file: Option<PathBuf>,
    /// Where results wait until the server has them.
    pub(crate) state_dir: PathBuf,
    /// Where the executables for custom types are.
    pub(crate) tasks_dir: Option<PathBuf>,
    /// Types that may run; `custom` stands for all executables in `tasks_dir`.
    pub(crate) allow: BTreeSet<String>,
    /// How long a command may run.
    pub(crate) command_max: Duration,
    /// How much of a command's output is kept.
    pub(crate) output_bytes_max: usize,
    /// How large a file that is fetched or sent may be.
    pub(crate) file_bytes_max: u64,
    /// How long fetching or sending a file may take.
    pub(crate) transfer_max: Duration,
    /// How many tasks run at once.
    pub(crate) concurrency: usize,
    /// For how long the server holds a task for us without hearing of it.
    pub(crate) lease: Duration,
    /// How long running tasks may go on when the agent is to stop.
    pub(crate) finish_max: Duration,
}

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    url: Option<String>,
    name: Option<String>,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    tasks_dir: Option<PathBuf>,
    allow: Option<Vec<String>>,
    command_secs_max: Option<u64>,
    output_bytes_max: Option<u64>,
    file_bytes_max: Option<u64>,
    transfer_secs_max: Option<u64>,
    concurrency: Option<u64>,
    lease_secs: Option<u64>,
    finish_secs_max: Option<u64>,
}

impl Config {
    /// Reads `file`, and gives warnings about it as well.
    ///
    /// # Errors
    /// In words, with the file and the key.
    pub(crate) fn read(file: &Path) -> Result<(Self, Vec<String>), String> {
        let at = |why: String| format!("{}: {why}", file.display());
        let (text, warning) = read_private(file).map_err(at)?;
        let mut warnings = Vec::from_iter(warning);
        let raw: Raw = toml::from_str(&text).map_err(|error| at(error.message().to_owned()))?;
        let secret = match (&raw.secret, &raw.secret_file) {
            (Some(_), Some(_)) => {
                return Err(at("give `secret` or `secret_file`, not both".into()));
            }
            (Some(secret), None) => secret.clone(),
            (None, Some(path)) => {
                let base = file.parent().unwrap_or(Path::new("."));
                let (secret, more) = read_private(&base.join(path))
                    .map_err(|why| at(format!("secret_file: {}: {why}", path.display())))?;
                warnings.extend(more);
                secret.trim_end_matches(['\r', '\n']).to_owned()
            }
            (None, None) => return Err(at("`secret` is missing; `enroll` writes it".into())),
        };
        Self::mean(raw, &secret).map(|config| (config, warnings)).map_err(at)
    }

    fn mean(raw: Raw, secret: &str) -> Result<Self, String> {
        let url = raw.url.ok_or("`url` is missing")?;
        let name = raw.name.ok_or("`name` is missing")?;
        check_name(&name).map_err(|why| format!("name: {why}"))?;
        if secret.is_empty() {
            return Err("secret: it is empty".to_owned());
        }
        let state_dir = raw.state_dir.or_else(systemd_state_dir).unwrap_or_else(|| {
            let directory = |name| std::env::var_os(name).map(PathBuf::from);
            let is_root = rustix::process::geteuid().is_root();
            usual_state_dir(is_root, directory("XDG_STATE_HOME"), directory("HOME"))
        });
        let secs =
            |key, value, usual, max| within(key, value, usual, 1, max).map(Duration::from_secs);
        let count = |key, value, usual, max| {
            within(key, value, usual, 1, max)
                .and_then(|n| usize::try_from(n).map_err(|_| format!("{key}: too large")))
        };
        let lease = within("lease_secs", raw.lease_secs, 60, 3, 86_400)?;
        Ok(Self {
            url,
            name,
            secret: Secret::new(secret),
            ca_file: raw.ca_file,
            state_dir: absolute("state_dir", state_dir)?,
            tasks_dir: raw.tasks_dir.map(|dir| absolute("tasks_dir", dir)).transpose()?,
            allow: allowed(raw.allow)?,
            command_max: secs("command_secs_max", raw.command_secs_max, 600, 86_400)?,
            output_bytes_max: count("output_bytes_max", raw.output_bytes_max, 1 << 20, 1 << 26)?,
            file_bytes_max: within("file_bytes_max", raw.file_bytes_max, 1 << 30, 1, 1 << 40)?,
            transfer_max: secs("transfer_secs_max", raw.transfer_secs_max, 3600, 86_400)?,
            concurrency: count("concurrency", raw.concurrency, 4, 64)?,
            lease: Duration::from_secs(lease),
            finish_max: secs("finish_secs_max", raw.finish_secs_max, 30, 3600)?,
        })
    }
}

/// Whether `name` can be an agent's: it stands before a colon in a header.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!("it must have 1 to {NAME_BYTES_MAX} bytes"));
    }
    if name.contains(|c: char| c == ':' || c.is_control()) {
        return Err("it must have no colon and no control character".to_owned());
    }
    Ok(())
}

fn within(key: &str, value: Option<u64>, usual: u64, min: u64, max: u64) -> Result<u64, String> {
    let value = value.unwrap_or(usual);
    if (min..=max).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{key}: must be {min} to {max}"))
    }
}

fn absolute(key: &str, path: PathBuf) -> Result<PathBuf, String> {
    if path.is_absolute() { Ok(path) } else { Err(format!("{key}: must be an absolute path")) }
}

fn allowed(types: Option<Vec<String>>) -> Result<BTreeSet<String>, String> {
    let types = types.unwrap_or_else(|| HARMLESS.map(str::to_owned).to_vec());
    match types.iter().find(|name| !crate::tasks::is_type_name(name)) {
        Some(name) => Err(format!("allow: `{name}` cannot be the name of a type")),
        None => Ok(types.into_iter().collect()),
    }
}

/// Where systemd made a directory for our state.
fn systemd_state_dir() -> Option<PathBuf> {
    let dirs = std::env::var("STATE_DIRECTORY").ok()?;
    dirs.split(':').next().filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// Where the state is when nobody says: what root cannot lack, and everybody else may write.
fn usual_state_dir(is_root: bool, state: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    // An XDG directory that is not absolute is to be ignored, says its specification.
    let absolute = |dir: Option<PathBuf>| dir.filter(|dir| dir.is_absolute());
    let own = absolute(state).or_else(|| absolute(home).map(|home| home.join(".local/state")));
    let own = own.filter(|_| !is_root);
    own.unwrap_or_else(|| "/var/lib".into()).join("gatehouse-agent")
}

/// The text of a file that holds a secret, and a warning when others may read it. A file that others
/// may write is refused: they could make the agent run anything.
fn read_private(file: &Path) -> Result<(String, Option<String>), String> {
    let mut opened = File::open(file).map_err(|error| error.to_string())?;
    let mode = opened.metadata().map_err(|error| error.to_string())?.mode();
    if mode & 0o022 != 0 {
        return Err(format!(
            "others may write it (mode {:04o}), and so decide what runs here; chmod 600 it",
            mode & 0o7777
        ));
    }
    let mut text = String::new();
    let read = opened.by_ref().take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if read.map_err(|error| error.to_string())? as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    let warning = (mode & 0o044 != 0).then(|| {
        let file = file.display();
        format!(
            "{file}: others may read the secret in it (mode {:04o}); chmod 600 it",
            mode & 0o7777
        )
    });
    Ok((text, warning))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LEAST: &str = "url='http://gate'\nname='a'\nsecret='s'\nstate_dir='/s'\n";

    fn read(text: &str, mode: u32) -> Result<(Config, Vec<String>), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        fs::write(dir.path().join("key"), "from file\n").unwrap();
        fs::set_permissions(dir.path().join("key"), Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        Config::read(&file)
    }

    fn check_error(text: &str, part: &str) {
        let error = read(text, 0o600).unwrap_err();
        assert!(error.contains(part), "{text}\n{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_least_that_must_be_said_turns_on_what_only_looks() {
        let (config, warnings) = read(LEAST, 0o600).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(Vec::from_iter(&config.allow), ["dircontents", "proclist", "systeminfo"]);
        assert_eq!((config.concurrency, config.output_bytes_max), (4, 1 << 20));
    }

    #[test]
    fn a_secret_may_stand_in_a_file_of_its_own_beside_the_configuration() {
        let text = LEAST.replace("secret='s'", "secret_file='key'");
        assert!(read(&text, 0o600).unwrap().0.secret.matches("from file"));
    }

    #[test]
    fn the_state_of_who_is_not_root_is_their_own() {
        let check = |is_root, state: Option<&str>, home: Option<&str>, expected: &str| {
            let found = usual_state_dir(is_root, state.map(Into::into), home.map(Into::into));
            assert_eq!(found, Path::new(expected), "{is_root} {state:?} {home:?}");
        };
        check(true, Some("/x"), Some("/root"), "/var/lib/gatehouse-agent");
        check(false, None, Some("/users/u"), "/users/u/.local/state/gatehouse-agent");
        check(false, Some("/x"), Some("/users/u"), "/x/gatehouse-agent");
        check(false, Some("x"), Some("/users/u"), "/users/u/.local/state/gatehouse-agent");
        check(false, None, None, "/var/lib/gatehouse-agent");
    }

    #[test]
    fn a_mistake_is_told_with_its_key() {
        check_error(&LEAST.replace("url", "ulr"), "ulr");
        check_error(&LEAST.replace("name='a'", ""), "`name` is missing");
        check_error(&LEAST.replace("name='a'", "name='a:b'"), "name: ");
        check_error(&LEAST.replace("secret='s'", ""), "`secret` is missing");
        check_error(&LEAST.replace("='s'\n", "=''\n"), "secret: ");
        check_error(&format!("{LEAST}secret_file='key'"), "not both");
        check_error(&LEAST.replace("'/s'", "'s'"), "state_dir: ");
        check_error(&format!("{LEAST}concurrency=65"), "concurrency: must be 1 to 64");
        check_error(&format!("{LEAST}lease_secs=1"), "lease_secs: ");
        check_error(&format!("{LEAST}allow=['../x']"), "allow: ");
        check_error("secret='hunter2'\nsecret='hunter2'", "duplicate");
    }

    #[test]
    fn a_file_that_others_may_read_is_warned_of_and_one_they_may_write_refused() {
        assert_eq!(read(LEAST, 0o640).unwrap().1.len(), 1);
        assert!(read(LEAST, 0o620).unwrap_err().contains("others may write it"));
        assert!(read(LEAST, 0o602).unwrap_err().contains("others may write it"));
    }
}
