//! Log lines on standard error: their format, and a reader that stalls.

use keywright_tests::Program;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{BINARY, Harness};

#[tokio::test]
async fn json_log_lines_are_flat_objects_with_documented_names() {
    let harness = Harness::new(&["--log", "json"]);
    let answer = harness.write("k", None).await;
    let id = answer.header("x-request-id").expect("an id");
    harness
        .wait_for_state(&answer.write_id(), "SUCCEEDED")
        .await;
    let lines = json_lines(&harness.program.log());
    let documented =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md"));
    let documented = documented.expect("the page");
    for line in &lines {
        for (name, value) in line {
            let is_flat = !value.is_object() && !value.is_array();
            assert!(is_flat, "{name} in {line:?}");
            assert!(
                documented.contains(&format!("`{name}`")),
                "{name} is not documented"
            );
        }
    }
    let with = |message: &str| {
        let found = lines.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("no line {message}"))
    };
    let sent = with("SENT");
    assert_eq!((&sent["id"], &sent["lock"]), (&json!(id), &json!("123")));
    let answered = with("answered");
    for (name, value) in [
        ("id", json!(id)),
        ("method", json!("POST")),
        ("path", json!("/locks/123/WriteKey")),
        ("route", json!("/locks/{id}/WriteKey")),
        ("status", json!(200)),
        ("client", json!("127.0.0.1")),
    ] {
        assert_eq!(answered[name], value, "{name}");
    }
    assert!(answered["duration_ms"].is_f64(), "{answered:?}");
}

fn json_lines(log: &str) -> Vec<serde_json::Map<String, serde_json::Value>> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

#[test]
fn fatal_errors_use_the_format_of_the_log() {
    let folder = TempDir::new().expect("a folder");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("its address").to_string();
    for (arguments, code, part) in [
        (
            vec!["--log", "json", "--listen", &taken],
            1,
            "cannot listen on",
        ),
        (vec!["--log=json", "--lease", "1s"], 2, "lease"),
        (
            vec!["--log", "json", "--no-such-option"],
            2,
            "--no-such-option",
        ),
    ] {
        let (ended, text) = Program::fail(BINARY, folder.path(), &arguments);
        assert_eq!(ended, Some(code), "{text}");
        let lines = json_lines(&text);
        let last = lines.last().expect("a line");
        assert_eq!(last["level"], "ERROR", "{text}");
        let message = last["message"].as_str().expect("a message");
        assert!(message.contains(part), "{text}");
    }
    let (_, text) = {
        let output = std::process::Command::new(BINARY)
            .args(["serve", "--lease", "1s"])
            .env("KEYWRIGHT_LOG", "json")
            .current_dir(folder.path())
            .output()
            .expect("the program is there");
        (
            output.status,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(json_lines(&text).len(), 1, "{text}");
}

#[tokio::test]
async fn a_stalled_log_reader_does_not_block_the_server() {
    let folder = TempDir::new().expect("a folder");
    // Standard error is a pipe that is never read.
    let mut child = std::process::Command::new(BINARY)
        .args(["--listen", "127.0.0.1:0", "--virtual-locks", "off"])
        .args(["--log-level", "debug", "--drain-delay", "0s", "--data"])
        .arg(folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program is there");
    let mut banner = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    while !banner.contains("http://") {
        let read = std::io::BufRead::read_line(&mut stdout, &mut banner);
        assert!(read.expect("text") > 0, "{banner}");
    }
    let address = banner
        .split_whitespace()
        .find_map(|word| word.strip_prefix("http://"))
        .and_then(|address| address.parse().ok())
        .expect("an address");
    let get = |path: &str| keywright_tests::Request::new(address, "GET", path).send();
    // Each request logs at least 150 bytes; the pipe holds 64 KiB and the queue 8192 lines.
    let mut connection = keywright_tests::Connection::open(address)
        .await
        .expect("a connection");
    for _ in 0..12_000 {
        let request = keywright_tests::Request::new(address, "GET", "/nowhere");
        let answer = connection.send(request).await.expect("an answer");
        assert_eq!(answer.status, 404);
    }
    let metrics = get("/metrics").await.text;
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix("keywright_dropped_log_lines_total "))
        .and_then(|number| number.parse::<u64>().ok())
        .expect("a number");
    assert!(dropped > 0, "lines are dropped and counted");
    let pid = child.id().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status();
    assert!(killed.expect("kill is there").success());
    let status = tokio::task::spawn_blocking(move || child.wait()).await;
    let status = status.expect("no panic").expect("it ends");
    assert!(status.success(), "{status:?}");
}
