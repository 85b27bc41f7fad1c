//! Which server is meant by the commands about agents and tasks, and the session there.
//!
//! Invariant: a token is sent only to the address that it was given for: sessions are kept by
//! address, each in a file that only its owner reads.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::Client;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use wire::Secret;

use crate::CliError;
use crate::connection::Connection;
use crate::machine::kept::Kept;
use crate::programs::Programs;

/// The environment variable that holds a session's token; it wins over stored ones.
pub const TOKEN_VARIABLE: &str = "GATEHOUSE_TOKEN";
/// Where a server is that nothing else tells the place of.
const USUAL_URL: &str = "http://127.0.0.1:8000";
/// Bytes of an address that stand in a file's name as they are.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// Options that say which server is meant; all may be left out.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServerOptions {
    /// Address of the server; without it the configuration file's own, or http://127.0.0.1:8000
    #[arg(long, env = "GATEHOUSE_URL", value_name = "URL", global = true)]
    pub url: Option<String>,
    /// Certificates (PEM) to trust instead of the public authorities
    #[arg(long, value_name = "FILE", global = true)]
    pub ca_file: Option<PathBuf>,
    /// The server's configuration file, to find its address
    #[arg(short = 'i', long = "ini-file", value_name = "FILE", global = true)]
    pub ini_file: Option<PathBuf>,
    /// Print JSON, one value a line
    #[arg(long, global = true)]
    pub json: bool,
}

/// Gives the name of an account, which may be known already, and its password.
pub type Ask = dyn Fn(Option<&str>) -> Result<(String, Secret), CliError>;
/// Gives the server of the configuration file that is named or found, if there is one.
pub type Configured = dyn Fn(Option<PathBuf>) -> Result<Option<Connection>, CliError>;

/// What a command finds around it.
pub struct Surroundings<'a> {
    /// What [`TOKEN_VARIABLE`] holds.
    pub token: Option<Secret>,
    /// Where sessions are kept; none without a home.
    pub sessions: Option<Sessions>,
    /// Where machines are remembered; none without a home.
    pub kept: Option<Kept>,
    /// The user's home, where SSH has its keys.
    pub home: Option<PathBuf>,
    /// Other programs of this machine.
    pub programs: &'a dyn Programs,
    /// The server of the configuration file that is named or found, if there is one.
    pub configured: &'a Configured,
    /// Asks for the name of an account, then for its password.
    pub ask: &'a Ask,
    /// Has a function called when the operator interrupts.
    pub on_interrupt: &'a dyn Fn(Box<dyn Fn() + Send>),
    /// Lets time pass.
    pub pause: &'a dyn Fn(Duration),
}

impl Surroundings<'_> {
    /// A client of the server that `options` mean, with the session there is.
    pub(crate) fn client(&self, options: &ServerOptions) -> Result<Client, CliError> {
        let client = self.stranger(options)?;
        match self.token_for(&client)? {
            Some(token) => Ok(client.with_key(&token)?),
            None => Ok(client),
        }
    }

    /// A client of the server that `options` mean, with the session there is, else with the global key
    /// of the configuration file that told the address.
    pub(crate) fn client_or_keyholder(&self, options: &ServerOptions) -> Result<Client, CliError> {
        let (client, key) = self.stranger_and_key(options)?;
        match (self.token_for(&client)?, key) {
            (Some(token), _) | (None, Some(token)) => Ok(client.with_key(&token)?),
            (None, None) => Ok(client),
        }
    }

    /// A client that nobody has logged in.
    pub(crate) fn stranger(&self, options: &ServerOptions) -> Result<Client, CliError> {
        self.stranger_and_key(options).map(|(client, _)| client)
    }

    fn stranger_and_key(
        &self,
        options: &ServerOptions,
    ) -> Result<(Client, Option<Secret>), CliError> {
        let usual = |url| Connection { url, key: None, ca_file: None };
        let found = match options.url.clone().filter(|url| !url.is_empty()) {
            Some(url) => usual(url),
            None => (self.configured)(options.ini_file.clone())?
                .unwrap_or_else(|| usual(USUAL_URL.to_owned())),
        };
        let ca_file = options.ca_file.clone().or(found.ca_file);
        Ok((Client::new(&found.url, None, ca_file.as_deref())?, found.key))
    }

    /// The token for this server, if there is one.
    fn token_for(&self, client: &Client) -> Result<Option<Secret>, CliError> {
        match (&self.token, &self.sessions) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(sessions)) => sessions.load(client.base_url()),
            (None, None) => Ok(None),
        }
    }
}

/// Where programs remember what they must, for this user: `XDG_STATE_HOME`, else `~/.local/state`.
#[must_use]
pub fn state_of_user() -> Option<PathBuf> {
    absolute("XDG_STATE_HOME").or_else(|| Some(home_of_user()?.join(".local/state")))
}

/// This user's home.
#[must_use]
pub fn home_of_user() -> Option<PathBuf> {
    absolute("HOME")
}

fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|directory| directory.is_absolute())
}

/// The sessions of one user of this machine.
#[derive(Debug, Clone)]
pub struct Sessions {
    directory: PathBuf,
}

impl Sessions {
    /// Sessions below `state`, the directory for what programs remember.
    #[must_use]
    pub fn below(state: &Path) -> Self {
        Self { directory: state.join("gatehouse").join("sessions") }
    }

    fn file(&self, url: &str) -> PathBuf {
        self.directory.join(utf8_percent_encode(url, PLAIN).to_string())
    }

    /// The token for the server at `url`, if there is one.
    fn load(&self, url: &str) -> Result<Option<Secret>, CliError> {
        let file = self.file(url);
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(Secret::new)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CliError::File { file, source }),
        }
    }

    /// Keeps `token` for the server at `url`; gives the file. It is there whole or not at all.
    pub(crate) fn store(&self, url: &str, token: &Secret) -> Result<PathBuf, CliError> {
        let file = self.file(url);
        let write = || {
            std::fs::create_dir_all(&self.directory)?;
            // A file of this kind is its owner's alone from the beginning.
            let mut new = tempfile::NamedTempFile::new_in(&self.directory)?;
            writeln!(new, "{}", token.expose())?;
            new.as_file().sync_all()?;
            new.persist(&file).map_err(|error| error.error)
        };
        match write() {
            Ok(_) => Ok(file),
            Err(source) => Err(CliError::File { file, source }),
        }
    }

    /// Forgets the token for the server at `url`.
    pub(crate) fn remove(&self, url: &str) -> Result<(), CliError> {
        let file = self.file(url);
        match std::fs::remove_file(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CliError::File { file, source })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_by_address_and_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let state = tempfile::tempdir().unwrap();
        let sessions = Sessions::below(state.path());
        let file = sessions.store("http://a:1", &Secret::new("t")).unwrap();
        sessions.store("http://a:1", &Secret::new("t2")).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let load = |url| sessions.load(url).unwrap().map(|token| token.expose().to_owned());
        assert_eq!((load("http://a:1"), load("http://a:2")), (Some("t2".into()), None));
        sessions.remove("http://a:1").unwrap();
        sessions.remove("http://a:1").unwrap();
        assert_eq!(load("http://a:1"), None);
    }

    #[track_caller]
    fn check(url: Option<&str>, file: Option<&str>, asked: &str) {
        let file = file.map(str::to_owned);
        let configured = move |_| {
            let url = file.clone();
            Ok(url.map(|url| Connection { url, key: Some(Secret::new("no")), ca_file: None }))
        };
        let surroundings = Surroundings {
            token: None,
            sessions: None,
            kept: None,
            home: None,
            programs: &crate::programs::System,
            configured: &configured,
            ask: &|_| Err(CliError::Refused("asked".into())),
            on_interrupt: &|_| (),
            pause: &|_| (),
        };
        let options = ServerOptions { url: url.map(str::to_owned), ..Default::default() };
        assert_eq!(surroundings.client(&options).unwrap().base_url(), asked);
    }

    #[test]
    fn the_server_is_the_one_named_or_configured_or_the_usual_one() {
        check(Some("http://a/"), Some("http://b"), "http://a");
        check(None, Some("http://b"), "http://b");
        check(Some(""), None, USUAL_URL);
    }

    #[track_caller]
    fn check_key(token: Option<&str>, url: Option<&str>, sent: Option<&str>) {
        let server = crate::scripted::serve(|_| ("200 OK", r#"{"machines":[]}"#));
        let address = server.url.clone();
        let configured = move |_| {
            let (url, key) = (address.clone(), Some(Secret::new("configured")));
            Ok(Some(Connection { url, key, ca_file: None }))
        };
        let surroundings = Surroundings {
            token: token.map(Secret::new),
            sessions: None,
            kept: None,
            home: None,
            programs: &crate::programs::System,
            configured: &configured,
            ask: &|_| Err(CliError::Refused("asked".into())),
            on_interrupt: &|_| (),
            pause: &|_| (),
        };
        let url = url.map(|_| server.url.clone());
        let options = ServerOptions { url, ..Default::default() };
        surroundings.client_or_keyholder(&options).unwrap().machines().unwrap();
        let request = server.last();
        let found = request.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
        assert_eq!(found, sent);
    }

    #[test]
    fn the_configured_key_serves_where_nobody_is_logged_in() {
        check_key(None, None, Some("configured"));
        check_key(Some("t0ken"), None, Some("t0ken"));
        check_key(None, Some("named"), None);
    }
}
