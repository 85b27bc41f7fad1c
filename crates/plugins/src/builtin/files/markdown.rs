//! Markdown to HTML: tables, footnotes, task lists, strikethrough; code in colours; headings with
//! anchors.
//!
//! HTML inside markdown passes as it is: the documents are the owner's own.

use std::collections::HashMap;
use std::fmt::Write;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd, html};

use super::highlight;

/// A rendered document.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) html: String,
    /// The text of the first heading.
    pub(super) heading: Option<String>,
}

/// Renders a document.
pub(super) fn render(text: &str) -> Rendered {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_HEADING_ATTRIBUTES;
    let mut pass = Pass::default();
    for event in Parser::new_ext(text, options) {
        pass.take(event);
    }
    let mut html = String::with_capacity(text.len() * 3 / 2);
    html::push_html(&mut html, pass.events.into_iter());
    Rendered { html, heading: pass.first_heading }
}

/// Text as HTML text, also fit for an attribute in double quotes.
pub(super) fn escape(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            c => html.push(c),
        }
    }
}

/// One pass over the events: code blocks become HTML, headings get their anchors.
#[derive(Default)]
struct Pass<'t> {
    events: Vec<Event<'t>>,
    /// Language and text of the code block we are in.
    code: Option<(String, String)>,
    /// Where the heading we are in began, and its text so far.
    heading: Option<(usize, String)>,
    first_heading: Option<String>,
    /// The anchors given, and how many headings asked for each.
    anchors: HashMap<String, usize>,
}

impl<'t> Pass<'t> {
    fn take(&mut self, event: Event<'t>) {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match &kind {
                    // `python hl_lines="1"` and `rust,ignore` begin with the language.
                    CodeBlockKind::Fenced(info) => {
                        info.split([' ', ',', '{', '\t']).find(|word| !word.is_empty())
                    }
                    CodeBlockKind::Indented => None,
                };
                self.code = Some((language.unwrap_or_default().to_owned(), String::new()));
            }
            Event::End(TagEnd::CodeBlock) => {
                if let Some((language, code)) = self.code.take() {
                    self.events.push(Event::Html(highlight::block(&code, &language).into()));
                }
            }
            Event::Text(text) if self.code.is_some() => {
                if let Some((_, code)) = &mut self.code {
                    code.push_str(&text);
                }
            }
            event => {
                self.follow_heading(&event);
                self.events.push(event);
            }
        }
    }

    fn follow_heading(&mut self, event: &Event<'t>) {
        match (event, &mut self.heading) {
            (Event::Start(Tag::Heading { .. }), _) => {
                self.heading = Some((self.events.len(), String::new()));
            }
            (Event::Text(text) | Event::Code(text), Some((_, heading))) => heading.push_str(text),
            (Event::End(TagEnd::Heading(_)), _) => {
                if let Some((at, text)) = self.heading.take() {
                    self.finish_heading(at, text);
                }
            }
            _ => {}
        }
    }

    fn finish_heading(&mut self, at: usize, text: String) {
        let anchor = self.anchor(&text);
        if let Some(Event::Start(Tag::Heading { id, .. })) = self.events.get_mut(at)
            && id.is_none()
        {
            *id = Some(anchor.into());
        }
        if self.first_heading.is_none() && !text.trim().is_empty() {
            self.first_heading = Some(text.trim().to_owned());
        }
    }

    /// `Getting started!` is `getting-started`; the second of that name `getting-started-1`.
    fn anchor(&mut self, text: &str) -> String {
        let mut slug = String::with_capacity(text.len());
        for c in text.trim().chars() {
            match c {
                c if c.is_alphanumeric() || c == '_' => slug.extend(c.to_lowercase()),
                ' ' | '-' => slug.push('-'),
                _ => {}
            }
        }
        let Some(count) = self.anchors.get_mut(&slug) else {
            self.anchors.insert(slug.clone(), 0);
            return slug;
        };
        let base = slug.len();
        let mut count = std::mem::take(count);
        let base_slug = slug.clone();
        loop {
            count += 1;
            slug.truncate(base);
            // Writing to a String cannot fail.
            let _ = write!(slug, "-{count}");
            if !self.anchors.contains_key(&slug) {
                break;
            }
        }
        self.anchors.insert(base_slug, count);
        self.anchors.insert(slug.clone(), 0);
        slug
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(markdown: &str, html: &str) {
        assert_eq!(render(markdown).html, html);
    }

    #[test]
    fn paragraphs_and_html_pass() {
        check("a *b* <br> & c", "<p>a <em>b</em> <br> &amp; c</p>\n");
        check("<div>x</div>\n", "<div>x</div>\n");
        check("~~a~~", "<p><del>a</del></p>\n");
    }

    #[test]
    fn tables_are_tables() {
        let html = render("|a|b|\n|-|-:|\n|1|2|\n").html;
        assert!(html.contains("<table>") && html.contains("<td>1</td>"), "{html}");
    }

    #[test]
    fn headings_have_anchors_and_the_first_is_the_title() {
        let rendered =
            render("text\n\n## Getting `started`!\n\n# Über uns\n\n## Getting started\n");
        assert_eq!(rendered.heading.as_deref(), Some("Getting started!"));
        for anchor in ["id=\"getting-started\"", "id=\"über-uns\"", "id=\"getting-started-1\""] {
            assert!(rendered.html.contains(anchor), "{anchor} in {}", rendered.html);
        }
        assert_eq!(render("no heading").heading, None);
    }

    #[test]
    fn a_chosen_anchor_stays() {
        check("# A {#own}", "<h1 id=\"own\">A</h1>\n");
    }

    #[test]
    fn fenced_code_is_highlighted_by_its_first_word() {
        let html = render("```python hl_lines=\"1\"\nreturn 1\n```\n").html;
        assert!(html.contains("<span class=\"k\">return</span>"), "{html}");
        let html = render("```rust,ignore\nfn f() {}\n```\n").html;
        assert!(html.contains("<span class=\"nf\">f</span>"), "{html}");
        let html = render("    indented < code\n").html;
        assert!(html.contains("<code>indented &lt; code\n</code>"), "{html}");
    }
}
