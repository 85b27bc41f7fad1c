//! The commands about agents, tasks, events and machines: which there are, and what they find around them.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use wire::Secret;

use crate::agents::{self, AgentArgs, AgentsArgs, EnrollTokenArgs};
use crate::audit::{self, AuditArgs};
use crate::events::{self, EventsArgs};
use crate::file::{self, FileArgs};
use crate::login::{self, LoginArgs, LogoutArgs};
use crate::machine::kept::Kept;
use crate::machine::{self, MachineArgs};
use crate::programs::System;
use crate::screen::Screen;
use crate::session::{self, Configured, ServerOptions, Sessions, Surroundings, TOKEN_VARIABLE};
use crate::task::{self, TaskArgs};
use crate::webhook::{self, WebhookArgs};
use crate::{CliError, Outcome, end};

/// A command about agents, tasks, events or machines.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum DispatchCommand {
    /// Begin a session with a server; its password is asked for, or read from standard input
    Login(LoginArgs),
    /// End the session
    Logout(LogoutArgs),
    /// List the agents and who is there
    Agents(AgentsArgs),
    /// Rename or remove an agent; let agents register themselves
    Agent(AgentArgs),
    /// Send tasks to agents, wait for them, look at them, cancel them
    Task(TaskArgs),
    /// Show what agents report
    Events(EventsArgs),
    /// Make a token with which a new agent enrols
    EnrollToken(EnrollTokenArgs),
    /// Pass files through the server
    File(FileArgs),
    /// Have events sent to an address as they come
    Webhook(WebhookArgs),
    /// Show who did what
    Audit(AuditArgs),
    /// Borrow temporary machines with SSH, and give them back
    Machine(MachineArgs),
}

impl DispatchCommand {
    /// Does it with this process's environment, terminal and streams. `configured` gives the server
    /// of the configuration file that is named or found, if there is one.
    #[must_use]
    pub fn main(&self, configured: &Configured) -> ExitCode {
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let around = Surroundings {
            token: token.map(Secret::new),
            sessions: session::state_of_user().as_deref().map(Sessions::below),
            kept: session::state_of_user().as_deref().map(Kept::below),
            home: session::home_of_user(),
            programs: &System,
            configured,
            ask: &login::ask,
            on_interrupt: &on_interrupt,
            pause: &std::thread::sleep,
        };
        let json = self.server().json;
        let (mut out, mut err) = (io::stdout(), io::stderr());
        let mut screen = Screen {
            out_is_terminal: out.is_terminal(),
            err_is_terminal: err.is_terminal(),
            out: &mut out,
            err: &mut err,
            json,
            in_progress: false,
        };
        let result = self.run(&around, &mut screen);
        screen.clear();
        end(result, json, &mut err)
    }

    /// Does it.
    ///
    /// # Errors
    /// When the server cannot be asked or says no, or a file cannot be read or written.
    pub fn run(
        &self,
        around: &Surroundings<'_>,
        screen: &mut Screen<'_>,
    ) -> Result<Outcome, CliError> {
        match self {
            Self::Login(args) => login::login(args, around, screen),
            Self::Logout(args) => login::logout(args, around, screen),
            Self::Agents(args) => agents::list(args, around, screen),
            Self::Agent(args) => agents::change(args, around, screen),
            Self::Task(args) => task::run(args, around, screen),
            Self::Events(args) => events::run(args, around, screen),
            Self::EnrollToken(args) => agents::enroll_token(args, around, screen),
            Self::File(args) => file::run(args, around, screen),
            Self::Webhook(args) => webhook::run(args, around, screen),
            Self::Audit(args) => audit::run(args, around, screen),
            Self::Machine(args) => machine::run(args, around, screen),
        }
    }

    /// The options that every one of them has.
    #[must_use]
    pub const fn server(&self) -> &ServerOptions {
        match self {
            Self::Login(args) => &args.server,
            Self::Logout(args) => &args.server,
            Self::Agents(args) => &args.server,
            Self::Agent(args) => &args.server,
            Self::Task(args) => &args.server,
            Self::Events(args) => &args.server,
            Self::EnrollToken(args) => &args.server,
            Self::File(args) => &args.server,
            Self::Webhook(args) => &args.server,
            Self::Audit(args) => &args.server,
            Self::Machine(args) => &args.server,
        }
    }
}

/// Calls `tell` at the first interrupt; another one ends the program as ever.
fn on_interrupt(tell: Box<dyn Fn() + Send>) {
    use signal_hook::consts::SIGINT;
    use signal_hook::flag;
    let interrupted = Arc::new(AtomicBool::new(false));
    // In this order: the one that ends the program must not see what the first has just set.
    let caught = flag::register_conditional_default(SIGINT, interrupted.clone())
        .and_then(|_| flag::register(SIGINT, interrupted))
        .and_then(|_| signal_hook::iterator::Signals::new([SIGINT]));
    // Where it cannot be caught, it does what it always does.
    if let Ok(mut signals) = caught {
        std::thread::spawn(move || {
            for _ in signals.forever().take(1) {
                tell();
            }
        });
    }
}

#[cfg(test)]
mod tests;
