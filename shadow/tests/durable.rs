//! What a file of shadows keeps, refuses and commits together.
#![cfg(feature = "durable")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use keywright_shadow::durable::{CommitError, GroupCommit};
use keywright_shadow::{Limits, MessageKind, ServiceConfig, ShadowName, ShadowService};
use rusqlite::Connection;
use serde_json::json;

/// A folder of one test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("keywright-shadow-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("shadows.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config() -> ServiceConfig {
    ServiceConfig {
        clock: Arc::new(|| 1_700_000_000),
        limits: Limits::default(),
    }
}

async fn open(folder: &Folder) -> ShadowService {
    ShadowService::open(&folder.file(), config())
        .await
        .expect("a store")
}

fn keys() -> ShadowName {
    ShadowName::named("keys").expect("a name")
}

async fn refusal(folder: &Folder) -> String {
    let opened = ShadowService::open(&folder.file(), config()).await;
    let text = opened.err().expect("refused").to_string();
    assert!(
        text.contains(&folder.file().display().to_string()),
        "{text}"
    );
    text
}

#[tokio::test]
async fn a_file_opened_again_holds_the_same() {
    let folder = Folder::new();
    let service = open(&folder).await;
    for body in [
        json!({ "state": { "desired": { "a": [1, 0.1], "b": {} } } }),
        json!({ "state": { "reported": { "x": "ü", "n": 1e-7, "big": u64::MAX } } }),
    ] {
        let body = body.to_string();
        for shadow in [keys(), ShadowName::Classic] {
            let answer = service.update("lock", &shadow, body.as_bytes()).await;
            answer.expect("accepted");
        }
    }
    service
        .delete("lock", &ShadowName::Classic, b"")
        .await
        .expect("deleted");
    let before = service.dump();
    drop(service);
    let service = open(&folder).await;
    assert_eq!(service.dump(), before);
    let versions = [(keys(), 3), (ShadowName::Classic, 4)];
    for (shadow, version) in versions {
        let next = service.update("lock", &shadow, br#"{"state":{}}"#).await;
        assert_eq!(next.expect("accepted").version, version);
    }
}

#[tokio::test]
async fn updates_at_once_leave_no_gap_and_no_twin() {
    let folder = Folder::new();
    let service = open(&folder).await;
    let mut announcements = service.subscribe_all();
    let mut tasks = Vec::new();
    for n in 0..64 {
        let service = service.clone();
        tasks.push(tokio::spawn(async move {
            let body = json!({ "state": { "desired": { "n": n } } }).to_string();
            let answer = service.update("lock", &keys(), body.as_bytes()).await;
            answer.expect("accepted").version
        }));
    }
    let mut versions = Vec::new();
    for task in tasks {
        versions.push(task.await.expect("no panic"));
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=64).collect::<Vec<u64>>());
    let mut published = Vec::new();
    while let Ok(told) = announcements.try_recv() {
        let accepted = told.message(MessageKind::UpdateAccepted);
        published.extend(accepted.map(|message| message.of.version));
    }
    assert_eq!(published, versions, "in the order of versions");
}

#[tokio::test]
async fn of_conditional_updates_at_once_one_wins() {
    let folder = Folder::new();
    let service = open(&folder).await;
    let body = br#"{"state":{"desired":{"n":1}},"version":0}"#;
    let (name, mut tasks) = (keys(), Vec::new());
    for _ in 0..16 {
        let (service, name) = (service.clone(), name.clone());
        tasks.push(tokio::spawn(async move {
            service
                .update("lock", &name, body)
                .await
                .map_err(|e| e.code)
        }));
    }
    let mut won = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(_) => won += 1,
            Err(code) => assert_eq!(code, 409),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_file_in_use_is_refused_until_its_service_is_gone() {
    let folder = Folder::new();
    let service = open(&folder).await;
    assert!(refusal(&folder).await.contains("another process"));
    drop(service);
    open(&folder).await;
}

#[tokio::test]
async fn a_corrupt_file_is_refused() {
    let folder = Folder::new();
    std::fs::write(
        folder.file(),
        b"this is no database, whatever its name".repeat(99),
    )
    .expect("written");
    assert!(refusal(&folder).await.contains("not a database"));
}

#[tokio::test]
async fn a_file_with_a_damaged_page_is_refused() {
    let folder = Folder::new();
    let service = open(&folder).await;
    let body = json!({ "state": { "desired": { "text": "x".repeat(3000) } } }).to_string();
    for n in 0..16 {
        let thing = format!("lock-{n}");
        let answer = service.update(&thing, &keys(), body.as_bytes()).await;
        answer.expect("accepted");
    }
    drop(service);
    let mut bytes = std::fs::read(folder.file()).expect("read");
    // The first page, which says whose file it is, stays.
    bytes[2048..].fill(0xa5);
    std::fs::write(folder.file(), bytes).expect("written");
    assert!(!refusal(&folder).await.is_empty());
}

#[tokio::test]
async fn a_foreign_file_and_another_schema_are_refused() {
    let folder = Folder::new();
    drop(open(&folder).await);
    let set = |pragma: &str| {
        let conn = Connection::open(folder.file()).expect("opened");
        conn.execute_batch(pragma).expect("set");
    };
    set("PRAGMA user_version = 7");
    assert!(refusal(&folder).await.contains("version 7"));
    set("PRAGMA application_id = 5");
    assert!(refusal(&folder).await.contains("another program"));
}

/// A table of unique numbers.
fn numbers(extra: &str) -> GroupCommit {
    let conn = Connection::open_in_memory().expect("opened");
    conn.execute_batch("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        .expect("made");
    conn.execute_batch(extra).expect("made");
    GroupCommit::start("numbers", conn).expect("a thread")
}

async fn count(writer: &GroupCommit) -> Result<Result<i64, rusqlite::Error>, CommitError> {
    let sql = "SELECT count(*) FROM numbers";
    writer
        .run(move |t| t.query_row(sql, [], |row| row.get(0)))
        .await
}

#[tokio::test]
async fn a_job_that_fails_or_panics_undoes_its_own_work_alone() {
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
async fn a_commit_that_fails_is_unknown_and_the_last() {
    // A deferred foreign key is checked by the commit.
    let writer = numbers(
        "PRAGMA foreign_keys = ON; CREATE TABLE uses (
            n INTEGER REFERENCES numbers(n) DEFERRABLE INITIALLY DEFERRED)",
    );
    let outcome = writer
        .run(|t| t.execute("INSERT INTO uses VALUES (9)", []))
        .await;
    assert!(matches!(outcome, Err(CommitError::Unknown(_))));
    assert!(matches!(
        count(&writer).await,
        Err(CommitError::NotApplied(_))
    ));
}

#[tokio::test]
async fn what_is_queued_is_done_before_the_last_handle_is_gone() {
    let folder = Folder::new();
    let conn = Connection::open(folder.file()).expect("opened");
    conn.execute_batch("CREATE TABLE numbers (n INTEGER)")
        .expect("made");
    let writer = GroupCommit::start("numbers", conn).expect("a thread");
    let sql = "INSERT INTO numbers VALUES (1)";
    {
        let job = writer.run(move |t| t.execute(sql, []));
        let mut job = std::pin::pin!(job);
        // Asked once, so that it is queued; then nobody waits for it.
        let waker = std::task::Waker::noop();
        let asked = job
            .as_mut()
            .poll(&mut std::task::Context::from_waker(waker));
        drop(asked);
    }
    drop(writer);
    let conn = Connection::open(folder.file()).expect("opened");
    let found: i64 = conn
        .query_row("SELECT count(*) FROM numbers", [], |row| row.get(0))
        .expect("counted");
    assert_eq!(found, 1);
}
