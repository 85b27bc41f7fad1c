//! Access tokens: who may ask at all.
//!
//! Invariant: a token is shown once, when it is made; the file holds its SHA-256 alone. The file is the documented one,
//! and is read at every request, so what the command line changes is in force at once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};
use wire::Secret;

/// The tables that programs have made: of the servers since 2.0, and of those before.
const TABLES: [&str; 2] = ["AnweddolServerAccessTokenTable", "AnweddolAccessTokenTable"];
/// Random bytes of a token; 124 characters.
const TOKEN_BYTES: usize = 93;
/// How long another program's write is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file failed.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database failed.
    #[error("{path}: {source}")]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// There is no such entry.
    #[error("there is no access token {0}")]
    NoEntry(i64),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// What is known of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// Its number.
    pub id: i64,
    /// When it was made, in seconds since 1970.
    pub created_at: i64,
    /// Whether it lets in.
    pub is_enabled: bool,
}

/// The file of tokens.
#[derive(Debug)]
pub struct AccessTokens {
    path: PathBuf,
    reader: Mutex<Option<Reader>>,
}

/// A connection that is kept open, to the file that it was opened for.
#[derive(Debug)]
struct Reader {
    connection: Connection,
    file: (u64, u64),
}

impl AccessTokens {
    /// Of the file at `path`, which need not be there: then nobody is let in.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, reader: Mutex::new(None) }
    }

    /// Makes a token; the one time that it can be seen. Makes the file where there is none.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn add(&self, is_enabled: bool) -> Result<(TokenEntry, Secret), TokenError> {
        let mut bytes = zeroize::Zeroizing::new([0; TOKEN_BYTES]);
        SystemRandom::new().fill(&mut *bytes).map_err(|_| TokenError::NoRandomness)?;
        let token = Secret::new(URL_SAFE_NO_PAD.encode(*bytes));
        make_private(&self.path)
            .map_err(|source| TokenError::File { path: self.path.clone(), source })?;
        self.with_writer(|connection| {
            let transaction =
                rusqlite::Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
            let table = own_table(&transaction)?;
            let id = next_id(&transaction, table)?;
            let created_at = now();
            let sql = format!(
                "INSERT INTO {table} (EntryID, CreationTimestamp, AccessToken, Enabled) VALUES (?, ?, ?, ?)"
            );
            transaction.execute(&sql, (id, created_at, hashed(&token), is_enabled))?;
            transaction.commit()?;
            Ok((TokenEntry { id, created_at, is_enabled }, token.clone()))
        })
    }

    /// All entries, the oldest first.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn list(&self) -> Result<Vec<TokenEntry>, TokenError> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        self.with_writer(|connection| {
            let Some(table) = table(connection)? else { return Ok(Vec::new()) };
            let sql =
                format!("SELECT EntryID, CreationTimestamp, Enabled FROM {table} ORDER BY EntryID");
            let mut statement = connection.prepare(&sql)?;
            let rows = statement.query_map([], |row| {
                let is_enabled: i64 = row.get(2)?;
                let (id, created_at) = (row.get(0)?, row.get(1)?);
                Ok(TokenEntry { id, created_at, is_enabled: is_enabled != 0 })
            })?;
            rows.collect()
        })
    }

    /// Lets a token in, or no more.
    ///
    /// # Errors
    /// When there is none, or the file cannot be used.
    pub fn enable(&self, id: i64, is_enabled: bool) -> Result<(), TokenError> {
        let set = format!("SET Enabled = {}", i64::from(is_enabled));
        self.change(id, |table| format!("UPDATE {table} {set} WHERE EntryID = ?"))
    }

    /// Forgets a token.
    ///
    /// # Errors
    /// When there is none, or the file cannot be used.
    pub fn delete(&self, id: i64) -> Result<(), TokenError> {
        self.change(id, |table| format!("DELETE FROM {table} WHERE EntryID = ?"))
    }

    fn change(&self, id: i64, sql: impl Fn(&str) -> String) -> Result<(), TokenError> {
        if !self.path.exists() {
            return Err(TokenError::NoEntry(id));
        }
        let changed = self.with_writer(|connection| {
            let Some(table) = table(connection)? else { return Ok(0) };
            connection.execute(&sql(table), [id])
        })?;
        if changed == 0 { Err(TokenError::NoEntry(id)) } else { Ok(()) }
    }

    fn with_writer<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, TokenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let outcome = Connection::open_with_flags(&self.path, flags).and_then(|connection| {
            connection.busy_timeout(LOCK_TIMEOUT)?;
            work(&connection)
        });
        outcome.map_err(|source| TokenError::Database { path: self.path.clone(), source })
    }

    /// The number of the enabled entry of `token`. Blocks for a moment.
    fn find(&self, token: &Secret) -> Result<Option<i64>, TokenError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = identity(&self.path) else {
            *reader = None;
            return Ok(None);
        };
        // Another file in the place of the one that is open, by a restored copy.
        if reader.as_ref().is_some_and(|reader| reader.file != file) {
            *reader = None;
        }
        let broken = |source| TokenError::Database { path: self.path.clone(), source };
        if reader.is_none() {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags).map_err(broken)?;
            connection.busy_timeout(LOCK_TIMEOUT).map_err(broken)?;
            *reader = Some(Reader { connection, file });
        }
        let Some(Reader { connection, .. }) = reader.as_ref() else { return Ok(None) };
        let outcome = look_up(connection, &hashed(token));
        if outcome.is_err() {
            *reader = None;
        }
        outcome.map_err(broken)
    }
}

/// Why a request is not carried out.
#[derive(Debug)]
pub(super) enum NotAdmitted {
    /// It brought no token.
    Missing,
    /// It brought one that does not let in.
    Invalid,
    /// The file could not be read.
    Failed(String),
}

/// Whose token it is, for doors that admit others too; `None` if nobody's.
///
/// # Errors
/// When the file cannot be read.
pub async fn owner(tokens: &Arc<AccessTokens>, token: Secret) -> Result<Option<String>, String> {
    match admit(tokens, Some(token)).await {
        Ok(owner) => Ok(Some(owner)),
        Err(NotAdmitted::Missing | NotAdmitted::Invalid) => Ok(None),
        Err(NotAdmitted::Failed(why)) => Err(why),
    }
}

/// Whose token it is.
pub(super) async fn admit(
    tokens: &Arc<AccessTokens>,
    token: Option<Secret>,
) -> Result<String, NotAdmitted> {
    let token = token.ok_or(NotAdmitted::Missing)?;
    let tokens = Arc::clone(tokens);
    let found = tokio::task::spawn_blocking(move || tokens.find(&token)).await;
    match found {
        Ok(Ok(Some(id))) => Ok(format!("access token {id}")),
        Ok(Ok(None)) => Err(NotAdmitted::Invalid),
        Ok(Err(error)) => Err(NotAdmitted::Failed(error.to_string())),
        Err(error) => Err(NotAdmitted::Failed(error.to_string())),
    }
}

fn look_up(connection: &Connection, hash: &str) -> rusqlite::Result<Option<i64>> {
    let Some(table) = table(connection)? else { return Ok(None) };
    let sql = format!("SELECT EntryID FROM {table} WHERE AccessToken = ? AND Enabled <> 0");
    connection.prepare_cached(&sql)?.query_row([hash], |row| row.get(0)).optional()
}

/// The table that is in force: the newest that the file has. A server that has changed to a newer one never looked at the
/// older again, and its entries have numbers of their own.
fn table(connection: &Connection) -> rusqlite::Result<Option<&'static str>> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?";
    let mut statement = connection.prepare_cached(sql)?;
    for table in TABLES {
        if statement.query_row([table], |row| row.get::<_, i64>(0))? > 0 {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// A number that no entry has had: machines know their owner by it. The last one is kept where SQLite keeps a number for
/// whoever wants one, since what is deleted leaves no trace in the table.
fn next_id(connection: &Connection, table: &str) -> rusqlite::Result<i64> {
    let sql = format!("SELECT coalesce(max(EntryID), 0) FROM {table}");
    let last: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
    let kept: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let id = last.max(kept).saturating_add(1);
    // Beyond what that number can hold, those of the table go on alone.
    if i32::try_from(id).is_ok() {
        connection.pragma_update(None, "user_version", id)?;
    }
    Ok(id)
}

/// The table that entries are added to; made where there is none.
fn own_table(connection: &Connection) -> rusqlite::Result<&'static str> {
    if let Some(table) = table(connection)? {
        return Ok(table);
    }
    let table = TABLES[0];
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {table} (EntryID INTEGER NOT NULL PRIMARY KEY, CreationTimestamp INTEGER NOT NULL, \
         AccessToken TEXT NOT NULL, Enabled INTEGER NOT NULL)"
    ))?;
    Ok(table)
}

fn hashed(token: &Secret) -> String {
    let hash = digest::digest(&digest::SHA256, token.expose().as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Makes the file where there is none, and its folder, for nobody else to read.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{AccessTokens, Connection, Secret, TokenError, hashed};

    fn folder() -> (tempfile::TempDir, AccessTokens) {
        let folder = tempfile::tempdir().unwrap();
        let tokens = AccessTokens::new(folder.path().join("new/access_token.db"));
        (folder, tokens)
    }

    #[test]
    fn a_token_lets_in_until_it_is_disabled_or_deleted() {
        let (_folder, tokens) = folder();
        assert!(tokens.list().unwrap().is_empty());
        let (entry, token) = tokens.add(true).unwrap();
        assert_eq!((token.expose().len(), entry.id), (124, 1));
        assert_eq!(tokens.find(&token).unwrap(), Some(1));
        assert_eq!(tokens.find(&Secret::new("x")).unwrap(), None);
        tokens.enable(1, false).unwrap();
        assert_eq!(tokens.find(&token).unwrap(), None);
        tokens.enable(1, true).unwrap();
        assert_eq!(tokens.find(&token).unwrap(), Some(1));
        tokens.delete(1).unwrap();
        assert_eq!(tokens.find(&token).unwrap(), None);
        assert!(matches!(tokens.delete(1), Err(TokenError::NoEntry(1))));
        let (entry, disabled) = tokens.add(false).unwrap();
        assert_eq!(tokens.find(&disabled).unwrap(), None);
        assert_eq!(entry.id, 2, "its number was somebody else's");
    }

    #[test]
    fn the_file_holds_no_token_and_is_nobody_elses() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, tokens) = folder();
        let (_, token) = tokens.add(true).unwrap();
        let path = folder.path().join("new/access_token.db");
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(text.contains(&hashed(&token)) && !text.contains(token.expose()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_of_the_older_program_is_used_as_it_is() {
        let (folder, tokens) = folder();
        let path = folder.path().join("new/access_token.db");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let old = Connection::open(&path).unwrap();
        old.execute_batch(
            "CREATE TABLE AnweddolAccessTokenTable (EntryID INTEGER NOT NULL PRIMARY KEY, CreationTimestamp INTEGER NOT NULL, \
             AccessToken TEXT NOT NULL, Enabled INTEGER NOT NULL)",
        )
        .unwrap();
        let token = Secret::new("old");
        let row = (7, 1, hashed(&token), 1);
        old.execute("INSERT INTO AnweddolAccessTokenTable VALUES (?, ?, ?, ?)", row).unwrap();
        assert_eq!(tokens.find(&token).unwrap(), Some(7));
        assert_eq!(tokens.add(true).unwrap().0.id, 8);
        assert_eq!(tokens.list().unwrap().len(), 2);
        // Once there is a newer table, only that one counts: its numbers are others' in the older.
        let newer = "CREATE TABLE AnweddolServerAccessTokenTable AS SELECT * FROM AnweddolAccessTokenTable WHERE 0";
        old.execute_batch(newer).unwrap();
        assert_eq!(tokens.find(&token).unwrap(), None);
        assert!(matches!(tokens.delete(7), Err(TokenError::NoEntry(7))));
        assert_eq!((tokens.list().unwrap().len(), tokens.add(true).unwrap().0.id), (0, 9));
        // Another file in its place is seen.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(tokens.find(&token).unwrap(), None);
    }

    #[test]
    fn what_is_no_database_is_an_error_that_names_it() {
        let (folder, tokens) = folder();
        let path = folder.path().join("new/access_token.db");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(path, [b'x'; 4096]).unwrap();
        let error = tokens.find(&Secret::new("x")).unwrap_err().to_string();
        assert!(error.contains("access_token.db"), "{error}");
    }
}
