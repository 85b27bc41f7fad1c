//! Disks that are full, files that are locked or damaged, and many who write at once.

use std::sync::mpsc;

use super::*;

/// Keeps the writer busy until the answer is dropped: what is submitted meanwhile becomes one batch.
fn hold(database: &Database) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let job = move |_: &Connection| {
        begun.send(()).unwrap();
        let _ = released.recv();
        Ok(())
    };
    database.append(job, |outcome| outcome.unwrap());
    has_begun.recv().unwrap();
    release
}

fn add_long(database: &Database, n: usize) -> Ack<i64> {
    add(database, &format!("{n} {}", "x".repeat(2000)))
}

fn limit_pages(database: &Database, pages: u32) {
    let limit = move |tx: &Connection| {
        tx.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
    };
    database.write(limit).wait().unwrap();
}

#[test]
fn acknowledgements_come_in_order_and_after_what_they_acknowledge_can_be_read() {
    const THREADS: usize = 8;
    const EACH: usize = 100;
    let setup = Setup::new();
    let database = setup.open();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (database, tell) = (database.clone(), tell.clone());
            scope.spawn(move || {
                for n in 0..EACH {
                    let (reader, tell) = (database.clone(), tell.clone());
                    let insert = move |tx: &Connection| {
                        tx.execute("INSERT INTO notes(text) VALUES (?1)", [format!("{thread} {n}")])
                    };
                    let then = move |outcome: Result<usize, DatabaseError>| {
                        outcome.unwrap();
                        assert!(texts(&reader).contains(&format!("{thread} {n}")));
                        tell.send((thread, n)).unwrap();
                    };
                    database.append(insert, then);
                }
            });
        }
    });
    drop(tell);
    let order: Vec<String> = told.iter().map(|(thread, n)| format!("{thread} {n}")).collect();
    assert_eq!(order.len(), THREADS * EACH);
    assert_eq!(order, texts(&database), "told in the order in which they were written");
    for thread in 0..THREADS {
        let own: Vec<&String> =
            order.iter().filter(|it| it.starts_with(&format!("{thread} "))).collect();
        let sent: Vec<String> = (0..EACH).map(|n| format!("{thread} {n}")).collect();
        assert_eq!(own, sent.iter().collect::<Vec<_>>());
    }
}

#[test]
fn many_writes_share_one_transaction() {
    let setup = Setup::new();
    let database = setup.open();
    let other = Connection::open(setup.path()).unwrap();
    let commits =
        || other.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0)).unwrap();
    let release = hold(&database);
    let acks: Vec<_> = (0..1000).map(|n| add(&database, &n.to_string())).collect();
    let before = commits();
    drop(release);
    for ack in acks {
        ack.wait().unwrap();
        // All or nothing: whoever looks after the first has been told sees the last.
        assert_eq!(texts(&database).len(), 1000);
    }
    assert!(commits() > before);
}

#[test]
fn a_full_disk_fails_the_batch_that_met_it_and_nothing_that_was_acknowledged() {
    let setup = Setup::new();
    let database = setup.open();
    for n in 0..20 {
        add_long(&database, n).wait().unwrap();
    }
    limit_pages(&database, 1);
    let release = hold(&database);
    let acks: Vec<_> = (20..60).map(|n| add_long(&database, n)).collect();
    drop(release);
    for ack in acks {
        let outcome = ack.wait();
        assert!(matches!(outcome, Err(DatabaseError::Full)), "{outcome:?}");
    }
    assert_eq!(texts(&database).len(), 20);
    limit_pages(&database, 100_000);
    add_long(&database, 60).wait().unwrap();
    assert_eq!(texts(&database).len(), 21, "it goes on when there is room");
}

#[test]
fn a_lock_that_is_held_too_long_fails_writes_and_no_reads() {
    let setup = Setup::new();
    let database = setup.open();
    add(&database, "before").wait().unwrap();
    let other = Connection::open(setup.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; INSERT INTO notes(text) VALUES ('other')").unwrap();
    let outcome = add(&database, "refused").wait();
    assert!(matches!(outcome, Err(DatabaseError::Locked)), "{outcome:?}");
    assert_eq!(texts(&database), ["before"]);
    other.execute_batch("COMMIT").unwrap();
    add(&database, "after").wait().unwrap();
    assert_eq!(texts(&database), ["before", "other", "after"]);
}

#[test]
fn a_damaged_page_is_an_error_for_who_needs_it_and_no_copy_of_it_is_taken_back() {
    let setup = Setup::new();
    let database = setup.open();
    for n in 0..200 {
        add_long(&database, n).wait().unwrap();
    }
    let sound = setup.directory.path().join("sound.db");
    back_up(&setup.path(), &sound).unwrap();
    drop(database);
    let damaged = setup.directory.path().join("damaged.db");
    let mut bytes = std::fs::read(setup.path()).unwrap();
    // Pages of the table and of its index lie there.
    let pages = bytes.len() / 4096;
    bytes[pages / 4 * 4096..pages / 2 * 4096].fill(0xa5);
    std::fs::write(&damaged, &bytes).unwrap();

    let refused = restore(&damaged, &setup.path()).unwrap_err();
    assert!(matches!(refused, DatabaseError::Corrupt { .. }), "{refused}");
    assert_eq!(texts(&setup.open()).len(), 200, "what was there is there still");

    std::fs::write(setup.path(), &bytes).unwrap();
    let database = setup.open();
    let count = |c: &Connection| {
        c.query_row("SELECT sum(length(text)) FROM notes", [], |row| row.get::<_, i64>(0))
    };
    let refused = database.read_now(count).unwrap_err();
    assert!(refused.to_string().contains("malformed"), "{refused}");
    assert!(back_up(&setup.path(), &setup.directory.path().join("copy.db")).is_err());
    drop(database);
    restore(&sound, &setup.path()).unwrap();
    assert_eq!(texts(&setup.open()).len(), 200);
}

#[test]
fn what_was_submitted_is_written_although_nobody_waits_and_the_database_is_closed() {
    let setup = Setup::new();
    let database = setup.open();
    let release = hold(&database);
    for n in 0..100 {
        drop(add(&database, &n.to_string()));
    }
    drop(release);
    drop(database);
    assert_eq!(texts(&setup.open()).len(), 100);
}

#[test]
fn a_job_or_an_answer_that_panics_leaves_the_others_an_answer() {
    let setup = Setup::new();
    let database = setup.open();
    let release = hold(&database);
    let before = add(&database, "before");
    let panics = database.write(|_| -> Result<(), rusqlite::Error> { panic!("on purpose") });
    drop(release);
    assert!(panics.wait().is_err());
    assert!(before.wait().is_err(), "its batch was not committed");
    database.append(|_| Ok(()), |_| panic!("on purpose"));
    add(&database, "after").wait().unwrap();
    assert_eq!(texts(&database), ["after"]);
}

#[test]
fn more_writes_than_may_wait_are_refused_at_once() {
    let setup = Setup::new();
    let database = setup.open();
    let release = hold(&database);
    let mut refused = None;
    let mut waiting = None;
    for n in 0..200_000 {
        let (tell, told) = mpsc::channel();
        database.append(|_| Ok(()), move |outcome| drop(tell.send(outcome)));
        // Who may wait is not told as long as the writer is held.
        if let Ok(outcome) = told.try_recv() {
            refused = Some((n, outcome));
            break;
        }
        waiting = Some(told);
    }
    assert!(matches!(refused, Some((100_000, Err(DatabaseError::Busy)))), "{refused:?}");
    drop(release);
    waiting.unwrap().recv().unwrap().unwrap();
    add(&database, "goes on").wait().unwrap();
}
