//! The database as its rooms use it: what is acknowledged, undone, noticed and refused.

mod faults;

use std::time::Duration;

use super::*;

const NOTES: Migrations = Migrations {
    name: "notes",
    steps: &["CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"],
};

struct Setup {
    directory: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("test.db")
    }

    fn open(&self) -> Database {
        Database::open(&self.path(), &[NOTES]).unwrap()
    }
}

fn add(database: &Database, text: &str) -> Ack<i64> {
    let text = text.to_owned();
    database.write(move |tx| {
        tx.execute("INSERT INTO notes(text) VALUES (?1)", [text])?;
        Ok(tx.last_insert_rowid())
    })
}

fn texts(database: &Database) -> Vec<String> {
    let read = |c: &Connection| {
        c.prepare("SELECT text FROM notes ORDER BY id")?.query_map([], |r| r.get(0))?.collect()
    };
    database.read_now(read).unwrap()
}

#[test]
fn what_was_acknowledged_is_there_after_a_new_start() {
    let setup = Setup::new();
    let database = setup.open();
    let acks: Vec<_> = (0..100).map(|n| add(&database, &n.to_string())).collect();
    for ack in acks {
        ack.wait().unwrap();
    }
    assert_eq!(texts(&database).len(), 100);
    drop(database);
    let numbers: Vec<_> = (0..100).map(|n: i32| n.to_string()).collect();
    assert_eq!(texts(&setup.open()), numbers);
}

#[test]
fn a_job_that_fails_undoes_itself_alone() {
    let setup = Setup::new();
    let database = setup.open();
    let first = add(&database, "kept");
    let failing = database.write(|tx| {
        tx.execute("INSERT INTO notes(text) VALUES ('gone')", [])?;
        tx.execute("INSERT INTO notes(text) VALUES ('kept')", [])
    });
    let last = add(&database, "kept too");
    first.wait().unwrap();
    assert!(matches!(failing.wait(), Err(DatabaseError::Constraint(_))));
    last.wait().unwrap();
    assert_eq!(texts(&database), ["kept", "kept too"]);
}

#[test]
fn another_process_is_noticed_and_we_are_not() {
    let setup = Setup::new();
    let database = setup.open();
    let other = setup.open();
    let mut changes = database.watch_foreign_changes();
    add(&database, "ours").wait().unwrap();
    // The other's own counter tells that the commit has been looked at by then.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        add(&other, "theirs").await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), changes.changed()).await.unwrap().unwrap();
    });
    assert_eq!(database.foreign_changes(), 1);
}

#[test]
fn a_newer_file_and_a_strange_one_are_refused_and_left_alone() {
    let setup = Setup::new();
    drop(setup.open());
    let older = Migrations { name: "notes", steps: &[] };
    let refused = Database::open(&setup.path(), &[older]).unwrap_err();
    assert!(matches!(refused, DatabaseError::TooNew { found: 1, known: 0, .. }), "{refused}");

    let strange = setup.directory.path().join("strange.db");
    Connection::open(&strange).unwrap().execute_batch("CREATE TABLE other(x)").unwrap();
    let refused = Database::open(&strange, &[NOTES]).unwrap_err();
    assert!(refused.to_string().contains("another program"), "{refused}");

    let noise = setup.directory.path().join("noise.db");
    std::fs::write(&noise, "x".repeat(5000)).unwrap();
    let refused = Database::open(&noise, &[NOTES]).unwrap_err();
    assert!(matches!(refused, DatabaseError::Corrupt { .. }), "{refused}");
    assert_eq!(std::fs::read(&noise).unwrap().len(), 5000);
}

#[test]
fn a_backup_of_a_database_in_use_is_brought_back_when_it_is_not() {
    let setup = Setup::new();
    let database = setup.open();
    add(&database, "early").wait().unwrap();
    let copy = setup.directory.path().join("copy.db");
    back_up(&setup.path(), &copy).unwrap();
    assert!(back_up(&setup.path(), &copy).is_err(), "a copy is never overwritten");
    add(&database, "late").wait().unwrap();
    let refused = restore(&copy, &setup.path()).unwrap_err();
    assert!(refused.to_string().contains("test.db cannot be opened"), "{refused}");
    assert_eq!(texts(&database), ["early", "late"]);
    drop(database);
    restore(&copy, &setup.path()).unwrap();
    assert_eq!(texts(&setup.open()), ["early"]);
}

#[test]
fn what_lies_beside_a_database_goes_when_a_copy_takes_its_place() {
    let setup = Setup::new();
    drop(setup.open());
    let copy = setup.path().with_file_name("copy");
    back_up(&setup.path(), &copy).unwrap();
    let claims = setup
        .path()
        .with_file_name(setup.path().file_name().unwrap().to_str().unwrap().to_owned() + "-claims");
    std::fs::write(&claims, "task 7 was handed out").unwrap();
    restore(&copy, &setup.path()).unwrap();
    assert!(!claims.exists(), "tasks of the copy would be taken for those that it speaks of");
}

#[test]
fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let setup = Setup::new();
    drop(setup.open());
    assert_eq!(std::fs::metadata(setup.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Adds `text` with a rider that adds `other`; gives what is there then.
#[track_caller]
fn check_ride(text: &'static str, other: &'static str, expected: &[&str]) {
    let setup = Setup::new();
    let database = setup.open();
    add(&database, "taken").wait().unwrap();
    let put =
        |text| move |tx: &Connection| tx.execute("INSERT INTO notes(text) VALUES (?1)", [text]);
    let rider: Rider = Box::new(move |tx| put(other)(tx).map(drop));
    let (tell, told) = std::sync::mpsc::channel();
    database.append_with(put(text), Some(rider), move |outcome| tell.send(outcome).unwrap());
    let after = add(&database, "after");
    assert_eq!(told.recv().unwrap().is_ok(), expected.len() > 2);
    after.wait().unwrap();
    assert_eq!(texts(&database), expected);
}

#[test]
fn a_change_and_what_rides_with_it_are_kept_both_or_neither() {
    check_ride("change", "rider", &["taken", "change", "rider", "after"]);
    check_ride("change", "taken", &["taken", "after"]);
    check_ride("taken", "rider", &["taken", "after"]);
}
