//! `start`: looks, asks, makes what may be made, and has the server run.
//!
//! Invariant: whatever keeps the server from starting is told by the process that was called, with the exit code of a
//! failure; a process that was told that the server runs finds its pid file written.
//! Not here: how a process is made (`launch`).

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, lchown};
use std::path::{Path, PathBuf};

use serde_json::json;
use server::announce::Announce;
use server::config::containers::Containers;
use server::config::{Config, Effective, Level, Origin, Role};
use server::site;
use server::startup::{self, StartError};
use server::tcp::rsa_keys::BITS_DEFAULT;

use super::environment::Faults;
use super::launch::{self, Launch, Place};
use super::user::{self, User};
use super::{Failure, General, Outcome, StartArgs, WITHOUT, stop};
use crate::container_commands::{Done, said};

/// Where a user's server keeps what it has, when root starts it.
const STATE_OF_USERS: &str = "/var/lib";

/// Does it; `None` when this process has served and said what there was to say.
pub(super) fn start(arguments: &StartArgs, general: &General) -> Option<Outcome> {
    let outcome = match arguments.prepared {
        Some(place) => serve(arguments, general, place).map(|()| None),
        None => prepare(arguments, general),
    };
    outcome.transpose()
}

/// Ends the server if it runs, then starts it. What is known to keep it from starting leaves it running.
pub(super) fn restart(arguments: &StartArgs, general: &General) -> Option<Outcome> {
    let ended = may_start(arguments, general).and_then(|()| {
        if arguments.check { Ok(()) } else { stop::end_if_running(general, role(arguments)) }
    });
    match ended {
        Ok(()) => start(arguments, general),
        Err(failure) => Some(Err(failure)),
    }
}

fn may_start(arguments: &StartArgs, general: &General) -> Result<(), Failure> {
    let config = general.read(role(arguments))?;
    let containers = config.containers.as_ref().ok_or_else(|| WITHOUT.to_owned())?;
    if arguments.skip_check {
        return Ok(());
    }
    refuse(&general.file()?, Faults::of(&config, containers, false).told)
}

/// Whether to make something: as the options say, else as whoever sits there says.
struct Questions<'a>(&'a StartArgs);

impl Questions<'_> {
    fn ask(&self, question: &str) -> bool {
        if self.0.assume_yes || self.0.assume_no {
            return self.0.assume_yes;
        }
        if !io::stdin().is_terminal() {
            return false;
        }
        let mut answer = String::new();
        // Who cannot be asked has not said yes.
        let asked = write!(io::stderr(), "{question} [y/N] ").is_ok();
        asked
            && io::stdin().lock().read_line(&mut answer).is_ok()
            && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }
}

fn role(arguments: &StartArgs) -> Role {
    if arguments.web { Role::Web } else { Role::Classic }
}

fn prepare(arguments: &StartArgs, general: &General) -> Result<Option<Done>, Failure> {
    let config = general.read(role(arguments))?;
    let containers = config.containers.as_ref().ok_or_else(|| WITHOUT.to_owned())?;
    let file = general.file()?;
    let running = stop::running(&config)?;
    if arguments.check {
        // Its port is taken by itself.
        let faults = Faults::of(&config, containers, running.is_none()).all(containers);
        return refuse(&file, faults).map(|()| {
            let text = format!("{}: nothing is wrong with it or its environment", file.display());
            Some(Done { text, data: json!({ "errors": [] }) })
        });
    }
    if let Some(pid) = running {
        return Err(format!("the server runs already, pid {pid}").into());
    }
    let user = user::to_become(&config);
    if !arguments.skip_check {
        let mut faults = Faults::of(&config, containers, true);
        make_what_may_be(
            &mut faults,
            containers,
            user.as_ref().ok().and_then(Option::as_ref),
            arguments,
        )?;
        refuse(&file, faults.all(containers))?;
    }
    let launch = launch(arguments, general, &file, user?.as_ref(), &config)?;
    if arguments.foreground {
        return Err(launch.become_it().into());
    }
    let pid = launch.in_background(config.log.file.as_deref())?;
    let mut text = format!("the server runs, pid {pid}");
    if config.log.file.is_none() {
        text.push_str(" (without a log: no `log_file_path` is configured)");
    }
    Ok(Some(Done { text, data: json!({ "pid": pid }) }))
}

fn refuse(file: &Path, faults: Vec<String>) -> Result<(), Failure> {
    if faults.is_empty() {
        return Ok(());
    }
    let told: Vec<String> =
        faults.iter().map(|fault| format!("{}: {fault}", file.display())).collect();
    Err(Failure { text: told.join("\n"), data: json!({ "errors": faults }) })
}

/// Makes folders and keys, where the answer is yes.
fn make_what_may_be(
    faults: &mut Faults,
    containers: &Containers,
    user: Option<&User>,
    arguments: &StartArgs,
) -> Result<(), Failure> {
    let questions = Questions(arguments);
    let mut left = Vec::new();
    for (folder, key) in std::mem::take(&mut faults.folders) {
        // Two files may lie in one.
        if folder.is_dir() {
            continue;
        }
        if !questions.ask(&format!("{key}: there is no folder {}. Make it?", folder.display())) {
            left.push((folder, key));
            continue;
        }
        make_folder(&folder, user)?;
    }
    faults.folders = left;
    let keys = &containers.key_files;
    if faults.lacks_private_key
        && questions.ask(&format!(
            "The key {} is not there. Make new keys, by which clients know this server as another?",
            keys.private.display()
        ))
    {
        keys.make(BITS_DEFAULT).map_err(|error| error.to_string())?;
        for file in [&keys.private, &keys.public] {
            give(file, user)?;
        }
        faults.lacks_private_key = false;
    }
    Ok(())
}

fn make_folder(folder: &Path, user: Option<&User>) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("making {}: {error}", folder.display()))?;
    give(folder, user)
}

fn give(path: &Path, user: Option<&User>) -> Result<(), String> {
    let Some(user) = user else { return Ok(()) };
    // Never what a link leads to.
    lchown(path, Some(user.uid), Some(user.gid))
        .map_err(|error| format!("giving {} to {}: {error}", path.display(), user.name))
}

/// Makes the folder of the pid file where that is the folder of machines, which is its owner's alone.
fn make_private(config: &Config) -> Result<(), String> {
    let state = config.containers.as_ref().map(|containers| &containers.machines.state);
    let folder = config.paths.pidfile.as_deref().and_then(Path::parent);
    let Some(folder) = folder.filter(|folder| Some(*folder) == state.map(PathBuf::as_path)) else {
        return Ok(());
    };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| format!("{}: {error}", folder.display()))
}

/// Where the server of that user keeps what it has: in its state where that is configured, else beside those of others.
fn folders_of(user: &User, config: &Config) -> Result<Vec<(&'static str, PathBuf)>, String> {
    let mut settings = config.effective.iter();
    let is_state = |it: &&Effective| it.section == "containers" && it.key == "state";
    let is_given = settings.find(is_state).is_some_and(|it| it.origin != Origin::Default);
    let given = config.containers.as_ref().filter(|_| is_given);
    let home = given.map_or_else(
        || Path::new(STATE_OF_USERS).join(&user.name),
        |containers| containers.machines.state.clone(),
    );
    if !home.is_dir() {
        make_folder(&home, Some(user))?;
    }
    Ok(vec![
        ("HOME", home.clone()),
        ("XDG_CACHE_HOME", home.join("cache")),
        ("XDG_STATE_HOME", home),
    ])
}

/// The call that serves. From here on this process is the user that the server is to be.
fn launch(
    arguments: &StartArgs,
    general: &General,
    file: &Path,
    user: Option<&User>,
    config: &Config,
) -> Result<Launch, String> {
    let mut environment = Vec::new();
    if arguments.enable_traceback_log {
        environment.push(("RUST_BACKTRACE", PathBuf::from("1")));
    }
    match user {
        Some(user) => {
            environment.extend(folders_of(user, config)?);
            user.become_it()
                .map_err(|error| format!("becoming the user {}: {error}", user.name))?;
        }
        None => make_private(config)?,
    }
    let place = if arguments.foreground { "foreground" } else { "background" };
    let mut call: Vec<OsString> = vec!["start".into(), "--prepared".into(), place.into()];
    call.extend(["--config".into(), file.into()]);
    let switches = [
        ("--json", general.json || !arguments.foreground),
        ("--web", arguments.web),
        ("--enable-stdout-log", arguments.enable_stdout_log && arguments.foreground),
        ("--enable-traceback-log", arguments.enable_traceback_log),
    ];
    call.extend(switches.iter().filter(|switch| switch.1).map(|switch| switch.0.into()));
    Ok(Launch { arguments: call, environment })
}

/// Serves until a signal ends it.
fn serve(arguments: &StartArgs, general: &General, place: Place) -> Result<(), Failure> {
    if place == Place::Background {
        launch::leave_session().map_err(|error| format!("leaving the session: {error}"))?;
    }
    let mut origin = general.origin(role(arguments))?;
    origin.overrides.log_to_stdout = arguments.enable_stdout_log;
    origin.overrides.level = arguments.enable_traceback_log.then_some(Level::Debug);
    let announce = Announce::Ready(if general.json { ready_as_json } else { ready });
    let options = startup::Options { origin: origin.clone(), watch: false, announce };
    startup::run(&options).map_err(|error| in_older_words(&error, &origin).into())
}

fn ready() -> String {
    format!("the server runs, pid {}", std::process::id())
}

fn ready_as_json() -> String {
    said("OK", "OK", &json!({ "pid": std::process::id() }))
}

/// Why it did not start, by the keys of the older program's file.
fn in_older_words(error: &StartError, origin: &site::Origin) -> String {
    let section = if origin.overrides.role == Role::Web { "web_server" } else { "server" };
    match error {
        StartError::Log(error) => format!("{section}.log_file_path: {error}"),
        StartError::Pidfile(path, error) => {
            format!("{section}.pid_file_path: {}: {error}", path.display())
        }
        other => other.to_string(),
    }
}
