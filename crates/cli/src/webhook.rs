//! `gatehouse webhook …`: where events are sent as they come.

use std::path::PathBuf;

use serde_json::json;
use wire::dispatch::NewWebhook;

use crate::connection::read_key;
use crate::screen::Screen;
use crate::session::{ServerOptions, Surroundings};
use crate::table::Table;
use crate::{CliError, Outcome};

/// Arguments of `gatehouse webhook`.
#[derive(Debug, Clone, clap::Args)]
pub struct WebhookArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WebhookCommand,
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// What can be done with webhooks.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum WebhookCommand {
    /// Have events sent to an address; prints the secret that signs them, which is told this once
    Add {
        /// The address that takes events by POST
        #[arg(value_name = "ADDRESS")]
        to: String,
        /// Only events of this agent, or of those whose names begin so (`web-*`); may be repeated
        #[arg(long = "agent", value_name = "AGENT")]
        agents: Vec<String>,
        /// File with the secret that signs deliveries; without it the server makes one
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// List webhooks and how they fare
    List,
    /// End a webhook
    Remove {
        /// Its number
        id: u64,
    },
}

/// Does what `gatehouse webhook` is asked for.
pub(crate) fn run(
    args: &WebhookArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let client = around.client(&args.server)?;
    match &args.command {
        WebhookCommand::Add { to, agents, secret_file } => {
            let secret = secret_file.as_deref().map(read_key).transpose()?;
            let own = secret.is_some();
            let mut added = client.add_webhook(&NewWebhook {
                url: to.clone(),
                secret: secret.map(|secret| secret.expose().to_owned()),
                agents: agents.clone(),
            })?;
            if own {
                // Who brought the secret knows it.
                added.secret = None;
            }
            screen.say(&added, || match &added.secret {
                Some(secret) => format!("added webhook {}\nsecret: {secret}", added.id),
                None => format!("added webhook {}", added.id),
            })?;
        }
        WebhookCommand::List => {
            let found = client.webhooks()?;
            let mut table = Table::new(["ID", "ADDRESS", "AGENTS", "DELIVERED", "LAST ERROR"]);
            for webhook in &found.webhooks {
                let agents = webhook.agents.clone().unwrap_or_default();
                let agents = if agents.is_empty() { "all".to_owned() } else { agents.join(",") };
                let text = |field: &Option<String>| field.clone().unwrap_or_default();
                let (delivered, error) = (text(&webhook.delivered_to), text(&webhook.last_error));
                table.row([&webhook.id, &webhook.url, &agents, &delivered, &error]);
            }
            screen.list(&found, &table)?;
        }
        WebhookCommand::Remove { id } => {
            client.remove_webhook(*id)?;
            screen
                .say(&json!({ "removed": id.to_string() }), || format!("removed webhook {id}"))?;
        }
    }
    Ok(Outcome::Fine)
}
