//! A program of a test's own, with its folder.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::auth::{ApiKeyRecord, PostgresApiKeys, read_api_keys, write_api_keys};
use keywright_adapters::lock_repo::{PostgresLockRepo, SqliteLockRepo};
use keywright_adapters::postgres::{PostgresPool, PostgresSettings};
use keywright_adapters::{json, time::TokioTimer};
use keywright_domain::model::{LockVersion, RecordedEvent};
use keywright_domain::ports::LockHistory;
use keywright_sandbox::{LockMemory, read_memory};
use keywright_tests::{Answer, Program, StoreInspector};
use serde_json::Value;
use tempfile::TempDir;

use crate::replicas::Surroundings;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_keywright-under-test");

/// The lock that the demo user may write to, and the one that is somebody else's.
pub(crate) const LOCK: u64 = 123;
pub(crate) const FOREIGN: u64 = 124;

/// Shadow calls that fail fast, so that tests need not wait for the defaults.
pub(crate) const FAST: [&str; 8] = [
    "--request",
    "1500ms",
    "--shadow-call",
    "500ms",
    "--lease",
    "4s",
    "--turn",
    "1s",
];

/// Calls that fail soon, so that tests need not wait for the defaults, and not so soon that a busy machine fails them.
pub(crate) const BRISK: [&str; 8] = [
    "--request",
    "4s",
    "--shadow-call",
    "1200ms",
    "--lease",
    "8s",
    "--turn",
    "1s",
];

const GUESSING: [&str; 4] = ["--virtual-locks", "off", "--max-failures", "1000000"];

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) program: Program,
    /// Where there are several replicas.
    pub(crate) around: Option<Surroundings>,
}

/// Whether the tests are served by two replicas behind nginx.
fn are_replicas() -> bool {
    std::env::var("TEST_TOPOLOGY").is_ok_and(|topology| topology == "replicas")
}

impl World {
    /// A sandbox whose locks take no time, with these arguments besides.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        if are_replicas() {
            return Self::replicas(arguments);
        }
        let folder = TempDir::new().expect("a folder");
        let program = start(&folder, arguments);
        Self {
            folder,
            program,
            around: None,
        }
    }

    /// The same, served by two replicas behind nginx.
    pub(crate) fn replicas(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let all = quick_locks(arguments);
        let (mut around, mut programs) = Surroundings::start(BINARY, folder.path(), &all, 2);
        let shadows = around.shadows.take().expect("they were just started");
        let first = programs.remove(0);
        let program = first.behind(around.nginx.address, programs, shadows);
        Self {
            folder,
            program,
            around: Some(around),
        }
    }

    /// A sandbox whose locks never answer, where guessing is not slowed down.
    pub(crate) fn where_many_guess() -> Self {
        Self::new(&GUESSING)
    }

    /// A sandbox whose locks never answer.
    pub(crate) fn silent() -> Self {
        Self::new(&["--virtual-locks", "off"])
    }

    /// The same folder under a new process, whatever became of the old one.
    pub(crate) fn restart(self, arguments: &[&str]) -> Self {
        self.program.kill();
        let program = start(&self.folder, arguments);
        Self {
            folder: self.folder,
            program,
            around: self.around,
        }
    }

    /// The same with these locks and API keys besides; the locks never answer, and guessing is not slowed down.
    pub(crate) async fn with(self, locks: &[(&str, Value)], keys: &[ApiKeyRecord]) -> Self {
        let Some(around) = &self.around else {
            self.program.stop();
            import(self.folder.path(), locks).await;
            let path = self.folder.path().join("api-keys.json");
            let mut records = read_api_keys(&path).expect("the sandbox's keys");
            records.extend_from_slice(keys);
            write_api_keys(&path, &records).expect("written");
            return Self {
                program: start(&self.folder, &GUESSING),
                folder: self.folder,
                around: None,
            };
        };
        let settings = PostgresSettings::new(&around.database).expect("a URL");
        let database = PostgresPool::connect(&settings, Duration::from_secs(10)).await;
        let database = database.expect("the database");
        let store = PostgresLockRepo::new(database.clone(), Arc::new(TokioTimer::default()));
        store.import(events(locks)).await.expect("imported");
        let stored = PostgresApiKeys::new(database);
        let read_again = |log: &str| log.matches("the API keys have changed").count();
        let before = read_again(&self.program.log());
        stored.put(keys).await.expect("written");
        if !keys.is_empty() {
            eventually("both replicas know the keys", || async {
                (read_again(&self.program.log()) >= before + 2).then_some(())
            })
            .await;
        }
        self
    }

    pub(crate) async fn write(&self, key: &str, index: Option<u64>) -> Answer {
        let mut body = serde_json::json!({ "keyUuid": key });
        if let Some(index) = index {
            body["keyIndexNumber"] = index.into();
        }
        self.program.write_key(LOCK, &body).send().await
    }

    /// The status of a write.
    pub(crate) async fn status(&self, id: &str) -> Value {
        let path = format!("/locks/{LOCK}/writes/{id}");
        let answer = self.program.get(&path).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// The status of a write once it is in this state.
    pub(crate) async fn until(&self, id: &str, state: &str) -> Value {
        eventually(&format!("{id} is {state}"), || async {
            let status = self.status(id).await;
            (status["state"] == state).then_some(status)
        })
        .await
    }

    pub(crate) async fn books(&self) -> StoreInspector {
        match &self.around {
            None => StoreInspector::read(self.folder.path()).await,
            Some(around) => around.books().await,
        }
    }

    /// The books, in which everything has come to rest by now.
    pub(crate) async fn balanced(&self) -> StoreInspector {
        let books = self.books().await;
        let checked = books.check_at_rest(&[LOCK]).await;
        checked.expect("the books balance");
        books
    }

    /// The books, as soon as everything in them has come to rest.
    pub(crate) async fn at_rest(&self) -> StoreInspector {
        eventually("the books balance", || async {
            let books = self.books().await;
            books.check_at_rest(&[LOCK]).await.ok().map(|()| books)
        })
        .await
    }

    /// What the virtual lock holds.
    pub(crate) fn memory(&self) -> LockMemory {
        let around = self.around.as_ref().map(|a| &a.shadow_folder);
        let folder = around.unwrap_or(&self.folder);
        let path = folder.path().join("virtual-locks.sqlite");
        read_memory(&path, &format!("demo-lock-{LOCK}")).expect("the memory is read")
    }
}

fn start(folder: &TempDir, arguments: &[&str]) -> Program {
    Program::start(BINARY, folder.path(), &quick_locks(arguments))
}

fn quick_locks<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["--behaviour", "all:latency=0s"];
    all.extend(arguments);
    all
}

/// What `look` finds, as soon as it finds something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    look: impl Fn() -> F,
) -> T {
    // A minute, which only a test that fails waits for.
    for _ in 0..6000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to this: {what}");
}

/// Events of locks that the demo does not have. Each `LockCreated` starts a stream, and what follows it goes on with it.
fn events(of_locks: &[(&str, Value)]) -> Vec<RecordedEvent> {
    let mut version = 0;
    let event = |(name, data): &(&str, Value)| {
        version = if *name == "LockCreated" {
            1
        } else {
            version + 1
        };
        let event = json::read_event(name, LockVersion(version), None, data);
        event.expect("an event")
    };
    of_locks.iter().map(event).collect()
}

/// Puts locks into the store of a program that is not running.
pub(crate) async fn import(data: &Path, of_locks: &[(&str, Value)]) {
    let store = SqliteLockRepo::open(&data.join("locks.sqlite"), Arc::new(TokioTimer::default()));
    let store = store.expect("the store opens");
    store.import(events(of_locks)).await.expect("imported");
}
