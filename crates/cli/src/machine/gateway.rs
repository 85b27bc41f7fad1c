//! The way to a machine through the server's SSH gateway.
//!
//! Invariant: the gateway is entered with the host key that the server told by HTTP or not at all; the certificate is
//! for one machine and minutes, and the key it is for stays here.

use client::Client;
use wire::machines::Machine;

use super::kept::Record;
use super::key_line::KeyLine;
use super::keys;
use super::ssh::{Destination, word};
use crate::CliError;
use crate::screen::Screen;
use crate::session::Surroundings;

/// What the gateway is called in files of host keys.
const ALIAS: &str = "gatehouse-gateway";

/// The way to `machine`: has a certificate signed, and writes it and the gateway's host key down.
pub(super) fn find(
    machine: &Machine,
    kept: Option<&Record>,
    client: &Client,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Destination, CliError> {
    let place = around.kept.as_ref().ok_or_else(|| {
        CliError::Refused("no place for certificates: set XDG_STATE_HOME or HOME".to_owned())
    })?;
    let key = match kept.and_then(|kept| kept.identity_file.as_deref()) {
        Some(file) => keys::of_identity(file)?,
        // Made elsewhere: any key will do, since it is the certificate that lets in.
        None => keys::choose(None, around, screen)?.ok_or_else(|| {
            CliError::Refused("the gateway needs an SSH key; `ssh-keygen` makes one".to_owned())
        })?,
    };
    let way = client.machine_certificate(&machine.id, &key.public)?;
    let refused =
        |what: &str| CliError::Refused(format!("what the server gives as {what} is none"));
    let host_key = KeyLine::parse(&way.gateway_host_key)
        .filter(|line| line.fingerprint() == way.gateway_fingerprint)
        .ok_or_else(|| refused("the gateway's host key"))?;
    let certificate = KeyLine::parse(&way.certificate).ok_or_else(|| refused("a certificate"))?;
    let line = format!("{ALIAS} {}", host_key.line());
    let (certificate_file, known_hosts) =
        place.write_gateway(&machine.id, &certificate.line(), &line)?;
    let host = kept.map(|kept| kept.host.clone()).unwrap_or_else(|| client.host());
    Ok(Destination {
        alias: ALIAS.to_owned(),
        host: word(&host, "host")?.to_owned(),
        port: way.gateway_port,
        username: machine.id.clone(),
        identity_file: Some(keys::text(&key.identity_file)?.to_owned()),
        certificate_file: Some(certificate_file),
        known_hosts,
        is_pinned: true,
    })
}
