//! The table of webhooks.

use ::tasks::EventId;
use database::Migrations;
use database::rusqlite::types::Type;
use database::rusqlite::{self, Connection};
use wire::Secret;

use super::{Address, Fare, Filter, New, WEBHOOKS_MAX, Webhook};

/// The table.
pub const MIGRATIONS: Migrations = Migrations { name: "webhooks", steps: &[FIRST] };

// The secret is needed to sign, so it is not hashed. The file is its owner's alone.
const FIRST: &str = "
CREATE TABLE webhooks(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    url TEXT NOT NULL,
    secret TEXT NOT NULL,
    agents TEXT NOT NULL,                       -- JSON: a list of names and beginnings with *; empty is all
    created_at INTEGER NOT NULL,                -- milliseconds since 1970
    delivered_to INTEGER NOT NULL               -- the number of an event
) STRICT;
";

/// A new row.
pub(super) struct Row {
    url: String,
    secret: Secret,
    agents: String,
    created_at: u64,
    delivered_to: u64,
}

impl Row {
    pub(super) fn of(new: &New, created_at: u64, delivered_to: EventId) -> Self {
        Self {
            url: new.address.url().to_owned(),
            secret: new.secret.clone(),
            agents: serde_json::Value::from(new.filter.patterns()).to_string(),
            created_at,
            delivered_to: delivered_to.0,
        }
    }
}

/// Adds it, unless there are enough.
pub(super) fn insert(tx: &Connection, row: &Row) -> Result<Option<i64>, rusqlite::Error> {
    let Row { url, secret, agents, created_at, delivered_to } = row;
    let added = tx.execute(
        "INSERT INTO webhooks(url, secret, agents, created_at, delivered_to)
         SELECT ?1, ?2, ?3, ?4, ?5 WHERE (SELECT count(*) FROM webhooks) < ?6",
        (url, secret.expose(), agents, created_at, delivered_to, WEBHOOKS_MAX),
    )?;
    Ok((added > 0).then(|| tx.last_insert_rowid()))
}

/// Removes one; returns whether it was there.
pub(super) fn delete(tx: &Connection, id: i64) -> Result<bool, rusqlite::Error> {
    Ok(tx.execute("DELETE FROM webhooks WHERE id = ?1", [id])? > 0)
}

/// Notes how far one has come.
pub(super) fn note(tx: &Connection, id: i64, delivered_to: EventId) -> Result<(), rusqlite::Error> {
    let sql = "UPDATE webhooks SET delivered_to = max(delivered_to, ?2) WHERE id = ?1";
    tx.prepare_cached(sql)?.execute((id, delivered_to.0)).map(drop)
}

/// All of them.
pub(super) fn all(connection: &Connection) -> Result<Vec<Webhook>, rusqlite::Error> {
    let sql = "SELECT id, url, secret, agents, created_at, delivered_to FROM webhooks ORDER BY id";
    connection.prepare(sql)?.query_map([], webhook)?.collect()
}

fn webhook(row: &rusqlite::Row<'_>) -> Result<Webhook, rusqlite::Error> {
    let agents: String = row.get(3)?;
    let agents = serde_json::from_str(&agents).map_err(|error| wrong(3, error))?;
    let fare = Fare { delivered_to: EventId(row.get(5)?), last_error: None, failing_since: None };
    Ok(Webhook {
        id: row.get(0)?,
        address: Address::parse(row.get_ref(1)?.as_str()?).map_err(|error| wrong(1, error))?,
        secret: Secret::new(row.get::<_, String>(2)?),
        filter: Filter::new(agents).map_err(|error| wrong(3, error))?,
        created_at: row.get(4)?,
        fare: fare.into(),
    })
}

fn wrong(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u64, agents: &[&str]) -> Row {
        let new = New {
            address: Address::parse(&format!("https://x.example/{n}?key=1")).unwrap(),
            secret: Secret::new("s"),
            filter: Filter::new(agents.iter().map(ToString::to_string).collect()).unwrap(),
        };
        Row::of(&new, 5, EventId(n))
    }

    fn table() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(FIRST).unwrap();
        connection
    }

    #[test]
    fn a_webhook_is_found_again_as_it_was_stored() {
        let table = table();
        assert_eq!(insert(&table, &row(7, &["a", "b,*"])).unwrap(), Some(1));
        assert_eq!(insert(&table, &row(8, &[])).unwrap(), Some(2));
        note(&table, 1, EventId(20)).unwrap();
        note(&table, 1, EventId(10)).unwrap();
        let all = all(&table).unwrap();
        let found: Vec<_> = all
            .iter()
            .map(|it| {
                (
                    it.address.url(),
                    it.secret.expose(),
                    it.filter.patterns().len(),
                    it.fare().delivered_to.0,
                )
            })
            .collect();
        let expected =
            [("https://x.example/7?key=1", "s", 2, 20), ("https://x.example/8?key=1", "s", 0, 8)];
        assert_eq!(found, expected);
        assert!(all[0].filter.wants("b,c"));
    }

    #[test]
    fn there_is_a_limit_and_no_number_comes_again() {
        let table = table();
        for n in 0..WEBHOOKS_MAX as u64 {
            assert!(insert(&table, &row(n, &[])).unwrap().is_some());
        }
        assert_eq!(insert(&table, &row(0, &[])).unwrap(), None);
        assert!(delete(&table, 64).unwrap() && !delete(&table, 64).unwrap());
        assert_eq!(insert(&table, &row(0, &[])).unwrap(), Some(65));
    }
}
