//! The feed: the events of all locks that a caller may access, page by page and as a stream.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use keywright_client::{EventStream, StreamAnswer};
use keywright_testkit::tcp_proxy::{Forwarding, TcpProxy};
use keywright_tests::{Answer, Request};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::harness::{BINARY, FOREIGN, Harness, LOCK, eventually, log_with};
use crate::replica_environment::nginx;

/// How long a test waits for an event. Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request by the demo user's token alone.
fn as_user(harness: &Harness, path: &str) -> Request {
    let program = &harness.program;
    program.request("GET", path).bearer(&program.token)
}

fn stream(request: Request) -> Request {
    request.header("Accept", "text/event-stream")
}

/// A process that is killed when this is dropped.
struct ChildGuard(Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command beside the server, and returns what it prints.
fn run(harness: &Harness, arguments: &[&str]) -> String {
    let mut command = Command::new(BINARY);
    command.args(arguments);
    let output = command
        .env("KEYWRIGHT_DATA", harness.folder.path())
        .output();
    let output = output.expect("the program is there");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

async fn next(stream: &mut EventStream) -> Option<(String, Value)> {
    let event = timeout(PATIENCE, stream.next()).await;
    let event = event
        .expect("an event in time")
        .expect("the stream goes on");
    event.map(|event| {
        let data = serde_json::from_str(&event.data).expect("JSON");
        (event.id, data)
    })
}

fn events(page: &Answer) -> &[Value] {
    assert_eq!(page.status, 200, "{page:?}");
    page.body["events"].as_array().expect("events")
}

fn types(events: &[Value]) -> Vec<&str> {
    let names = events.iter().map(|event| event["type"].as_str());
    names.map(|name| name.expect("a type")).collect()
}

/// All events that a caller sees, read in pages of `limit`.
async fn read_all(request: impl Fn(&str) -> Request, limit: usize) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = request(&format!("/events?limit={limit}{after}"))
            .send()
            .await;
        all.extend_from_slice(events(&page));
        let next = format!("&after={}", page.body["next"].as_str().expect("a cursor"));
        if next == after {
            return all;
        }
        after = next;
    }
}

#[tokio::test]
async fn pages_have_the_events_of_the_callers_locks_and_their_causes() {
    let harness = Harness::silent();
    for (key, id) in [("k1", "first.request"), ("k2", "second-request")] {
        let body = json!({ "keyUuid": key, "keyIndexNumber": 2 });
        let writing = harness.program.write_key(LOCK, &body);
        let written = writing.header("X-Request-Id", id).send().await;
        assert_eq!(written.status, 200);
    }
    let all = read_all(|path| as_user(&harness, path), 2).await;
    assert_eq!(
        types(&all),
        [
            "LockCreated",
            "OrganizationSet",
            "KeyWriteRequested",
            "KeyWriteSuperseded",
            "KeyWriteRequested"
        ]
    );
    assert!(all.is_sorted_by(|a, b| a["cursor"].as_str() < b["cursor"].as_str()));
    let of_lock = harness.program.get("/locks/123/events").send().await;
    for (event, stored) in all.iter().zip(events(&of_lock)) {
        for (member, value) in stored.as_object().expect("an object") {
            assert_eq!(
                event[member], *value,
                "{member} is as in the events of the lock"
            );
        }
        assert_eq!(event["id"], format!("{LOCK}-{}", event["version"]));
    }
    let requests: Vec<_> = all
        .iter()
        .map(|e| e["cause"]["requestId"].as_str())
        .collect();
    let (first, second) = (Some("first.request"), Some("second-request"));
    assert_eq!(requests, [None, None, first, second, second]);
    assert_eq!(all[0].get("cause"), None, "it was imported");
    let cause = &all[4]["cause"];
    let asked = cause["requestedBy"].as_str().expect("who asked");
    assert!(asked.starts_with("user:demo-user"), "{asked}");
    let write = cause["writeId"].as_str().expect("a write");
    harness.wait_for_state(write, "SENT").await;

    let page = as_user(&harness, "/events?limit=1&type=KeyWriteRequested&lock=123");
    let page = page.send().await;
    assert_eq!(events(&page), &all[2..3]);
    let cursor = all[2]["cursor"].as_str().expect("a cursor");
    let link =
        format!("</events?after={cursor}&limit=1&lock=123&type=KeyWriteRequested>; rel=\"next\"");
    assert_eq!(page.header("link"), Some(&*link));
    let end = as_user(&harness, "/events?after=end").send().await;
    assert!(events(&end).is_empty());
    // Events of other locks may be behind the caller's last one.
    assert!(end.body["next"].as_str() >= all[4]["cursor"].as_str());
}

#[tokio::test]
async fn a_caller_sees_no_events_of_other_locks() {
    let harness = Harness::silent();
    let program = &harness.program;
    let own = LOCK.to_string();
    let owns = |event: &Value| event["aggregateId"].as_str() == Some(&own);
    let all = read_all(|path| as_user(&harness, path), 500).await;
    assert!(!all.is_empty() && all.iter().all(owns), "{all:?}");
    let refused = as_user(&harness, &format!("/events?lock={FOREIGN}"))
        .send()
        .await;
    assert_eq!(refused.status, 403);
    let unknown = as_user(&harness, "/events?lock=404").send().await;
    assert_eq!(unknown.status, 404);
    let nobody = program.request("GET", "/events").send().await;
    assert_eq!(nobody.status, 401);
}

#[tokio::test]
async fn parameters_that_make_no_sense_are_refused() {
    let harness = Harness::silent();
    for (query, message) in [
        ("after=1", "after must be a cursor"),
        ("after=00000000000fffff", "after must be a cursor"),
        ("limit=0", "limit must be an integer from 1 to 500"),
        ("limit=501", "limit must be an integer from 1 to 500"),
        ("limit=x", "limit must be an integer from 1 to 500"),
        ("lock=x", "lock must be the numeric id"),
        ("type=Exploded", "type must be one of LockCreated, "),
    ] {
        let answer = as_user(&harness, &format!("/events?{query}")).send().await;
        let text = answer.body["message"].as_str().unwrap_or_default();
        assert_eq!(answer.status, 400, "{query}");
        assert!(text.starts_with(message), "{query}: {text}");
    }
}

#[tokio::test]
async fn a_stream_has_each_event_when_it_is_recorded_and_is_resumed() {
    let harness = Harness::silent();
    let mut first = stream(as_user(&harness, "/events?type=KeyWriteRequested"))
        .stream()
        .await;
    let mut from_now = stream(as_user(&harness, "/events?after=end"))
        .stream()
        .await;
    let mut cursors = Vec::new();
    for n in 0..3 {
        let id = harness.write(&format!("k{n}"), Some(n)).await.write_id();
        let (cursor, event) = next(&mut first).await.expect("an event");
        assert_eq!(event["cause"]["writeId"], *id);
        assert_eq!(event["cursor"], *cursor);
        cursors.push(cursor);
        let (_, event) = next(&mut from_now).await.expect("an event");
        assert_eq!(
            event["cause"]["writeId"], *id,
            "it began with the next event"
        );
    }
    let resumed = stream(as_user(&harness, "/events")).header("Last-Event-ID", &cursors[0]);
    let mut resumed = resumed.stream().await;
    for expected in &cursors[1..] {
        let (cursor, _) = next(&mut resumed).await.expect("an event");
        assert_eq!(cursor, *expected);
    }
    // A stream without events says where to continue, too.
    let mut idle = stream(as_user(&harness, "/events?after=end"))
        .stream()
        .await;
    while idle.last_id().is_none() {
        let _ = timeout(Duration::from_millis(50), idle.next()).await;
    }
    assert!(idle.last_id() >= cursors.last().map(String::as_str));
    drop(first);
    log_with(&harness.program, &["a stream of events has ended"]).await;
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked() {
    let harness = Harness::silent();
    let run = |arguments: &[&str]| run(&harness, arguments);
    let issued = run(&["api-key", "issue", "acme", "--json"]);
    let issued: Value = serde_json::from_str(&issued).expect("JSON");
    let key = issued["apiKey"].as_str().expect("a key");
    let request = |path: &str| {
        harness
            .program
            .request("GET", path)
            .header("X-API-Key", key)
    };
    eventually("the key is valid", || async {
        (request("/events").send().await.status == 200).then_some(())
    })
    .await;
    let mut open = stream(request("/events?after=end")).stream().await;
    run(&["api-key", "revoke", "acme"]);
    assert_eq!(next(&mut open).await, None);
    log_with(&harness.program, &["its credentials are no longer valid"]).await;
}

/// The events that streams share are shown to whoever may access their lock now, also if that was not so when they were recorded.
#[tokio::test]
async fn a_new_owner_sees_the_events_from_before() {
    let harness = Harness::silent();
    let data = harness.folder.path();
    let run = |arguments: &[&str]| run(&harness, arguments);
    let end = as_user(&harness, "/events?after=end").send().await.body["next"].clone();
    let end = end.as_str().expect("a cursor");
    let _active = stream(as_user(&harness, "/events")).stream().await;
    let add = [
        "lock", "add", "700", "--uuid", "u-700", "--owner", "somebody",
    ];
    run(&add);
    let own = harness.write("k", Some(1)).await.write_id();
    let mut before = stream(as_user(&harness, "/events"))
        .header("Last-Event-ID", end)
        .stream()
        .await;
    let (_, event) = next(&mut before).await.expect("an event");
    assert_eq!(event["cause"]["writeId"], *own, "the lock is somebody's");
    let file = data.join("owner.ndjson");
    let line = json!({
        "type": "OwnerSet", "data": {
            "lockId": 700, "uuid": "u-700", "timestamp": "2026-05-29T12:00:00.000Z", "userId": "demo-user",
        },
    });
    std::fs::write(&file, line.to_string()).expect("written");
    run(&["lock", "import", &file.display().to_string()]);
    let (_, event) = next(&mut before).await.expect("an event");
    assert_eq!(event["type"], "OwnerSet");
    let mut after = stream(as_user(&harness, "/events"))
        .header("Last-Event-ID", end)
        .stream()
        .await;
    for expected in ["LockCreated", "KeyWriteRequested", "OwnerSet"] {
        let (_, event) = next(&mut after).await.expect("an event");
        assert_eq!(event["type"], expected);
    }
}

#[tokio::test]
async fn streams_are_limited_and_end_when_the_service_stops() {
    let harness = Harness::new(&["--max-streams-each", "2", "--drain-delay", "0s"]);
    let open = || stream(as_user(&harness, "/events?after=end"));
    let mut streams = [open().stream().await, open().stream().await];
    let refused = open().send().await;
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(refused.body["reason"], "TooManyStreams");
    let metrics = harness.program.get("/metrics").send().await.text;
    assert!(metrics.contains("keywright_event_streams 2"), "{metrics}");
    harness.program.terminate();
    for stream in &mut streams {
        assert_eq!(next(stream).await, None);
    }
}

#[tokio::test]
async fn the_command_prints_events_and_follows_them() {
    let harness = Harness::silent();
    harness.write("k1", Some(1)).await;
    let url = format!("http://{}", harness.program.address);
    let command = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.arg("events").args(arguments);
        command.args(["--url", &url, "--token", &harness.program.token]);
        command
    };
    let run = |arguments: &[&str]| {
        let output = command(arguments).output().expect("the program is there");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, printed, _) = run(&[]);
    assert_eq!(code, Some(0));
    let last = printed.lines().last().expect("a line");
    for part in [
        "lock 123",
        "version 3",
        "KeyWriteRequested",
        "key k1",
        "slot 1",
        "by user:demo-user",
    ] {
        assert!(last.contains(part), "{part}: {last}");
    }
    let (_, printed, _) = run(&["--json", "--type", "KeyWriteRequested", "--lock", "123"]);
    let event: Value = serde_json::from_str(&printed).expect("one line of JSON");
    let cursor = event["cursor"].as_str().expect("a cursor");
    assert_eq!(run(&["--after", cursor]).1, "");
    let (code, _, error) = run(&["--lock", "124"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("403"), "{error}");

    let mut following = command(&["--follow", "--json", "--after", cursor]);
    let following = following.stdout(Stdio::piped()).spawn();
    let mut following = ChildGuard(following.expect("started"));
    harness.write("k2", Some(2)).await;
    let output = following.0.stdout.take().expect("its output");
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)
            .expect("a line");
        line
    });
    let line = timeout(PATIENCE, line)
        .await
        .expect("in time")
        .expect("no panic");
    let event: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(event["event"]["data"]["keyUuid"], "k2");
}

/// Two clients follow the feed through nginx while the server is killed again and again: they miss nothing.
#[tokio::test(flavor = "multi_thread")]
async fn followers_miss_nothing_while_the_server_is_killed() {
    let mut harness = Harness::new(&[]);
    // A server that is started again has another port.
    let (current, server) = watch::channel(harness.program.address);
    let choose = move || *server.borrow();
    let forwarder = TcpProxy::start_to(choose, |_, _| Forwarding::Pass).await;
    let nginx = nginx(&[forwarder.address], "60s");
    let request = Request::new(nginx.address, "GET", "/events").bearer(&harness.program.token);
    let done = Arc::new(tokio::sync::SetOnce::new());
    let followers: Vec<_> = (0..2)
        .map(|_| tokio::spawn(follow(request.clone(), done.clone())))
        .collect();
    for round in 0..10 {
        for n in 0..20 {
            harness.write(&format!("k{round}-{n}"), Some(n)).await;
        }
        harness = harness.restart(&[]);
        current.send_replace(harness.program.address);
    }
    harness.store_when_idle().await;
    let expected = read_all(|path| as_user(&harness, path), 500).await;
    let last = expected.last().expect("events")["cursor"]
        .as_str()
        .expect("a cursor");
    done.set(last.to_owned()).expect("set once");
    for follower in followers {
        let seen = timeout(PATIENCE, follower).await.expect("in time");
        let seen = seen.expect("no panic");
        let ids: BTreeSet<&str> = seen
            .iter()
            .map(|e| e["id"].as_str().expect("an id"))
            .collect();
        let expected_ids = expected.iter().map(|e| e["id"].as_str().expect("an id"));
        assert_eq!(ids, expected_ids.collect());
        let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
        for event in &seen {
            let lock = event["aggregateId"].as_str().expect("a lock");
            let version = event["version"].as_u64().expect("a version");
            let before = versions.insert(lock, version).unwrap_or(0);
            assert_eq!(version, before + 1, "the order of lock {lock}");
        }
    }
}

/// Follows the feed until the event with the cursor `done`, and returns what it has seen, without repetitions.
async fn follow(request: Request, done: Arc<tokio::sync::SetOnce<String>>) -> Vec<Value> {
    let (mut seen, mut last) = (Vec::new(), String::from("0000000000000000"));
    while done.get() != Some(&last) {
        let request = stream(request.clone()).header("Last-Event-ID", &last);
        // nginx answers 504 while there is no server.
        let Ok(StreamAnswer::Stream(mut open)) = request.open_stream().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        loop {
            let event = tokio::select! {
                event = open.next() => event,
                // The last event may have been seen already.
                cursor = done.wait(), if done.get() != Some(&last) => {
                    if *cursor == last {
                        break;
                    }
                    open.next().await
                }
            };
            let Ok(Some(event)) = event else { break };
            if event.id > last {
                seen.push(serde_json::from_str(&event.data).expect("JSON"));
                last = event.id;
            }
            if done.get() == Some(&last) {
                break;
            }
        }
    }
    seen
}
