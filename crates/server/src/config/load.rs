//! From a file to a [`Config`], or to everything that is wrong with it.
//!
//! Invariant: at most 1 MiB is read, and a mistake anywhere means no `Config`.
//! Not here: what the text means, and what the older program's file is in our words (`import`).

use std::io::Read;
use std::path::Path;

use super::problem::{Problem, Problems};
use super::source::Document;
use super::value::{Environment, Resolver};
use super::{Config, Overrides, import, ini, meant, older, toml_file};

/// The longest configuration file.
const FILE_BYTES_MAX: usize = 1 << 20;

impl Config {
    /// Reads the file at `path`: TOML when its name ends in `.toml`, the older program's YAML when it ends in `.yaml`
    /// or `.yml`, else INI.
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
        let ends_in = |end: &str| path.extension().is_some_and(|it| it.eq_ignore_ascii_case(end));
        if ends_in("yaml") || ends_in("yml") {
            return understand_older(&name, text, path, overrides, environment);
        }
        let parse = if ends_in("toml") { toml_file::parse } else { ini::parse };
        let mut config = understand(parse, &name, text, Some(path), overrides, environment)?;
        older::narrow(&mut config, overrides.role, false);
        Ok(config)
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

/// The older program's file: the page that `import` makes of it, in the lines and words of that file.
fn understand_older(
    name: &str,
    text: &str,
    path: &Path,
    overrides: &Overrides,
    environment: &Environment,
) -> Result<Config, Problems> {
    let imported = import::convert(name, text, overrides.role)?;
    let parse = |name: &str, page: &str, problems: &mut Problems| {
        let mut document = toml_file::parse(name, page, problems);
        imported.give_lines(&mut document);
        document
    };
    let understood = understand(parse, name, &imported.page, Some(path), overrides, environment);
    let mut config = understood.map_err(|problems| imported.in_its_words(problems))?;
    config.run_as = imported.user;
    older::narrow(&mut config, overrides.role, true);
    Ok(config)
}

fn understand(
    parse: impl FnOnce(&str, &str, &mut Problems) -> Document,
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
