//! Which server is meant, and with which key.
//!
//! Invariant: a key from the configuration file goes only to the server of that file; who names
//! another address must give its key too.

use std::path::{Path, PathBuf};

use client::Client;
use wire::Secret;

use crate::CliError;

/// The environment variable that holds the key.
pub const KEY_VARIABLE: &str = "GATEHOUSE_APIKEY";

/// Options that say which server is meant; all may be left out.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConnectionOptions {
    /// Address of the server; without it, the configuration file's own
    #[arg(long, env = "GATEHOUSE_URL", value_name = "URL", global = true)]
    pub url: Option<String>,
    /// File that holds the global key; GATEHOUSE_APIKEY may hold the key itself
    #[arg(long, value_name = "FILE", global = true)]
    pub key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust instead of the public authorities
    #[arg(long, value_name = "FILE", global = true)]
    pub ca_file: Option<PathBuf>,
}

/// A server, and what is needed to speak to it.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its address, `http://…` or `https://…`.
    pub url: String,
    /// Its global key, where it has one.
    pub key: Option<Secret>,
    /// What to trust instead of the public authorities.
    pub ca_file: Option<PathBuf>,
}

impl ConnectionOptions {
    /// The connection these options mean. `key` is what [`KEY_VARIABLE`] holds; `configured` gives
    /// the configuration file's server, and is asked only when no address was given.
    ///
    /// # Errors
    /// When the key file cannot be read or is empty, or `configured` fails.
    pub fn resolve(
        &self,
        key: Option<String>,
        configured: impl FnOnce() -> Result<Connection, CliError>,
    ) -> Result<Connection, CliError> {
        let key = match &self.key_file {
            Some(file) => Some(read_key(file)?),
            None => key.filter(|key| !key.is_empty()).map(Secret::new),
        };
        let ca_file = self.ca_file.clone();
        match self.url.clone().filter(|url| !url.is_empty()) {
            Some(url) => Ok(Connection { url, key, ca_file }),
            None => {
                let configured = configured()?;
                Ok(Connection {
                    url: configured.url,
                    key: key.or(configured.key),
                    ca_file: ca_file.or(configured.ca_file),
                })
            }
        }
    }
}

impl Connection {
    /// A client of this server.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        Ok(Client::new(&self.url, self.key.as_ref(), self.ca_file.as_deref())?)
    }
}

/// The one secret in `file`.
pub(crate) fn read_key(file: &Path) -> Result<Secret, CliError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| CliError::File { file: file.to_owned(), source })?;
    match text.trim() {
        "" => Err(CliError::Refused(format!("{}: there is no key in it", file.display()))),
        key => Ok(Secret::new(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::{CliError, Connection, ConnectionOptions};
    use wire::Secret;

    fn configured() -> Result<Connection, CliError> {
        let key = Some(Secret::new("configured"));
        let ca_file = Some("configured.pem".into());
        Ok(Connection { url: "https://configured".to_owned(), key, ca_file })
    }

    #[track_caller]
    fn check(options: &ConnectionOptions, variable: Option<&str>, url: &str, key: Option<&str>) {
        let found = options.resolve(variable.map(str::to_owned), configured).unwrap();
        assert_eq!(found.url, url);
        assert_eq!(found.key.as_ref().map(Secret::expose), key);
    }

    #[test]
    fn the_configuration_fills_what_is_not_given() {
        let options = ConnectionOptions::default();
        check(&options, None, "https://configured", Some("configured"));
        check(&options, Some(""), "https://configured", Some("configured"));
        check(&options, Some("mine"), "https://configured", Some("mine"));
    }

    #[test]
    fn the_configured_key_is_not_sent_to_another_address() {
        let options = ConnectionOptions { url: Some("http://other".into()), ..Default::default() };
        check(&options, None, "http://other", None);
        check(&options, Some("mine"), "http://other", Some("mine"));
    }

    #[test]
    fn a_key_file_wins_and_loses_its_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let options =
            ConnectionOptions { key_file: Some(file.path().to_owned()), ..Default::default() };
        let empty = options.resolve(None, configured).unwrap_err();
        assert!(empty.to_string().contains("no key"), "{empty}");
        std::fs::write(file.path(), "from file\n").unwrap();
        check(&options, Some("variable"), "https://configured", Some("from file"));
    }

    #[test]
    fn a_missing_key_file_is_named() {
        let options = ConnectionOptions { key_file: Some("gone.key".into()), ..Default::default() };
        let error = options.resolve(None, configured).unwrap_err();
        assert!(error.to_string().contains("gone.key"), "{error}");
    }
}
