//! The tables of the accounts.
//!
//! Invariant: a step that was released never changes; a change is a step of its own. No table holds a
//! secret, only what is left of it after hashing.

use database::Migrations;

/// The accounts' tables. Other rooms' rows that belong to an account refer to `accounts(id)` with
/// `ON DELETE CASCADE`.
pub const MIGRATIONS: Migrations = Migrations { name: "accounts", steps: &[FIRST, SECOND] };

// Times are milliseconds since 1970.
const FIRST: &str = "
CREATE TABLE accounts(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('admin', 'operator', 'viewer', 'agent')),
    password TEXT,                              -- Argon2 in its own text form, parameters included
    key_hash BLOB UNIQUE,                       -- SHA-256 of a random secret
    hwid_hash BLOB UNIQUE,                      -- HMAC-SHA256 of a hardware id, keyed with hwid_salt
    passcode INTEGER NOT NULL DEFAULT 0,        -- 1: the password alone names the account
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions(
    token_hash BLOB PRIMARY KEY,                -- SHA-256
    account INTEGER NOT NULL REFERENCES accounts(id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_account ON sessions(account, created_at);

CREATE TABLE enrolments(
    token_hash BLOB PRIMARY KEY,                -- SHA-256
    created_by INTEGER NOT NULL REFERENCES accounts(id) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL,
    uses_left INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX enrolments_by_account ON enrolments(created_by);

CREATE TABLE settings(name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO settings(name, value) VALUES ('hwid_salt', randomblob(32)), ('self_registration', 0);

CREATE TABLE audit(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    from_address TEXT NOT NULL,
    act TEXT NOT NULL,
    what TEXT NOT NULL,
    outcome TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
    BEGIN SELECT raise(ABORT, 'the audit log only grows'); END;
CREATE TRIGGER audit_is_never_shortened BEFORE DELETE ON audit
    BEGIN SELECT raise(ABORT, 'the audit log only grows'); END;
-- An INSERT OR REPLACE would change a row without either of them.
CREATE TRIGGER audit_is_never_replaced BEFORE INSERT ON audit
    WHEN EXISTS (SELECT 1 FROM audit WHERE id = new.id)
    BEGIN SELECT raise(ABORT, 'the audit log only grows'); END;
";

// The log may be told to keep entries for a time only: then its oldest may go, and nothing else.
const SECOND: &str = "
INSERT INTO settings(name, value) VALUES ('audit_from', -9223372036854775808);
DROP TRIGGER audit_is_never_shortened;
CREATE TRIGGER audit_is_only_shortened_by_age BEFORE DELETE ON audit
    WHEN (old.at < (SELECT value FROM settings WHERE name = 'audit_from')) IS NOT TRUE
    BEGIN SELECT raise(ABORT, 'the audit log only grows'); END;
";
