//! The first room: endpoints from plugins.
//!
//! A plugin is a Python file run by worker processes, or one of the two that are built in (files and
//! system information). The room knows neither sockets nor keys: a door hands it a [`call::Call`] and
//! gets a [`call::Reply`] or a [`call::CallError`].

pub mod builtin;
pub mod call;
pub mod parameters;
pub mod python;
pub mod registry;
pub mod routes;
pub mod settings;
pub mod turn;
pub mod unit;
