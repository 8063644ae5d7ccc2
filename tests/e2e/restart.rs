//! What outlives a process, and what does not start.

use std::time::Duration;

use keywright_tests::{Connection, Program, Request, Shadows};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{BINARY, LOCK, World, eventually};

#[tokio::test]
async fn a_write_to_an_offline_lock_outlives_the_process() {
    let world = World::new(&["--behaviour", "123:offline=always"]);
    let id = world.write("k", Some(2)).await.write_id();
    let world = world.restart(&[]);
    world.until(&id, "SUCCEEDED").await;
    assert_eq!(world.memory().keys.get(&2).map(String::as_str), Some("k"));
    let names = world.books().await.names(LOCK).await;
    assert_eq!(names, ["KeyWriteRequested", "KeyWriteConfirmed"]);
}

#[tokio::test]
async fn a_report_that_nobody_heard_is_found_on_the_shadow_at_the_next_start() {
    let world = World::silent();
    let id = world.write("k", Some(2)).await.write_id();
    // The lock reports while the service is down.
    let World {
        folder,
        program,
        around,
    } = world;
    program.stop();
    let books = folder.path().join("shadows.sqlite");
    let config = keywright_shadow::ServiceConfig {
        clock: std::sync::Arc::new(|| 1_780_000_000),
        limits: keywright_shadow::Limits::default(),
    };
    let service = keywright_shadow::ShadowService::open(&books, config)
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
    let world = World {
        folder,
        program,
        around,
    };
    world.until(&id, "SUCCEEDED").await;
}

#[tokio::test]
async fn credentials_and_answers_outlive_the_process() {
    let world = World::silent();
    let (token, api_key) = (world.program.token.clone(), world.program.api_key.clone());
    let answer = world.write("k", Some(2)).await;
    let world = world.restart(&["--virtual-locks", "off"]);
    assert_eq!(
        (&world.program.token, &world.program.api_key),
        (&token, &api_key)
    );
    let again = world.write("k", Some(2)).await;
    assert_eq!((again.status, &again.body["event"]), (200, &json!(null)));
    assert_eq!(again.write_id(), answer.write_id());
    let by_key = world
        .program
        .request("GET", "/locks/123/details")
        .header("X-API-Key", &api_key);
    assert_eq!(by_key.send().await.status, 200);
}

#[tokio::test]
async fn credentials_that_were_lost_are_made_anew() {
    let world = World::silent();
    let old = world.program.api_key.clone();
    std::fs::remove_file(world.folder.path().join("sandbox.env")).expect("removed");
    let world = world.restart(&["--virtual-locks", "off"]);
    assert_ne!(world.program.api_key, old);
    for (key, status) in [(&world.program.api_key, 200), (&old, 401)] {
        let request = world
            .program
            .request("GET", "/locks/123/details")
            .header("X-API-Key", key);
        assert_eq!(request.send().await.status, status);
    }
}

#[tokio::test]
#[cfg(unix)]
async fn secrets_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::silent();
    let mode = |path: &std::path::Path| {
        let metadata = path.metadata().expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    for file in ["sandbox.env", "token-key.pk8"] {
        assert_eq!(mode(&world.folder.path().join(file)), 0o600, "{file}");
    }
    let made = world.folder.path().join("made");
    let _program = Program::start(BINARY, &made, &["--virtual-locks", "off"]);
    assert_eq!(
        mode(&made),
        0o700,
        "stores hold the names of keys and people"
    );
    let hashes =
        std::fs::read_to_string(world.folder.path().join("api-keys.json")).expect("hashes");
    assert!(!hashes.contains(&world.program.api_key[8..46]));
}

#[tokio::test]
async fn the_printed_curl_line_works_as_it_stands() {
    let world = World::new(&[]);
    let line = world
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
    eventually("it is confirmed", || async {
        let names = world.books().await.names(LOCK).await;
        (names == ["KeyWriteRequested", "KeyWriteConfirmed"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_in_progress_is_finished_before_the_end() {
    let world = World::new(&["--faults", "put@1=delay:600ms"]);
    let writing = tokio::spawn(
        world
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k" }))
            .send(),
    );
    eventually("it is in progress", || async {
        world.program.log().contains("PREPARED").then_some(())
    })
    .await;
    let World {
        folder, program, ..
    } = world;
    let (status, log) = program.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("stopped"), "{log}");
    assert_eq!(writing.await.expect("answered").status, 200);
    let books = keywright_tests::StoreInspector::read(folder.path()).await;
    books.check(&[LOCK]).await.expect("the books balance");
    assert_eq!(books.names(LOCK).await.first(), Some(&"KeyWriteRequested"));
}

#[tokio::test]
async fn who_waits_for_a_lock_is_answered_when_the_service_stops() {
    let World {
        folder, program, ..
    } = World::silent();
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
async fn a_second_signal_ends_it_at_once() {
    let World {
        folder, program, ..
    } = World::new(&["--faults", "put@1=delay:8s", "--virtual-locks", "off"]);
    let writing = tokio::spawn(program.write_key(LOCK, &json!({ "keyUuid": "k" })).send());
    eventually("it is in progress", || async {
        program.log().contains("PREPARED").then_some(())
    })
    .await;
    program.terminate();
    eventually("it is stopping", || async {
        program.log().contains("stopping").then_some(())
    })
    .await;
    let (status, log) = program.stop();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("stopped at once"), "{log}");
    assert!(writing.await.is_err(), "its client got no answer");
    drop(folder);
}

/// A script that runs the program with files that may grow no further than 400 KiB, as on a full disk.
fn with_a_bound_of_files(folder: &std::path::Path) -> String {
    let limited = format!("ulimit -f 400; exec {BINARY} \"$@\"");
    let script = folder.join("limited.sh");
    std::fs::write(&script, format!("#!/bin/bash\ntrap '' XFSZ\n{limited}\n")).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&script, mode).expect("runnable");
    script.to_str().expect("a path").to_owned()
}

#[tokio::test]
async fn a_store_of_shadows_on_a_full_disk_ends_the_service_and_the_log_says_why() {
    let folder = TempDir::new().expect("a folder");
    let script = with_a_bound_of_files(folder.path());
    // The service alone, so that no other file is full before that of the shadows.
    let rest = ["--rest", "127.0.0.1:0"];
    let mut shadows = Shadows::start(&script, "shadow", folder.path(), &rest);
    let address = shadows.rest.expect("REST is served");
    let mut sent = 0;
    let status = loop {
        if let Some(status) = shadows.ended() {
            break status;
        }
        assert!(sent < 4000, "it goes on for ever");
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
    // The system says "file too large" here and "no space left" on a full disk; SQLite has a text for each.
    let cause = |line: &str| {
        line.contains("cannot be stored") && (line.contains("disk I/O") || line.contains("full"))
    };
    assert!(log.lines().any(cause), "{log}");
}

#[tokio::test]
async fn a_store_that_can_no_longer_be_written_ends_the_service_with_a_word() {
    let World {
        folder, program, ..
    } = World::silent();
    drop(program);
    let script = with_a_bound_of_files(folder.path());
    let mut program = Program::start(&script, folder.path(), &["--virtual-locks", "off"]);
    let (mut answered, mut written) = (0, Vec::new());
    let status = loop {
        if let Some(status) = program.ended() {
            break status;
        }
        assert!(answered < 4000, "it goes on for ever");
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
async fn one_folder_serves_one_process_wherever_the_shadows_are() {
    let world = World::silent();
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
        let (code, text) = Program::fail(BINARY, world.folder.path(), second);
        assert_eq!(code, Some(1), "{text}");
        let folder = world.folder.path().display().to_string();
        assert!(
            text.contains("another process") && text.contains(&folder),
            "{text}"
        );
    }
    // Commands work beside it, and so does another server once it has ended.
    let output = std::process::Command::new(BINARY)
        .args(["lock", "list", "--data"])
        .arg(world.folder.path())
        .output()
        .expect("the program is there");
    assert!(output.status.success(), "{output:?}");
    let World {
        folder, program, ..
    } = world;
    program.kill();
    let _program = Program::start(BINARY, folder.path(), &behind_a_broker);
    let (code, text) = Program::fail(BINARY, folder.path(), &behind_a_broker);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("another process"), "{text}");
}

#[tokio::test]
async fn files_in_a_folder_that_others_may_read_are_private() {
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
async fn a_folder_that_cannot_be_written_is_named() {
    // Nobody can make a file there, not even root.
    for folder in ["/proc/keywright", "/proc"] {
        let (code, text) = Program::fail(BINARY, std::path::Path::new(folder), &[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(folder), "{text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let world = World::silent();
    let folder = TempDir::new().expect("a folder");
    let address = world.program.address.to_string();
    let (code, text) = Program::fail(BINARY, folder.path(), &["--listen", &address]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains(&address) && text.contains("--listen"),
        "{text}"
    );
}

#[tokio::test]
async fn a_store_that_is_none_is_named() {
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
async fn settings_that_make_no_sense_are_refused_by_name() {
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
        "nothing was made"
    );
}

#[tokio::test]
async fn what_is_in_memory_only_is_gone_with_the_process() {
    let arguments = ["--store", "memory", "--shadow", "volatile"];
    let world = World::new(&arguments);
    let written = world.write("k", Some(2)).await;
    assert_eq!(written.status, 200, "{written:?}");
    let names = std::fs::read_dir(world.folder.path()).expect("a folder");
    let names = names.map(|file| file.expect("a file").file_name());
    let kept = names.filter(|name| name.to_string_lossy().starts_with("locks.sqlite"));
    assert_eq!(kept.count(), 0);
    let world = world.restart(&arguments);
    let again = world.write("k", Some(2)).await;
    let version = |answer: &keywright_tests::Answer| answer.body["version"].clone();
    assert_eq!(version(&again), version(&written), "it starts anew");
}

#[tokio::test]
async fn after_sigterm_requests_are_taken_for_the_drain_delay_while_it_is_not_ready() {
    let world = World::new(&["--virtual-locks", "off", "--drain-delay", "4s"]);
    let ready = || world.program.request("GET", "/readyz").send();
    assert_eq!(ready().await.status, 200);
    world.program.terminate();
    let refused = eventually("it is not ready", || async {
        let answer = ready().await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(refused.text.contains("being stopped"), "{refused:?}");
    let written = world.write("while it drains", None).await;
    assert_eq!(
        (written.status, written.header("connection")),
        (200, Some("close")),
        "{written:?}"
    );
    let World { mut program, .. } = world;
    for _ in 0..6000 {
        if program.ended().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ended = program.ended().expect("it ends by itself");
    assert!(ended.success(), "{}", program.log());
}

#[tokio::test]
async fn sighup_changes_nothing() {
    let world = World::silent();
    world.program.signal("HUP");
    eventually("it is logged", || async {
        world.program.log().contains("SIGHUP").then_some(())
    })
    .await;
    assert_eq!(world.write("k", None).await.status, 200);
}
