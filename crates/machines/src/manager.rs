//! All machines of this server.

/// All machines of this server.
#[derive(Debug)]
pub struct Machines;

/// How machines are lent.
#[derive(Debug)]
pub struct Settings;
