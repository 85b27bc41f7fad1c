//! Pages: documents that are made of files and not sent as they are (markdown, HTML with variables).
//!
//! Invariant: a kept page is used only while every file it was made of, and every one it missed, is as
//! it was then; a page that shows the time of day for a second at most.
//! Not here: the variables (`magic`), markdown itself, and which thread renders.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderValue};
use jiff::Zoned;

use super::FileSettings;
use super::conditions::whole_seconds;
use super::document::{About, Document, OVERHEAD_BYTES, is_settled, read_whole};
use super::magic::{self, EXPANDED_BYTES_MAX, Expanded};
use super::markdown;
use super::path::DocPath;
use super::root::{Kind, Miss, Patience, Root, Stamp, look_anywhere};

/// How long a page that shows the time is kept.
const VOLATILE_FOR: Duration = Duration::from_secs(1);

/// What a file may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageKind {
    Markdown,
    Html,
}

impl PageKind {
    /// `None` for what is always sent as it is.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (_, extension) = path.rsplit_once('.')?;
        let is = |wanted: &str| extension.eq_ignore_ascii_case(wanted);
        if is("md") || is("markdown") {
            Some(Self::Markdown)
        } else if is("html") || is("htm") {
            Some(Self::Html)
        } else {
            None
        }
    }
}

/// A page as it was made.
#[derive(Debug)]
pub(super) struct Page {
    /// `None`: there is nothing to make of the file; it is sent as it is.
    pub(super) document: Option<Arc<Document>>,
    /// The page's own file.
    stamp: Stamp,
    /// The other files.
    sources: Vec<magic::Source>,
    /// The envelope it was put in; `None` inside: it could not be read.
    envelope: Option<Option<Stamp>>,
    expires: Option<Instant>,
    /// May it be kept at all?
    pub(super) settled: bool,
}

impl Page {
    /// Is it what would be made now? `seen` is the page's file.
    pub(super) fn is_current(
        &self,
        root: &Root,
        settings: &FileSettings,
        seen: &Stamp,
        patience: Patience,
    ) -> Result<bool, Miss> {
        if self.stamp != *seen || self.expires.is_some_and(|at| at <= Instant::now()) {
            return Ok(false);
        }
        for source in &self.sources {
            let now = match root.look(&source.path, patience) {
                Ok(Kind::File(stamp)) => Some(stamp),
                Ok(Kind::Directory) | Err(Miss::Absent) => None,
                Err(miss) => return Err(miss),
            };
            if now != source.stamp {
                return Ok(false);
            }
        }
        match (&self.envelope, &settings.markdown_envelope) {
            (Some(stamp), Some(path)) => match look_anywhere(path, patience) {
                Ok(now) => Ok(Some(now) == *stamp),
                Err(Miss::Absent) => Ok(stamp.is_none()),
                Err(miss) => Err(miss),
            },
            _ => Ok(true),
        }
    }

    /// The URLs and lengths of the files whose text is in it.
    fn includes(sources: &[magic::Source], route: &str) -> Vec<(String, u64)> {
        let url =
            |path: &str| DocPath::parse(path).map_or_else(String::new, |path| path.url(route));
        sources
            .iter()
            .filter(|source| source.included)
            .filter_map(|source| Some((url(&source.path), source.stamp?.size)))
            .collect()
    }
}

/// Counts a kept page's bytes, and something for what surrounds them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight;

impl quick_cache::Weighter<Box<str>, Arc<Page>> for Weight {
    fn weight(&self, path: &Box<str>, page: &Arc<Page>) -> u64 {
        let bytes = page.document.as_ref().map_or(0, |document| document.bytes.len());
        (path.len() + bytes + page.sources.len() * 128 + OVERHEAD_BYTES) as u64
    }
}

/// Makes the page at `path`. Reads files and takes its time: only where that is allowed.
pub(super) fn make(
    root: &Root,
    settings: &FileSettings,
    path: &str,
    kind: PageKind,
) -> Result<Page, Miss> {
    let (file, stamp) = root.read(path, Patience::Blocking)?;
    let mut page = Page {
        document: None,
        stamp,
        sources: Vec::new(),
        envelope: None,
        expires: None,
        settled: is_settled(&file, &stamp),
    };
    if stamp.size > EXPANDED_BYTES_MAX as u64 {
        return Ok(page);
    }
    let text = read_whole(&file, &stamp, Patience::Blocking)?;
    page.settled = is_settled(&file, &stamp);
    if kind == PageKind::Html && !magic::is_magic(&text) {
        return Ok(page);
    }
    let expanded = magic::expand(root, path, &text, stamp, Zoned::now());
    page.settled &= expanded.settled;
    page.expires = expanded.volatile.then(|| Instant::now() + VOLATILE_FOR);
    let html = match kind {
        PageKind::Html => with_title(expanded.text.clone(), expanded.title.as_deref()),
        PageKind::Markdown => {
            let envelope = settings.markdown_envelope.as_deref();
            let envelope = envelope.and_then(|path| read_envelope(path, &mut page));
            markdown_page(settings, path, &expanded, envelope.as_deref()).into_bytes()
        }
    };
    let about = about(&html, &page, &expanded);
    let includes = Page::includes(&expanded.sources, &settings.route);
    page.sources = expanded.sources;
    page.document = Some(Arc::new(Document { about, bytes: Bytes::from(html), stamp, includes }));
    Ok(page)
}

fn about(html: &[u8], page: &Page, expanded: &Expanded) -> About {
    let mut hasher = DefaultHasher::new();
    html.hash(&mut hasher);
    let tag = format!("\"p-{:x}-{:x}\"", hasher.finish(), html.len());
    let stamps = expanded.sources.iter().map(|source| source.stamp);
    let stamps = stamps.chain(page.envelope).chain([Some(page.stamp)]);
    // With the time of day in it, or when a missing file may come, only the tag tells versions apart.
    let latest = stamps.map(|stamp| stamp.map(|stamp| stamp.mtime.0)).collect::<Option<Vec<_>>>();
    let latest = latest.filter(|_| !expanded.volatile).and_then(|all| all.into_iter().max());
    let content_type = HeaderValue::from_static("text/html; charset=utf-8");
    let mut about = About::new(content_type, &tag, latest.and_then(whole_seconds));
    if expanded.volatile {
        about.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    about
}

/// Reads the envelope; without one that can be read, pages are shown without, and the log says so.
fn read_envelope(path: &Path, page: &mut Page) -> Option<String> {
    // Looking first: the name may belong to a pipe by now.
    let text = look_anywhere(path, Patience::Blocking).and_then(|_| {
        let file = File::open(path).map_err(Miss::Failed)?;
        let stamp = Stamp::of(&file.metadata().map_err(Miss::Failed)?);
        let text = read_whole(&file, &stamp, Patience::Blocking)?;
        page.envelope = Some(Some(stamp));
        page.settled &= is_settled(&file, &stamp);
        Ok(String::from_utf8_lossy(&text).into_owned())
    });
    match text {
        Ok(text) => Some(text),
        Err(why) => {
            tracing::warn!(?why, path = %path.display(), "markdown_envelope cannot be read");
            page.envelope = Some(None);
            None
        }
    }
}

fn markdown_page(
    settings: &FileSettings,
    path: &str,
    expanded: &Expanded,
    envelope: Option<&str>,
) -> String {
    let rendered = markdown::render(&String::from_utf8_lossy(&expanded.text));
    let chosen = expanded.title.as_deref().map(String::from_utf8_lossy);
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let mut title = String::new();
    let heading = rendered.heading.as_deref();
    markdown::escape(&mut title, chosen.as_deref().or(heading).unwrap_or(name).trim());
    let url = |setting: &Option<String>| {
        let mut url = String::new();
        markdown::escape(&mut url, setting.as_deref().unwrap_or_default());
        url
    };
    let (markdown_css, highlight_css) = (url(&settings.markdown_css), url(&settings.highlight_css));
    if let Some(envelope) = envelope {
        let values = [
            ("{title}", title.as_str()),
            ("{markdown_css}", &markdown_css),
            ("{highlight_css}", &highlight_css),
            ("{mdhtml}", &rendered.html),
        ];
        return filled(envelope, &values);
    }
    let mut page = String::with_capacity(rendered.html.len() + 512);
    page.push_str("<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.extend(["<title>", &title, "</title>\n"]);
    for css in [&markdown_css, &highlight_css] {
        if !css.is_empty() {
            page.extend(["<link rel=\"stylesheet\" href=\"", css, "\">\n"]);
        }
    }
    page.extend(["</head>\n<body>\n", &rendered.html, "</body>\n</html>\n"]);
    page
}

/// Puts the values in the envelope, in one pass: what a value holds is not looked at again.
fn filled(envelope: &str, values: &[(&str, &str)]) -> String {
    let mut page = String::with_capacity(envelope.len() + 4096);
    let mut rest = envelope;
    while let Some(at) = rest.find('{') {
        page.push_str(&rest[..at]);
        rest = &rest[at..];
        let found = values.iter().find(|(name, _)| rest.starts_with(name));
        let (written, used) = found.map_or(("{", 1), |(name, value)| (value, name.len()));
        page.push_str(written);
        rest = &rest[used..];
    }
    page.push_str(rest);
    page
}

/// HTML with the title chosen in `@TITLE`: in place of the one it has, or at the end of its head.
fn with_title(mut html: Vec<u8>, title: Option<&[u8]>) -> Vec<u8> {
    let Some(title) = title else { return html };
    let open = find(&html, b"<title>", 0).map(|at| at + b"<title>".len());
    let element = open.and_then(|open| Some((open, find(&html, b"</title>", open)?)));
    if let Some((open, close)) = element {
        html.splice(open..close, title.iter().copied());
    } else if let Some(head) = find(&html, b"</head>", 0) {
        let title = [b"<title>", title, b"</title>"].concat();
        html.splice(head..head, title);
    }
    html
}

fn find(html: &[u8], tag: &[u8], from: usize) -> Option<usize> {
    let found =
        html.get(from..)?.windows(tag.len()).position(|part| part.eq_ignore_ascii_case(tag))?;
    Some(from + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(html: &str, expected: &str) {
        let titled = with_title(html.as_bytes().to_vec(), Some(b"New"));
        assert_eq!(String::from_utf8(titled).unwrap(), expected);
    }

    #[test]
    fn a_chosen_title_replaces_the_one_there_is() {
        check("<head><TITLE>old</Title></head>", "<head><TITLE>New</Title></head>");
        check("<head></head>", "<head><title>New</title></head>");
        check("<title>", "<title>");
        check("<p>", "<p>");
    }

    #[test]
    fn an_envelope_is_filled_in_one_pass() {
        let values = [("{a}", "{b}"), ("{b}", "B")];
        assert_eq!(filled("p { x } {a}{b}{c}{", &values), "p { x } {b}B{c}{");
    }

    #[test]
    fn pages_are_known_by_their_extension() {
        for (path, kind) in [
            ("a.md", Some(PageKind::Markdown)),
            ("a.b/README.MD", Some(PageKind::Markdown)),
            ("a.htm", Some(PageKind::Html)),
            ("md", None),
            ("a.mdx", None),
        ] {
            assert_eq!(PageKind::of(path), kind, "{path}");
        }
    }
}
