//! A program of a test's own, with its folder.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::lock_repo::SqliteLockRepo;
use keywright_adapters::{json, time::SystemClock};
use keywright_domain::ports::LockHistory;
use keywright_domain::values::LockVersion;
use keywright_sandbox::{LockMemory, read_memory};
use keywright_tests::{Answer, Books, Program};
use serde_json::Value;
use tempfile::TempDir;

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

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) program: Program,
}

impl World {
    /// A sandbox whose locks take no time, with these arguments besides.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let program = start(&folder, arguments);
        Self { folder, program }
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
        }
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

    pub(crate) async fn books(&self) -> Books {
        Books::read(self.folder.path()).await
    }

    /// The books, in which everything has come to rest by now.
    pub(crate) async fn balanced(&self) -> Books {
        let books = self.books().await;
        let checked = books.check_at_rest(&[LOCK]).await;
        checked.expect("the books balance");
        books
    }

    /// The books, as soon as everything in them has come to rest.
    pub(crate) async fn at_rest(&self) -> Books {
        eventually("the books balance", || async {
            let books = self.books().await;
            books.check_at_rest(&[LOCK]).await.ok().map(|()| books)
        })
        .await
    }

    /// What the virtual lock holds.
    pub(crate) fn memory(&self) -> LockMemory {
        let path = self.folder.path().join("virtual-locks.sqlite");
        read_memory(&path, &format!("demo-lock-{LOCK}")).expect("the memory is read")
    }
}

fn start(folder: &TempDir, arguments: &[&str]) -> Program {
    let mut all = vec!["--behaviour", "all:latency=0s"];
    all.extend(arguments);
    Program::start(BINARY, folder.path(), &all)
}

/// What `look` finds, as soon as it finds something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    look: impl Fn() -> F,
) -> T {
    for _ in 0..1500 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to this: {what}");
}

/// Puts events of locks that the demo does not have into the store of a program that is not running. Each
/// `LockCreated` starts a stream, and what follows it goes on with it.
pub(crate) async fn import(data: &Path, events: &[(&str, Value)]) {
    let mut version = 0;
    let mut recorded = Vec::new();
    for (name, data) in events {
        version = if *name == "LockCreated" {
            1
        } else {
            version + 1
        };
        let event = json::read_event(name, LockVersion(version), None, data);
        recorded.push(event.expect("an event"));
    }
    let store = SqliteLockRepo::open(&data.join("locks.sqlite"), Arc::new(SystemClock));
    let store = store.expect("the store opens");
    store.import(recorded).await.expect("imported");
}
