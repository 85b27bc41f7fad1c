//! Plugins that are part of the server: files and system information.

pub mod files;
pub mod systeminfo;
