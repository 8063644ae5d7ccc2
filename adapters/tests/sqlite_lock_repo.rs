//! The SQLite store keeps the contract, and what a file keeps and refuses.
#![cfg(feature = "sqlite")]

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::lock_repo::SqliteLockRepo;
use keywright_domain::model::{
    DeviceOutcome, KeyIndex, KeySlot, LockSnapshot, ReportedSlot, ShadowVersion, WorkerId, Write,
    WriteId,
};
use keywright_domain::policy;
use keywright_domain::policy::{Limits, ReportDecision, ReportedResult};
use keywright_domain::ports::{LockHistory, LockRepo, RepoError};
use keywright_testkit::lock_repo::StoreFixture;
use keywright_testkit::samples::{LEASE, NOW, created, lock_id, prepared, slot};
use keywright_testkit::{ManualTimer, lock_repo_cases};
use rusqlite::Connection;
use tempfile::TempDir;

async fn fresh() -> StoreFixture {
    let folder = TempDir::new().expect("a folder");
    let (timer, path) = (ManualTimer::default(), file(&folder));
    let repo = SqliteLockRepo::open(&path, Arc::new(timer.clone())).expect("a store");
    let store = StoreFixture::new(Arc::new(repo), move |span| {
        let _lives_as_long_as_the_test = &folder;
        timer.advance(span);
    });
    store.with_wall_clock(move |millis| {
        move_stored_leases(&path, millis);
        Box::pin(std::future::ready(()))
    })
}

/// The moments at which leases end by a wall clock, as if that had been set.
fn move_stored_leases(path: &Path, millis: i64) {
    let conn = Connection::open(path).expect("the file");
    conn.execute("UPDATE writes SET lease_until = lease_until - ?1", [millis])
        .expect("moved");
}

lock_repo_cases!(fresh);

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("locks.sqlite")
}

fn open(path: &Path) -> SqliteLockRepo {
    SqliteLockRepo::open(path, Arc::new(ManualTimer::default())).expect("a store")
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
async fn a_file_opened_again_holds_the_same() {
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
async fn the_writer_waits_for_the_disk() {
    let folder = TempDir::new().expect("a folder");
    let durability = open(&file(&folder)).durability().await;
    assert_eq!(durability, Ok(("wal".to_owned(), 2)));
}

#[tokio::test]
async fn other_files_are_refused_by_name() {
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
async fn a_newer_schema_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    drop(open(&path));
    let conn = Connection::open(&path).expect("a database");
    conn.pragma_update(None, "user_version", 99).expect("set");
    drop(conn);
    assert!(refusal(&path).contains("schema is version 99"));
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    fill(&repo).await;
    drop(repo);
    let mut bytes = std::fs::read(&path).expect("read");
    // The pages behind the schema's.
    for byte in &mut bytes[4096..] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).expect("written");
    refusal(&path);
}

/// One that would take a while to read is opened first.
#[tokio::test]
async fn a_large_file_is_checked_beside_all_else() {
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
    let sound = open(&path);
    let ended = tokio::time::timeout(Duration::from_millis(500), sound.ended()).await;
    assert!(ended.is_err(), "it is sound");
    load(&sound).await;
    drop(sound);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("a file");
    // The links of a chain of pages, far behind all that is read to open it.
    file.seek(SeekFrom::Start(60 << 20)).expect("there");
    file.write_all(&[0x5a; 8192]).expect("damaged");
    drop(file);
    let damaged = open(&path);
    load(&damaged).await;
    let ended = tokio::time::timeout(within, damaged.ended()).await;
    ended.expect("it is found");
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    fill(&repo).await;
    drop(repo);
    let whole = std::fs::read(&path).expect("read");
    // In the middle of a page, and between two.
    for length in [whole.len() / 2 + 100, 4096] {
        std::fs::write(&path, &whole[..length]).expect("cut");
        refusal(&path);
    }
}

#[tokio::test]
async fn a_row_that_is_no_value_is_an_error_with_its_place() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    fill(&repo).await;
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

/// What an earlier process left is claimed at once where no other process has the file open, and else one lease after the
/// first look of this one, however far ahead or behind the wall clock was when it was saved.
#[tokio::test]
async fn an_intent_of_an_earlier_process_is_claimed_whatever_the_clock_said() {
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
                assert_eq!(claim().await, None, "its owner may be alive");
                timer.advance(LEASE);
            }
            assert!(claim().await.is_some(), "{clock_was_ahead_by} ms ahead");
            assert_eq!(claim().await, None, "it has an owner now");
        }
    }
}

/// A process that opens the store beside an owner, and is left alone with it only later, takes nothing early.
#[tokio::test]
async fn a_store_that_was_opened_beside_an_owner_counts_its_lease() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let owner = open(&path);
    let timer = ManualTimer::default();
    let other = SqliteLockRepo::open(&path, Arc::new(timer.clone())).expect("a store");
    fill(&owner).await;
    assert_eq!(other.claim(WorkerId(8), LEASE).await, Ok(None));
    drop(owner);
    timer.advance(LEASE / 2);
    assert_eq!(other.claim(WorkerId(8), LEASE).await, Ok(None));
    timer.advance(LEASE / 2);
    let claimed = other.claim(WorkerId(8), LEASE).await;
    assert!(claimed.expect("the store answers").is_some());
}

/// A file as version 1 of the schema left it, opened by several at once.
#[tokio::test]
async fn a_file_of_the_first_schema_is_brought_up_to_date() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let repo = open(&path);
    let sent = fill(&repo).await;
    let before = load(&repo).await;
    assert_eq!((before.unfinished.len(), before.uncleared.len()), (2, 1));
    drop(repo);
    let conn = Connection::open(&path).expect("a database");
    conn.execute_batch(
        "ALTER TABLE writes DROP COLUMN anomalies; ALTER TABLE writes DROP COLUMN reported_index;
         DROP TABLE kept_answers; DROP INDEX writes_by_end; ALTER TABLE locks DROP COLUMN live;
         ALTER TABLE locks RENAME COLUMN saves TO revision;
         CREATE INDEX writes_of_a_lock ON writes (lock)
             WHERE lease_until IS NOT NULL OR attention IS NOT NULL;
         PRAGMA user_version = 1;",
    )
    .expect("as it was");
    drop(conn);
    let opening: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || open(&path))
        })
        .collect();
    for opened in opening {
        let repo = opened.join().expect("it opens");
        assert_eq!(load(&repo).await, before);
        assert_eq!(repo.write(sent.id).await, Ok(Some(sent.clone())));
    }
}

/// The bytes of a file beside the store's.
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

/// Waits until a file beside the store's has at most so many mebibytes.
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
async fn a_log_that_has_grown_is_cut_when_nobody_writes() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let _repo = with_a_lock(&path).await;
    // A reader that stays keeps the log from being written back, so that it grows.
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
async fn space_of_what_was_deleted_is_given_back() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder);
    let _repo = with_a_lock(&path).await;
    let filler = add_filler(&path, 24);
    filler.execute_batch("DELETE FROM filler").expect("deleted");
    // So many pages are kept for what comes next.
    shrinks(&path, "", 12).await;
}

#[tokio::test]
async fn nobody_else_can_read_the_files_whatever_the_folder_allows() {
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
