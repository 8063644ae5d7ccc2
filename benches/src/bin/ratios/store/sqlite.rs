//! The store on SQLite, compared with a loop that writes the same rows in batches of the same size, directly into the tables.

use std::path::Path;
use std::sync::Arc;

use keywright_adapters::lock_repo::SqliteLockRepo;
use keywright_adapters::time::TokioTimer;
use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::runtime::Builder;

use super::workload::{EVENT_DATA, LOCKS, add_locks, writes_per_second};
use crate::concurrent::{CONCURRENT, medians, now, rate};
use crate::table::{Row, Target};

const WRITES: u64 = 100 * CONCURRENT;

/// The rate of the store.
async fn with_store(folder: &Path) -> f64 {
    let repo = SqliteLockRepo::open(
        &folder.join("locks.sqlite"),
        Arc::new(TokioTimer::default()),
    );
    let repo = repo.expect("a store");
    add_locks(&repo).await;
    writes_per_second(repo, WRITES).await
}

/// The rate of SQLite without the store: two commits for each 64 writes.
fn bare(folder: &Path) -> f64 {
    let path = folder.join("bare.sqlite");
    std::fs::copy(folder.join("locks.sqlite"), &path).expect("copied");
    let mut conn = Connection::open(&path).expect("a file");
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; DELETE FROM events WHERE version > 1; DELETE FROM writes; UPDATE locks SET applied_revision = 1")
        .expect("emptied");
    let state: String = conn
        .query_row("SELECT state FROM locks WHERE id = 1", [], |row| row.get(0))
        .expect("a lock");
    let start = now();
    for round in 0..WRITES / CONCURRENT {
        let numbers =
            (0..CONCURRENT).map(|n| i64::try_from(round * CONCURRENT + n).expect("small"));
        let locks = i64::try_from(LOCKS).expect("small");
        let transaction = conn.transaction().expect("a transaction");
        for number in numbers.clone() {
            update_lock(&transaction, number % locks + 1, None, Some(id(number)));
            transaction
                .prepare_cached("INSERT INTO writes VALUES (?1, ?2, 'uuid', 'thing', 'key', 0, 1, 'alice', 1, 2, NULL, NULL,
                    'PREPARED', NULL, 0, NULL, NULL, ?1, 1, 15000, 15001, NULL, NULL, NULL, NULL)")
                .and_then(|mut s| s.execute(params![id(number), number % locks + 1]))
                .expect("inserted");
        }
        transaction.commit().expect("committed");
        let transaction = conn.transaction().expect("a transaction");
        for number in numbers {
            let version = number / locks + 2;
            update_lock(&transaction, number % locks + 1, Some(&state), None);
            transaction
                .prepare_cached(
                    "INSERT INTO events VALUES (NULL, ?1, ?2, ?3, 'KeyWriteRequested', ?4, NULL)",
                )
                .and_then(|mut s| {
                    s.execute(params![number % locks + 1, version, id(number), EVENT_DATA])
                })
                .expect("appended");
            transaction
                .prepare_cached("UPDATE writes SET state = 'SENT', owner = NULL, epoch = NULL, lease = NULL,
                    lease_until = NULL, attention = 60000, requested_version = ?2, requested_at = 1 WHERE id = ?1")
                .and_then(|mut s| s.execute(params![id(number), version]))
                .expect("updated");
        }
        transaction.commit().expect("committed");
    }
    rate(WRITES, start)
}

fn id(number: i64) -> [u8; 16] {
    (u128::from(number.unsigned_abs()) + 1).to_be_bytes()
}

fn update_lock(conn: &Connection, lock: i64, state: Option<&str>, live: Option<[u8; 16]>) {
    conn.prepare_cached(
        "UPDATE locks SET applied_revision = applied_revision + 1, state = coalesce(?2, state), live = coalesce(?3, live) WHERE id = ?1",
    )
    .and_then(|mut s| s.execute(params![lock, state, live]))
    .expect("updated");
}

async fn run() -> (f64, f64) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().to_owned();
    // Both run in one thread of a runtime of their own.
    let measured = std::thread::spawn(move || {
        let runtime = Builder::new_multi_thread().worker_threads(1).build();
        let own = runtime.expect("a runtime").block_on(with_store(&path));
        (own, bare(&path))
    });
    measured.join().expect("no panic")
}

pub(crate) async fn row() -> Row {
    let (own, alone) = medians(run).await;
    Row {
        what: "`LockRepo` on SQLite: load, prepare and commit, 64 at once".into(),
        measured: format!("{own:.0} a second"),
        reference: format!(
            "SQLite alone, the same rows in the tables, in batches of 64: {alone:.0}"
        ),
        figure: own / alone,
        target: Target::AtLeast(0.80),
    }
}
