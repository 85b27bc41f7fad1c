//! Rules about what the documentation points at: paths, links and targets that must exist.

use super::{File, Problem, Tree};

/// Every rule that needs more than one file.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let documents = || tree.texts().filter(|file| is_document(file));
    let architecture = tree.texts().filter(|file| file.path == "ARCHITECTURE.md");
    let mut found: Vec<Problem> = architecture.flat_map(|file| named_paths(tree, &file)).collect();
    found.extend(documents().flat_map(|file| make_targets(tree, &file)));
    found.extend(documents().flat_map(|file| links(tree, &file)));
    found
}

/// Markdown at the root, under `docs/` and `packaging/`.
fn is_document(file: &File<'_>) -> bool {
    let place = ["docs/", "packaging/", "examples/"].iter().any(|p| file.path.starts_with(p));
    file.is("md") && (place || !file.path.contains('/'))
}

/// Text between backticks, with its line number; fenced blocks count as one piece per line.
fn code_spans<'a>(file: &File<'a>) -> Vec<(usize, &'a str)> {
    let mut spans = Vec::new();
    for (number, line, fenced) in lines(file) {
        if fenced {
            spans.push((number, line.trim()));
        } else {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span)));
        }
    }
    spans
}

/// Lines with their number and whether they stand in a fenced block.
fn lines<'a>(file: &File<'a>) -> impl Iterator<Item = (usize, &'a str, bool)> {
    let mut fenced = false;
    file.text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        Some((index + 1, line, fenced))
    })
}

/// Paths in backticks exist, from the root, below `crates/`, or inside some crate's source, where a
/// module may go without its `.rs`.
fn named_paths(tree: &Tree, file: &File<'_>) -> Vec<Problem> {
    let fenced: Vec<usize> = lines(file).filter(|line| line.2).map(|line| line.0).collect();
    let spans = code_spans(file).into_iter().filter(|(number, _)| !fenced.contains(number));
    let mut found = Vec::new();
    for (number, span) in spans.filter(|(_, span)| looks_like_a_path(span)) {
        for path in braces_opened(span) {
            if !exists_somewhere(tree, &path) {
                found.push(file.problem(number, format!("there is no `{path}`")));
            }
        }
    }
    found
}

fn looks_like_a_path(span: &str) -> bool {
    const ENDINGS: [&str; 8] = [".rs", ".py", ".md", ".toml", ".sh", ".service", ".yml", ".json"];
    const CONTENT_TYPES: [&str; 5] = ["application/", "text/", "image/", "multipart/", "font/"];
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./{},".contains(c);
    span.chars().all(plain)
        && !span.starts_with(['/', '.'])
        && !CONTENT_TYPES.iter().any(|kind| span.starts_with(kind))
        && (span.contains('/') || ENDINGS.iter().any(|ending| span.ends_with(ending)))
}

/// `a/{b,c}` is `a/b` and `a/c`.
fn braces_opened(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    match parts {
        None => vec![path.to_owned()],
        Some((head, (choices, tail))) => {
            choices.split(',').flat_map(|c| braces_opened(&format!("{head}{c}{tail}"))).collect()
        }
    }
}

fn exists_somewhere(tree: &Tree, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    let bare_name = !path.contains('/');
    tree.has(path)
        || tree.has(&format!("crates/{path}"))
        || tree.0.keys().any(|file| {
            let Some((_, inside)) = file.split_once("/src/") else {
                return bare_name && file.ends_with(&format!("/{path}"));
            };
            let below = inside
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']));
            // `server/http/router` for `crates/server/src/http/router.rs`.
            let with_crate = path.split_once('/').is_some_and(|(name, rest)| {
                file.strip_prefix(&format!("crates/{name}/src/{rest}"))
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
            });
            below || with_crate || (bare_name && inside.ends_with(&format!("/{path}")))
        })
}

/// Every target that a document tells to make is in the Makefile.
fn make_targets(tree: &Tree, file: &File<'_>) -> Vec<Problem> {
    let makefile = tree.text("Makefile").unwrap_or_default();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut found = Vec::new();
    for (number, span) in code_spans(file) {
        let command = span.trim_start_matches("$ ");
        let Some(rest) = command.strip_prefix("make ") else { continue };
        let command = rest.split(['#', '&', ';', '|']).next().unwrap_or_default();
        let targets = command
            .split_whitespace()
            .filter(|word| word.starts_with(is_name) && !word.contains('='));
        for target in targets.filter(|target| !is_target(makefile, target)) {
            found.push(file.problem(number, format!("the Makefile has no target `{target}`")));
        }
    }
    found
}

fn is_target(makefile: &str, target: &str) -> bool {
    let rules = makefile.lines().filter(|line| !line.starts_with(['\t', '#', '.']));
    rules.filter_map(|line| line.split_once(':')).any(|(targets, rest)| {
        !rest.starts_with('=') && targets.split_whitespace().any(|name| name == target)
    })
}

/// Links to files of the repository resolve.
fn links(tree: &Tree, file: &File<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    for (number, line, fenced) in lines(file) {
        if fenced {
            continue;
        }
        // Links inside code are text about links.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split([' ', '#']).next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains(':');
            if !elsewhere && !resolve(file.path, target).is_some_and(|path| tree.has(&path)) {
                found.push(file.problem(number, format!("the link to `{target}` leads nowhere")));
            }
        }
    }
    found
}

/// The path from the root that `target` means in the file `from`; `None` above the root.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::Tree;

    /// Checks a document among some files that exist; gives the complaints, without their place.
    #[track_caller]
    fn check(document: &str, text: &str, complaints: &[&str]) {
        let mut tree = Tree(
            [
                ("Makefile", "CARGO := cargo\nhelp run test:\n\techo lost: x\n"),
                ("docs/config.md", ""),
                ("crates/server/src/http/router.rs", ""),
                ("crates/server/src/http.rs", ""),
                ("python/plugincore/testing.py", ""),
            ]
            .map(|(path, text)| (path.to_owned(), Some(text.to_owned())))
            .into(),
        );
        tree.0.insert(document.to_owned(), Some(text.to_owned()));
        let found: Vec<String> = super::check(&tree).into_iter().map(|p| p.what).collect();
        assert_eq!(found, complaints);
    }

    #[test]
    fn paths_in_the_map_of_the_house_exist() {
        check(
            "ARCHITECTURE.md",
            "`python/plugincore/` `http/router` `server/http/router.rs`\n",
            &[],
        );
        check("ARCHITECTURE.md", "`testing.py` `router.rs` `crates/server` `server`\n", &[]);
        check("ARCHITECTURE.md", "`http/rooter`\n", &["there is no `http/rooter`"]);
        check("ARCHITECTURE.md", "`http/{router,lost}`\n", &["there is no `http/lost`"]);
        check("ARCHITECTURE.md", "`gone.rs`\n", &["there is no `gone.rs`"]);
        check("ARCHITECTURE.md", "`text/html` `/plugins` `a::b/c` `GET /x`\n", &[]);
        check("docs/other.md", "`http/rooter`\n", &[]);
    }

    #[test]
    fn targets_in_documents_are_in_the_makefile() {
        check("README.md", "`make run` or\n\n```sh\n$ make test  # all of it\n```\n", &[]);
        check("README.md", "`make lost`\n", &["the Makefile has no target `lost`"]);
        check("docs/a.md", "```\nmake run CARGO=x && cd lost\n```\n", &[]);
        check("README.md", "`make CARGO`\n", &["the Makefile has no target `CARGO`"]);
    }

    #[test]
    fn links_lead_somewhere() {
        check("docs/a.md", "[a](config.md#top) [b](../Makefile) [c](https://a.b/) [d](#e)\n", &[]);
        check("README.md", "[a](docs/) and `[b](lost.md)`\n", &[]);
        check("README.md", "[a](lost.md)\n", &["the link to `lost.md` leads nowhere"]);
        // Above the root, though the root has a file of that name.
        check(
            "docs/a.md",
            "[a](../../Makefile)\n",
            &["the link to `../../Makefile` leads nowhere"],
        );
    }
}
