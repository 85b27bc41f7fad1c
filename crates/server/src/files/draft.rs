//! A file that is being written.
//!
//! Invariant: a draft that is not kept leaves nothing, neither a file nor space taken, however it ends.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use database::{Database, DatabaseError, Rider};
use ring::digest;
use tasks::task::now_ms;

use super::name::{FileId, FileName};
use super::place::{Place, cost};
use super::{FileError, blocking, rows};

/// How much is collected before it is written: small enough for many at once.
const PIECE_BYTES: usize = 64 << 10;

/// What whoever leaves a file says about it.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// Its name.
    pub name: FileName,
    /// How long it is kept.
    pub lifetime: Duration,
    /// How often it may be fetched.
    pub uses: u32,
    /// The account that leaves it.
    pub by: i64,
}

/// A file that was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: FileId,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// A file that is being written. A failure takes it away.
pub struct Draft {
    database: Database,
    claim: Claim,
    file: File,
    digest: digest::Context,
    bytes: u64,
    pending: Vec<u8>,
}

/// The draft's file and space, as long as this lives.
struct Claim {
    place: Arc<Place>,
    id: FileId,
    cost: u64,
    is_there: bool,
    is_kept: bool,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").field("id", &self.claim.id).field("bytes", &self.bytes).finish()
    }
}

impl Draft {
    pub(super) async fn begin(place: &Arc<Place>, database: &Database) -> Result<Self, FileError> {
        let cost = cost(0);
        place.take(cost)?;
        let (place, id) = (Arc::clone(place), FileId::random());
        let mut claim = Claim { place, id, cost, is_there: false, is_kept: false };
        let database = database.clone();
        blocking(move || {
            let file = claim.place.create(id)?;
            claim.is_there = true;
            let digest = digest::Context::new(&digest::SHA256);
            Ok(Self { database, claim, file, digest, bytes: 0, pending: Vec::new() })
        })
        .await
    }

    /// Goes on with `piece`.
    ///
    /// # Errors
    /// When it becomes too long, or cannot be written.
    pub async fn add(mut self, piece: &[u8]) -> Result<Self, FileError> {
        self.bytes += piece.len() as u64;
        if let Err(error) = self.claim.extend(self.bytes) {
            // To remove a long file takes a while.
            return blocking(move || {
                drop(self);
                Err(error)
            })
            .await;
        }
        self.pending.extend_from_slice(piece);
        if self.pending.len() < PIECE_BYTES {
            return Ok(self);
        }
        blocking(move || {
            self.write_out()?;
            Ok(self)
        })
        .await
    }

    fn write_out(&mut self) -> Result<(), FileError> {
        self.file.write_all(&self.pending)?;
        self.digest.update(&self.pending);
        self.pending.clear();
        Ok(())
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.claim.id
    }

    /// Keeps it: when this returns, the file, what is known of it, and `rider` are on the disk.
    ///
    /// # Errors
    /// When that cannot be.
    pub async fn keep(mut self, new: NewFile, rider: Rider) -> Result<Stored, FileError> {
        let (draft, sha256) = blocking(move || {
            self.write_out()?;
            self.file.sync_all()?;
            self.claim.place.publish(self.claim.id)?;
            let mut sha256 = [0; 32];
            sha256.copy_from_slice(self.digest.clone().finish().as_ref());
            Ok((self, sha256))
        })
        .await?;
        let Self { database, mut claim, bytes, .. } = draft;
        let stored = Stored { id: claim.id, bytes, sha256 };
        let now = now_ms();
        let lifetime = u64::try_from(new.lifetime.as_millis()).unwrap_or(u64::MAX);
        let row = rows::Row { stored, new, now, expires_at: now.saturating_add(lifetime) };
        let (tell, told) = tokio::sync::oneshot::channel();
        // Whether or not anybody still waits: with its row it stays, without it goes.
        database.write_then(
            move |tx| {
                rows::insert(tx, &row)?;
                rider(tx)
            },
            move |outcome| {
                claim.is_kept = outcome.is_ok();
                drop(claim);
                // Nobody may wait any more.
                let _ = tell.send(outcome);
            },
        );
        told.await.unwrap_or(Err(DatabaseError::Ended))?;
        Ok(stored)
    }
}

impl Claim {
    /// Takes space for a file of so many bytes.
    fn extend(&mut self, bytes: u64) -> Result<(), FileError> {
        let limit_bytes = self.place.bytes_max();
        if bytes > limit_bytes {
            return Err(FileError::TooLong { limit_bytes });
        }
        let cost = cost(bytes);
        self.place.take(cost - self.cost)?;
        self.cost = cost;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if self.is_there {
            self.place.drop_draft(self.id);
        }
        self.place.give_back(self.cost);
    }
}
