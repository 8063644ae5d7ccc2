//! Limits on connections: their number, their idle time, and clients that do not read or still send.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client_limits::answer_order;
use crate::harness::{Harness, LOCK, SHORT_TIMEOUTS};
use crate::raw_http::{TIMEOUT, connect, read_until_closed_or_reset};

#[tokio::test]
async fn a_connection_serves_several_requests() {
    let harness = Harness::silent();
    let mut connection = keywright_tests::Connection::open(harness.program.address)
        .await
        .expect("open");
    for n in 0..20 {
        let request = harness
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k", "keyIndexNumber": n % 4 }));
        let answer = connection.send(request).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let harness = Harness::silent();
    let mut stream = connect(&harness).await;
    let request = format!(
        "GET /locks/{LOCK}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        harness.program.token
    );
    // Sends until the server stops reading because its answers are not read.
    let flood = request.repeat(64);
    let sending = async {
        loop {
            stream.write_all(flood.as_bytes()).await?;
        }
        #[expect(unreachable_code, reason = "it states the type of the error")]
        Ok::<(), std::io::Error>(())
    };
    let ended = tokio::time::timeout(2 * TIMEOUT, sending).await;
    assert!(
        matches!(ended, Ok(Err(_))),
        "the server closes the connection: {ended:?}"
    );
    assert_eq!(
        harness.write("k", None).await.status,
        200,
        "others are served"
    );
}

#[tokio::test]
async fn connections_beyond_the_maximum_wait() {
    let mut arguments = vec!["--virtual-locks", "off", "--max-connections", "2"];
    arguments.extend(["--faults", "load@1-2=delay:2s"]);
    arguments.extend(SHORT_TIMEOUTS);
    let harness = Harness::new(&arguments);
    let mut busy = Vec::new();
    for id in ["busy-1", "busy-2"] {
        // The answer shows that the server has accepted the connection.
        let mut connection = keywright_tests::Connection::open(harness.program.address)
            .await
            .expect("a connection");
        let answer = connection.send(harness.program.get("/healthz")).await;
        assert_eq!(answer.expect("an answer").status, 200);
        busy.push((connection, id));
    }
    let busy: Vec<_> = busy
        .into_iter()
        .map(|(mut connection, id)| {
            let request = harness.program.get("/locks/123/details");
            let request = request.header("X-Request-Id", id);
            let request = request.header("Connection", "close");
            tokio::spawn(async move { connection.send(request).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let third = harness.program.get("/openapi.json");
    let third = third.header("X-Request-Id", "third").send().await;
    assert_eq!(third.status, 200);
    for busy in busy {
        let answer = busy.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status, 200);
    }
    let [one, two, third] = answer_order(&harness, ["busy-1", "busy-2", "third"]).await;
    assert!(one.min(two) < third, "{}", harness.program.log());
}

#[tokio::test]
async fn a_burst_of_connections_beyond_the_maximum_is_answered() {
    let harness = Harness::new(&["--virtual-locks", "off", "--max-connections", "4"]);
    let requests: Vec<_> = (0..200)
        .map(|_| {
            let request = harness
                .program
                .get("/healthz")
                .header("Connection", "close");
            tokio::spawn(request.send())
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.expect("an answer").status, 200);
    }
}

/// A server on a busy machine may notice only some time after an answer that the connection is idle.
async fn idle_for_a_while() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn the_longest_idle_connection_is_closed_for_a_new_one() {
    let harness = Harness::new(&["--virtual-locks", "off", "--max-connections", "3"]);
    let mut kept = Vec::new();
    for _ in 0..3 {
        let open = keywright_tests::Connection::open(harness.program.address).await;
        let mut open = open.expect("a connection");
        let answer = open.send(harness.program.get("/healthz")).await;
        assert_eq!(answer.expect("an answer").status, 200);
        kept.push(open);
        idle_for_a_while().await;
    }
    let again = kept[0].send(harness.program.get("/healthz")).await;
    assert_eq!(
        again.expect("an answer").status,
        200,
        "it now has the shortest idle time"
    );
    idle_for_a_while().await;
    assert_eq!(harness.program.get("/healthz").send().await.status, 200);
    let closed = kept[1].send(harness.program.get("/healthz")).await;
    assert!(closed.is_err(), "{closed:?}");
    for open in [0, 2] {
        let answer = kept[open].send(harness.program.get("/healthz")).await;
        assert_eq!(answer.expect("an answer").status, 200, "{open} is kept");
    }
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_a_slow_head() {
    let harness = Harness::new(&["--virtual-locks", "off", "--keep-alive", "10m"]);
    let mut kept = keywright_tests::Connection::open(harness.program.address)
        .await
        .expect("a connection");
    let mut ask = async || kept.send(harness.program.get("/healthz")).await;
    assert_eq!(ask().await.expect("at once").status, 200);
    // Longer than the timeout of a request head.
    tokio::time::sleep(Duration::from_millis(6500)).await;
    assert_eq!(ask().await.expect("after a while").status, 200);
    // After the first byte of the next head, the timeout of a head applies.
    let mut slow = connect(&harness).await;
    let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    slow.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.expect("an answer");
    slow.write_all(b"GET /healthz HT").await.expect("sent");
    read_until_closed_or_reset(&mut slow).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_timeout() {
    let harness = Harness::new(&["--virtual-locks", "off", "--keep-alive", "2s"]);
    let start = tokio::time::Instant::now();
    let mut kept = connect(&harness).await;
    let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    kept.write_all(request.as_bytes()).await.expect("sent");
    let answer = read_until_closed_or_reset(&mut kept).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(start.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn an_early_refusal_of_a_large_body_can_be_read() {
    let harness = Harness::silent();
    for (what, framing) in [
        ("a length", "Content-Length: 150000"),
        ("chunks", "Transfer-Encoding: chunked"),
    ] {
        for path in ["/nowhere", "/locks/123/WriteKey"] {
            let mut stream = connect(&harness).await;
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.expect("sent");
            stream
                .readable()
                .await
                .expect("the answer comes before the body");
            for _ in 0..30 {
                let piece = " ".repeat(5000);
                let piece = match framing.contains("chunked") {
                    true => format!("1388\r\n{piece}\r\n"),
                    false => piece,
                };
                stream
                    .write_all(piece.as_bytes())
                    .await
                    .expect("the server still reads");
            }
            let answer = read_until_closed_or_reset(&mut stream).await;
            assert!(
                answer.starts_with("HTTP/1.1 4"),
                "{what} at {path}: {answer}"
            );
            assert!(
                answer.contains("\"success\":false"),
                "{what} at {path}: {answer}"
            );
        }
    }
}
