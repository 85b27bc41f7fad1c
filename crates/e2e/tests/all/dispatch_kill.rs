//! The server killed at random moments under load, and the books of everyone who was told
//! something: no acknowledged task, result or event is lost or comes twice.
//!
//! `SEED` repeats the moments of a run, `KILLS` sets how many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use e2e::{Caller, Chance, Dispatch, Link, Outcome, Setup, free_port};
use serde_json::{Value, json};

/// Killed so often, unless [`PATIENCE`] ends first.
const KILLS: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(75);
/// The longest life of a server, in milliseconds.
const LIFE_MS_MAX: u64 = 350;
/// These two speak the documented protocol; the third takes its tasks by lease.
const PLAIN: [&str; 2] = ["a", "b"];
const LEASED: &str = "c";

/// What ends first those who make work, then those who do it.
#[derive(Default)]
struct Closing {
    work: AtomicBool,
    all: AtomicBool,
}

/// One task that was acknowledged.
#[derive(Debug)]
struct Sent {
    id: String,
    agent: &'static str,
    body: Value,
    /// The result that the waiting admin was told.
    heard: Option<Value>,
}

/// One admin's: sends tasks, mostly waiting for them; gives those that were acknowledged.
fn send(mut link: Link, me: usize, mut chance: Chance, closing: &Closing) -> Vec<Sent> {
    let mut sent = Vec::new();
    for n in 0.. {
        if closing.work.load(Ordering::Relaxed) {
            break;
        }
        let agent = [PLAIN[0], PLAIN[1], LEASED][usize::try_from(chance.below(3)).unwrap()];
        let mode = if chance.below(4) == 0 { "noWait=1" } else { "timeout=1" };
        let body = json!({"by": me, "n": n});
        let path = format!("/tasks?target={agent}&{mode}");
        let Outcome::Answered(reply) = link.ask("POST", &path, &body) else { continue };
        if reply.status == 503 {
            continue;
        }
        let said = reply.ok();
        let id = said["id"].as_str().unwrap_or_else(|| panic!("no id in {said}")).to_owned();
        let heard = said.get("result").filter(|result| !result.is_null()).cloned();
        sent.push(Sent { id, agent, body, heard });
    }
    sent
}

/// What an agent was given and what it told.
#[derive(Debug, Default)]
struct Done {
    /// Every task whose whole answer was read, in order.
    given: Vec<(String, Value)>,
    /// The results that were acknowledged.
    told: BTreeMap<String, Value>,
}

/// An agent's: takes tasks one after the other, tells the result of each until it is taken, and
/// polls again only then.
fn work(mut link: Link, lease: bool, closing: &Closing) -> Done {
    let mut done = Done::default();
    let (path, idle_max) = if lease { ("/tasks?wait=1&lease=2", 4) } else { ("/tasks?wait=1", 2) };
    let mut idle = 0;
    while idle < idle_max {
        let Outcome::Answered(reply) = link.ask("GET", path, &Value::Null) else { continue };
        if reply.status == 503 {
            continue;
        }
        let said = reply.ok();
        let events = said["events"].as_object().unwrap_or_else(|| panic!("no object in {said}"));
        idle = if events.is_empty() && closing.all.load(Ordering::Relaxed) { idle + 1 } else { 0 };
        for (id, body) in events {
            done.given.push((id.clone(), body.clone()));
            let claim = said["claims"][id].as_str();
            let result = json!({"of": body, "claim": claim});
            let claim = claim.map(|claim| format!("&claim={claim}")).unwrap_or_default();
            if tell(&mut link, &format!("/tasks_result?id={id}{claim}"), &result, lease) {
                done.told.insert(id.clone(), result);
            }
        }
    }
    done
}

/// Tells a result until it is taken (`true`) or, with a claim, worth nothing any more.
fn tell(link: &mut Link, path: &str, result: &Value, lease: bool) -> bool {
    loop {
        let Outcome::Answered(reply) = link.ask("POST", path, result) else { continue };
        match reply.status {
            200 => return true,
            409 if lease => return false,
            503 => {}
            status => panic!("{path}: {status} {}", reply.text()),
        }
    }
}

/// An agent's other half: events, one after the other; gives those that were acknowledged, and how
/// many it posted.
fn report(mut link: Link, closing: &Closing) -> Reported {
    let mut told = Vec::new();
    for n in 0.. {
        if closing.work.load(Ordering::Relaxed) {
            return (told, n);
        }
        match link.ask("POST", "/events", &json!(n)) {
            Outcome::Answered(reply) if reply.status == 503 => {}
            Outcome::Answered(reply) => {
                assert_eq!(reply.ok()["msg"], "Event logged");
                told.push(n);
            }
            Outcome::Unknown | Outcome::Unsent => {}
        }
    }
    unreachable!("numbers end")
}

/// The events of an agent that were acknowledged, and how many were posted.
type Reported = (Vec<u64>, u64);

/// Everybody at work.
struct Load {
    closing: Arc<Closing>,
    admins: Vec<JoinHandle<Vec<Sent>>>,
    agents: Vec<(&'static str, JoinHandle<Done>)>,
    reporters: Vec<(&'static str, JoinHandle<Reported>)>,
}

impl Load {
    fn start(address: SocketAddr, token: &str, chance: &mut Chance) -> Self {
        let closing = Arc::new(Closing::default());
        let agent = |name: &str| Link::new(address, &format!("{name}:pw-{name}"));
        let admins = (0..4).map(|me| {
            let (link, closing) = (Link::new(address, token), closing.clone());
            let chance = Chance::of(chance.below(u64::MAX));
            spawn(move || send(link, me, chance, &closing))
        });
        let admins = admins.collect();
        let names = [PLAIN[0], PLAIN[1], LEASED];
        let agents = names.map(|name| {
            let (link, closing) = (agent(name), closing.clone());
            (name, spawn(move || work(link, name == LEASED, &closing)))
        });
        let reporters = names.map(|name| {
            let (link, closing) = (agent(name), closing.clone());
            (name, spawn(move || report(link, &closing)))
        });
        Self { closing, admins, agents: agents.into(), reporters: reporters.into() }
    }

    /// Ends the making of work, lets what there is be done, and gives the books.
    fn finish(self) -> Books {
        self.closing.work.store(true, Ordering::Relaxed);
        let sent = self.admins.into_iter().flat_map(|admin| admin.join().expect("an admin"));
        let sent = sent.collect();
        let reported = self.reporters.into_iter();
        let reported =
            reported.map(|(name, one)| (name, one.join().expect("a reporter"))).collect();
        self.closing.all.store(true, Ordering::Relaxed);
        let agents = self.agents.into_iter();
        let done = agents.map(|(name, agent)| (name, agent.join().expect("an agent"))).collect();
        Books { sent, done, reported }
    }
}

/// Everything that anybody was told.
struct Books {
    sent: Vec<Sent>,
    done: BTreeMap<&'static str, Done>,
    reported: BTreeMap<&'static str, Reported>,
}

impl Books {
    fn check(&self, admin: &Caller) {
        let ids: BTreeSet<_> = self.sent.iter().map(|sent| &sent.id).collect();
        assert_eq!(ids.len(), self.sent.len(), "an id was given twice");
        self.check_deliveries();
        for sent in &self.sent {
            self.check_task(sent, &admin.task(&sent.id));
        }
        for (name, done) in &self.done {
            for (id, result) in &done.told {
                assert_eq!(
                    admin.task(id)["result"],
                    *result,
                    "the result that {name} told of {id}"
                );
            }
        }
        for (name, (told, posted)) in &self.reported {
            check_events(&events(admin, name), told, *posted, name);
        }
    }

    fn check_deliveries(&self) {
        for (name, done) in &self.done {
            let mut given: BTreeMap<&str, u32> = BTreeMap::new();
            for (id, _) in &done.given {
                *given.entry(id).or_default() += 1;
            }
            for (id, times) in &given {
                assert!(*times == 1 || *name == LEASED, "{id} was given to {name} {times} times");
            }
            // One request makes one task, also when its answer was lost.
            let bodies: BTreeSet<_> = done.given.iter().map(|(_, body)| body.to_string()).collect();
            assert_eq!(bodies.len(), given.len(), "{name} was given a task under two ids");
            for sent in self.sent.iter().filter(|sent| sent.agent == *name) {
                let found = done.given.iter().find(|(id, _)| *id == sent.id);
                let body = found.map(|(_, body)| body);
                assert_eq!(body, Some(&sent.body), "what {name} was given as {}", sent.id);
            }
        }
    }

    fn check_task(&self, sent: &Sent, task: &Value) {
        assert_eq!(
            (&task["state"], &task["agent"]),
            (&json!("done"), &json!(sent.agent)),
            "{task}"
        );
        assert_eq!((&task["body"], &task["result"]["of"]), (&sent.body, &sent.body), "{task}");
        if let Some(heard) = &sent.heard {
            assert_eq!(task["result"], *heard, "what the admin was told of {}", sent.id);
        }
    }

    fn tell(&self, kills: u64) -> String {
        let results: usize = self.done.values().map(|done| done.told.len()).sum();
        let events: usize = self.reported.values().map(|(told, _)| told.len()).sum();
        let tasks = self.sent.len();
        let enough = usize::try_from(kills).unwrap();
        assert!(tasks > enough && results > enough && events > enough, "hardly any load");
        format!("{tasks} tasks, {results} results, {events} events")
    }
}

/// All events of an agent, page by page.
fn events(admin: &Caller, name: &str) -> Vec<u64> {
    let (mut found, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let path = format!("/events?agent={name}&after={after}&limit=500&details=1");
        let said = admin.get(&path).ok();
        let page = said["details"].as_array().unwrap_or_else(|| panic!("no array in {said}"));
        let Some(last) = page.last() else { return found };
        after = last["id"].as_str().unwrap().to_owned();
        found.extend(page.iter().map(|detail| detail["event"].as_u64().unwrap()));
    }
}

fn check_events(found: &[u64], told: &[u64], posted: u64, name: &str) {
    let sorted = found.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(sorted, "{name}'s events are out of order or twice: {found:?}");
    assert!(found.last().is_none_or(|last| *last < posted), "{name}: {found:?}");
    let known: BTreeSet<_> = found.iter().collect();
    let lost: Vec<_> = told.iter().filter(|n| !known.contains(n)).collect();
    assert!(lost.is_empty(), "{name}'s events are lost: {lost:?}");
}

fn server() -> Dispatch {
    let setup = Setup::new()
        .set("network", "port", &free_port().to_string())
        .set("log", "level", "warn")
        .set("tasks", "events_max", "1000000")
        .set("tasks", "queue_max", "1000000")
        .set("tasks", "attempts_max", "1000");
    Dispatch::serve(setup)
}

#[test]
fn nothing_acknowledged_is_lost_or_comes_twice_however_often_it_is_killed() {
    let (mut chance, seed) = Chance::of_today();
    println!("SEED={seed}");
    let wanted = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut server = server();
    let token = server.login("root", "pw-root");
    let load = Load::start(server.address(), &token, &mut chance);
    let (began, mut kills) = (Instant::now(), 0);
    while kills < wanted && began.elapsed() < PATIENCE {
        // Not for luck: the moment itself is what is tried.
        sleep(Duration::from_millis(chance.below(LIFE_MS_MAX)));
        match chance.below(8) {
            0 => {
                server.kill_twice(Duration::from_millis(chance.below(80)));
                kills += 2;
            }
            _ => {
                server.kill();
                kills += 1;
            }
        }
    }
    let took = began.elapsed();
    let books = load.finish();
    println!("{kills} kills in {took:?}: {}", books.tell(kills));
    books.check(&server.caller(&token));
    assert!(!server.log().so_far().contains("panicked"), "{}", server.log().so_far());
}
