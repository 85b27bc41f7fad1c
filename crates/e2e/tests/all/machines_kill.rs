//! The server is killed at any moment: what a client was told is true afterwards, and nothing else is left.
//!
//! `GATEHOUSE_KILLS` says how often; `SEED`, told by a failure, repeats its moments.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use e2e::lending::{id, port, text};
use e2e::{Chance, Connection, Lending, Link, Outcome, Signal, wait_until};
use serde_json::{Value, json};

const KILLS: u32 = 12;
/// Who asks for machines at the same time.
const CLIENTS: u64 = 3;

/// What clients know for certain, and what nobody knows.
#[derive(Debug, Default)]
struct Books {
    /// Lent, and not asked back.
    lent: BTreeMap<String, Value>,
    /// Asked back, without an answer.
    unsure: Vec<String>,
    /// Asked back, and gone.
    gone: Vec<String>,
}

/// Asks for machines and gives them back until it is told to stop.
fn borrow(address: SocketAddr, mut chance: Chance, books: &Mutex<Books>, stop: &AtomicBool) {
    let mut link = Link::new(address, "");
    while !stop.load(Ordering::Relaxed) {
        let mine = {
            let books = books.lock().unwrap();
            let at = usize::try_from(chance.below(4)).unwrap();
            books.lent.keys().nth(at).cloned()
        };
        // What is to be given back is struck off first: once asked, nobody may count on it.
        let taken = mine.and_then(|id| books.lock().unwrap().lent.remove(&id));
        match taken {
            Some(lent) if chance.below(2) == 0 => give_back(&mut link, lent, books),
            Some(lent) => {
                books.lock().unwrap().lent.insert(id(&lent), lent);
                ask(&mut link, books);
            }
            None => ask(&mut link, books),
        }
    }
}

fn ask(link: &mut Link, books: &Mutex<Books>) {
    match link.ask("POST", "/machines", &json!({})) {
        Outcome::Answered(reply) if reply.status == 201 => {
            let lent = reply.json();
            books.lock().unwrap().lent.insert(id(&lent), lent);
        }
        Outcome::Answered(reply) => {
            // Full, or about to end.
            assert_eq!(reply.status, 503, "{}", reply.text());
            sleep(Duration::from_millis(20));
        }
        Outcome::Unknown | Outcome::Unsent => {}
    }
}

fn give_back(link: &mut Link, lent: Value, books: &Mutex<Books>) {
    let id = id(&lent);
    let outcome = link.ask("DELETE", &format!("/machines/{id}"), &json!({}));
    let mut books = books.lock().unwrap();
    match outcome {
        Outcome::Answered(reply) if reply.status == 200 => books.gone.push(id),
        Outcome::Answered(reply) => panic!("{id}: {} {}", reply.status, reply.text()),
        Outcome::Unknown => books.unsure.push(id),
        Outcome::Unsent => drop(books.lent.insert(id, lent)),
    }
}

fn load(lending: &Lending, chance: &mut Chance, books: &Arc<Mutex<Books>>) -> Load {
    let stop = Arc::new(AtomicBool::new(false));
    let clients = (0..CLIENTS).map(|_| {
        let (books, stop) = (Arc::clone(books), Arc::clone(&stop));
        let (address, chance) = (lending.address(), Chance::of(chance.below(u64::MAX)));
        spawn(move || borrow(address, chance, &books, &stop))
    });
    let clients = clients.collect();
    Load { stop, clients }
}

struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client");
        }
    }
}

/// After a restart: the machines that clients know are there, others whole or not at all.
fn check(lending: &Lending, books: &mut Books, enter: bool) {
    let listed = wait_until("every machine to be ready or gone", || {
        let list = lending.get_json("/machines")["machines"].as_array().cloned().unwrap();
        list.iter().all(|machine| machine["state"] == "ready").then_some(list)
    });
    let listed: BTreeMap<String, Value> =
        listed.into_iter().map(|machine| (text(&machine["id"]), machine)).collect();
    for (id, lent) in &books.lent {
        let machine = listed.get(id).unwrap_or_else(|| {
            panic!("{id} was lent and is lost\n{}", lending.log().so_far());
        });
        assert_eq!(machine["port"], lent["port"], "{id} has moved");
        assert_eq!(machine["expires_at"], lent["machine"]["expires_at"], "{id}");
    }
    for id in &books.gone {
        assert!(!listed.contains_key(id), "{id} was given back and is there again");
    }
    // Of machines whose client was never told nobody can say more than that they are whole.
    let known = |ids: Vec<String>| ids.iter().all(|id| listed.contains_key(id));
    assert!(known(lending.folders().into_iter().collect()), "{:?}", lending.folders());
    wait_until("no process without a machine", || {
        (lending.qemu().len() == listed.len()).then_some(())
    });
    for id in listed.keys() {
        let _ = lending.qemu_of(id);
    }
    let mut expected: Vec<u16> = listed.values().map(port).collect();
    expected.push(lending.address().port());
    expected.sort_unstable();
    assert_eq!(lending.ports(), expected);
    assert_eq!(lending.available() + listed.len() as u64, 6);
    if enter {
        for (id, lent) in &books.lent {
            let guest = lending.enter(lent).unwrap_or_else(|| panic!("{id} lets nobody in"));
            assert_eq!(guest.run("id -un").0.trim(), text(&lent["username"]), "{id}");
        }
    }
    // The places of those that nobody knows are freed, so that there is always work.
    for id in listed.keys().filter(|id| !books.lent.contains_key(*id)) {
        let _ = lending.request("DELETE", &format!("/machines/{id}")).send().ok();
    }
    books.unsure.clear();
}

#[test]
fn a_server_that_is_killed_at_any_moment_keeps_what_it_promised_and_nothing_else() {
    let kills = std::env::var("GATEHOUSE_KILLS").ok().and_then(|it| it.parse().ok());
    let kills = kills.unwrap_or(KILLS);
    let (mut chance, seed) = Chance::of_today();
    println!("SEED={seed}");
    let mut lending = Lending::start();
    // The snapshot is made first, so that the kills meet clones.
    let first = lending.lend_any();
    let books = Arc::new(Mutex::new(Books::default()));
    books.lock().unwrap().lent.insert(id(&first), first);
    for kill in 1..=kills {
        let load = load(&lending, &mut chance, &books);
        sleep(Duration::from_millis(100 + chance.below(3400)));
        lending.restart_then(Signal::KILL, || load.end());
        check(&lending, &mut books.lock().unwrap(), kill % 3 == 0 || kill == kills);
    }
    let books = std::mem::take(&mut *books.lock().unwrap());
    println!("{} were given back, {} are still lent", books.gone.len(), books.lent.len());
    assert!(books.gone.len() + books.lent.len() > 3, "hardly anything was done: {books:?}");
    for (id, lent) in books.lent {
        let _ = lending.request("DELETE", &format!("/machines/{id}")).send().ok();
        assert!(Connection::try_open(([127, 0, 0, 1], port(&lent)).into()).is_none(), "{id}");
    }
    lending.wait_for_nothing();
}

#[test]
fn a_server_that_is_killed_while_it_makes_its_first_snapshot_begins_anew() {
    for after in [100, 900, 2500] {
        let mut lending = Lending::start();
        let mut connection = lending.connect();
        connection.write("POST /machines HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        sleep(Duration::from_millis(after));
        lending.restart(Signal::KILL);
        lending.wait_for_nothing();
        let lent = lending.lend_any();
        assert!(lending.enter(&lent).is_some());
        let left = unfinished_snapshots(&lending);
        assert!(left.is_empty(), "of a snapshot that was not finished: {left:?}");
    }
}

fn unfinished_snapshots(lending: &Lending) -> Vec<std::ffi::OsString> {
    let snapshots = std::fs::read_dir(lending.path("m/snapshots")).into_iter().flatten().flatten();
    let names = snapshots.map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with('.')).collect()
}
