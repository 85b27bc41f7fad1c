//! `gatehouse agents` and `gatehouse agent …`: who there is, and how one comes and goes.

use serde_json::json;

use crate::screen::Screen;
use crate::session::{ServerOptions, Surroundings};
use crate::table::Table;
use crate::{CliError, Outcome};

/// Arguments of `gatehouse agents`.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentsArgs {
    /// Only those that are there now
    #[arg(long)]
    pub online: bool,
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// Arguments of `gatehouse agent`.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AgentCommand,
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// What can be done with agents.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum AgentCommand {
    /// Give an agent another name; its queue goes with it
    Rename {
        /// Its name
        name: String,
        /// Its new name
        new_name: String,
    },
    /// Remove an agent, its queue and its events
    Remove {
        /// Its name
        name: String,
    },
    /// Let agents register themselves, or not; without a word, tell which
    Selfreg {
        /// on or off
        switch: Option<Switch>,
    },
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Arguments of `gatehouse enroll-token`.
#[derive(Debug, Clone, clap::Args)]
pub struct EnrollTokenArgs {
    /// Seconds until it is void [default: the server's, an hour]
    #[arg(long, value_name = "SECS")]
    pub ttl: Option<u64>,
    /// How many agents may use it [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub uses: Option<u64>,
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// Lists the agents.
pub(crate) fn list(
    args: &AgentsArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let mut found = around.client(&args.server)?.agents()?;
    if args.online {
        found.agents.retain(|name| found.online.get(name) == Some(&true));
    }
    let mut table = Table::new(["AGENT", "STATE"]);
    for name in &found.agents {
        let state = match found.online.get(name) {
            Some(true) => "online",
            Some(false) => "offline",
            None => "",
        };
        table.row([name, state]);
    }
    screen.list(&found, &table)?;
    Ok(Outcome::Fine)
}

/// Does what `gatehouse agent` is asked for.
pub(crate) fn change(
    args: &AgentArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let client = around.client(&args.server)?;
    match &args.command {
        AgentCommand::Rename { name, new_name } => {
            client.rename_agent(name, new_name)?;
            let value = json!({ "renamed": name, "name": new_name });
            screen.say(&value, || format!("{name} is now {new_name}"))?;
        }
        AgentCommand::Remove { name } => {
            client.remove_agent(name)?;
            screen.say(&json!({ "removed": name }), || format!("removed {name}"))?;
        }
        AgentCommand::Selfreg { switch } => {
            if let Some(switch) = switch {
                client.set_selfreg(*switch == Switch::On)?;
            }
            let enabled = match switch {
                Some(switch) => *switch == Switch::On,
                None => client.selfreg()?,
            };
            let word = if enabled { "on" } else { "off" };
            screen.say(&json!({ "selfreg": enabled }), || word.to_owned())?;
        }
    }
    Ok(Outcome::Fine)
}

/// Makes a token for new agents.
pub(crate) fn enroll_token(
    args: &EnrollTokenArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let token = around.client(&args.server)?.enroll_token(args.ttl, args.uses)?;
    // The token alone: `$(gatehouse enroll-token)` works.
    screen.say(&token, || token.token.clone())?;
    Ok(Outcome::Fine)
}
