//! The program: arguments in, one of the libraries' functions called, an exit code out.

mod arguments;
mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    arguments::parse().run()
}
