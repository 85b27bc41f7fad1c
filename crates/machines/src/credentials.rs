//! Secrets of a machine, and what is kept of them.
