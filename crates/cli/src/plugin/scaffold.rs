//! Writes a plugin to start from, and its test.
//!
//! Invariant: no file that exists is changed, and a name that the server would not serve is refused
//! before anything is written.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::CliError;

const NAME_CHARS_MAX: usize = 64;
/// Routes that the server keeps for itself.
const RESERVED: [&str; 4] = ["plugins", "reload", "load", "unload"];
/// Lower-case words that Python does not take as a name.
const KEYWORDS: [&str; 32] = [
    "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif",
    "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda",
    "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];
/// Modules that other modules import by these names and would find the plugin instead.
const HIDDEN_MODULES: [&str; 30] = [
    "abc",
    "argparse",
    "asyncio",
    "base64",
    "collections",
    "copy",
    "datetime",
    "email",
    "enum",
    "functools",
    "html",
    "http",
    "inspect",
    "io",
    "json",
    "logging",
    "math",
    "os",
    "plugincore",
    "random",
    "re",
    "signal",
    "socket",
    "ssl",
    "string",
    "sys",
    "test",
    "time",
    "types",
    "typing",
];

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    name: String,
    plugin: PathBuf,
    test: PathBuf,
}

impl Written {
    pub(super) fn json(&self) -> Value {
        json!({ "name": self.name, "plugin": self.plugin, "test": self.test })
    }

    /// What was written, and commands that go on from here: they work as they are, in the directory
    /// where the program was called as `program`.
    pub(super) fn hints(&self, program: &str) -> String {
        let Self { name, plugin, test } = self;
        let tests = shell_word(&test.parent().unwrap_or(test).display().to_string());
        let program = shell_word(program);
        format!(
            "wrote {} and {}\n\n\
             test it:   PYTHONPATH=\"$({program} plugin path)\" python3 -m unittest discover -s {tests}\n\
             serve it:  {program} plugin load {name}   (or start the server)\n\
             call it:   GET /{name}?name=Ada",
            plugin.display(),
            test.display(),
        )
    }
}

/// `text` as one word of a shell.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Writes `NAME.py` into `directory` and `tests/test_NAME.py` beside it.
pub(super) fn write(name: &str, directory: &Path) -> Result<Written, CliError> {
    check_name(name)?;
    let written = Written {
        name: name.to_owned(),
        plugin: directory.join(format!("{name}.py")),
        test: directory.join("tests").join(format!("test_{name}.py")),
    };
    if !directory.is_dir() {
        let place = directory.display();
        return Err(CliError::Refused(format!("{place}: there is no such directory")));
    }
    if written.test.exists() {
        return Err(exists(&written.test));
    }
    write_new(&written.plugin, &plugin_text(name))?;
    let tests = directory.join("tests");
    std::fs::create_dir_all(&tests).map_err(|source| CliError::File { file: tests, source })?;
    write_new(&written.test, &test_text(name))?;
    Ok(written)
}

fn exists(file: &Path) -> CliError {
    CliError::Refused(format!("{} exists already; it is left as it is", file.display()))
}

fn write_new(file: &Path, text: &str) -> Result<(), CliError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => exists(file),
        _ => CliError::File { file: file.to_owned(), source },
    };
    let mut opened = OpenOptions::new().write(true).create_new(true).open(file).map_err(failed)?;
    opened.write_all(text.as_bytes()).map_err(failed)
}

fn check_name(name: &str) -> Result<(), CliError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let why = if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) {
        "a name is lower-case letters, digits and `_`, and begins with a letter"
    } else if name.len() > NAME_CHARS_MAX {
        "a name has at most 64 characters"
    } else if RESERVED.contains(&name) || name == "all" {
        "the server keeps this name for itself"
    } else if KEYWORDS.contains(&name) {
        "it is a word of the Python language"
    } else if HIDDEN_MODULES.contains(&name) {
        "a file of this name would hide a module that others import"
    } else {
        return Ok(());
    };
    Err(CliError::Refused(format!("`{name}` cannot be a plugin's name: {why}")))
}

/// `say_hello` is `SayHello`.
fn class_name(name: &str) -> String {
    let capital = |part: &str| part[..1].to_ascii_uppercase() + &part[1..];
    name.split('_').filter(|part| !part.is_empty()).map(capital).collect()
}

fn plugin_text(name: &str) -> String {
    let class = class_name(name);
    // The route is the class name in lower case unless it is told otherwise.
    let route = if class.to_ascii_lowercase() == name {
        String::new()
    } else {
        format!(
            "    def __init__(self, **kwargs):\n        super().__init__(**kwargs)\n        \
             self._plugin_id = \"{name}\"\n\n"
        )
    };
    format!(
        r#""""Answers /{name}."""

from plugincore.baseplugin import BasePlugin


class {class}(BasePlugin):
    """Greets whoever the variable `name` names."""

{route}    def request_handler(self, **data):
        name = data.get("name", "world")
        return 200, {{"message": f"Hello, {{name}}!"}}
"#
    )
}

fn test_text(name: &str) -> String {
    let class = class_name(name);
    format!(
        r#""""What /{name} answers."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from plugincore.testing import call
from {name} import {class}


class {class}Test(unittest.TestCase):
    def test_greets_by_name(self):
        status, body = call({class}, name="Ada")
        self.assertEqual((status, body), (200, {{"message": "Hello, Ada!"}}))

    def test_greets_the_world_when_nobody_is_named(self):
        status, body = call({class})
        self.assertEqual((status, body), (200, {{"message": "Hello, world!"}}))


if __name__ == "__main__":
    unittest.main()
"#
    )
}

#[cfg(test)]
mod tests {
    use super::{check_name, class_name, plugin_text, shell_word, write};

    #[track_caller]
    fn check(name: &str, complaint: Option<&str>) {
        match (check_name(name), complaint) {
            (Ok(()), None) => {}
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }

    #[test]
    fn a_name_is_one_that_python_and_the_server_take() {
        check("hello", None);
        check("say_hello2", None);
        for name in ["", "Hello", "2hello", "_hello", "say-hello", "a/b", "../a", "é"] {
            check(name, Some("lower-case"));
        }
        check(&"a".repeat(65), Some("64"));
        for name in super::RESERVED {
            check(name, Some("keeps"));
        }
        check("class", Some("Python"));
        check("json", Some("hide"));
    }

    #[test]
    fn the_route_is_the_name_that_was_asked_for() {
        assert_eq!(class_name("say_hello"), "SayHello");
        assert_eq!(class_name("a__b_"), "AB");
        assert!(plugin_text("say_hello").contains("self._plugin_id = \"say_hello\"\n"));
        assert!(!plugin_text("hello").contains("_plugin_id"));
    }

    #[test]
    fn both_files_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let written = write("hello", directory.path()).unwrap();
        let plugin = std::fs::read_to_string(&written.plugin).unwrap();
        let test = std::fs::read_to_string(&written.test).unwrap();
        assert!(plugin.contains("class Hello(BasePlugin):"), "{plugin}");
        assert!(test.contains("from hello import Hello"), "{test}");
    }

    #[test]
    fn the_printed_commands_take_any_path() {
        assert_eq!(shell_word("target/release/gatehouse"), "target/release/gatehouse");
        assert_eq!(shell_word("a b"), "'a b'");
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
        let directory = tempfile::tempdir().unwrap();
        let spaced = directory.path().join("my plugins");
        std::fs::create_dir(&spaced).unwrap();
        let hints = write("hello", &spaced).unwrap().hints("./gatehouse");
        let command = format!(
            "PYTHONPATH=\"$(./gatehouse plugin path)\" python3 -m unittest discover -s '{}/tests'\n",
            spaced.display()
        );
        assert!(hints.contains(&command), "{hints}");
    }

    #[test]
    fn what_exists_is_left_alone() {
        for existing in ["hello.py", "tests/test_hello.py"] {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join(existing);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "mine").unwrap();
            let error = write("hello", directory.path()).unwrap_err();
            assert!(error.to_string().contains("exists already"), "{error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
            let other = ["hello.py", "tests/test_hello.py"].into_iter().find(|o| *o != existing);
            assert!(!directory.path().join(other.unwrap()).exists());
        }
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = write("hello", std::path::Path::new("no-such-directory")).unwrap_err();
        assert!(error.to_string().contains("no-such-directory"), "{error}");
    }
}
