//! Lines of QEMU's monitor.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((part, rest)) = bytes.split_first() else { return };
    fuzz::within_memory(32 << 20, || machines::qemu::fuzz_monitor(rest, usize::from(*part)));
});
