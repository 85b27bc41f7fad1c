//! A server of containers inside a program of one's own: what the documented library offers, for Rust.
//!
//! ```no_run
//! use server::containers::{Parameters, ServerInterface};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = ServerInterface::new(Parameters::default())?;
//! server.on_client(|client| println!("{} has come", client.address()));
//! server.start(false)?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariant: the program that embeds needs no runtime. Everything runs on threads of the server's own; handlers are
//! plain closures, may block, and are waited for.
//! Not here: the protocol (`tcp`) and machines; this room joins them and gives the documented names.

mod creation;
mod endpoint_shell;
mod handlers;
mod interfaces;
mod request_handlers;
mod running;
mod server_interface;
#[cfg(test)]
mod tests;
mod virtualization;

pub use endpoint_shell::{EndpointShell, ShellError};
pub use handlers::{Container, NoSuchEvent, Occasion};
pub use interfaces::{DatabaseInterface, Entry, RsaWrapper};
pub use request_handlers::RequestHandler;
pub use running::{RuntimeStatistics, StartError};
pub use server_interface::{MakeError, Parameters, ServerInterface};
pub use virtualization::{VirtualizationInterface, created, destroyed};

pub use crate::config::containers::{Accelerator, OnShutdown, PortRange};
pub use crate::tcp::verbs::NotAVerb;
pub use crate::tcp::{Client, RuntimeError};
pub use machines::guest::shell::{Bounds, Output};
pub use machines::{HostKey, Lent, MachineError, MachineId, Order, Summary};
pub use wire::Secret;
pub use wire::container::{
    Complaint, Errors, Generation, REQUEST_VERB_CREATE, REQUEST_VERB_DESTROY, REQUEST_VERB_STAT,
    RESPONSE_MSG_BAD_AUTH, RESPONSE_MSG_BAD_REQ, RESPONSE_MSG_INTERNAL_ERROR, RESPONSE_MSG_OK,
    RESPONSE_MSG_REFUSED_REQ, RESPONSE_MSG_UNAVAILABLE, Request, Response,
};

/// Where a server listens that is not told: on all addresses of IPv4.
pub const DEFAULT_SERVER_BIND_ADDRESS: &str = "";
/// The port of a server that is not told any.
pub const DEFAULT_SERVER_LISTEN_PORT: u16 = 6150;
/// Seconds until a client's request must be whole.
pub const DEFAULT_CLIENT_TIMEOUT: u64 = 10;
/// Whether starting returns before the server has stopped. (The name is spelled as documented.)
pub const DEFAULT_ASYCHRONOUS: bool = false;

/// Keys are exchanged with a client: [`ServerInterface::on_client`].
pub const EVENT_CLIENT: u8 = 1;
/// A client is gone: [`ServerInterface::on_client_closed`].
pub const EVENT_CLIENT_CLOSED: u8 = 2;
/// Somebody has connected: [`ServerInterface::on_connection`].
pub const EVENT_CONNECTION: u8 = 3;
/// A container was made: [`ServerInterface::on_created_container`].
pub const EVENT_CREATED_CONTAINER: u8 = 4;
/// The endpoint of a container can be talked to: [`ServerInterface::on_created_endpoint_shell`].
pub const EVENT_CREATED_ENDPOINT_SHELL: u8 = 5;
/// A container was given back: [`ServerInterface::on_destroyed_container`].
pub const EVENT_DESTROYED_CONTAINER: u8 = 6;
/// A request breaks a rule: [`ServerInterface::on_malformed_request`].
pub const EVENT_MALFORMED_REQUEST: u8 = 7;
/// A request is there: [`ServerInterface::on_request`].
pub const EVENT_REQUEST: u8 = 8;
/// The server failed: [`ServerInterface::on_runtime_error`].
pub const EVENT_RUNTIME_ERROR: u8 = 9;
/// The server is there: [`ServerInterface::on_started`].
pub const EVENT_STARTED: u8 = 10;
/// The server has stopped: [`ServerInterface::on_stopped`].
pub const EVENT_STOPPED: u8 = 11;
/// Nothing is known by a request's verb: [`ServerInterface::on_unknown_verb`].
pub const EVENT_UNKNOWN_VERB: u8 = 12;
