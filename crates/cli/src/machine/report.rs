//! What is printed of machines: lists, one with all that is known, a console.

use client::Client;
use serde::Serialize;
use serde_json::json;
use wire::machines::Machine;

use super::{explain_absence, remembered, short};
use crate::screen::Screen;
use crate::session::Surroundings;
use crate::table::Table;
use crate::{CliError, shown};

/// Names and values, below each other.
pub(super) fn fields<const N: usize>(
    screen: &mut Screen<'_>,
    fields: [(&str, Option<String>); N],
) -> Result<(), CliError> {
    for (name, value) in fields {
        if let Some(value) = value {
            screen.line(&format!("{:<10}{}", format!("{name}:"), shown::line(&value)))?;
        }
    }
    Ok(())
}

fn labels(machine: &Machine) -> String {
    let labels = machine.labels.iter().map(|(name, value)| format!("{name}={value}"));
    labels.collect::<Vec<_>>().join(",")
}

pub(super) fn list(client: &Client, screen: &mut Screen<'_>) -> Result<(), CliError> {
    let found = client.machines().map_err(|error| explain_absence(error, client))?;
    let mut table = Table::new([
        "ID", "STATE", "IMAGE", "MIB", "CPUS", "PORT", "USER", "OWNER", "UNTIL", "LABELS",
    ]);
    for machine in &found.machines {
        let id = if screen.out_is_terminal { short(&machine.id) } else { &machine.id };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let until = machine.expires_at.as_deref().map(shown::written_time);
        table.row([
            id,
            &machine.state,
            &machine.image,
            &machine.memory.to_string(),
            &machine.vcpus.to_string(),
            &machine.port.map(|port| port.to_string()).unwrap_or_default(),
            &text(&machine.username),
            &text(&machine.owner),
            &text(&until),
            &labels(machine),
        ]);
    }
    screen.list(&found, &table)?;
    if let (Some(available), false) = (found.available, screen.json) {
        screen.note(&format!("places left: {available}"));
    }
    Ok(())
}

pub(super) fn show(
    machine: &Machine,
    with_password: bool,
    client: &Client,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        machine: &'a Machine,
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<&'a str>,
    }
    let record = remembered(machine, client, around)?;
    let password = record.as_ref().and_then(|record| record.password.as_ref());
    let password = password.filter(|_| with_password).map(|password| password.0.expose());
    if with_password && password.is_none() {
        return Err(CliError::Refused(format!(
            "the password of {} is not known here: it is told once, when a machine is created, and \
             kept only with --save-password",
            machine.id
        )));
    }
    if screen.json {
        return screen.value(&Shown { machine, password });
    }
    let is_ready = machine.port.is_some() && machine.username.is_some();
    let time = |text: &str| Some(shown::written_time(text)).filter(|text| !text.is_empty());
    let values = [
        ("machine", Some(machine.id.clone())),
        ("state", Some(machine.state.clone())),
        ("image", Some(machine.image.clone())),
        ("memory", Some(format!("{} MiB", machine.memory))),
        ("cpus", Some(machine.vcpus.to_string())),
        ("port", machine.port.map(|port| port.to_string())),
        ("user", machine.username.clone()),
        ("password", password.map(str::to_owned)),
        ("host key", machine.host_key_fingerprint.clone()),
        ("owner", machine.owner.clone()),
        ("labels", Some(labels(machine)).filter(|labels| !labels.is_empty())),
        ("created", time(&machine.created_at)),
        ("until", machine.expires_at.as_deref().and_then(time)),
        ("enter", is_ready.then(|| format!("gatehouse machine ssh {}", short(&machine.id)))),
    ];
    fields(screen, values)
}

pub(super) fn logs(
    id: &str,
    bytes: Option<u64>,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let console = client.machine_console(id, bytes)?;
    if screen.json {
        let console = String::from_utf8_lossy(&console);
        return screen.value(&json!({ "id": id, "console": console }));
    }
    if screen.out_is_terminal {
        // A console ends its lines for a terminal of its own.
        let console = String::from_utf8_lossy(&console).replace("\r\n", "\n");
        return screen.foreign(console.as_bytes());
    }
    screen.foreign(&console)
}
