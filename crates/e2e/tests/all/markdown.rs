//! Markdown pages and the magic variables of pages.

use e2e::{Server, Setup};

fn setup() -> Setup {
    Setup::new()
        .set("paths", "documents", "docs:{dir}/www")
        .set("file_server", "markdown_css", "/css/page.css")
        .set("file_server", "highlight_css", "/css/code.css")
}

fn page(server: &Server, path: &str) -> String {
    let reply = server.get(path);
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    let kind = reply.header("content-type").unwrap().to_lowercase();
    assert!(kind.starts_with("text/html") && kind.contains("utf-8"), "{kind}");
    reply.text()
}

/// The page of one markdown text, which must hold all of these parts.
fn check(markdown: &str, parts: &[&str]) -> String {
    let text = page(&setup().file("www/x.md", markdown).start(), "/docs/x.md");
    for part in parts {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    text
}

const TABLE: &str =
    "# The *first* heading\n\nPara **bold** ä.\n\n## Second\n\n| a | b |\n|---|---|\n| 1 | 2 |\n";

#[test]
fn a_page_is_html_with_tables_title_and_both_style_sheets() {
    let text = check(
        TABLE,
        &[
            "<table",
            "<td>1</td>",
            "<strong>bold</strong>",
            "ä",
            "<h2",
            "/css/page.css",
            "/css/code.css",
        ],
    );
    let title = text.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    assert_eq!(title.map(str::trim), Some("The first heading"));
    assert_eq!(text.matches("stylesheet").count(), 2, "{text}");
}

#[test]
fn fenced_code_is_highlighted() {
    let text = check(
        "# x\n\n```python\ndef f(x):\n    return \"a < b\"\n```\n",
        &["<pre", "<code", "<span", "&lt;"],
    );
    assert!(!text.contains("```"), "{text}");
}

#[test]
fn code_of_an_unknown_language_is_shown_as_it_is() {
    check(
        "# x\n\n```klingon\nqapla < 1\n```\n\n```\nno language\n```\n",
        &["qapla &lt; 1", "no language"],
    );
}

#[test]
fn a_page_without_a_heading_is_a_page() {
    check("only text", &["only text", "<title>"]);
    check("", &["<html"]);
}

#[test]
fn a_title_is_escaped() {
    let text = check("# a <b> & \"c\" </title><script>\n", &["<title>"]);
    let title = text.split("<title>").nth(1).unwrap().split("</title>").next().unwrap();
    assert!(!title.contains('<'), "{title}");
}

#[test]
fn an_envelope_takes_the_place_of_the_page() {
    let server = setup()
        .set("file_server", "markdown_envelope", "{dir}/envelope.html")
        .file("envelope.html", "T={title} M={markdown_css} H={highlight_css} B={mdhtml} {other} {}")
        .file("www/x.md", "# Head\n\ntext {title}\n")
        .start();
    let text = page(&server, "/docs/x.md");
    assert!(text.starts_with("T=Head M=/css/page.css H=/css/code.css B="), "{text}");
    assert!(text.contains("text {title}"), "what the page says is not replaced again: {text}");
    assert!(text.contains("{other}"), "{text}");
    assert!(text.contains("<h1"), "{text}");
}

#[test]
fn a_title_may_be_set() {
    let text =
        check("@TITLE=Chosen title@\n# Heading\n", &["<title>Chosen title</title>", "Heading"]);
    assert!(!text.contains("@TITLE"), "{text}");
}

#[test]
fn files_are_included_as_they_are() {
    let server = setup()
        .file("www/part.txt", "<i>part</i> @TIME=+%Y@ &amp;")
        .file("www/x.html", "<p>@INCLUDE=part.txt@</p>")
        .file("www/deep/y.html", "<p>@INCLUDE=part.txt@</p>")
        .file("www/deep/part.txt", "deep part")
        .start();
    let text = page(&server, "/docs/x.html");
    assert!(text.contains("<p><i>part</i>") && text.contains("&amp;</p>"), "{text}");
    assert!(!page(&server, "/docs/deep/y.html").contains("@INCLUDE"));
}

#[test]
fn an_include_of_itself_or_of_nothing_ends() {
    let server = setup()
        .file("www/x.html", "a @INCLUDE=x.html@ b")
        .file("www/y.html", "a @INCLUDE=nothing.html@ b")
        .file("www/p.html", "@INCLUDE=q.html@@INCLUDE=q.html@")
        .file("www/q.html", "@INCLUDE=p.html@@INCLUDE=p.html@")
        .start();
    for path in ["x", "y", "p"] {
        assert!(page(&server, &format!("/docs/{path}.html")).len() < 1_000_000);
    }
}

#[test]
fn times_are_formatted() {
    let server = setup()
        .file("www/old.txt", "x")
        .file("www/x.html", "[@TIME=+%Y@][@FILETIME=old.txt+%Y-%m-%d@][@TIME=+%A %d@]")
        .start();
    let file = std::fs::File::options().write(true).open(server.path("www/old.txt")).unwrap();
    let noon = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    file.set_modified(noon).unwrap();
    let text = page(&server, "/docs/x.html");
    let year = text.trim_start_matches('[').split(']').next().unwrap();
    assert!(year.parse::<u32>().is_ok_and(|year| (2024..2200).contains(&year)), "{text}");
    assert!(text.contains("[2001-09-09]"), "{text}");
    assert!(text.contains("day "), "{text}");
}

#[test]
fn formats_that_are_none_break_nothing() {
    let server = setup()
        .file("www/x.html", "start @TIME=+%Q%@ @TIME=+%@ @TIME=@ @TIME=+%999999999d@ @FILETIME=nothing+%Y@ @FILETIME=+%Y@ @TITLE=@ @ @@ end")
        .start();
    let text = page(&server, "/docs/x.html");
    assert!(text.starts_with("start") && text.ends_with("end"), "{text}");
    assert!(text.len() < 100_000);
}

#[test]
fn a_variable_after_a_backslash_stays_as_text() {
    let text = check(
        "# Head\n\nwrite `\\@TITLE=x@` or \\@TIME=+%Y@\n",
        &["@TITLE=x@", "@TIME=+%Y@", "<title>Head</title>"],
    );
    assert!(!text.contains("<title>x"), "{text}");
    let server = setup().file("www/x.html", "a \\@TIME=+%Y@ b user@host.example c").start();
    let text = page(&server, "/docs/x.html");
    assert!(text.contains("@TIME=+%Y@") && text.contains("user@host.example"), "{text}");
}

#[test]
fn other_files_are_left_alone() {
    let server = setup().file("www/x.txt", "@TIME=+%Y@ # no heading").start();
    assert_eq!(server.get("/docs/x.txt").text(), "@TIME=+%Y@ # no heading");
}

#[test]
fn a_page_that_changes_is_made_anew() {
    let server = setup().file("www/x.md", "# One\n").start();
    assert!(page(&server, "/docs/x.md").contains("One"));
    server.write("www/x.md", "# Two\n");
    assert!(page(&server, "/docs/x.md").contains("Two"));
}

#[test]
fn a_page_of_pathological_markdown_is_made_in_time() {
    let server = setup()
        .file("www/a.md", "[".repeat(50_000))
        .file("www/b.md", "> ".repeat(20_000))
        .file("www/c.md", "*a ".repeat(30_000))
        .file("www/d.md", [0xff, 0xfe, b'#'])
        .start();
    for name in ["a", "b", "c", "d"] {
        let reply = server.get(&format!("/docs/{name}.md"));
        assert!(reply.status < 600 && reply.status >= 200, "{name}");
    }
    server.write("www/ok.md", "# fine");
    assert!(page(&server, "/docs/ok.md").contains("fine"));
}

#[test]
fn head_of_a_page_tells_its_length() {
    let server = setup().file("www/x.md", TABLE).start();
    let length = page(&server, "/docs/x.md").len().to_string();
    let mut connection = server.connect();
    connection.write("HEAD /docs/x.md HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (status, headers) = connection.read_head().unwrap();
    assert_eq!(status, 200);
    if let Some((_, told)) =
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
    {
        assert_eq!(*told, length);
    }
}
