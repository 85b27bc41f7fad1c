//! TLS: its versions, its certificate, and that nothing is ever served without it once asked for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use e2e::{Connection, DEADLINE, Server, Setup, Signal, wait_until};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

pub(super) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate for localhost: PEM of certificate and key, DER of the certificate.
pub(super) fn certificate() -> (String, String, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().clone())
}

pub(super) fn setup(cert: &str, key: &str) -> Setup {
    Setup::new()
        .set("SSL", "enabled", "true")
        .set("SSL", "certfile", "{dir}/cert.pem")
        .set("SSL", "keyfile", "{dir}/key.pem")
        .file("cert.pem", cert)
        .file("key.pem", key)
        .handler("Echo", "return {'x': data.get('x')}")
}

fn server() -> (Server, CertificateDer<'static>) {
    let (cert, key, der) = certificate();
    (setup(&cert, &key).start(), der)
}

/// A connection that trusts exactly this certificate.
pub(super) fn connect(
    server: &Server,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<Connection<Stream>> {
    connect_to(server.address(), trusted, versions)
}

/// As [`connect`], to another port.
pub(super) fn connect_to(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<Connection<Stream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(DEADLINE))?;
    tls.complete_io(&mut tcp)?;
    Ok(Connection::over(StreamOwned::new(tls, tcp)))
}

fn ask(connection: &mut Connection<Stream>) -> serde_json::Value {
    connection.write("GET /echo?x=tls HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = connection.read_reply();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["x"].clone()
}

#[test]
fn it_speaks_1_2_and_1_3() {
    let (server, der) = server();
    assert!(server.base().starts_with("https://"), "{}", server.base());
    for (version, name) in [(&TLS12, "TLSv1_2"), (&TLS13, "TLSv1_3")] {
        let mut connection = connect(&server, &der, &[version]).unwrap();
        assert_eq!(ask(&mut connection), "tls");
        let spoken = connection.stream().conn.protocol_version().unwrap();
        assert_eq!(format!("{spoken:?}"), name);
    }
}

#[test]
fn plain_http_gets_no_answer_of_a_plugin() {
    let (server, _) = server();
    let mut connection = server.connect();
    connection.write("GET /echo?x=plain HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = connection.read_to_close();
    assert!(!String::from_utf8_lossy(&answer).contains("plain"));
}

#[test]
fn enough_strangers_to_the_handshake_do_not_hold_up_a_client() {
    let (server, der) = server();
    let silent: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let mut half: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for connection in &mut half {
        connection.write([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
    }
    for _ in 0..5 {
        assert_eq!(ask(&mut connect(&server, &der, &[&TLS13]).unwrap()), "tls");
    }
    drop(silent);
}

#[test]
fn a_handshake_without_end_is_ended() {
    let (cert, key, _) = certificate();
    let server = setup(&cert, &key).set("limits", "header_timeout_secs", "1").start();
    let mut silent = server.connect();
    let _ = silent.read_to_close();
}

/// A start that must fail and name the file.
fn check_refused(cert: &str, key: &str, named: &str) {
    let exit = setup(cert, key).fail_to_start();
    assert!(exit.stderr.contains(named), "{}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

#[test]
fn a_certificate_that_cannot_be_read_stops_the_start() {
    let (cert, key, _) = certificate();
    check_refused("not a certificate", &key, "cert.pem");
    check_refused("", &key, "cert.pem");
    check_refused(&cert, "not a key", "key.pem");
    check_refused(&cert, "", "key.pem");
    check_refused(&cert[..cert.len() / 2], &key, "cert.pem");
}

#[test]
fn a_key_of_another_certificate_stops_the_start() {
    let (cert, ..) = certificate();
    let (_, key, _) = certificate();
    check_refused(&cert, &key, "key");
}

#[test]
fn a_missing_certificate_stops_the_start() {
    let exit = Setup::new()
        .set("ssl", "enabled", "true")
        .set("ssl", "certfile", "{dir}/nowhere.pem")
        .set("ssl", "keyfile", "{dir}/nowhere-key.pem")
        .fail_to_start();
    assert!(exit.stderr.contains("nowhere"), "{}", exit.stderr);
    let exit = Setup::new().set("ssl", "enabled", "true").fail_to_start();
    assert!(exit.stderr.contains("certfile"), "{}", exit.stderr);
}

#[test]
fn both_spellings_of_enabled_work_and_off_is_plain() {
    let (cert, key, der) = certificate();
    let server = Setup::new()
        .set("Ssl", "enable", "bool:on")
        .set("Ssl", "certfile", "{dir}/cert.pem")
        .set("Ssl", "keyfile", "{dir}/key.pem")
        .file("cert.pem", &cert)
        .file("key.pem", &key)
        .handler("Echo", "return {'x': data.get('x')}")
        .start();
    assert_eq!(ask(&mut connect(&server, &der, &[&TLS13]).unwrap()), "tls");
    let server = setup(&cert, &key).set("SSL", "enabled", "bool:false").start();
    assert_eq!(server.get_json("/echo?x=1"), serde_json::json!({"x": "1"}));
}

#[test]
fn a_new_certificate_is_in_force_after_sighup() {
    let (server, old) = server();
    let mut open = connect(&server, &old, &[&TLS13]).unwrap();
    assert_eq!(ask(&mut open), "tls");
    let (cert, key, new) = certificate();
    server.write("cert.pem", cert);
    server.write("key.pem", key);
    server.signal(Signal::HUP);
    wait_until("the new certificate", || {
        connect(&server, &new, &[&TLS13]).ok().map(|mut it| ask(&mut it))
    });
    assert!(connect(&server, &old, &[&TLS13]).is_err(), "the old one is no longer shown");
}

#[test]
fn a_new_certificate_that_is_broken_leaves_the_old_one_in_force() {
    let (server, old) = server();
    server.write("cert.pem", "broken");
    server.signal(Signal::HUP);
    let _ = server.log().wait_for(&["cert.pem"]);
    assert_eq!(ask(&mut connect(&server, &old, &[&TLS12]).unwrap()), "tls");
}

#[test]
fn rubbish_after_the_handshake_breaks_nothing() {
    let (server, der) = server();
    let mut connection = connect(&server, &der, &[&TLS13]).unwrap();
    let tcp = &mut connection.stream().sock;
    tcp.write_all(&[0xff; 4000]).unwrap();
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer);
    assert_eq!(ask(&mut connect(&server, &der, &[&TLS13]).unwrap()), "tls");
}
