//! The first command of a machine's user: connect, exchange keys, log in by password, run, read its answer.
//!
//! Invariant: the host key is the one that the server named, and the answer is the command's.

use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handler};
use russh::keys::{HashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, Disconnect};

use super::rest::Created;
use crate::error::LoadError;

/// How long a login and a command may take.
const LIMIT: Duration = Duration::from_secs(60);
const COMMAND: &str = "echo usable";
const ANSWER: &[u8] = b"usable\n";

/// Runs one command in a machine.
pub(super) fn first_command(created: &Created) -> Result<(), LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(LoadError::io("a runtime"))?;
    // Made inside: a limit of time needs the runtime's clock.
    let said = runtime.block_on(async { tokio::time::timeout(LIMIT, command(created)).await });
    let said = said.map_err(|_| LoadError::TooSlow("the first command"))?;
    let said = said.map_err(|error| LoadError::Protocol(format!("SSH: {error}")))?;
    if said == ANSWER { Ok(()) } else { Err(LoadError::unexpected(COMMAND, &said)) }
}

async fn command(created: &Created) -> Result<Vec<u8>, russh::Error> {
    let expected = created.it.machine.host_key_fingerprint.clone();
    let mut handle = client::connect(Arc::default(), created.address, User(expected)).await?;
    let password = created.it.password.expose();
    if !handle.authenticate_password(&created.it.username, password).await?.success() {
        return Ok(b"the password is refused".to_vec());
    }
    let mut channel = handle.channel_open_session().await?;
    channel.exec(false, COMMAND).await?;
    let mut said = Vec::new();
    while said.len() < ANSWER.len() {
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) => said.extend_from_slice(&data),
            Some(_) => {}
            None => break,
        }
    }
    // Said politely; nobody waits for the answer.
    let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
    Ok(said)
}

/// Knows the fingerprint of the machine's host key, where the server named it.
struct User(Option<String>);

impl Handler for User {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let found = key.fingerprint(HashAlg::Sha256).to_string();
        Ok(self.0.as_ref().is_none_or(|expected| *expected == found))
    }
}
