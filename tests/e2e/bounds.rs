//! Clients that are slow, loud, or gone.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{BRISK, FAST, LOCK, World, eventually};

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect(world.program.address)
        .await
        .expect("a connection")
}

/// For how long a test waits for what comes by itself. Only one that fails waits so long.
const HANG: Duration = Duration::from_secs(60);

/// What comes until the server closes.
async fn until_closed(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let reading = stream.read_to_end(&mut text);
    let read = tokio::time::timeout(HANG, reading).await;
    let _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&text).into_owned()
}

/// The line of the log that says how a request was answered, and the number of it.
fn answered(log: &str, id: &str) -> Option<(usize, String)> {
    let is_it = |line: &str| line.contains(id) && line.contains("answered");
    let mut lines = log.lines().enumerate();
    let (number, line) = lines.find(|(_, line)| is_it(line))?;
    Some((number, line.to_owned()))
}

/// The numbers of the lines that say how requests were answered, when all of them are.
async fn order_of_answers<const N: usize>(world: &World, ids: [&str; N]) -> [usize; N] {
    eventually("all are answered", || async {
        let log = world.program.log();
        let found = ids.map(|id| answered(&log, id).map(|(number, _)| number));
        let all = found.iter().all(Option::is_some);
        all.then(|| found.map(Option::unwrap_or_default))
    })
    .await
}

/// A first write that is in progress for long enough to do something else meanwhile, also on a busy machine.
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

fn head(world: &World, length: usize) -> String {
    format!(
        "POST /locks/{LOCK}/WriteKey HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
        world.program.token
    )
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let world = World::silent();
    let before = world.books().await.dump();
    // Before the server's clocks start, so that a time that has passed here is not longer there.
    let start = tokio::time::Instant::now();
    let silent = connect(&world).await;
    let mut one_byte = connect(&world).await;
    one_byte.write_all(b"P").await.expect("sent");
    let mut half_a_head = connect(&world).await;
    half_a_head
        .write_all(b"POST /locks/123/WriteKey HTTP/1.1\r\nHost: x\r\n")
        .await
        .expect("sent");
    let mut half_a_body = connect(&world).await;
    half_a_body
        .write_all(head(&world, 100).as_bytes())
        .await
        .expect("sent");
    half_a_body.write_all(b"{\"keyUuid\":").await.expect("sent");
    let timed = async |stream| (until_closed(stream).await, start.elapsed());
    let ends = tokio::join!(
        timed(silent),
        timed(one_byte),
        timed(half_a_head),
        timed(half_a_body)
    );
    assert_eq!(world.books().await.dump(), before, "nothing was done");
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
        world.write("k", None).await.status,
        200,
        "others are served"
    );
}

/// Two requests for which the store does not answer. The head of the first one comes first, its body last, so that the one
/// whose time ends first shows from when it runs.
#[tokio::test]
async fn a_request_s_time_runs_from_its_arrival() {
    let mut arguments = vec!["--faults", "load@1-=delay:60s"];
    arguments.extend(["--request", "3s", "--turn", "3s", "--virtual-locks", "off"]);
    let world = World::new(&arguments);
    let body = "{\"keyUuid\":\"k\"}";
    let head = |id: &str| {
        let headers = format!("Host: x\r\nConnection: close\r\nX-Request-Id: {id}");
        head(&world, body.len()).replace("Host: x", &headers)
    };
    let mut slow = connect(&world).await;
    slow.write_all(head("slow").as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut whole = connect(&world).await;
    let request = format!("{}{body}", head("whole"));
    whole.write_all(request.as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(300)).await;
    slow.write_all(body.as_bytes()).await.expect("sent");
    for stream in [slow, whole] {
        let answer = until_closed(stream).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    let [slow, whole] = order_of_answers(&world, ["slow", "whole"]).await;
    assert!(slow < whole, "{}", world.program.log());
}

#[tokio::test]
async fn a_use_case_that_panics_is_a_500_and_leaves_nothing_behind() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let program = env!("CARGO_BIN_EXE_keywright-panicking");
    // One place for all: whoever panicked has left it.
    let alone = [
        "--store",
        "memory",
        "--shadow",
        "volatile",
        "--virtual-locks",
        "off",
        "--max-in-flight",
        "1",
    ];
    let program = keywright_tests::Program::start(program, folder.path(), &alone);
    for (slot, expected) in [(1, 500), (2, 500), (1, 500), (0, 200)] {
        let body = serde_json::json!({ "keyUuid": "k", "keyIndexNumber": slot });
        let answer = program.write_key(LOCK, &body).send().await;
        assert_eq!(answer.status, expected, "{slot}: {}", answer.text);
    }
    let log = program.log();
    assert_eq!(log.matches("did not complete").count(), 3, "{log}");
    assert!(
        log.contains("at once") && log.contains("after a while"),
        "{log}"
    );
}

#[tokio::test]
async fn a_client_that_hangs_up_at_each_step_leaves_the_books_balanced() {
    let mut arguments = vec!["--faults", "put@1-=delay:150ms", "--virtual-locks", "off"];
    arguments.extend(FAST);
    let world = World::new(&arguments);
    let body = |n: usize| format!("{{\"keyUuid\":\"k{n}\",\"keyIndexNumber\":2}}");
    let whole = |n: usize| format!("{}{}", head(&world, body(n).len()), body(n));
    // In the head, behind it, in the body: nothing was asked yet.
    for part in [10, whole(0).len() - body(0).len(), whole(0).len() - 3] {
        let mut stream = connect(&world).await;
        stream
            .write_all(&whole(0).as_bytes()[..part])
            .await
            .expect("sent");
        drop(stream);
    }
    // While it waits for its turn, for the shadow, for the commit: what was begun is finished.
    for (n, pause) in [0, 10, 60, 120, 150, 170, 250].into_iter().enumerate() {
        let mut stream = connect(&world).await;
        stream
            .write_all(whole(n + 1).as_bytes())
            .await
            .expect("sent");
        tokio::time::sleep(Duration::from_millis(pause)).await;
        drop(stream);
    }
    let requested = eventually("everything has come to rest", || async {
        let books = world.books().await;
        books.check_at_rest(&[LOCK]).await.ok()?;
        let names = books.names(LOCK).await;
        let requested = names.iter().filter(|n| **n == "KeyWriteRequested").count();
        (requested >= 6).then_some(requested)
    })
    .await;
    // One that hung up at once may not have been read at all.
    assert!(requested <= 7, "{requested}");
    assert_eq!(
        world.write("last", Some(2)).await.status,
        200,
        "the turn is free"
    );
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let world = World::silent();
    let mut connection = keywright_tests::Connection::open(world.program.address)
        .await
        .expect("open");
    for n in 0..20 {
        let request = world
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k", "keyIndexNumber": n % 4 }));
        let answer = connection.send(request).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let world = World::silent();
    let mut stream = connect(&world).await;
    let request = format!(
        "GET /locks/{LOCK}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        world.program.token
    );
    // As many as fit, until the server has enough answers that nobody takes.
    let flood = request.repeat(64);
    let sending = async {
        loop {
            stream.write_all(flood.as_bytes()).await?;
        }
        #[expect(unreachable_code, reason = "it says of what type the error is")]
        Ok::<(), std::io::Error>(())
    };
    let ended = tokio::time::timeout(2 * HANG, sending).await;
    assert!(
        matches!(ended, Ok(Err(_))),
        "the server closes the connection: {ended:?}"
    );
    assert_eq!(
        world.write("k", None).await.status,
        200,
        "others are served"
    );
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_a_place() {
    let mut arguments = vec!["--virtual-locks", "off", "--max-connections", "2"];
    arguments.extend(["--faults", "load@1-2=delay:2s"]);
    arguments.extend(BRISK);
    let world = World::new(&arguments);
    let mut busy = Vec::new();
    for id in ["busy-1", "busy-2"] {
        // Its answer shows that the connection has a place.
        let mut connection = keywright_tests::Connection::open(world.program.address)
            .await
            .expect("a connection");
        let answer = connection.send(world.program.get("/healthz")).await;
        assert_eq!(answer.expect("an answer").status, 200);
        busy.push((connection, id));
    }
    let busy: Vec<_> = busy
        .into_iter()
        .map(|(mut connection, id)| {
            let request = world.program.get("/locks/123/details");
            let request = request.header("X-Request-Id", id);
            let request = request.header("Connection", "close");
            tokio::spawn(async move { connection.send(request).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let third = world.program.get("/openapi.json");
    let third = third.header("X-Request-Id", "third").send().await;
    assert_eq!(third.status, 200);
    for busy in busy {
        let answer = busy.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status, 200);
    }
    let [one, two, third] = order_of_answers(&world, ["busy-1", "busy-2", "third"]).await;
    assert!(one.min(two) < third, "{}", world.program.log());
}

#[tokio::test]
async fn a_burst_of_more_connections_than_may_be_open_is_answered() {
    let world = World::new(&["--virtual-locks", "off", "--max-connections", "4"]);
    let asking: Vec<_> = (0..200)
        .map(|_| {
            let request = world.program.get("/healthz").header("Connection", "close");
            tokio::spawn(request.send())
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn the_longest_idle_connection_makes_room_for_a_new_one() {
    let world = World::new(&["--virtual-locks", "off", "--max-connections", "3"]);
    let mut kept = Vec::new();
    for _ in 0..3 {
        let open = keywright_tests::Connection::open(world.program.address).await;
        let mut open = open.expect("a connection");
        let answer = open.send(world.program.get("/healthz")).await;
        assert_eq!(answer.expect("an answer").status, 200);
        kept.push(open);
    }
    let again = kept[0].send(world.program.get("/healthz")).await;
    assert_eq!(
        again.expect("an answer").status,
        200,
        "it is idle for the shortest time now"
    );
    assert_eq!(world.program.get("/healthz").send().await.status, 200);
    let closed = kept[1].send(world.program.get("/healthz")).await;
    assert!(closed.is_err(), "{closed:?}");
    for open in [0, 2] {
        let answer = kept[open].send(world.program.get("/healthz")).await;
        assert_eq!(answer.expect("an answer").status, 200, "{open} is kept");
    }
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_a_slow_head() {
    let world = World::new(&["--virtual-locks", "off", "--keep-alive", "10m"]);
    let mut kept = keywright_tests::Connection::open(world.program.address)
        .await
        .expect("a connection");
    let mut ask = async || kept.send(world.program.get("/healthz")).await;
    assert_eq!(ask().await.expect("at once").status, 200);
    // Longer than a head may take.
    tokio::time::sleep(Duration::from_millis(6500)).await;
    assert_eq!(ask().await.expect("after a while").status, 200);
    // The next head on a kept connection has the time of a head: it is closed long before an idle connection.
    let mut slow = connect(&world).await;
    let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    slow.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.expect("an answer");
    slow.write_all(b"GET /healthz HT").await.expect("sent");
    until_closed(slow).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_when_its_time_is_over() {
    let world = World::new(&["--virtual-locks", "off", "--keep-alive", "2s"]);
    let start = tokio::time::Instant::now();
    let mut kept = connect(&world).await;
    let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    kept.write_all(request.as_bytes()).await.expect("sent");
    let answer = until_closed(kept).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(start.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn an_early_refusal_of_a_large_body_can_be_read() {
    let world = World::silent();
    for (what, framing) in [
        ("a length", "Content-Length: 150000"),
        ("chunks", "Transfer-Encoding: chunked"),
    ] {
        for path in ["/nowhere", "/locks/123/WriteKey"] {
            let mut stream = connect(&world).await;
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.expect("sent");
            stream
                .readable()
                .await
                .expect("the answer is there before the body");
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
            let answer = until_closed(stream).await;
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

#[tokio::test]
async fn writes_beyond_the_cap_are_told_to_come_again() {
    let mut arguments = vec!["--max-in-flight", "1", "--locks", "1"];
    arguments.extend(SLOW_SHADOW);
    let world = World::new(&arguments);
    let slow = tokio::spawn(
        world
            .program
            .write_key(LOCK, &json!({ "keyUuid": "k" }))
            .send(),
    );
    eventually("the first is in progress", || async {
        world.program.log().contains("PREPARED").then_some(())
    })
    .await;
    let other = world
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
        world.program.get("/healthz").send().await.status,
        200,
        "it is still there"
    );
    assert_eq!(slow.await.expect("answered").status, 200);
    let again = world
        .program
        .write_key(1001, &json!({ "keyUuid": "k" }))
        .send()
        .await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn nobody_takes_all_places() {
    let mut arguments = vec!["--max-in-flight", "4", "--max-in-flight-each", "1"];
    arguments.extend(["--locks", "1"]);
    arguments.extend(SLOW_SHADOW);
    let world = World::new(&arguments);
    let body = json!({ "keyUuid": "k" });
    let slow = tokio::spawn(world.program.write_key(LOCK, &body).send());
    eventually("the first is in progress", || async {
        world.program.log().contains("PREPARED").then_some(())
    })
    .await;
    let mine = world.program.write_key(1001, &body).send().await;
    assert_eq!(
        (mine.status, mine.header("retry-after")),
        (429, Some("1")),
        "{mine:?}"
    );
    assert_eq!(mine.body["reason"], "TooManyInProgress");
    let theirs = world.program.request("GET", "/locks/123/details");
    let theirs = theirs.header("X-API-Key", &world.program.api_key);
    assert_eq!(theirs.send().await.status, 200);
    assert_eq!(slow.await.expect("answered").status, 200);
    assert_eq!(
        world.program.write_key(1001, &body).send().await.status,
        200
    );
}

/// Sends a request to write a key that waits for the lock for as long as may be, on a connection of its own.
async fn send_waiting(world: &World, key: &str, id: &str) -> TcpStream {
    let body = format!("{{\"keyUuid\":\"{key}\"}}");
    let prefer = format!("Host: x\r\nPrefer: wait=30\r\nConnection: close\r\nX-Request-Id: {id}");
    let head = head(world, body.len()).replace("Host: x", &prefer);
    let mut stream = connect(world).await;
    let request = format!("{head}{body}");
    stream.write_all(request.as_bytes()).await.expect("sent");
    eventually("the write is open", || async {
        let log = world.program.log();
        let sent = |line: &str| line.contains(id) && line.contains("SENT");
        log.lines().any(sent).then_some(())
    })
    .await;
    stream
}

#[tokio::test]
async fn a_client_that_resets_its_connection_waits_no_longer() {
    let world = World::new(&["--virtual-locks", "off", "--max-in-flight-each", "1"]);
    for pipelined in ["", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let id = format!("reset-{}", pipelined.len());
        let mut waiting = send_waiting(&world, &id, &id).await;
        let other = world.write("other", Some(3)).await;
        assert_eq!(other.body["reason"], "TooManyInProgress", "{other:?}");
        waiting.write_all(pipelined.as_bytes()).await.expect("sent");
        waiting.set_zero_linger().expect("set");
        drop(waiting);
        let line = eventually("its request is given up", || async {
            let log = world.program.log();
            let is_over = |line: &&str| line.contains(&id) && line.contains("route=");
            log.lines().find(is_over).map(str::to_owned)
        })
        .await;
        assert!(
            line.contains("the connection ended before the answer"),
            "{line}"
        );
        assert_eq!(world.write("other", Some(3)).await.status, 200);
    }
    let metrics = world.program.get("/metrics").send().await;
    let counted = "\nkeywright_unanswered_requests_total 2\n";
    assert!(metrics.text.contains(counted), "{}", metrics.text);
    world.balanced().await;
}

#[tokio::test]
async fn a_client_that_ends_what_it_sends_waits_on_without_its_share() {
    let world = World::new(&["--virtual-locks", "off", "--max-in-flight-each", "1"]);
    let mut waiting = send_waiting(&world, "k", "half-closed").await;
    let other = world.write("other", Some(3)).await;
    assert_eq!(other.body["reason"], "TooManyInProgress", "{other:?}");
    waiting.shutdown().await.expect("shut down");
    eventually("its share is free", || async {
        let other = world.write("other", Some(3)).await;
        (other.status == 200).then_some(())
    })
    .await;
    // Taken back, the write ends: the client is told so, because it has waited for that.
    let open = world
        .program
        .get("/locks/123/writes?state=open")
        .send()
        .await;
    let id = open.body["writes"][0]["id"]
        .as_str()
        .expect("the first write");
    let path = format!("/locks/{LOCK}/writes/{id}");
    let withdrawal = world.program.request("DELETE", &path);
    let withdrawn = withdrawal.bearer(&world.program.token).send().await;
    assert_eq!(withdrawn.status, 200, "{withdrawn:?}");
    let answer = until_closed(waiting).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"state\":\"WITHDRAWN\""), "{answer}");
}

#[tokio::test]
async fn who_guesses_credentials_is_slowed_down_and_good_ones_are_let_in() {
    let world = World::new(&["--virtual-locks", "off", "--max-failures", "5"]);
    let guess = || {
        let request = world.program.request("GET", "/locks/123/details");
        request.bearer("no.such.token").send()
    };
    let mut statuses = Vec::new();
    for _ in 0..120 {
        statuses.push(guess().await.status);
        let good = world.program.get("/locks/123/details").send().await;
        assert_eq!(good.status, 200, "a good one is never locked out");
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
async fn the_end_does_not_wait_for_ever_for_a_client() {
    // Draining takes the time of a request and 2 s, the body has 5 s.
    let mut arguments = vec!["--virtual-locks", "off", "--request", "600ms"];
    arguments.extend(["--shadow-call", "200ms", "--turn", "500ms", "--lease", "4s"]);
    let world = World::new(&arguments);
    let mut half_a_body = connect(&world).await;
    let head = head(&world, 100).replace("Host: x", "Host: x\r\nExpect: 100-continue");
    half_a_body.write_all(head.as_bytes()).await.expect("sent");
    let mut informed = [0; 12];
    let read = half_a_body.read_exact(&mut informed).await;
    read.expect("the server waits for the body");
    assert_eq!(&informed, b"HTTP/1.1 100");
    let World {
        folder, program, ..
    } = world;
    let (status, log) = program.stop();
    assert!(status.success(), "{log}");
    assert!(
        log.contains("stopped before all requests had finished"),
        "{log}"
    );
    drop((folder, half_a_body));
}
