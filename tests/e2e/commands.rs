//! Commands for operators, beside a running server: `lock`, `api-key`, `token`, `write`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keywright_testkit::postgres_server::PostgresServer;
use keywright_tests::Program;
use serde_json::{Value, json};

use crate::harness::{BINARY, Harness, LOCK, eventually};

/// Runs a command on this data folder. Returns its exit code, standard output and standard error.
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

/// Runs a command that must succeed. Returns the JSON that it prints.
fn json(data: &Path, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    let (code, printed, error) = run(data, &all);
    assert_eq!(code, Some(0), "{arguments:?}: {error}");
    serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{arguments:?}: {printed}"))
}

/// Runs a command that must fail with exit code 1. Returns standard error.
fn refused(data: &Path, arguments: &[&str]) -> String {
    let (code, _, error) = run(data, arguments);
    assert_eq!(code, Some(1), "{arguments:?}: {error}");
    error
}

#[tokio::test]
async fn a_lock_added_beside_a_running_server_accepts_writes() {
    let harness = Harness::new(&[]);
    let data = harness.folder.path();
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
    let answer = harness
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
    let wrong_folder = refused(&data.join("elsewhere"), &["held-keys"]);
    assert!(
        wrong_folder.contains("name another with --data"),
        "{wrong_folder}"
    );
    let (_, listed, _) = run(data, &["lock", "list", "--after", "124"]);
    assert!(
        listed.contains("door-500") && !listed.contains("demo-lock-123"),
        "{listed}"
    );
    let missing = refused(data, &["lock", "show", "501"]);
    assert!(missing.contains("no lock 501"), "{missing}");
}

fn ndjson(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn created(lock: u64) -> Value {
    json!({ "type": "LockCreated", "data": {
        "lockId": lock, "uuid": format!("u-{lock}"), "timestamp": "2026-05-29T12:00:00.000Z",
        "ownerId": "demo-user", "thingName": format!("door-{lock}")
    } })
}

#[tokio::test]
async fn an_import_is_atomic_and_names_each_invalid_line() {
    let harness = Harness::silent();
    let data = harness.folder.path();
    let file = data.join("locks.ndjson");
    let path = file.to_str().expect("a path");
    let import = |text: &str| {
        std::fs::write(&file, text).expect("written");
        refused(data, &["lock", "import", path])
    };
    let before = harness.store().await.dump();
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
        let other = created(4000);
        let error = import(&format!("{}{bad}\n{other}\n", ndjson(&good)));
        assert!(
            error.contains(part) && error.contains("nothing was imported"),
            "{bad}: {error}"
        );
        assert_eq!(harness.store().await.dump(), before, "{bad}");
    }
    std::fs::write(&file, format!("{}\n\n{owner}\n", ndjson(&good))).expect("written");
    let imported = json(data, &["lock", "import", path]);
    assert_eq!(imported["events"], 2001, "empty lines are ignored");
    let answer = harness
        .program
        .write_key(2998, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = harness
        .program
        .write_key(2999, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(answer.status, 403, "it belongs to bob");
    let error = import(&format!("no JSON\n{}neither\n", ndjson(&good)));
    let both = error.contains("line 1: not JSON") && error.contains("line 2002: not JSON");
    assert!(both, "each invalid line is named: {error}");
    assert!(
        error.contains("invalid lines: 2; nothing was imported"),
        "{error}"
    );
    let error = import(&"no JSON\n".repeat(21));
    assert_eq!(error.matches("not JSON").count(), 20, "{error}");
    assert!(error.contains("line 20: not JSON"), "{error}");
    let stopped = "the check stopped after 20 invalid lines; nothing was imported";
    assert!(error.contains(stopped), "{error}");
    let missing = refused(data, &["lock", "import", "no-such-file"]);
    assert!(missing.contains("no-such-file"), "{missing}");
}

/// PostgreSQL gets the events in batches, so the lines after the one that is refused have been read, too.
#[tokio::test]
async fn a_refused_import_into_postgresql_names_the_line_of_the_event() {
    let start = || {
        let server = PostgresServer::shared();
        let url = server.database();
        (server, url)
    };
    let started = tokio::task::spawn_blocking(start).await;
    let (_server, url) = started.expect("no panic");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("locks.ndjson");
    let path = file.to_str().expect("a path");
    let arguments = ["lock", "import", path, "--store", &url];
    let owner = json!({ "type": "OwnerSet", "data": {
        "lockId": 1, "uuid": "u-1", "timestamp": "2026-05-29T12:00:00.000Z", "userId": "bob"
    } });
    std::fs::write(&file, ndjson(&[created(1), owner.clone()])).expect("written");
    assert_eq!(json(folder.path(), &arguments)["events"], 2);
    let known = [owner.clone(), owner, created(2)];
    let others: Vec<Value> = (1000..4000).map(created).collect();
    for (bad, part) in [
        (created(1), "line 5: lock 1: LockCreated is at version 5"),
        (created(2), "line 5: lock 2: LockCreated is at version 2"),
    ] {
        let text = format!("{}\n{bad}\n{}", ndjson(&known), ndjson(&others));
        std::fs::write(&file, text).expect("written");
        let error = refused(folder.path(), &arguments);
        let is_named = error.contains(part) && error.contains("nothing was imported");
        assert!(is_named, "{bad}: {error}");
    }
}

#[tokio::test]
async fn the_server_accepts_writes_while_an_import_reads_its_input() {
    use std::io::Write as _;
    let harness = Harness::silent();
    let mut command = Command::new(BINARY);
    command
        .args(["lock", "import", "-"])
        .env("KEYWRIGHT_DATA", harness.folder.path());
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut importing = command.spawn().expect("the program is there");
    let mut input = importing.stdin.take().expect("piped");
    writeln!(input, "{}", created(600)).expect("written");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(harness.write("meanwhile", None).await.status, 200);
    drop(input);
    assert!(importing.wait().expect("it ends").success());
    let answer = harness
        .program
        .write_key(600, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn full_standard_output_is_a_failure() {
    let harness = Harness::silent();
    let mut command = Command::new(BINARY);
    command
        .args(["lock", "list"])
        .env("KEYWRIGHT_DATA", harness.folder.path())
        .stdout(std::fs::File::create("/dev/full").expect("opened"));
    let output = command.output().expect("the program is there");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("standard output cannot be written"),
        "{errors}"
    );
}

#[tokio::test]
async fn a_closed_output_pipe_is_no_failure() {
    let harness = Harness::new(&["--virtual-locks", "off", "--locks", "3000"]);
    let line = format!("{BINARY} lock list --limit 9999 | head -1; exit ${{PIPESTATUS[0]}}");
    let mut command = Command::new("bash");
    command
        .args(["-c", &line])
        .env("KEYWRIGHT_DATA", harness.folder.path());
    let output = command.output().expect("a shell");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let nowhere = harness.folder.path().join("nowhere");
    let error = refused(&nowhere, &["lock", "list"]);
    assert!(
        error.contains("nowhere") && error.contains("--data"),
        "{error}"
    );
    assert!(!nowhere.exists(), "no folder was created");
}

#[tokio::test]
async fn events_from_the_api_can_be_imported() {
    let harness = Harness::silent();
    let page = harness.program.get("/locks/123/events").send().await.body;
    let events = page["events"].as_array().expect("events").clone();
    let other = tempfile::tempdir().expect("a folder");
    let file = other.path().join("events.ndjson");
    std::fs::write(&file, ndjson(&events)).expect("written");
    json(
        other.path(),
        &["lock", "import", file.to_str().expect("a path")],
    );
    let (imported, original) = (
        json(other.path(), &["lock", "show", "123"]),
        json(harness.folder.path(), &["lock", "show", "123"]),
    );
    assert_eq!(imported, original);
}

#[tokio::test]
async fn api_keys_are_issued_rotated_and_revoked_beside_a_running_server() {
    let harness = Harness::silent();
    let data = harness.folder.path();
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
        let request = harness.program.request("GET", "/locks/500/details");
        async move { request.header("X-API-Key", &key).send().await.status }
    };
    let wait_for_status = |key: &str, expected: u16| {
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
    wait_for_status(&first, 200).await;
    let twice = refused(data, &["api-key", "issue", "acme"]);
    assert!(
        twice.contains(&first[..8]) && !twice.contains(&first[8..40]),
        "{twice}"
    );

    let second = key(json(data, &["api-key", "rotate", "acme"]));
    wait_for_status(&second, 200).await;
    assert_eq!(
        status(first.clone()).await,
        401,
        "the old key is revoked at once"
    );
    let third = key(json(
        data,
        &["api-key", "rotate", "acme", "--keep-old-for", "1h"],
    ));
    wait_for_status(&third, 200).await;
    assert_eq!(
        status(second.clone()).await,
        200,
        "the old key stays valid for a while"
    );

    let short_lived = key(json(
        data,
        &["api-key", "issue", "--super", "--expires-in", "2s"],
    ));
    wait_for_status(&short_lived, 200).await;
    wait_for_status(&short_lived, 401).await;

    eventually("the time of the last use is recorded", || async {
        let (_, listed, _) = run(data, &["api-key", "list", "--json"]);
        let used = listed
            .lines()
            .filter(|line| line.contains("lastUsedAt"))
            .count();
        (used >= 4).then_some(())
    })
    .await;
    let (_, listed, _) = run(data, &["api-key", "list"]);
    for secret in [&first, &second, &third, &short_lived] {
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
    wait_for_status(&third, 401).await;
    assert_eq!(status(second).await, 401);
    assert!(refused(data, &["api-key", "revoke", "acme"]).contains("acme has no key"));
    assert!(refused(data, &["api-key", "rotate", "acme"]).contains("api-key issue"));
    let (code, _, error) = run(data, &["api-key", "issue"]);
    assert_eq!(code, Some(2), "{error}");
}

#[tokio::test]
async fn api_keys_stay_valid_while_their_file_is_invalid() {
    let harness = Harness::silent();
    let file = harness.folder.path().join("api-keys.json");
    std::fs::write(file, "broken").expect("written");
    eventually("it is logged", || async {
        harness
            .program
            .log()
            .contains("the API keys stay as they were")
            .then_some(())
    })
    .await;
    let request = harness.program.request("GET", "/locks/123/details");
    assert_eq!(
        request
            .header("X-API-Key", &harness.program.api_key)
            .send()
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn a_sandbox_token_names_the_requested_user_or_organization() {
    let harness = Harness::silent();
    let data = harness.folder.path();
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
        let request = harness
            .program
            .request("GET", "/locks/123/details")
            .bearer(&token);
        assert_eq!(request.send().await.status, status);
    }
    let empty = tempfile::tempdir().expect("a folder");
    assert!(refused(empty.path(), &["token"]).contains("sandbox"));
}

#[tokio::test]
async fn the_write_command_writes_a_key() {
    let harness = Harness::new(&[]);
    let write = |arguments: &[&str]| {
        let url = format!("http://{}", harness.program.address);
        let mut command = Command::new(BINARY);
        command.arg("write").args(arguments).args(["--url", &url]);
        command.env("KEYWRIGHT_TOKEN", &harness.program.token);
        // The server is another process, so that this may block.
        let output = command.output().expect("the program is there");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, printed, error) = write(&["123", "my-key", "--index", "4", "--wait"]);
    assert_eq!(
        (code, printed.trim()),
        (Some(0), "lock 123: version 3, the write is SUCCEEDED"),
        "{error}"
    );
    assert_eq!(
        harness.memory().keys.get(&4).map(String::as_str),
        Some("my-key")
    );
    let (code, printed, _) = write(&["123", "my-key", "--json"]);
    let answer: Value = serde_json::from_str(&printed).expect("JSON");
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
    harness.program.terminate();
    eventually("the port is closed", || async {
        let connected = tokio::net::TcpStream::connect(harness.program.address).await;
        connected.is_err().then_some(())
    })
    .await;
    let (code, _, error) = write(&["123", "my-key"]);
    assert!(
        code == Some(1) && error.contains("is the server running"),
        "{error}"
    );
}

/// Runs `keywright write` with these environment variables, such as those of `sandbox.env`.
fn write_with(variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY)
        .args(["write", "123", "my-key", "--index", "4"])
        .envs(variables.iter().copied())
        .output()
        .expect("the program is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), printed, errors)
}

#[tokio::test]
async fn white_space_around_variables_is_ignored_and_inside_credentials_refused() {
    let harness = Harness::silent();
    let url = format!("http://{}\n", harness.program.address);
    let (token, key) = (&harness.program.token, &harness.program.api_key);
    let (code, printed, errors) = write_with(&[
        ("KEYWRIGHT_URL", &url),
        ("KEYWRIGHT_TOKEN", &format!("{token}\r\n")),
        ("KEYWRIGHT_API_KEY", &format!(" {key}\n")),
    ]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(printed.contains("requested"), "{printed}");
    let (code, _, errors) = write_with(&[
        ("KEYWRIGHT_URL", &url),
        ("KEYWRIGHT_TOKEN", token),
        ("KEYWRIGHT_API_KEY", "\n"),
    ]);
    assert_eq!(code, Some(0), "an empty variable is ignored: {errors}");
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
    // Commands that read settings of the server.
    let data = format!("{}\n", harness.folder.path().display());
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
async fn the_write_command_works_over_ipv6_with_sandbox_env() {
    let folder = tempfile::tempdir().expect("a folder");
    let listen = ["--listen", "[::1]:0", "--virtual-locks", "off"];
    let program = Program::start(BINARY, folder.path(), &listen);
    assert!(program.address.is_ipv6());
    let env = std::fs::read_to_string(folder.path().join("sandbox.env")).expect("it is there");
    let variables: Vec<(&str, &str)> = env.lines().filter_map(|l| l.split_once('=')).collect();
    let (code, printed, errors) = write_with(&variables);
    assert_eq!(code, Some(0), "{errors}");
    assert!(printed.contains("requested"), "{printed}");
}

#[tokio::test]
async fn writes_and_locks_of_a_server_are_listed_with_filters() {
    let harness = Harness::silent();
    let mut written = Vec::new();
    for n in 0..3 {
        let answer = harness.write(&format!("key {n}"), Some(n % 2)).await;
        written.push(answer.write_id());
    }
    let url = format!("http://{}", harness.program.address);
    // A folder without a store: the commands ask the server.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let ask = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--url", &url, "--token", &harness.program.token]);
        run(elsewhere.path(), &all)
    };
    let ids = |arguments: &[&str]| -> Vec<String> {
        let mut all = vec!["writes", "--json"];
        all.extend(arguments);
        let (code, printed, error) = ask(&all);
        assert_eq!(code, Some(0), "{arguments:?}: {error}");
        let id = |line: &str| {
            let write: Value = serde_json::from_str(line).expect("JSON");
            write["id"].as_str().expect("an id").to_owned()
        };
        printed.lines().map(id).collect()
    };
    let newest_first: Vec<String> = written.iter().rev().cloned().collect();
    for (arguments, expected) in [
        (&[][..], &newest_first[..]),
        (&["--limit", "2"], &newest_first[..2]),
        (&["--after", &written[2]], &newest_first[1..]),
        (&["--state", "SUPERSEDED"], &newest_first[2..]),
        (&["--key", "key 1"], &newest_first[1..2]),
        (
            &["--lock", "123", "--organization", "demo-org"],
            &newest_first,
        ),
        (&["--organization", "another-org"], &[]),
        (&["--requested-by", "user:demo-user"], &newest_first),
        (&["--requested-by", "org:demo-org"], &[]),
        (&["--reason", "NoSpace"], &[]),
        (&["--since", "2099-01-01T00:00:00Z"], &[]),
        (&["--unconfirmed"], &[]),
    ] {
        assert_eq!(ids(arguments), expected, "{arguments:?}");
    }
    let (_, printed, more) = ask(&["writes", "--limit", "1"]);
    let line = printed.lines().last().expect("a line");
    let columns: Vec<&str> = line.split_whitespace().skip(1).collect();
    let expected = [
        "123",
        "0",
        "SENT",
        "key",
        "2",
        "user:demo-user",
        &*written[2],
    ];
    assert_eq!(columns, expected);
    assert!(more.contains(&format!("--after {}", written[2])), "{more}");
    let (code, _, error) = ask(&["writes", "--lock", "124"]);
    assert!(code == Some(1) && error.contains("403"), "{error}");
    let (code, _, error) = ask(&["writes", "--state", "open"]);
    assert!(code == Some(2) && error.contains("SUPERSEDED"), "{error}");

    let (code, printed, error) = ask(&["lock", "list", "--json", "--organization", "demo-org"]);
    assert_eq!(code, Some(0), "{error}");
    let lock: Value = serde_json::from_str(&printed).expect("one line of JSON");
    assert_eq!(lock["id"], "123");
    let (_, printed, _) = ask(&["lock", "list", "--limit", "1"]);
    let line = printed.lines().last().expect("a line");
    let columns: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(columns, ["123", "DEMO-123", "demo-user", "demo-org", "6"]);
    let (_, printed, _) = ask(&["lock", "list", "--json", "--key", "key 1"]);
    assert_eq!(printed, "", "no lock holds the key yet");
}

#[tokio::test]
async fn locks_of_the_store_are_listed_by_organization_and_key() {
    let harness = Harness::new(&["--locks", "1500"]);
    let id = harness.write("my-key", Some(1)).await.write_id();
    harness.wait_for_state(&id, "SUCCEEDED").await;
    let data = harness.folder.path();
    let list = |arguments: &[&str]| -> Vec<u64> {
        let mut all = vec!["lock", "list", "--json"];
        all.extend(arguments);
        let (code, printed, error) = run(data, &all);
        assert_eq!(code, Some(0), "{arguments:?}: {error}");
        let id = |line: &str| {
            let lock: Value = serde_json::from_str(line).expect("JSON");
            lock["lockId"].as_u64().expect("an id")
        };
        printed.lines().map(id).collect()
    };
    let all = list(&["--limit", "9999"]);
    assert!(all.len() > 1500 && all.is_sorted(), "{}", all.len());
    assert_eq!(list(&["--limit", "1200", "--after", "123"]), all[1..1201]);
    assert_eq!(list(&["--key", "my-key"]), [123]);
    assert_eq!(list(&["--key", "my-key", "--after", "123"]), [0; 0]);
    assert!(list(&["--organization", "demo-org"]).contains(&123));
    assert_eq!(list(&["--organization", "another-org"]), [124]);
}
