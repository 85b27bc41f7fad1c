//! Code in colours: HTML with the class names of Pygments, so that its style sheets fit.
//!
//! Grammars are loaded with the first highlighted page, a few megabytes; a server without such pages
//! never has them.

use std::fmt::Write;
use std::sync::OnceLock;

use syntect::parsing::{ParseState, Scope, ScopeStack, SyntaxReference, SyntaxSet};
use syntect::util::LinesWithEndings;

use super::markdown::escape;

/// Longer code is shown without colours: grammars are not meant for data.
const CODE_BYTES_MAX: usize = 256 * 1024;

/// A longer line is shown without colours, for some grammars take quadratic time on one.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// Names that people write, and the grammar that fits best.
const ALIASES: [(&str, &str); 12] = [
    ("c#", "cs"),
    ("cfg", "properties"),
    ("console", "sh"),
    ("ini", "properties"),
    ("jsx", "js"),
    ("python3", "python"),
    ("shell", "sh"),
    ("shell-session", "sh"),
    ("toml", "properties"),
    ("ts", "js"),
    ("tsx", "js"),
    ("typescript", "js"),
];

/// Which class a scope gets; the first prefix that fits wins. An empty class means: none.
const CLASSES: [(&str, &str); 66] = [
    ("comment.line.shebang", "ch"),
    ("comment.line", "c1"),
    ("comment.block.documentation.python", "sd"),
    ("comment.block", "cm"),
    ("comment", "c"),
    ("constant.character.escape", "se"),
    ("constant.character", "sc"),
    ("constant.language", "kc"),
    ("constant.numeric.float", "mf"),
    ("constant.numeric.hex", "mh"),
    ("constant.numeric.integer.hexadecimal", "mh"),
    ("constant.numeric.integer.octal", "mo"),
    ("constant.numeric.integer.binary", "mb"),
    ("constant.numeric", "mi"),
    ("constant.other.placeholder", "si"),
    ("constant.other.symbol", "ss"),
    ("constant.other.color", "mh"),
    ("constant", "no"),
    ("entity.name.function", "nf"),
    ("entity.name.tag", "nt"),
    ("entity.name.label", "nl"),
    ("entity.name.constant", "no"),
    ("entity.name.namespace", "nn"),
    ("entity.name.module", "nn"),
    ("entity.name.exception", "ne"),
    ("entity.name.section", "gh"),
    ("entity.name", "nc"),
    ("entity.other.attribute-name", "na"),
    ("entity.other.inherited-class", "nc"),
    ("invalid", "err"),
    ("keyword.control.import", "kn"),
    ("keyword.control.preprocessor", "cp"),
    ("keyword.declaration", "kd"),
    ("keyword.operator.word", "ow"),
    ("keyword.operator.logical.python", "ow"),
    ("keyword.operator", "o"),
    ("keyword.other.unit", "kt"),
    ("keyword", "k"),
    ("markup.bold", "gs"),
    ("markup.deleted", "gd"),
    ("markup.heading", "gh"),
    ("markup.inserted", "gi"),
    ("markup.italic", "ge"),
    ("meta.annotation", "nd"),
    ("meta.diff.header", "gh"),
    ("meta.diff.range", "gu"),
    ("meta.preprocessor", "cp"),
    ("storage.modifier", "kd"),
    ("storage.type.class", "k"),
    ("storage.type.function", "k"),
    ("storage.type", "kt"),
    ("string.quoted.double", "s2"),
    ("string.quoted.single", "s1"),
    ("string.regexp", "sr"),
    ("string", "s"),
    ("support.constant", "kc"),
    ("support.function", "nb"),
    ("support.type.property-name", "nt"),
    ("support", "nc"),
    ("variable.annotation", "nd"),
    ("variable.function", "nf"),
    ("variable.language", "bp"),
    ("variable.other.constant", "no"),
    ("variable.parameter", "n"),
    ("variable", "n"),
    ("punctuation.separator", "p"),
];

/// Punctuation that belongs to what it encloses: the quotes of a string are string.
const ENCLOSING: &str = "punctuation.definition";

struct Grammars {
    set: SyntaxSet,
    classes: Vec<(Scope, &'static str)>,
    enclosing: Scope,
    punctuation: Scope,
}

fn grammars() -> Option<&'static Grammars> {
    static GRAMMARS: OnceLock<Option<Grammars>> = OnceLock::new();
    GRAMMARS.get_or_init(load).as_ref()
}

fn load() -> Option<Grammars> {
    let classes: Result<_, _> = CLASSES
        .iter()
        .map(|(scope, class)| Ok::<_, ()>((Scope::new(scope).map_err(|_| ())?, *class)))
        .collect();
    Some(Grammars {
        set: SyntaxSet::load_defaults_newlines(),
        classes: classes.ok()?,
        enclosing: Scope::new(ENCLOSING).ok()?,
        punctuation: Scope::new("punctuation").ok()?,
    })
}

/// A block of code as HTML, in colours if the language is known.
pub(super) fn block(code: &str, language: &str) -> String {
    let mut html = String::with_capacity(code.len() * 2 + 96);
    html.push_str("<div class=\"codehilite\"><pre><span></span><code>");
    let painted = !language.is_empty() && code.len() <= CODE_BYTES_MAX;
    let grammar = if painted { find(language) } else { None };
    match grammar {
        Some((grammars, syntax)) => paint(&mut html, grammars, syntax, code),
        None => escape(&mut html, code),
    }
    html.push_str("</code></pre></div>\n");
    html
}

fn find(language: &str) -> Option<(&'static Grammars, &'static SyntaxReference)> {
    let language = language.to_ascii_lowercase();
    let alias = ALIASES.iter().find(|(name, _)| *name == language);
    let grammars = grammars()?;
    let syntax = grammars.set.find_syntax_by_token(alias.map_or(&language, |(_, token)| token))?;
    Some((grammars, syntax))
}

fn paint(html: &mut String, grammars: &Grammars, syntax: &SyntaxReference, code: &str) {
    let mut state = ParseState::new(syntax);
    let mut painter = Painter { html, class: "" };
    let mut stack = ScopeStack::new();
    for line in LinesWithEndings::from(code) {
        let changes = if line.len() <= LINE_BYTES_MAX {
            state.parse_line(line, &grammars.set).unwrap_or_default()
        } else {
            Vec::new()
        };
        let mut done = 0;
        for (at, change) in changes {
            // Never past the line, never back, never within a character.
            if let Some(text) = line.get(done..at) {
                painter.write(text, grammars.class(&stack));
                done = at;
            }
            if stack.apply(&change).is_err() {
                break;
            }
        }
        painter.write(&line[done..], grammars.class(&stack));
    }
    painter.turn("");
}

impl Grammars {
    /// The class of the innermost scope that has one.
    fn class(&self, stack: &ScopeStack) -> &'static str {
        for (depth, scope) in stack.scopes.iter().enumerate().rev() {
            if self.enclosing.is_prefix_of(*scope) && depth > 1 {
                continue;
            }
            if let Some((_, class)) = self.classes.iter().find(|(p, _)| p.is_prefix_of(*scope)) {
                return class;
            }
            if self.punctuation.is_prefix_of(*scope) {
                return "p";
            }
        }
        ""
    }
}

struct Painter<'a> {
    html: &'a mut String,
    class: &'static str,
}

impl Painter<'_> {
    fn write(&mut self, text: &str, class: &'static str) {
        if text.is_empty() {
            return;
        }
        self.turn(class);
        escape(self.html, text);
    }

    fn turn(&mut self, class: &'static str) {
        if class == self.class {
            return;
        }
        if !self.class.is_empty() {
            self.html.push_str("</span>");
        }
        if !class.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(self.html, "<span class=\"{class}\">");
        }
        self.class = class;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a block without its tags, unescaped.
    fn text(html: &str) -> String {
        let mut text = String::new();
        let mut rest = html;
        while let Some((before, tag)) = rest.split_once('<') {
            text.push_str(before);
            rest = tag.split_once('>').unwrap().1;
        }
        text.push_str(rest);
        text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
    }

    #[track_caller]
    fn check(language: &str, code: &str, spans: &[(&str, &str)]) {
        let html = block(code, language);
        for (class, words) in spans {
            let span = format!("<span class=\"{class}\">{words}");
            assert!(html.contains(&span), "{span} in {html}");
        }
        assert_eq!(text(&html), format!("{code}\n"), "no character is lost");
    }

    #[test]
    fn code_gets_the_classes_of_pygments() {
        check(
            "python",
            "import os\n# note\ndef f(x):\n    return \"a\" + 1 + None < 2.5\n",
            &[
                ("kn", "import"),
                ("c1", "# note"),
                ("nf", "f"),
                ("k", "return"),
                ("mi", "1"),
                ("kc", "None"),
            ],
        );
        check("rust", "// note\nfn main() { let x = 1; }\n", &[("c1", "// note"), ("nf", "main")]);
        check("json", "{\"a\": [1, true]}\n", &[("mi", "1"), ("kc", "true")]);
        check("html", "<a href=\"x\">&amp;</a>\n", &[("nt", "a"), ("na", "href")]);
        check("Shell", "if true; then echo \"$x\"; fi\n", &[("k", "if")]);
        check("c", "/* a */ int x = 0x1f;\n", &[("cm", "/* a */"), ("kt", "int")]);
    }

    #[test]
    fn an_unknown_language_is_plain_text() {
        let html = block("a < b\n", "no-such-language");
        assert_eq!(
            html,
            "<div class=\"codehilite\"><pre><span></span><code>a &lt; b\n</code></pre></div>\n"
        );
    }

    #[test]
    fn long_lines_and_long_code_come_through() {
        check("js", &format!("\"{}\"\nvar x;\n", "é<".repeat(LINE_BYTES_MAX)), &[]);
        check("js", &"1\n".repeat(CODE_BYTES_MAX), &[]);
    }

    #[test]
    fn every_prefix_in_the_table_is_a_scope() {
        assert!(grammars().is_some());
    }
}
