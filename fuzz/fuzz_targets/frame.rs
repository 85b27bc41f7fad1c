//! Lengths, bytes on their way, and encrypted packets.
#![no_main]

use wire::container::fuzzing;

/// An AES key and its IV.
const KEY_AND_IV: [u8; 48] = [7; 48];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::within_memory(1 << 20, || {
        fuzzing::length(bytes);
        fuzzing::packet(&KEY_AND_IV, bytes);
        if let [piece, first, second, rest @ ..] = bytes {
            fuzzing::input(rest, usize::from(*piece), &[*first, *second]);
        }
    });
});
