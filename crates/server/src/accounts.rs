//! Decides who somebody is.

pub mod keys;
