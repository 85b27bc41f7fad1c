//! Everything that can be seen of the program from outside, one module a topic.
//!
//! Invariant: a test starts its own server and shares nothing.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails its test")]

mod answers;
mod auth;
mod control;
mod cors;
mod data;
mod faults;
mod http2;
mod limits;
mod naming;
mod parameters;
mod reload;
mod request_object;
mod running;
mod shapes;
mod streams;
mod tls;
