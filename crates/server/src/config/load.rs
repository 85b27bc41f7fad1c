//! From a file to a [`Config`], or to everything that is wrong with it.
//!
//! Invariant: at most 1 MiB is read, and a mistake anywhere means no `Config`.
//! Not here: what the text means.

use std::io::Read;
use std::path::Path;

use super::problem::{Problem, Problems};
use super::source::Document;
use super::value::{Environment, Resolver};
use super::{Config, Overrides, ini, meant, toml_file};

/// The longest configuration file.
const FILE_BYTES_MAX: usize = 1 << 20;

impl Config {
    /// Reads the file at `path`: TOML when its name ends in `.toml`, else INI.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, with file and line: it cannot be read, is longer than 1 MiB, is not
    /// UTF-8, or says something that cannot be meant.
    pub fn load(
        path: &Path,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Self, Problems> {
        let name = path.display().to_string();
        let bytes = read(path).map_err(|error| {
            Problems::from(Problem::of_file(&name, format!("cannot be read: {error}")))
        })?;
        let text = text(&name, &bytes)?;
        let is_toml = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("toml"));
        let parse = if is_toml { toml_file::parse } else { ini::parse };
        understand(parse, &name, text, Some(path), overrides, environment)
    }

    /// Reads INI `text` that is no file, shown as `name` in messages.
    ///
    /// # Errors
    ///
    /// As for [`Config::load`].
    pub fn embedded(
        name: &str,
        text: &str,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Self, Problems> {
        let text = self::text(name, text.as_bytes())?;
        understand(ini::parse, name, text, None, overrides, environment)
    }
}

type Parse = fn(&str, &str, &mut Problems) -> Document;

fn understand(
    parse: Parse,
    name: &str,
    text: &str,
    file: Option<&Path>,
    overrides: &Overrides,
    environment: &Environment,
) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let document = parse(name, text, &mut problems);
    // After a line that could not be read, more would be missing than really is.
    if problems.iter().any(|problem| problem.key.is_none()) {
        return Err(problems.sorted());
    }
    let resolver = Resolver::new(&document, environment, &mut problems);
    match meant::config(&resolver, overrides, file, &mut problems) {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems.sorted()),
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The bytes as text, without a byte order mark.
fn text<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Problems> {
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("longer than {FILE_BYTES_MAX} bytes");
        return Err(Problem::of_file(name, message).into());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.split(|&byte| byte == b'\n').count();
        Problem::of_line(name, line, "is not UTF-8 text")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}
