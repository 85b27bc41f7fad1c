//! HTTP/2, without TLS by prior knowledge and with TLS by agreement.

use std::sync::Arc;

use bytes::Bytes;
use e2e::{Dispatch, Server, Setup};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

pub(super) type Client = SendRequest<Full<Bytes>>;

async fn client(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    owned: &mut JoinSet<()>,
) -> Client {
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    owned.spawn(async move {
        // How the connection ends is not the matter; each request says how it fared.
        let _ = connection.await;
    });
    client
}

async fn ask(client: &mut Client, method: &str, path: &str, body: &str) -> (u16, String) {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap();
    client.ready().await.unwrap();
    let reply = client.send_request(request).await.unwrap();
    let status = reply.status().as_u16();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// The answer to GET of a whole URL.
async fn send(client: &mut Client, url: &str) -> http::Response<hyper::body::Incoming> {
    let request = http::Request::builder().uri(url).body(Full::new(Bytes::new())).unwrap();
    client.ready().await.unwrap();
    client.send_request(request).await.unwrap()
}

async fn check_all(client: &mut Client) {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let (status, text) = ask(client, "GET", "/echo?x=2", "").await;
    assert_eq!((status, parse(&text)), (200, json!({"x": "2"})));
    let (status, text) = ask(client, "POST", "/echo", r#"{"x": [1]}"#).await;
    assert_eq!((status, parse(&text)), (200, json!({"x": [1]})));
    let (status, text) = ask(client, "GET", "/nothing", "").await;
    assert_eq!(status, 404);
    assert!(parse(&text)["error"].is_string());
    let (status, text) = ask(client, "POST", "/echo", &"x".repeat(20_000)).await;
    assert_eq!(status, 413, "{text}");
    assert_eq!(ask(client, "GET", "/echo?x=3", "").await.0, 200, "the connection is kept");
    assert_eq!(ask(client, "GET", "/gen", "").await, (200, "abc".to_owned()));
}

fn setup() -> Setup {
    Setup::new()
        .handler("Echo", "return {'x': data.get('x')}")
        .async_handler("Gen", "for x in 'abc':\n    yield x")
        .set("limits", "body_bytes_max", "10000")
}

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async { tokio::time::timeout(e2e::DEADLINE, test).await };
    runtime.block_on(limited).expect("it takes too long");
}

pub(super) async fn plain(server: &Server, owned: &mut JoinSet<()>) -> Client {
    client(TcpStream::connect(server.address()).await.unwrap(), owned).await
}

#[test]
fn it_is_spoken_without_tls_to_those_who_begin_with_it() {
    let server = setup().start();
    run(async {
        let mut owned = JoinSet::new();
        check_all(&mut plain(&server, &mut owned).await).await;
    });
}

#[test]
fn it_is_agreed_on_with_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let server = setup()
        .set("ssl", "enabled", "true")
        .set("ssl", "certfile", "{dir}/cert.pem")
        .set("ssl", "keyfile", "{dir}/key.pem")
        .file("cert.pem", made.cert.pem())
        .file("key.pem", made.signing_key.serialize_pem())
        .start();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    run(async {
        let tcp = TcpStream::connect(server.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, tcp).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let mut owned = JoinSet::new();
        check_all(&mut client(stream, &mut owned).await).await;
    });
}

#[test]
fn many_calls_share_one_connection() {
    let code = "import asyncio\nclass Barrier(BasePlugin):\n    async def initialize(self, **kwargs):\n        self.n = 0\n        self.here = asyncio.Event()\n    async def request_handler(self, **data):\n        self.n += 1\n        if self.n == 30:\n            self.here.set()\n        await self.here.wait()\n        return {}\n";
    let server = setup().plugin("barrier.py", code).start();
    run(async {
        let mut owned = JoinSet::new();
        let first = plain(&server, &mut owned).await;
        let mut calls = JoinSet::new();
        for _ in 0..30 {
            let mut client = first.clone();
            calls.spawn(async move { ask(&mut client, "GET", "/barrier", "").await.0 });
        }
        while let Some(status) = calls.join_next().await {
            assert_eq!(status.unwrap(), 200);
        }
    });
}

#[test]
fn an_end_of_the_server_lets_a_call_finish() {
    let body = "import asyncio, os\nself.log('entered')\nwhile not os.path.exists(data['gate']):\n    await asyncio.sleep(0.02)\nreturn {'done': True}";
    let mut server = setup().async_handler("Slow", body).start();
    let gate = server.path("gate");
    run(async {
        let mut owned = JoinSet::new();
        let mut client = plain(&server, &mut owned).await;
        let path = format!("/slow?gate={}", gate.display());
        let call = async { ask(&mut client, "GET", &path, "").await };
        let end = async {
            let log = server.log().clone();
            tokio::task::spawn_blocking(move || log.wait_for(&["slow", "entered"])).await.unwrap();
            server.signal(e2e::Signal::TERM);
            server.write("gate", "");
        };
        let ((status, text), ()) = tokio::join!(call, end);
        assert_eq!(status, 200, "{text}");
    });
    assert_eq!(server.process.wait().code, Some(0));
}

#[test]
fn a_broken_frame_ends_its_own_connection_only() {
    let server = setup().start();
    let mut connection = server.connect();
    connection.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    connection.write([0xff; 600]);
    let _ = connection.read_to_close();
    assert_eq!(server.get_json("/echo?x=1"), json!({"x": "1"}));
}

#[test]
fn a_204_has_no_body_and_the_connection_goes_on() {
    let server = setup().handler("Empty", "return (204, {})").start();
    run(async {
        let mut owned = JoinSet::new();
        let mut client = plain(&server, &mut owned).await;
        for _ in 0..3 {
            let reply = send(&mut client, "http://localhost/empty").await;
            assert_eq!(reply.status(), 204);
            for name in ["content-type", "content-length"] {
                assert_eq!(reply.headers().get(name), None);
            }
            assert_eq!(reply.into_body().collect().await.unwrap().to_bytes(), "");
        }
        check_all(&mut client).await;
    });
}

#[test]
fn the_host_of_a_request_is_its_authority() {
    let server = setup().handler("Host", "return {'host': data['request'].host}").start();
    run(async {
        let mut owned = JoinSet::new();
        let mut client = plain(&server, &mut owned).await;
        for host in ["localhost", "some.example", "some.example:8443", "[::1]:81"] {
            let reply = send(&mut client, &format!("http://{host}/host")).await;
            assert_eq!(reply.status(), 200, "{host}");
            let body = reply.into_body().collect().await.unwrap().to_bytes();
            let told: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(told, json!({"host": host}));
        }
    });
}

#[test]
fn a_foreign_authority_cannot_use_control_routes_that_want_no_key() {
    let server = setup().start();
    run(async {
        let mut owned = JoinSet::new();
        let mut client = plain(&server, &mut owned).await;
        for (host, wanted) in [("evil.example", 403), ("localhost", 200), ("127.0.0.1:1", 200)] {
            let reply = send(&mut client, &format!("http://{host}/plugins")).await;
            assert_eq!(reply.status(), wanted, "{host}");
        }
    });
}

/// Polls for a task over a connection whose streams have room for a part of it.
async fn poll_in_a_small_window(
    server: &Dispatch,
    owned: &mut JoinSet<()>,
) -> http::Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let mut builder = Builder::new(TokioExecutor::new());
    let _ = builder.initial_stream_window_size(10_000);
    let (mut client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    owned.spawn(async move { drop(connection.await) });
    let request = http::Request::builder()
        .uri("http://localhost/tasks?wait=5")
        .header("authorization", "a:pw-a")
        .body(Full::new(Bytes::new()));
    let reply = client.send_request(request.unwrap()).await.unwrap();
    // The connection lives on without it.
    owned.spawn(async move {
        let _open = client;
        std::future::pending::<()>().await;
    });
    reply
}

#[test]
fn a_task_that_was_not_read_whole_is_offered_again() {
    let server = Dispatch::start();
    let admin = server.admin();
    let id = admin.enqueue("a", &json!("x".repeat(50_000)));
    run(async {
        let mut owned = JoinSet::new();
        let reply = poll_in_a_small_window(&server, &mut owned).await;
        assert_eq!(reply.status(), 200);
        // Longer than a reset would be listened for after it has been sent.
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        assert_eq!(admin.task(&id)["state"], "taken");
        drop(reply);
        while admin.task(&id)["state"] != "queued" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let reply = poll_in_a_small_window(&server, &mut owned).await;
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        let said: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(said["events"][&id].as_str().unwrap().len(), 50_000);
        assert!(server.agent("a").poll("wait=2").is_empty(), "what was read whole is its agent's");
        assert_eq!(admin.task(&id)["state"], "taken");
    });
}
