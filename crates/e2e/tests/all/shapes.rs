//! Requests of every wrong shape: refused, or served once and as meant; never two out of one.

use e2e::{Connection, Reply, Server, Setup};
use serde_json::json;

/// Counts every call it gets and keeps what the bodies were.
const COUNT: &str = "if data.get('ask'):\n    return {'n': getattr(self, 'n', 0)}\nself.n = getattr(self, 'n', 0) + 1\nreturn {'served': self.n}";

fn server() -> Server {
    // Short, because the end of a connection that is kept must be waited for.
    Setup::new()
        .handler("Count", COUNT)
        .set("limits", "header_timeout_secs", "1")
        .set("limits", "body_timeout_secs", "1")
        .set("limits", "idle_timeout_secs", "1")
        .start()
}

fn calls(server: &Server) -> u64 {
    server.get_json("/count?ask=1")["n"].as_u64().unwrap()
}

/// Sends these bytes and reads every answer until the server closes.
fn send(server: &Server, bytes: &[u8]) -> Vec<Reply> {
    let mut connection = server.connect();
    connection.write(bytes);
    replies(&mut connection)
}

fn replies(connection: &mut Connection) -> Vec<Reply> {
    std::iter::from_fn(|| connection.try_read_reply()).collect()
}

/// Refused: no call was made and the connection is of no more use.
fn check_refused(server: &Server, request: impl AsRef<[u8]>) {
    let before = calls(server);
    let bytes = request.as_ref();
    let shown = String::from_utf8_lossy(bytes).into_owned();
    let mut whole = bytes.to_vec();
    // What follows must never be taken for a request of its own.
    whole.extend(b"GET /count?smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
    let replies = send(server, &whole);
    for reply in &replies {
        assert!((400..600).contains(&reply.status), "{shown:.300}: {}", reply.status);
    }
    assert!(replies.len() <= 1, "{shown:.300}: {} answers", replies.len());
    assert_eq!(calls(server), before, "{shown:.300}");
}

/// Served at most once, and nothing after it on the same connection.
fn check_once_at_most(server: &Server, request: impl AsRef<[u8]>) {
    let before = calls(server);
    let shown = String::from_utf8_lossy(request.as_ref()).into_owned();
    let replies = send(server, request.as_ref());
    assert!(replies.len() <= 1, "{shown:.300}: {} answers", replies.len());
    assert!(calls(server) <= before + 1, "{shown:.300}");
}

#[test]
fn a_good_request_is_served_twice_on_one_connection() {
    let server = server();
    let one = "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab";
    let replies = send(&server, format!("{one}{one}").as_bytes());
    let statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    assert_eq!((statuses, calls(&server)), (vec![200, 200], 2));
}

#[test]
fn a_request_without_exactly_one_host_is_refused() {
    let server = server();
    for hosts in ["", "Host: x\r\nHost: y\r\n"] {
        let mut connection = server.connect();
        connection.write(format!("GET /count HTTP/1.1\r\n{hosts}\r\n"));
        let _ = connection.read_reply().json_error(400);
    }
    assert_eq!(calls(&server), 0);
    let replies = send(&server, b"GET /count HTTP/1.0\r\n\r\n");
    assert_eq!(replies.first().map(|reply| reply.status), Some(200), "1.0 needs none");
}

#[test]
fn a_refused_shape_is_told_in_json() {
    let server = server();
    let requests = [
        ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
    ];
    for (request, status) in requests {
        let reply = server.connect().write(request).read_reply();
        let _ = reply.json_error(status);
    }
}

#[test]
fn a_length_beside_chunks_never_makes_two_requests() {
    let server = server();
    let inner = "GET /count?smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    for (first, second) in [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
    ] {
        check_once_at_most(
            &server,
            format!(
                "POST /count HTTP/1.1\r\nHost: x\r\n{first}\r\n{second}\r\n\r\n0\r\n\r\n{inner}"
            ),
        );
    }
}

#[test]
fn two_lengths_are_refused() {
    let server = server();
    check_refused(
        &server,
        "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
    );
    check_refused(&server, "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 5\r\n\r\n");
}

#[test]
fn lengths_that_are_none_are_refused() {
    let server = server();
    for length in ["-1", "+2", "0x2", "2 2", "1e1", "a", "99999999999999999999999999", "\u{662}"] {
        check_refused(
            &server,
            format!("POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"),
        );
    }
}

#[test]
fn codings_that_are_none_are_refused() {
    let server = server();
    for coding in [
        "identity",
        "xchunked",
        "chunked, identity",
        "chunked, gzip",
        "\u{b}chunked",
        "chunked\r\nTransfer-Encoding: identity",
    ] {
        check_refused(
            &server,
            format!(
                "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"
            ),
        );
    }
}

#[test]
fn chunks_in_http_1_0_never_make_two_requests() {
    let server = server();
    check_once_at_most(
        &server,
        "POST /count HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\nGET /count HTTP/1.1\r\nHost: x\r\n\r\n",
    );
}

#[test]
fn sizes_of_chunks_that_are_none_are_refused() {
    let server = server();
    for size in
        ["G", "-1", "+1", "0x1", "", " ", "FFFFFFFFFFFFFFFFF", "1;\u{0}\n", "8000000000000000"]
    {
        check_refused(
            &server,
            format!(
                "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nx\r\n0\r\n\r\n"
            ),
        );
    }
}

#[test]
fn a_chunk_longer_than_its_size_is_refused() {
    let server = server();
    check_refused(
        &server,
        "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n",
    );
}

#[test]
fn extensions_and_trailers_without_end_are_refused() {
    let server = server();
    let long = "x".repeat(200_000);
    check_refused(
        &server,
        format!(
            "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;{long}\r\nx\r\n0\r\n\r\n"
        ),
    );
    check_refused(
        &server,
        format!(
            "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: {long}\r\n\r\n"
        ),
    );
}

#[test]
fn headers_folded_over_lines_are_refused() {
    let server = server();
    check_refused(&server, "GET /count HTTP/1.1\r\nHost: x\r\nX-A: one\r\n two\r\n\r\n");
    check_refused(
        &server,
        "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    );
}

#[test]
fn headers_with_a_space_before_the_colon_are_refused() {
    let server = server();
    check_refused(&server, "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nabcde");
    check_refused(
        &server,
        "POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    );
}

#[test]
fn lines_that_are_no_headers_are_refused() {
    let server = server();
    check_refused(&server, "GET /count HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n");
    check_refused(&server, "GET /count HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n");
    check_refused(&server, "GET /count HTTP/1.1\r\nHost: x\r\nX\u{0}Y: 1\r\n\r\n");
    check_refused(&server, "GET /count HTTP/1.1\r\nHost: x\r\nX: a\u{0}b\r\n\r\n");
    check_refused(&server, "GET /count HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n");
}

#[test]
fn bare_line_feeds_never_make_two_requests() {
    let server = server();
    check_once_at_most(
        &server,
        "GET /count HTTP/1.1\nHost: x\nConnection: close\n\nGET /count HTTP/1.1\nHost: x\n\n",
    );
    check_once_at_most(
        &server,
        "POST /count HTTP/1.1\r\nHost: x\r\nConnection: close\nContent-Length: 41\r\n\r\nGET /count HTTP/1.1\r\nHost: x\r\n\r\n          ",
    );
}

#[test]
fn first_lines_that_are_none_are_refused() {
    let server = server();
    for line in [
        "",
        " ",
        "GET",
        "GET /count",
        "GET  /count HTTP/1.1",
        "GET /count HTTP/9.9",
        "GET /count HTTX/1.1",
        "G\u{0}T /count HTTP/1.1",
        "GET /co unt HTTP/1.1",
        "\u{1}\u{2}\u{3}",
    ] {
        check_refused(&server, format!("{line}\r\nHost: x\r\n\r\n"));
    }
}

#[test]
fn a_target_in_another_form_is_no_way_around() {
    let server = server();
    for line in [
        "GET http://x/count HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT x:1 HTTP/1.1",
        "GET count HTTP/1.1",
        "GET //count HTTP/1.1",
        "GET /./count HTTP/1.1",
    ] {
        let replies =
            send(&server, format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(replies.len() <= 1 && replies.iter().all(|reply| reply.status < 500), "{line}");
    }
}

/// Whatever is answered, it is no failure of the server's own, and it goes on.
fn check_survived(server: &Server, request: impl AsRef<[u8]>) -> Option<Reply> {
    let shown = String::from_utf8_lossy(request.as_ref()).into_owned();
    let reply = server.connect().write(request).try_read_reply();
    if let Some(reply) = &reply {
        assert!(reply.status < 500, "{shown:.200}: {} {}", reply.status, reply.text());
        if reply.status == 200 || reply.status == 404 {
            let _ = reply.json();
        }
    }
    let before = calls(server);
    assert_eq!(server.get_json("/count"), json!({"served": before + 1}));
    reply
}

#[test]
fn bytes_that_are_no_utf8_break_nothing() {
    let server = server();
    let cases: [&[u8]; 8] = [
        b"GET /count/%FF%FE HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /count/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%FF HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /count?a=%FF&%C3%28=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /count?a=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /count HTTP/1.1\r\nHost: x\r\nX-Odd: \xff\xfe\x80\r\n\r\n",
        b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 6\r\n\r\na=\xff%FF",
        b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Type: \xff/\xfe\r\nContent-Length: 1\r\n\r\n\xff",
    ];
    for case in cases {
        let _ = check_survived(&server, case);
    }
}

#[test]
fn percent_signs_that_mean_nothing_break_nothing() {
    let server = server();
    for path in [
        "/count/%",
        "/count/%zz",
        "/count/%2",
        "/%",
        "/count?%=%&%zz=%1",
        "/count/%00",
        "/count/%0d%0aX:%201",
        "/count?a=%00",
    ] {
        let _ = check_survived(&server, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
}

#[test]
fn repeated_headers_break_nothing() {
    let server = server();
    let reply = check_survived(
        &server,
        "GET /count HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nX-A: 2\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
    );
    assert_eq!(reply.map(|reply| reply.status), Some(200));
}

#[test]
fn a_name_of_ten_thousand_letters_is_not_found() {
    let server = server();
    let reply =
        check_survived(&server, format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(10_000)));
    let _ = reply.unwrap().json_error(404);
    let reply = check_survived(
        &server,
        format!("GET /count?{}=1 HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(10_000)),
    );
    assert_eq!(reply.unwrap().status, 200);
    let reply = check_survived(
        &server,
        format!("GET /count/{} HTTP/1.1\r\nHost: x\r\n\r\n", "%C3%A4".repeat(2000)),
    );
    assert_eq!(reply.unwrap().status, 200);
}

#[test]
fn a_hundred_thousand_bytes_of_headers_are_refused_or_served() {
    let server = server();
    let long = "v".repeat(100_000);
    let _ = check_survived(
        &server,
        format!("GET /count HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"),
    );
    let _ = check_survived(&server, format!("GET /count HTTP/1.1\r\nHost: x\r\n{long}: 1\r\n\r\n"));
    let many: String = (0..5000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let _ = check_survived(&server, format!("GET /count HTTP/1.1\r\nHost: x\r\n{many}\r\n"));
}

#[test]
fn headers_without_end_are_refused() {
    let server = server();
    let mut connection = server.connect();
    for _ in 0..2000 {
        connection.write(format!("X-More: {}\r\n", "y".repeat(1000)));
    }
    let _ = connection.read_to_close();
    assert_eq!(calls(&server), 0);
    assert!(e2e::peak_memory_kib(server.process.pid()) < 150_000);
}

#[test]
fn many_variables_break_nothing() {
    let server = server();
    let many: Vec<_> = (0..20_000).map(|n| format!("v{n}={n}")).collect();
    let reply = server.post("/count").form(&many.join("&")).send();
    assert!(matches!(reply.status, 200 | 400 | 413), "{}", reply.status);
    let members: serde_json::Map<_, _> = (0..20_000).map(|n| (format!("v{n}"), json!(n))).collect();
    assert_eq!(server.post("/count").json(&members.into()).send().status, 200);
}
