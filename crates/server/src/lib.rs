//! The server: configuration, doors and life cycle around the rooms.
//!
//! `startup` builds and runs everything; `site` is what requests and changes meet; `http` is the door.

pub mod accounts;
pub mod announce;
pub mod config;
pub mod containers;
pub mod dispatch;
pub mod files;
pub mod follow;
pub mod http;
pub mod lending;
pub mod log;
pub mod open_files;
pub mod pid_file;
mod places;
pub mod shutdown;
pub mod site;
pub mod sockets;
pub mod ssh;
pub mod startup;
pub mod tcp;
pub mod watch;
pub mod webhooks;
