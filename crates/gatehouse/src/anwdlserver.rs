//! The command line of the program `anwdlserver`: through a link of that name its calls on keys and access tokens work.
//!
//! Invariant: options are those of its versions 4.x; what it is asked beyond them is refused with what to call instead.
//! Not here: what a command does (`container_commands`).

use std::ffi::OsString;

use server::tcp::rsa_keys::BITS_DEFAULT;

use crate::arguments::{ContainerArgs, ContainerOptions, KeysCommand, Task, TokenCommand};
use crate::dutserver::Complaint;

const USAGE: &str = "\
Usage: anwdlserver COMMAND ...

  access-tk -a [--disabled] | -l | -d ID | --enable ID | --disable ID [--json]
  regen-rsa [-b BITS] [--json]

Start and end the server by `gatehouse serve -i FILE` and SIGTERM; make FILE of a config.yaml by
`gatehouse config import`. Keys and tokens are those of gatehouse.ini or gatehouse.toml in this directory.
";

/// Reads the arguments behind the program's name.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Task, Complaint> {
    let words: Vec<String> =
        arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let json = words.iter().any(|word| word == "--json");
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|w| *w != "--json").collect();
    let options = || ContainerOptions { ini_file: None, json };
    let usage = |is_wanted| Complaint { text: USAGE.to_owned(), is_wanted };
    let number = |text: &str| {
        let text = text.to_owned();
        text.parse::<i64>()
            .map_err(|_| Complaint { text: format!("Invalid number `{text}`"), is_wanted: false })
    };
    let command = match words[..] {
        [] | ["-h" | "--help"] => return Err(usage(true)),
        ["regen-rsa"] => {
            ContainerArgs::Keys(KeysCommand::Regenerate { bits: BITS_DEFAULT, options: options() })
        }
        ["regen-rsa", "-b", bits] => {
            // A number that is no size is refused by whoever makes keys.
            let bits = u32::try_from(number(bits)?).unwrap_or(0);
            ContainerArgs::Keys(KeysCommand::Regenerate { bits, options: options() })
        }
        ["access-tk", ref rest @ ..] => ContainerArgs::Token(match *rest {
            ["-a"] => TokenCommand::Add { disabled: false, options: options() },
            ["-a", "--disabled"] => TokenCommand::Add { disabled: true, options: options() },
            ["-l"] => TokenCommand::List { options: options() },
            ["-d" | "-r", id] => TokenCommand::Delete { id: number(id)?, options: options() },
            ["--enable" | "-e", id] => TokenCommand::Enable { id: number(id)?, options: options() },
            ["--disable", id] => TokenCommand::Disable { id: number(id)?, options: options() },
            _ => return Err(usage(false)),
        }),
        _ => return Err(usage(false)),
    };
    Ok(Task::Container(command))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::parse;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let found = match parse(&arguments) {
            Ok(task) => format!("{task:?}"),
            Err(complaint) => complaint.text,
        };
        assert!(found.contains(expected), "{line}: {found}");
    }

    #[test]
    fn calls_on_keys_and_tokens_are_taken() {
        check("regen-rsa", "Regenerate { bits: 4096");
        check(
            "regen-rsa -b 2048 --json",
            "Regenerate { bits: 2048, options: ContainerOptions { ini_file: None, json: true",
        );
        check("access-tk -a", "Add { disabled: false");
        check("access-tk --json -a --disabled", "Add { disabled: true");
        check("access-tk -l", "List {");
        check("access-tk -d 3", "Delete { id: 3");
        check("access-tk --enable 3", "Enable { id: 3");
        check("access-tk --disable 3", "Disable { id: 3");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        check("access-tk -d x", "Invalid number `x`");
        check("access-tk", "Usage: anwdlserver");
        check("start", "gatehouse serve -i FILE");
        check("", "Usage: anwdlserver");
    }
}
