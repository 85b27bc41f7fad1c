//! The file server as a whole, over real files.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LAST_MODIFIED,
    LOCATION, RANGE,
};
use http_body::Body as _;

use super::shelf::KEPT_TOTAL_BYTES_MAX;
use super::*;

struct Fixture {
    outer: tempfile::TempDir,
    server: FileServer,
}

fn settings(directory: PathBuf) -> FileSettings {
    FileSettings {
        route: "doc".to_owned(),
        directory,
        index_file: "index.html".to_owned(),
        markdown_css: None,
        highlight_css: None,
        markdown_envelope: None,
        common_log: None,
        log_includes: false,
    }
}

fn fixture() -> Fixture {
    let outer = tempfile::tempdir().unwrap();
    let docs = outer.path().join("docs");
    fs::create_dir_all(docs.join("sub/deep")).unwrap();
    fs::create_dir_all(docs.join("empty")).unwrap();
    fs::create_dir_all(docs.join(".git")).unwrap();
    fs::create_dir_all(outer.path().join("docs-private")).unwrap();
    for (name, text) in [
        ("secret", "secret"),
        ("docs-private/secret", "secret"),
        ("docs/a.txt", "0123456789"),
        ("docs/empty.txt", ""),
        ("docs/index.html", "<p>root</p>"),
        ("docs/sub/index.html", "<p>sub</p>"),
        ("docs/.git/config", "secret"),
        ("docs/a b&ü.txt", "name"),
        ("docs/%2e%2e", "a strange name"),
    ] {
        fs::write(outer.path().join(name), text).unwrap();
    }
    fs::write(docs.join("big.bin"), vec![7; 300_000]).unwrap();
    symlink("../secret", docs.join("out.txt")).unwrap();
    symlink(docs.join("a.txt"), docs.join("in.txt")).unwrap();
    symlink("../docs-private", docs.join("sibling")).unwrap();
    let server = FileServer::open(settings(docs)).unwrap();
    Fixture { outer, server }
}

struct Got {
    status: u16,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Got {
    fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Fixture {
    async fn ask(&self, method: Method, subpath: Option<&str>, headers: &[(&str, &str)]) -> Got {
        let mut call = Call {
            method,
            uri: "/doc/asked?q=1".parse().unwrap(),
            subpath: subpath.map(str::to_owned),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            form: None,
            client_ip: IpAddr::from([127, 0, 0, 1]),
        };
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            call.headers.insert(name, value.parse().unwrap());
        }
        let mut reply = self.server.call(&call).await.unwrap();
        let announced = reply.body.size_hint().exact().unwrap();
        let mut bytes = Vec::new();
        while let Some(frame) =
            std::future::poll_fn(|cx| Pin::new(&mut reply.body).poll_frame(cx)).await
        {
            bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        assert_eq!(bytes.len() as u64, announced);
        Got { status: reply.status.as_u16(), headers: reply.headers, bytes }
    }

    async fn get(&self, subpath: &str) -> Got {
        self.ask(Method::GET, Some(subpath), &[]).await
    }

    fn docs(&self, name: &str) -> PathBuf {
        self.outer.path().join("docs").join(name)
    }
}

#[track_caller]
fn check_text(got: &Got, status: u16, text: &str) {
    assert_eq!((got.status, String::from_utf8_lossy(&got.bytes).as_ref()), (status, text));
}

#[tokio::test]
async fn files_are_served_with_their_headers() {
    let fixture = fixture();
    let got = fixture.get("a.txt").await;
    check_text(&got, 200, "0123456789");
    assert_eq!(got.header(CONTENT_TYPE), "text/plain; charset=utf-8");
    assert_eq!(got.header(ACCEPT_RANGES), "bytes");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    assert!(got.header(ETAG).starts_with('"'));
    assert!(httpdate::parse_http_date(got.header(LAST_MODIFIED)).is_ok());
    check_text(&fixture.get("a b&ü.txt").await, 200, "name");
    check_text(&fixture.get("empty.txt").await, 200, "");
    let big = fixture.get("big.bin").await;
    assert!(big.bytes.len() == 300_000 && big.bytes.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn nothing_outside_is_served_however_it_is_written() {
    let fixture = fixture();
    let absolute = fixture.outer.path().join("secret");
    let absolute = absolute.to_str().unwrap();
    // What the door may hand over after decoding once.
    for subpath in [
        "../secret",
        "sub/../../secret",
        "sub/../a.txt",
        "..",
        "../",
        "./a.txt",
        "../docs-private/secret",
        "%2e%2e/secret",
        "%2e%2e%2fsecret",
        "..%2fsecret",
        "%252e%252e/secret",
        "..\\secret",
        "sub\\..\\..\\secret",
        "..;/secret",
        "....//secret",
        "/etc/passwd",
        "//etc/passwd",
        "a.txt\0",
        "\0",
        "../secret\0.txt",
        "\u{2024}\u{2024}/secret",
        "\u{ff0e}\u{ff0e}/secret",
        "out.txt",
        "sibling/secret",
        "-private/secret",
        ".git/config",
        "a.txt/",
        "a.txt/x",
        "absent",
        absolute,
        &"x".repeat(5000),
        &"x/".repeat(5000),
    ] {
        let got = fixture.get(subpath).await;
        assert_eq!(got.status, 404, "{subpath:?}");
        assert_eq!(got.header(CONTENT_TYPE), "application/json");
        assert_eq!(got.bytes, br#"{"error":"not found"}"#);
    }
    check_text(&fixture.get("%2e%2e").await, 200, "a strange name");
    check_text(&fixture.get("in.txt").await, 200, "0123456789");
}

#[tokio::test]
async fn directories_lead_to_their_index() {
    let fixture = fixture();
    check_text(&fixture.get("").await, 200, "<p>root</p>");
    check_text(&fixture.get("sub/").await, 200, "<p>sub</p>");
    assert_eq!(fixture.get("empty/").await.status, 404);
    let got = fixture.get("sub").await;
    assert_eq!((got.status, got.header(LOCATION)), (301, "/doc/sub/?q=1"));
    let got = fixture.ask(Method::GET, None, &[]).await;
    assert_eq!((got.status, got.header(LOCATION)), (301, "/doc/?q=1"));
    // A host is never named, whatever the path looks like.
    let got = fixture.get("//sub").await;
    assert_eq!((got.status, got.header(LOCATION)), (301, "/doc/sub/?q=1"));
}

#[tokio::test]
async fn a_head_tells_the_length_and_sends_nothing() {
    let fixture = fixture();
    for (subpath, len) in [("a.txt", "10"), ("big.bin", "300000"), ("empty.txt", "0")] {
        let got = fixture.ask(Method::HEAD, Some(subpath), &[]).await;
        assert_eq!((got.status, got.header(CONTENT_LENGTH), got.bytes.len()), (200, len, 0));
    }
}

#[tokio::test]
async fn parts_are_cut_from_small_and_big_files() {
    let fixture = fixture();
    let got = fixture.ask(Method::GET, Some("a.txt"), &[(RANGE.as_str(), "bytes=2-4")]).await;
    check_text(&got, 206, "234");
    assert_eq!(got.header(CONTENT_RANGE), "bytes 2-4/10");
    let got = fixture.ask(Method::GET, Some("big.bin"), &[(RANGE.as_str(), "bytes=-70000")]).await;
    assert_eq!((got.status, got.bytes.len()), (206, 70_000));
    assert_eq!(got.header(CONTENT_RANGE), "bytes 230000-299999/300000");
    let got = fixture.ask(Method::GET, Some("a.txt"), &[(RANGE.as_str(), "bytes=10-")]).await;
    assert_eq!((got.status, got.header(CONTENT_RANGE)), (416, "bytes */10"));
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let fixture = fixture();
    let first = fixture.get("a.txt").await;
    let etag = first.header(ETAG);
    let got = fixture.ask(Method::GET, Some("a.txt"), &[(IF_NONE_MATCH.as_str(), etag)]).await;
    check_text(&got, 304, "");
    assert_eq!((got.header(ETAG), got.header(CONTENT_TYPE)), (etag, ""));
    fs::write(fixture.docs("a.txt"), "changed").unwrap();
    let got = fixture.ask(Method::GET, Some("a.txt"), &[(IF_NONE_MATCH.as_str(), etag)]).await;
    check_text(&got, 200, "changed");
}

/// Makes a file look old, so that it is kept.
fn settle() {
    let changed = SystemTime::now();
    while changed.elapsed().unwrap_or_default() < Duration::from_millis(120) {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn an_edit_is_visible_to_the_next_request() {
    let fixture = fixture();
    settle();
    check_text(&fixture.get("a.txt").await, 200, "0123456789");
    assert!(fixture.server.shelf.kept.get("a.txt").is_some());
    // Same length, and with the time set back as `cp -p` and `rsync` do.
    let before = fs::metadata(fixture.docs("a.txt")).unwrap().modified().unwrap();
    fs::write(fixture.docs("a.txt"), "9876543210").unwrap();
    let file = fs::File::options().write(true).open(fixture.docs("a.txt")).unwrap();
    file.set_modified(before).unwrap();
    check_text(&fixture.get("a.txt").await, 200, "9876543210");
    fs::remove_file(fixture.docs("a.txt")).unwrap();
    assert_eq!(fixture.get("a.txt").await.status, 404);
}

#[tokio::test]
async fn a_file_of_many_edits_is_never_stale() {
    let fixture = fixture();
    for round in 0..300 {
        let text = format!("{round:06}");
        fs::write(fixture.docs("a.txt"), &text).unwrap();
        check_text(&fixture.get("a.txt").await, 200, &text);
    }
}

#[tokio::test]
async fn a_directory_put_in_the_old_ones_place_is_served() {
    let fixture = fixture();
    let (docs, old) = (fixture.docs(""), fixture.outer.path().join("old"));
    fs::rename(fixture.outer.path().join("docs"), old).unwrap();
    fs::create_dir(&docs).unwrap();
    fs::write(docs.join("a.txt"), "new").unwrap();
    fixture.server.shelf.follow_directory();
    check_text(&fixture.get("a.txt").await, 200, "new");
}

#[tokio::test]
async fn pipes_and_sockets_are_absent_and_hold_nobody() {
    let fixture = fixture();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let pipe = fixture.docs("pipe.txt");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(fixture.docs("socket.txt")).unwrap();
    assert_eq!(fixture.get("pipe.txt").await.status, 404);
    assert_eq!(fixture.get("socket.txt").await.status, 404);
}

#[tokio::test]
async fn what_is_kept_stays_within_its_bound() {
    let fixture = fixture();
    for n in 0..400 {
        fs::write(fixture.docs(&format!("{n}.bin")), vec![0; 60_000]).unwrap();
    }
    settle();
    for n in 0..400 {
        assert_eq!(fixture.get(&format!("{n}.bin")).await.bytes.len(), 60_000);
    }
    let kept = &fixture.server.shelf.kept;
    assert!(kept.len() > 100 && kept.weight() <= KEPT_TOTAL_BYTES_MAX, "{}", kept.weight());
}

#[test]
fn what_cannot_be_opened_stops_the_start() {
    let fixture = fixture();
    let open = |settings| FileServer::open(settings);
    assert!(matches!(open(settings(fixture.docs("no"))), Err(FileServerError::Directory { .. })));
    assert!(matches!(
        open(settings(fixture.docs("a.txt"))),
        Err(FileServerError::Directory { .. })
    ));
    let mut unwritable = settings(fixture.docs(""));
    unwritable.common_log = Some(fixture.docs("no/log"));
    assert!(matches!(open(unwritable), Err(FileServerError::CommonLog { .. })));
}

fn with_pages() -> Fixture {
    let mut fixture = fixture();
    for (name, text) in [
        ("page.md", "# The *heading*\n\n|a|\n|-|\n|1|\n\n```python\nreturn 1\n```\n"),
        ("plain.md", "text"),
        ("chosen.md", "@TITLE=Chosen <one>@\n# Heading\n"),
        ("magic.html", "<head><title>x</title></head>@TITLE=T@[@INCLUDE=part.inc@]"),
        ("part.inc", "part"),
        ("clock.html", "@TIME=+%Y@"),
        ("waiting.md", "[@INCLUDE=later.inc@]"),
        ("sub/index.html", "\\@TITLE=x@"),
    ] {
        fs::write(fixture.docs(name), text).unwrap();
    }
    let mut settings = settings(fixture.docs(""));
    settings.markdown_css = Some("/doc/md.css".to_owned());
    settings.highlight_css = Some("/doc/hi.css?a&b".to_owned());
    settings.log_includes = true;
    settings.common_log = Some(fixture.outer.path().join("access.log"));
    fixture.server = FileServer::open(settings).unwrap();
    fixture
}

impl Fixture {
    async fn text(&self, subpath: &str) -> String {
        let got = self.get(subpath).await;
        assert_eq!((got.status, got.header(CONTENT_TYPE)), (200, "text/html; charset=utf-8"));
        String::from_utf8(got.bytes).unwrap()
    }
}

#[track_caller]
fn check_parts(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn markdown_becomes_a_page_with_title_and_style_sheets() {
    let fixture = with_pages();
    let page = fixture.text("page.md").await;
    check_parts(
        &page,
        &[
            "<title>The heading</title>",
            "<link rel=\"stylesheet\" href=\"/doc/md.css\">",
            "<link rel=\"stylesheet\" href=\"/doc/hi.css?a&amp;b\">",
            "<td>1</td>",
            "<div class=\"codehilite\"><pre><span></span><code><span class=\"k\">return</span>",
        ],
    );
    check_parts(&fixture.text("plain.md").await, &["<title>plain.md</title>", "<p>text</p>"]);
    let chosen = fixture.text("chosen.md").await;
    check_parts(&chosen, &["<title>Chosen &lt;one&gt;</title>"]);
    assert!(!chosen.contains("@TITLE"));
}

#[tokio::test]
async fn an_envelope_holds_the_page_and_its_edit_is_seen() {
    let mut fixture = with_pages();
    let envelope = fixture.outer.path().join("envelope.html");
    fs::write(&envelope, "<{title}|{markdown_css}|{highlight_css}|{mdhtml}|{other}>").unwrap();
    let mut settings = settings(fixture.docs(""));
    settings.markdown_css = Some("/md.css".to_owned());
    settings.markdown_envelope = Some(envelope.clone());
    fixture.server = FileServer::open(settings).unwrap();
    settle();
    check_text(&fixture.get("plain.md").await, 200, "<plain.md|/md.css||<p>text</p>\n|{other}>");
    check_text(&fixture.get("plain.md").await, 200, "<plain.md|/md.css||<p>text</p>\n|{other}>");
    fs::write(&envelope, "new {mdhtml}").unwrap();
    check_text(&fixture.get("plain.md").await, 200, "new <p>text</p>\n");
    // Without it, pages are still shown.
    fs::remove_file(&envelope).unwrap();
    check_parts(&fixture.text("plain.md").await, &["<!DOCTYPE html>", "<p>text</p>"]);
}

#[tokio::test]
async fn a_kept_page_follows_every_file_it_is_made_of() {
    let fixture = with_pages();
    settle();
    let before = fixture.get("magic.html").await;
    check_text(&before, 200, "<head><title>T</title></head>[part]");
    let again = fixture.get("magic.html").await;
    assert_eq!(again.header(ETAG), before.header(ETAG));
    fs::write(fixture.docs("part.inc"), "edit").unwrap();
    check_text(&fixture.get("magic.html").await, 200, "<head><title>T</title></head>[edit]");
    check_parts(&fixture.text("waiting.md").await, &["[<!-- later.inc: not found -->]"]);
    fs::write(fixture.docs("later.inc"), "here").unwrap();
    check_parts(&fixture.text("waiting.md").await, &["[here]"]);
}

#[tokio::test]
async fn a_page_is_conditional_and_has_parts_like_a_file() {
    let fixture = with_pages();
    let whole = fixture.get("magic.html").await;
    let known = [(IF_NONE_MATCH.as_str(), whole.header(ETAG))];
    assert_eq!(fixture.ask(Method::GET, Some("magic.html"), &known).await.status, 304);
    let part = [(RANGE.as_str(), "bytes=0-5")];
    check_text(&fixture.ask(Method::GET, Some("magic.html"), &part).await, 206, "<head>");
    let head = fixture.ask(Method::HEAD, Some("magic.html"), &[]).await;
    assert_eq!(head.header(CONTENT_LENGTH), whole.bytes.len().to_string());
}

#[tokio::test]
async fn a_page_with_the_time_says_that_it_changes() {
    let fixture = with_pages();
    let got = fixture.get("clock.html").await;
    assert_eq!((got.header("cache-control"), got.header(LAST_MODIFIED)), ("no-cache", ""));
    assert_eq!(got.bytes.len(), 4);
}

#[tokio::test]
async fn html_without_variables_is_a_file_like_any_other() {
    let fixture = with_pages();
    settle();
    let got = fixture.get("").await;
    check_text(&got, 200, "<p>root</p>");
    assert!(!got.header(ETAG).starts_with("\"p-"));
    assert!(fixture.server.shelf.kept.get("index.html").is_some());
    // An edit brings a variable in.
    fs::write(fixture.docs("index.html"), "<p>@INCLUDE=part.inc@</p>").unwrap();
    check_text(&fixture.get("").await, 200, "<p>part</p>");
    check_text(&fixture.get("sub/").await, 200, "@TITLE=x@");
}

#[tokio::test]
async fn a_page_too_long_to_expand_is_served_as_it_is() {
    let fixture = with_pages();
    let text = "@TITLE=x@".repeat(600_000);
    fs::write(fixture.docs("long.html"), &text).unwrap();
    let got = fixture.get("long.html").await;
    assert!(got.status == 200 && got.bytes == text.as_bytes());
}

#[tokio::test]
async fn included_files_are_logged_where_that_is_wanted() {
    let fixture = with_pages();
    let log = fixture.outer.path().join("access.log");
    fixture.get("magic.html").await;
    drop(fixture.server);
    let text = fs::read_to_string(log).unwrap();
    check_parts(&text, &["127.0.0.1 - - [", "] \"GET /doc/part.inc HTTP/1.1\" 200 4\n"]);
}

#[tokio::test]
async fn many_at_once_get_the_same_page() {
    let fixture = Arc::new(with_pages());
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let fixture = Arc::clone(&fixture);
        asking.spawn(async move { fixture.get("page.md").await.bytes });
    }
    let all = asking.join_all().await;
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}
