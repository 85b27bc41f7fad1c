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
        let piece = std::task::ready!(this.pieces.poll_recv(cx));
        match &piece {
            Some(Ok(_)) => this.link.credit(this.id),
            Some(Err(_)) | None => this.ended = true,
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if !self.ended {
            self.link.abandon(self.id);
        }
    }
}
