//! Nothing outside the documents is ever served, however it is asked for.

use std::os::unix::fs::symlink;

use e2e::{Server, Setup};

const SECRET: &str = "the-secret-content";

fn server() -> Server {
    let setup = Setup::new()
        .set("paths", "documents", "docs:{dir}/www")
        .file("www/a.txt", "inside")
        .file("www/sub/b.txt", "inside too")
        .file("secret.txt", SECRET)
        .file("www-secret/x.txt", SECRET)
        .file("plugins/note.txt", SECRET);
    let www = setup.path().join("www");
    symlink("../secret.txt", www.join("out.txt")).unwrap();
    symlink(setup.path().join("secret.txt"), www.join("absolute.txt")).unwrap();
    symlink("..", www.join("updir")).unwrap();
    symlink("/", www.join("rootdir")).unwrap();
    symlink("a.txt", www.join("in.txt")).unwrap();
    symlink("sub", www.join("insub")).unwrap();
    symlink(setup.path().join("www/sub"), www.join("inabsolute")).unwrap();
    symlink("loop", www.join("loop")).unwrap();
    symlink("nowhere", www.join("dangling")).unwrap();
    setup.start()
}

/// Asks for exactly this target; the answer must be a refusal and hold no secret.
fn check(server: &Server, target: &str) {
    let mut connection = server.connect();
    connection.write(format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let bytes = connection.read_to_close();
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains(SECRET), "{target}: {text}");
    assert!(!text.contains("root:"), "{target}: {text}");
    let refused = ["HTTP/1.1 4", "HTTP/1.1 3"].iter().any(|start| text.starts_with(start));
    // What is no request at all may be refused by closing.
    assert!(refused || (text.is_empty() && target.contains(' ')), "{target}: {text}");
}

#[test]
fn two_dots_in_every_encoding() {
    let server = server();
    for up in [
        "..",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%2e.",
        "%252e%252e",
        "%c0%ae%c0%ae",
        "%e0%80%ae%e0%80%ae",
        "..%00",
        "..;",
        ". .",
        "%u002e%u002e",
    ] {
        for slash in ["/", "%2f", "%2F", "%5c", "\\", "%252f", "//", "/./", "%c0%af"] {
            for start in ["/docs/", "/docs/sub/../", "/docs//", "/docs/."] {
                check(&server, &format!("{start}{up}{slash}secret.txt"));
            }
            check(
                &server,
                &format!(
                    "/docs/{up}{slash}{up}{slash}{up}{slash}{up}{slash}{up}{slash}{up}{slash}etc/passwd"
                ),
            );
            check(&server, &format!("/docs/{up}{slash}www-secret/x.txt"));
        }
    }
}

#[test]
fn two_dots_in_the_route_itself() {
    let server = server();
    for target in [
        "/docs/../secret.txt",
        "/../secret.txt",
        "/docs/..",
        "/docs/../",
        "/./docs/../../secret.txt",
        "/docs/../plugins/note.txt",
    ] {
        check(&server, target);
    }
}

#[test]
fn a_way_that_leaves_and_comes_back_is_not_served() {
    let server = server();
    let mut connection = server.connect();
    connection.write("GET /docs/..%2fwww%2fa.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(connection.read_reply().status >= 400);
}

#[test]
fn absolute_paths() {
    let server = server();
    let absolute = server.path("secret.txt").display().to_string();
    for start in ["/docs/", "/docs//", "/docs/%2f", "/docs/%2F%2f", "/docs/./", "/docs/file:"] {
        check(&server, &format!("{start}{absolute}"));
        check(&server, &format!("{start}{}", absolute.replace('/', "%2f")));
        check(&server, &format!("{start}/etc/passwd"));
    }
}

#[test]
fn a_nul_in_the_path() {
    let server = server();
    for target in [
        "/docs/a.txt%00",
        "/docs/%00",
        "/docs/a.txt%00.html",
        "/docs/..%00/secret.txt",
        "/docs/%00/../a.txt",
    ] {
        check(&server, target);
    }
}

#[test]
fn symbolic_links_that_lead_out() {
    let server = server();
    for target in [
        "/docs/out.txt",
        "/docs/absolute.txt",
        "/docs/updir/secret.txt",
        "/docs/rootdir/etc/passwd",
        "/docs/updir/",
        "/docs/rootdir/",
        "/docs/loop",
        "/docs/dangling",
        "/docs/insub/../../secret.txt",
    ] {
        check(&server, target);
    }
}

#[test]
fn symbolic_links_that_stay_inside_work() {
    let server = server();
    for (path, wanted) in
        [("in.txt", "inside"), ("insub/b.txt", "inside too"), ("inabsolute/b.txt", "inside too")]
    {
        let reply = server.get(&format!("/docs/{path}"));
        assert_eq!((reply.status, reply.text().as_str()), (200, wanted), "{path}");
    }
}

#[test]
fn what_is_neither_file_nor_directory() {
    let server = server();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        server.path("www/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(server.path("www/socket")).unwrap();
    for _ in 0..3 {
        check(&server, "/docs/pipe");
        check(&server, "/docs/socket");
    }
    assert_eq!(server.get("/docs/a.txt").text(), "inside");
}

#[test]
fn documents_that_are_a_link_themselves_are_served() {
    let setup =
        Setup::new().set("paths", "documents", "docs:{dir}/link").file("www/a.txt", "inside");
    symlink("www", setup.path().join("link")).unwrap();
    let server = setup.start();
    assert_eq!(server.get("/docs/a.txt").text(), "inside");
}

#[test]
fn includes_stay_inside_too() {
    let setup = Setup::new().set("paths", "documents", "docs:{dir}/www").file("secret.txt", SECRET);
    let absolute = setup.path().join("secret.txt");
    let html = format!(
        "[@INCLUDE=../secret.txt@][@INCLUDE=/etc/passwd@][@INCLUDE={}@][@INCLUDE=in.txt@]",
        absolute.display()
    );
    let markdown =
        "# x\n\n@INCLUDE=../secret.txt@ @INCLUDE=%2e%2e/secret.txt@ @FILETIME=../secret.txt+%Y@\n";
    let setup =
        setup.file("www/in.txt", "included").file("www/x.html", html).file("www/x.md", markdown);
    symlink("../secret.txt", setup.path().join("www/out.txt")).unwrap();
    let server = setup.file("www/y.html", "[@INCLUDE=out.txt@]").start();
    for path in ["x.html", "x.md", "y.html"] {
        let reply = server.get(&format!("/docs/{path}"));
        assert_eq!(reply.status, 200, "{path}");
        assert!(
            !reply.text().contains(SECRET) && !reply.text().contains("root:"),
            "{}",
            reply.text()
        );
    }
    assert!(server.get("/docs/x.html").text().contains("[included]"));
}
