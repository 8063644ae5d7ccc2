//! Restarts, shutdown, full disks, and start-up errors.

use std::time::Duration;

use keywright_tests::{Connection, Program, Request, Shadows};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{BINARY, Harness, LOCK, eventually};

#[tokio::test]
async fn a_write_to_an_offline_lock_survives_a_restart() {
    let harness = Harness::new(&["--behaviour", "123:offline=always"]);
    let id = harness.write("k", Some(2)).await.write_id();
    let harness = harness.restart(&[]);
    harness.wait_for_state(&id, "SUCCEEDED").await;
    assert_eq!(harness.memory().keys.get(&2).map(String::as_str), Some("k"));
    let names = harness.store().await.event_names_after_creation(LOCK).await;
    assert_eq!(names, ["KeyWriteRequested", "KeyWriteConfirmed"]);
}

#[tokio::test]
async fn a_report_during_a_restart_is_found_on_the_shadow() {
    let harness = Harness::silent();
    let id = harness.write("k", Some(2)).await.write_id();
    // The lock reports while the server is down.
    let Harness {
        folder,
        program,
        environment,
    } = harness;
    program.stop();
    let store = folder.path().join("shadows.sqlite");
    let config = keywright_shadow::ServiceConfig {
        clock: std::sync::Arc::new(|| 1_780_000_000),
        limits: keywright_shadow::Limits::default(),
    };
    let service = keywright_shadow::ShadowService::open(&store, config)
        .await
        .expect("shadows");
    let report = json!({ "state": {
        "desired": { "writeKey": { &id: null } },
        "reported": { "writeKeyResult": { &id: { "status": "SUCCEEDED", "keyIndexNumber": 2 } } }
    } });
    let name = keywright_shadow::ShadowName::Named("keys".into());
    let reported = service
        .update("demo-lock-123", &name, report.to_string().as_bytes())
        .await;
    reported.expect("accepted");
    drop(service);
    let program = Program::start(BINARY, folder.path(), &["--virtual-locks", "off"]);
    let harness = Harness {
        folder,
        program,
        environment,
    };
    harness.wait_for_state(&id, "SUCCEEDED").await;
}

#[tokio::test]
async fn credentials_and_open_writes_survive_a_restart() {
    let harness = Harness::silent();
    let (token, api_key) = (
        harness.program.token.clone(),
        harness.program.api_key.clone(),
    );
    let answer = harness.write("k", Some(2)).await;
    let harness = harness.restart(&["--virtual-locks", "off"]);
    assert_eq!(
        (&harness.program.token, &harness.program.api_key),
        (&token, &api_key)
    );
    let again = harness.write("k", Some(2)).await;
    assert_eq!((again.status, &again.body["event"]), (200, &json!(null)));
    assert_eq!(again.write_id(), answer.write_id());
    let by_key = harness
        .program
        .request("GET", "/locks/123/details")
        .header("X-API-Key", &api_key);
    assert_eq!(by_key.send().await.status, 200);
}

#[tokio::test]
async fn lost_sandbox_credentials_are_replaced() {
    let harness = Harness::silent();
    let old = harness.program.api_key.clone();
    std::fs::remove_file(harness.folder.path().join("sandbox.env")).expect("removed");
    let harness = harness.restart(&["--virtual-locks", "off"]);
    assert_ne!(harness.program.api_key, old);
    for (key, status) in [(&harness.program.api_key, 200), (&old, 401)] {
        let request = harness
            .program
            .request("GET", "/locks/123/details")
            .header("X-API-Key", key);
        assert_eq!(request.send().await.status, status);
    }
}

#[tokio::test]
#[cfg(unix)]
async fn secret_files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let harness = Harness::silent();
    let mode = |path: &std::path::Path| {
        let metadata = path.metadata().expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    for file in ["sandbox.env", "token-key.pk8"] {
        assert_eq!(mode(&harness.folder.path().join(file)), 0o600, "{file}");
    }
    let made = harness.folder.path().join("made");
    let _program = Program::start(BINARY, &made, &["--virtual-locks", "off"]);
    assert_eq!(mode(&made), 0o700, "stores contain personal data");
    let hashes =
        std::fs::read_to_string(harness.folder.path().join("api-keys.json")).expect("hashes");
    assert!(!hashes.contains(&harness.program.api_key[8..46]));
}

#[tokio::test]
async fn the_printed_curl_command_works() {
    let harness = Harness::new(&[]);
    let line = harness
        .program
        .banner
        .lines()
        .find(|l| l.starts_with("curl "))
        .expect("a line")
        .to_owned();
    let output = std::process::Command::new("sh")
        .args(["-c", &line])
        .output()
        .expect("a shell");
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer: serde_json::Value =
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(
        (&answer["success"], &answer["version"]),
        (&json!(true), &json!(3))
    );
    eventually("the write is confirmed", || async {
        let names = harness.store().await.event_names_after_creation(LOCK).await;
        (names == ["KeyWriteRequested", "KeyWriteConfirmed"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_finishes_requests_in_progress() {
    let harness = Harness::new(&["--faults", "put@1=delay:600ms"]);
    let writing = tokio::spawn(
        harness
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k" }))
            .send(),
    );
    eventually("the write is in progress", || async {
        harness.program.log().contains("PREPARED").then_some(())
    })
    .await;
    let Harness {
        folder, program, ..
    } = harness;
    let (status, log) = program.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("stopped"), "{log}");
    assert_eq!(writing.await.expect("answered").status, 200);
    let store = keywright_tests::StoreInspector::open(folder.path()).await;
    store.check(&[LOCK]).await.expect("the invariants hold");
    assert_eq!(
        store.event_names_after_creation(LOCK).await.first(),
        Some(&"KeyWriteRequested")
    );
}

#[tokio::test]
async fn a_shutdown_answers_requests_that_wait_for_a_lock() {
    let Harness {
        folder, program, ..
    } = Harness::silent();
    let request = program.write_key(LOCK, &json!({ "keyUuid": "k" }));
    let waiting = tokio::spawn(request.header("Prefer", "wait=30").send());
    eventually("it is sent", || async {
        program.log().contains("SENT").then_some(())
    })
    .await;
    let (status, log) = program.stop();
    assert!(status.success() && log.contains("INFO stopped"), "{log}");
    let answer = waiting.await.expect("answered");
    assert_eq!(
        (answer.status, &answer.body["write"]["state"]),
        (200, &json!("SENT"))
    );
    drop(folder);
}

#[tokio::test]
async fn a_second_signal_ends_the_server_at_once() {
    let Harness {
        folder, program, ..
    } = Harness::new(&["--faults", "put@1=delay:8s", "--virtual-locks", "off"]);
    let writing = tokio::spawn(program.write_key(LOCK, &json!({ "keyUuid": "k" })).send());
    eventually("the write is in progress", || async {
        program.log().contains("PREPARED").then_some(())
    })
    .await;
    program.terminate();
    eventually("the server is stopping", || async {
        program.log().contains("stopping").then_some(())
    })
    .await;
    let (status, log) = program.stop();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("stopped at once"), "{log}");
    assert!(writing.await.is_err(), "the client gets no answer");
    drop(folder);
}

/// Writes a script that runs the program with a file size limit of 400 KiB, which simulates a full disk.
fn script_with_file_size_limit(folder: &std::path::Path) -> String {
    let limited = format!("ulimit -f 400; exec {BINARY} \"$@\"");
    let script = folder.join("limited.sh");
    std::fs::write(&script, format!("#!/bin/bash\ntrap '' XFSZ\n{limited}\n")).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&script, mode).expect("runnable");
    script.to_str().expect("a path").to_owned()
}

#[tokio::test]
async fn a_full_disk_ends_the_shadow_service_with_a_logged_reason() {
    let folder = TempDir::new().expect("a folder");
    let script = script_with_file_size_limit(folder.path());
    // The command `shadow` starts no virtual locks, so the file of the shadows is the first to reach the limit.
    let rest = ["--rest", "127.0.0.1:0"];
    let mut shadows = Shadows::start(&script, "shadow", folder.path(), &rest);
    let address = shadows.rest.expect("REST is served");
    let mut sent = 0;
    let status = loop {
        if let Some(status) = shadows.ended() {
            break status;
        }
        assert!(sent < 4000, "the process does not end");
        let body = json!({ "state": { "desired": { "n": sent, "text": "x".repeat(2000) } } });
        let update = Request::new(address, "POST", "/things/door/shadow?name=keys").json(&body);
        if let Ok(mut connection) = Connection::open(address).await {
            let _ = connection.send(update).await;
            sent += 1;
        }
    };
    let log = shadows.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        log.contains("the store of shadows can no longer be written; the log says why"),
        "{log}"
    );
    assert_cause_of_full_disk(&log);
}

fn assert_cause_of_full_disk(log: &str) {
    // SQLite reports a file size limit and a full disk with different texts.
    let cause = |line: &str| {
        line.contains("cannot be stored") && (line.contains("disk I/O") || line.contains("full"))
    };
    assert!(log.lines().any(cause), "{log}");
}

#[tokio::test]
async fn a_full_disk_ends_the_server_without_losing_a_200() {
    let Harness {
        folder, program, ..
    } = Harness::silent();
    drop(program);
    let script = script_with_file_size_limit(folder.path());
    let mut program = Program::start(&script, folder.path(), &["--virtual-locks", "off"]);
    let (mut answered, mut written) = (0, Vec::new());
    let status = loop {
        if let Some(status) = program.ended() {
            break status;
        }
        assert!(answered < 4000, "the process does not end");
        let key = format!("k{answered}");
        let body = json!({ "keyUuid": key, "keyIndexNumber": answered % 4 });
        let Ok(mut connection) = Connection::open(program.address).await else {
            continue;
        };
        if let Ok(answer) = connection.send(program.write_key(LOCK, &body)).await {
            answered += 1;
            let version = answer.body["version"].as_u64();
            written.extend((answer.status == 200).then_some((version, key)));
        }
    };
    let log = program.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        log.contains("can no longer be written") && log.contains("start again"),
        "{log}"
    );
    assert_cause_of_full_disk(&log);
    let program = Program::start(BINARY, folder.path(), &["--virtual-locks", "off"]);
    assert_eq!(program.get("/readyz").send().await.status, 200);
    // No 200 is lost.
    assert!(written.len() > 5, "{written:?}");
    for (version, key) in written {
        let version = version.expect("a version");
        let page = program.get(&format!(
            "/locks/{LOCK}/events?page={}",
            version.div_ceil(10)
        ));
        let page = page.send().await.body;
        let events = page["events"].as_array().expect("events");
        let event = events.iter().find(|event| event["version"] == version);
        let event = event.unwrap_or_else(|| panic!("{key} has no event {version}"));
        assert_eq!(event["event"]["data"]["keyUuid"], key);
    }
}

#[tokio::test]
async fn a_data_folder_serves_one_server_for_any_kind_of_shadow() {
    let harness = Harness::silent();
    let elsewhere = [
        "--shadow",
        "aws",
        "--aws-endpoint",
        "http://127.0.0.1:1",
        "--aws-region",
        "eu-west-1",
    ];
    let behind_a_broker = ["--shadow", "mqtt", "--mqtt-broker", "mqtt://127.0.0.1:1"];
    for second in [&[][..], &elsewhere, &behind_a_broker] {
        let (code, text) = Program::fail(BINARY, harness.folder.path(), second);
        assert_eq!(code, Some(1), "{text}");
        let folder = harness.folder.path().display().to_string();
        assert!(
            text.contains("another process") && text.contains(&folder),
            "{text}"
        );
    }
    // Commands work beside the server, and another server starts after it has ended.
    let output = std::process::Command::new(BINARY)
        .args(["lock", "list", "--data"])
        .arg(harness.folder.path())
        .output()
        .expect("the program is there");
    assert!(output.status.success(), "{output:?}");
    let Harness {
        folder, program, ..
    } = harness;
    program.kill();
    let _program = Program::start(BINARY, folder.path(), &behind_a_broker);
    let (code, text) = Program::fail(BINARY, folder.path(), &behind_a_broker);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another process"), "{text}");
}

#[tokio::test]
async fn files_are_private_in_a_readable_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = TempDir::new().expect("a folder");
    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open_to_all).expect("set");
    let program = Program::start(BINARY, folder.path(), &["--behaviour", "all:latency=0s"]);
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 2 });
    let written = program.write_key(LOCK, &body).header("Prefer", "wait=10");
    assert_eq!(written.send().await.body["write"]["state"], "SUCCEEDED");
    let mut names = Vec::new();
    for file in std::fs::read_dir(folder.path()).expect("the folder") {
        let file = file.expect("a file");
        let mode = file.metadata().expect("its mode").permissions().mode() & 0o777;
        let name = file.file_name().to_string_lossy().into_owned();
        assert_eq!(mode, 0o600, "{name}");
        names.push(name);
    }
    for name in [
        "locks.sqlite",
        "locks.sqlite-wal",
        "shadows.sqlite",
        "virtual-locks.sqlite",
        "sandbox.env",
    ] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} in {names:?}"
        );
    }
}

#[tokio::test]
async fn an_unwritable_folder_is_named() {
    // Not even root can create a file there.
    for folder in ["/proc/keywright", "/proc"] {
        let (code, text) = Program::fail(BINARY, std::path::Path::new(folder), &[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(folder), "{text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let harness = Harness::silent();
    let folder = TempDir::new().expect("a folder");
    let address = harness.program.address.to_string();
    let (code, text) = Program::fail(BINARY, folder.path(), &["--listen", &address]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains(&address) && text.contains("--listen"),
        "{text}"
    );
}

#[tokio::test]
async fn an_invalid_store_file_is_named() {
    let folder = TempDir::new().expect("a folder");
    for file in [
        "locks.sqlite",
        "shadows.sqlite",
        "virtual-locks.sqlite",
        "api-keys.json",
        "token-key.pk8",
    ] {
        let path = folder.path().join(file);
        std::fs::write(&path, "this is none of ours ".repeat(300)).expect("written");
        let (code, text) = Program::fail(BINARY, folder.path(), &[]);
        assert_eq!(code, Some(1), "{file}: {text}");
        assert!(text.contains(file), "{file}: {text}");
        std::fs::remove_file(path).expect("removed");
    }
}

#[tokio::test]
async fn invalid_settings_are_refused_by_name() {
    let folder = TempDir::new().expect("a folder");
    for (arguments, part) in [
        (vec!["--lease", "5s"], "lease"),
        (vec!["--lease", "soon"], "--lease"),
        (vec!["--faults", "put@1=explode"], "put@1=explode"),
        (vec!["--behaviour", "123:fast"], "fast"),
        (vec!["--behaviour", "fast"], "LOCK:LIST"),
        (vec!["--faults", "put@3-1=refuse"], "put@3-1=refuse"),
        (vec!["--behaviour", "999:twice"], "999"),
        (vec!["--behaviour", "123:"], "offline=5s"),
        (vec!["--request", "0s"], "request must be more than zero"),
        (vec!["--max-open-writes", "0"], "max open writes"),
        (vec!["--max-in-flight", "0"], "--max-in-flight"),
        (vec!["--virtual-locks", "maybe"], "--virtual-locks"),
        (vec!["--log-level", "loud"], "--log-level"),
        (vec!["--no-such-flag"], "--no-such-flag"),
        (vec!["fly"], "fly"),
    ] {
        let (code, text) = Program::fail(BINARY, folder.path(), &arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    assert_eq!(
        std::fs::read_dir(folder.path())
            .expect("the folder")
            .count(),
        0,
        "no file was created"
    );
}

#[tokio::test]
async fn volatile_stores_do_not_survive_a_restart() {
    let arguments = ["--store", "memory", "--shadow", "volatile"];
    let harness = Harness::new(&arguments);
    let written = harness.write("k", Some(2)).await;
    assert_eq!(written.status, 200, "{written:?}");
    let names = std::fs::read_dir(harness.folder.path()).expect("a folder");
    let names = names.map(|file| file.expect("a file").file_name());
    let kept = names.filter(|name| name.to_string_lossy().starts_with("locks.sqlite"));
    assert_eq!(kept.count(), 0);
    let harness = harness.restart(&arguments);
    let again = harness.write("k", Some(2)).await;
    let version = |answer: &keywright_tests::Answer| answer.body["version"].clone();
    assert_eq!(
        version(&again),
        version(&written),
        "the store is empty again"
    );
}

#[tokio::test]
async fn during_the_drain_delay_requests_are_accepted_and_readyz_is_503() {
    let harness = Harness::new(&["--virtual-locks", "off", "--drain-delay", "4s"]);
    let ready = || harness.program.request("GET", "/readyz").send();
    assert_eq!(ready().await.status, 200);
    harness.program.terminate();
    let refused = eventually("the server is not ready", || async {
        let answer = ready().await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(refused.text.contains("being stopped"), "{refused:?}");
    let written = harness.write("while it drains", None).await;
    assert_eq!(
        (written.status, written.header("connection")),
        (200, Some("close")),
        "{written:?}"
    );
    let Harness { mut program, .. } = harness;
    for _ in 0..6000 {
        if program.ended().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ended = program.ended().expect("the server ends");
    assert!(ended.success(), "{}", program.log());
}

#[tokio::test]
async fn sighup_is_ignored() {
    let harness = Harness::silent();
    harness.program.signal("HUP");
    eventually("the signal is logged", || async {
        harness.program.log().contains("SIGHUP").then_some(())
    })
    .await;
    assert_eq!(harness.write("k", None).await.status, 200);
}

/// The file has the tables of an earlier version. See the same events in `adapters/tests/sqlite_lock_repo.rs`.
#[tokio::test]
async fn a_store_of_an_earlier_version_is_served() {
    let folder = TempDir::new().expect("a folder");
    let earlier = rusqlite::Connection::open(folder.path().join("locks.sqlite")).expect("a file");
    let dump = include_str!("../fixtures/locks_schema_6.sql");
    earlier.execute_batch(dump).expect("a store");
    drop(earlier);
    let program = Program::start(BINARY, folder.path(), &["--locks", "3"]);
    let feed = program.get("/events?limit=17").send().await;
    let events = feed.body["events"].as_array().expect("events").clone();
    let cursors = events.iter().map(|event| event["cursor"].as_str());
    let cursors: Vec<_> = cursors.map(|cursor| cursor.expect("a cursor")).collect();
    // Lock 124 has positions 3 and 4, and belongs to somebody else.
    let positions = [1, 2].into_iter().chain(5..=19);
    let expected: Vec<String> = positions.map(|n| format!("{n:016x}")).collect();
    assert_eq!(cursors, expected);
    let last = &events[16];
    assert_eq!(
        (&last["id"], &last["type"]),
        (&json!("1003-4"), &json!("KeyWriteConfirmed"))
    );
    let body = json!({ "keyUuid": "new", "keyIndexNumber": 3 });
    let written = program.write_key(1001, &body).send().await;
    assert_eq!(written.status, 200, "{written:?}");
    // Lock 1001 had 5 events. Its open write has been superseded or, after its time, has expired.
    assert_eq!(written.body["version"], 7, "{written:?}");
}
