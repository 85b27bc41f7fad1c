//! A server that talks to some addresses only.
//!
//! `cargo run --example ip_filtering [PORT [ADDRESS…]]`; without an address, to 127.0.0.1.
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};

use server::containers::{DEFAULT_SERVER_LISTEN_PORT, Parameters, ServerInterface};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = match arguments.next() {
        Some(port) => port.parse()?,
        None => DEFAULT_SERVER_LISTEN_PORT,
    };
    let mut allowed = arguments.map(|text| text.parse()).collect::<Result<Vec<IpAddr>, _>>()?;
    if allowed.is_empty() {
        allowed.push(Ipv4Addr::LOCALHOST.into());
    }
    let server = ServerInterface::new(Parameters { listen_port: port, ..Parameters::default() })?;
    server.on_started(|| println!("started"));

    // Told before a byte is read: whoever is closed here is sent nothing.
    server.on_connection(move |connection| {
        let address = connection.address().ip();
        if !allowed.contains(&address) {
            println!("refused: {address}");
            connection.close();
        }
    });

    server.start(false)?;
    Ok(())
}
