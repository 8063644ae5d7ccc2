//! What the writer commits, rolls back and reports.

use std::pin::pin;
use std::task::{Context, Waker};

use keywright_sqlite::{CommitError, GroupCommit};
use rusqlite::Connection;

/// A writer to a database in memory that has a table of unique numbers, after this SQL.
fn numbers(setup: &str) -> GroupCommit {
    let conn = Connection::open_in_memory().expect("opened");
    conn.execute_batch("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        .expect("made");
    conn.execute_batch(setup).expect("set up");
    GroupCommit::start("numbers", conn).expect("a thread")
}

async fn count(writer: &GroupCommit) -> Result<Result<i64, rusqlite::Error>, CommitError> {
    let sql = "SELECT count(*) FROM numbers";
    writer
        .run(move |t| t.query_row(sql, [], |row| row.get(0)))
        .await
}

#[tokio::test]
async fn rolls_back_only_the_jobs_that_fail_or_panic() {
    let writer = numbers("");
    let insert = |n: i64| {
        writer.run(move |t| {
            t.execute("INSERT INTO numbers VALUES (?1)", [n])
                .map_err(|e| e.to_string())?;
            assert_ne!(n, 3, "on purpose");
            if n == 2 { Err("no".into()) } else { Ok(n) }
        })
    };
    let (one, two, three, four) = tokio::join!(insert(1), insert(2), insert(3), insert(4));
    assert_eq!((one, four), (Ok(Ok(1)), Ok(Ok(4))));
    assert_eq!(two, Ok(Err("no".to_owned())));
    assert!(matches!(three, Err(CommitError::NotApplied(_))));
    assert_eq!(count(&writer).await, Ok(Ok(2)));
}

#[tokio::test]
async fn ends_after_a_failed_commit() {
    // A deferred foreign key is checked by the commit.
    let writer = numbers(
        "PRAGMA foreign_keys = ON; CREATE TABLE uses (
            n INTEGER REFERENCES numbers(n) DEFERRABLE INITIALLY DEFERRED)",
    );
    let outcome = writer
        .run(|t| t.execute("INSERT INTO uses VALUES (9)", []))
        .await;
    assert!(matches!(outcome, Err(CommitError::Unknown(_))));
    let next = count(&writer).await;
    assert!(matches!(next, Err(CommitError::NotApplied(_))));
    let reason = writer.ended().await;
    assert!(!reason.is_empty());
}

#[tokio::test]
async fn runs_queued_jobs_before_the_last_clone_is_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("numbers.db");
    let conn = Connection::open(&file).expect("opened");
    conn.execute_batch("CREATE TABLE numbers (n INTEGER)")
        .expect("made");
    let writer = GroupCommit::start("numbers", conn).expect("a thread");
    {
        let mut job = pin!(writer.run(|t| t.execute("INSERT INTO numbers VALUES (1)", [])));
        // One poll queues the job; then its future is dropped.
        let _ = job.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    drop(writer);
    let conn = Connection::open(&file).expect("opened");
    let found: i64 = conn
        .query_row("SELECT count(*) FROM numbers", [], |row| row.get(0))
        .expect("counted");
    assert_eq!(found, 1);
}
