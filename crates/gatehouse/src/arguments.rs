//! The command line, as typed.
//!
//! Called as `gatehouse` the program has commands; called through a link named `pserve`, `dutserver` or
//! `anwdlserver` it takes what that program takes.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use cli::dispatch::DispatchCommand;
use cli::plugin::PluginArgs;
use server::config::Level;

use crate::anwdlserver;
use crate::dutserver::{self, Complaint};
use crate::image_commands::ImageArgs;

/// What to do.
#[derive(Debug)]
pub(crate) enum Task {
    /// Serve.
    Serve(ServeArgs),
    /// Look at a configuration.
    Config(ConfigCommand),
    /// Look after plugins of a running server.
    Plugin(PluginWithFile),
    /// Serve without a configuration file.
    Server(ServerArgs),
    /// Do something with a database.
    Database(DatabaseCommand),
    /// Look after the images that machines are started from.
    Image(ImageArgs),
    /// Speak to a running server about agents, tasks and events.
    Dispatch(DispatchCommand),
    /// Look after the keys and access tokens of the container protocol.
    Container(ContainerArgs),
    /// Do what the program `anwdlserver` does.
    Older(Box<anwdlserver::Call>),
}

/// One self-hosted server: drop a plugin into a folder, get an authenticated HTTP endpoint.
#[derive(Debug, Parser)]
#[command(name = "gatehouse", version)]
struct Gatehouse {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Check a configuration, or show what is in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List, reload, load, unload or write plugins
    Plugin(PluginWithFile),
    /// Run a server for agents, on every interface, without a configuration file
    Server(ServerArgs),
    /// Build, list, check or remove the images that machines are started from
    Image(ImageArgs),
    #[command(flatten)]
    Database(DatabaseCommand),
    #[command(flatten)]
    Dispatch(DispatchCommand),
    /// Show or replace the server's RSA keys, by which container clients know it
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Add, list, disable, enable or delete access tokens of container clients
    #[command(subcommand)]
    AccessToken(TokenCommand),
}

/// Where the settings of the container protocol stand, and how to answer.
#[derive(Debug, Args)]
pub(crate) struct ContainerOptions {
    /// The configuration file; without it gatehouse.ini or gatehouse.toml in this directory
    #[arg(short = 'i', long = "ini-file", value_name = "FILE")]
    pub(crate) ini_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A command for keys or access tokens.
#[derive(Debug)]
pub(crate) enum ContainerArgs {
    /// For keys.
    Keys(KeysCommand),
    /// For access tokens.
    Token(TokenCommand),
}

/// Arguments of `gatehouse keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Print the SHA-256 of the public key's file; the keys are made when they are not there
    Fingerprint {
        #[command(flatten)]
        options: ContainerOptions,
    },
    /// Make new keys in the place of the old ones; a running server has them after its next start
    Regenerate {
        /// 2048, 3072, 4096 or 8192
        #[arg(short, long, default_value_t = server::tcp::rsa_keys::BITS_DEFAULT)]
        bits: u32,
        #[command(flatten)]
        options: ContainerOptions,
    },
}

/// Arguments of `gatehouse access-token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make one and print it; it cannot be seen again
    Add {
        /// It lets nobody in until it is enabled
        #[arg(long)]
        disabled: bool,
        #[command(flatten)]
        options: ContainerOptions,
    },
    /// List the numbers of all
    List {
        #[command(flatten)]
        options: ContainerOptions,
    },
    /// Let nobody in with this one any more
    Disable {
        /// Its number
        id: i64,
        #[command(flatten)]
        options: ContainerOptions,
    },
    /// Let people in with this one again
    Enable {
        /// Its number
        id: i64,
        #[command(flatten)]
        options: ContainerOptions,
    },
    /// Forget this one
    Delete {
        /// Its number
        id: i64,
        #[command(flatten)]
        options: ContainerOptions,
    },
}

/// Arguments of `gatehouse serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration file (INI, or TOML when it ends in .toml); without it gatehouse.ini or
    /// gatehouse.toml in this directory
    #[arg(short = 'i', long = "ini-file", visible_alias = "config", value_name = "FILE")]
    pub(crate) ini_file: Option<PathBuf>,
    /// Use the embedded configuration: port 9192 on this machine, plugins from ./plugins
    #[arg(long, conflicts_with = "ini_file")]
    pub(crate) default: bool,
    /// Write the log to this file
    #[arg(short = 'l', long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// How much is logged: error, warning, info or debug
    #[arg(short = 'v', long, value_name = "LEVEL", value_parser = level)]
    pub(crate) level: Option<Level>,
    /// Listen on this address instead of the configured one
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bind: Option<String>,
    /// Listen on this port instead of the configured one; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Reload by itself when a plugin or the configuration changes (for development)
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Arguments of `gatehouse server`.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The port to listen on; 0 takes a free one
    pub(crate) port: u16,
    /// The file with accounts, tasks and events; made when it is not there
    #[arg(value_name = "DB")]
    pub(crate) database: PathBuf,
    /// Listen on this address instead of every interface
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bind: Option<String>,
}

/// What can be done with a database, also while a server has it open.
#[derive(Debug, Subcommand)]
pub(crate) enum DatabaseCommand {
    /// Add an account; its password is asked for, or read from standard input
    #[command(name = "addaccount")]
    AddAccount {
        /// The database; made when it is not there
        #[arg(value_name = "DB")]
        database: PathBuf,
        /// The account's name
        name: String,
        /// agent, admin, operator or viewer
        #[arg(value_name = "TYPE")]
        role: String,
    },
    /// Add an agent that is known by a hardware id (the later protocol); the id is asked for
    #[command(name = "addagent")]
    AddAgent {
        /// The database; made when it is not there
        #[arg(value_name = "DB")]
        database: PathBuf,
        /// The agent's name
        name: String,
    },
    /// Add an admin who is known by a pass-code alone (the later protocol); it is asked for
    #[command(name = "addpasscode")]
    AddPasscode {
        /// The database; made when it is not there
        #[arg(value_name = "DB")]
        database: PathBuf,
    },
    /// Remove the admin with this pass-code; it is asked for
    #[command(name = "removepasscode")]
    RemovePasscode {
        /// The database
        #[arg(value_name = "DB")]
        database: PathBuf,
    },
    /// Remove an account with its sessions, tasks and events
    Remove {
        /// The database
        #[arg(value_name = "DB")]
        database: PathBuf,
        /// The account's name
        name: String,
    },
    /// List the accounts
    Accounts {
        /// The database
        #[arg(value_name = "DB")]
        database: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a copy of the database to a new file, also while a server runs
    Backup {
        /// The database
        #[arg(value_name = "DB")]
        database: PathBuf,
        /// The copy
        file: PathBuf,
    },
    /// Put a copy in the place of a database that no server has open
    Restore {
        /// The copy
        file: PathBuf,
        /// The database
        #[arg(value_name = "DB")]
        database: PathBuf,
    },
}

/// Arguments of `gatehouse config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Tell everything that is wrong with a file
    Check {
        /// The configuration file
        file: PathBuf,
    },
    /// Make a configuration of a config.yaml of anwdlserver, and print it as TOML
    Import {
        /// That file
        file: PathBuf,
    },
    /// Print every value in force and where it comes from; secrets are masked
    Show {
        /// The configuration file; without it gatehouse.ini or gatehouse.toml in this directory
        #[arg(short = 'i', long = "ini-file", value_name = "FILE")]
        ini_file: Option<PathBuf>,
        /// Show the embedded configuration
        #[arg(long, conflicts_with = "ini_file")]
        default: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `gatehouse plugin`.
#[derive(Debug, Args)]
pub(crate) struct PluginWithFile {
    /// The server's configuration file, to find its address and key
    #[arg(short = 'i', long = "ini-file", value_name = "FILE", global = true)]
    pub(crate) ini_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) plugin: PluginArgs,
}

/// Plugin server: the command line of the program of that name
#[derive(Debug, Parser)]
#[command(name = "pserve", version)]
struct Pserve {
    /// The configuration file [default: pserve.ini]
    #[arg(short = 'i', long = "ini-file", value_name = "ini-file")]
    ini_file: Option<PathBuf>,
    /// Set a log file
    #[arg(short = 'l', long, value_name = "file")]
    log: Option<PathBuf>,
    /// Logging level: DEBUG, INFO, WARNING, ERROR or CRITICAL
    #[arg(short = 'v', long, value_name = "level", value_parser = level)]
    level: Option<Level>,
}

fn level(text: &str) -> Result<Level, String> {
    Level::parse(text).ok_or_else(|| "expected error, warning, info or debug".into())
}

/// Reads the command line. What cannot be meant ends the program with a message; what the link `dutserver`
/// does not take comes back as a complaint.
pub(crate) fn parse() -> Result<Task, Complaint> {
    let called_as = std::env::args_os().next().unwrap_or_default();
    let called_as = Path::new(&called_as).file_stem().unwrap_or_default();
    if called_as == "dutserver" {
        return dutserver::parse(&std::env::args_os().skip(1).collect::<Vec<_>>());
    }
    if called_as == "anwdlserver" {
        return Ok(Task::Older(Box::new(anwdlserver::parse(std::env::args_os()))));
    }
    if called_as == "pserve" {
        let pserve = Pserve::parse();
        return Ok(Task::Serve(ServeArgs {
            ini_file: Some(pserve.ini_file.unwrap_or_else(|| "pserve.ini".into())),
            default: false,
            log: pserve.log,
            level: pserve.level,
            bind: None,
            port: None,
            watch: false,
        }));
    }
    Ok(match Gatehouse::parse().command {
        Command::Serve(arguments) => Task::Serve(arguments),
        Command::Config(command) => Task::Config(command),
        Command::Plugin(arguments) => Task::Plugin(arguments),
        Command::Server(arguments) => Task::Server(arguments),
        Command::Image(arguments) => Task::Image(arguments),
        Command::Database(command) => Task::Database(command),
        Command::Dispatch(command) => Task::Dispatch(command),
        Command::Keys(command) => Task::Container(ContainerArgs::Keys(command)),
        Command::AccessToken(command) => Task::Container(ContainerArgs::Token(command)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_lines_are_consistent() {
        Gatehouse::command().debug_assert();
        Pserve::command().debug_assert();
    }
}
