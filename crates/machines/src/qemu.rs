//! Runs virtual machines with QEMU.
