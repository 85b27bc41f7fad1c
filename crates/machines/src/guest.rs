//! The endpoint of a guest: its agent, and the shell by which images without one are set up.
