//! The command line, as typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Runs tasks of a Gatehouse server on this machine.
#[derive(Debug, Parser)]
#[command(name = "gatehouse-agent", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch tasks, run them, report, until told to stop
    Run {
        #[command(flatten)]
        file: ConfigFile,
        /// Also log what goes well
        #[arg(short = 'v', long)]
        verbose: bool,
    },
    /// Become known to a server by a one-use token (`gatehouse enroll-token`); writes the configuration
    Enroll {
        #[command(flatten)]
        identity: Identity,
        /// The token
        #[arg(long, env = "GATEHOUSE_ENROLL_TOKEN", hide_env_values = true)]
        token: String,
    },
    /// Become known to a server that lets agents register themselves; writes the configuration
    Register {
        #[command(flatten)]
        identity: Identity,
    },
    /// Tell what is wrong with a configuration
    Check {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Watch over one command of a task (the agent starts this itself)
    #[command(hide = true)]
    Supervise,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = DEFAULT_FILE)]
    pub(crate) config: PathBuf,
}

const DEFAULT_FILE: &str = "/etc/gatehouse-agent/agent.toml";

/// Who the agent is to be, and where.
#[derive(Debug, Args)]
pub(crate) struct Identity {
    /// The server's address: http://… or https://…
    #[arg(long)]
    pub(crate) url: String,
    /// The agent's name
    #[arg(long)]
    pub(crate) name: String,
    /// Certificates (PEM) to trust instead of the public authorities
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Replace the identity in a configuration that is there; its other settings stay
    #[arg(long)]
    pub(crate) force: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
