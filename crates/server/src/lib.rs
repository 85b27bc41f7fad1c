//! The server: configuration, doors and life cycle around the rooms.

pub mod config;
