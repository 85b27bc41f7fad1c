//! `gatehouse login` and `logout`: begin a session and keep it, end it and forget it.
//!
//! Invariant: neither password nor token is printed or taken as an argument.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use serde_json::json;
use wire::Secret;

use crate::screen::Screen;
use crate::session::{ServerOptions, Surroundings, TOKEN_VARIABLE};
use crate::{CliError, Outcome, password};

/// The longest name that is read from a terminal.
const NAME_BYTES_MAX: u64 = 1024;

/// Arguments of `gatehouse login`.
#[derive(Debug, Clone, clap::Args)]
pub struct LoginArgs {
    /// The account; without it, it is asked for
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// Arguments of `gatehouse logout`.
#[derive(Debug, Clone, clap::Args)]
pub struct LogoutArgs {
    /// Which server is meant.
    #[command(flatten)]
    pub server: ServerOptions,
}

/// Begins a session and keeps its token for later commands.
pub(crate) fn login(
    args: &LoginArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let client = around.stranger(&args.server)?;
    let sessions = around.sessions.as_ref().ok_or_else(|| {
        CliError::Refused("no place for the session: set XDG_STATE_HOME or HOME".to_owned())
    })?;
    let (user, password) = (around.ask)(args.user.as_deref())?;
    let login = client.login(&user, &password)?;
    let file = sessions.store(client.base_url(), &login.token)?;
    if around.token.is_some() {
        screen.note(&format!("{TOKEN_VARIABLE} is set and goes on to win over this session"));
    }
    let value = json!({
        "url": client.base_url(),
        "user": user,
        "role": login.role,
        "expires_in": login.expires_in,
        "file": file,
    });
    screen.say(&value, || {
        let role = login.role.map(|role| format!(" ({role})")).unwrap_or_default();
        format!("logged in to {} as {user}{role}", client.base_url())
    })?;
    Ok(Outcome::Fine)
}

/// Ends the session and forgets its token, which also is forgotten when it had ended before.
pub(crate) fn logout(
    args: &LogoutArgs,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let client = around.client(&args.server)?;
    let ended = client.logout();
    if let (Some(sessions), None) = (&around.sessions, &around.token) {
        match &ended {
            Ok(()) | Err(client::ClientError::Unauthorized { .. }) => {
                sessions.remove(client.base_url())?;
            }
            Err(_) => {}
        }
    }
    ended?;
    screen.say(&json!({ "url": client.base_url() }), || {
        format!("logged out of {}", client.base_url())
    })?;
    Ok(Outcome::Fine)
}

/// Asks for a name, unless there is one, and for its password: on a terminal, which shows the name
/// alone, else the first line of standard input is the password.
///
/// # Errors
/// When there is no name and nobody to ask, or the input ends too early.
pub fn ask(user: Option<&str>) -> Result<(String, Secret), CliError> {
    let on_terminal = io::stdin().is_terminal();
    let prompt = |text: &str| -> io::Result<()> {
        if on_terminal {
            write!(io::stderr(), "{text}")?;
        }
        Ok(())
    };
    let user = match user {
        Some(user) => user.to_owned(),
        None if on_terminal => {
            prompt("Account: ")?;
            let mut line = String::new();
            io::stdin().lock().take(NAME_BYTES_MAX).read_line(&mut line)?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => return Err(CliError::Refused("name the account with --user".to_owned())),
    };
    prompt(&format!("Password of {user}: "))?;
    Ok((user, password::ask("")?))
}
