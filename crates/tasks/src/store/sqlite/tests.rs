//! The store in a file: the contract, and what is this store's own.

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::store::SharedStore;
use crate::store::contract::{self, Restarting};

/// Opens as soon as the writer of a store that was just dropped has let go of the file.
fn open(path: &Path) -> SqliteStore {
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        let database = Database::open(path, &[MIGRATIONS]).unwrap();
        match SqliteStore::open(database) {
            Ok(store) => return store,
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn it_keeps_the_contract() {
    contract::all(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.db");
        let store = Arc::new(open(&path));
        let reopen = move |store: SharedStore| -> SharedStore {
            let _lives_as_long = &directory;
            assert_eq!(Arc::strong_count(&store), 1);
            drop(store);
            Arc::new(open(&path))
        };
        Restarting::new(store, Box::new(reopen))
    });
}

fn told<T: Send + 'static>(change: impl FnOnce(Then<T>)) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    change(Box::new(move |outcome| tell.send(outcome).unwrap()));
    told.recv().unwrap().unwrap()
}

fn task(id: u64, agent: i64) -> Task {
    Task {
        id: TaskId(id),
        agent: AgentId(agent),
        body: "1".into(),
        priority: 0,
        attempts_max: 1,
        enqueued_at: 1,
        expires_at: None,
        by: "ops".into(),
    }
}

fn ended(id: u64) -> Ending {
    Ending {
        task: TaskId(id),
        outcome: crate::task::Outcome::Done,
        attempts: 1,
        taken_at: None,
        ended_at: 5,
        reason: None,
        result: None,
    }
}

/// One number that SQL gives.
fn ask(store: &SqliteStore, sql: &str) -> u64 {
    store.database.read_now(|c| c.query_row(sql, [], |row| row.get(0))).unwrap()
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::yield_now();
    }
}

/// The end of a task of a removed agent would hold up the dropping of others for ever.
#[test]
fn no_row_is_left_of_a_task_that_was_forgotten_before_it_ended() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("t.db"));
    told(|then| store.add_task(task(1, 1), None, then));
    told(|then| store.forget(AgentId(1), then));
    told(|then| store.end_task(ended(1), None, then));
    told(|then| store.add_output(TaskId(1), 0, "x".into(), 9, then));
    let late = crate::store::Late { task: TaskId(1), claim: None, at: 1, result: "1".into() };
    told(|then| store.add_late(late, then));
    for table in ["tasks", "endings", "outputs", "late_results", "agent_tasks"] {
        assert_eq!(ask(&store, &format!("SELECT count(*) FROM {table}")), 0, "{table}");
    }
}

#[test]
fn what_was_dropped_before_it_was_indexed_does_not_enter_the_index() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("t.db"));
    for id in 1..=300 {
        store.add_task(task(id, 1), None, Box::new(|outcome| outcome.unwrap()));
        told(|then| store.end_task(ended(id), None, then));
    }
    let settings = Settings::default();
    wait_for("old tasks are dropped", || {
        store.keep_house(&settings);
        ask(&store, "SELECT count(*) FROM tasks") == 0
    });
    for id in 301..20_300 {
        store.add_task(task(id, 2), None, Box::new(|outcome| outcome.unwrap()));
    }
    told(|then| store.add_task(task(20_300, 2), None, then));
    wait_for("the index is brought up to date", || {
        store.keep_house(&settings);
        ask(&store, "SELECT count(*) FROM agent_tasks WHERE agent = 2") == 20_000
    });
    assert_eq!(ask(&store, "SELECT count(*) FROM agent_tasks"), 20_000);
    assert_eq!(store.agents().unwrap(), [AgentId(2)]);
}

fn no_rider() -> Rider {
    Box::new(|tx| tx.execute("INSERT INTO nothing VALUES (1)", []).map(drop))
}

#[test]
fn a_task_and_its_end_are_not_kept_without_what_rides_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("t.db"));
    let (tell, told_of) = std::sync::mpsc::channel();
    let heard = tell.clone();
    store.add_task(task(1, 1), Some(no_rider()), Box::new(move |it| heard.send(it).unwrap()));
    assert!(told_of.recv().unwrap().is_err());
    assert_eq!(store.task(TaskId(1)).unwrap(), None);
    let rider: Rider = Box::new(|tx| schema::raise(tx, "ridden", 7));
    told(|then| store.add_task(task(2, 1), Some(rider), then));
    assert_eq!(store.database.read_now(|c| schema::counter(c, "ridden")).unwrap(), 7);
    store.end_task(ended(2), Some(no_rider()), Box::new(move |it| tell.send(it).unwrap()));
    assert!(told_of.recv().unwrap().is_err());
    assert_eq!(store.task(TaskId(2)).unwrap().unwrap().ending, None);
}

#[test]
fn others_write_while_an_agent_with_many_tasks_is_forgotten() {
    const TASKS: u64 = 3000;
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("t.db"));
    for id in 1..=TASKS {
        store.add_task(task(id, 1), None, Box::new(|outcome| outcome.unwrap()));
    }
    let event = |agent| told(|then| store.add_event(AgentId(agent), 1, "1".into(), then));
    let (first, other) = (event(1), event(2));
    let (tell, order) = std::sync::mpsc::channel();
    let heard = tell.clone();
    store.forget(AgentId(1), Box::new(move |it| heard.send(it.map(|()| "forgotten")).unwrap()));
    let heard = tell.clone();
    let late = task(TASKS + 1, 2);
    store.add_task(late, None, Box::new(move |it| heard.send(it.map(|()| "other")).unwrap()));
    let order: Vec<_> = order.iter().take(2).map(Result::unwrap).collect();
    assert_eq!(order, ["other", "forgotten"]);
    assert_eq!(store.agents().unwrap(), [AgentId(2)]);
    assert!((1..=TASKS).all(|id| store.task(TaskId(id)).unwrap().is_none()));
    let query = EventQuery { agent: None, after: EventId(0), limit: 9, newest: true };
    let left: Vec<_> = store.events(&query).unwrap().iter().map(|event| event.id).collect();
    assert!(first < other && left == [other], "{left:?}");
}
