//! Commands on the files of the container protocol's door: RSA keys and access tokens.
//!
//! Invariant: what is done here is in force for a running server at once (tokens) or after its next start (keys), and the
//! answer says so. A token is printed once.
//! Not here: the files themselves (`server::tcp`).

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use server::config::Config;
use server::config::containers::Containers;
use server::tcp::AccessTokens;
use server::tcp::access_tokens::TokenEntry;

use crate::arguments::{ContainerArgs, ContainerOptions, KeysCommand, TokenCommand};

/// What a command says: for people, and for programs.
pub(crate) struct Done {
    pub(crate) text: String,
    pub(crate) data: Value,
}

/// Reads the configuration, of the file that is named or found.
pub(crate) type Read<'a> = &'a dyn Fn(Option<PathBuf>) -> Result<Config, String>;

impl ContainerArgs {
    /// Does it.
    pub(crate) fn run(&self, read: Read<'_>) -> ExitCode {
        let options = self.options();
        let file = options.ini_file.clone();
        end(containers(file, read).and_then(|containers| self.outcome(&containers)), options.json)
    }

    fn options(&self) -> &ContainerOptions {
        match self {
            Self::Keys(
                KeysCommand::Fingerprint { options } | KeysCommand::Regenerate { options, .. },
            )
            | Self::Token(
                TokenCommand::Add { options, .. }
                | TokenCommand::List { options }
                | TokenCommand::Disable { options, .. }
                | TokenCommand::Enable { options, .. }
                | TokenCommand::Delete { options, .. },
            ) => options,
        }
    }

    /// Does it with the files of this configuration.
    pub(crate) fn outcome(&self, containers: &Containers) -> Result<Done, String> {
        match self {
            Self::Keys(command) => keys(command, containers).map_err(|error| error.to_string()),
            Self::Token(command) => {
                let tokens = AccessTokens::new(containers.access_token_file.clone());
                token(command, &tokens).map_err(|error| error.to_string())
            }
        }
    }
}

/// Why there is nothing to do.
pub(crate) const WITHOUT: &str = "the configuration has no section [containers]: nothing is lent";

/// The section that tells where the files are.
fn containers(file: Option<PathBuf>, read: Read<'_>) -> Result<Containers, String> {
    read(file)?.containers.ok_or_else(|| WITHOUT.to_owned())
}

fn keys(
    command: &KeysCommand,
    containers: &Containers,
) -> Result<Done, server::tcp::rsa_keys::KeyFileError> {
    let keys = match command {
        KeysCommand::Fingerprint { .. } => containers.key_files.load()?,
        KeysCommand::Regenerate { bits, .. } => containers.key_files.make(*bits)?,
    };
    let fingerprint = keys.fingerprint();
    Ok(Done { data: json!({ "fingerprint": fingerprint }), text: fingerprint })
}

fn token(
    command: &TokenCommand,
    tokens: &AccessTokens,
) -> Result<Done, server::tcp::access_tokens::TokenError> {
    let changed = |id: i64, what: &str| Done {
        text: format!("access token {id} is {what}"),
        data: json!({ "entry_id": id }),
    };
    Ok(match command {
        TokenCommand::Add { disabled, .. } => {
            let (entry, token) = tokens.add(!disabled)?;
            let data = json!({
                "entry_id": entry.id,
                "creation_timestamp": entry.created_at,
                "access_token": token.expose(),
            });
            Done { text: format!("{}\t{}", entry.id, token.expose()), data }
        }
        TokenCommand::List { .. } => listed(&tokens.list()?),
        TokenCommand::Disable { id, .. } => {
            tokens.enable(*id, false)?;
            changed(*id, "disabled")
        }
        TokenCommand::Enable { id, .. } => {
            tokens.enable(*id, true)?;
            changed(*id, "enabled")
        }
        TokenCommand::Delete { id, .. } => {
            tokens.delete(*id)?;
            changed(*id, "deleted")
        }
    })
}

fn listed(entries: &[TokenEntry]) -> Done {
    let word = |entry: &TokenEntry| if entry.is_enabled { "enabled" } else { "disabled" };
    let lines = entries.iter().map(|entry| format!("{}\t{}", entry.id, word(entry)));
    let data = entries.iter().map(|entry| {
        json!({
            "entry_id": entry.id,
            "creation_timestamp": entry.created_at,
            "enabled": entry.is_enabled,
        })
    });
    Done {
        text: lines.collect::<Vec<_>>().join("\n"),
        data: json!({ "entry_list": data.collect::<Value>() }),
    }
}

/// Says what came of it, in the documented shape where JSON is wanted.
fn end(outcome: Result<Done, String>, as_json: bool) -> ExitCode {
    let (text, code) = match (&outcome, as_json) {
        (Ok(done), true) => (said("OK", "OK", &done.data), ExitCode::SUCCESS),
        (Ok(done), false) => (done.text.clone(), ExitCode::SUCCESS),
        (Err(why), true) => (said("ERROR", why, &json!({})), ExitCode::FAILURE),
        (Err(why), false) => {
            let _ = writeln!(io::stderr(), "gatehouse: {why}");
            return ExitCode::FAILURE;
        }
    };
    if text.is_empty() || writeln!(io::stdout(), "{text}").is_ok() {
        code
    } else {
        ExitCode::FAILURE
    }
}

/// The documented shape.
pub(crate) fn said(status: &str, message: &str, data: &Value) -> String {
    json!({ "status": status, "message": message, "data": data }).to_string()
}

#[cfg(test)]
mod tests {
    use server::config::Overrides;

    use super::*;
    use crate::arguments::{ContainerOptions, KeysCommand, TokenCommand};

    fn options() -> ContainerOptions {
        ContainerOptions { ini_file: None, json: false }
    }

    fn check(folder: &std::path::Path, command: TokenCommand) -> Result<Value, String> {
        let text = format!("[containers]\nstate = {}", folder.display());
        let config = Config::embedded("f", &text, &Overrides::default(), &|_| None).unwrap();
        let containers = config.containers.unwrap();
        ContainerArgs::Token(command).outcome(&containers).map(|done| done.data)
    }

    #[test]
    fn tokens_are_made_listed_changed_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let made = check(folder.path(), TokenCommand::Add { disabled: false, options: options() });
        assert_eq!(made.unwrap()["access_token"].as_str().unwrap().len(), 124);
        check(folder.path(), TokenCommand::Disable { id: 1, options: options() }).unwrap();
        let listed = check(folder.path(), TokenCommand::List { options: options() }).unwrap();
        assert_eq!(listed["entry_list"][0]["enabled"], false);
        check(folder.path(), TokenCommand::Delete { id: 1, options: options() }).unwrap();
        let error = check(folder.path(), TokenCommand::Delete { id: 1, options: options() });
        assert_eq!(error.unwrap_err(), "there is no access token 1");
    }

    #[test]
    fn a_size_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("[containers]\nstate = {}", folder.path().display());
        let config = Config::embedded("f", &text, &Overrides::default(), &|_| None).unwrap();
        let command = KeysCommand::Regenerate { bits: 512, options: options() };
        let error = ContainerArgs::Keys(command).outcome(&config.containers.unwrap());
        assert!(error.err().unwrap().contains("512 bits"));
    }

    #[test]
    fn without_the_section_there_is_nothing_to_look_after() {
        let read = |_| {
            Config::embedded("f", "", &Overrides::default(), &|_| None).map_err(|p| p.to_string())
        };
        assert!(containers(None, &read).unwrap_err().contains("[containers]"));
    }

    #[test]
    fn json_has_the_documented_shape() {
        let said = said("OK", "OK", &json!({ "entry_id": 1 }));
        assert_eq!(said, r#"{"data":{"entry_id":1},"message":"OK","status":"OK"}"#);
    }
}
