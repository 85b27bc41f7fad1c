//! The command line of the program `anwdlserver`: through a link of that name its calls go on to work.
//!
//! Invariant: options are those of its versions 4.x, and those of 1.x that mean nothing else there; exit codes are 0 and
//! 255, and with `--json` standard output is one object.
//! Not here: what keys and access tokens are (`container_commands`), and the server itself.

mod environment;
mod launch;
mod start;
mod stop;
mod user;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Args, Parser, Subcommand};
use serde_json::{Value, json};
use server::config::{Config, Overrides, Role};
use server::site::{Origin, Source};
use server::tcp::rsa_keys::BITS_DEFAULT;

use crate::arguments::{ContainerArgs, ContainerOptions, KeysCommand, TokenCommand};
use crate::commands::find_file;
use crate::container_commands::{Done, WITHOUT, said};

/// Where that program has its configuration.
const USUAL_FILE: &str = "/etc/anweddol/config.yaml";
/// The exit code of whatever fails.
const FAILURE: u8 = 255;

/// Lends temporary machines: the command line of the program of that name
#[derive(Debug, Parser)]
#[command(name = "anwdlserver", version, infer_long_args = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    general: General,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct General {
    /// The configuration file [default: /etc/anweddol/config.yaml, else gatehouse.ini or gatehouse.toml in this
    /// directory]
    #[arg(short = 'i', long, global = true, value_name = "FILE", env = "ANWDLSERVER_CONFIG")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server, in the background unless `-d` is given
    Start(StartArgs),
    /// End the server, and that of `start --web`
    Stop {
        /// End that of `start --web` alone
        #[arg(long)]
        web: bool,
    },
    /// End the server if it runs, then run it
    Restart(StartArgs),
    /// Look after access tokens
    AccessTk(TokenArgs),
    /// Make new RSA keys in the place of the old ones
    RegenRsa {
        /// 2048, 3072, 4096 or 8192
        #[arg(short, long, default_value_t = BITS_DEFAULT)]
        bits: u32,
    },
}

/// Arguments of `start`.
#[derive(Debug, Clone, Args)]
struct StartArgs {
    /// Check the environment and start nothing
    #[arg(short, long)]
    check: bool,
    /// Stay in the foreground
    #[arg(short = 'd', long)]
    foreground: bool,
    /// Serve /stat, /create and /destroy by HTTP instead of the encrypted protocol
    #[arg(long)]
    web: bool,
    /// Answer every question with yes
    #[arg(short = 'y', long, conflicts_with = "assume_no")]
    assume_yes: bool,
    /// Answer every question with no
    #[arg(short = 'n', long)]
    assume_no: bool,
    /// Write the log to standard output as well (with -d)
    #[arg(long)]
    enable_stdout_log: bool,
    /// Log how errors came about
    #[arg(long)]
    enable_traceback_log: bool,
    /// Start without checking the environment
    #[arg(long)]
    skip_check: bool,
    /// Everything is prepared: this is the process that serves
    #[arg(long, hide = true, value_enum)]
    prepared: Option<launch::Place>,
}

/// Arguments of `access-tk`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
struct TokenArgs {
    /// Make one and print it
    #[arg(short, long, group = "what")]
    add: bool,
    /// With -a: it lets nobody in until it is enabled
    #[arg(long, requires = "add")]
    disabled: bool,
    /// List all
    #[arg(short, long, group = "what")]
    list: bool,
    /// Forget this one
    #[arg(short, visible_short_alias = 'r', long, group = "what", value_name = "ID")]
    delete: Option<i64>,
    /// Let people in with this one again
    #[arg(short, long, group = "what", value_name = "ID")]
    enable: Option<i64>,
    /// Let nobody in with this one any more
    #[arg(long, group = "what", value_name = "ID")]
    disable: Option<i64>,
}

/// A call of the program.
#[derive(Debug)]
pub(crate) struct Call {
    line: Result<Line, clap::Error>,
    as_json: bool,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
struct Failure {
    text: String,
    data: Value,
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self { text, data: json!({}) }
    }
}

type Outcome = Result<Done, Failure>;

/// Reads the arguments, the program's name first.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Call {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // What cannot be read is answered in the shape that was asked for, too.
    let as_json = arguments.iter().any(|argument| argument == "--json");
    Call { line: Line::try_parse_from(arguments), as_json }
}

impl Call {
    /// Does it.
    pub(crate) fn run(self) -> ExitCode {
        let Line { command, general } = match self.line {
            Ok(line) => line,
            Err(error) => return complain(&error, self.as_json),
        };
        let outcome = match command {
            Command::Start(arguments) => match start::start(&arguments, &general) {
                Some(outcome) => outcome,
                // It has served, and said what there was to say.
                None => return ExitCode::SUCCESS,
            },
            Command::Restart(arguments) => match start::restart(&arguments, &general) {
                Some(outcome) => outcome,
                None => return ExitCode::SUCCESS,
            },
            Command::Stop { web } => stop::stop(&general, web),
            Command::AccessTk(arguments) => {
                of_files(&ContainerArgs::Token(arguments.command()), &general)
            }
            Command::RegenRsa { bits } => {
                let command = KeysCommand::Regenerate { bits, options: unused() };
                of_files(&ContainerArgs::Keys(command), &general)
            }
        };
        end(outcome, general.json)
    }
}

impl TokenArgs {
    fn command(&self) -> TokenCommand {
        let options = unused();
        match (self.delete, self.enable, self.disable) {
            (Some(id), ..) => TokenCommand::Delete { id, options },
            (_, Some(id), _) => TokenCommand::Enable { id, options },
            (.., Some(id)) => TokenCommand::Disable { id, options },
            _ if self.add => TokenCommand::Add { disabled: self.disabled, options },
            _ => TokenCommand::List { options },
        }
    }
}

/// What [`General`] says already.
fn unused() -> ContainerOptions {
    ContainerOptions { ini_file: None, json: false }
}

fn of_files(command: &ContainerArgs, general: &General) -> Outcome {
    let config = general.read(Role::Classic)?;
    let containers = config.containers.as_ref().ok_or_else(|| WITHOUT.to_owned())?;
    let Some(user) = user::to_become(&config)? else { return Ok(command.outcome(containers)?) };
    let keys = &containers.key_files;
    let files = [&keys.public, &keys.private, &containers.access_token_file];
    // In folders of that user root must touch nothing: what has the name of a key there may be a link to anything.
    if files.iter().any(|file| is_in_folder_of(file, user.uid)) {
        user.become_it().map_err(|error| format!("becoming {}: {error}", user.name))?;
        return Ok(command.outcome(containers)?);
    }
    let done = command.outcome(containers)?;
    // What root makes is the server's, who is not root.
    for file in files.into_iter().filter(|file| file.exists()) {
        let told = |error| format!("giving {} to {}: {error}", file.display(), user.name);
        lchown(file, Some(user.uid), Some(user.gid)).map_err(told)?;
    }
    Ok(done)
}

/// Whether the folder of `file`, or the first one above it that is there, is that user's.
fn is_in_folder_of(file: &Path, uid: u32) -> bool {
    let folders = file.ancestors().skip(1);
    let found = folders.filter_map(|folder| folder.metadata().ok()).next();
    found.is_some_and(|folder| folder.uid() == uid)
}

impl General {
    fn file(&self) -> Result<PathBuf, String> {
        let usual = PathBuf::from(USUAL_FILE);
        let named = self.config.clone().or_else(|| usual.is_file().then_some(usual));
        find_file(named).map_err(|_| {
            format!(
                "there is no {USUAL_FILE}, and no gatehouse.ini or gatehouse.toml in this directory: name the \
                 configuration with --config FILE or ANWDLSERVER_CONFIG"
            )
        })
    }

    fn origin(&self, role: Role) -> Result<Origin, String> {
        let overrides = Overrides { role, ..Overrides::default() };
        Ok(Origin { source: Source::File(self.file()?), overrides })
    }

    fn read(&self, role: Role) -> Result<Config, String> {
        self.origin(role)?.read().map_err(|problems| problems.to_string())
    }
}

/// Says why a command line is none, or what was asked about it.
fn complain(error: &clap::Error, as_json: bool) -> ExitCode {
    if !error.use_stderr() {
        // With nowhere left to say it, there is nothing to do.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned();
    end(Err(text.into()), as_json)
}

/// Says what came of it.
fn end(outcome: Outcome, as_json: bool) -> ExitCode {
    let is_done = outcome.is_ok();
    let is_said = match (outcome, as_json) {
        (Ok(done), true) => print(&said("OK", "OK", &done.data)),
        (Ok(done), false) => done.text.is_empty() || print(&done.text),
        (Err(failure), true) => print(&said("ERROR", &failure.text, &failure.data)),
        (Err(failure), false) => writeln!(io::stderr(), "anwdlserver: {}", failure.text).is_ok(),
    };
    if is_done && is_said { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) }
}

fn print(text: &str) -> bool {
    writeln!(io::stdout(), "{text}").is_ok()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Line, parse};

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let arguments = ["anwdlserver"].into_iter().chain(line.split_whitespace());
        let found = match parse(arguments.map(Into::into)).line {
            Ok(line) => match line.command {
                super::Command::AccessTk(arguments) => format!("{:?}", arguments.command()),
                command => format!("{command:?}"),
            },
            Err(error) => error.render().to_string(),
        };
        assert!(found.contains(expected), "{line}: {found}");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn calls_on_keys_and_tokens_are_taken() {
        check("regen-rsa", "RegenRsa { bits: 4096");
        check("regen-rsa -b 2048 --json", "RegenRsa { bits: 2048");
        check("access-tk -a", "Add { disabled: false");
        check("access-tk --json -a --disabled", "Add { disabled: true");
        check("access-tk -l", "List {");
        for delete in ["-d", "-r"] {
            check(&format!("access-tk {delete} 3"), "Delete { id: 3");
        }
        for enable in ["--enable", "-e"] {
            check(&format!("access-tk {enable} 3"), "Enable { id: 3");
        }
        check("access-tk --disable 3", "Disable { id: 3");
    }

    #[test]
    fn calls_on_the_server_are_taken() {
        check("start", "Start(StartArgs { check: false, foreground: false, web: false");
        check("start -cd --web", "Start(StartArgs { check: true, foreground: true, web: true");
        for yes in ["-y", "--assume-yes"] {
            check(&format!("start {yes}"), "assume_yes: true, assume_no: false");
        }
        for no in ["-n", "--assume-no"] {
            check(&format!("start {no}"), "assume_yes: false, assume_no: true");
        }
        let all = "start --enable-stdout-log --enable-traceback-log --skip-check --json";
        check(all, "enable_stdout_log: true, enable_traceback_log: true, skip_check: true");
        check("stop --json", "Stop { web: false }");
        check("restart -d", "Restart(StartArgs { check: false, foreground: true");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        check("access-tk -d x", "invalid value 'x'");
        check("access-tk -l -a", "cannot be used with");
        check("access-tk", "Usage: anwdlserver");
        check("start -y -n", "cannot be used with");
        check("serve", "unrecognized subcommand");
        check("", "Usage: anwdlserver");
    }
}
