//! What each command does: mostly, which library is asked.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use cli::CliError;
use cli::connection::{Connection, ConnectionOptions, KEY_VARIABLE};
use cli::plugin::PluginCommand;
use plugins::python::package::Package;
use server::announce::Announce;
use server::config::{self, Config, Overrides};
use server::site::{Origin, Source};
use server::startup::{self, StartError};

use crate::arguments::{ConfigCommand, PluginWithFile, ServeArgs, ServerArgs, Task};

/// The files that are looked for when none is named.
const USUAL_FILES: [&str; 2] = ["gatehouse.ini", "gatehouse.toml"];

impl Task {
    /// Does it.
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Serve(arguments) => serve(arguments),
            Self::Config(ConfigCommand::Check { file }) => check(file),
            Self::Config(ConfigCommand::Import { file }) => import(&file),
            Self::Config(ConfigCommand::Show { ini_file, default, json }) => {
                show(ini_file, default, json)
            }
            Self::Plugin(arguments) => plugin(arguments),
            Self::Server(arguments) => serve_tasks(arguments),
            Self::Database(command) => command.run(),
            Self::Image(arguments) => arguments.run(),
            Self::Dispatch(command) => command.main(&configured_if_any),
            Self::Container(command) => command.run(&|file| read(file, false)),
            Self::Older(call) => call.run(),
        }
    }
}

/// A message for the operator. That nobody reads it is no reason to fail otherwise.
fn complain(message: impl std::fmt::Display) -> ExitCode {
    let _ = writeln!(io::stderr(), "gatehouse: {message}");
    ExitCode::FAILURE
}

fn print(text: impl std::fmt::Display) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(error),
    }
}

/// The file that is meant: the one that was named, else a usual one in this directory.
pub(crate) fn find_file(named: Option<PathBuf>) -> Result<PathBuf, String> {
    let usual = || USUAL_FILES.iter().map(PathBuf::from).find(|path| path.is_file());
    named.or_else(usual).ok_or_else(|| {
        format!(
            "no configuration: name one with -i FILE, put {} into this directory, or use --default",
            USUAL_FILES.join(" or ")
        )
    })
}

fn origin(named: Option<PathBuf>, default: bool, overrides: Overrides) -> Result<Origin, String> {
    let file = if default { None } else { Some(find_file(named)?) };
    Ok(Origin { source: file.map_or(Source::Default, Source::File), overrides })
}

fn serve(arguments: ServeArgs) -> ExitCode {
    let overrides = Overrides {
        log_file: arguments.log,
        level: arguments.level,
        bind: arguments.bind,
        port: arguments.port,
        ..Overrides::default()
    };
    let origin = match origin(arguments.ini_file, arguments.default, overrides) {
        Ok(origin) => origin,
        Err(message) => return complain(message),
    };
    let announce = if arguments.default { Announce::LinesAndHints } else { Announce::Lines };
    run(&startup::Options { origin, watch: arguments.watch, announce })
}

fn serve_tasks(arguments: ServerArgs) -> ExitCode {
    let overrides = Overrides {
        bind: arguments.bind,
        port: Some(arguments.port),
        database: Some(arguments.database),
        ..Overrides::default()
    };
    let origin = Origin { source: Source::Tasks, overrides };
    run(&startup::Options { origin, watch: false, announce: Announce::Lines })
}

fn run(options: &startup::Options) -> ExitCode {
    match startup::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ StartError::Database(_)) => {
            complain(error);
            ExitCode::from(2)
        }
        Err(error) => complain(error),
    }
}

fn read(file: Option<PathBuf>, default: bool) -> Result<Config, String> {
    let origin = origin(file, default, Overrides::default())?;
    origin.read().map_err(|problems| problems.to_string())
}

/// The same reading as at start and reload; nothing is opened or bound.
fn check(file: PathBuf) -> ExitCode {
    let shown = file.display().to_string();
    match read(Some(file), false) {
        Ok(config) => {
            for warning in &config.warnings {
                let _ = writeln!(io::stderr(), "warning: {warning}");
            }
            print(format!("{shown}: no mistakes"))
        }
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            ExitCode::FAILURE
        }
    }
}

fn import(file: &std::path::Path) -> ExitCode {
    let shown = file.display().to_string();
    match std::fs::read_to_string(file) {
        Err(error) => complain(format!("{shown}: {error}")),
        Ok(text) => match config::import(&shown, &text) {
            Ok(page) => print(page.trim_end()),
            Err(problems) => complain(problems),
        },
    }
}

fn show(file: Option<PathBuf>, default: bool, json: bool) -> ExitCode {
    match read(file, default) {
        Ok(config) if json => print(config::show_json(&config)),
        Ok(config) => print(config::show(&config).trim_end()),
        Err(problems) => complain(problems),
    }
}

fn plugin(mut arguments: PluginWithFile) -> ExitCode {
    if let (PluginCommand::New { directory: directory @ None, .. }, Some(file)) =
        (&mut arguments.plugin.command, &arguments.ini_file)
    {
        match read(Some(file.clone()), false) {
            Ok(config) => *directory = config.paths.plugins.first().cloned(),
            Err(problems) => return complain(problems),
        }
    }
    let arguments = &arguments;
    let connect = |options: &ConnectionOptions| {
        let key = std::env::var(KEY_VARIABLE).ok();
        options.resolve(key, || configured(arguments.ini_file.clone()))
    };
    let result = cli::plugin::run(&arguments.plugin, connect, package, &mut io::stdout());
    cli::end(result, arguments.plugin.json, &mut io::stderr())
}

/// The directory that holds `plugincore`: the same that workers of this program import it from.
fn package() -> Result<PathBuf, CliError> {
    let refused = |error| CliError::Refused(format!("no place for the Python package: {error}"));
    let mut path = Package::install().map_err(refused)?.program().to_owned();
    path.pop();
    Ok(path)
}

/// The server of the configuration file that is named or found, if there is one.
fn configured_if_any(file: Option<PathBuf>) -> Result<Option<Connection>, CliError> {
    let file = file.or_else(|| find_file(None).ok());
    file.map(|file| configured(Some(file))).transpose()
}

/// The server that the configuration file describes; without a file, the embedded configuration's.
fn configured(file: Option<PathBuf>) -> Result<Connection, CliError> {
    let default = file.is_none() && find_file(None).is_err();
    let config = read(file, default).map_err(CliError::Refused)?;
    let host = match config.network.bind_to.as_str() {
        // "Every address" includes this machine's own.
        "0.0.0.0" | "" => "127.0.0.1".to_owned(),
        "::" | "[::]" => "[::1]".to_owned(),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    Ok(Connection {
        url: format!("{scheme}://{host}:{}", config.network.port),
        key: config.apikey,
        // A certificate that this machine's configuration names is one to trust.
        ca_file: config.tls.map(|tls| tls.certfile),
    })
}
