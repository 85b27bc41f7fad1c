//! What the fuzz targets share: limits on memory, and how an input says into which pieces it is cut.
//!
//! Invariant: an input that makes the code allocate more than is allowed ends the target, as a panic does.

use std::alloc::System;
use std::sync::{Arc, OnceLock};

use wire::Secret;
use wire::container::KeyPair;

/// Counts what Rust code allocates.
#[global_allocator]
static ALLOCATOR: cap::Cap<System> = cap::Cap::new(System, usize::MAX);

/// Runs `look`, during which at most `bytes` may be allocated at a time.
///
/// # Panics
/// Never; what needs more memory ends the process.
pub fn within_memory(bytes: usize, look: impl FnOnce()) {
    // A limit below what is in use is refused; what others free meanwhile only makes it looser.
    let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated().saturating_add(bytes));
    look();
    let _ = ALLOCATOR.set_limit(usize::MAX);
}

/// The pieces in which `bytes` arrive: sizes from 1 to 4096, by what the first byte says.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (plan, mut rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut state = u32::from(*plan);
    std::iter::from_fn(move || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
        let size = match *plan {
            0 => 4096,
            1 => 1,
            _ => 1 + (state >> 16) as usize % (usize::from(*plan) * 16),
        };
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A server's keys that everybody knows.
///
/// # Panics
/// When the file in `testdata` is not a key.
pub fn keys() -> Arc<KeyPair> {
    static KEYS: OnceLock<Arc<KeyPair>> = OnceLock::new();
    let read = || {
        let pem = include_str!("../../testdata/containers/private4096.pem");
        Arc::new(KeyPair::from_private_pem(&Secret::new(pem)).expect("a key of ours"))
    };
    Arc::clone(KEYS.get_or_init(read))
}
