//! A server for one test, with its data folder.

use std::future::Future;
use std::path::{Path, PathBuf};
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

use crate::replica_environment::ReplicaEnvironment;

/// The folder of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_keywright-under-test");

/// The demo user's lock.
pub(crate) const LOCK: u64 = 123;
/// A lock of another user.
pub(crate) const FOREIGN: u64 = 124;

/// Short timeouts, for tests in which shadow calls fail.
pub(crate) const VERY_SHORT_TIMEOUTS: [&str; 8] = [
    "--request",
    "1500ms",
    "--shadow-call",
    "500ms",
    "--lease",
    "4s",
    "--turn",
    "1s",
];

/// Timeouts shorter than the defaults and long enough for a busy machine.
pub(crate) const SHORT_TIMEOUTS: [&str; 8] = [
    "--request",
    "4s",
    "--shadow-call",
    "1200ms",
    "--lease",
    "8s",
    "--turn",
    "1s",
];

const MANY_FAILURES: [&str; 4] = ["--virtual-locks", "off", "--max-failures", "1000000"];

pub(crate) struct Harness {
    pub(crate) folder: TempDir,
    pub(crate) program: Program,
    /// The processes beside the replicas; `None` with a single server.
    pub(crate) environment: Option<ReplicaEnvironment>,
}

/// Whether the tests run against two replicas behind nginx.
fn uses_replicas() -> bool {
    std::env::var("TEST_TOPOLOGY").is_ok_and(|topology| topology == "replicas")
}

impl Harness {
    /// A sandbox with these arguments. Its virtual locks answer at once unless an argument says otherwise.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        if uses_replicas() {
            return Self::replicas(arguments);
        }
        let folder = TempDir::new().expect("a folder");
        let program = start(&folder, arguments);
        Self {
            folder,
            program,
            environment: None,
        }
    }

    /// As [`Harness::new`], with two replicas behind nginx.
    pub(crate) fn replicas(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let all = with_fast_locks(arguments);
        let (mut environment, mut programs) =
            ReplicaEnvironment::start(BINARY, folder.path(), &all, 2);
        let shadows = environment
            .shadows
            .take()
            .expect("the environment has just been started");
        let first = programs.remove(0);
        let program = first.behind(environment.nginx.address, programs, shadows);
        Self {
            folder,
            program,
            environment: Some(environment),
        }
    }

    /// A sandbox without virtual locks that does not limit failed credentials.
    pub(crate) fn with_many_failures() -> Self {
        Self::new(&MANY_FAILURES)
    }

    /// A sandbox whose locks never answer.
    pub(crate) fn silent() -> Self {
        Self::new(&["--virtual-locks", "off"])
    }

    /// A token of another user of the sandbox.
    pub(crate) fn token_of(&self, user: &str) -> String {
        let mut command = std::process::Command::new(BINARY);
        let command = command.args(["token", "--user", user, "--data"]);
        let output = command.arg(self.folder.path()).output();
        let output = output.expect("the program is there");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Kills the server, and starts a new one on the same folder.
    pub(crate) fn restart(self, arguments: &[&str]) -> Self {
        self.program.kill();
        let program = start(&self.folder, arguments);
        Self {
            folder: self.folder,
            program,
            environment: self.environment,
        }
    }

    /// Adds locks and API keys. A single server is restarted as by [`Harness::with_many_failures`].
    pub(crate) async fn with(self, locks: &[(&str, Value)], keys: &[ApiKeyRecord]) -> Self {
        let Some(environment) = &self.environment else {
            self.program.stop();
            import(self.folder.path(), locks).await;
            let path = self.folder.path().join("api-keys.json");
            let mut records = read_api_keys(&path).expect("the sandbox's keys");
            records.extend_from_slice(keys);
            write_api_keys(&path, &records).expect("written");
            return Self {
                program: start(&self.folder, &MANY_FAILURES),
                folder: self.folder,
                environment: None,
            };
        };
        let settings = PostgresSettings::new(&environment.database).expect("a URL");
        let database = PostgresPool::connect(&settings, Duration::from_secs(10)).await;
        let database = database.expect("the database");
        let store = PostgresLockRepo::new(database.clone(), Arc::new(TokioTimer::default()));
        store.import(events(locks)).await.expect("imported");
        let stored = PostgresApiKeys::new(database);
        let reloads = |log: &str| log.matches("the API keys have changed").count();
        let before = reloads(&self.program.log());
        stored.put(keys).await.expect("written");
        if !keys.is_empty() {
            eventually("both replicas have reloaded the API keys", || async {
                (reloads(&self.program.log()) >= before + 2).then_some(())
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

    /// Waits until a write is in this state, and returns its status.
    pub(crate) async fn wait_for_state(&self, id: &str, state: &str) -> Value {
        eventually(&format!("{id} is {state}"), || async {
            let status = self.status(id).await;
            (status["state"] == state).then_some(status)
        })
        .await
    }

    pub(crate) async fn store(&self) -> StoreInspector {
        match &self.environment {
            None => StoreInspector::open(self.folder.path()).await,
            Some(environment) => environment.store().await,
        }
    }

    /// The store, in which all invariants must hold now.
    pub(crate) async fn consistent_store(&self) -> StoreInspector {
        let store = self.store().await;
        let checked = store.check_when_idle(&[LOCK]).await;
        checked.expect("the invariants hold");
        store
    }

    /// Waits until all invariants hold and nothing is in progress, and returns the store.
    pub(crate) async fn store_when_idle(&self) -> StoreInspector {
        eventually("the invariants hold", || async {
            let store = self.store().await;
            store.check_when_idle(&[LOCK]).await.ok().map(|()| store)
        })
        .await
    }

    /// The memory of the virtual lock.
    pub(crate) fn memory(&self) -> LockMemory {
        let environment = self.environment.as_ref().map(|a| &a.shadow_folder);
        let folder = environment.unwrap_or(&self.folder);
        let path = folder.path().join("virtual-locks.sqlite");
        read_memory(&path, &format!("demo-lock-{LOCK}")).expect("the memory is read")
    }
}

fn start(folder: &TempDir, arguments: &[&str]) -> Program {
    Program::start(BINARY, folder.path(), &with_fast_locks(arguments))
}

fn with_fast_locks<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["--behaviour", "all:latency=0s"];
    all.extend(arguments);
    all
}

/// The log of a program, once it contains all of these texts. A line may be written after the answer or the save that it is about.
pub(crate) async fn log_with(program: &Program, texts: &[&str]) -> String {
    let missing = |log: &str| texts.iter().find(|text| !log.contains(**text)).copied();
    for _ in 0..600 {
        let log = program.log();
        if missing(&log).is_none() {
            return log;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = program.log();
    panic!("{:?} is not logged: {log}", missing(&log));
}

/// Polls `find` until it returns a value, for a minute at least.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    find: impl Fn() -> F,
) -> T {
    // Only a failing test waits this long.
    for _ in 0..6000 {
        if let Some(found) = find().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("timed out waiting for: {what}");
}

/// Events for the streams of new locks. Each `LockCreated` starts a stream; the events after it belong to the same lock.
fn events(events_of_locks: &[(&str, Value)]) -> Vec<RecordedEvent> {
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
    events_of_locks.iter().map(event).collect()
}

/// Imports locks into the SQLite store of a stopped server.
pub(crate) async fn import(data: &Path, events_of_locks: &[(&str, Value)]) {
    let store = SqliteLockRepo::open(&data.join("locks.sqlite"), Arc::new(TokioTimer::default()));
    let store = store.expect("the store opens");
    store
        .import(events(events_of_locks))
        .await
        .expect("imported");
}
