//! Tests that intents are recovered, that leases and ages stay correct after a wall clock is set forward or back, and that a step
//! back is detected.

use std::path::Path;
use std::sync::Arc;

use keywright_adapters::time::SystemClock;
use keywright_domain::ports::Clock;
use keywright_testkit::postgres_server::PostgresServer;
use keywright_tests::{Answer, FakeClock, Program, Request, StoreInspector};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{BINARY, LOCK, SHORT_TIMEOUTS, eventually};

const HOUR: i64 = 3600;

/// Update 1 creates the shadow. The next four updates and reads time out, each after the 1.2 s of [`SHORT_TIMEOUTS`], and change nothing.
/// Four of them take longer than a request (4 s), so the first write is answered 504.
const LOSE_FIRST_WRITE: &str = "update@2-5=delay:1m,read@2-5=delay:1m";

fn start_with_short_timeouts(folder: &TempDir, clock: &FakeClock, arguments: &[&str]) -> Program {
    let mut all = SHORT_TIMEOUTS.to_vec();
    all.extend(arguments);
    start_with(folder, clock, &all)
}

/// Starts a server under this clock, without virtual locks.
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

/// A request with the API key: unlike a token, it does not expire when the clock is set forward.
fn authorized(program: &Program, method: &str, path: &str) -> Request {
    let request = program.request(method, path);
    request.header("X-API-Key", &program.api_key)
}

async fn write(program: &Program, key: &str) -> Answer {
    let body = json!({ "keyUuid": key, "keyIndexNumber": 2 });
    let path = format!("/locks/{LOCK}/WriteKey");
    authorized(program, "POST", &path).json(&body).send().await
}

/// Writes a key with an unknown outcome. Returns the path of the write's status.
async fn write_undecided(program: &Program) -> String {
    let answer = write(program, "k").await;
    assert_eq!(answer.status, 504, "{answer:?}");
    answer.header("location").expect("a location").to_owned()
}

async fn status(program: &Program, path: &str) -> Value {
    let answer = authorized(program, "GET", path).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Asserts that the undecided write is aborted and that the lock then accepts a write. The lease of [`SHORT_TIMEOUTS`] is 8 s, and
/// [`eventually`] waits a minute; a server that measured the lease by a wall clock that was set back would need an hour.
async fn assert_aborted_and_lock_usable(program: &Program, path: &str) {
    let state = eventually("the intent is resolved", || async {
        let state = status(program, path).await["state"].clone();
        (state != "PREPARED").then_some(state)
    })
    .await;
    assert_eq!(state, "ABORTED", "the lost update must lead to ABORTED");
    assert_eq!(write(program, "next").await.status, 200);
}

async fn age_of_the_oldest_intent(program: &Program) -> f64 {
    let answer = program.request("GET", "/metrics").send().await;
    let name = "keywright_oldest_intent_age_seconds ";
    let age = answer.text.lines().find_map(|line| line.strip_prefix(name));
    age.expect("the metric").parse().expect("a number")
}

/// A server with an open intent, and its clocks.
struct ServerWithOpenIntent<'a> {
    folder: TempDir,
    clock: FakeClock,
    /// The clock of the database, if there is one.
    database_clock: Option<&'a FakeClock>,
    program: Program,
    /// The path of the status of the undecided write.
    path: String,
}

impl<'a> ServerWithOpenIntent<'a> {
    async fn start(offset: i64, store: &[&str], database_clock: Option<&'a FakeClock>) -> Self {
        let folder = TempDir::new().expect("a folder");
        let clock = FakeClock::ahead_by(offset);
        let arguments = [store, &["--faults", LOSE_FIRST_WRITE]].concat();
        let program = start_with_short_timeouts(&folder, &clock, &arguments);
        let path = write_undecided(&program).await;
        Self {
            folder,
            clock,
            database_clock,
            program,
            path,
        }
    }

    fn set_clocks(&self, offset: i64) {
        self.clock.set(offset);
        if let Some(database_clock) = self.database_clock {
            database_clock.set(offset);
        }
    }
}

/// Kills a server with an open intent, sets the clocks, and starts it again.
async fn kill_set_clocks_and_restart(
    offset_before: i64,
    offset_after: i64,
    store: &[&str],
    database_clock: Option<&FakeClock>,
) {
    let mut server = ServerWithOpenIntent::start(offset_before, store, database_clock).await;
    server.program.kill_only();
    server.set_clocks(offset_after);
    let program = start_with_short_timeouts(&server.folder, &server.clock, store);
    assert_aborted_and_lock_usable(&program, &server.path).await;
}

/// Sets the clocks while a server with an open intent runs.
async fn set_clocks_while_running(
    offset_before: i64,
    offset_after: i64,
    store: &[&str],
    database_clock: Option<&FakeClock>,
) {
    let server = ServerWithOpenIntent::start(offset_before, store, database_clock).await;
    server.set_clocks(offset_after);
    let program = &server.program;
    assert_aborted_and_lock_usable(program, &server.path).await;
    if offset_after < offset_before {
        eventually("the step is detected", || async {
            let detected = program.log().contains("the clock was set back");
            detected.then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_an_intent_of_a_killed_server_is_resolved_after_a_clock_step() {
    tokio::join!(
        kill_set_clocks_and_restart(HOUR, 0, &[], None),
        kill_set_clocks_and_restart(0, -HOUR, &[], None),
        kill_set_clocks_and_restart(0, HOUR, &[], None),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_an_intent_is_resolved_despite_a_clock_step() {
    tokio::join!(
        set_clocks_while_running(0, -HOUR, &[], None),
        set_clocks_while_running(0, HOUR, &[], None),
    );
}

/// Starts a PostgreSQL server under this clock, with an empty database.
async fn start_database(clock: &Arc<FakeClock>) -> (Arc<PostgresServer>, String) {
    let variables = clock.variables();
    let made = tokio::task::spawn_blocking(move || {
        let server = PostgresServer::start_with(variables);
        let url = server.database();
        (Arc::new(server), url)
    });
    made.await.expect("a database")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_an_intent_of_a_killed_server_is_resolved_after_a_clock_step() {
    for (offset_before, offset_after) in [(HOUR, 0), (0, HOUR)] {
        let clock = Arc::new(FakeClock::ahead_by(offset_before));
        let (_server, url) = start_database(&clock).await;
        kill_set_clocks_and_restart(
            offset_before,
            offset_after,
            &["--store", &url],
            Some(&clock),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_an_intent_is_resolved_despite_a_clock_step() {
    for (offset_before, offset_after) in [(0, -HOUR), (0, HOUR)] {
        let clock = Arc::new(FakeClock::ahead_by(offset_before));
        let (_server, url) = start_database(&clock).await;
        set_clocks_while_running(
            offset_before,
            offset_after,
            &["--store", &url],
            Some(&clock),
        )
        .await;
    }
}

/// The database's clock jumps ahead while a replica writes; the other replica does not take the write over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lease_ends_when_the_database_clock_jumps() {
    let clock = Arc::new(FakeClock::ahead_by(0));
    let (server, url) = start_database(&clock).await;
    let (first, second) = (
        TempDir::new().expect("a folder"),
        TempDir::new().expect("a folder"),
    );
    let correct = FakeClock::ahead_by(0);
    let mut timing = vec!["--store", &url, "--request", "10s"];
    timing.extend(["--shadow-call", "4s", "--lease", "16s"]);
    let other = start_with(&second, &correct, &timing);
    // During the delayed update, the other replica looks for expired leases several times.
    timing.extend(["--faults", "update@2=delay:3s"]);
    let writer = start_with(&first, &correct, &timing);
    let name = url.rsplit('/').next().expect("a name").to_owned();
    let jump = async {
        eventually("the intent is saved", || async {
            let (server, name) = (server.clone(), name.clone());
            let count = tokio::task::spawn_blocking(move || {
                server.psql(
                    &name,
                    "SELECT count(*) FROM writes WHERE state = 'PREPARED'",
                )
            });
            let count = count.await.expect("no panic").expect("psql answers");
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
    let (answer, ()) = tokio::join!(write(&writer, "k"), jump);
    assert_eq!(answer.status, 200, "{answer:?}");
    let log = other.log();
    assert!(!log.contains("an unfinished write was recovered"), "{log}");
}

/// The age metric of an intent keeps growing after the wall clock was set back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_age_of_the_oldest_intent_grows_when_the_clock_was_set_back() {
    let (folder, clock) = (TempDir::new().expect("a folder"), FakeClock::ahead_by(HOUR));
    let program = start_with_short_timeouts(
        &folder,
        &clock,
        &["--faults", "update@2-99=lose,read@2-99=lose"],
    );
    write_undecided(&program).await;
    program.kill();
    clock.set(0);
    let program = start_with_short_timeouts(
        &folder,
        &clock,
        &["--faults", "update@1-999=lose,read@1-999=lose"],
    );
    let mut last_age = 0.0;
    for _ in 0..3 {
        last_age = eventually("the age grows", || async {
            let age = age_of_the_oldest_intent(&program).await;
            (age > last_age + 1.0).then_some(age)
        })
        .await;
    }
    assert!(
        last_age < 600.0,
        "the age must be measured on the monotonic clock, but is {last_age} s"
    );
}

/// A token is valid until its `exp` by the clock that the process sees, also if it was verified before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_refused_after_its_end_by_the_clock_of_the_process() {
    let (folder, clock) = (TempDir::new().expect("a folder"), FakeClock::ahead_by(0));
    let program = start_with_short_timeouts(&folder, &clock, &[]);
    let status = async |program: &Program| {
        let details = program.get(&format!("/locks/{LOCK}/details"));
        details.send().await.status
    };
    assert_eq!(status(&program).await, 200);
    assert_eq!(status(&program).await, 200, "from the cache");
    // Tokens of the sandbox are valid for a year.
    clock.set(366 * 24 * HOUR);
    assert_eq!(status(&program).await, 401);
    clock.set(0);
    assert_eq!(status(&program).await, 200);
}

/// Steps of the clock in both directions change the times of events, but neither their versions nor their positions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_and_positions_do_not_jump_with_the_clock() {
    let (folder, clock) = (TempDir::new().expect("a folder"), FakeClock::ahead_by(0));
    let program = start_with_short_timeouts(&folder, &clock, &[]);
    for offset in [HOUR, -HOUR, 0, 2 * HOUR, HOUR] {
        clock.set(offset);
        let answer = write(&program, &format!("k{offset}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let store = StoreInspector::open(folder.path()).await;
    let events = store.events(LOCK).await;
    let versions: Vec<u64> = events.iter().map(|event| event.version.0).collect();
    assert_eq!(versions, (1..=versions.len() as u64).collect::<Vec<_>>());
    assert!(
        !events.is_sorted_by_key(|event| event.time),
        "the clock was set back"
    );
    let log = store.log().await;
    let logged = log.iter().map(|logged| &logged.event);
    let of_lock = logged.filter(|event| event.lock == events[0].lock);
    assert!(of_lock.eq(&events), "{log:?}");
}
