//! What the writer commits, rolls back and reports.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use keywright_sqlite::{CommitError, GroupCommit, Sharing, WriterState};
use rusqlite::{Connection, Transaction};

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

/// Counts what the writer calls.
#[derive(Default)]
struct Calls {
    begun: u32,
    /// Whether each transaction was committed.
    ended: Arc<Mutex<Vec<bool>>>,
    refuses_commits: bool,
}

impl WriterState for Calls {
    fn begin(&mut self, _: &Transaction<'_>) -> Result<(), String> {
        self.begun += 1;
        Ok(())
    }

    fn before_commit(&mut self, transaction: &Transaction<'_>) -> Result<(), String> {
        if self.refuses_commits {
            return Err("refused".into());
        }
        let insert = "INSERT INTO numbers VALUES (?1)";
        let inserted = transaction.execute(insert, [1000 + self.begun]);
        inserted.map(drop).map_err(|e| e.to_string())
    }

    fn ended(&mut self, committed: bool) {
        self.ended.lock().expect("no panic").push(committed);
    }
}

#[tokio::test]
async fn a_job_that_is_alone_has_its_own_transaction() {
    let conn = Connection::open_in_memory().expect("opened");
    conn.execute_batch("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        .expect("made");
    let ended: Arc<Mutex<Vec<bool>>> = Arc::default();
    let calls = Calls {
        ended: ended.clone(),
        ..Calls::default()
    };
    let writer = GroupCommit::start_with("numbers", conn, calls).expect("a thread");
    let insert = |sharing, n: i64, fails: bool| {
        writer.run_with(sharing, move |t, calls: &mut Calls| {
            t.execute("INSERT INTO numbers VALUES (?1)", [n])
                .map_err(|e| e.to_string())?;
            if fails {
                Err("no".to_owned())
            } else {
                Ok(calls.begun)
            }
        })
    };
    let (before, alone, failed, after) = tokio::join!(
        insert(Sharing::NoSavepoint, 1, false),
        insert(Sharing::Alone, 2, false),
        insert(Sharing::Alone, 3, true),
        insert(Sharing::NoSavepoint, 4, false),
    );
    assert_eq!((before, alone), (Ok(Ok(1)), Ok(Ok(2))));
    assert_eq!((failed, after), (Ok(Err("no".to_owned())), Ok(Ok(4))));
    assert_eq!(*ended.lock().expect("no panic"), [true, true, false, true]);
    let numbers = writer
        .run_with(Sharing::NoSavepoint, |t, _| {
            let mut rows = t.prepare("SELECT n FROM numbers ORDER BY n")?;
            let numbers = rows.query_map([], |row| row.get(0))?;
            numbers.collect::<Result<Vec<i64>, _>>()
        })
        .await;
    assert_eq!(numbers, Ok(Ok(vec![1, 2, 4, 1001, 1002, 1004])));
}

#[tokio::test]
async fn a_state_that_refuses_a_commit_rolls_back_all_jobs() {
    let conn = Connection::open_in_memory().expect("opened");
    conn.execute_batch("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        .expect("made");
    let writer = GroupCommit::start_with("numbers", conn, Calls::default()).expect("a thread");
    let refused = writer
        .run_with(Sharing::NoSavepoint, |t, calls: &mut Calls| {
            calls.refuses_commits = true;
            t.execute("INSERT INTO numbers VALUES (1)", [])
        })
        .await;
    assert_eq!(refused, Err(CommitError::NotApplied("refused".into())));
    let count = writer
        .run_with(Sharing::NoSavepoint, |t, calls: &mut Calls| {
            calls.refuses_commits = false;
            t.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0))
        })
        .await;
    assert_eq!(count, Ok(Ok(0)));
}

/// SQLite rolls a transaction back by itself when the disk is full. What follows must not be committed statement by statement.
#[tokio::test]
async fn nothing_is_written_after_the_transaction_has_ended() {
    let conn = Connection::open_in_memory().expect("opened");
    conn.execute_batch("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        .expect("made");
    let writer = GroupCommit::start_with("numbers", conn, Calls::default()).expect("a thread");
    let lost = writer.run_with(Sharing::NoSavepoint, |t, _: &mut Calls| {
        t.execute_batch("ROLLBACK").map_err(|e| e.to_string())?;
        Err::<(), _>("the disk is full".to_owned())
    });
    let beside = writer.run_with(Sharing::NoSavepoint, |t, _: &mut Calls| {
        t.execute("INSERT INTO numbers VALUES (1)", [])
    });
    let (lost, beside) = tokio::join!(lost, beside);
    assert_eq!(lost, Ok(Err("the disk is full".to_owned())));
    assert!(
        matches!(beside, Err(CommitError::NotApplied(_))),
        "{beside:?}"
    );
    let count = writer.run_with(Sharing::NoSavepoint, |t, _: &mut Calls| {
        t.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0))
    });
    assert_eq!(count.await, Ok(Ok(0)));
}

#[tokio::test]
async fn a_transaction_that_cannot_begin_does_not_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("numbers.db");
    let conn = Connection::open(&file).expect("opened");
    conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        .expect("made");
    conn.busy_timeout(std::time::Duration::ZERO).expect("set");
    let ended: Arc<Mutex<Vec<bool>>> = Arc::default();
    let calls = Calls {
        ended: ended.clone(),
        ..Calls::default()
    };
    let writer = GroupCommit::start_with("numbers", conn, calls).expect("a thread");
    let other = Connection::open(&file).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("begun");
    let insert = || {
        writer.run_with(Sharing::NoSavepoint, |t, _| {
            t.execute("INSERT INTO numbers VALUES (1)", [])
        })
    };
    assert!(matches!(insert().await, Err(CommitError::NotApplied(_))));
    assert_eq!(*ended.lock().expect("no panic"), []);
    other.execute_batch("ROLLBACK").expect("ended");
    assert_eq!(insert().await, Ok(Ok(1)));
}
