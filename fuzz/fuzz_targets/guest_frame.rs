//! Frames that a guest sends into its network.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Reading a frame keeps nothing.
    fuzz::within_memory(64 << 10, || machines::network::fuzz_frame(bytes));
});
