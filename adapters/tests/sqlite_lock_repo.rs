//! The SQLite store: the contract of the port, and the file.
#![cfg(all(feature = "memory", feature = "sqlite"))]

use std::collections::BTreeMap;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::lock_repo::{InMemoryLockRepo, SqliteLockRepo};
use keywright_adapters::time::TokioTimer;
use keywright_domain::model::{
    DeviceOutcome, DueCursor, FailureReason, IdempotencyKey, IdempotencyScope, KeyIndex, KeySlot,
    Lock, LockSnapshot, LockVersion, Position, RecordedEvent, ReportedSlot, Save, ShadowVersion,
    Timestamp, WorkerId, Write, WriteId,
};
use keywright_domain::policy;
use keywright_domain::policy::{Limits, ReportDecision, ReportedResult};
use keywright_domain::ports::{LockHistory, LockRepo, RepoError};
use keywright_testkit::ManualTimer;
use keywright_testkit::lock_repo::{Ending, StoreFixture};
use keywright_testkit::samples::{LEASE, NOW, created, lock_id, prepared, slot};
use rusqlite::Connection;
use tempfile::TempDir;

async fn fixture() -> StoreFixture {
    let folder = TempDir::new().expect("a folder");
    let (timer, path) = (ManualTimer::default(), file(&folder));
    let open = |path: &Path, timer: &ManualTimer| {
        let repo = SqliteLockRepo::open(path, Arc::new(timer.clone()));
        Arc::new(repo.expect("a store"))
    };
    let (repo, copies) = (open(&path, &timer), TempDir::new().expect("a folder"));
    let (original, timer_of_reopened) = (path.clone(), timer.clone());
    let reopen = move |ending| {
        let path = match ending {
            Ending::Clean => original.clone(),
            Ending::Crash => copy_as_after_a_crash(&original, copies.path()),
        };
        std::future::ready(open(&path, &timer_of_reopened))
    };
    let advance = move |span| {
        let _keeps_the_folder = &folder;
        timer.advance(span);
    };
    StoreFixture::new(repo, advance, reopen).with_wall_clock(move |millis| {
        move_stored_leases(&path, millis);
        Box::pin(std::future::ready(()))
    })
}

/// Copies the files of a store that is open, and returns the path of the copy. The write-ahead log is copied first: if a checkpoint
/// copies pages into the file meanwhile, the log still has them.
fn copy_as_after_a_crash(path: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join("locks.sqlite");
    let log = |path: &Path| path.with_extension("sqlite-wal");
    std::fs::copy(log(path), log(&copy)).expect("copied");
    std::fs::copy(path, &copy).expect("copied");
    copy
}

/// Moves the stored ends of leases back by `millis`, as if the wall clock had been set forward by as much; negative: set back.
fn move_stored_leases(path: &Path, millis: i64) {
    let conn = Connection::open(path).expect("the file");
    conn.execute("UPDATE writes SET lease_until = lease_until - ?1", [millis])
        .expect("moved");
}

mod contract {
    keywright_testkit::lock_repo_cases!(super::fixture);
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("locks.sqlite")
}

fn open(path: &Path) -> SqliteLockRepo {
    SqliteLockRepo::open(path, Arc::new(TokioTimer::default())).expect("a store")
}

fn refusal(path: &Path) -> String {
    let opened = SqliteLockRepo::open(path, Arc::new(ManualTimer::default()));
    let text = opened.err().expect("refused").to_string();
    assert!(text.contains(&path.display().to_string()), "{text}");
    text
}

async fn load(repo: &SqliteLockRepo) -> LockSnapshot {
    let known = repo.load(lock_id(1)).await.expect("the store answers");
    known.expect("the lock exists")
}

async fn send(repo: &SqliteLockRepo, id: u128, slot: KeySlot) -> Write {
    let (write, save) = prepared(&load(repo).await, id, slot);
    repo.save(save).await.expect("prepared");
    let (snapshot, limits) = (load(repo).await, Limits::default());
    let (sent, save) = policy::commit(&snapshot, &write, ShadowVersion(5), &[], &limits, NOW);
    repo.save(save).await.expect("committed");
    sent
}

/// A lock with a sent write and a prepared one, a superseded one, and one whose result is still on the shadow.
async fn fill(repo: &SqliteLockRepo) -> Write {
    repo.import(vec![created(lock_id(1))])
        .await
        .expect("imported");
    send(repo, 8, slot("older", Some(2))).await;
    let done = send(repo, 9, slot("done", Some(3))).await;
    let (known, limits) = (load(repo).await, Limits::default());
    let reported = ReportedResult {
        thing: &done.thing,
        shadow_version: Some(ShadowVersion(6)),
        outcome: &DeviceOutcome::Succeeded {
            slot: ReportedSlot::Index(KeyIndex::new(3).expect("an index")),
        },
        entry_remains: false,
    };
    let decision = policy::decide_report(&known, Some(&done), &reported, &limits, NOW);
    let ReportDecision::Record(_, save) = decision else {
        panic!("the report is news")
    };
    repo.save(save).await.expect("settled");
    let sent = send(repo, 10, slot("k", Some(2))).await;
    let (_, save) = prepared(&load(repo).await, 11, slot("other", None));
    repo.save(save).await.expect("prepared");
    sent
}

#[tokio::test]
async fn a_reopened_file_has_the_same_content() {
    let folder = TempDir::new().expect("a folder");
    let repo = open(&file(&folder));
    let sent = fill(&repo).await;
    let before = load(&repo).await;
    drop(repo);
    let repo = open(&file(&folder));
    assert_eq!(load(&repo).await, before);
    assert_eq!(repo.write(sent.id).await, Ok(Some(sent)));
}

#[tokio::test]
async fn commits_are_durable() {
    let folder = TempDir::new().expect("a folder");
    let durability = open(&file(&folder)).durability().await;
    assert_eq!(durability, Ok(("wal".to_owned(), 2)));
}

#[tokio::test]
async fn rejects_files_of_other_programs() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("text.sqlite");
    std::fs::write(
        &path,
        "not a database, but long enough to look like one".repeat(40),
    )
    .expect("written");
    assert!(refusal(&path).contains("not a database"));

    let path = folder.path().join("foreign.sqlite");
    let foreign = Connection::open(&path).expect("a database");
    foreign
        .execute_batch("CREATE TABLE t (x)")
        .expect("a table");
    assert!(refusal(&path).contains("another program"));
}

#[tokio::test]
async fn rejects_a_newer_schema() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    drop(open(&path));
    let conn = Connection::open(&path).expect("a database");
    conn.pragma_update(None, "user_version", 99).expect("set");
    drop(conn);
    assert!(refusal(&path).contains("schema is version 99"));
}

#[tokio::test]
async fn rejects_a_damaged_file() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    fill(&repo).await;
    drop(repo);
    let mut bytes = std::fs::read(&path).expect("read");
    // The pages after that of the schema.
    for byte in &mut bytes[4096..] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).expect("written");
    refusal(&path);
}

#[tokio::test]
async fn checks_a_large_file_in_the_background() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    fill(&repo).await;
    drop(repo);
    let conn = Connection::open(&path).expect("a database");
    conn.execute_batch("CREATE TABLE filler (x); INSERT INTO filler VALUES (zeroblob(70 << 20))")
        .expect("filled");
    drop(conn);
    let within = Duration::from_secs(10);
    let intact = open(&path);
    let ended = tokio::time::timeout(Duration::from_millis(500), intact.ended()).await;
    assert!(ended.is_err(), "the file is not damaged");
    load(&intact).await;
    drop(intact);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("a file");
    // The links of a chain of pages, which are not read to open the file.
    file.seek(SeekFrom::Start(60 << 20)).expect("sought");
    file.write_all(&[0x5a; 8192]).expect("damaged");
    drop(file);
    let damaged = open(&path);
    load(&damaged).await;
    let ended = tokio::time::timeout(within, damaged.ended()).await;
    ended.expect("the damage is found");
}

#[tokio::test]
async fn rejects_a_truncated_file() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    fill(&repo).await;
    drop(repo);
    let whole = std::fs::read(&path).expect("read");
    // In the middle of a page, and between two pages.
    for length in [whole.len() / 2 + 100, 4096] {
        std::fs::write(&path, &whole[..length]).expect("truncated");
        refusal(&path);
    }
}

#[tokio::test]
async fn an_invalid_row_is_an_error_with_table_column_and_key() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    fill(&repo).await;
    // A store that is open has the lock in memory.
    drop(repo);
    let repo = open(&path);
    let conn = Connection::open(&path).expect("a database");
    let corrupt = |table, column, key: &str| {
        Err(RepoError::Corrupt {
            table,
            column,
            key: key.to_owned(),
        })
    };
    conn.execute_batch("UPDATE writes SET state = 'LOST'")
        .expect("damaged");
    let id = WriteId::from_u128(10);
    assert_eq!(
        repo.write(id).await,
        corrupt("writes", "state", &id.to_string())
    );
    conn.execute_batch("UPDATE locks SET state = '{}'")
        .expect("damaged");
    let loaded = repo.load(lock_id(1)).await.map(|_| None);
    assert_eq!(loaded, corrupt("locks", "state", "1"));
}

/// An intent of an earlier process is claimed immediately if no other process has the file open, and otherwise one lease after
/// the first claim, wherever the wall clock stood when it was saved.
#[tokio::test]
async fn claims_an_intent_of_an_earlier_process_at_any_wall_clock() {
    for clock_was_ahead_by in [-3_600_000, 0, 3_600_000] {
        for another_process in [false, true] {
            let folder = TempDir::new().expect("a folder");
            let path = file(&folder);
            let earlier = open(&path);
            fill(&earlier).await;
            let earlier = another_process.then_some(earlier);
            move_stored_leases(&path, -clock_was_ahead_by);
            let timer = ManualTimer::default();
            let repo = SqliteLockRepo::open(&path, Arc::new(timer.clone())).expect("a store");
            let claim = async || {
                let claimed = repo.claim(WorkerId(8), LEASE).await;
                claimed.expect("the store answers").map(|write| write.id)
            };
            if earlier.is_some() {
                assert_eq!(claim().await, None, "its worker may be alive");
                timer.advance(LEASE);
            }
            assert!(claim().await.is_some(), "{clock_was_ahead_by} ms ahead");
            assert_eq!(claim().await, None, "another worker has it now");
        }
    }
}

/// A process that opens the store while the worker of an intent has it open does not claim early after that worker has ended.
#[tokio::test]
async fn a_store_opened_beside_a_worker_measures_its_lease() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let worker = open(&path);
    let timer = ManualTimer::default();
    let other = SqliteLockRepo::open(&path, Arc::new(timer.clone())).expect("a store");
    fill(&worker).await;
    assert_eq!(other.claim(WorkerId(8), LEASE).await, Ok(None));
    drop(worker);
    timer.advance(LEASE / 2);
    assert_eq!(other.claim(WorkerId(8), LEASE).await, Ok(None));
    timer.advance(LEASE / 2);
    let claimed = other.claim(WorkerId(8), LEASE).await;
    assert!(claimed.expect("the store answers").is_some());
}

/// A file with version 1 of the schema, opened by several processes at once.
#[tokio::test]
async fn migrates_a_file_of_the_first_schema() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    let mut sent = fill(&repo).await;
    // The first schema had no ids of requests.
    sent.cause.request = None;
    let before = load(&repo).await;
    assert_eq!((before.unfinished.len(), before.uncleared.len()), (2, 1));
    drop(repo);
    let conn = Connection::open(&path).expect("a database");
    conn.execute_batch(
        "DROP TABLE log; DROP TABLE log_writer; DROP INDEX events_of_a_lock;
         ALTER TABLE events RENAME TO newer_events;
         CREATE TABLE events (
             lock INTEGER NOT NULL, version INTEGER NOT NULL, write_id BLOB, type TEXT NOT NULL, data TEXT NOT NULL,
             PRIMARY KEY (lock, version)
         ) STRICT, WITHOUT ROWID;
         INSERT INTO events SELECT lock, version, write_id, type, data FROM newer_events;
         DROP TABLE newer_events; ALTER TABLE writes DROP COLUMN request_id;
         ALTER TABLE writes DROP COLUMN anomalies; ALTER TABLE writes DROP COLUMN reported_index;
         DROP TABLE kept_answers; DROP INDEX writes_by_end; ALTER TABLE locks DROP COLUMN live;
         ALTER TABLE locks RENAME COLUMN applied_revision TO revision;
         CREATE INDEX writes_of_a_lock ON writes (lock)
             WHERE lease_until IS NOT NULL OR attention IS NOT NULL;
         PRAGMA user_version = 1;",
    )
    .expect("downgraded");
    drop(conn);
    let opening: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || open(&path))
        })
        .collect();
    for opened in opening {
        let repo = opened.join().expect("it opens");
        let mut before = before.clone();
        for write in before.unfinished.iter_mut().chain(&mut before.uncleared) {
            write.cause.request = None;
        }
        assert_eq!(load(&repo).await, before);
        assert_eq!(repo.write(sent.id).await, Ok(Some(sent.clone())));
    }
}

/// The size of the store's file with this suffix.
fn bytes(path: &Path, suffix: &str) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    std::fs::metadata(name).map_or(0, |file| file.len())
}

/// A store with one lock.
async fn with_a_lock(path: &Path) -> SqliteLockRepo {
    let repo = open(path);
    let imported = repo.import(vec![created(lock_id(7))]).await;
    imported.expect("imported");
    repo
}

/// Writes so many mebibytes beside what the store keeps.
fn add_filler(path: &Path, mebibytes: u32) -> Connection {
    let filler = Connection::open(path).expect("the file");
    filler
        .execute_batch("CREATE TABLE filler (bytes BLOB)")
        .expect("made");
    for _ in 0..mebibytes {
        filler
            .execute("INSERT INTO filler VALUES (randomblob(1048576))", [])
            .expect("written");
    }
    filler
}

/// Waits until the store's file with this suffix has at most so many mebibytes.
async fn shrinks(path: &Path, suffix: &str, mebibytes: u64) {
    for _ in 0..3000 {
        if bytes(path, suffix) <= mebibytes * 1024 * 1024 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the file has {} bytes", bytes(path, suffix));
}

#[tokio::test]
async fn truncates_a_large_log_while_nothing_is_written() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let _repo = with_a_lock(&path).await;
    // A read transaction prevents complete checkpoints, so the log grows.
    let reader = Connection::open(&path).expect("the file");
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM locks;")
        .expect("it reads");
    let _filler = add_filler(&path, 20);
    assert!(bytes(&path, "-wal") > 16 * 1024 * 1024, "the log has grown");
    reader.execute_batch("COMMIT").expect("it has read");
    shrinks(&path, "-wal", 4).await;
}

#[tokio::test]
async fn returns_the_space_of_deleted_rows() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let _repo = with_a_lock(&path).await;
    let filler = add_filler(&path, 24);
    filler.execute_batch("DELETE FROM filler").expect("deleted");
    // Some free pages are kept.
    shrinks(&path, "", 12).await;
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().expect("a folder");
    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open_to_all).expect("set");
    let path = file(&folder);
    let modes = || {
        let files = std::fs::read_dir(folder.path()).expect("the folder");
        files
            .map(|file| {
                let file = file.expect("a file");
                let mode = file.metadata().expect("its mode").permissions().mode();
                (file.file_name(), mode & 0o777)
            })
            .collect::<Vec<_>>()
    };
    let repo = open(&path);
    repo.import(vec![created(lock_id(7))])
        .await
        .expect("imported");
    assert!(modes().len() >= 3, "{:?}", modes());
    assert!(
        modes().iter().all(|(_, mode)| *mode == 0o600),
        "{:?}",
        modes()
    );
    drop(repo);
    // A file of an earlier version.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
    let _repo = open(&path);
    assert!(
        modes().iter().all(|(_, mode)| *mode == 0o600),
        "{:?}",
        modes()
    );
}

/// What a store returns for every kind of read.
#[derive(Debug, PartialEq)]
struct Contents {
    locks: Vec<LockSnapshot>,
    listed: Vec<Lock>,
    events: Vec<Vec<RecordedEvent>>,
    log: Vec<RecordedEvent>,
    writes: Vec<Write>,
    found: Vec<Option<Write>>,
    due: Vec<Write>,
    backlog: (u64, u64, u64),
}

async fn contents<S: LockRepo + LockHistory>(store: &S, locks: u64) -> Contents {
    let end = Timestamp::from_millis(u64::from(u32::MAX) * 10_000);
    let (mut known, mut events) = (Vec::new(), Vec::new());
    for lock in 1..=locks {
        let snapshot = store.load(lock_id(lock)).await.expect("loaded");
        known.push(snapshot.expect("a lock"));
        let stream = store.events(lock_id(lock), LockVersion(2), 1000).await;
        events.push(stream.expect("events"));
    }
    let (mut log, mut after) = (Vec::new(), Position::START);
    loop {
        let page = store.events_after(after, 7).await.expect("a page");
        let Some(last) = page.last() else { break };
        assert!(page.iter().all(|logged| logged.position > after));
        after = last.position;
        log.extend(page.into_iter().map(|logged| logged.event));
    }
    assert_eq!(store.last_position().await, Ok(after));
    let (mut writes, mut before) = (Vec::new(), None);
    loop {
        let page = store.writes(before, 5).await.expect("a page");
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        writes.extend(page);
    }
    let mut found = Vec::new();
    for write in &writes {
        found.push(store.write(write.id).await.expect("read"));
    }
    let (mut due, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.due(end, cursor, 3).await.expect("a page");
        let Some(last) = page.last() else { break };
        cursor = DueCursor::of(last);
        due.extend(page);
    }
    let backlog = store.backlog(Timestamp::from_millis(0)..=NOW).await;
    let backlog = backlog.expect("counted");
    Contents {
        locks: known,
        listed: store.locks(Some(lock_id(1)), 4).await.expect("a page"),
        events,
        log,
        writes,
        found,
        due,
        backlog: (backlog.intents, backlog.open, backlog.unconfirmed),
    }
}

/// The next change of a lock: a prepared write is committed, an open one is settled, or a new one is prepared.
fn next_save(snapshot: &LockSnapshot, id: u128, random: &mut fastrand::Rng) -> Option<Save> {
    let limits = Limits::default();
    if let Some(write) = snapshot.prepared() {
        let version = ShadowVersion(random.u64(1..1000));
        return Some(policy::commit(snapshot, write, version, &[], &limits, NOW).1);
    }
    let open = snapshot.open().next().filter(|_| random.bool());
    let Some(write) = open else {
        let index = random.u64(0..8);
        return Some(prepared(snapshot, id, slot(&format!("key-{id}"), Some(index))).1);
    };
    let index = write.slot.index.expect("an index");
    let reported = ReportedResult {
        thing: &write.thing,
        shadow_version: None,
        outcome: &DeviceOutcome::Succeeded {
            slot: ReportedSlot::Index(index),
        },
        entry_remains: random.bool(),
    };
    match policy::decide_report(snapshot, Some(write), &reported, &limits, NOW) {
        ReportDecision::Record(_, save) => Some(save),
        _ => None,
    }
}

/// The store has the same content as one in memory, wherever its changes are: only in the log, partly or all in the tables, saved by
/// another process, or left by one that has crashed.
#[tokio::test]
async fn reads_are_the_same_whether_changes_are_in_the_log_or_in_the_tables() {
    const LOCKS: u64 = 6;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (folder, copies) = (
        TempDir::new().expect("a folder"),
        TempDir::new().expect("a folder"),
    );
    let mut path = file(&folder);
    let expected = InMemoryLockRepo::new(Arc::new(ManualTimer::default()));
    let mut stores = vec![open(&path)];
    let locks: Vec<_> = (1..=LOCKS).map(|id| created(lock_id(id))).collect();
    expected.import(locks.clone()).await.expect("imported");
    stores[0].import(locks).await.expect("imported");
    for n in 1..=250 {
        let id = lock_id(random.u64(1..=LOCKS));
        let snapshot = expected.load(id).await.expect("loaded").expect("a lock");
        let store = random.choice(&stores).expect("a store").clone();
        if let Some(save) = next_save(&snapshot, n, &mut random) {
            store.save(save.clone()).await.expect("saved");
            expected.save(save.clone()).await.expect("saved");
            assert_eq!(store.save(save).await, Err(RepoError::Stale));
        }
        match random.u32(0..60) {
            0 => stores.push(open(&path)),
            1 => stores.truncate(1),
            2 => {
                stores.clear();
                stores.push(open(&path));
            }
            3 => {
                let next = copies.path().join(n.to_string());
                std::fs::create_dir(&next).expect("a folder");
                path = copy_as_after_a_crash(&path, &next);
                stores = vec![open(&path)];
            }
            4 => {
                let copy = copies.path().join(format!("{n}.sqlite"));
                let conn = Connection::open(&path).expect("the file");
                conn.execute("VACUUM INTO ?1", [copy.to_str()])
                    .expect("copied");
                assert_eq!(
                    contents(&open(&copy), LOCKS).await,
                    contents(&expected, LOCKS).await
                );
            }
            // Some changes are applied to the tables meanwhile, and some are not.
            5..10 => tokio::time::sleep(Duration::from_millis(random.u64(50..300))).await,
            10..20 => {
                let store = random.choice(&stores).expect("a store");
                assert_eq!(
                    contents(store, LOCKS).await,
                    contents(&expected, LOCKS).await
                );
            }
            _ => {}
        }
    }
    for store in &stores {
        assert_eq!(
            contents(store, LOCKS).await,
            contents(&expected, LOCKS).await
        );
    }
}

#[tokio::test]
async fn a_save_of_another_process_is_read_at_once() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let first = open(&path);
    fill(&first).await;
    let known = load(&first).await;
    let second = open(&path);
    assert_eq!(load(&second).await, known);
    let prepared = known.prepared().expect("a prepared write");
    let version = ShadowVersion(7);
    let (sent, save) = policy::commit(&known, prepared, version, &[], &Limits::default(), NOW);
    second.save(save.clone()).await.expect("saved");
    assert_eq!(load(&first).await, load(&second).await);
    assert_eq!(first.write(sent.id).await, Ok(Some(sent)));
    assert_eq!(first.last_position().await, second.last_position().await);
    assert_eq!(first.save(save).await, Err(RepoError::Stale));
}

/// A store that a server wrote before there was a log.
#[tokio::test]
async fn migrates_a_store_without_a_log() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let conn = Connection::open(&path).expect("a file");
    let dump = include_str!("../../tests/fixtures/locks_schema_6.sql");
    conn.execute_batch(dump).expect("a store");
    drop(conn);
    let repo = open(&path);
    let log = repo.events_after(Position::START, 100).await.expect("read");
    let positions: Vec<_> = log.iter().map(|logged| logged.position.0).collect();
    assert_eq!(positions, (1..=19).collect::<Vec<_>>());
    let named = log.iter().filter(|logged| logged.event.cause.is_some());
    assert_eq!(named.count(), 9, "the causes of the events of writes");
    for lock in [123, 124, 1001, 1002, 1003] {
        let stream = repo.events(lock_id(lock), LockVersion(1), 100).await;
        let of_lock = log
            .iter()
            .filter(|logged| logged.event.lock == lock_id(lock));
        let of_lock: Vec<_> = of_lock.map(|logged| logged.event.clone()).collect();
        assert_eq!(stream, Ok(of_lock.clone()));
        let known = repo.load(lock_id(lock)).await.expect("loaded");
        let version = of_lock.last().map(|event| event.version);
        assert_eq!(known.map(|known| known.lock.version), version);
    }
    let writes = repo.writes(None, 100).await.expect("read");
    let states: Vec<_> = writes.iter().map(|write| write.state.name()).collect();
    let expected = [
        "SUCCEEDED",
        "ABORTED",
        "SENT",
        "SUPERSEDED",
        "SUCCEEDED",
        "SUCCEEDED",
    ];
    assert_eq!(states, expected);
    let open = repo
        .load(lock_id(1001))
        .await
        .expect("loaded")
        .expect("a lock");
    assert_eq!(open.open().collect::<Vec<_>>(), [&writes[2]]);
    let scope = IdempotencyScope {
        lock: lock_id(123),
        principal: "user:demo-user+org:demo-org".into(),
        key: IdempotencyKey::new("key-a-1").expect("a key"),
    };
    let record = repo.idempotency_record(&scope).await.expect("read");
    assert_eq!(record.map(|record| record.write), Some(writes[5].id));
    let imported = repo.import(vec![created(lock_id(7))]).await;
    imported.expect("imported");
    assert_eq!(repo.last_position().await, Ok(Position(20)));
}

/// A crash at any time keeps all answered saves: here while the changes of saves that were committed together are applied in parts.
#[tokio::test]
async fn every_save_survives_a_crash_while_changes_are_applied() {
    // Each lock has two rows of tables, and a step applies 512 of them: the second one begins inside a row of the log.
    const LOCKS: u64 = 300;
    let (folder, copies) = (
        TempDir::new().expect("a folder"),
        TempDir::new().expect("a folder"),
    );
    let path = file(&folder);
    let timer = ManualTimer::default();
    let repo = SqliteLockRepo::open(&path, Arc::new(timer.clone())).expect("a store");
    let locks = (1..=LOCKS).map(|id| created(lock_id(id))).collect();
    repo.import(locks).await.expect("imported");
    let saves = (1..=LOCKS).map(|lock| {
        let repo = repo.clone();
        tokio::spawn(async move {
            let known = repo.load(lock_id(lock)).await.expect("loaded");
            let (_, save) = prepared(&known.expect("a lock"), u128::from(lock), slot("k", None));
            repo.save(save).await.expect("prepared");
        })
    });
    for saved in saves.collect::<Vec<_>>() {
        saved.await.expect("no panic");
    }
    let rows = Connection::open(&path).expect("the file");
    let applied = || {
        let count = "SELECT count(*) FROM locks WHERE applied_revision > 1";
        rows.query_row(count, [], |row| row.get::<_, i64>(0))
    };
    // Each number of locks that were applied, with a copy of the files at about that time.
    let mut crashes = BTreeMap::new();
    loop {
        let found = applied().expect("counted").unsigned_abs();
        crashes.entry(found).or_insert_with(|| {
            let next = copies.path().join(found.to_string());
            std::fs::create_dir(&next).expect("a folder");
            copy_as_after_a_crash(&path, &next)
        });
        if found == LOCKS {
            break;
        }
        timer.advance(Duration::from_millis(500));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("locks that were applied at a crash: {:?}", crashes.keys());
    for (found, copy) in crashes {
        let copy = open(&copy);
        let writes = copy.writes(None, 2000).await.expect("read");
        assert_eq!(writes.len() as u64, LOCKS, "{found} locks were applied");
        let backlog = copy.backlog(NOW..=NOW).await.expect("counted");
        assert_eq!(backlog.intents, LOCKS);
    }
}

#[tokio::test]
async fn a_save_that_the_tables_cannot_have_is_refused_and_stops_no_others() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    fill(&repo).await;
    let known = load(&repo).await;
    let write = known.prepared().expect("a prepared write");
    let (limits, too_large) = (Limits::default(), ShadowVersion(u64::MAX));
    let (_, save) = policy::commit(&known, write, too_large, &[], &limits, NOW);
    assert!(matches!(
        repo.save(save).await,
        Err(RepoError::Unavailable(_))
    ));
    assert_eq!(load(&repo).await, known);
    let (_, save) = policy::commit(&known, write, ShadowVersion(9), &[], &limits, NOW);
    repo.save(save).await.expect("saved");
    drop(repo);
    assert_eq!(
        load(&open(&path)).await.shadow_version,
        Some(ShadowVersion(9))
    );
}

/// Changes that no other ones follow, and those between other saves, are applied.
#[tokio::test]
async fn the_log_is_emptied_while_others_save() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    fill(&repo).await;
    let rows = Connection::open(&path).expect("the file");
    let positions = || {
        let sql = "SELECT coalesce(min(position), 0), coalesce(max(position), 0) FROM log";
        let range = rows.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        range.expect("read")
    };
    let (_, last): (i64, i64) = positions();
    let tries = async {
        for id in 100.. {
            // A save of one write each 10 ms.
            let known = load(&repo).await;
            let write = match known.prepared() {
                Some(write) => policy::abort(&known, write, &FailureReason::Unavailable, None, NOW),
                None => prepared(&known, id, slot("k", Some(5))).1,
            };
            repo.save(write).await.expect("saved");
            tokio::time::sleep(Duration::from_millis(10)).await;
            if positions().0 > last {
                return;
            }
        }
    };
    let within = Duration::from_secs(30);
    let emptied = tokio::time::timeout(within, tries).await;
    emptied.expect("the first changes are applied");
}
