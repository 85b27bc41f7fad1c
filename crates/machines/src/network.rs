//! The guest's network, in user mode: a LAN of its own whose gateway is this process.
