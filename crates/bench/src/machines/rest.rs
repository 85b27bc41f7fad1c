//! Machines by the resources below `/machines`.
//!
//! Invariant: what is given is what the server said, checked; times are taken by who calls. The server has no accounts, so
//! that this machine alone may ask.

use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use serde_json::json;
use wire::machines::CreatedMachine;

use crate::error::LoadError;
use crate::http::{Caller, request};

/// The first machine waits for its snapshot, and a cold one for its boot.
const CREATE_LIMIT: Duration = Duration::from_secs(300);
/// How long the port of a machine that is gone may take to refuse.
const REFUSE_LIMIT: Duration = Duration::from_secs(1);

/// The server that is asked.
pub(super) struct Rest {
    server: SocketAddrV4,
    order: Vec<u8>,
}

/// A machine of ours.
pub(super) struct Created {
    pub(super) it: CreatedMachine,
    /// Where its SSH server is reached.
    pub(super) address: SocketAddr,
}

impl Rest {
    pub(super) fn new(server: SocketAddrV4, memory_mb: Option<u32>) -> Self {
        let order = memory_mb.map_or_else(|| json!({}), |memory| json!({ "memory": memory }));
        Self { server, order: order.to_string().into_bytes() }
    }

    pub(super) fn create(&self) -> Result<Created, LoadError> {
        let mut caller = Caller::connect_within(self.server, CREATE_LIMIT)?;
        let (status, body) = caller.call(&request("POST", "/machines", "", &self.order))?;
        if status != 201 {
            return Err(LoadError::unexpected("POST /machines", &body));
        }
        let it: CreatedMachine = serde_json::from_slice(&body)
            .map_err(|_| LoadError::Protocol("an answer is no machine".to_owned()))?;
        let address = SocketAddr::from((*self.server.ip(), it.port));
        Ok(Created { it, address })
    }

    pub(super) fn destroy(&self, created: &Created) -> Result<(), LoadError> {
        let target = format!("/machines/{}", created.it.machine.id);
        let mut caller = Caller::connect_within(self.server, CREATE_LIMIT)?;
        let (status, body) = caller.call(&request("DELETE", &target, "", b""))?;
        if status == 200 { Ok(()) } else { Err(LoadError::unexpected("DELETE /machines", &body)) }
    }
}

impl Created {
    /// The machine was given back: its port is closed.
    pub(super) fn check_gone(&self) -> Result<(), LoadError> {
        match TcpStream::connect_timeout(&self.address, REFUSE_LIMIT) {
            Err(_) => Ok(()),
            Ok(_) => {
                Err(LoadError::Protocol("the port of a machine that is gone is open".to_owned()))
            }
        }
    }
}
