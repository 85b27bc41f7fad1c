//! The client against a listener that gives one canned answer and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use serde_json::json;
use wire::Secret;

use super::{Client, ClientError};

/// The calls about agents, tasks, events and files.
mod dispatch;
/// The calls about machines.
mod machines;

/// Answers one request with `status` (more headers may follow in it) and `body`; gives the request
/// when joined.
fn serve(status: &str, body: &str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLocation: /elsewhere\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = String::new();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        while lines.read_line(&mut head).unwrap() > 2 {}
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut sent = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        lines.read_exact(&mut sent).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        head + &String::from_utf8(sent).unwrap()
    });
    (url, server)
}

/// Makes `call` against a canned answer; gives its result and the request.
fn check<T>(
    (status, body): (&str, &str),
    call: impl FnOnce(&Client) -> Result<T, ClientError>,
) -> (Result<T, ClientError>, String) {
    let (url, server) = serve(status, body);
    let client = Client::new(&url, Some(&Secret::new("hunter2")), None).unwrap();
    let result = call(&client);
    (result, server.join().unwrap())
}

#[test]
fn names_of_plugins_come_back_and_the_key_goes_in_the_header() {
    let (names, head) =
        check(("200 OK", r#"{"loaded_plugins": ["files", "hello"]}"#), Client::plugins);
    assert_eq!(names.unwrap(), ["files", "hello"]);
    assert!(head.starts_with("POST /plugins HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("\r\nauthorization: bearer hunter2\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-length: 0\r\n") && !head.contains("chunked"), "{head}");
}

#[test]
fn a_name_stays_one_segment_of_the_path() {
    let done = ("200 OK", r#"{"reloaded": "a/b ü?", "success": true}"#);
    let (result, head) = check(done, |client| client.reload("a/b ü?"));
    assert!(result.is_ok());
    assert!(head.starts_with("POST /reload/a%2Fb%20%C3%BC%3F HTTP/1.1\r\n"), "{head}");
}

#[test]
fn loading_and_unloading_give_the_servers_answer() {
    let answer = ("200 OK", r#"{"loaded": ["hello"]}"#);
    let (result, head) = check(answer, |client| client.load("hello.py"));
    assert_eq!(result.unwrap(), json!({"loaded": ["hello"]}));
    assert!(head.starts_with("POST /load/hello.py HTTP/1.1\r\n"), "{head}");
    let (result, head) = check(answer, |client| client.unload("hello"));
    assert!(result.is_ok() && head.starts_with("POST /unload/hello HTTP/1.1\r\n"), "{head}");
}

#[test]
fn a_refused_key_is_told_apart_and_never_shown() {
    let (result, _) = check(("403 Forbidden", r#"{"error": "unauthorized"}"#), Client::reload_all);
    let error = result.unwrap_err();
    assert!(matches!(error, ClientError::Unauthorized { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn the_servers_own_words_are_kept() {
    let answer = ("500 Internal Server Error", r#"{"error": "hello.py, line 3: bad"}"#);
    let error = check(answer, |client| client.reload("hello")).0.unwrap_err();
    assert_eq!(error.to_string(), "hello.py, line 3: bad (status 500)");
}

#[test]
fn another_kind_of_server_is_noticed() {
    for answer in [
        ("200 OK", "<html>"),
        ("200 OK", r#"{"loaded_plugins": "none"}"#),
        ("200 OK", r#"{"loaded_plugins": [1]}"#),
        ("404 Not Found", "<html>"),
        ("500 Internal Server Error", "{}"),
    ] {
        let error = check(answer, Client::plugins).0.unwrap_err();
        assert!(matches!(error, ClientError::Unexpected { .. }), "{answer:?}: {error:?}");
    }
}

#[test]
fn a_redirect_does_not_carry_the_key_away() {
    let error = check(("307 Temporary Redirect", "{}"), Client::plugins).0.unwrap_err();
    assert!(matches!(error, ClientError::Unexpected { .. }), "{error:?}");
}

#[test]
fn an_endless_answer_is_cut_off() {
    let long = format!(r#"{{"loaded_plugins": ["{}"]}}"#, "x".repeat(1 << 20));
    let (url, server) = serve("200 OK", &long);
    let error = Client::new(&url, None, None).unwrap().plugins().unwrap_err();
    assert!(matches!(error, ClientError::Unexpected { .. }), "{error:?}");
    // The listener's last write may fail once we hung up; what it saw is of no interest here.
    drop(server);
}

#[test]
fn an_absent_server_is_named_with_what_to_do() {
    // Bound and dropped: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(&format!("http://{address}/"), None, None).unwrap();
    let error = client.plugins().unwrap_err();
    assert!(matches!(error, ClientError::CannotConnect { .. }), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn a_server_without_tls_is_not_spoken_to_in_the_clear() {
    let (url, server) = serve("200 OK", "{}");
    let url = url.replace("http:", "https:");
    let error = Client::new(&url, Some(&Secret::new("hunter2")), None).unwrap().plugins();
    assert!(matches!(
        error,
        Err(ClientError::NotTrusted { .. } | ClientError::CannotConnect { .. })
    ));
    drop(server);
}

#[test]
fn the_host_is_told_without_its_port() {
    for (url, host) in [("http://a.b:1/x", "a.b"), ("https://[::1]:2", "::1")] {
        assert_eq!(Client::new(url, None, None).unwrap().host(), host);
    }
}

#[test]
fn what_cannot_work_is_refused_before_a_connection() {
    for url in ["localhost:9192", "ftp://a", "", "http://", "http://u:p@a", "http://a/?apikey=x"] {
        let error = Client::new(url, None, None).unwrap_err();
        assert!(matches!(error, ClientError::BadAddress { .. }), "{url}: {error:?}");
    }
    let key = Secret::new("two\nlines");
    assert!(matches!(Client::new("http://a", Some(&key), None), Err(ClientError::BadKey)));
    let roots = Some(std::path::Path::new("no-such.pem"));
    assert!(matches!(Client::new("https://a", None, roots), Err(ClientError::BadRoots { .. })));
}
