//! The program: arguments in, one of the libraries' functions called, an exit code out.

mod anwdlserver;
mod arguments;
mod commands;
mod container_commands;
mod database_commands;
mod dutserver;
mod image_commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    match arguments::parse() {
        Ok(task) => task.run(),
        Err(complaint) => complaint.end(),
    }
}
