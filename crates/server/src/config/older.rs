//! The parts that processes of the older program had, one each.
//!
//! Invariant: two processes of different parts share no port, no pid file and no folder of machines, so that both can
//! run on one configuration.
//! Not here: what the older program's file means (`import`).

use super::Config;
use super::containers::{Containers, WebServer};

/// Which part of the server a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// All that is configured.
    #[default]
    Whole,
    /// What the older program ran: of its own file, the encrypted protocol's port alone.
    Classic,
    /// What it ran beside that when told so: the documented routes on a port of their own.
    Web,
}

/// The port of the documented routes where none is configured.
const WEB_PORT_DEFAULT: u16 = 8080;
/// Of the process, in the folder of machines, where none is configured.
const PID_FILE: &str = "server.pid";

/// Leaves what a process of this part does. `is_its_own` is whether the file is the older program's.
pub(super) fn narrow(config: &mut Config, role: Role, is_its_own: bool) {
    let Some(containers) = &mut config.containers else { return };
    match role {
        Role::Whole => return,
        Role::Classic if is_its_own => {
            containers.web_server = None;
            config.opens_http = false;
        }
        Role::Classic => {}
        Role::Web => {
            leave_web(containers);
            config.opens_http = false;
            config.tasks = None;
            config.paths.plugins.clear();
            if !is_its_own {
                config.paths.pidfile = None;
            }
        }
    }
    config.paths.pidfile.get_or_insert_with(|| containers.machines.state.join(PID_FILE));
}

fn leave_web(containers: &mut Containers) {
    containers.classic = None;
    containers.ssh_gateway_port = None;
    containers.web_server.get_or_insert(WebServer { port: WEB_PORT_DEFAULT, tls: None });
    containers.machines.state.push("web");
}
