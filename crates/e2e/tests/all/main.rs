//! Everything that can be seen of the program from outside, one module a topic.
//!
//! Invariant: a test starts its own server and shares nothing.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails its test")]

mod agent;
mod answers;
mod anwdlserver;
mod auth;
mod commands;
mod control;
mod cors;
mod data;
mod dispatch_accounts;
mod dispatch_bad_input;
mod dispatch_clock;
mod dispatch_connections;
mod dispatch_delivery;
mod dispatch_described;
mod dispatch_described_answers;
mod dispatch_disks;
mod dispatch_events;
mod dispatch_files;
mod dispatch_history;
mod dispatch_kill;
mod dispatch_later;
mod dispatch_leases;
mod dispatch_live;
mod dispatch_operator;
mod dispatch_parked;
mod dispatch_refusals;
mod dispatch_registry;
mod dispatch_roles;
mod dispatch_shapes;
mod dispatch_store_faults;
mod dispatch_webhooks;
mod faults;
mod files;
mod http2;
mod lifetime;
mod limits;
mod machine_doors;
mod machines_classic;
mod machines_cli;
mod machines_edges;
mod machines_faults;
mod machines_kill;
mod machines_limits;
mod machines_rest;
mod machines_who;
mod markdown;
mod naming;
mod outside;
mod packaging;
mod parameters;
mod reload;
mod reload_one;
mod request_id;
mod request_object;
mod restart;
mod running;
mod shapes;
mod starting;
mod streams;
mod systeminfo;
mod tls;
mod watch;

/// Held by a test that opens about as many files as a process may: where tests are threads of one, two would not fit.
static MANY_FILES: std::sync::Mutex<()> = std::sync::Mutex::new(());
