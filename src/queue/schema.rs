//! The queue's file: one SQLite database, `queue.db`, whose `user_version` is the version of its schema.
//!
//! A version is one migration, applied in one transaction. A file of a newer version is refused: what it
//! holds was acknowledged, and guessing at it could lose it.

use rusqlite::Connection;

use super::QueueError;
use crate::limits;

/// Migration `n` leads from version `n` to `n + 1`.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE webhook (
        id        INTEGER PRIMARY KEY,
        namespace TEXT NOT NULL,
        name      TEXT NOT NULL,
        UNIQUE (namespace, name)
    ) STRICT;
    -- AUTOINCREMENT: the sequence of an event that has left is never given to another.
    CREATE TABLE event (
        sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
        webhook     INTEGER NOT NULL REFERENCES webhook (id),
        id          BLOB    NOT NULL,
        accepted_ms INTEGER NOT NULL,
        due_ms      INTEGER NOT NULL,
        failures    INTEGER NOT NULL DEFAULT 0,
        failing_ms  INTEGER, -- since when it has been failing
        dead_ms     INTEGER, -- when it was given up; in place, for a full file has no room for a copy
        dead_reason TEXT,
        attributes  TEXT    NOT NULL,
        body        BLOB    NOT NULL
    ) STRICT;
    CREATE INDEX event_due ON event (webhook, due_ms, sequence) WHERE dead_ms IS NULL;
    CREATE INDEX event_dead ON event (webhook, sequence) WHERE dead_ms IS NOT NULL;
", "
    -- Amounts are kept with the webhook: to count a million events takes longer than to start may.
    ALTER TABLE webhook ADD COLUMN pending_events INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE webhook ADD COLUMN pending_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE webhook ADD COLUMN dead_events INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE webhook ADD COLUMN dead_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE webhook ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE webhook ADD COLUMN gone_ms INTEGER; -- since when it has been deleted
    UPDATE webhook SET (pending_events, pending_bytes, dead_events, dead_bytes) = (
        SELECT count(*) FILTER (WHERE dead_ms IS NULL), coalesce(sum(bytes) FILTER (WHERE dead_ms IS NULL), 0),
               count(dead_ms), coalesce(sum(bytes) FILTER (WHERE dead_ms IS NOT NULL), 0)
        FROM (SELECT dead_ms, octet_length(attributes) + octet_length(body) AS bytes
              FROM event WHERE event.webhook = webhook.id));
    ALTER TABLE event ADD COLUMN key TEXT; -- its events go out one at a time
    ALTER TABLE event ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0; -- an earlier one of its key is there
    ALTER TABLE event ADD COLUMN dead_message TEXT;
    ALTER TABLE event ADD COLUMN dead_status INTEGER;
    ALTER TABLE event ADD COLUMN dead_body BLOB;
    UPDATE event SET (dead_reason, dead_message) =
        (substr(dead_reason, 1, instr(dead_reason, ': ') - 1), substr(dead_reason, instr(dead_reason, ': ') + 2))
        WHERE instr(dead_reason, ': ') > 0;
    DROP INDEX event_due;
    CREATE INDEX event_due ON event (webhook, due_ms, sequence) WHERE dead_ms IS NULL AND NOT blocked;
    CREATE INDEX event_key ON event (webhook, key, sequence) WHERE key IS NOT NULL AND dead_ms IS NULL;
    CREATE INDEX event_dead_since ON event (dead_ms) WHERE dead_ms IS NOT NULL;
", "
    -- What was taken lately, oldest first, so that it is not taken again. Found through an index in memory: one in
    -- the file would be written all over by every commit.
    CREATE TABLE seen (
        place    INTEGER PRIMARY KEY,
        webhook  INTEGER NOT NULL,
        digest   BLOB    NOT NULL, -- of what its sender calls it
        id       BLOB    NOT NULL, -- under which it was taken
        taken_ms INTEGER NOT NULL
    ) STRICT;
"];

/// Opens the file for writing and brings its schema up to date.
pub(super) fn open_writer(path: &std::path::Path) -> Result<Connection, QueueError> {
    let mut connection = Connection::open(path)?;
    configure(&connection)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// Opens the file beside the writer, to read or to checkpoint.
pub(super) fn open_beside(path: &std::path::Path) -> Result<Connection, QueueError> {
    let connection = Connection::open(path)?;
    configure(&connection)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), QueueError> {
    connection.busy_timeout(limits::QUEUE_BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL: a commit returns once the log is on disk. That is what a 202 promises.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The checkpoint has a thread of its own, off the path of an append.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // A log that grew in a burst gives its room back.
    connection.pragma_update(None, "journal_size_limit", limits::WAL_BYTES)?;
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), QueueError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(QueueError::NewerSchema { found, known });
    }
    for (version, migration) in (0..).zip(MIGRATIONS).filter(|(version, _)| *version >= found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_newer_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        open_writer(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = open_writer(&path).unwrap_err();
        assert!(matches!(error, QueueError::NewerSchema { found: 99, .. }), "{error}");
    }

    #[test]
    fn opening_twice_migrates_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        drop(open_writer(&path).unwrap());
        drop(open_writer(&path).unwrap());
    }
}
