//! What each command does, and the exit code.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::config::Config;
use crate::connection::{Connection, Place};
use crate::run::Ended;
use crate::{enrolment, process, run, supervisor};

/// Runs the program: reads the command line, does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Supervise => return supervisor::run(),
        Command::Run { file, verbose } => {
            log_to_errors(verbose);
            work(&file.config)
        }
        Command::Enroll { identity, token } => {
            log_to_errors(false);
            enrolment::enroll(&identity, &token).and_then(|()| print("Enrolled."))
        }
        Command::Register { identity } => {
            log_to_errors(false);
            enrolment::register(&identity).and_then(|()| print("Registered."))
        }
        Command::Check { file } => {
            log_to_errors(false);
            read(&file.config).and_then(|_| print("OK."))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // That nobody reads it is no reason to fail otherwise.
            let _ = writeln!(io::stderr(), "gatehouse-agent: {why}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<(), String> {
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())
}

fn log_to_errors(verbose: bool) {
    let level = if verbose { tracing::Level::INFO } else { tracing::Level::WARN };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false)
        .with_writer(|| Unheard(io::stderr()));
    // The journal knows the time itself.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}

/// Standard errors, or nothing once nobody listens there: a journal that restarts must not end us.
struct Unheard(io::Stderr);

impl Write for Unheard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

fn read(file: &Path) -> Result<Config, String> {
    let (config, warnings) = Config::read(file)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if Place::parse(&config.url)?.is_open() {
        tracing::warn!("{}: no TLS: the secret and all tasks can be read on the way", config.url);
    }
    Connection::new(&config.url, None, config.ca_file.as_deref())?;
    Ok(config)
}

fn work(file: &Path) -> Result<(), String> {
    match run::run(read(file)?)? {
        Ended::Stopped => Ok(()),
        Ended::Replaced(program) => {
            tracing::info!("restarting as {}", program.display());
            let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
            let error = process::become_anew(&program, &arguments);
            Err(format!("restarting as {}: {error}", program.display()))
        }
    }
}
