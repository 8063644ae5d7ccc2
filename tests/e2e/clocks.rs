//! Wall clocks that are set, while servers run and between two of their lives: recovery and maintenance go by real time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::time::SystemClock;
use keywright_domain::ports::Clock;
use keywright_testkit::postgres_server::PostgresServer;
use keywright_tests::{Answer, FakeClock, Program, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{BINARY, BRISK, LOCK};

const HOUR: i64 = 3600;

/// The shadow loses the first write and what is asked of it afterwards, until the write has been answered.
const UNDECIDED: &str = "update@2-8=lose,read@2-8=lose";

/// Within this time an intent must be resolved: the lease of [`BRISK`] and five seconds, and room for a busy machine. A
/// clock that is waited for would take an hour.
const SOON: Duration = Duration::from_secs(60);

/// Runs a server under a clock, with locks that never answer.
fn start(folder: &TempDir, clock: &FakeClock, arguments: &[&str]) -> Program {
    let mut all = BRISK.to_vec();
    all.extend(arguments);
    start_with(folder, clock, &all)
}

fn start_with(folder: &TempDir, clock: &FakeClock, arguments: &[&str]) -> Program {
    let mut all = vec!["--virtual-locks", "off"];
    all.extend(arguments);
    let variables = clock.variables();
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let here = Path::new(".");
    Program::start_with(BINARY, here, folder.path(), &all, &variables)
}

/// A request with the API key, which does not expire by any clock.
fn authorized(program: &Program, method: &str, path: &str) -> Request {
    let request = program.request(method, path);
    request.header("X-API-Key", &program.api_key)
}

async fn write(program: &Program, key: &str) -> Answer {
    let body = json!({ "keyUuid": key, "keyIndexNumber": 2 });
    let path = format!("/locks/{LOCK}/WriteKey");
    authorized(program, "POST", &path).json(&body).send().await
}

/// Writes a key of which it is not known whether the shadow has it, and answers where its status is read.
async fn undecided(program: &Program) -> String {
    let answer = write(program, "k").await;
    assert_eq!(answer.status, 504, "{answer:?}");
    answer.header("location").expect("a location").to_owned()
}

async fn status(program: &Program, path: &str) -> Value {
    let answer = authorized(program, "GET", path).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// What `look` finds, as soon as it finds something.
async fn soon<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let found = tokio::time::timeout(SOON, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let found = found.await;
    found.unwrap_or_else(|_| panic!("it never came to this: {what}"))
}

async fn is_resolved(program: &Program, path: &str) {
    let state = soon("the intent is resolved", async || {
        let state = status(program, path).await["state"].clone();
        (state != "PREPARED").then_some(state)
    })
    .await;
    assert_eq!(state, "ABORTED", "its update was lost");
    assert_eq!(write(program, "next").await.status, 200);
}

async fn age_of_the_oldest_intent(program: &Program) -> f64 {
    let answer = program.request("GET", "/metrics").send().await;
    let name = "keywright_oldest_intent_age_seconds ";
    let age = answer.text.lines().find_map(|line| line.strip_prefix(name));
    age.expect("the metric").parse().expect("a number")
}

/// A server with an open intent, and the clocks that it goes by.
struct WithOpenIntent<'a> {
    folder: TempDir,
    clock: FakeClock,
    /// Where the locks are in a database that has a clock of its own.
    database: Option<&'a FakeClock>,
    program: Program,
    /// Where the status of the undecided write is read.
    path: String,
}

impl<'a> WithOpenIntent<'a> {
    async fn start(ahead: i64, store: &[&str], database: Option<&'a FakeClock>) -> Self {
        let folder = TempDir::new().expect("a folder");
        let clock = FakeClock::ahead_by(ahead);
        let program = start(&folder, &clock, &[store, &["--faults", UNDECIDED]].concat());
        let path = undecided(&program).await;
        Self {
            folder,
            clock,
            database,
            program,
            path,
        }
    }

    fn set_clocks(&self, ahead: i64) {
        self.clock.set(ahead);
        if let Some(database) = self.database {
            database.set(ahead);
        }
    }
}

/// SIGKILL with an open intent; the clock is set; restart.
async fn killed_and_restarted(
    before: i64,
    after: i64,
    store: &[&str],
    database: Option<&FakeClock>,
) {
    let mut server = WithOpenIntent::start(before, store, database).await;
    server.program.kill_only();
    server.set_clocks(after);
    let program = start(&server.folder, &server.clock, store);
    is_resolved(&program, &server.path).await;
}

/// The clock is set while a server runs that has an open intent.
async fn set_while_it_runs(before: i64, after: i64, store: &[&str], database: Option<&FakeClock>) {
    let server = WithOpenIntent::start(before, store, database).await;
    server.set_clocks(after);
    let program = &server.program;
    is_resolved(program, &server.path).await;
    if after < before {
        let seen = soon("the step is seen", async || {
            program
                .log()
                .contains("the clock was set back")
                .then_some(())
        });
        seen.await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_an_intent_of_a_killed_server_is_resolved_whatever_the_clock_says() {
    tokio::join!(
        killed_and_restarted(HOUR, 0, &[], None),
        killed_and_restarted(0, -HOUR, &[], None),
        killed_and_restarted(0, HOUR, &[], None),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_an_intent_is_resolved_whatever_the_clock_is_set_to() {
    tokio::join!(
        set_while_it_runs(0, -HOUR, &[], None),
        set_while_it_runs(0, HOUR, &[], None),
    );
}

/// A database under a clock, with a fresh database in it.
async fn database(clock: &Arc<FakeClock>) -> (Arc<PostgresServer>, String) {
    let variables = clock.variables();
    let made = tokio::task::spawn_blocking(move || {
        let server = PostgresServer::start_with(variables);
        let url = server.database();
        (Arc::new(server), url)
    });
    made.await.expect("a database")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_an_intent_of_a_killed_server_is_resolved_whatever_the_clocks_say() {
    for (before, after) in [(HOUR, 0), (0, HOUR)] {
        let clock = Arc::new(FakeClock::ahead_by(before));
        let (_server, url) = database(&clock).await;
        killed_and_restarted(before, after, &["--store", &url], Some(&clock)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_an_intent_is_resolved_whatever_the_clocks_are_set_to() {
    for (before, after) in [(0, -HOUR), (0, HOUR)] {
        let clock = Arc::new(FakeClock::ahead_by(before));
        let (_server, url) = database(&clock).await;
        set_while_it_runs(before, after, &["--store", &url], Some(&clock)).await;
    }
}

/// The database's clock jumps ahead while a replica is in the middle of a write: the other one takes nothing from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_clock_that_jumps_takes_no_lease_from_a_living_owner() {
    let clock = Arc::new(FakeClock::ahead_by(0));
    let (server, url) = database(&clock).await;
    let (first, second) = (
        TempDir::new().expect("a folder"),
        TempDir::new().expect("a folder"),
    );
    let right = FakeClock::ahead_by(0);
    let mut timing = vec!["--store", &url, "--request", "10s"];
    timing.extend(["--shadow-call", "4s", "--lease", "16s"]);
    let other = start_with(&second, &right, &timing);
    // The answer to the write's update comes when the other replica has looked for overdue intents several times.
    timing.extend(["--faults", "update@2=delay:3s"]);
    let owner = start_with(&first, &right, &timing);
    let name = url.rsplit('/').next().expect("a name").to_owned();
    let jump = async {
        soon("the intent is saved", async || {
            let (server, name) = (server.clone(), name.clone());
            let count = tokio::task::spawn_blocking(move || {
                server.psql(
                    &name,
                    "SELECT count(*) FROM writes WHERE state = 'PREPARED'",
                )
            });
            let count = count.await.expect("no panic").expect("it answers");
            (count == "1").then_some(())
        })
        .await;
        clock.set(HOUR);
        let ahead = format!(
            "SELECT clock_timestamp() > to_timestamp({})",
            SystemClock.now().as_secs() + HOUR.unsigned_abs() / 2
        );
        let (server, name) = (server.clone(), name.clone());
        let jumped = tokio::task::spawn_blocking(move || server.psql(&name, &ahead));
        assert_eq!(jumped.await.expect("no panic").as_deref(), Ok("t"));
    };
    let (answer, ()) = tokio::join!(write(&owner, "k"), jump);
    assert_eq!(answer.status, 200, "{answer:?}");
    let log = other.log();
    assert!(!log.contains("an unfinished write was recovered"), "{log}");
}

/// An intent that cannot be resolved is seen by its age, also where the clock was set back since it was saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_age_of_the_oldest_intent_grows_when_the_clock_was_set_back() {
    let (folder, clock) = (TempDir::new().expect("a folder"), FakeClock::ahead_by(HOUR));
    let program = start(
        &folder,
        &clock,
        &["--faults", "update@2-99=lose,read@2-99=lose"],
    );
    undecided(&program).await;
    program.kill();
    clock.set(0);
    let program = start(
        &folder,
        &clock,
        &["--faults", "update@1-999=lose,read@1-999=lose"],
    );
    let mut seen = 0.0;
    for _ in 0..3 {
        seen = soon("the age grows", async || {
            let age = age_of_the_oldest_intent(&program).await;
            (age > seen + 1.0).then_some(age)
        })
        .await;
    }
    assert!(seen < 600.0, "it is not counted by a wall clock: {seen}");
}
