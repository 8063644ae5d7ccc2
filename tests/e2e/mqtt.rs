//! The server over MQTT: TLS, unreachable brokers, unusable files, and repeated or reordered messages.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use keywright_mqtt::mosquitto::{Certificates, Mosquitto};
use keywright_tests::{Program, Shadows};
use serde_json::json;
use tempfile::TempDir;

use crate::broker_harness::{BrokerHarness, as_strs, tls_options};
use crate::harness::{BINARY, LOCK, VERY_SHORT_TIMEOUTS, eventually};

const FAST_LOCKS: [&str; 2] = ["--behaviour", "all:latency=10ms"];

#[tokio::test(flavor = "multi_thread")]
async fn a_write_over_mutual_tls_is_confirmed() {
    let certificates = Certificates::new();
    let broker = Mosquitto::start_tls(&certificates);
    let harness =
        BrokerHarness::start_on(broker, Some(certificates), "sandbox", &FAST_LOCKS, &[]).await;
    let answer = harness.write(LOCK, "my-key", 2, 20).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
    let store = harness.store().await;
    store
        .check_when_idle(&[LOCK])
        .await
        .expect("the invariants hold");
    assert_eq!(
        store.event_names_after_creation(LOCK).await,
        ["KeyWriteRequested", "KeyWriteConfirmed"]
    );
}

/// Asserts that a server that cannot reach its broker runs, is not ready, answers 502, and logs the reason.
async fn assert_unreachable(url: &str, options: &[String], expected: &str) {
    let folder = TempDir::new().expect("a folder");
    let mut arguments = vec!["--shadow", "mqtt", "--mqtt-broker", url];
    arguments.extend(VERY_SHORT_TIMEOUTS);
    arguments.extend(as_strs(options));
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
    let log = eventually("the reason is logged", || async {
        let log = program.log();
        log.contains(expected).then_some(log)
    })
    .await;
    assert!(!log.contains("panic"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_tls_authentication_is_a_502_with_a_logged_reason() {
    let certificates = Certificates::new();
    let broker = Mosquitto::start_tls(&certificates);
    let url = broker.url().to_string();
    let good = tls_options("mqtt", &certificates, "client");
    let mut wrong_authority = good.clone();
    wrong_authority[1] = certificates.path("other-ca.pem").display().to_string();
    assert_unreachable(&url, &wrong_authority, "UnknownIssuer").await;
    assert_unreachable(&url, &good[..2], "ertificate").await;
    assert_unreachable(
        &url,
        &tls_options("mqtt", &certificates, "expired"),
        "ertificate",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_broker_is_a_502_until_it_starts() {
    let mut broker = Mosquitto::start();
    let url = broker.url().to_string();
    broker.kill();
    assert_unreachable(&url, &[], "Connection refused").await;
    let folders = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let mut arguments = vec!["--shadow", "mqtt", "--mqtt-broker", &url];
    arguments.extend(VERY_SHORT_TIMEOUTS);
    let program = Program::start(BINARY, folders[0].path(), &arguments);
    broker.restart();
    // The broker runs without a shadow service.
    eventually("the missing shadow service is logged", || async {
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
fn unusable_files_are_refused_at_start_up() {
    let folder = TempDir::new().expect("a folder");
    let run = |command: &str, arguments: &[&str]| {
        let output = Command::new(BINARY)
            .arg(command)
            .args(["--data", &folder.path().display().to_string()])
            .args(arguments)
            .output()
            .expect("it runs");
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}");
        printed
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

/// Names and values of options.
type Options<'a> = Vec<(&'a str, &'a str)>;

/// A command that runs the program as an unprivileged user, because root may read every file.
fn unprivileged(folder: &Path) -> Command {
    // The user may not have access to the build folder.
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
fn an_unreadable_file_is_refused_with_its_path_and_exit_code_2() {
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
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), printed)
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
        // Both are readable, but the key does not belong to the certificate.
        (
            &key,
            vec![("certificate", &ca), ("key", &key)],
            "not the key of",
        ),
    ];
    for (path, files, why) in cases {
        let check = ["check-config", "--shadow", "mqtt", "--mqtt-broker", broker];
        let (code, printed) = run(&check, "mqtt", &files);
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains(path) && printed.contains(why), "{printed}");
        let (code, printed) = run(&["shadow", "--broker", broker], "broker", &files);
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains(path) && printed.contains(why), "{printed}");
        let serve = ["serve", "--listen", "127.0.0.1:0"];
        let serve = [&serve[..], &check[1..]].concat();
        let (code, printed) = run(&serve, "mqtt", &files);
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains(path) && printed.contains(why), "{printed}");
    }
    let good = [("ca", &*ca), ("certificate", &certificate), ("key", &key)];
    let check = ["check-config", "--shadow", "mqtt", "--mqtt-broker", broker];
    let (code, printed) = run(&check, "mqtt", &good);
    assert_eq!(code, Some(0), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_shadow_service_on_a_broker_refuses_to_start() {
    let harness = BrokerHarness::start(&FAST_LOCKS, &[]).await;
    let folder = TempDir::new().expect("a folder");
    let output = Command::new(BINARY)
        .args([
            "shadow",
            "--broker",
            &harness.broker.url().to_string(),
            "--data",
        ])
        .arg(folder.path())
        .output()
        .expect("it runs");
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("another shadow service"), "{printed}");
    let answer = harness.write(LOCK, "my-key", 2, 20).await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reordered_and_repeated_messages_count_once() {
    let disorder = [
        "--behaviour",
        "all:latency=0s,twice",
        "--disorder",
        "shuffle=80,repeat=0.5,seed=3",
    ];
    let harness = BrokerHarness::start(&disorder, &[]).await;
    let names = harness
        .confirmed_writes(10)
        .await
        .event_names_after_creation(LOCK)
        .await;
    let confirmed = names.iter().filter(|name| **name == "KeyWriteConfirmed");
    assert_eq!(confirmed.count(), 10, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_update_may_report_several_results() {
    let harness = BrokerHarness::start_on(Mosquitto::start(), None, "shadow", &[], &[]).await;
    let writes = [
        harness.write(LOCK, "one", 1, 0).await.write_id(),
        harness.write(LOCK, "two", 2, 0).await.write_id(),
        harness.write(LOCK, "three", 3, 0).await.write_id(),
    ];
    let [first, second, third] = &writes;
    let report = json!({ "state": {
        "desired": { "writeKey": { first: null, second: null, third: null } },
        "reported": { "writeKeyResult": {
            first: { "status": "SUCCEEDED", "keyIndexNumber": 1 },
            second: { "status": "SUCCEEDED", "keyIndexNumber": 2.0 },
            third: { "status": "FAILED", "reason": "Interrupted" },
        } },
    } });
    let topic = format!("$aws/things/demo-lock-{LOCK}/shadow/name/keys/update");
    harness.broker.publish(&topic, &report.to_string(), false);
    for (write, state) in [
        (first, "SUCCEEDED"),
        (second, "SUCCEEDED"),
        (third, "FAILED"),
    ] {
        harness.wait_for_state(write, state).await;
    }
    assert_eq!(harness.status(LOCK, third).await["reason"], "DeviceError");
    let store = harness.store().await;
    let checked = store.check_when_idle(&[LOCK]).await;
    checked.expect("the invariants hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_over_several_adapters_counts_once() {
    let adapters = [
        "--reports",
        "mqtt",
        "--reports",
        "poll",
        "--poll-every",
        "50ms",
    ];
    let harness =
        BrokerHarness::start(&["--behaviour", "all:latency=120ms,twice"], &adapters).await;
    let names = harness
        .confirmed_writes(5)
        .await
        .event_names_after_creation(LOCK)
        .await;
    assert_eq!(
        names.len(),
        10,
        "five requests, and five confirmations: {names:?}"
    );
}
