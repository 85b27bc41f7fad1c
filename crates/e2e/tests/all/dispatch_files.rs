//! Files through the server: their limits, their ends, their sums.

use e2e::{Dispatch, Reply, Signal};
use serde_json::json;

/// A name of a file that has been put: its path.
fn path(reply: &Reply) -> String {
    reply.ok()["url"].as_str().unwrap_or_else(|| panic!("no url in {}", reply.text())).to_owned()
}

/// Of `hello`.
const SUM: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[test]
fn a_file_goes_there_and_comes_back() {
    let mut server = Dispatch::start();
    let put = server.agent("a").post_bytes("/files/report.txt", "hello");
    let said = put.ok();
    let (id, path) = (said["id"].as_str().unwrap(), path(&put));
    assert_eq!(path, format!("/files/{id}/report.txt"));
    assert_eq!((&said["bytes"], &said["sha256"]), (&json!(5), &json!(SUM)));
    assert_eq!((&said["expires_in"], &said["uses"]), (&json!(3600), &json!(5)));
    server.restart(Signal::KILL);
    for caller in [server.admin(), server.agent("a"), server.agent("b")] {
        let got = caller.get(&path);
        assert_eq!((got.status, got.text().as_str()), (200, "hello"));
        assert_eq!(got.header("x-checksum-sha256"), Some(SUM));
    }
    let _ = server.nobody().get(&path).refused(403);
    let _ = server.nobody().post_bytes("/files/x", "hello").refused(403);
    let _ = server.admin().get(&path.replace("report", "other")).refused(404);
    assert_eq!(server.admin().delete(&path).ok(), json!({"error": false}));
    let _ = server.admin().get(&path).refused(404);
}

#[test]
fn a_part_of_a_file_is_given() {
    let server = Dispatch::start();
    let path = path(&server.admin().post_bytes("/files/x", "0123456789"));
    let part = |range: &str| server.agent("a").request("GET", &path).header("Range", range).send();
    let reply = part("bytes=2-4");
    assert_eq!((reply.status, reply.text().as_str()), (206, "234"));
    assert_eq!(reply.header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(part("bytes=8-").text(), "89");
    assert_eq!(part("bytes=10-").status, 416);
}

#[test]
fn a_file_is_used_up() {
    let server = Dispatch::start();
    let path = path(&server.admin().post_bytes("/files/x?uses=2", "hello"));
    for _ in 0..2 {
        assert_eq!(server.agent("a").get(&path).text(), "hello");
    }
    let _ = server.agent("a").get(&path).refused(404);
}

#[test]
fn a_file_ends_with_its_time() {
    let server = Dispatch::start();
    let path = path(&server.admin().post_bytes("/files/x?ttl=1&uses=1000", "hello"));
    let gone = e2e::wait_until("the end of the file", || {
        let reply = server.agent("a").get(&path);
        (reply.status != 200).then_some(reply)
    });
    let _ = gone.refused(404);
    for query in ["ttl=0", "ttl=x", "uses=0", "uses=x", "ttl=1&ttl=2"] {
        let _ = server.admin().post_bytes(&format!("/files/x?{query}"), "x").refused(400);
    }
}

#[test]
fn a_file_that_is_too_large_is_refused_and_leaves_nothing() {
    let server = Dispatch::configured(&[("file_bytes_max", "1000"), ("files", "{dir}/drop")]);
    let admin = server.admin();
    let kept = path(&admin.post_bytes("/files/x", vec![7; 1000]));
    let _ = admin.post_bytes("/files/x", vec![7; 1001]).refused(413);
    let mut connection = server.connect();
    let head = "Host: x\r\nAuthorization: a:pw-a\r\nTransfer-Encoding: chunked\r\n";
    connection.write(format!("POST /files/x HTTP/1.1\r\n{head}\r\n"));
    connection.write(format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000)));
    let _ = connection.read_reply().refused(413);
    assert_eq!(admin.get(&kept).body, vec![7; 1000]);
    let files = std::fs::read_dir(server.path("drop")).unwrap().count();
    assert_eq!(files, 1, "only what was taken");
}

#[test]
fn a_file_that_breaks_off_is_no_file() {
    let server = Dispatch::configured(&[("files", "{dir}/drop")]);
    let mut connection = server.connect();
    let head = "Host: x\r\nAuthorization: a:pw-a\r\nContent-Length: 1000\r\n";
    connection.write(format!("POST /files/x HTTP/1.1\r\n{head}\r\nhello"));
    connection.reset();
    let count = || std::fs::read_dir(server.path("drop")).map_or(0, Iterator::count);
    let _ = path(&server.agent("a").post_bytes("/files/y", "hello"));
    e2e::wait_until("only the whole one is left", || (count() == 1).then_some(()));
}

#[test]
fn a_name_never_leads_out_of_the_folder() {
    let server = Dispatch::start();
    let admin = server.admin();
    for name in ["..", ".", "..%2F..%2Fevil", "%2Fetc%2Fpasswd", "a%00b", "", "a/b", "x%0d%0aY:z"] {
        let reply = admin.post_bytes(&format!("/files/{name}"), "hello");
        if reply.status == 200 {
            let path = path(&reply);
            assert!(!path.contains("..") && !path.contains(['\r', '\n', '\0']), "{path}");
            assert_eq!(admin.get(&path).text(), "hello", "{name}");
        } else {
            assert!(matches!(reply.status, 400 | 404 | 405), "{name}: {}", reply.status);
        }
    }
    for path in ["/files/../../etc/passwd", "/files/x/..%2f..%2f..%2fetc%2fpasswd", "/files/1/x"] {
        let mut connection = server.connect();
        let head = "Host: x\r\nAuthorization: a:pw-a\r\n";
        connection.write(format!("GET {path} HTTP/1.1\r\n{head}\r\n"));
        let status = connection.read_reply().status;
        assert!(matches!(status, 400 | 403 | 404), "{path}: {status}");
    }
    assert!(!server.path("evil").exists() && !server.path("../evil").exists());
}

#[test]
fn a_file_is_given_as_something_to_keep_not_to_run() {
    let server = Dispatch::start();
    let path = path(&server.agent("a").post_bytes("/files/x.html", "<script>1</script>"));
    let got = server.admin().get(&path);
    let kind = got.header("content-type").unwrap_or("application/octet-stream").to_owned();
    let kept = got.header("content-disposition").is_some_and(|kept| kept.starts_with("attachment"));
    assert!(kept || !kind.contains("html"), "{kind}");
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn to_look_at_a_file_is_no_use_of_it_and_to_fetch_a_part_is() {
    let server = Dispatch::start();
    let admin = server.admin();
    let path = path(&admin.post_bytes("/files/x?uses=2", "hello"));
    for _ in 0..3 {
        let head = admin.request("HEAD", &path).send();
        assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
        assert_eq!(admin.request("GET", &path).header("Range", "bytes=5-").send().status, 416);
        let etag = format!("\"{SUM}\"");
        assert_eq!(admin.request("GET", &path).header("If-None-Match", &etag).send().status, 304);
    }
    for _ in 0..2 {
        let all = admin.request("GET", &path).header("Range", "bytes=0-").send();
        assert_eq!((all.status, all.header("content-range")), (206, Some("bytes 0-4/5")));
    }
    let _ = admin.get(&path).refused(404);
}
