//! Who did what, when, and what came of it.
//!
//! Invariant: the log only grows; the database itself refuses to change a row, and to delete one that is not older than
//! the time for which entries are kept, if there is one. No entry is longer than a few kilobytes, whoever it speaks of.

use std::net::IpAddr;
use std::time::SystemTime;

use database::Rider;
use database::rusqlite::{self, Connection};
use serde::Serialize;

use super::milliseconds;

/// The longest part of an entry, in bytes; what is longer is cut.
const PART_BYTES_MAX: usize = 1024;
/// Entries that are given at once.
pub const PAGE_MAX: u32 = 1000;
/// Entries that are dropped at once.
pub(super) const DROPPED_MAX: usize = 500;

/// Something that was done, or tried.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The name of the account, or what was given for one.
    pub who: &'a str,
    /// Where it came from; `None` for the command line on this machine.
    pub from: Option<IpAddr>,
    /// The kind of act, such as `task.send`.
    pub act: &'a str,
    /// What it was done to.
    pub what: &'a str,
    /// `ok`, or why it was refused.
    pub outcome: &'a str,
}

/// An entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// Its number; later entries have higher ones.
    pub id: i64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// As in [`Entry::who`].
    pub who: String,
    /// As in [`Entry::from`]; `local` for the command line.
    pub from: String,
    /// As in [`Entry::act`].
    pub act: String,
    /// As in [`Entry::what`].
    pub what: String,
    /// As in [`Entry::outcome`].
    pub outcome: String,
}

impl Entry<'_> {
    /// The entry as what is written together with the act that it tells of: both are kept or neither.
    #[must_use]
    pub fn rider(&self) -> Rider {
        let stored = self.prepare(milliseconds(SystemTime::now()));
        Box::new(move |tx| write(tx, &stored))
    }

    /// The same with owned parts, ready to be written.
    pub(super) fn prepare(&self, at: i64) -> Stored {
        let from = self.from.map_or_else(|| "local".to_owned(), |ip| ip.to_canonical().to_string());
        Stored {
            id: 0,
            at,
            who: cut(self.who),
            from,
            act: cut(self.act),
            what: cut(self.what),
            outcome: cut(self.outcome),
        }
    }
}

fn cut(text: &str) -> String {
    if text.len() <= PART_BYTES_MAX {
        return text.to_owned();
    }
    const MARK: char = '…';
    let end = PART_BYTES_MAX - MARK.len_utf8();
    let kept = text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= end);
    kept.map(|(_, c)| c).chain([MARK]).collect()
}

/// Adds it to the log.
pub(super) fn write(connection: &Connection, entry: &Stored) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO audit(at, who, from_address, act, what, outcome)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let Stored { id: _, at, who, from, act, what, outcome } = entry;
    connection.prepare_cached(sql)?.execute((at, who, from, act, what, outcome)).map(drop)
}

/// Drops entries older than `from`, [`DROPPED_MAX`] at most, and says how many. They stand about in the order of their
/// times, so only the first are looked at.
pub(super) fn shorten(connection: &Connection, from: i64) -> Result<usize, rusqlite::Error> {
    let sql = "UPDATE settings SET value = max(value, ?1) WHERE name = 'audit_from'";
    connection.prepare_cached(sql)?.execute([from])?;
    let sql = "DELETE FROM audit WHERE at < ?1
               AND id IN (SELECT id FROM audit ORDER BY id LIMIT ?2)";
    connection.prepare_cached(sql)?.execute((from, DROPPED_MAX))
}

/// Whether there is an entry older than `from` that [`shorten`] would drop.
pub(super) fn is_long(connection: &Connection, from: i64) -> Result<bool, rusqlite::Error> {
    let sql = "SELECT 1 FROM (SELECT at FROM audit ORDER BY id LIMIT ?2) WHERE at < ?1";
    connection.prepare_cached(sql)?.exists((from, DROPPED_MAX))
}

/// At most `limit` entries before the one with the number `before`, the newest first.
pub(super) fn page(
    connection: &Connection,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<Stored>, rusqlite::Error> {
    let sql = "SELECT id, at, who, from_address, act, what, outcome FROM audit WHERE id < ?1
               ORDER BY id DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let values = (before.unwrap_or(i64::MAX), limit.min(PAGE_MAX));
    let rows = statement.query_map(values, |row| {
        Ok(Stored {
            id: row.get(0)?,
            at: row.get(1)?,
            who: row.get(2)?,
            from: row.get(3)?,
            act: row.get(4)?,
            what: row.get(5)?,
            outcome: row.get(6)?,
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::schema::MIGRATIONS;

    fn log() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        for step in MIGRATIONS.steps {
            connection.execute_batch(step).unwrap();
        }
        for (at, what) in [(5, "one"), (3, "two"), (9, "three")] {
            let from = Some("::ffff:192.0.2.1".parse().unwrap());
            let entry = Entry { who: "root", from, act: "task.send", what, outcome: "ok" };
            write(&connection, &entry.prepare(at)).unwrap();
        }
        connection
    }

    #[track_caller]
    fn check(before: Option<i64>, limit: u32, expected: &[(i64, &str)]) {
        let page = page(&log(), before, limit).unwrap();
        let found: Vec<_> = page.iter().map(|entry| (entry.id, &*entry.what)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_newest_come_first_and_pages_follow_each_other() {
        check(None, 2, &[(3, "three"), (2, "two")]);
        check(Some(2), 2, &[(1, "one")]);
        check(Some(1), 2, &[]);
        check(None, 0, &[]);
        let newest = page(&log(), None, 1).unwrap().remove(0);
        let parts = [newest.who, newest.from, newest.act, newest.outcome];
        assert_eq!(
            (newest.at, parts),
            (9, ["root", "192.0.2.1", "task.send", "ok"].map(String::from))
        );
    }

    #[test]
    fn what_was_written_stays_as_it_is() {
        let log = log();
        for sql in [
            "UPDATE audit SET who = 'somebody else'",
            "DELETE FROM audit WHERE id = 1",
            "DELETE FROM audit",
            "INSERT OR REPLACE INTO audit VALUES (1, 1, 'x', 'x', 'x', 'x', 'x')",
        ] {
            let error = log.execute(sql, []).unwrap_err().to_string();
            assert!(error.contains("the audit log only grows"), "{sql}: {error}");
        }
        assert_eq!(page(&log, None, 9).unwrap().len(), 3);
    }

    #[test]
    fn only_what_is_older_than_what_is_kept_goes() {
        let log = log();
        assert!(!is_long(&log, 3).unwrap() && is_long(&log, 6).unwrap());
        assert_eq!(shorten(&log, 6).unwrap(), 2);
        assert_eq!(page(&log, None, 9).unwrap().len(), 1);
        // What was let go once is not asked for again by setting the time back.
        assert_eq!(shorten(&log, 0).unwrap(), 0);
        for sql in ["DELETE FROM audit", "UPDATE audit SET at = 1"] {
            assert!(log.execute(sql, []).is_err(), "{sql}");
        }
        log.execute("DELETE FROM settings WHERE name = 'audit_from'", []).unwrap();
        assert!(log.execute("DELETE FROM audit", []).is_err(), "without the setting nothing goes");
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let what = "é".repeat(PART_BYTES_MAX);
        let entry = Entry { who: "", from: None, act: "", what: &what, outcome: "" };
        let stored = entry.prepare(0);
        assert!(stored.what.len() <= PART_BYTES_MAX && stored.what.ends_with("é…"));
        assert_eq!(stored.from, "local");
    }
}
