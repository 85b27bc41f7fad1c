//! `gatehouse machine …`: borrow temporary machines with SSH, look at them, give them back.
//!
//! Not here: asking for one (`create`), the way through the gateway (`gateway`), what is remembered of it (`kept`), how it is entered (`ssh`),
//! with which key (`keys`), what is printed of it (`report`).

mod create;
mod gateway;
pub mod kept;
mod key_line;
mod keys;
mod report;
mod ssh;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use client::{Client, ClientError};
use serde_json::json;
use wire::machines::Machine;

use crate::duration::seconds;
use crate::screen::Screen;
use crate::session::{ServerOptions, Surroundings};
use crate::{CliError, Outcome, shown};
use kept::{Kept, Record};
use ssh::Destination;

/// Characters of an id that people see: enough to tell machines apart.
const SHORT_CHARS: usize = 8;

/// Arguments of `gatehouse machine`.
#[derive(Debug, Clone, clap::Args)]
pub struct MachineArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: MachineCommand,
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// What can be done with machines. The beginning of an id stands for it where no other begins so.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum MachineCommand {
    /// Borrow a machine; tells how to enter it
    Create(CreateArgs),
    /// List machines
    List,
    /// Show all that is known of a machine
    Show {
        /// Its id, or the beginning of it
        id: String,
        /// Its password too, which is known if it was created here with --save-password
        #[arg(long)]
        password: bool,
    },
    /// Enter a machine by ssh, or run a command there; its host key is checked without a question
    Ssh {
        /// Its id, or the beginning of it
        id: String,
        /// Through the server's SSH gateway, by a certificate that is good for minutes
        #[arg(long)]
        gateway: bool,
        /// A command to run there; one that begins with a hyphen stands behind --
        #[arg(trailing_var_arg = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Have a machine taken back so long from now, instead of when it was to be
    Extend {
        /// Its id, or the beginning of it
        id: String,
        /// How long: seconds, or with a unit: 90s, 45m, 2h, 7d
        #[arg(value_name = "TIME", value_parser = seconds)]
        ttl: u64,
    },
    /// Give machines back; all that was on them is gone
    #[command(
        after_help = "Exit codes: 0 all are gone, 1 an error, 2 wrong usage, 3 some could not \
        be destroyed."
    )]
    Destroy {
        /// Their ids, or the beginnings of them
        #[arg(required_unless_present = "all", value_name = "ID")]
        ids: Vec<String>,
        /// All that `list` shows: one's own, an admin's everybody's
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
    /// Print what a machine wrote to its console
    Logs {
        /// Its id, or the beginning of it
        id: String,
        /// Only the last so many bytes [default: all that the server has]
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        bytes: Option<u64>,
    },
}

/// Arguments of `gatehouse machine create`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct CreateArgs {
    /// What it is started from [default: the server's]
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,
    /// Memory in MiB [default: the server's]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub memory: Option<u32>,
    /// Processors [default: the server's]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub vcpus: Option<u32>,
    /// How long it is lent: seconds, or with a unit: 90s, 45m, 2h, 7d [default: the server's]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub ttl: Option<u64>,
    /// The public key that enters it [default: one in ~/.ssh, else one that is made]
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Option<PathBuf>,
    /// No key: it is entered by password alone
    #[arg(long, conflicts_with = "ssh_key")]
    pub no_ssh_key: bool,
    /// Remember this of it; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Keep the password in a file of one's own; `show --password` prints it
    #[arg(long)]
    pub save_password: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Does what `gatehouse machine` is asked for.
pub(crate) fn run(
    args: &MachineArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let client = &around.client_or_keyholder(&args.server)?;
    let find = |id: &str| find(id, client, around);
    match &args.command {
        MachineCommand::Create(args) => return create::run(args, client, around, screen),
        MachineCommand::List => report::list(client, screen)?,
        MachineCommand::Show { id, password } => {
            report::show(&find(id)?, *password, client, around, screen)?;
        }
        MachineCommand::Ssh { id, gateway, command } => {
            enter(&find(id)?, *gateway, command, client, around, screen)?;
        }
        MachineCommand::Extend { id, ttl } => {
            let machine = client.extend_machine(&find(id)?.id, *ttl)?;
            if let (Some(kept), Some(record)) =
                (&around.kept, remembered(&machine, client, around)?)
            {
                kept.store(&Record { expires_at: machine.expires_at.clone(), ..record })?;
            }
            screen.say(&machine, || {
                let until = machine.expires_at.as_deref().map(shown::written_time);
                format!("{} until {}", machine.id, until.as_deref().unwrap_or("it is destroyed"))
            })?;
        }
        MachineCommand::Destroy { ids, all } => {
            return destroy(ids, *all, client, around, screen);
        }
        MachineCommand::Logs { id, bytes } => report::logs(&find(id)?.id, *bytes, client, screen)?,
    }
    Ok(Outcome::Fine)
}

/// The machine whose id is or begins with `text`.
fn find(text: &str, client: &Client, around: &Surroundings<'_>) -> Result<Machine, CliError> {
    if kept::is_id(text) {
        let found = client.machine(text);
        if let (Err(ClientError::Refused { status: 404, .. }), Some(kept)) = (&found, &around.kept)
            && kept.load(client.base_url(), text)?.is_some()
        {
            return Err(CliError::Refused(format!(
                "machine {text} was created here and is gone, or is another account's"
            )));
        }
        return Ok(found?);
    }
    let mut found = all(client)?;
    found.retain(|machine| !text.is_empty() && machine.id.starts_with(text));
    let several =
        || found.iter().map(|machine| machine.id.as_str()).collect::<Vec<_>>().join("\n  ");
    match found.len() {
        0 => Err(CliError::Refused(format!(
            "no machine that you may see begins with `{text}`; `gatehouse machine list` shows them"
        ))),
        1 => Ok(found.remove(0)),
        _ => Err(CliError::Refused(format!("`{text}` may be each of these:\n  {}", several()))),
    }
}

/// All machines that one may see.
fn all(client: &Client) -> Result<Vec<Machine>, CliError> {
    let found = client.machines().map_err(|error| explain_absence(error, client))?;
    Ok(found.machines)
}

/// A server without machines says that it does not know the route.
fn explain_absence(error: ClientError, client: &Client) -> CliError {
    match error {
        ClientError::Refused { status: 404, .. } => CliError::Refused(format!(
            "{} lends no machines: its configuration needs a section [containers]",
            client.base_url()
        )),
        error => error.into(),
    }
}

/// What is remembered of `machine` here.
fn remembered(
    machine: &Machine,
    client: &Client,
    around: &Surroundings<'_>,
) -> Result<Option<Record>, CliError> {
    let kept = around.kept.as_ref();
    kept.map_or(Ok(None), |kept| kept.load(client.base_url(), &machine.id))
}

/// The beginning of an id.
fn short(id: &str) -> &str {
    id.get(..SHORT_CHARS).unwrap_or(id)
}

/// Goes there; with JSON, tells how.
fn enter(
    machine: &Machine,
    by_gateway: bool,
    command: &[String],
    client: &Client,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let record = remembered(machine, client, around)?;
    let destination = match by_gateway {
        true => gateway::find(machine, record.as_ref(), client, around, screen)?,
        false => Destination::find(machine, record.as_ref(), client, around)?,
    };
    let arguments = [&destination.arguments()?, command].concat();
    if screen.json {
        let ssh = [&["ssh".to_owned()], arguments.as_slice()].concat();
        return screen.value(&json!({ "id": machine.id, "ssh": ssh }));
    }
    if !destination.is_pinned {
        let fingerprint = machine.host_key_fingerprint.as_deref();
        screen.note(&match fingerprint {
            Some(fingerprint) => format!("its host key must be {fingerprint}"),
            None => "the server does not know its host key; ssh asks about it once".to_owned(),
        });
    }
    screen.clear();
    around.programs.replace("ssh", &arguments).map_err(|error| {
        let install = match error.kind() {
            std::io::ErrorKind::NotFound => "; install it (Debian: openssh-client)",
            _ => "",
        };
        CliError::Refused(format!("cannot start ssh: {error}{install}"))
    })
}

/// Destroys all that can be; one that cannot does not keep the others.
fn destroy(
    ids: &[String],
    is_all: bool,
    client: &Client,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    // Found before the first is destroyed, so that nothing is when one of them is mistyped.
    let ids: BTreeSet<String> = if is_all {
        all(client)?.into_iter().map(|machine| machine.id).collect()
    } else {
        let id = |text: &String| match kept::is_id(text) {
            true => Ok(text.clone()),
            false => find(text, client, around).map(|machine| machine.id),
        };
        ids.iter().map(id).collect::<Result<_, CliError>>()?
    };
    let (mut destroyed, mut failed) = (Vec::new(), BTreeMap::new());
    for id in ids {
        match client.destroy_machine(&id) {
            Ok(()) => {
                forget(&id, around.kept.as_ref(), screen);
                if !screen.json {
                    screen.line(&format!("destroyed {id}"))?;
                }
                destroyed.push(id);
            }
            Err(error @ ClientError::Unauthorized { .. }) if destroyed.is_empty() => {
                return Err(error.into());
            }
            Err(error) => {
                if !screen.json {
                    screen.note(&format!("machine {id}: {error}"));
                }
                failed.insert(id, error.to_string());
            }
        }
    }
    if screen.json {
        screen.value(&json!({ "destroyed": destroyed, "failed": failed }))?;
    }
    Ok(if failed.is_empty() { Outcome::Fine } else { Outcome::Failed })
}

/// Forgets a machine that is gone.
fn forget(id: &str, kept: Option<&Kept>, screen: &mut Screen<'_>) {
    if let Some(Err(error)) = kept.map(|kept| kept.forget(id)) {
        screen.note(&format!("warning: {error}"));
    }
}

#[cfg(test)]
mod tests;
