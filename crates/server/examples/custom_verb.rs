//! A server with a verb of its own: `GREET` answers with a greeting.
//!
//! `cargo run --example custom_verb [PORT]`
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::error::Error;

use serde_json::{Map, Value};
use server::containers::{
    Complaint, DEFAULT_SERVER_LISTEN_PORT, Parameters, Response, ServerInterface,
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

    // A verb is letters from A to Z. Naming CREATE, DESTROY or STAT here would replace what they do.
    server.set_request_handler("GREET", |client, request| {
        match request.parameters.get("name").and_then(Value::as_str) {
            Some(name) => {
                let greeting = format!("Good day, {name}!");
                Response::ok(Map::from_iter([("greeting".to_owned(), greeting.into())]))
            }
            // What clients of each generation know as a bad request.
            None => Response::refuse(&Complaint::Bad("name is missing"), client.generation()),
        }
    })?;

    server.start(false)?;
    Ok(())
}
