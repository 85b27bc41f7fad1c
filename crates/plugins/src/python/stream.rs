//! A body that a plugin sends piece by piece, no faster than its client takes it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

use super::link::Link;
use crate::call::BodyError;

/// The pieces of one answer. Each one taken lets the worker send another; dropping it early tells the
/// worker that nobody listens.
#[derive(Debug)]
pub struct Pieces {
    pieces: mpsc::Receiver<Result<Bytes, BodyError>>,
    link: Arc<Link>,
    id: i32,
    ended: bool,
}

impl Pieces {
    pub(super) fn new(
        pieces: mpsc::Receiver<Result<Bytes, BodyError>>,
        link: Arc<Link>,
        id: i32,
    ) -> Self {
        Self { pieces, link, id, ended: false }
    }

    /// The next piece; an error breaks the connection so that the client sees the loss.
    pub fn poll_piece(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        match std::task::ready!(this.pieces.poll_recv(cx)) {
            Some(Ok(piece)) if !piece.is_empty() => {
                this.link.credit(this.id);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            // The empty piece is the end; a channel that closes without it has lost its sender.
            Some(Ok(_)) => {
                this.ended = true;
                Poll::Ready(None)
            }
            broken => {
                this.ended = true;
                let lost = || BodyError("the plugin's process ended".into());
                let error = broken.and_then(Result::err).unwrap_or_else(lost);
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if !self.ended {
            self.link.abandon(self.id);
        }
    }
}
