//! What the store on SQLite adds to SQLite: prepare and commit, beside a loop that writes the same rows in batches as
//! large.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keywright_adapters::lock_repo::SqliteLockRepo;
use keywright_adapters::time::SystemClock;
use keywright_domain::ports::{LockHistory, LockRepo};
use keywright_domain::rules::{self, Limits};
use keywright_domain::values::ShadowVersion;
use keywright_testkit::samples::{NOW, created, lock_id, prepared, slot};
use rusqlite::{Connection, params};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::{Row, Target, median};

const LOCKS: u64 = 2_000;
const AT_ONCE: u64 = 64;
const ROUNDS: u64 = 100;
const RUNS: usize = 5;

#[expect(clippy::disallowed_methods, reason = "it is what is measured")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn a_second(took: Duration) -> f64 {
    (ROUNDS * AT_ONCE) as f64 / took.as_secs_f64()
}

/// Writes a second: 64 at a time, each prepared and committed.
async fn ours(folder: &Path) -> f64 {
    let repo = SqliteLockRepo::open(&folder.join("locks.sqlite"), Arc::new(SystemClock));
    let repo = repo.expect("a store");
    let locks = (1..=LOCKS).map(|id| created(lock_id(id))).collect();
    repo.import(locks).await.expect("imported");
    let start = now();
    for round in 0..ROUNDS {
        let mut writing = JoinSet::new();
        for n in 0..AT_ONCE {
            let (repo, number) = (repo.clone(), round * AT_ONCE + n);
            writing.spawn(async move {
                let lock = lock_id(number % LOCKS + 1);
                let known = repo.load(lock).await.expect("loaded").expect("a lock");
                let (write, save) = prepared(&known, u128::from(number + 1), slot("key", Some(0)));
                repo.save(save).await.expect("prepared");
                let mut known = known;
                known.revision = known.revision.next();
                known.unfinished.push(write.clone());
                let limits = Limits::default();
                let version = ShadowVersion(number + 2);
                let (_, save) = rules::commit(&known, &write, version, &[], &limits, NOW);
                repo.save(save).await.expect("committed");
            });
        }
        writing.join_all().await;
    }
    a_second(start.elapsed())
}

/// The same rows by SQLite alone, in two commits for each 64 writes.
fn bare(folder: &Path) -> f64 {
    let path = folder.join("bare.sqlite");
    std::fs::copy(folder.join("locks.sqlite"), &path).expect("copied");
    let mut conn = Connection::open(&path).expect("a file");
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; DELETE FROM events WHERE version > 1; DELETE FROM writes; UPDATE locks SET revision = 1")
        .expect("emptied");
    let state: String = conn
        .query_row("SELECT state FROM locks WHERE id = 1", [], |row| row.get(0))
        .expect("a lock");
    let data = r#"{"lockId":1,"uuid":"6f0c2a9e-0d5e-4e0b-9a55-0f6f3c0c7a11","timestamp":"2026-05-29T12:00:00.000Z","keyUuid":"key","keyIndexNumber":0}"#;
    let start = now();
    for round in 0..ROUNDS {
        let numbers = (0..AT_ONCE).map(|n| i64::try_from(round * AT_ONCE + n).expect("small"));
        let locks = i64::try_from(LOCKS).expect("small");
        let transaction = conn.transaction().expect("a transaction");
        for number in numbers.clone() {
            move_lock(&transaction, number % locks + 1, None);
            transaction
                .prepare_cached("INSERT INTO writes VALUES (?1, ?2, 'uuid', 'thing', 'key', 0, 1, 'alice', 1, 2, NULL, NULL,
                    'PREPARED', NULL, 0, NULL, NULL, ?1, 1, 15000, 15001, NULL)")
                .and_then(|mut s| s.execute(params![id(number), number % locks + 1]))
                .expect("inserted");
        }
        transaction.commit().expect("committed");
        let transaction = conn.transaction().expect("a transaction");
        for number in numbers {
            let version = number / locks + 2;
            move_lock(&transaction, number % locks + 1, Some(&state));
            transaction
                .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, 'KeyWriteRequested', ?4)")
                .and_then(|mut s| s.execute(params![number % locks + 1, version, id(number), data]))
                .expect("appended");
            transaction
                .prepare_cached("UPDATE writes SET state = 'SENT', owner = NULL, epoch = NULL, lease = NULL,
                    lease_until = NULL, attention = 60000, requested_version = ?2, requested_at = 1 WHERE id = ?1")
                .and_then(|mut s| s.execute(params![id(number), version]))
                .expect("updated");
        }
        transaction.commit().expect("committed");
    }
    a_second(start.elapsed())
}

fn id(number: i64) -> [u8; 16] {
    (u128::from(number.unsigned_abs()) + 1).to_be_bytes()
}

fn move_lock(conn: &Connection, lock: i64, state: Option<&str>) {
    conn.prepare_cached(
        "UPDATE locks SET revision = revision + 1, state = coalesce(?2, state) WHERE id = ?1",
    )
    .and_then(|mut s| s.execute(params![lock, state]))
    .expect("moved");
}

pub(crate) fn row() -> Row {
    let (mut own, mut alone) = (vec![], vec![]);
    for _ in 0..RUNS {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().to_owned();
        // The same thread of a runtime for both, whatever calls this.
        let measured = std::thread::spawn(move || {
            let runtime = Builder::new_multi_thread().worker_threads(1).build();
            let own = runtime.expect("a runtime").block_on(ours(&path));
            (own, bare(&path))
        });
        let (a, b) = measured.join().expect("no panic");
        own.push(a);
        alone.push(b);
    }
    let (own, alone) = (median(own), median(alone));
    Row {
        what: "`LockRepo` on SQLite: load, prepare and commit, 64 at once",
        measured: format!("{own:.0} a second"),
        beside: format!("SQLite alone, the same rows in batches of 64: {alone:.0}"),
        figure: own / alone,
        target: Target::AtLeast(0.80),
    }
}
