//! `gatehouse machine create`: asks for a machine, tells how far it is, says how to enter it.
//!
//! Invariant: what the server tells once is printed even if it cannot be kept. An interrupt ends the
//! connection, and with it the creation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use client::{Client, ClientError, Creating};
use serde::Serialize;
use wire::machines::{CreatedMachine, NewMachine, Step};

use super::CreateArgs;
use super::kept::{Password, Record};
use super::keys::{self, Key};
use super::ssh::Destination;
use crate::screen::Screen;
use crate::session::Surroundings;
use crate::{CliError, Outcome, shown};

/// How often the time is told anew.
const TICK: Duration = Duration::from_millis(100);
/// How many machines are named as those that hold the places.
const HOLDERS_MAX: usize = 10;

/// What is printed of a creation for programs.
#[derive(Serialize)]
struct Created<'a> {
    #[serde(flatten)]
    created: &'a CreatedMachine,
    /// What `ssh -i` takes.
    identity_file: Option<&'a str>,
    /// Program and arguments that enter the machine.
    ssh: Option<Vec<String>>,
    /// Where it is remembered.
    kept_in: Option<&'a Path>,
}

/// Creates a machine.
pub(super) fn run(
    args: &CreateArgs,
    client: &Client,
    around: &Surroundings<'_>,
    screen: &mut Screen<'_>,
) -> Result<Outcome, CliError> {
    let key =
        if args.no_ssh_key { None } else { keys::choose(args.ssh_key.as_deref(), around, screen)? };
    if let Some(kept) = &around.kept {
        kept.forget_stale(jiff::Timestamp::now().as_second());
    }
    let order = NewMachine {
        image: args.image.clone(),
        memory: args.memory,
        vcpus: args.vcpus,
        ttl: args.ttl,
        ssh_public_key: key.as_ref().map(|key| key.public.clone()),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
    };
    let begun = Instant::now();
    let created = listen(&begin(client, order), begun, screen);
    screen.clear();
    let created = created.map_err(|error| explain(error, client))?;
    let mut record = record(&created, key.as_ref(), client);
    let destination = Destination::find(&created.machine, Some(&record), client, around);
    if args.save_password {
        record.password = Some(Password(created.password.clone()));
    }
    let kept_in = keep(&record, around, screen);
    let identity_file = record.identity_file.as_deref();
    let destination = match destination {
        Ok(destination) => Some(destination),
        Err(error) => {
            screen.note(&format!("warning: {error}"));
            None
        }
    };
    if screen.json {
        let with_program = |arguments| [vec!["ssh".to_owned()], arguments].concat();
        let ssh = destination.and_then(|way| way.arguments().ok()).map(with_program);
        let kept_in = kept_in.as_deref();
        screen.value(&Created { created: &created, identity_file, ssh, kept_in })?;
    } else {
        tell(&created, destination.as_ref(), args, begun.elapsed(), screen)?;
    }
    Ok(Outcome::Fine)
}

/// Asks in a thread of its own, so that the time can be told in between.
fn begin(client: &Client, order: NewMachine) -> Receiver<Result<Creating, ClientError>> {
    let (tell, heard) = sync_channel(1);
    let client = client.clone();
    // Not joined: it ends with its last word.
    std::thread::spawn(move || {
        let mut creation = match client.create_machine(&order) {
            Ok(creation) => creation,
            Err(error) => {
                let _ = tell.send(Err(error));
                return;
            }
        };
        loop {
            let news = creation.wait();
            let goes_on = matches!(news, Ok(Creating::Step(_)));
            if tell.send(news).is_err() || !goes_on {
                return;
            }
        }
    });
    heard
}

/// Tells the steps until the machine is there.
fn listen(
    heard: &Receiver<Result<Creating, ClientError>>,
    begun: Instant,
    screen: &mut Screen<'_>,
) -> Result<CreatedMachine, ClientError> {
    let mut doing = "asking";
    loop {
        let tenths = begun.elapsed().as_millis() / 100;
        screen.progress(&format!("{doing} … {}.{} s", tenths / 10, tenths % 10));
        match heard.recv_timeout(TICK) {
            Ok(Ok(Creating::Step(step))) => {
                doing = match step {
                    Step::Queued => "queued behind others",
                    Step::Starting => "starting",
                    Step::SettingUp => "setting up",
                };
            }
            Ok(Ok(Creating::Done(created))) => return Ok(*created),
            Ok(Err(error)) => return Err(error),
            Err(RecvTimeoutError::Timeout) => {}
            // The thread says a last word, whatever happens.
            Err(RecvTimeoutError::Disconnected) => {
                return Err(ClientError::CannotConnect {
                    url: String::new(),
                    why: "the call ended without an answer".to_owned(),
                });
            }
        }
    }
}

/// The error with what helps: who holds the places, or that this server lends no machines.
fn explain(error: ClientError, client: &Client) -> CliError {
    let ClientError::Refused { status: 429 | 503, .. } = &error else {
        return super::explain_absence(error, client);
    };
    // Why there are no places is worth a second question, and not a second error.
    let Ok(found) = client.machines() else { return error.into() };
    let is_full =
        matches!(error, ClientError::Refused { status: 429, .. }) || found.available == Some(0);
    if !is_full || found.machines.is_empty() {
        return error.into();
    }
    let mut text = format!("{error}\nthe places are held by:");
    for machine in found.machines.iter().take(HOLDERS_MAX) {
        let owner = machine.owner.as_deref().unwrap_or("nobody in particular");
        let until =
            machine.expires_at.as_deref().map_or("it is destroyed".into(), shown::written_time);
        text.push_str(&format!("\n  {}  {owner}, until {until}", super::short(&machine.id)));
    }
    if found.machines.len() > HOLDERS_MAX {
        text.push_str(&format!("\n  and {} more", found.machines.len() - HOLDERS_MAX));
    }
    text.push_str("\n`gatehouse machine destroy ID` gives a place back");
    CliError::Refused(text)
}

/// What is remembered, the password left out.
fn record(created: &CreatedMachine, key: Option<&Key>, client: &Client) -> Record {
    let machine = &created.machine;
    let host = if created.host.is_empty() { client.host() } else { created.host.clone() };
    let identity_file = key.and_then(|key| key.identity_file.to_str());
    Record {
        url: client.base_url().to_owned(),
        id: machine.id.clone(),
        host,
        port: created.port,
        username: created.username.clone(),
        token: created.token.clone(),
        password: None,
        host_key: machine.host_key.clone(),
        host_key_fingerprint: machine.host_key_fingerprint.clone(),
        identity_file: identity_file.map(str::to_owned),
        expires_at: machine.expires_at.clone(),
    }
}

/// Keeps the record; gives the file. The machine is there whether or not that succeeds.
fn keep(record: &Record, around: &Surroundings<'_>, screen: &mut Screen<'_>) -> Option<PathBuf> {
    let kept = around.kept.as_ref()?;
    match kept.store(record) {
        Ok(file) => Some(file),
        Err(error) => {
            screen.note(&format!("warning: the machine is not remembered here: {error}"));
            None
        }
    }
}

fn tell(
    created: &CreatedMachine,
    destination: Option<&Destination>,
    args: &CreateArgs,
    took: Duration,
    screen: &mut Screen<'_>,
) -> Result<(), CliError> {
    let machine = &created.machine;
    let unknown = || "not known to the server; ssh asks about it".to_owned();
    let fields = [
        ("machine", Some(machine.id.clone())),
        ("image", Some(machine.image.clone())),
        ("ssh", destination.map(Destination::short)),
        ("or", destination.map(|_| format!("gatehouse machine ssh {}", super::short(&machine.id)))),
        // Where nothing better can be said, this is enough to find it.
        ("user", destination.is_none().then(|| created.username.clone())),
        ("port", destination.is_none().then(|| created.port.to_string())),
        ("password", Some(created.password.expose().to_owned())),
        ("host key", Some(machine.host_key_fingerprint.clone().unwrap_or_else(unknown))),
        ("until", machine.expires_at.as_deref().map(shown::written_time)),
    ];
    super::report::fields(screen, fields)?;
    if !args.save_password {
        screen.note("the password is told this once; --save-password would have kept it");
    }
    screen.note(&format!("ready in {}.{:03} s", took.as_secs(), took.subsec_millis()));
    Ok(())
}
