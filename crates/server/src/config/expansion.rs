//! Fills in the references of one value and converts it.
//!
//! Invariant: what it returns is at most 64 KiB, and it waits for nothing: a key that is not known
//! yet is asked for (`Trouble::Waiting`), and the value is tried again.
//! Not here: in which order keys are looked at (`value`).

use serde_json::{Map, Number, Value};

use super::mask;
use super::source::{Node, Written};
use super::spelling;
use super::template::{self, Piece};
use super::value::{Resolved, Resolver, weight};

/// One value with its references filled in.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Lists in lists, so deep.
const LISTS_DEPTH_MAX: usize = 8;

/// Why there is no value.
#[derive(Debug)]
pub(super) enum Trouble {
    /// These keys must be known first.
    Waiting(Vec<Node>),
    /// A mistake, to be reported.
    Because(String),
    /// It refers to a key that is reported already.
    Elsewhere,
}

/// What the text before the colon makes of the text after it.
#[derive(Debug, Clone, Copy)]
enum Prefix {
    Int,
    Float,
    Bool,
    List,
}

const PREFIXES: [(&str, Prefix); 4] = [
    ("int:", Prefix::Int),
    ("float:", Prefix::Float),
    ("bool:", Prefix::Bool),
    ("list:", Prefix::List),
];

/// The work on the value of one key.
pub(super) struct Expansion<'a> {
    resolver: &'a Resolver<'a>,
    node: Node,
    needs: Vec<Node>,
    notes: Vec<String>,
    unset: Vec<String>,
}

impl<'a> Expansion<'a> {
    pub(super) fn new(resolver: &'a Resolver<'a>, node: Node) -> Self {
        Self { resolver, node, needs: Vec::new(), notes: Vec::new(), unset: Vec::new() }
    }

    /// The outcome, once all parts were looked at.
    pub(super) fn end(self, value: Result<Value, Trouble>) -> Result<Resolved, Trouble> {
        // With a part missing, nothing that was found wrong needs to be.
        if !self.needs.is_empty() {
            return Err(Trouble::Waiting(self.needs));
        }
        let value = value?;
        fits(weight(&value))?;
        Ok(Resolved { value, notes: self.notes, unset: self.unset })
    }

    /// A value as it stands in the file; `typed`: prefixes convert.
    pub(super) fn written(&mut self, written: &Written, typed: bool) -> Result<Value, Trouble> {
        match written {
            Written::Text(text) => self.text(text, typed),
            Written::Tree(tree) => self.tree(tree),
        }
    }

    fn tree(&mut self, tree: &Value) -> Result<Value, Trouble> {
        match tree {
            Value::String(text) => self.text(text, true),
            Value::Array(items) => items.iter().map(|item| self.tree(item)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| Ok((name.clone(), self.tree(value)?)))
                .collect::<Result<Map<_, _>, _>>()
                .map(Value::Object),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(tree.clone()),
        }
    }

    fn text(&mut self, text: &str, typed: bool) -> Result<Value, Trouble> {
        let pieces = template::parse(text).map_err(Trouble::Because)?;
        let is_list = typed && template::strip_prefix(&pieces, "list:").is_some();
        match template::split(&pieces, |c| c == '&').into_iter().next() {
            Some(until_ampersand) if is_list => self.typed(&until_ampersand, 0),
            _ if typed => self.typed(&pieces, 0),
            _ => self.plain(&pieces),
        }
    }

    /// The value of `pieces`, converted by the prefix they begin with.
    pub(super) fn typed(&mut self, pieces: &[Piece], depth: usize) -> Result<Value, Trouble> {
        if let [Piece::Reference(name)] = pieces {
            let (value, from_environment) = self.reference(name)?;
            return match value {
                // The dialect's types work in the environment too, references do not.
                Value::String(text) if from_environment => {
                    self.converted(&[Piece::Text(text)], depth)
                }
                value => Ok(value),
            };
        }
        self.converted(pieces, depth)
    }

    fn converted(&mut self, pieces: &[Piece], depth: usize) -> Result<Value, Trouble> {
        for (text, prefix) in PREFIXES {
            if let Some(rest) = template::strip_prefix(pieces, text) {
                return match prefix {
                    Prefix::List => self.list(&rest, depth),
                    _ => self.scalar(prefix, text, &rest),
                };
            }
        }
        self.plain(pieces)
    }

    /// The value of `pieces` without conversion; a reference that is the whole keeps its type.
    fn plain(&mut self, pieces: &[Piece]) -> Result<Value, Trouble> {
        match pieces {
            [Piece::Reference(name)] => Ok(self.reference(name)?.0),
            _ => Ok(Value::String(self.join(pieces)?)),
        }
    }

    fn scalar(&mut self, prefix: Prefix, name: &str, rest: &[Piece]) -> Result<Value, Trouble> {
        let text = self.join(rest)?;
        let text = text.trim();
        match prefix {
            Prefix::Bool => {
                let known = spelling::switch(text);
                if known.is_none() {
                    let shown = self.shown(text);
                    self.notes.push(format!(
                        "`bool:{shown}` is neither a word for true nor one for false; taken as false"
                    ));
                }
                Ok(Value::Bool(known.unwrap_or(false)))
            }
            Prefix::Float => {
                let number = text.parse().ok().and_then(Number::from_f64);
                number.map(Value::Number).ok_or_else(|| self.refused(name, text, "a finite number"))
            }
            Prefix::Int | Prefix::List => {
                let signed = text.parse::<i64>().map(Value::from);
                let number = signed.or_else(|_| text.parse::<u64>().map(Value::from));
                number.map_err(|_| self.refused(name, text, "a whole number"))
            }
        }
    }

    fn list(&mut self, rest: &[Piece], depth: usize) -> Result<Value, Trouble> {
        if depth == LISTS_DEPTH_MAX {
            return Err(Trouble::Because(format!("lists in lists, more than {depth} deep")));
        }
        let mut items = Vec::new();
        let mut bytes = 0;
        for token in template::split(rest, char::is_whitespace) {
            let from = items.len();
            self.token(&token, depth, &mut items)?;
            bytes += items[from..].iter().map(weight).sum::<usize>();
            fits(bytes)?;
        }
        Ok(Value::Array(items))
    }

    /// One word of a list; a reference may stand for several items.
    fn token(
        &mut self,
        token: &[Piece],
        depth: usize,
        items: &mut Vec<Value>,
    ) -> Result<(), Trouble> {
        match token {
            [] => {}
            [Piece::Reference(name)] => match self.reference(name)?.0 {
                Value::Array(inner) => items.extend(inner),
                Value::String(text) => {
                    for word in text.split_whitespace() {
                        items.push(self.converted(&[Piece::Text(word.to_owned())], depth + 1)?);
                    }
                }
                value => items.push(value),
            },
            _ => items.push(self.converted(token, depth + 1)?),
        }
        Ok(())
    }

    /// All pieces as one text.
    pub(super) fn join(&mut self, pieces: &[Piece]) -> Result<String, Trouble> {
        let mut joined = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => joined.push_str(text),
                Piece::Reference(name) => joined.push_str(&plain_text(&self.reference(name)?.0)),
            }
            fits(joined.len())?;
        }
        Ok(joined)
    }

    /// What `${name}` stands for, and whether it comes from the environment.
    fn reference(&mut self, name: &[Piece]) -> Result<(Value, bool), Trouble> {
        let needed_before = self.needs.len();
        // A name that is put together from other values may hold what must not be shown.
        let is_plain = matches!(name, [Piece::Text(_)]);
        let name = self.join(name)?;
        if self.needs.len() > needed_before {
            return Ok((Value::Null, false));
        }
        if let Some(variable) = name.strip_prefix("ENV:") {
            let value = (self.resolver.environment)(variable.trim()).unwrap_or_default();
            if value.is_empty() && is_plain {
                self.miss(&[format!("`${{ENV:{}}}`", variable.trim())]);
            }
            return Ok((Value::String(value), true));
        }
        let node = self.target(&name).map_err(Trouble::Because)?;
        match self.resolver.known(node) {
            Some(Some(resolved)) => {
                self.miss(&resolved.unset);
                Ok((resolved.value.clone(), false))
            }
            Some(None) => Err(Trouble::Elsewhere),
            None => {
                self.needs.push(node);
                Ok((Value::Null, false))
            }
        }
    }

    /// Remembers variables that hold nothing, each once and not too many.
    fn miss(&mut self, names: &[String]) {
        const KEPT_MAX: usize = 8;
        for name in names {
            if self.unset.len() < KEPT_MAX && !self.unset.contains(name) {
                self.unset.push(name.clone());
            }
        }
    }

    /// The key that `name` names; `Err` says what there is not.
    fn target(&self, name: &str) -> Result<Node, String> {
        let document = self.resolver.document;
        let (section, key) = match name.split_once(':') {
            None => (self.node.section, name),
            Some((wanted, key)) => match document.find(wanted) {
                Some(section) => (section, key),
                None => {
                    let names = document.sections.iter().map(|section| section.name.as_str());
                    let hint = if wanted.eq_ignore_ascii_case("env") {
                        format!("; did you mean `${{ENV:{key}}}`?")
                    } else {
                        spelling::hint(wanted, names)
                    };
                    return Err(format!("`${{{name}}}`: there is no section [{wanted}]{hint}"));
                }
            },
        };
        let key = key.trim().to_lowercase();
        document.lookup(section, &key).ok_or_else(|| {
            let nodes = document.nodes(section);
            let hint =
                spelling::hint(&key, nodes.iter().map(|&node| document.entry(node).key.as_str()));
            let section = &document.sections[section].name;
            format!("`${{{name}}}`: [{section}] has no key `{key}`{hint}")
        })
    }

    fn refused(&self, prefix: &str, found: &str, expected: &str) -> Trouble {
        let found = self.shown(found);
        Trouble::Because(format!("found `{prefix}{found}`, expected {expected} after `{prefix}`"))
    }

    /// A text for a message: hidden when the key sounds secret or it holds more than was written.
    fn shown<'t>(&self, text: &'t str) -> &'t str {
        let entry = self.resolver.document.entry(self.node);
        let as_written = matches!(&entry.written, Written::Text(all) if all.contains(text));
        let parameters = self.resolver.document.holds_parameters(self.node.section);
        if mask::sounds_secret(&entry.key) || parameters || !as_written { "…" } else { text }
    }
}

/// Refuses what grew too long.
fn fits(bytes: usize) -> Result<(), Trouble> {
    if bytes <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let message = format!("longer than {VALUE_BYTES_MAX} bytes with its references filled in");
    Err(Trouble::Because(message))
}

/// A value inside a text.
pub(super) fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) => items.iter().map(plain_text).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
