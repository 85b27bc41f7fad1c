//! A server whose CREATE, DESTROY and STAT are its own: one container for each address.
//!
//! `cargo run --example replace_create [PORT]`
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::error::Error;

use server::containers::{
    DEFAULT_SERVER_LISTEN_PORT, Order, Parameters, REQUEST_VERB_CREATE, REQUEST_VERB_DESTROY,
    REQUEST_VERB_STAT, ServerInterface, VirtualizationInterface, created,
};

fn main() -> Result<(), Box<dyn Error>> {
    let port = match std::env::args().nth(1) {
        Some(port) => port.parse()?,
        None => DEFAULT_SERVER_LISTEN_PORT,
    };
    let mut virtualization = VirtualizationInterface::new()?;
    // Containers of one owner; who that is, is said below.
    virtualization.machines.quota = Some(1);
    let server = ServerInterface::new(Parameters {
        bind_address: "127.0.0.1".to_owned(),
        listen_port: port,
        runtime_virtualization_interface: Some(virtualization),
        ..Parameters::default()
    })?;
    server.on_started(|| println!("started"));

    // In the place of CREATE: what a client may have is decided here, not by its request.
    let containers = server.runtime_virtualization_interface().clone();
    server.set_request_handler(REQUEST_VERB_CREATE, move |client, _| {
        let owner = client.address().ip().to_string();
        let order = Order {
            memory_mb: Some(128),
            vcpus: Some(1),
            owner: Some(owner.clone()),
            ..Order::default()
        };
        let made = containers.create_container(client, order);
        match &made {
            Ok(lent) => println!("{owner} has {}", lent.id),
            Err(error) => println!("{owner} has none: {error}"),
        }
        // Unless this reaches the client, the container is undone.
        created(client, made)
    })?;

    // Around DESTROY: the usual, and a line for it.
    let destroy = server.request_handler(REQUEST_VERB_DESTROY).ok_or("DESTROY is not known")?;
    server.set_request_handler(REQUEST_VERB_DESTROY, move |client, request| {
        let response = destroy.handle(client, request);
        println!("{} gives back: {}", client.address().ip(), response.message);
        response
    })?;

    // Around STAT: one thing more.
    let containers = server.runtime_virtualization_interface().clone();
    let stat = server.request_handler(REQUEST_VERB_STAT).ok_or("STAT is not known")?;
    server.set_request_handler(REQUEST_VERB_STAT, move |client, request| {
        let mut response = stat.handle(client, request);
        response.data.insert("running".to_owned(), containers.containers().len().into());
        response
    })?;

    server.start(false)?;
    Ok(())
}
