//! How a machine is entered: the arguments for `ssh`, and the host key that it must have.
//!
//! Invariant: a machine whose host key the server told is entered with that key or not at all, and
//! nobody is asked; nothing that a server says becomes an option of `ssh`.

use std::path::PathBuf;

use client::Client;
use wire::machines::Machine;

use super::kept::Record;
use super::key_line::KeyLine;
use super::keys::text;
use crate::CliError;
use crate::session::Surroundings;

/// Where `ssh` is to go.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    /// What the host is called in `known_hosts`.
    pub(super) alias: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) username: String,
    pub(super) identity_file: Option<String>,
    /// What makes the identity good, where it is not good by itself.
    pub(super) certificate_file: Option<PathBuf>,
    pub(super) known_hosts: PathBuf,
    /// The host key is known, and no other is taken.
    pub(super) is_pinned: bool,
}

impl Destination {
    /// The way to `machine`; `kept` is what is remembered of it here. Writes its host key down.
    pub(super) fn find(
        machine: &Machine,
        kept: Option<&Record>,
        client: &Client,
        around: &Surroundings<'_>,
    ) -> Result<Self, CliError> {
        let id = &machine.id;
        let (Some(port), Some(username)) = (machine.port, &machine.username) else {
            let state = &machine.state;
            return Err(CliError::Refused(format!("machine {id} is not ready: it is {state}")));
        };
        let host = kept.map(|kept| kept.host.clone()).unwrap_or_else(|| client.host());
        let place = around.kept.as_ref().ok_or_else(|| {
            CliError::Refused("no place for host keys: set XDG_STATE_HOME or HOME".to_owned())
        })?;
        let key = host_key(machine, kept)?;
        let known_hosts = match &key {
            Some(key) => place.write_known_hosts(id, &format!("{} {}", alias(id), key.line()))?,
            None => place.known_hosts(id)?,
        };
        Ok(Self {
            alias: alias(id),
            host: word(&host, "host")?.to_owned(),
            port,
            username: word(username, "user")?.to_owned(),
            identity_file: kept.and_then(|kept| kept.identity_file.clone()),
            certificate_file: None,
            known_hosts,
            is_pinned: key.is_some(),
        })
    }

    /// The arguments of `ssh`.
    pub(super) fn arguments(&self) -> Result<Vec<String>, CliError> {
        let strict = if self.is_pinned { "yes" } else { "ask" };
        let mut options = vec![
            format!("HostKeyAlias={}", self.alias),
            format!("UserKnownHostsFile={}", option_path(text(&self.known_hosts)?)?),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            format!("StrictHostKeyChecking={strict}"),
            "UpdateHostKeys=no".to_owned(),
        ];
        if let Some(file) = &self.identity_file {
            options.push(format!("IdentityFile={}", option_path(file)?));
            options.push("IdentitiesOnly=yes".to_owned());
        }
        if let Some(file) = &self.certificate_file {
            options.push(format!("CertificateFile={}", option_path(text(file)?)?));
        }
        let mut arguments = vec!["-p".to_owned(), self.port.to_string()];
        for option in options {
            arguments.extend(["-o".to_owned(), option]);
        }
        arguments.push(format!("{}@{}", self.username, self.host));
        Ok(arguments)
    }

    /// The command as a person would type it.
    pub(super) fn short(&self) -> String {
        let key = match &self.identity_file {
            Some(file) => format!("-i {} ", quoted(file)),
            None => String::new(),
        };
        format!("ssh {key}-p {} {}@{}", self.port, self.username, self.host)
    }
}

/// What the host is called in the file of host keys: the port may serve another machine tomorrow.
fn alias(id: &str) -> String {
    format!("gatehouse-{id}")
}

/// The host key that `machine` must have, where it is known.
fn host_key(machine: &Machine, kept: Option<&Record>) -> Result<Option<KeyLine>, CliError> {
    let id = &machine.id;
    let refused = |why: &str| CliError::Refused(format!("machine {id}: {why}"));
    let line = machine.host_key.as_ref().or_else(|| kept?.host_key.as_ref());
    let told = machine.host_key_fingerprint.as_ref();
    let remembered = kept.and_then(|kept| kept.host_key_fingerprint.as_ref());
    if let (Some(told), Some(remembered)) = (told, remembered)
        && told != remembered
    {
        return Err(refused(&format!(
            "the server says now that its host key is {told}, and said {remembered} when it was \
             created; do not log in before you know why"
        )));
    }
    let Some(line) = line else { return Ok(None) };
    let key = KeyLine::parse(line)
        .ok_or_else(|| refused("what the server gives as its host key is none"))?;
    let fingerprint = key.fingerprint();
    for expected in told.into_iter().chain(remembered) {
        if *expected != fingerprint {
            return Err(refused(&format!(
                "its host key is {fingerprint} and not {expected}, as the server says too; do not \
                 log in before you know why"
            )));
        }
    }
    Ok(Some(key))
}

/// What the server calls its host or the machine's user, if that is a plain word.
pub(super) fn word<'a>(text: &'a str, what: &str) -> Result<&'a str, CliError> {
    let text = text.trim_matches(['[', ']']);
    let fits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    if fits && !text.is_empty() && !text.starts_with('-') {
        Ok(text)
    } else {
        Err(CliError::Refused(format!("the server gives `{text}` as the {what}, which is none")))
    }
}

/// A path as the value of an option, where `ssh` reads quotes, `%` and `${…}`.
fn option_path(path: &str) -> Result<String, CliError> {
    if path.contains(['"', '\\', '$', '\'']) || path.chars().any(char::is_control) {
        return Err(CliError::Refused(format!(
            "{path}: ssh cannot take a file whose name has quotes, backslashes or dollars"
        )));
    }
    let path = path.replace('%', "%%");
    Ok(if path.contains(char::is_whitespace) { format!("\"{path}\"") } else { path })
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%=,".contains(&b);
    if word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{option_path, quoted, word};

    #[test]
    fn a_servers_words_are_no_options() {
        for text in ["", "-oProxyCommand=x", "a b", "a;b", "a@b", "a%h", "[]", "ü"] {
            assert!(word(text, "host").is_err(), "{text}");
        }
        let good = ["a.example", "127.0.0.1", "::1", "user_12345"];
        assert_eq!(good.map(|text| word(text, "host").unwrap()), good);
        assert_eq!(word("[::1]", "host").unwrap(), "::1");
    }

    #[test]
    fn a_path_survives_the_reading_of_ssh_and_of_a_shell() {
        assert_eq!(option_path("/a b/100%").unwrap(), "\"/a b/100%%\"");
        assert!(option_path("/a\"b").is_err() && option_path("/${HOME}").is_err());
        assert_eq!(quoted("/a/b.c"), "/a/b.c");
        assert_eq!(quoted("it's $x"), r"'it'\''s $x'");
    }
}
