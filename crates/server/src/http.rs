//! The HTTP door: bytes from a socket become calls to a room, and its answers become responses.
//!
//! Invariant: status codes, headers and sockets are named here and nowhere below.

pub mod access_log;
pub mod activity;
pub mod body;
pub mod cargo;
pub mod client_ip;
pub mod connection;
pub mod containers;
pub mod control_routes;
pub mod cors;
pub mod dispatch;
pub mod door;
pub mod error;
pub mod listener;
pub mod machines;
pub mod parked;
pub mod parse_error;
pub mod plugin_routes;
pub mod policy;
pub mod request_id;
pub mod tls;
pub mod watched;
pub mod way_back;
