//! The parameters of plugins: query strings whose values have the dialect's types, and JSON files.
//!
//! Invariant: a reference adds parameters only where it stands for whole ones, never by an `&` in a
//! value; what is percent-encoded is decoded once, and only where it was written.
//! Not here: what a plugin does with them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use plugins::parameters::WORKERS_MAX;
use serde_json::{Map, Value};

use super::expansion::{Expansion, Trouble, plain_text};
use super::raw::Raw;
use super::source::{Node, Written};
use super::template::{self, Piece};
use super::value::Resolved;

/// The longest JSON file of parameters.
const JSON_BYTES_MAX: u64 = 1 << 20;

type Parameters = Map<String, Value>;

/// Reads `[plugin_parms]`: file name without `.py`, lower-case, to parameters.
pub(super) fn read(
    raw: &mut Raw<'_>,
    directories: &[PathBuf],
    has_global_key: bool,
) -> BTreeMap<String, Parameters> {
    let document = raw.resolver.document;
    let mut all = BTreeMap::new();
    let Some(section) = document.find("plugin_parms") else {
        return all;
    };
    for node in document.own_nodes(section) {
        // What could not be resolved is reported already.
        if raw.resolver.value(node).is_none() {
            continue;
        }
        let (found, files, blanks) = (Map::new(), Vec::new(), BTreeMap::new());
        let mut list = List { raw, node, directories, found, files, blanks };
        match list.collect() {
            Ok(parameters) => {
                let excuse = list.blanks.remove("apikey").unwrap_or_default();
                let doubts = [
                    authentication_doubt(&parameters, has_global_key, &excuse),
                    workers_doubt(&parameters),
                ];
                for doubt in doubts.into_iter().flatten() {
                    raw.warnings.push(raw.resolver.problem(node, doubt));
                }
                all.insert(document.entry(node).key.clone(), parameters);
            }
            Err(Trouble::Because(message)) => {
                raw.problems.push(raw.resolver.problem(node, message));
            }
            Err(Trouble::Elsewhere | Trouble::Waiting(_)) => {}
        }
    }
    all
}

/// The work on the parameters of one plugin file.
struct List<'a, 'r> {
    raw: &'a mut Raw<'r>,
    node: Node,
    directories: &'a [PathBuf],
    found: Parameters,
    files: Vec<String>,
    /// Parameters without a value, and why.
    blanks: BTreeMap<String, String>,
}

impl List<'_, '_> {
    fn collect(&mut self) -> Result<Parameters, Trouble> {
        let resolver = self.raw.resolver;
        match &resolver.document.entry(self.node).written {
            Written::Text(text) => {
                let pieces = template::parse(text).map_err(Trouble::Because)?;
                self.query(&pieces, true)?;
            }
            Written::Tree(_) => {
                let resolved = resolver.value(self.node);
                let Some((Value::Object(members), excuse)) =
                    resolved.map(|resolved| (&resolved.value, resolved.excuse()))
                else {
                    let message = "expected a query string or a table";
                    return Err(Trouble::Because(message.to_owned()));
                };
                self.found.clone_from(members);
                let blanks = members.iter().filter(|(_, value)| value.as_str() == Some(""));
                self.blanks = blanks.map(|(name, _)| (name.clone(), excuse.clone())).collect();
            }
        }
        self.files.extend(self.found.get("json").and_then(Value::as_str).map(str::to_owned));
        let mut parameters = std::mem::take(&mut self.found);
        for name in &self.files {
            parameters.extend(read_json(name, self.directories).map_err(Trouble::Because)?);
        }
        Ok(parameters)
    }

    /// Parameters between `&`; `written`: references may stand for whole parameters.
    fn query(&mut self, pieces: &[Piece], written: bool) -> Result<(), Trouble> {
        for parameter in template::split(pieces, |c| c == '&') {
            if let Some((name, value)) = template::split_at_equals(&parameter) {
                self.parameter(&name, &value)?;
            } else if let Some(file) = template::strip_prefix(&parameter, "json:") {
                let file =
                    self.expand(|expansion| expansion.join(&decoded(&file)).map(Value::String))?;
                self.files.extend(file.as_str().map(|name| name.trim().to_owned()));
            } else if written && parameter.iter().any(|p| matches!(p, Piece::Reference(_))) {
                let text =
                    self.expand(|expansion| expansion.join(&parameter).map(Value::String))?;
                let text = text.as_str().unwrap_or_default().to_owned();
                self.query(&[Piece::Text(text)], false)?;
            } else if let [Piece::Text(name)] = parameter.as_slice()
                && !name.trim().is_empty()
            {
                // A bare word is dropped from a query string; an operator should know. It is not
                // shown: it may be the tail of a key that holds an `&`.
                let message = "a parameter without `=value` is left out";
                self.raw.warnings.push(self.raw.resolver.problem(self.node, message));
            }
        }
        Ok(())
    }

    fn parameter(&mut self, name: &[Piece], value: &[Piece]) -> Result<(), Trouble> {
        let name = self.expand(|expansion| expansion.join(&decoded(name)).map(Value::String))?;
        let name = name.as_str().unwrap_or_default().trim().to_owned();
        if name.is_empty() {
            return Err(Trouble::Because("a parameter needs a name before its `=`".to_owned()));
        }
        let resolved =
            self.resolve(|expansion| expansion.typed(&decoded(value), 0)).map_err(|trouble| {
                match trouble {
                    Trouble::Because(message) => {
                        Trouble::Because(format!("parameter `{name}`: {message}"))
                    }
                    other => other,
                }
            })?;
        // As in a query string: a blank value is no value, and the first of several counts.
        if resolved.value.as_str() == Some("") {
            self.blanks.entry(name).or_insert_with(|| resolved.excuse());
        } else {
            self.found.entry(name).or_insert(resolved.value);
        }
        Ok(())
    }

    fn expand(
        &mut self,
        work: impl FnOnce(&mut Expansion<'_>) -> Result<Value, Trouble>,
    ) -> Result<Value, Trouble> {
        Ok(self.resolve(work)?.value)
    }

    fn resolve(
        &mut self,
        work: impl FnOnce(&mut Expansion<'_>) -> Result<Value, Trouble>,
    ) -> Result<Resolved, Trouble> {
        let mut expansion = Expansion::new(self.raw.resolver, self.node);
        let value = work(&mut expansion);
        let resolved = expansion.end(value)?;
        for note in &resolved.notes {
            self.raw.warnings.push(self.raw.resolver.problem(self.node, note.clone()));
        }
        Ok(resolved)
    }
}

/// The text decoded as in a query string; what references bring stays as it is.
fn decoded(pieces: &[Piece]) -> Vec<Piece> {
    let decode = |piece: &Piece| match piece {
        Piece::Text(text) => {
            let spaced = text.replace('+', " ");
            Piece::Text(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
        }
        reference @ Piece::Reference(_) => reference.clone(),
    };
    pieces.iter().map(decode).collect()
}

/// The object in a JSON file beside the plugins: in the first directory that has it.
fn read_json(name: &str, directories: &[PathBuf]) -> Result<Parameters, String> {
    let Some(path) = directories.iter().map(|dir| dir.join(name)).find(|path| path.exists()) else {
        return Err(match directories {
            [] => format!("no `{name}`: there is no plugin directory ([paths] plugins)"),
            _ => {
                let places: Vec<_> = directories.iter().map(|d| d.display().to_string()).collect();
                format!("there is no file `{name}` in {}", places.join(", "))
            }
        });
    };
    let shown = path.display();
    let text = read_text(&path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(format!("{shown}: expected a JSON object")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(JSON_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > JSON_BYTES_MAX {
        return Err(std::io::Error::other(format!("longer than {JSON_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// What is wrong with the access that these parameters ask for; `excuse`: why there may be no `apikey`.
fn authentication_doubt(
    parameters: &Parameters,
    has_global_key: bool,
    excuse: &str,
) -> Option<String> {
    const CLOSED: &str = "every request to the plugin is refused (403)";
    let name = ["auth_type", "auth"].into_iter().find(|name| parameters.contains_key(*name))?;
    let kind = parameters[name].as_str().map(str::to_ascii_lowercase);
    let has_own_key = parameters
        .get("apikey")
        .is_some_and(|key| key.is_number() || key.as_str().is_some_and(|text| !text.is_empty()));
    match kind.as_deref() {
        Some("global") if has_global_key => None,
        Some("global") => Some(format!("`{name}=global` needs [auth] apikey; {CLOSED}")),
        Some("plugin") if has_own_key => None,
        Some("plugin") => {
            Some(format!("`{name}=plugin` needs a parameter `apikey`{excuse}; {CLOSED}"))
        }
        Some(other) if other.len() < 16 => {
            Some(format!("found `{name}={other}`, expected global or plugin; {CLOSED}"))
        }
        _ => Some(format!("`{name}` must be global or plugin; {CLOSED}")),
    }
}

/// What is wrong with the number of processes that these parameters ask for.
fn workers_doubt(parameters: &Parameters) -> Option<String> {
    plugins::parameters::workers(parameters).err()?;
    let found = parameters.get("workers").map(plain_text).filter(|text| text.len() < 16);
    let found = found.map_or_else(String::new, |text| format!("found `workers={text}`, "));
    Some(format!(
        "{found}`workers` must be a number from 1 to {WORKERS_MAX}; the file is not loaded"
    ))
}
