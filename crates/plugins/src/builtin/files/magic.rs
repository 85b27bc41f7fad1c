//! Magic variables in pages: `@TITLE=…@`, `@INCLUDE=file@`, `@TIME=+format@`, `@FILETIME=file+format@`.
//!
//! Invariant: whatever a page says, expanding it ends, reads only files inside the documents, and makes
//! no more than [`EXPANDED_BYTES_MAX`]. A variable that cannot be obeyed becomes an HTML comment.
//! Not here: what kind of page it is (`pages`).
//!
//! Decided: an included file may hold variables itself; a file is named from the directory of the page
//! that names it, or from the root with a slash in front; an empty name in `@FILETIME` is the page the
//! variable stands in; a variable begins and ends on one line.

use jiff::fmt::strtime::{BrokenDownTime, Config};
use jiff::{Timestamp, Zoned};

use super::document::{is_settled, read_whole};
use super::root::{Kind, Miss, Patience, Root, Stamp};

/// The longest text a page may expand to, in bytes.
pub(super) const EXPANDED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How deep files may include files.
const DEPTH_MAX: usize = 8;

/// How many includes one page may have, all levels together.
const INCLUDES_MAX: usize = 256;

/// A file that a page was made of; `None`: it was absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: String,
    pub(super) stamp: Option<Stamp>,
    /// Was its text included, or was only its time asked?
    pub(super) included: bool,
}

/// What became of a page's text.
#[derive(Debug, Default)]
pub(super) struct Expanded {
    pub(super) text: Vec<u8>,
    pub(super) title: Option<Vec<u8>>,
    /// The files it depends on beside the page itself.
    pub(super) sources: Vec<Source>,
    /// Does it show the time of day?
    pub(super) volatile: bool,
    /// False when a file was changed while it was read, so that the result must not be kept.
    pub(super) settled: bool,
}

/// A file being expanded.
struct Place<'a> {
    path: &'a str,
    stamp: Stamp,
    depth: usize,
}

/// Expands the text of the page at `path`, read under `stamp`.
pub(super) fn expand(root: &Root, path: &str, text: &[u8], stamp: Stamp, now: Zoned) -> Expanded {
    let result = Expanded { settled: true, ..Expanded::default() };
    let mut expander = Expander { root, now, result, open: Vec::new(), includes: 0 };
    expander.page(&Place { path, stamp, depth: 0 }, text);
    expander.result
}

/// Is there anything to expand?
pub(super) fn is_magic(text: &[u8]) -> bool {
    next_variable(text).is_some()
}

struct Expander<'a> {
    root: &'a Root,
    now: Zoned,
    result: Expanded,
    /// Device and inode of the files that are being expanded: meeting one again is a cycle.
    open: Vec<(u64, u64)>,
    includes: usize,
}

impl Expander<'_> {
    fn page(&mut self, place: &Place<'_>, mut text: &[u8]) {
        self.open.push((place.stamp.dev, place.stamp.ino));
        while let Some(variable) = next_variable(text) {
            self.push(&text[..variable.start]);
            let value = String::from_utf8_lossy(variable.value);
            match variable.name {
                _ if variable.escaped => self.push(&text[variable.start + 1..variable.end]),
                Name::Title => {
                    // The outermost first: the page is read before what it includes.
                    self.result.title.get_or_insert_with(|| variable.value.to_vec());
                }
                Name::Include => self.include(place, value.trim()),
                Name::Time => {
                    self.result.volatile = true;
                    let format = value.strip_prefix('+').unwrap_or(&value);
                    self.push(say(&self.now, format).as_bytes());
                }
                Name::FileTime => self.file_time(place, &value),
            }
            text = &text[variable.end..];
        }
        self.push(text);
        self.open.pop();
    }

    fn push(&mut self, text: &[u8]) {
        let room = EXPANDED_BYTES_MAX - self.result.text.len();
        self.result.text.extend_from_slice(&text[..text.len().min(room)]);
    }

    fn include(&mut self, place: &Place<'_>, named: &str) {
        self.includes += 1;
        if place.depth >= DEPTH_MAX || self.includes > INCLUDES_MAX {
            return self.refuse(place, named, "too many includes");
        }
        let Some(path) = beside(place.path, named) else {
            return self.refuse(place, named, "outside the documents");
        };
        match self.read(&path) {
            Ok((text, stamp)) => {
                let len = self.result.text.len().saturating_add(text.len());
                if self.open.contains(&(stamp.dev, stamp.ino)) {
                    self.refuse(place, named, "includes itself");
                } else if len > EXPANDED_BYTES_MAX {
                    self.refuse(place, named, "the page becomes too long");
                } else {
                    self.page(&Place { path: &path, stamp, depth: place.depth + 1 }, &text);
                }
            }
            Err(why) => self.refuse(place, named, why),
        }
    }

    fn read(&mut self, path: &str) -> Result<(Vec<u8>, Stamp), &'static str> {
        let (file, stamp) = match self.root.read(path, Patience::Blocking) {
            Ok(found) => found,
            Err(miss) => return Err(self.missed(path, &miss, true)),
        };
        self.depend(path, Some(stamp), true);
        if stamp.size > EXPANDED_BYTES_MAX as u64 {
            return Err("too long");
        }
        let text = read_whole(&file, &stamp, Patience::Blocking).map_err(|_| "cannot be read")?;
        self.result.settled &= is_settled(&file, &stamp);
        Ok((text, stamp))
    }

    fn file_time(&mut self, place: &Place<'_>, value: &str) {
        let (named, format) = value.split_once('+').unwrap_or((value, "%c"));
        let named = named.trim();
        let stamp = if named.is_empty() { Ok(place.stamp) } else { self.stamp(place, named) };
        match stamp {
            Ok(stamp) => {
                let (secs, nanos) = stamp.mtime;
                let nanos = i32::try_from(nanos).unwrap_or(0);
                let time = Timestamp::new(secs, nanos).unwrap_or_default();
                let text = say(&time.to_zoned(self.now.time_zone().clone()), format);
                self.push(text.as_bytes());
            }
            Err(why) => self.refuse(place, named, why),
        }
    }

    fn stamp(&mut self, place: &Place<'_>, named: &str) -> Result<Stamp, &'static str> {
        let path = beside(place.path, named).ok_or("outside the documents")?;
        match self.root.look(&path, Patience::Blocking) {
            Ok(Kind::File(stamp)) => {
                self.depend(&path, Some(stamp), false);
                Ok(stamp)
            }
            Ok(Kind::Directory) => Err("a directory"),
            Err(miss) => Err(self.missed(&path, &miss, false)),
        }
    }

    fn missed(&mut self, path: &str, miss: &Miss, included: bool) -> &'static str {
        if let Miss::Absent = miss {
            self.depend(path, None, included);
            return "not found";
        }
        self.result.settled = false;
        "cannot be read"
    }

    fn depend(&mut self, path: &str, stamp: Option<Stamp>, included: bool) {
        let sources = &mut self.result.sources;
        if sources.iter().any(|source| source.path == path && source.stamp == stamp) {
            return;
        }
        sources.push(Source { path: path.to_owned(), stamp, included });
    }

    /// Tells the author in the page's source and the owner in the log.
    fn refuse(&mut self, place: &Place<'_>, named: &str, why: &str) {
        tracing::warn!(page = place.path, file = named, why, "a page names a file it cannot have");
        // Nothing in a file's name may end the comment.
        let named = named.replace(['<', '>', '-'], "_");
        self.push(format!("<!-- {named}: {why} -->").as_bytes());
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Title,
    Include,
    Time,
    FileTime,
}

const NAMES: [(&[u8], Name); 4] = [
    (b"TITLE=", Name::Title),
    (b"INCLUDE=", Name::Include),
    (b"TIME=", Name::Time),
    (b"FILETIME=", Name::FileTime),
];

struct Variable<'t> {
    name: Name,
    value: &'t [u8],
    /// With the backslash, if there is one.
    start: usize,
    /// Behind the closing `@`.
    end: usize,
    escaped: bool,
}

fn next_variable(text: &[u8]) -> Option<Variable<'_>> {
    let at_signs = text.iter().enumerate().filter(|(_, byte)| **byte == b'@');
    at_signs.map(|(at, _)| at).find_map(|at| variable_at(text, at))
}

fn variable_at(text: &[u8], at: usize) -> Option<Variable<'_>> {
    let rest = &text[at + 1..];
    let (word, name) = NAMES.iter().find(|(word, _)| rest.starts_with(word))?;
    let value = &rest[word.len()..];
    let len = value.iter().position(|byte| matches!(byte, b'@' | b'\n'))?;
    if value[len] != b'@' {
        return None;
    }
    let escaped = at > 0 && text[at - 1] == b'\\';
    let start = if escaped { at - 1 } else { at };
    let end = at + 1 + word.len() + len + 1;
    Some(Variable { name: *name, value: &value[..len], start, end, escaped })
}

/// Formats as `strftime` does; what is no format stays as it is.
fn say(time: &Zoned, format: &str) -> String {
    let config = Config::new().lenient(true);
    let said = BrokenDownTime::from(time).to_string_with_config(&config, format);
    said.unwrap_or_else(|_| format.to_owned())
}

/// The place a page names: from the page's directory, or from the root with a slash in front.
///
/// Hidden names are fine here, for the author of a page wrote them. `None` when it climbs out.
pub(super) fn beside(page: &str, named: &str) -> Option<String> {
    if named.contains('\0') {
        return None;
    }
    let mut names: Vec<&str> = match (named.starts_with('/'), page.rsplit_once('/')) {
        (false, Some((directory, _))) => directory.split('/').collect(),
        _ => Vec::new(),
    };
    for name in named.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::tz::TimeZone;

    use super::*;

    fn now() -> Zoned {
        // A Thursday.
        Timestamp::new(1_000_000_000 - 3 * 86_400, 0).unwrap().to_zoned(TimeZone::UTC)
    }

    /// Expands `text` as the page `a/page.html` among a few files.
    fn expanded(text: &str) -> Expanded {
        let outer = tempfile::tempdir().unwrap();
        let docs = outer.path().join("docs");
        fs::create_dir_all(docs.join("a/b")).unwrap();
        let file = |name: &str, text: &str| fs::write(docs.join(name), text).unwrap();
        file("../secret", "secret");
        file("a/page.html", text);
        file("top.html", "<b>top</b>");
        file("a/side.html", "side @TITLE=inner@@INCLUDE=b/deep.html@");
        file("a/b/deep.html", "deep (@INCLUDE=../../top.html@)");
        file("a/self.html", "x@INCLUDE=self.html@");
        file("a/ping.html", "ping @INCLUDE=pong.html@");
        file("a/pong.html", "pong @INCLUDE=ping.html@");
        file("a/twice.html", "@INCLUDE=twenty.html@@INCLUDE=twenty.html@");
        file("a/twenty.html", &"0123456789".repeat(2));
        file("a/long.html", &"x".repeat(EXPANDED_BYTES_MAX / 2 - 99));
        for level in 0..20 {
            let next = level + 1;
            file(&format!("a/{level}.html"), &format!("{level} @INCLUDE={next}.html@"));
        }
        std::os::unix::fs::symlink("../../secret", docs.join("a/out.html")).unwrap();
        let old = fs::File::options().write(true).open(docs.join("top.html")).unwrap();
        let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(784_111_777);
        old.set_modified(then).unwrap();
        let root = Root::open(&docs).unwrap();
        let (_, stamp) = root.read("a/page.html", Patience::Blocking).unwrap();
        expand(&root, "a/page.html", text.as_bytes(), stamp, now())
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&expanded(text).text), expected);
    }

    #[test]
    fn what_is_no_variable_stays() {
        for text in
            ["", "a@b.c", "@", "@@", "@TITLE", "@TITLE=x", "@TITLE=x\n@", "@title=x@", "\\@"]
        {
            check(text, text);
            assert!(!is_magic(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_title_is_taken_out_of_the_text() {
        let expanded = expanded("a @TITLE=The title@b @TITLE=second@@INCLUDE=side.html@");
        assert_eq!(expanded.title.as_deref(), Some(&b"The title"[..]));
        assert_eq!(String::from_utf8_lossy(&expanded.text), "a b side deep (<b>top</b>)");
    }

    #[test]
    fn a_backslash_keeps_a_variable_as_text() {
        check("\\@TITLE=x@ \\@INCLUDE=top.html@", "@TITLE=x@ @INCLUDE=top.html@");
        assert_eq!(expanded("\\@TITLE=x@").title, None);
    }

    #[test]
    fn files_are_included_as_they_are() {
        check("[@INCLUDE=/top.html@]", "[<b>top</b>]");
        check("[@INCLUDE=../top.html@]", "[<b>top</b>]");
        check("@INCLUDE=twice.html@", &"0123456789".repeat(4));
    }

    #[test]
    fn nothing_outside_is_included() {
        check("@INCLUDE=../../secret@", "<!-- ../../secret: outside the documents -->");
        check("@INCLUDE=/../secret@", "<!-- /../secret: outside the documents -->");
        check("@INCLUDE=/etc/passwd@", "<!-- /etc/passwd: not found -->");
        check("@INCLUDE=out.html@", "<!-- out.html: not found -->");
        check("@INCLUDE=b@", "<!-- b: not found -->");
        check("@INCLUDE=-->x@", "<!-- ___x: not found -->");
    }

    #[test]
    fn includes_come_to_an_end() {
        check("@INCLUDE=self.html@", "x<!-- self.html: includes itself -->");
        check("@INCLUDE=ping.html@", "ping pong <!-- ping.html: includes itself -->");
        check("@INCLUDE=page.html@", "<!-- page.html: includes itself -->");
        check("@INCLUDE=0.html@", "0 1 2 3 4 5 6 7 <!-- 8.html: too many includes -->");
        let long = expanded(&"@INCLUDE=long.html@".repeat(4));
        assert!(long.text.len() <= EXPANDED_BYTES_MAX && long.text.ends_with(b"too long -->"));
        let many = expanded(&"@INCLUDE=twenty.html@".repeat(1000));
        assert_eq!(many.sources.len(), 1);
        assert!(String::from_utf8_lossy(&many.text).contains("too many includes"));
    }

    #[test]
    fn times_are_said_as_strftime_says_them() {
        check("@TIME=+%A %d@", "Thursday 06");
        check("@TIME=+%Y-%m-%d %H:%M:%S@", "2001-09-06 01:46:40");
        check("@FILETIME=../top.html+%d.%m.%Y %H:%M:%S@", "06.11.1994 08:49:37");
        check("@FILETIME=no.html+%Y@", "<!-- no.html: not found -->");
        assert!(expanded("@TIME=+%A@").volatile);
        assert!(!expanded("@FILETIME=../top.html+%Y@").volatile);
        let this = expanded("@FILETIME=+%Y@").text;
        assert!(String::from_utf8(this).unwrap().parse::<u32>().unwrap() > 2000);
    }

    #[test]
    fn a_wrong_format_is_text() {
        for format in ["%", "%!", "%Q %", "%999999999999d", "%ü", "%", "%:::::z", "100%"] {
            let text = expanded(&format!("@TIME=+{format}@")).text;
            assert!(!text.is_empty(), "{format}");
        }
    }

    #[test]
    fn a_page_knows_what_it_is_made_of() {
        let expanded = expanded("@INCLUDE=side.html@ @INCLUDE=no.html@ @FILETIME=self.html+%Y@");
        let sources: Vec<_> = expanded
            .sources
            .iter()
            .map(|source| (source.path.as_str(), source.stamp.is_some(), source.included))
            .collect();
        assert_eq!(
            sources,
            [
                ("a/side.html", true, true),
                ("a/b/deep.html", true, true),
                ("top.html", true, true),
                ("a/no.html", false, true),
                ("a/self.html", true, false),
            ]
        );
    }

    #[test]
    fn a_page_names_places_from_where_it_is() {
        assert_eq!(beside("a/page.md", "x.md").as_deref(), Some("a/x.md"));
        assert_eq!(beside("a/page.md", "/x.md").as_deref(), Some("x.md"));
        assert_eq!(beside("a/page.md", "../x.md").as_deref(), Some("x.md"));
        assert_eq!(beside("page.md", "b/./x.md").as_deref(), Some("b/x.md"));
        assert_eq!(beside("a/page.md", "../../x.md"), None);
        assert_eq!(beside("a/page.md", "/../x.md"), None);
    }
}
