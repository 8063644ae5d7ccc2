//! What operators do, beside a server that runs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keywright_tests::Program;
use serde_json::{Value, json};

use crate::harness::{BINARY, LOCK, World, eventually};

/// Runs a command over the data of a world: its exit code, and what it says on both streams.
fn run(data: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("KEYWRIGHT_DATA", data);
    let output = command.output().expect("the program is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A command that is expected to work, and the JSON that it prints.
fn json(data: &Path, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    let (code, said, error) = run(data, &all);
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{arguments:?}: {said}"))
}

/// A command that is expected not to work, and what it says.
fn refused(data: &Path, arguments: &[&str]) -> String {
    let (code, _, error) = run(data, arguments);
    assert_eq!(code, Some(1), "{arguments:?}: {error}");
    error
}

#[tokio::test]
async fn a_lock_that_is_added_while_the_server_runs_can_be_written_to() {
    let world = World::new(&[]);
    let data = world.folder.path();
    let added = json(
        data,
        &[
            "lock",
            "add",
            "500",
            "--uuid",
            "u-500",
            "--thing",
            "door-500",
            "--owner",
            "demo-user",
            "--capacity",
            "10",
        ],
    );
    assert_eq!(added, json!({ "added": 500 }));
    let again = refused(data, &["lock", "add", "500", "--uuid", "u-500"]);
    assert!(again.contains("lock 500 exists already"), "{again}");
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 2 });
    let answer = world
        .program
        .write_key(500, &body)
        .header("Prefer", "wait=10")
        .send()
        .await;
    assert_eq!(answer.body["write"]["state"], "SUCCEEDED", "{answer:?}");
    let shown = json(data, &["lock", "show", "500"]);
    assert_eq!(
        (&shown["version"], &shown["keys"][0]["uuid"]),
        (&json!(3), &json!("k"))
    );
    let held = json!({ "thing": "door-500", "keys": [{ "keyUuid": "k", "keyIndexNumber": 2 }] });
    assert_eq!(json(data, &["held-keys"]), json!([held]));
    let (_, listed, _) = run(data, &["held-keys"]);
    assert_eq!(listed, "door-500  2  k\n");
    let elsewhere = refused(&data.join("elsewhere"), &["held-keys"]);
    assert!(
        elsewhere.contains("name another with --data"),
        "{elsewhere}"
    );
    let (_, listed, _) = run(data, &["lock", "list", "--after", "124"]);
    assert!(
        listed.contains("door-500") && !listed.contains("demo-lock-123"),
        "{listed}"
    );
    let missing = refused(data, &["lock", "show", "501"]);
    assert!(missing.contains("no lock 501"), "{missing}");
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn created(lock: u64) -> Value {
    json!({ "type": "LockCreated", "data": {
        "lockId": lock, "uuid": format!("u-{lock}"), "timestamp": "2026-05-29T12:00:00.000Z",
        "ownerId": "demo-user", "thingName": format!("door-{lock}")
    } })
}

#[tokio::test]
async fn an_import_is_whole_or_not_at_all_and_names_the_bad_line() {
    let world = World::silent();
    let data = world.folder.path();
    let file = data.join("locks.ndjson");
    let path = file.to_str().expect("a path");
    let import = |text: &str| {
        std::fs::write(&file, text).expect("written");
        refused(data, &["lock", "import", path])
    };
    let before = world.books().await.dump();
    let good: Vec<Value> = (1000..3000).map(created).collect();
    let owner = json!({ "type": "OwnerSet", "data": {
        "lockId": 2999, "uuid": "u", "timestamp": "2026-05-29T12:00:00.000Z", "userId": "bob"
    } });
    for (bad, part) in [
        ("no JSON".to_owned(), "line 2001: not JSON"),
        ("{}".to_owned(), "line 2001: `type` must name an event"),
        (
            r#"{"type":"LockMelted","data":{}}"#.to_owned(),
            "line 2001: LockMelted",
        ),
        (
            r#"{"type":"LockCreated","data":{"lockId":0}}"#.to_owned(),
            "line 2001: LockCreated",
        ),
        (
            r#"{"type":"KeyWriteRequested","data":{}}"#.to_owned(),
            "cannot be imported",
        ),
        (created(2999).to_string(), "line 2001: lock 2999"),
        (created(LOCK).to_string(), "line 2001: lock 123"),
        (
            owner.to_string().replace("2999", "77777"),
            "line 2001: lock 77777",
        ),
        (
            format!("{{\"version\":7,{}", &owner.to_string()[1..]),
            "line 2001: lock 2999",
        ),
    ] {
        let error = import(&format!("{}{bad}\n", lines(&good)));
        assert!(
            error.contains(part) && error.contains("nothing was imported"),
            "{bad}: {error}"
        );
        assert_eq!(world.books().await.dump(), before, "{bad}");
    }
    std::fs::write(&file, format!("{}\n\n{owner}\n", lines(&good))).expect("written");
    let imported = json(data, &["lock", "import", path]);
    assert_eq!(imported["events"], 2001, "empty lines are no events");
    let answer = world
        .program
        .write_key(2998, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = world
        .program
        .write_key(2999, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(answer.status, 403, "it is bob's now");
    let error = import(&format!("no JSON\n{}neither\n", lines(&good)));
    let each = error.contains("line 1: not JSON") && error.contains("line 2002: not JSON");
    assert!(each, "each bad line is named: {error}");
    let missing = refused(data, &["lock", "import", "no-such-file"]);
    assert!(missing.contains("no-such-file"), "{missing}");
}

#[tokio::test]
async fn the_server_writes_while_an_import_waits_for_its_lines() {
    use std::io::Write as _;
    let world = World::silent();
    let mut command = Command::new(BINARY);
    command
        .args(["lock", "import", "-"])
        .env("KEYWRIGHT_DATA", world.folder.path());
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut importing = command.spawn().expect("the program is there");
    let mut lines_of_import = importing.stdin.take().expect("piped");
    writeln!(lines_of_import, "{}", created(600)).expect("written");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.write("meanwhile", None).await.status, 200);
    drop(lines_of_import);
    assert!(importing.wait().expect("it ends").success());
    let answer = world
        .program
        .write_key(600, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn whoever_reads_only_the_first_line_sees_no_failure() {
    let world = World::new(&["--virtual-locks", "off", "--locks", "3000"]);
    let line = format!("{BINARY} lock list --limit 9999 | head -1; exit ${{PIPESTATUS[0]}}");
    let mut command = Command::new("bash");
    command
        .args(["-c", &line])
        .env("KEYWRIGHT_DATA", world.folder.path());
    let output = command.output().expect("a shell");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let nowhere = world.folder.path().join("nowhere");
    let error = refused(&nowhere, &["lock", "list"]);
    assert!(
        error.contains("nowhere") && error.contains("--data"),
        "{error}"
    );
    assert!(!nowhere.exists(), "nothing was made");
}

#[tokio::test]
async fn what_the_events_route_gives_can_be_imported_elsewhere() {
    let world = World::silent();
    let page = world.program.get("/locks/123/events").send().await.body;
    let events = page["events"].as_array().expect("events").clone();
    let other = tempfile::tempdir().expect("a folder");
    let file = other.path().join("events.ndjson");
    std::fs::write(&file, lines(&events)).expect("written");
    json(
        other.path(),
        &["lock", "import", file.to_str().expect("a path")],
    );
    let (there, here) = (
        json(other.path(), &["lock", "show", "123"]),
        json(world.folder.path(), &["lock", "show", "123"]),
    );
    assert_eq!(there, here);
}

#[tokio::test]
async fn an_api_key_lives_from_its_issue_to_its_end_on_a_server_that_runs() {
    let world = World::silent();
    let data = world.folder.path();
    json(
        data,
        &[
            "lock",
            "add",
            "500",
            "--uuid",
            "u-500",
            "--thing",
            "door-500",
            "--organization",
            "acme",
        ],
    );
    let status = |key: String| {
        let request = world.program.request("GET", "/locks/500/details");
        async move { request.header("X-API-Key", &key).send().await.status }
    };
    let until = |key: &str, expected: u16| {
        let key = key.to_owned();
        let status = &status;
        async move {
            eventually(&format!("{expected}"), || async {
                (status(key.clone()).await == expected).then_some(())
            })
            .await;
        }
    };
    let key = |issued: Value| issued["apiKey"].as_str().expect("a key").to_owned();
    let first = key(json(data, &["api-key", "issue", "acme"]));
    until(&first, 200).await;
    let twice = refused(data, &["api-key", "issue", "acme"]);
    assert!(
        twice.contains(&first[..8]) && !twice.contains(&first[8..40]),
        "{twice}"
    );

    let second = key(json(data, &["api-key", "rotate", "acme"]));
    until(&second, 200).await;
    assert_eq!(status(first.clone()).await, 401, "the old key ends at once");
    let third = key(json(
        data,
        &["api-key", "rotate", "acme", "--keep-old-for", "1h"],
    ));
    until(&third, 200).await;
    assert_eq!(
        status(second.clone()).await,
        200,
        "the old key is kept for a while"
    );

    let brief = key(json(
        data,
        &["api-key", "issue", "--super", "--expires-in", "2s"],
    ));
    until(&brief, 200).await;
    until(&brief, 401).await;

    eventually("it is noted when keys were used", || async {
        let (_, listed, _) = run(data, &["api-key", "list", "--json"]);
        let used = listed
            .lines()
            .filter(|line| line.contains("lastUsedAt"))
            .count();
        (used >= 4).then_some(())
    })
    .await;
    let (_, listed, _) = run(data, &["api-key", "list"]);
    for secret in [&first, &second, &third, &brief] {
        assert!(!listed.contains(&secret[8..46]), "{listed}");
        assert!(
            listed.contains(&format!("{}…{}", &secret[..8], &secret[46..])),
            "{listed}"
        );
    }
    assert_eq!(
        json(data, &["api-key", "revoke", "acme"]),
        json!({ "revoked": 2 })
    );
    until(&third, 401).await;
    assert_eq!(status(second).await, 401);
    assert!(refused(data, &["api-key", "revoke", "acme"]).contains("acme has no key"));
    assert!(refused(data, &["api-key", "rotate", "acme"]).contains("api-key issue"));
    let (code, _, error) = run(data, &["api-key", "issue"]);
    assert_eq!(code, Some(2), "{error}");
}

#[tokio::test]
async fn keys_stay_as_they_were_while_their_file_is_broken() {
    let world = World::silent();
    let file = world.folder.path().join("api-keys.json");
    std::fs::write(file, "broken").expect("written");
    eventually("it is logged", || async {
        world
            .program
            .log()
            .contains("the API keys stay as they were")
            .then_some(())
    })
    .await;
    let request = world.program.request("GET", "/locks/123/details");
    assert_eq!(
        request
            .header("X-API-Key", &world.program.api_key)
            .send()
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_token_of_the_sandbox_is_whose_it_is_said_to_be() {
    let world = World::silent();
    let data = world.folder.path();
    let token = |arguments: &[&str]| {
        let mut all = vec!["token"];
        all.extend(arguments);
        json(data, &all)["token"]
            .as_str()
            .expect("a token")
            .to_owned()
    };
    for (token, status) in [
        (token(&[]), 200),
        (token(&["--user", "eve"]), 403),
        (token(&["--organization", "demo-org"]), 200),
        (token(&["--organization", "another-org"]), 403),
    ] {
        let request = world
            .program
            .request("GET", "/locks/123/details")
            .bearer(&token);
        assert_eq!(request.send().await.status, status);
    }
    let empty = tempfile::tempdir().expect("a folder");
    assert!(refused(empty.path(), &["token"]).contains("sandbox"));
}

#[tokio::test]
async fn a_key_is_written_from_the_terminal() {
    let world = World::new(&[]);
    let write = |arguments: &[&str]| {
        let url = format!("http://{}", world.program.address);
        let mut command = Command::new(BINARY);
        command.arg("write").args(arguments).args(["--url", &url]);
        command.env("KEYWRIGHT_TOKEN", &world.program.token);
        // The program answers while this waits.
        let output = command.output().expect("the program is there");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, said, error) = write(&["123", "my-key", "--index", "4", "--wait"]);
    assert_eq!(
        (code, said.trim()),
        (Some(0), "lock 123: version 3, the write is SUCCEEDED"),
        "{error}"
    );
    assert_eq!(
        world.memory().keys.get(&4).map(String::as_str),
        Some("my-key")
    );
    let (code, said, _) = write(&["123", "my-key", "--json"]);
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &answer["success"]), (Some(0), &json!(true)));
    let (code, _, error) = write(&["123", "my-key", "--index", "100"]);
    assert!(
        code == Some(1) && error.contains("422") && error.contains("below 100"),
        "{error}"
    );
    let (code, _, error) = write(&["124", "my-key"]);
    assert!(code == Some(1) && error.contains("403"), "{error}");
    let (code, _, error) = write(&["0", "my-key"]);
    assert!(code == Some(2) && error.contains("lock id"), "{error}");
    world.program.terminate();
    eventually("nobody listens", || async {
        let connected = tokio::net::TcpStream::connect(world.program.address).await;
        connected.is_err().then_some(())
    })
    .await;
    let (code, _, error) = write(&["123", "my-key"]);
    assert!(
        code == Some(1) && error.contains("is the server running"),
        "{error}"
    );
}

/// Runs `keywright write` with these variables, as a shell does that has read `sandbox.env`.
fn write_with(variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY)
        .args(["write", "123", "my-key", "--index", "4"])
        .envs(variables.iter().copied())
        .output()
        .expect("the program is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), said, errors)
}

#[tokio::test]
async fn white_space_around_variables_is_ignored_and_within_credentials_it_is_named() {
    let world = World::silent();
    let url = format!("http://{}\n", world.program.address);
    let (token, key) = (&world.program.token, &world.program.api_key);
    let (code, said, errors) = write_with(&[
        ("KEYWRIGHT_URL", &url),
        ("KEYWRIGHT_TOKEN", &format!("{token}\r\n")),
        ("KEYWRIGHT_API_KEY", &format!(" {key}\n")),
    ]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(said.contains("requested"), "{said}");
    let (code, _, errors) = write_with(&[
        ("KEYWRIGHT_URL", &url),
        ("KEYWRIGHT_TOKEN", token),
        ("KEYWRIGHT_API_KEY", "\n"),
    ]);
    assert_eq!(code, Some(0), "an empty variable says nothing: {errors}");
    for (name, value) in [
        (
            "KEYWRIGHT_TOKEN",
            format!("{}\n{}", &token[..9], &token[9..]),
        ),
        ("KEYWRIGHT_TOKEN", format!("Bearer {token}")),
        ("KEYWRIGHT_API_KEY", format!("{key}\u{a0}x")),
    ] {
        let (code, _, errors) = write_with(&[("KEYWRIGHT_URL", &url), (name, &value)]);
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains(name), "{errors}");
        assert!(!errors.contains(&token[9..]) && !errors.contains(&key[8..]));
    }
    let (code, _, errors) = write_with(&[("KEYWRIGHT_URL", "http://no host")]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("KEYWRIGHT_URL"), "{errors}");
    // Commands that read the server's variables.
    let data = format!("{}\n", world.folder.path().display());
    for command in [
        ["lock", "list"],
        ["api-key", "list"],
        ["check-config", "--json"],
    ] {
        let output = Command::new(BINARY)
            .args(command)
            .env("KEYWRIGHT_DATA", &data)
            .env("KEYWRIGHT_STORE", "sqlite\n")
            .output()
            .expect("the program is there");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {errors}");
    }
}

#[tokio::test]
async fn a_key_is_written_over_ipv6_with_what_the_sandbox_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let listen = ["--listen", "[::1]:0", "--virtual-locks", "off"];
    let program = Program::start(BINARY, folder.path(), &listen);
    assert!(program.address.is_ipv6());
    let env = std::fs::read_to_string(folder.path().join("sandbox.env")).expect("it is there");
    let variables: Vec<(&str, &str)> = env.lines().filter_map(|l| l.split_once('=')).collect();
    let (code, said, errors) = write_with(&variables);
    assert_eq!(code, Some(0), "{errors}");
    assert!(said.contains("requested"), "{said}");
}
