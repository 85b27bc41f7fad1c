//! `POST /machines/ID/certificate`: a certificate by which one may log in to a machine through the SSH gateway.
//!
//! Invariant: it is for one machine and some minutes, and only who may change the machine is given one.

use http::StatusCode;
use machines::lifecycle::State;
use serde::Deserialize;
use serde_json::json;

use super::refusal::Refusal;
use super::{Answer, Request, json_answer, named, shown, who};
use crate::ssh::authority::IssueError;

/// The longest public key that is taken, in bytes: four times that of an RSA key of 16384 bits.
const PUBLIC_KEY_BYTES_MAX: usize = 8192;
/// The holder's name where nobody needs one.
const NOBODY: &str = "this machine";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    public_key: Option<String>,
}

/// Signs it.
pub(super) async fn issue(request: &mut Request<'_>, id: &str) -> Answer {
    let caller = who::changes(request).await?;
    let id = named(request, &caller, id)?;
    let wish: Wish = request.json().await?;
    let public_key = wish.public_key.ok_or_else(|| Refusal::bad("public_key: missing"))?;
    if public_key.len() > PUBLIC_KEY_BYTES_MAX {
        return Err(Refusal::bad(format!("public_key: {PUBLIC_KEY_BYTES_MAX} bytes at most")));
    }
    let Some(gateway) = &request.lending.gateway else {
        let message = "this server has no SSH gateway: set `ssh_gateway_port` in [containers]";
        return Err(Refusal::new(StatusCode::NOT_FOUND, message));
    };
    if request.machines().show(id)?.state != State::Ready {
        return Err(Refusal::new(StatusCode::CONFLICT, "the machine is not ready"));
    }
    let holder = caller.counts_as.as_deref().unwrap_or(NOBODY);
    let issued = gateway.issue(public_key.trim(), id, holder).map_err(|error| match error {
        IssueError::PublicKey => Refusal::bad(format!("public_key: {error}")),
        IssueError::Signing => Refusal::internal(error),
    })?;
    Ok(json_answer(&json!({
        "certificate": issued.certificate,
        "valid_until": shown::moment(issued.valid_until),
        "gateway_port": gateway.port,
        "gateway_fingerprint": gateway.fingerprint,
        "gateway_host_key": gateway.host_key,
    })))
}
