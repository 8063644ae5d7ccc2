//! Limits on clients: slow ones, too many requests, disconnects, failed credentials.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Harness, LOCK, VERY_SHORT_TIMEOUTS, eventually, log_with};
use crate::raw_http::{connect, read_until_closed_or_reset};

/// The log line about the answer to a request, with its line number.
fn answer_line(log: &str, id: &str) -> Option<(usize, String)> {
    let is_it = |line: &str| line.contains(id) && line.contains("answered");
    let mut lines = log.lines().enumerate();
    let (number, line) = lines.find(|(_, line)| is_it(line))?;
    Some((number, line.to_owned()))
}

/// Waits until all requests are answered, and returns the line numbers of their answers in the log.
pub(crate) async fn answer_order<const N: usize>(harness: &Harness, ids: [&str; N]) -> [usize; N] {
    eventually("all are answered", || async {
        let log = harness.program.log();
        let found = ids.map(|id| answer_line(&log, id).map(|(number, _)| number));
        let all = found.iter().all(Option::is_some);
        all.then(|| found.map(Option::unwrap_or_default))
    })
    .await
}

/// Makes the first write take 4 s, with timeouts long enough for a busy machine.
const SLOW_SHADOW: [&str; 10] = [
    "--faults",
    "put@1=delay:4s",
    "--request",
    "20s",
    "--shadow-call",
    "10s",
    "--lease",
    "40s",
    "--turn",
    "1s",
];

fn head(harness: &Harness, length: usize) -> String {
    format!(
        "POST /locks/{LOCK}/WriteKey HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
        harness.program.token
    )
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let harness = Harness::silent();
    let before = harness.store().await.dump();
    // This clock starts before the server's timeouts, so that it never shows less time than they have.
    let start = tokio::time::Instant::now();
    let silent = connect(&harness).await;
    let mut one_byte = connect(&harness).await;
    one_byte.write_all(b"P").await.expect("sent");
    let mut half_a_head = connect(&harness).await;
    half_a_head
        .write_all(b"POST /locks/123/WriteKey HTTP/1.1\r\nHost: x\r\n")
        .await
        .expect("sent");
    let mut half_a_body = connect(&harness).await;
    half_a_body
        .write_all(head(&harness, 100).as_bytes())
        .await
        .expect("sent");
    half_a_body.write_all(b"{\"keyUuid\":").await.expect("sent");
    let timed = async |mut stream: TcpStream| {
        (
            read_until_closed_or_reset(&mut stream).await,
            start.elapsed(),
        )
    };
    let ends = tokio::join!(
        timed(silent),
        timed(one_byte),
        timed(half_a_head),
        timed(half_a_body)
    );
    assert_eq!(harness.store().await.dump(), before, "nothing was recorded");
    let (body, _) = &ends.3;
    assert!(
        body.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{body}"
    );
    assert!(body.contains("\"code\":408"), "{body}");
    for (text, took) in [ends.0, ends.1, ends.2, ends.3] {
        assert!(took >= Duration::from_secs(5), "{took:?}: {text}");
    }
    assert_eq!(
        harness.write("k", None).await.status,
        200,
        "others are served"
    );
}

/// The store answers neither of two requests. The first one's head arrives first and its body last; its timeout still ends
/// first, because it counts from the head.
#[tokio::test]
async fn a_request_timeout_counts_from_its_arrival() {
    let mut arguments = vec!["--faults", "load@1-=delay:60s"];
    arguments.extend(["--request", "3s", "--turn", "3s", "--virtual-locks", "off"]);
    let harness = Harness::new(&arguments);
    let body = "{\"keyUuid\":\"k\"}";
    let head = |id: &str| {
        let headers = format!("Host: x\r\nConnection: close\r\nX-Request-Id: {id}");
        head(&harness, body.len()).replace("Host: x", &headers)
    };
    let mut slow = connect(&harness).await;
    slow.write_all(head("slow").as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut whole = connect(&harness).await;
    let request = format!("{}{body}", head("whole"));
    whole.write_all(request.as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(300)).await;
    slow.write_all(body.as_bytes()).await.expect("sent");
    for mut stream in [slow, whole] {
        let answer = read_until_closed_or_reset(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    let [slow, whole] = answer_order(&harness, ["slow", "whole"]).await;
    assert!(slow < whole, "{}", harness.program.log());
}

#[tokio::test]
async fn a_panic_in_a_use_case_is_a_500_and_frees_its_permit() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let program = env!("CARGO_BIN_EXE_keywright-panicking");
    // There is one permit, so that a permit leaked by a panic would block the next request.
    let alone = [
        "--store",
        "memory",
        "--shadow",
        "volatile",
        "--virtual-locks",
        "off",
        "--max-in-flight",
        "1",
        "--log",
        "json",
    ];
    let program = keywright_tests::Program::start(program, folder.path(), &alone);
    for (slot, expected) in [(1, 500), (2, 500), (1, 500), (0, 200)] {
        let body = serde_json::json!({ "keyUuid": "k", "keyIndexNumber": slot });
        let answer = program.write_key(LOCK, &body).send().await;
        assert_eq!(answer.status, expected, "{slot}: {}", answer.text);
    }
    let log = log_with(&program, &["at once", "after a while"]).await;
    assert_eq!(log.matches("did not complete").count(), 3, "{log}");
    // The last line may not be complete yet.
    for line in log
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "a panic is logged as JSON, too: {line}");
    }
}

#[tokio::test]
async fn a_client_that_disconnects_at_any_step_leaves_a_consistent_store() {
    let mut arguments = vec!["--faults", "put@1-=delay:150ms", "--virtual-locks", "off"];
    arguments.extend(VERY_SHORT_TIMEOUTS);
    let harness = Harness::new(&arguments);
    let body = |n: usize| format!("{{\"keyUuid\":\"k{n}\",\"keyIndexNumber\":2}}");
    let whole = |n: usize| format!("{}{}", head(&harness, body(n).len()), body(n));
    // Disconnects in the head, after it and in the body: the request is not complete.
    for part in [10, whole(0).len() - body(0).len(), whole(0).len() - 3] {
        let mut stream = connect(&harness).await;
        stream
            .write_all(&whole(0).as_bytes()[..part])
            .await
            .expect("sent");
        drop(stream);
    }
    // Disconnects in the lock's queue, during the shadow call or the commit: a write that has begun is finished.
    for (n, pause) in [0, 10, 60, 120, 150, 170, 250].into_iter().enumerate() {
        let mut stream = connect(&harness).await;
        stream
            .write_all(whole(n + 1).as_bytes())
            .await
            .expect("sent");
        tokio::time::sleep(Duration::from_millis(pause)).await;
        drop(stream);
    }
    let requested = eventually("all writes are finished with", || async {
        let store = harness.store().await;
        store.check_when_idle(&[LOCK]).await.ok()?;
        let names = store.event_names_after_creation(LOCK).await;
        let requested = names.iter().filter(|n| **n == "KeyWriteRequested").count();
        (requested >= 6).then_some(requested)
    })
    .await;
    // The server may not have read the request of the client that disconnected at once.
    assert!(requested <= 7, "{requested}");
    assert_eq!(
        harness.write("last", Some(2)).await.status,
        200,
        "the lock's queue is free"
    );
}

#[tokio::test]
async fn writes_beyond_max_in_flight_get_503_with_retry_after() {
    let mut arguments = vec!["--max-in-flight", "1", "--locks", "1"];
    arguments.extend(SLOW_SHADOW);
    let harness = Harness::new(&arguments);
    let slow = tokio::spawn(
        harness
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k" }))
            .send(),
    );
    eventually("the first is in progress", || async {
        harness.program.log().contains("PREPARED").then_some(())
    })
    .await;
    let other = harness
        .program
        .write_key(1001, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(
        (other.status, other.header("retry-after")),
        (503, Some("1")),
        "{other:?}"
    );
    assert_eq!(
        harness.program.get("/healthz").send().await.status,
        200,
        "health checks need no permit"
    );
    assert_eq!(slow.await.expect("answered").status, 200);
    let again = harness
        .program
        .write_key(1001, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn one_caller_cannot_take_all_permits() {
    let mut arguments = vec!["--max-in-flight", "4", "--max-in-flight-each", "1"];
    arguments.extend(["--locks", "1"]);
    arguments.extend(SLOW_SHADOW);
    let harness = Harness::new(&arguments);
    let body = json!({ "keyUuid": "k" });
    let slow = tokio::spawn(harness.program.write_key(LOCK, &body).send());
    eventually("the first is in progress", || async {
        harness.program.log().contains("PREPARED").then_some(())
    })
    .await;
    let mine = harness.program.write_key(1001, &body).send().await;
    assert_eq!(
        (mine.status, mine.header("retry-after")),
        (429, Some("1")),
        "{mine:?}"
    );
    assert_eq!(mine.body["reason"], "TooManyInProgress");
    let theirs = harness.program.request("GET", "/locks/123/details");
    let theirs = theirs.header("X-API-Key", &harness.program.api_key);
    assert_eq!(theirs.send().await.status, 200);
    assert_eq!(slow.await.expect("answered").status, 200);
    assert_eq!(
        harness.program.write_key(1001, &body).send().await.status,
        200
    );
}

/// Sends a write with `Prefer: wait=30` on a new connection, and waits until the write is SENT.
async fn send_waiting_write(harness: &Harness, key: &str, id: &str) -> TcpStream {
    let body = format!("{{\"keyUuid\":\"{key}\"}}");
    let prefer = format!("Host: x\r\nPrefer: wait=30\r\nConnection: close\r\nX-Request-Id: {id}");
    let head = head(harness, body.len()).replace("Host: x", &prefer);
    let mut stream = connect(harness).await;
    let request = format!("{head}{body}");
    stream.write_all(request.as_bytes()).await.expect("sent");
    eventually("the write is open", || async {
        let log = harness.program.log();
        let sent = |line: &str| line.contains(id) && line.contains("SENT");
        log.lines().any(sent).then_some(())
    })
    .await;
    stream
}

#[tokio::test]
async fn a_wait_ends_when_the_client_resets_its_connection() {
    let harness = Harness::new(&["--virtual-locks", "off", "--max-in-flight-each", "1"]);
    for pipelined in ["", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let id = format!("reset-{}", pipelined.len());
        let mut waiting = send_waiting_write(&harness, &id, &id).await;
        let other = harness.write("other", Some(3)).await;
        assert_eq!(other.body["reason"], "TooManyInProgress", "{other:?}");
        waiting.write_all(pipelined.as_bytes()).await.expect("sent");
        waiting.set_zero_linger().expect("set");
        drop(waiting);
        let line = eventually("the request is abandoned", || async {
            let log = harness.program.log();
            let is_answered = |line: &&str| line.contains(&id) && line.contains("route=");
            log.lines().find(is_answered).map(str::to_owned)
        })
        .await;
        assert!(
            line.contains("the connection ended before the answer"),
            "{line}"
        );
        assert_eq!(harness.write("other", Some(3)).await.status, 200);
    }
    let metrics = harness.program.get("/metrics").send().await;
    let counted = "\nkeywright_unanswered_requests_total 2\n";
    assert!(metrics.text.contains(counted), "{}", metrics.text);
    harness.consistent_store().await;
}

#[tokio::test]
async fn a_half_closed_client_waits_without_a_permit() {
    let harness = Harness::new(&["--virtual-locks", "off", "--max-in-flight-each", "1"]);
    let mut waiting = send_waiting_write(&harness, "k", "half-closed").await;
    let other = harness.write("other", Some(3)).await;
    assert_eq!(other.body["reason"], "TooManyInProgress", "{other:?}");
    waiting.shutdown().await.expect("shut down");
    eventually("its permit is free", || async {
        let other = harness.write("other", Some(3)).await;
        (other.status == 200).then_some(())
    })
    .await;
    // A withdrawal ends the write, and with it the wait.
    let open = harness
        .program
        .get("/locks/123/writes?state=open")
        .send()
        .await;
    let id = open.body["writes"][0]["id"]
        .as_str()
        .expect("the first write");
    let path = format!("/locks/{LOCK}/writes/{id}");
    let withdrawal = harness.program.request("DELETE", &path);
    let withdrawn = withdrawal.bearer(&harness.program.token).send().await;
    assert_eq!(withdrawn.status, 200, "{withdrawn:?}");
    let answer = read_until_closed_or_reset(&mut waiting).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"state\":\"WITHDRAWN\""), "{answer}");
}

#[tokio::test]
async fn failed_credentials_are_rate_limited_and_valid_ones_are_not() {
    let harness = Harness::new(&["--virtual-locks", "off", "--max-failures", "5"]);
    let guess = || {
        let request = harness.program.request("GET", "/locks/123/details");
        request.bearer("no.such.token").send()
    };
    let mut statuses = Vec::new();
    for _ in 0..120 {
        statuses.push(guess().await.status);
        let good = harness.program.get("/locks/123/details").send().await;
        assert_eq!(good.status, 200, "valid credentials are never refused");
    }
    assert!(
        statuses[..5].iter().all(|status| *status == 401),
        "{statuses:?}"
    );
    assert!(statuses.contains(&429), "{statuses:?}");
    let refused = eventually("one is refused", || async {
        let answer = guess().await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.body["reason"], "TooManyFailures");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_forever_for_a_client() {
    // Draining lasts for the request timeout plus 2 s; a body may take 5 s.
    let mut arguments = vec!["--virtual-locks", "off", "--request", "600ms"];
    arguments.extend(["--shadow-call", "200ms", "--turn", "500ms", "--lease", "4s"]);
    let harness = Harness::new(&arguments);
    let mut half_a_body = connect(&harness).await;
    let head = head(&harness, 100).replace("Host: x", "Host: x\r\nExpect: 100-continue");
    half_a_body.write_all(head.as_bytes()).await.expect("sent");
    let mut informed = [0; 12];
    let read = half_a_body.read_exact(&mut informed).await;
    read.expect("the server waits for the body");
    assert_eq!(&informed, b"HTTP/1.1 100");
    let Harness {
        folder, program, ..
    } = harness;
    let (status, log) = program.stop();
    assert!(status.success(), "{log}");
    assert!(
        log.contains("stopped before all requests had finished"),
        "{log}"
    );
    drop((folder, half_a_body));
}
