//! `gatehouse plugin …`: look after the plugins of a running server, and begin a new one.
//!
//! Invariant: with `--json`, standard output holds one JSON value and nothing else.

mod scaffold;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::CliError;
use crate::connection::{Connection, ConnectionOptions};

/// Arguments of `gatehouse plugin`.
#[derive(Debug, Clone, clap::Args)]
pub struct PluginArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PluginCommand,
    /// Which server is meant.
    #[command(flatten)]
    pub connection: ConnectionOptions,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What can be done with plugins.
#[derive(Debug, Clone, PartialEq, Eq, clap::Subcommand)]
pub enum PluginCommand {
    /// List the plugins that are served
    List,
    /// Start a plugin anew from its file and the configuration
    Reload {
        /// Name of the plugin, or `all`
        name: String,
    },
    /// Load a file that was added to the plugin directory
    Load {
        /// Name of the file, with or without its .py
        file: String,
    },
    /// Take a plugin out of service until it is loaded again
    Unload {
        /// Name of the plugin
        name: String,
    },
    /// Write a new plugin, and a test for it, to start from
    New {
        /// Name of its file and its route: lower-case letters, digits and `_`
        name: String,
        /// The plugin directory; without it that of the configuration file, or this directory
        #[arg(long, value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
    /// Print the directory that holds the Python package `plugincore`, for PYTHONPATH
    Path,
}

/// Does what `args` say and prints the result to `out`. `connect` gives the server that is meant (see
/// [`ConnectionOptions::resolve`]), `package` the directory that holds `plugincore`; each is asked only
/// by commands that need it.
///
/// # Errors
/// When the server cannot be asked or says no, or a file cannot be written. Nothing is printed then.
pub fn run(
    args: &PluginArgs,
    connect: impl FnOnce(&ConnectionOptions) -> Result<Connection, CliError>,
    package: impl FnOnce() -> Result<PathBuf, CliError>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let client = || connect(&args.connection)?.client();
    let said = match &args.command {
        PluginCommand::List => listed(client()?.plugins()?),
        PluginCommand::Reload { name } if name == "all" => reloaded_all(client()?.reload_all()?),
        PluginCommand::Reload { name } => {
            client()?.reload(name)?;
            Said { text: format!("reloaded {name}"), json: json!({ "reloaded": name }) }
        }
        PluginCommand::Load { file } => answered("loaded", file, client()?.load(file)?),
        PluginCommand::Unload { name } => answered("unloaded", name, client()?.unload(name)?),
        PluginCommand::New { name, directory } => {
            let written = scaffold::write(name, directory.as_deref().unwrap_or(Path::new(".")))?;
            Said { text: written.hints(&called_as()), json: written.json() }
        }
        PluginCommand::Path => {
            let path = package()?;
            Said { text: path.display().to_string(), json: json!({ "path": path }) }
        }
    };
    if args.json {
        writeln!(out, "{}", said.json)?;
    } else if !said.text.is_empty() {
        writeln!(out, "{}", said.text)?;
    }
    out.flush()?;
    Ok(())
}

/// The program as it was called, so that commands we print can be run where we were.
fn called_as() -> String {
    let called = std::env::args_os().next().and_then(|name| name.into_string().ok());
    called.unwrap_or_else(|| "gatehouse".to_owned())
}

/// One result, for people and for programs.
struct Said {
    text: String,
    json: Value,
}

fn listed(names: Vec<String>) -> Said {
    // One name per line and nothing else: `for name in $(gatehouse plugin list)` works.
    Said { text: names.join("\n"), json: json!({ "plugins": names }) }
}

fn reloaded_all(names: Vec<String>) -> Said {
    let text = match names.len() {
        0 => "reloaded; no plugins are served".to_owned(),
        1 => format!("reloaded 1 plugin: {}", names[0]),
        count => format!("reloaded {count} plugins: {}", names.join(", ")),
    };
    Said { text, json: json!({ "plugins": names }) }
}

fn answered(done: &str, name: &str, answer: Value) -> Said {
    Said { text: format!("{done} {name}"), json: answer }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::path::PathBuf;

    use clap::Parser;

    use super::{CliError, Connection, ConnectionOptions, PluginArgs, PluginCommand, run};

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        plugin: PluginArgs,
    }

    fn parse(line: &str) -> Result<PluginArgs, clap::Error> {
        Program::try_parse_from(line.split(' ')).map(|program| program.plugin)
    }

    /// Runs the command in `line` against a server that answers `body`; gives what is printed.
    #[track_caller]
    fn check(line: &str, body: &'static str, printed: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while !lines.next().unwrap().unwrap().is_empty() {}
            let length = body.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        });
        let connection = Connection { url, key: None, ca_file: None };
        let mut out = Vec::new();
        run(&parse(line).unwrap(), |_| Ok(connection), no_package, &mut out).unwrap();
        server.join().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), printed);
    }

    fn no_package() -> Result<PathBuf, CliError> {
        Err(CliError::Refused("asked for the package".to_owned()))
    }

    fn nobody(_: &ConnectionOptions) -> Result<Connection, CliError> {
        Err(CliError::Refused("asked for a server".to_owned()))
    }

    #[test]
    fn names_are_listed_one_per_line_or_as_json() {
        let answer = r#"{"loaded_plugins": ["files", "hello"]}"#;
        check("x list", answer, "files\nhello\n");
        check("x list --json", answer, "{\"plugins\":[\"files\",\"hello\"]}\n");
        check("x list", r#"{"loaded_plugins": []}"#, "");
    }

    #[test]
    fn a_reload_says_what_was_reloaded() {
        check("x reload hello", r#"{"reloaded": "hello", "success": true}"#, "reloaded hello\n");
        let all = r#"{"status": "All plugins reloaded", "loaded_plugins": ["a", "b"]}"#;
        check("x reload all", all, "reloaded 2 plugins: a, b\n");
        check("x --json reload all", all, "{\"plugins\":[\"a\",\"b\"]}\n");
    }

    #[test]
    fn loading_and_unloading_pass_the_servers_answer_on_as_json() {
        check("x load hello.py", r#"{"loaded": ["hello"]}"#, "loaded hello.py\n");
        check("x --json unload hello", r#"{"any": 1}"#, "{\"any\":1}\n");
    }

    #[test]
    fn a_key_is_no_argument() {
        assert!(parse("x list --key hunter2").is_err());
        let args = parse("x list --key-file k --url http://a --ca-file c").unwrap();
        assert_eq!(args.connection.url.as_deref(), Some("http://a"));
    }

    #[test]
    fn a_new_plugin_needs_no_server() {
        let directory = tempfile::tempdir().unwrap();
        let command =
            PluginCommand::New { name: "hello".into(), directory: Some(directory.path().into()) };
        let args = PluginArgs { command, ..parse("x list").unwrap() };
        let mut out = Vec::new();
        run(&args, nobody, no_package, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("hello.py"));
    }

    #[test]
    fn the_package_is_where_its_keeper_says() {
        for (line, printed) in [("x path", "/a/b\n"), ("x path --json", "{\"path\":\"/a/b\"}\n")] {
            let mut out = Vec::new();
            run(&parse(line).unwrap(), nobody, || Ok("/a/b".into()), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), printed);
        }
        assert!(run(&parse("x path").unwrap(), nobody, no_package, &mut Vec::new()).is_err());
    }
}
