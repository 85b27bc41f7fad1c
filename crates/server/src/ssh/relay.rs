//! Carries one channel between a client and a guest: what one says, the other hears, in the same order.
//!
//! Invariant: neither direction waits for the other, and a channel is closed on both sides when it is on one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use machines::guest::GuestError;
use russh::server::Handle;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client, server};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

/// How long both sides may be full before the channel is given up.
const STUCK_MAX: Duration = Duration::from_secs(60);
/// The number by which SSH calls standard error.
const STDERR: u32 = 1;
/// What a client is told whose request the machine has refused.
const REFUSED: &[u8] = b"the machine refused to run this\r\n";

/// How a channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As channels do.
    Closed,
    /// The guest's whole connection is gone.
    GuestLost,
}

/// Carries a session until it is closed.
pub(super) async fn session(
    client: Channel<server::Msg>,
    guest: Channel<client::Msg>,
    handle: Handle,
) -> End {
    let (mut from_client, to_client) = client.split();
    let (mut from_guest, to_guest) = guest.split();
    let is_client_full = AtomicBool::new(false);
    let inward = carry_in(&mut from_client, &to_guest, &is_client_full);
    let outward = carry_out(&mut from_guest, &to_client, &handle, &is_client_full);
    let end = tokio::select! {
        // The client has closed; what the guest has to say is nobody's any more.
        _ = inward => End::Closed,
        end = outward => end.unwrap_or(End::Closed),
    };
    let _ = to_guest.close().await;
    let _ = to_client.close().await;
    end
}

/// What clients say. That a guest does not care for a variable or a signal is its own affair.
async fn carry_in(
    client: &mut ChannelReadHalf,
    guest: &ChannelWriteHalf<client::Msg>,
    is_client_full: &AtomicBool,
) -> Result<(), russh::Error> {
    while let Some(message) = client.wait().await {
        match message {
            ChannelMsg::Data { data } => unstuck(guest.data_bytes(data), is_client_full).await?,
            ChannelMsg::Eof => guest.eof().await?,
            ChannelMsg::Close => return Ok(()),
            ChannelMsg::RequestPty {
                term,
                col_width,
                row_height,
                pix_width,
                pix_height,
                terminal_modes,
                ..
            } => {
                let (w, h) = (pix_width, pix_height);
                guest
                    .request_pty(false, &term, col_width, row_height, w, h, &terminal_modes)
                    .await?;
            }
            ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                guest.window_change(col_width, row_height, pix_width, pix_height).await?;
            }
            ChannelMsg::SetEnv { variable_name, variable_value, .. } => {
                guest.set_env(false, variable_name, variable_value).await?;
            }
            ChannelMsg::RequestShell { .. } => guest.request_shell(true).await?,
            ChannelMsg::Exec { command, .. } => guest.exec(true, command).await?,
            ChannelMsg::RequestSubsystem { name, .. } => {
                guest.request_subsystem(true, name).await?;
            }
            ChannelMsg::Signal { signal } => guest.signal(signal).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Gives up when for a while neither side has taken what the other said: a client that does not read until it has been
/// read from, and a guest of the same kind, would wait for each other for ever.
async fn unstuck(
    sending: impl Future<Output = Result<(), russh::Error>>,
    is_client_full: &AtomicBool,
) -> Result<(), russh::Error> {
    tokio::pin!(sending);
    loop {
        tokio::select! {
            sent = &mut sending => return sent,
            () = tokio::time::sleep(STUCK_MAX) => {
                if is_client_full.load(Ordering::Relaxed) {
                    return Err(russh::Error::Pending);
                }
            }
        }
    }
}

async fn carry_out(
    guest: &mut ChannelReadHalf,
    client: &ChannelWriteHalf<server::Msg>,
    handle: &Handle,
    is_client_full: &AtomicBool,
) -> Result<End, russh::Error> {
    let id = client.id();
    while let Some(message) = guest.wait().await {
        is_client_full.store(true, Ordering::Relaxed);
        match message {
            ChannelMsg::Data { data } => client.data_bytes(data).await?,
            ChannelMsg::ExtendedData { data, ext } => client.extended_data_bytes(ext, data).await?,
            ChannelMsg::Eof => client.eof().await?,
            ChannelMsg::Close => return Ok(End::Closed),
            ChannelMsg::ExitStatus { exit_status } => client.exit_status(exit_status).await?,
            ChannelMsg::ExitSignal { signal_name, core_dumped, error_message, lang_tag } => {
                let _ = handle
                    .exit_signal_request(id, signal_name, core_dumped, error_message, lang_tag)
                    .await;
            }
            // Of a shell, a command or a subsystem; nothing else is asked about.
            ChannelMsg::Failure => {
                client.extended_data_bytes(STDERR, REFUSED).await?;
                return Ok(End::Closed);
            }
            _ => {}
        }
        is_client_full.store(false, Ordering::Relaxed);
    }
    Ok(End::GuestLost)
}

/// Carries bytes until both sides have ended.
pub(super) async fn bytes(
    client: Channel<server::Msg>,
    mut guest: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), GuestError> {
    let mut client = client.into_stream();
    copy_bidirectional(&mut client, &mut guest).await.map_err(russh::Error::IO)?;
    Ok(())
}
