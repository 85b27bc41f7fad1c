//! The file server: what it serves and how.

use e2e::{Reply, Server, Setup};

const TEXT: &str = "0123456789abcdefghij";

fn setup() -> Setup {
    Setup::new()
        .set("paths", "documents", "docs:{dir}/www")
        .file("www/a.txt", TEXT)
        .file("www/page.html", "<p>pägé</p>")
        .file("www/style.css", "p{}")
        .file("www/code.js", "1")
        .file("www/data.json", "{}")
        .file("www/pixel.png", [0x89, b'P', b'N', b'G'])
        .file("www/noext", "x")
        .file("www/empty.txt", "")
        .file("www/sub/index.html", "<h1>index</h1>")
        .file("www/bare/other.txt", "x")
        .file("www/with space & ünï.txt", "odd name")
}

fn server() -> Server {
    setup().start()
}

fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Reply {
    let request = server.request("GET", path);
    headers.iter().fold(request, |request, (name, value)| request.header(name, *value)).send()
}

#[test]
fn types_are_told_with_the_charset_of_text() {
    let server = server();
    let types = [
        ("a.txt", "text/plain; charset=utf-8"),
        ("page.html", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("pixel.png", "image/png"),
        ("data.json", "application/json"),
        ("noext", "application/octet-stream"),
    ];
    for (name, wanted) in types {
        let reply = server.get(&format!("/docs/{name}"));
        assert_eq!(reply.status, 200, "{name}");
        let found = reply.header("content-type").unwrap().to_lowercase();
        assert!(found.starts_with(wanted), "{name}: {found}");
    }
    let script = server.get("/docs/code.js");
    assert!(script.header("content-type").unwrap().contains("javascript"));
}

#[test]
fn content_arrives_byte_by_byte() {
    let server = server();
    assert_eq!(server.get("/docs/a.txt").text(), TEXT);
    assert_eq!(server.get("/docs/page.html").text(), "<p>pägé</p>");
    assert_eq!(server.get("/docs/pixel.png").body, [0x89, b'P', b'N', b'G']);
    let empty = server.get("/docs/empty.txt");
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    assert_eq!(server.get("/docs/with%20space%20&%20%C3%BCn%C3%AF.txt").text(), "odd name");
}

#[test]
fn a_directory_is_redirected_to_its_slash_and_shows_its_index() {
    let server = server();
    let reply = server.get("/docs/sub");
    assert!(matches!(reply.status, 301 | 302 | 303 | 307 | 308), "{}", reply.status);
    let location = reply.header("location").unwrap();
    assert!(location.ends_with("/docs/sub/"), "{location}");
    assert_eq!(server.get("/docs/sub/").text(), "<h1>index</h1>");
    let reply = server.get("/docs/sub?x=1");
    assert!((300..400).contains(&reply.status));
}

#[test]
fn a_redirect_never_leads_to_another_host() {
    let server = setup().file("www/evil.example/index.html", "x").start();
    let mut connection = server.connect();
    connection.write("GET /docs//evil.example HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let reply = connection.read_reply();
    let location = reply.header("location").unwrap_or_default();
    assert!(!location.starts_with("//"), "{location}");
}

#[test]
fn a_directory_without_an_index_shows_nothing_of_itself() {
    let server = server();
    let reply = server.get("/docs/bare/");
    assert!(matches!(reply.status, 403 | 404), "{}", reply.status);
    assert!(!reply.text().contains("other.txt"));
}

#[test]
fn the_root_of_the_documents_has_an_index_too() {
    let server = setup().file("www/index.html", "the root").start();
    assert_eq!(server.get("/docs/").text(), "the root");
    let reply = server.get("/docs");
    assert!((300..400).contains(&reply.status), "{}", reply.status);
}

#[test]
fn the_index_file_may_have_another_name() {
    let server = setup()
        .set("file_server", "indexfile", "home.html")
        .file("www/sub/home.html", "home")
        .start();
    assert_eq!(server.get("/docs/sub/").text(), "home");
}

#[test]
fn the_route_is_named_before_the_colon_or_after_the_directory() {
    for (section, value, route) in [
        ("paths", "docs:{dir}/www", "docs"),
        ("paths", "{dir}/www", "doc"),
        ("file_server", "docs:{dir}/www", "docs"),
        ("file_server", "{dir}/www", "www"),
    ] {
        let server = Setup::new().set(section, "documents", value).file("www/a.txt", TEXT).start();
        assert_eq!(server.get(&format!("/{route}/a.txt")).text(), TEXT, "{section} {value}");
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let server = server();
    for path in
        ["/docs/nothing", "/docs/sub/nothing", "/docs/a.txt/", "/docs/a.txt/b", "/docs/A.TXT"]
    {
        let _ = server.get(path).json_error(404);
    }
    assert_eq!(server.get(&format!("/docs/{}", "x".repeat(5000))).status, 404);
}

#[test]
fn only_reading_is_allowed() {
    let server = server();
    for method in ["PUT", "DELETE", "PATCH"] {
        let reply = server.request(method, "/docs/a.txt").send();
        let _ = reply.json_error(405);
        assert!(reply.header("allow").unwrap().contains("GET"));
    }
}

#[test]
fn a_validator_that_still_holds_saves_the_body() {
    let server = server();
    let first = server.get("/docs/a.txt");
    let tag = first.header("etag").expect("ETag").to_owned();
    let modified = first.header("last-modified").expect("Last-Modified").to_owned();
    let weak = format!("\"other\", W/{}", tag.trim_start_matches("W/"));
    for header in [
        ("If-None-Match", tag.as_str()),
        ("If-None-Match", "*"),
        ("If-None-Match", &weak),
        ("If-Modified-Since", &modified),
    ] {
        let reply = get(&server, "/docs/a.txt", &[header]);
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{header:?}");
        assert_eq!(reply.header("etag"), Some(tag.as_str()));
    }
    for header in [
        ("If-None-Match", "\"other\""),
        ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("If-Modified-Since", "rubbish"),
    ] {
        assert_eq!(get(&server, "/docs/a.txt", &[header]).text(), TEXT, "{header:?}");
    }
    let both = [("If-None-Match", "\"other\""), ("If-Modified-Since", modified.as_str())];
    assert_eq!(get(&server, "/docs/a.txt", &both).status, 200, "the tag decides");
}

#[test]
fn a_changed_file_has_a_new_validator() {
    let server = server();
    let tag = server.get("/docs/a.txt").header("etag").unwrap().to_owned();
    server.write("www/a.txt", "other");
    let reply = get(&server, "/docs/a.txt", &[("If-None-Match", &tag)]);
    assert_eq!((reply.status, reply.text().as_str()), (200, "other"));
}

#[test]
fn a_precondition_that_fails_is_told() {
    let server = server();
    let tag = server.get("/docs/a.txt").header("etag").unwrap().to_owned();
    assert_eq!(get(&server, "/docs/a.txt", &[("If-Match", "\"other\"")]).status, 412);
    if !tag.starts_with("W/") {
        assert_eq!(get(&server, "/docs/a.txt", &[("If-Match", &tag)]).status, 200);
    }
    let long_ago = "Thu, 01 Jan 1970 00:00:00 GMT";
    assert_eq!(get(&server, "/docs/a.txt", &[("If-Unmodified-Since", long_ago)]).status, 412);
}

#[test]
fn a_range_is_answered_with_itself() {
    let server = server();
    assert_eq!(server.get("/docs/a.txt").header("accept-ranges"), Some("bytes"));
    for (range, told, wanted) in [
        ("bytes=0-4", "bytes 0-4/20", "01234"),
        ("bytes=5-5", "bytes 5-5/20", "5"),
        ("bytes=15-", "bytes 15-19/20", "fghij"),
        ("bytes=-5", "bytes 15-19/20", "fghij"),
        ("bytes=10-9999", "bytes 10-19/20", "abcdefghij"),
        ("bytes=-9999", "bytes 0-19/20", TEXT),
    ] {
        let reply = get(&server, "/docs/a.txt", &[("Range", range)]);
        assert_eq!((reply.status, reply.text().as_str()), (206, wanted), "{range}");
        assert_eq!(reply.header("content-range"), Some(told), "{range}");
        assert_eq!(reply.header("content-length"), Some(wanted.len().to_string().as_str()));
    }
}

#[test]
fn a_range_outside_the_file_is_told_its_length() {
    let server = server();
    for range in ["bytes=20-", "bytes=100-200", "bytes=-0"] {
        let reply = get(&server, "/docs/a.txt", &[("Range", range)]);
        assert_eq!(reply.status, 416, "{range}");
        assert_eq!(reply.header("content-range"), Some("bytes */20"), "{range}");
    }
}

#[test]
fn a_range_that_is_none_is_left_out_of_account() {
    let server = server();
    for range in [
        "bytes=",
        "bytes=5-2",
        "bytes=a-b",
        "lines=1-2",
        "bytes=--5",
        "0-4",
        "bytes=99999999999999999999999-",
    ] {
        let reply = get(&server, "/docs/a.txt", &[("Range", range)]);
        assert!(matches!(reply.status, 200 | 416), "{range}: {}", reply.status);
    }
    let many = (0..2000).map(|n| format!("{n}-")).collect::<Vec<_>>().join(",");
    let reply = get(&server, "/docs/a.txt", &[("Range", &format!("bytes={many}"))]);
    assert!(reply.body.len() < 10_000, "ranges that overlap multiply the answer");
}

#[test]
fn a_range_of_an_older_file_gets_the_whole_new_one() {
    let server = server();
    let tag = server.get("/docs/a.txt").header("etag").unwrap().to_owned();
    let ranged = [("Range", "bytes=0-4"), ("If-Range", "\"older\"")];
    assert_eq!(get(&server, "/docs/a.txt", &ranged).status, 200);
    if !tag.starts_with("W/") {
        let ranged = [("Range", "bytes=0-4"), ("If-Range", tag.as_str())];
        assert_eq!(get(&server, "/docs/a.txt", &ranged).status, 206);
    }
}

#[test]
fn head_tells_what_get_would() {
    let server = server();
    let full = server.get("/docs/a.txt");
    let mut connection = server.connect();
    connection.write("HEAD /docs/a.txt HTTP/1.1\r\nHost: x\r\n\r\n");
    let (status, headers) = connection.read_head().unwrap();
    assert_eq!(status, 200);
    for name in ["content-length", "content-type", "etag", "last-modified"] {
        let found = headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        assert_eq!(found.map(|(_, value)| value.as_str()), full.header(name), "{name}");
    }
    connection.write("GET /docs/sub/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(connection.read_reply().text(), "<h1>index</h1>", "no byte of a body came before");
}

#[test]
fn a_large_file_is_never_held_whole() {
    let server = server();
    let file = std::fs::File::create(server.path("www/large.bin")).unwrap();
    file.set_len(600 << 20).unwrap();
    let mut slow = server.connect();
    slow.write("GET /docs/large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let (status, headers) = slow.read_head().unwrap();
    assert_eq!(status, 200);
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    assert_eq!(length.unwrap().1, (600u64 << 20).to_string());
    let mut other = server.connect();
    other.write("GET /docs/large.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes=1000-300001000\r\n\r\n");
    assert_eq!(other.read_reply().body.len(), 300_000_001);
    let peak = e2e::peak_memory_kib(server.process.pid());
    assert!(peak < 120_000, "the server held {peak} KiB");
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_is_seen_to_be_cut() {
    let server = server();
    let file = std::fs::File::create(server.path("www/large.bin")).unwrap();
    file.set_len(50 << 20).unwrap();
    let mut reader = server.connect();
    reader.write("GET /docs/large.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let _ = reader.read_head().unwrap();
    file.set_len(10).unwrap();
    assert!(reader.read_to_close().len() < 50 << 20);
    assert_eq!(server.get("/docs/a.txt").text(), TEXT);
}

#[test]
fn requests_are_written_in_the_common_log_format() {
    let server = setup().set("file_server", "common_log", "{dir}/access.log").start();
    let _ = server.get("/docs/a.txt?apikey=4711");
    let _ = server.get("/docs/nothing");
    let _ = get(&server, "/docs/a.txt", &[("Range", "bytes=0-4")]);
    let lines = e2e::wait_until("three lines", || {
        let text = std::fs::read_to_string(server.path("access.log")).ok()?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (lines.len() >= 3).then_some(lines)
    });
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{}", lines[0]);
    assert!(lines[0].ends_with("\"GET /docs/a.txt HTTP/1.1\" 200 20"), "{}", lines[0]);
    let date = lines[0].split(['[', ']']).nth(1).unwrap();
    let shape: String = date
        .chars()
        .map(|c| {
            if c.is_ascii_digit() {
                '9'
            } else if c.is_alphabetic() {
                'a'
            } else {
                c
            }
        })
        .collect();
    assert_eq!(shape.replace('-', "+"), "99/aaa/9999:99:99:99 +9999");
    assert!(lines[1].contains("\"GET /docs/nothing HTTP/1.1\" 404 "), "{}", lines[1]);
    assert!(!lines.concat().contains("4711"), "a query may hold a key");
    assert!(lines[2].ends_with("206 5"), "{}", lines[2]);
}

#[test]
fn a_log_line_cannot_be_forged_by_a_path() {
    let server = setup().set("file_server", "common_log", "{dir}/access.log").start();
    let _ = server.get("/docs/x%0a1.2.3.4%20-%20-%20%22forged");
    let _ = server.get("/docs/a.txt");
    let text = e2e::wait_until("the second line", || {
        std::fs::read_to_string(server.path("access.log"))
            .ok()
            .filter(|text| text.contains("a.txt"))
    });
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn without_documents_there_is_no_file_server() {
    let server = Setup::new().file("www/a.txt", TEXT).start();
    for path in ["/docs/a.txt", "/doc/a.txt", "/www/a.txt", "/a.txt"] {
        let _ = server.get(path).json_error(404);
    }
}

#[test]
fn a_plugin_beside_the_files_is_served_as_before() {
    let server = setup().handler("Open", "return {'ok': True}").start();
    assert_eq!(server.get_json("/open"), serde_json::json!({"ok": true}));
    assert_eq!(server.get("/docs/a.txt").text(), TEXT);
    let _ = server.get("/docsx/a.txt").json_error(404);
}
