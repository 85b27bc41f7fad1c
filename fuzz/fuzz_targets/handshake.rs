//! A server that is sent anything from the first byte on, in any pieces.
#![no_main]

use wire::container::{KEY_BYTES_MAX, Next, Response, ServerSide};

/// Steps that a connection can take without another byte; there are thirteen states.
const STEPS_MAX: usize = 16;
/// A key as text and decoded, what was read beyond it, and what RSA of 16384 bits needs.
const MEMORY_BYTES: usize = 16 * KEY_BYTES_MAX as usize + (2 << 20);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let keys = fuzz::keys();
    fuzz::within_memory(MEMORY_BYTES, || {
        let mut server = ServerSide::new(keys);
        for piece in fuzz::pieces(bytes) {
            server.feed(piece);
            if !goes_on(&mut server) {
                return;
            }
            // What is sent follows from the protocol and not from what the peer claims.
            assert!(server.take_output().len() < 8 << 10);
        }
    });
});

/// Whether the server wants more.
fn goes_on(server: &mut ServerSide) -> bool {
    for _ in 0..STEPS_MAX {
        match server.advance() {
            Next::Read => return true,
            Next::Unlock(unlock) => server.unlocked(unlock.run()),
            Next::Secured => assert!(server.is_secured()),
            Next::Request(_) => {
                server.answer(&Response::ok(Default::default())).expect("a short answer");
            }
            Next::Done | Next::Refused(_) => return false,
        }
    }
    panic!("the server goes round in circles");
}
