//! A server with its locks in PostgreSQL: start-up, outages and faults of the database.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keywright_mqtt::mosquitto::Mosquitto;
use keywright_testkit::postgres_server::{PgBouncer, PostgresServer};
use keywright_tests::{Answer, Program, Request};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{BINARY, LOCK, SHORT_TIMEOUTS, eventually, log_with};

async fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

/// Starts a PostgreSQL server of this test's own, because the test stops it.
async fn database() -> (Arc<PostgresServer>, String) {
    let server = Arc::new(spawn_blocking(PostgresServer::start).await);
    let creating = server.clone();
    let url = spawn_blocking(move || creating.database()).await;
    (server, url)
}

fn arguments(url: &str) -> Vec<&str> {
    let mut all = vec!["--store", url, "--virtual-locks", "off"];
    all.extend(SHORT_TIMEOUTS);
    all
}

async fn write(program: &Program, key: &str) -> Answer {
    let body = json!({ "keyUuid": key, "keyIndexNumber": 2 });
    program.write_key(LOCK, &body).send().await
}

async fn is_ready(program: &Program) -> bool {
    program.request("GET", "/readyz").send().await.status == 200
}

/// Starts a server without waiting until it is ready.
fn spawn_server(data: &Path, url: &str) -> (Child, SocketAddr) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let process = Command::new(BINARY)
        .args(["serve", "--listen", &address.to_string(), "--data"])
        .arg(data)
        .args(arguments(url))
        .args(["--drain-delay", "0s"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    (process.expect("the program is there"), address)
}

/// A database that accepts connections and never answers, for instance because its machine hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_checks_are_answered_while_the_database_is_silent() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let database = silent.local_addr().expect("its address");
    let folder = TempDir::new().expect("a folder");
    let url = format!("postgres://keywright@{database}/keywright");
    let (mut process, address) = spawn_server(folder.path(), &url);
    let get = |path: &'static str| async move {
        let mut connection = keywright_tests::Connection::open(address).await.ok()?;
        let request = Request::new(address, "GET", path);
        connection.send(request).await.ok()
    };
    let alive = eventually("it is alive", || get("/healthz")).await;
    assert_eq!(alive.status, 200, "{alive:?}");
    let ready = get("/readyz").await.expect("an answer");
    let message = "The service is starting; its database has not answered yet";
    assert_eq!(
        (ready.status, &ready.body["message"]),
        (503, &json!(message))
    );
    process.kill().expect("it is running");
    process.wait().expect("it has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_checks_are_answered_while_the_server_waits_for_the_database() {
    let (server, url) = database().await;
    let stopping = server.clone();
    spawn_blocking(move || stopping.stop("fast")).await;
    let folder = TempDir::new().expect("a folder");
    let (mut server_process, address) = spawn_server(folder.path(), &url);
    let get = |path: &'static str| async move {
        let mut connection = keywright_tests::Connection::open(address).await.ok()?;
        let request = keywright_tests::Request::new(address, "GET", path);
        connection.send(request).await.ok()
    };
    let alive = eventually("it is alive", || get("/healthz")).await;
    assert_eq!(alive.status, 200, "{alive:?}");
    for path in ["/readyz", "/locks/123/details"] {
        let refused = get(path).await.expect("an answer");
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (503, Some("1")),
            "{refused:?}"
        );
        let message = "The service is starting; its database has not answered yet";
        assert_eq!(refused.body["message"], message);
    }
    // Each answer has a request id: the client's, a generated one, or one for an unreadable request.
    let mut connection = keywright_tests::Connection::open(address)
        .await
        .expect("a connection");
    let request = keywright_tests::Request::new(address, "GET", "/readyz");
    let named = connection
        .send(request.header("X-Request-Id", "my-probe"))
        .await;
    let named = named.expect("an answer");
    assert_eq!(named.header("x-request-id"), Some("my-probe"), "{named:?}");
    for path in ["/healthz", "/readyz", "/nowhere"] {
        let answer = get(path).await.expect("an answer");
        let id = answer.header("x-request-id").unwrap_or_default();
        assert_eq!(id.len(), 16, "{path}: {answer:?}");
    }
    let mut unreadable = tokio::net::TcpStream::connect(address)
        .await
        .expect("a connection");
    let sent = unreadable.write_all(b"GARBAGE\r\n\r\n").await;
    sent.expect("sent");
    let mut refused = String::new();
    let read = unreadable.read_to_string(&mut refused).await;
    read.expect("an answer");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert!(refused.contains("\r\nx-request-id: "), "{refused}");
    let starting = server.clone();
    spawn_blocking(move || starting.restart()).await;
    eventually("it is ready", || async {
        (get("/readyz").await?.status == 200).then_some(())
    })
    .await;
    server_process.kill().expect("it is running");
    server_process.wait().expect("it has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_recovers_after_an_outage_of_the_database() {
    let (server, url) = database().await;
    let folder = TempDir::new().expect("a folder");
    let program = Program::start(BINARY, folder.path(), &arguments(&url));
    assert!(
        program.banner.contains("PostgreSQL at 127.0.0.1"),
        "{}",
        program.banner
    );
    assert_eq!(write(&program, "before").await.status, 200);

    let stopping = server.clone();
    spawn_blocking(move || stopping.stop("fast")).await;
    let refused = write(&program, "meanwhile").await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1")),
        "{refused:?}"
    );
    eventually("it is not ready", || async {
        (!is_ready(&program).await).then_some(())
    })
    .await;
    let ready = program.request("GET", "/readyz").send().await;
    let message = "The store of locks does not answer";
    assert_eq!(ready.body["message"], message);
    for path in ["/healthz", "/metrics"] {
        assert_eq!(program.request("GET", path).send().await.status, 200);
    }

    let starting = server.clone();
    spawn_blocking(move || starting.restart()).await;
    eventually("it is ready", || async {
        is_ready(&program).await.then_some(())
    })
    .await;
    let after = write(&program, "after").await;
    assert_eq!(
        (after.status, after.body["version"].as_u64()),
        (200, Some(5)),
        "{after:?}"
    );
    let details = program.get("/locks/123/events").send().await.body;
    let names: Vec<&str> = details["events"]
        .as_array()
        .expect("events")
        .iter()
        .skip(2)
        .map(|event| event["type"].as_str().expect("a type"))
        .collect();
    let expected = [
        "KeyWriteRequested",
        "KeyWriteSuperseded",
        "KeyWriteRequested",
    ];
    assert_eq!(
        names, expected,
        "no event is lost, and the 503 recorded none"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_not_ready_while_the_database_is_read_only() {
    let (server, url) = database().await;
    let folder = TempDir::new().expect("a folder");
    let program = Program::start(BINARY, folder.path(), &arguments(&url));
    assert_eq!(write(&program, "before").await.status, 200);
    let set_read_only = async |on: &'static str| {
        let server = server.clone();
        spawn_blocking(move || {
            let set = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
            server.psql("postgres", &set).expect("set");
            let reload = "SELECT pg_reload_conf()";
            server.psql("postgres", reload).expect("reloaded");
        })
        .await;
    };
    set_read_only("on").await;
    eventually("it is not ready", || async {
        (!is_ready(&program).await).then_some(())
    })
    .await;
    let refused = write(&program, "meanwhile").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    log_with(&program, &["read-only"]).await;

    set_read_only("off").await;
    eventually("it is ready", || async {
        is_ready(&program).await.then_some(())
    })
    .await;
    assert_eq!(write(&program, "after").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_shares_sessions_is_refused_at_start_up() {
    let (server, url) = database().await;
    let name = url.rsplit('/').next().unwrap_or_default().to_owned();
    let url = async |mode: &'static str| {
        let server = server.clone();
        let pooler = spawn_blocking(move || PgBouncer::start(&server, mode)).await;
        let url = pooler.url(&name);
        (pooler, url)
    };
    let folder = TempDir::new().expect("a folder");
    let (_pooler, shared) = url("transaction").await;
    let (ended, text) = Program::fail(BINARY, folder.path(), &["--store", &shared]);
    assert_eq!(ended, Some(1), "{text}");
    assert!(
        text.contains("PgBouncer") && text.contains("pool_mode=transaction"),
        "{text}"
    );
    let (_pooler, session_pooled) = url("session").await;
    let program = Program::start(BINARY, folder.path(), &arguments(&session_pooled));
    assert_eq!(write(&program, "through-the-pooler").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_waits_for_its_database_at_start_up() {
    let (server, url) = database().await;
    let stopping = server.clone();
    spawn_blocking(move || stopping.stop("fast")).await;
    let folder = TempDir::new().expect("a folder");
    let data = folder.path().to_owned();
    let starting = spawn_blocking(move || Program::start(BINARY, &data, &arguments(&url)));
    let starting = tokio::spawn(starting);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!starting.is_finished(), "it waits");
    let restarting = server.clone();
    spawn_blocking(move || restarting.restart()).await;
    let program = starting.await.expect("it starts");
    assert!(
        program.log().contains("waiting for the database"),
        "{}",
        program.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_databases_are_refused_with_the_reason() {
    let server = spawn_blocking(PostgresServer::shared).await;
    let making = server.clone();
    let (foreign, newer) = spawn_blocking(move || (making.database(), making.database())).await;
    let name = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    server
        .psql(&name(&foreign), "CREATE TABLE locks (x int)")
        .expect("made");
    let schema =
        "CREATE TABLE keywright_schema (version int); INSERT INTO keywright_schema VALUES (99)";
    server.psql(&name(&newer), schema).expect("made");
    let folder = TempDir::new().expect("a folder");
    for (url, code, part) in [
        (foreign.as_str(), 1, "belongs to another program"),
        (newer.as_str(), 1, "its schema is version 99"),
        (
            "postgres://me:secret@127.0.0.1/db",
            2,
            "no place for a password",
        ),
        ("mysql://127.0.0.1/db", 2, "an example is postgres://"),
    ] {
        let (ended, text) = Program::fail(BINARY, folder.path(), &["--store", url]);
        assert_eq!(ended, Some(code), "{url}: {text}");
        assert!(
            text.contains(part) && !text.contains("secret"),
            "{url}: {text}"
        );
    }
    let without_shadows = ["--sandbox", "off", "--store", "postgres://me@127.0.0.1/db"];
    let (ended, text) = Program::fail(BINARY, folder.path(), &without_shadows);
    assert_eq!(ended, Some(2), "{text}");
    assert!(text.contains("set --shadow to aws or mqtt"), "{text}");
    let password = ["--store-password-file", "/no/such/file"];
    let (ended, text) = Program::fail(BINARY, folder.path(), &password);
    assert_eq!(ended, Some(2), "{text}");
    assert!(text.contains("name one with --store"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_api_key_is_refused_by_every_replica() {
    let server = spawn_blocking(PostgresServer::shared).await;
    let making = server.clone();
    let url = spawn_blocking(move || making.database()).await;
    // Two replicas that share only the database.
    let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let programs = folders
        .each_ref()
        .map(|folder| Program::start(BINARY, folder.path(), &arguments(&url)));
    let command = |arguments: &[&str]| {
        let output = Command::new(BINARY)
            .args(arguments)
            .args(["--store", &url])
            .output()
            .expect("the program is there");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let key = command(&["api-key", "issue", "--super"]);
    let status = async |program: &Program| {
        let request = program.request("GET", "/locks/123/details");
        request.header("X-API-Key", &key).send().await.status
    };
    let wait_for_both = async |expected: u16| {
        eventually(&format!("both answer {expected}"), || async {
            let both = [status(&programs[0]).await, status(&programs[1]).await];
            (both == [expected; 2]).then_some(())
        })
        .await;
    };
    wait_for_both(200).await;
    command(&["api-key", "revoke", "--super"]);
    wait_for_both(401).await;
    let list = command(&["api-key", "list", "--json"]);
    assert!(
        list.contains("lastUsedAt") || list.contains("\"live\":false"),
        "{list}"
    );
    let locks = command(&["lock", "list", "--json"]);
    assert_eq!(
        locks.lines().count(),
        2,
        "the demo locks are in the database: {locks}"
    );
}

/// Publishes `count` accepted updates of a shadow, each of which reports the result of a write.
fn publish_reports(broker: &Mosquitto, count: usize) {
    let topic = "$aws/things/demo-lock-123/shadow/name/keys/update/accepted";
    let mut publishing = Command::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port().to_string(),
            "-q",
            "1",
        ])
        .args(["-t", topic, "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub is installed: scripts/test does that");
    let write = "00000000-0000-4000-8000-000000000001";
    let report = json!({
        "state": { "reported": { "writeKeyResult": { write: { "status": "SUCCEEDED", "keyIndexNumber": 1 } } } },
        "version": 1,
    });
    let mut lines = publishing.stdin.take().expect("piped");
    for _ in 0..count {
        writeln!(lines, "{report}").expect("it reads");
    }
    drop(lines);
    assert!(publishing.wait().expect("it ends").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_reports_are_counted_and_their_warnings_are_rate_limited() {
    let (server, url) = database().await;
    let broker = Mosquitto::start();
    let broker_url = broker.url().to_string();
    let folder = TempDir::new().expect("a folder");
    let mut all = arguments(&url);
    all.extend(["--shadow", "mqtt", "--mqtt-broker", &broker_url]);
    let program = Program::start(BINARY, folder.path(), &all);
    let metric = async |name: &str| -> u64 {
        let answer = program.request("GET", "/metrics").send().await;
        let start = format!("{name} ");
        let value = answer
            .text
            .lines()
            .find_map(|line| line.strip_prefix(&start));
        value.expect("the metric").parse().expect("a number")
    };
    // A settled report shows that the server has subscribed.
    let settled = r#"keywright_reports_total{outcome="contradiction"}"#;
    eventually("a report is settled", || async {
        publish_reports(&broker, 1);
        (metric(settled).await > 0).then_some(())
    })
    .await;
    assert_eq!(metric("keywright_omitted_reports_total").await, 0);

    let stopping = server.clone();
    spawn_blocking(move || stopping.stop("fast")).await;
    publish_reports(&broker, 7000);
    let warnings = || {
        let log = program.log();
        let lines = log
            .lines()
            .filter(|line| line.contains("reports of locks were left out"));
        let count = |line: &str| -> u64 {
            let rest = line.split("count=").nth(1).expect("a count");
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().expect("a number")
        };
        lines.map(count).collect::<Vec<u64>>()
    };
    let omitted = eventually("the warnings cover all dropped reports", || async {
        let omitted = metric("keywright_omitted_reports_total").await;
        (omitted > 1000 && warnings().iter().sum::<u64>() == omitted).then_some(omitted)
    })
    .await;
    let warnings = u64::try_from(warnings().len()).expect("few");
    assert!(warnings * 100 < omitted, "{warnings} warnings of {omitted}");
}
