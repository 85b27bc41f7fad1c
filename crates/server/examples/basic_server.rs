//! A server of containers with a word at every step.
//!
//! `cargo run --example basic_server [PORT]`; Ctrl-C stops it and its containers. Containers are made of the image
//! `small`, which `gatehouse image build small` builds.
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::error::Error;
use std::time::Duration;

use server::containers::{
    Bounds, DEFAULT_ASYCHRONOUS, DEFAULT_SERVER_LISTEN_PORT, Parameters, ServerInterface,
};

fn main() -> Result<(), Box<dyn Error>> {
    let port = match std::env::args().nth(1) {
        Some(port) => port.parse()?,
        None => DEFAULT_SERVER_LISTEN_PORT,
    };
    let server = ServerInterface::new(Parameters {
        bind_address: "127.0.0.1".to_owned(),
        listen_port: port,
        ..Parameters::default()
    })?;

    server.on_started(|| println!("started"));
    server.on_stopped(|| println!("stopped"));
    server.on_client(|client| println!("client {} has come", client.id()));
    server.on_client_closed(|client| println!("client {} has gone", client.id()));
    server.on_request(|client| {
        let verb = client.request().map_or("", |request| request.verb.as_str());
        println!("client {} asks: {verb}", client.id());
    });
    server.on_created_container(|_, container| println!("container {} runs", container.uuid));
    server.on_created_endpoint_shell(|shell, container, _| {
        // Whatever is run here has happened before the client may log in.
        match shell.run("uname -s", Bounds::within(Duration::from_secs(20))) {
            Ok(said) => {
                let kernel = String::from_utf8_lossy(&said.stdout).trim().to_owned();
                println!("container {} says: {kernel}", container.uuid);
            }
            // Without an answer the client is not to have it: closing the shell ends the session.
            Err(_) => shell.close(),
        }
    });
    server.on_destroyed_container(|_, container| println!("container {} is gone", container.uuid));
    server.on_runtime_error(|error, _| println!("{}: {}", error.name, error.trace));

    // Returns when the server was stopped.
    server.start(DEFAULT_ASYCHRONOUS)?;
    Ok(())
}
