//! A server whose containers are few and small.
//!
//! `cargo run --example custom_capacity [PORT]`
#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::error::Error;

use server::containers::{
    DEFAULT_SERVER_LISTEN_PORT, Parameters, ServerInterface, VirtualizationInterface,
};

fn main() -> Result<(), Box<dyn Error>> {
    let port = match std::env::args().nth(1) {
        Some(port) => port.parse()?,
        None => DEFAULT_SERVER_LISTEN_PORT,
    };

    // Everything that section [containers] of the configuration can say can be said here.
    let mut virtualization = VirtualizationInterface::new()?;
    virtualization.machines.count_max = 2;
    virtualization.machines.memory_mb = 256;
    virtualization.machines.memory_mb_max = 512;
    virtualization.machines.vcpus = 1;
    virtualization.machines.vcpus_max = 1;

    let server = ServerInterface::new(Parameters {
        bind_address: "127.0.0.1".to_owned(),
        listen_port: port,
        runtime_virtualization_interface: Some(virtualization),
        ..Parameters::default()
    })?;
    // In the background this time: the program goes on, and looks after its server.
    server.start(true)?;
    println!("started");
    println!("{} containers fit", server.runtime_statistics().available_containers_amount);
    let mut line = String::new();
    println!("Enter stops the server.");
    std::io::stdin().read_line(&mut line)?;
    server.stop();
    Ok(())
}
