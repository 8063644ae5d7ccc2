//! The server over a broker, with mutual TLS and without, and what it says when it cannot be reached.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use keywright_mqtt::mosquitto::{Certificates, Mosquitto};
use keywright_tests::{Program, Shadows};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{BINARY, FAST, LOCK, eventually};
use crate::on_broker::{OnBroker, texts, tls_options};

const QUICK: [&str; 2] = ["--behaviour", "all:latency=10ms"];

#[tokio::test(flavor = "multi_thread")]
async fn over_mutual_tls_a_write_is_confirmed_by_its_lock() {
    let certificates = Certificates::new();
    let broker = Mosquitto::start_tls(&certificates);
    let world = OnBroker::start_on(broker, Some(certificates), "sandbox", &QUICK, &[]).await;
    let answer = world.write(LOCK, "my-key", 2, 20).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
    let books = world.books().await;
    books
        .check_at_rest(&[LOCK])
        .await
        .expect("the books balance");
    assert_eq!(
        books.names(LOCK).await,
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
}

/// A server that cannot reach its broker: it runs, is not ready, answers 502, and says why.
async fn refused(url: &str, options: &[String], expected: &str) {
    let folder = TempDir::new().expect("a folder");
    let mut arguments = vec!["--shadow", "mqtt", "--mqtt-broker", url];
    arguments.extend(FAST);
    arguments.extend(texts(options));
    let program = Program::start(BINARY, folder.path(), &arguments);
    let ready = program.request("GET", "/readyz").send().await;
    assert_eq!(ready.status, 503, "{options:?}");
    let body = json!({ "keyUuid": "k" });
    let answer = program.write_key(LOCK, &body).send().await;
    assert_eq!(
        (answer.status, &answer.body["reason"]),
        (502, &json!("Unavailable")),
        "{answer:?}"
    );
    let events = program.get(&format!("/locks/{LOCK}/events")).send().await;
    assert_eq!(events.body["totalEvents"], 2, "nothing was recorded");
    let log = eventually("the log says why", || async {
        let log = program.log();
        log.contains(expected).then_some(log)
    })
    .await;
    assert!(!log.contains("panic"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_trusted_or_does_not_trust_us_is_named_and_answered_with_502() {
    let certificates = Certificates::new();
    let broker = Mosquitto::start_tls(&certificates);
    let url = broker.url().to_string();
    let good = tls_options("mqtt", &certificates, "client");
    let mut wrong_authority = good.clone();
    wrong_authority[1] = certificates.path("other-ca.pem").display().to_string();
    refused(&url, &wrong_authority, "UnknownIssuer").await;
    refused(&url, &good[..2], "ertificate").await;
    refused(
        &url,
        &tls_options("mqtt", &certificates, "expired"),
        "ertificate",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_named_and_found_when_it_comes() {
    let mut broker = Mosquitto::start();
    let url = broker.url().to_string();
    broker.kill();
    refused(&url, &[], "Connection refused").await;
    let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let mut arguments = vec!["--shadow", "mqtt", "--mqtt-broker", &url];
    arguments.extend(FAST);
    let program = Program::start(BINARY, folders[0].path(), &arguments);
    broker.restart();
    // The broker is there, and nobody answers for shadows on it.
    eventually("the log says so", || async {
        program
            .log()
            .contains("no shadow service answers")
            .then_some(())
    })
    .await;
    let ready = program.request("GET", "/readyz").send().await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.text.contains("no shadow service answers"),
        "{ready:?}"
    );
    let shadows = ["--broker", &url, "--behaviour", "all:latency=0s"];
    let _shadows = Shadows::start(BINARY, "sandbox", folders[1].path(), &shadows);
    eventually("it is ready", || async {
        let answer = program.request("GET", "/readyz").send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    let body = json!({ "keyUuid": "k" });
    let answer = program
        .write_key(LOCK, &body)
        .header("Prefer", "wait=20")
        .send()
        .await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
}

#[test]
fn files_that_cannot_be_used_are_named_before_anything_starts() {
    let folder = TempDir::new().expect("a folder");
    let run = |command: &str, arguments: &[&str]| {
        let output = Command::new(BINARY)
            .arg(command)
            .args(["--data", &folder.path().display().to_string()])
            .args(arguments)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}");
        said
    };
    let key = folder.path().join("lock.key").display().to_string();
    std::fs::write(&key, "no key").expect("written");
    let mqtt = [
        "--listen",
        "127.0.0.1:0",
        "--shadow",
        "mqtt",
        "--mqtt-broker",
        "mqtts://localhost:1",
    ];
    let missing = [&mqtt[..], &["--mqtt-ca", "/nowhere/ca.pem"]].concat();
    let half = [&mqtt[..], &["--mqtt-key", &key]].concat();
    let wrong = [&mqtt[..], &["--mqtt-ca", &key]].concat();
    for command in ["check-config", "serve"] {
        assert!(run(command, &missing).contains("/nowhere/ca.pem"));
        assert!(run(command, &half).contains("go together"));
        assert!(run(command, &wrong).contains("certificates in PEM"));
    }
    assert!(run("shadow", &[]).contains("--rest ADDR, --broker URL"));
    let taken = run("shadow", &["--broker", "mqtt://user:pw@localhost"]);
    assert!(taken.contains("leave user and password out"), "{taken}");
}

/// Options by their names.
type Options<'a> = Vec<(&'a str, &'a str)>;

/// The program, run by a user who may not read everything: as root nothing is forbidden.
fn unprivileged(folder: &Path) -> Command {
    // Another user may have no way to where the program was built.
    let program = folder.join("keywright");
    crate::settings_files::copy_program(&program);
    let mut command = Command::new(program);
    if std::fs::metadata("/proc/self").expect("Linux").uid() == 0 {
        command.uid(65534).gid(65534);
    }
    command.env_clear();
    command
}

#[test]
fn a_file_that_may_not_be_read_is_named_with_permission_denied_and_exit_code_2() {
    let certificates = Certificates::new();
    let folder = TempDir::new().expect("a folder");
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("its owner may");
    };
    mode(folder.path(), 0o755);
    let file = |name: &str, bits| {
        let path = folder.path().join(name);
        std::fs::copy(certificates.path(name), &path).expect("copied");
        mode(&path, bits);
        path.display().to_string()
    };
    let (ca, other) = (file("ca.pem", 0o644), file("other-ca.pem", 0o000));
    let (certificate, key) = (file("client.pem", 0o644), file("client.key", 0o644));
    let (closed_certificate, closed_key) = (file("broker.pem", 0o000), file("broker.key", 0o000));
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("made");
    mode(&data, 0o777);
    let data = data.display().to_string();
    let broker = "mqtts://localhost:1";
    let run = |command: &[&str], prefix: &str, files: &[(&str, &str)]| {
        let mut program = unprivileged(folder.path());
        program.args(command).args(["--data", &data]);
        for (option, value) in files {
            program.arg(format!("--{prefix}-{option}")).arg(value);
        }
        let output = program.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let cases: [(&str, Options<'_>, &str); 6] = [
        (&other, vec![("ca", &other)], "Permission denied"),
        (
            &closed_key,
            vec![("certificate", &certificate), ("key", &closed_key)],
            "Permission denied",
        ),
        (
            &closed_certificate,
            vec![("certificate", &closed_certificate), ("key", &key)],
            "Permission denied",
        ),
        (
            &closed_key,
            vec![("user", "keywright"), ("password-file", &closed_key)],
            "Permission denied",
        ),
        (
            "/nowhere/client.pem",
            vec![("certificate", "/nowhere/client.pem"), ("key", &key)],
            "No such file",
        ),
        // Both can be read, and are not of one pair.
        (
            &key,
            vec![("certificate", &ca), ("key", &key)],
            "not the key of",
        ),
    ];
    for (path, files, why) in cases {
        let check = ["check-config", "--shadow", "mqtt", "--mqtt-broker", broker];
        let (code, said) = run(&check, "mqtt", &files);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(path) && said.contains(why), "{said}");
        let (code, said) = run(&["shadow", "--broker", broker], "broker", &files);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(path) && said.contains(why), "{said}");
        let serve = ["serve", "--listen", "127.0.0.1:0"];
        let serve = [&serve[..], &check[1..]].concat();
        let (code, said) = run(&serve, "mqtt", &files);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(path) && said.contains(why), "{said}");
    }
    let good = [("ca", &*ca), ("certificate", &certificate), ("key", &key)];
    let check = ["check-config", "--shadow", "mqtt", "--mqtt-broker", broker];
    let (code, said) = run(&check, "mqtt", &good);
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_shadow_service_on_a_broker_refuses_to_start() {
    let world = OnBroker::start(&QUICK, &[]).await;
    let folder = TempDir::new().expect("a folder");
    let output = Command::new(BINARY)
        .args([
            "shadow",
            "--broker",
            &world.broker.url().to_string(),
            "--data",
        ])
        .arg(folder.path())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another shadow service"), "{said}");
    let answer = world.write(LOCK, "my-key", 2, 20).await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn disordered_repeated_and_late_messages_change_nothing() {
    let disorder = [
        "--behaviour",
        "all:latency=0s,twice",
        "--disorder",
        "shuffle=80,repeat=0.5,seed=3",
    ];
    let world = OnBroker::start(&disorder, &[]).await;
    let names = world.confirmed_writes(10).await.names(LOCK).await;
    let confirmed = names.iter().filter(|name| **name == "KeyWriteConfirmed");
    assert_eq!(confirmed.count(), 10, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_may_answer_several_writes_in_one_update() {
    let world = OnBroker::start_on(Mosquitto::start(), None, "shadow", &[], &[]).await;
    let writes = [
        world.write(LOCK, "one", 1, 0).await.write_id(),
        world.write(LOCK, "two", 2, 0).await.write_id(),
        world.write(LOCK, "three", 3, 0).await.write_id(),
    ];
    let [first, second, third] = &writes;
    let answer = json!({ "state": {
        "desired": { "writeKey": { first: null, second: null, third: null } },
        "reported": { "writeKeyResult": {
            first: { "status": "SUCCEEDED", "keyIndexNumber": 1 },
            second: { "status": "SUCCEEDED", "keyIndexNumber": 2.0 },
            third: { "status": "FAILED", "reason": "Interrupted" },
        } },
    } });
    let topic = format!("$aws/things/demo-lock-{LOCK}/shadow/name/keys/update");
    world.broker.publish(&topic, &answer.to_string(), false);
    for (write, state) in [
        (first, "SUCCEEDED"),
        (second, "SUCCEEDED"),
        (third, "FAILED"),
    ] {
        world.until(write, state).await;
    }
    assert_eq!(world.status(LOCK, third).await["reason"], "DeviceError");
    let books = world.books().await;
    let balanced = books.check_at_rest(&[LOCK]).await;
    balanced.expect("the books balance");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_comes_in_several_ways_counts_once() {
    let ways = [
        "--reports",
        "mqtt",
        "--reports",
        "poll",
        "--poll-every",
        "50ms",
    ];
    let world = OnBroker::start(&["--behaviour", "all:latency=120ms,twice"], &ways).await;
    let names = world.confirmed_writes(5).await.names(LOCK).await;
    assert_eq!(
        names.len(),
        10,
        "five requests, and five confirmations: {names:?}"
    );
}
