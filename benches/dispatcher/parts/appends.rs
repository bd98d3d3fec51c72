//! SQLite alone, set up as the queue is: rows are put in and taken out, 64 in a transaction that is on disk when
//! it ends.
//!
//! The table is the queue's as it was when the marks were set, whatever the queue's has become: a denominator
//! that grew with the numerator would hide its growth.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use jiff::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Cost;
use crate::{event, harness::tool::Tool, parts};

const BATCH: u32 = 64;

/// Transactions after which the log is written back: of some thousand pages, as the queue's.
const CHECKPOINT: u32 = 30;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    file: PathBuf,
    /// For putting in; taking out takes as long as it takes
    #[arg(long)]
    milliseconds: u64,
}

/// For one row.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Costs {
    pub(crate) append: Cost,
    pub(crate) removal: Cost,
}

/// Runs to its end and prints the costs.
pub(crate) fn run(options: &Options) {
    let costs = measure(options).unwrap_or_else(|error| panic!("{}: {error}", options.file.display()));
    println!("{}", serde_json::to_string(&costs).expect("numbers are JSON"));
}

fn measure(options: &Options) -> rusqlite::Result<Costs> {
    let mut connection = Connection::open(&options.file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.execute_batch(
        "CREATE TABLE event (
             sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
             webhook     INTEGER NOT NULL,
             id          BLOB    NOT NULL,
             accepted_ms INTEGER NOT NULL,
             due_ms      INTEGER NOT NULL,
             attributes  TEXT    NOT NULL,
             body        BLOB    NOT NULL
         ) STRICT;
         CREATE INDEX event_due ON event (webhook, due_ms, sequence);",
    )?;
    let (mut appended, mut removed) = (Ok(0), Ok(0));
    let attributes = format!(
        r#"{{"datacontenttype":"text/plain","id":"{}","source":"/bench","specversion":"1.0","type":"order.paid"}}"#,
        Uuid::now_v7()
    );
    let (body, now) = (event::body(), Timestamp::now().as_millisecond());
    let till = Instant::now() + Duration::from_millis(options.milliseconds);
    let append = Cost::of(|| {
        appended = batches(
            &mut connection,
            |_| Instant::now() < till,
            |transaction, n| {
                transaction
                    .prepare_cached(
                        "INSERT INTO event (webhook, id, accepted_ms, due_ms, attributes, body)
                     VALUES (1, ?1, ?2, ?2, ?3, ?4)",
                    )?
                    .execute((u128::from(n).to_be_bytes(), now, &attributes, body.as_bytes()))
            },
        );
        appended.as_ref().copied().unwrap_or_default()
    });
    let rows = appended?;
    let removal = Cost::of(|| {
        removed = batches(
            &mut connection,
            |done| done < rows,
            |transaction, n| {
                transaction.prepare_cached("DELETE FROM event WHERE sequence = ?1")?.execute([n + 1])
            },
        );
        removed.as_ref().copied().unwrap_or_default()
    });
    removed?;
    Ok(Costs { append, removal })
}

/// Transactions as long as `again` says; returns the number of changes.
fn batches(
    connection: &mut Connection,
    again: impl Fn(u32) -> bool,
    change: impl Fn(&Connection, u32) -> rusqlite::Result<usize>,
) -> rusqlite::Result<u32> {
    let mut done = 0;
    while again(done) {
        let transaction = connection.transaction()?;
        for n in done..done + BATCH {
            change(&transaction, n)?;
        }
        transaction.commit()?;
        done += BATCH;
        if done % (BATCH * CHECKPOINT) == 0 {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
    }
    Ok(done)
}

/// Runs it in a process of its own, on the disk where the queue is.
pub(crate) async fn costs(directory: &std::path::Path, time: Duration) -> Costs {
    let file = tempfile::TempDir::new_in(directory).expect("a directory beside the queue");
    let printed = Tool::new(parts::program())
        .args(["appends"])
        .arg("--file", file.path().join("appends.db"))
        .arg("--milliseconds", time.as_millis().to_string())
        .succeed()
        .await;
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("appends printed {printed}: {error}"))
}
