//! Says what each value means: references filled in, types converted.
//!
//! Invariant: every key of the document ends up as a value or as a problem, in bounded time and
//! memory: the order of work is a list of its own, so a long chain of references costs no stack.
//! Not here: which keys there should be (`table`).

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::expansion::{Expansion, Trouble};
use super::problem::{Problem, Problems};
use super::source::{Document, Node};

/// All keys that all sections see, inherited ones counted once per section.
const KEYS_MAX: usize = 100_000;
/// All values together, once references are filled in.
const TOTAL_BYTES_MAX: usize = 16 << 20;
/// So many links of a cycle are shown.
const SHOWN_LINKS_MAX: usize = 6;

/// Gives the value of an environment variable.
pub type Environment = dyn Fn(&str) -> Option<String>;

/// A value and what is odd about it though it can be used.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) value: Value,
    pub(super) notes: Vec<String>,
    /// Environment variables that it refers to and that hold nothing.
    pub(super) unset: Vec<String>,
}

impl Resolved {
    /// Why the value may be empty: ` (…)` with the variables that hold nothing, or nothing to add.
    pub(super) fn excuse(&self) -> String {
        match self.unset.as_slice() {
            [] => String::new(),
            [name] => format!(" ({name} is empty or not set)"),
            names => format!(" ({} are empty or not set)", names.join(" and ")),
        }
    }
}

/// The values of a document.
pub(super) struct Resolver<'a> {
    pub(super) document: &'a Document,
    pub(super) environment: &'a Environment,
    /// `None`: reported as a problem.
    done: HashMap<Node, Option<Resolved>>,
    total_bytes: usize,
}

/// A key being worked on, and the keys it waits for.
struct Frame {
    node: Node,
    waits_for: Vec<Node>,
}

impl<'a> Resolver<'a> {
    /// Reads every value of `document`; what cannot be read goes to `problems`.
    pub(super) fn new(
        document: &'a Document,
        environment: &'a Environment,
        problems: &mut Problems,
    ) -> Self {
        let mut resolver = Self { document, environment, done: HashMap::new(), total_bytes: 0 };
        if document.seen_count() > KEYS_MAX {
            problems.push(Problem::of_file(
                &document.file,
                format!("more than {KEYS_MAX} keys (those of [DEFAULT] count in every section)"),
            ));
            return resolver;
        }
        for section in 0..document.sections.len() {
            // What [DEFAULT] holds is read in the sections that inherit it.
            if document.default_section() == Some(section) {
                continue;
            }
            for node in document.nodes(section) {
                if resolver.total_bytes > TOTAL_BYTES_MAX || problems.is_full() {
                    break;
                }
                resolver.settle(node, problems);
            }
        }
        if resolver.total_bytes > TOTAL_BYTES_MAX {
            problems.push(Problem::of_file(
                &document.file,
                format!(
                    "the values take more than {TOTAL_BYTES_MAX} bytes with references filled in"
                ),
            ));
        }
        resolver
    }

    /// The value; `None` when it could not be read.
    pub(super) fn value(&self, node: Node) -> Option<&Resolved> {
        self.done.get(&node)?.as_ref()
    }

    /// The value if it was looked at: `Some(None)` when it could not be read.
    pub(super) fn known(&self, node: Node) -> Option<Option<&Resolved>> {
        self.done.get(&node).map(Option::as_ref)
    }

    /// A problem at the place of `node`.
    pub(super) fn problem(&self, node: Node, message: impl Into<String>) -> Problem {
        let entry = self.document.entry(node);
        Problem {
            section: Some(self.document.section_name(node).to_owned()),
            key: Some(entry.key.clone()),
            ..Problem::of_line(&self.document.file, entry.line, message)
        }
    }

    /// Works on `start` and on all it refers to, the deepest first.
    fn settle(&mut self, start: Node, problems: &mut Problems) {
        if self.done.contains_key(&start) {
            return;
        }
        let mut path = vec![Frame { node: start, waits_for: Vec::new() }];
        let mut on_path = HashSet::from([start]);
        while let Some(frame) = path.last_mut() {
            if let Some(next) = frame.waits_for.pop() {
                if self.done.contains_key(&next) {
                    continue;
                }
                if on_path.insert(next) {
                    path.push(Frame { node: next, waits_for: Vec::new() });
                } else {
                    self.break_cycle(&mut path, &mut on_path, next, problems);
                }
                continue;
            }
            let node = frame.node;
            match self.attempt(node) {
                Ok(resolved) => self.finish(node, Some(resolved)),
                Err(Trouble::Waiting(nodes)) => {
                    frame.waits_for = nodes;
                    continue;
                }
                Err(Trouble::Because(message)) => {
                    problems.push(self.problem(node, message));
                    self.finish(node, None);
                }
                Err(Trouble::Elsewhere) => self.finish(node, None),
            }
            path.pop();
            on_path.remove(&node);
        }
    }

    /// Everything from `first` to the end of the path refers to itself: reported once.
    fn break_cycle(
        &mut self,
        path: &mut Vec<Frame>,
        on_path: &mut HashSet<Node>,
        first: Node,
        problems: &mut Problems,
    ) {
        let at = path.iter().position(|frame| frame.node == first).unwrap_or(0);
        let name = |node: Node| {
            format!("{}:{}", self.document.section_name(node), self.document.entry(node).key)
        };
        let links = &path[at..];
        let mut chain: Vec<String> =
            links.iter().take(SHOWN_LINKS_MAX).map(|frame| name(frame.node)).collect();
        if links.len() > SHOWN_LINKS_MAX {
            chain.push("…".to_owned());
        }
        chain.push(name(first));
        problems.push(self.problem(first, format!("refers to itself: {}", chain.join(" → "))));
        for frame in path.drain(at..) {
            on_path.remove(&frame.node);
            self.done.insert(frame.node, None);
        }
    }

    fn finish(&mut self, node: Node, resolved: Option<Resolved>) {
        let bytes = resolved.as_ref().map_or(0, |resolved| weight(&resolved.value));
        self.total_bytes = self.total_bytes.saturating_add(bytes);
        self.done.insert(node, resolved);
    }

    fn attempt(&self, node: Node) -> Result<Resolved, Trouble> {
        let entry = self.document.entry(node);
        let mut expansion = Expansion::new(self, node);
        // The parameters of a plugin are one text here; `parameters` takes it apart.
        let typed = !self.document.holds_parameters(node.section);
        let value = expansion.written(&entry.written, typed);
        expansion.end(value)
    }
}

/// Roughly what a value takes, in bytes.
pub(super) fn weight(value: &Value) -> usize {
    const PART: usize = 8;
    match value {
        Value::String(text) => text.len() + PART,
        Value::Array(items) => items.iter().map(weight).sum::<usize>() + PART,
        Value::Object(members) => {
            members.iter().map(|(name, value)| name.len() + weight(value)).sum::<usize>() + PART
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => PART,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::ini;
    use super::{Problems, Resolver};

    /// Resolves `text` and compares `[s] x` with `expected`, or the problems.
    fn check(text: &str, expected: Result<Value, &str>) {
        let mut problems = Problems::default();
        let document = ini::parse("f", text, &mut problems);
        let environment = |name: &str| {
            (name == "HOME")
                .then(|| "/h me".to_owned())
                .or((name == "N").then(|| "int:7".to_owned()))
        };
        let resolver = Resolver::new(&document, &environment, &mut problems);
        let x = document.find("s").and_then(|section| document.lookup(section, "x"));
        let found = x.and_then(|node| resolver.value(node)).map(|resolved| resolved.value.clone());
        match expected {
            Ok(expected) => {
                assert_eq!(problems.to_string(), "", "{text}");
                assert_eq!(found, Some(expected), "{text}");
            }
            Err(expected) => assert_eq!(problems.to_string(), expected, "{text}"),
        }
    }

    #[test]
    fn a_prefix_converts_and_an_unknown_one_is_text() {
        check("[s]\nx=int: 42", Ok(json!(42)));
        check("[s]\nx=int:-3", Ok(json!(-3)));
        check("[s]\nx=float:2.50", Ok(json!(2.5)));
        check("[s]\nx=bool:YES", Ok(json!(true)));
        check("[s]\nx=bool:off", Ok(json!(false)));
        check("[s]\nx=http://h:80/", Ok(json!("http://h:80/")));
        check("[s]\nx=42", Ok(json!("42")));
        check("[s]\nx=", Ok(json!("")));
    }

    #[test]
    fn a_list_converts_its_items_and_ends_at_an_ampersand() {
        check("[s]\nx=list:a int:2 bool:on http:b & c", Ok(json!(["a", 2, true, "http:b"])));
        check("[s]\nx=list:", Ok(json!([])));
        check("[s]\nx=list:\n  a\n  float:1.5", Ok(json!(["a", 1.5])));
        check("[s]\nx=list:a list:b", Ok(json!(["a", ["b"]])));
    }

    #[test]
    fn a_whole_reference_keeps_the_type() {
        check("[SSL]\nenabled=bool:true\n[s]\nx=${ssl:Enabled}", Ok(json!(true)));
        check("[s]\nx=${Y}\ny=${z}\nz=list:1 int:2", Ok(json!(["1", 2])));
        check("[s]\nx=${ENV:N}", Ok(json!(7)));
    }

    #[test]
    fn a_reference_in_part_is_text() {
        check("[n]\nport=int:80\non=bool:on\n[s]\nx=h:${n:port}/${n:on}", Ok(json!("h:80/true")));
        check("[s]\nx=a${ENV:NONE}b$${y}", Ok(json!("ab${y}")));
        check("[s]\nx=${ENV:HOME}", Ok(json!("/h me")));
        check("[s]\nx=${k${i}}\ni=2\nk2=two", Ok(json!("two")));
    }

    #[test]
    fn references_work_after_a_prefix_and_in_a_list() {
        check("[s]\ny=5\nx=int:${y}0", Ok(json!(50)));
        check("[s]\ny=int:5\nz=list:p q\nx=list:${z} ${y} a${y}", Ok(json!(["p", "q", 5, "a5"])));
        check("[s]\nx=list:${ENV:HOME} ${ENV:HOME}/b", Ok(json!(["/h", "me", "/h me/b"])));
    }

    #[test]
    fn default_is_inherited_and_read_where_it_is_seen() {
        check("[DEFAULT]\nx=/srv/${name}\n[s]\nname=n", Ok(json!("/srv/n")));
        check("[DEFAULT]\nd=int:1\n[s]\nx=${DEFAULT:d}", Ok(json!(1)));
        check("[DEFAULT]\nx=1\n[s]\nx=2", Ok(json!("2")));
    }

    #[test]
    fn what_is_not_there_is_named_with_its_place() {
        check("[s]\n\nx=${no:way}", Err("f:3: [s] x: `${no:way}`: there is no section [no]"));
        check(
            "[s]\nxy=1\nx=a${xz}",
            Err("f:3: [s] x: `${xz}`: [s] has no key `xz`; did you mean `xy`?"),
        );
        check(
            "[s]\nx=${a\n",
            Err("f:2: [s] x: a `${` without its `}` (write `$$` for the sign itself)"),
        );
        check(
            "[s]\nx=${env:HOME}",
            Err(
                "f:2: [s] x: `${env:HOME}`: there is no section [env]; did you mean `${ENV:HOME}`?",
            ),
        );
    }

    #[test]
    fn a_cycle_is_reported_once() {
        check(
            "[s]\nx=${y}\ny=a${t:z}\n[t]\nz=${s:x}",
            Err("f:2: [s] x: refers to itself: s:x → s:y → t:z → s:x"),
        );
        check("[s]\nx=${x}", Err("f:2: [s] x: refers to itself: s:x → s:x"));
    }

    #[test]
    fn a_value_that_does_not_convert_says_what_was_expected() {
        check(
            "[s]\nx=int:4x",
            Err("f:2: [s] x: found `int:4x`, expected a whole number after `int:`"),
        );
        check(
            "[s]\nx=list:1 float:nan",
            Err("f:2: [s] x: found `float:nan`, expected a finite number after `float:`"),
        );
        check(
            "[s]\napi_key=int:hush",
            Err("f:2: [s] api_key: found `int:…`, expected a whole number after `int:`"),
        );
    }

    #[test]
    fn a_long_chain_costs_no_stack() {
        let mut text = "[s]\nx=${k0}\n".to_owned();
        for link in 0..20_000 {
            text.push_str(&format!("k{link}=${{k{}}}\n", link + 1));
        }
        text.push_str("k20000=int:1\n");
        check(&text, Ok(json!(1)));
    }

    #[test]
    fn references_cannot_blow_up() {
        let mut text = "[s]\nk0=aaaaaaaaaaaaaaaa\n".to_owned();
        for link in 1..40 {
            text.push_str(&format!("k{link}=${{k{0}}}${{k{0}}}\n", link - 1));
        }
        check(&text, Err("f:14: [s] k12: longer than 65536 bytes with its references filled in"));
        let text = text.replace('=', "=list:").replace("}$", "} $");
        check(&text, Err("f:14: [s] k12: longer than 65536 bytes with its references filled in"));
    }

    #[test]
    fn inherited_keys_cannot_blow_up() {
        let mut text = "[DEFAULT]\n".to_owned();
        for key in 0..400 {
            text.push_str(&format!("k{key}=1\n"));
        }
        for section in 0..400 {
            text.push_str(&format!("[s{section}]\n"));
        }
        check(&text, Err("f: more than 100000 keys (those of [DEFAULT] count in every section)"));
    }
}
