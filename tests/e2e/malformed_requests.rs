//! Malformed HTTP requests. Each gets an error of the common form, has no effect, and does not disturb other clients.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Harness, LOCK};

/// Sends these bytes, and reads until the server closes the connection.
pub(crate) async fn raw(harness: &Harness, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(harness.program.address)
        .await
        .expect("a connection");
    // The server may close before all bytes are sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asserts that the answer is an error of the common form with a request id.
fn assert_refused(what: &str, answer: &str, status: u16, message_part: &str) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{what}: {answer}"));
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")),
        "{what}: {answer}"
    );
    assert!(
        head.to_lowercase().contains("x-request-id: "),
        "{what}: {answer}"
    );
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{what}: {answer}"));
    assert_eq!(
        (&body["success"], &body["code"]),
        (&json!(false), &json!(status)),
        "{what}"
    );
    let message = body["message"].as_str().expect("a message");
    assert!(message.contains(message_part), "{what}: {message}");
}

/// A complete write request with this request line, and with these headers instead of Host and Content-Length.
fn request(harness: &Harness, line: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "{line}\r\n{headers}Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Connection: close\r\n\r\n{body}",
        harness.program.token
    )
    .into_bytes()
}

const REQUEST_LINE: &str = "POST /locks/123/WriteKey HTTP/1.1";
const BODY: &str = r#"{"keyUuid":"k"}"#;

#[tokio::test]
async fn rejects_a_missing_repeated_or_malformed_host() {
    let harness = Harness::silent();
    let before = harness.store().await.dump();
    for hosts in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a/c\r\n",
        "Host: me@a\r\n",
        "Host: a:\r\n",
        "Host: a:port\r\n",
        "Host: a:99999\r\n",
        "Host: http://a\r\n",
        "Host: a, b\r\n",
    ] {
        let headers = format!("{hosts}Content-Length: {}\r\n", BODY.len());
        let answer = raw(&harness, &request(&harness, REQUEST_LINE, &headers, BODY)).await;
        assert_refused(hosts, &answer, 400, "Host");
    }
    assert_eq!(harness.store().await.dump(), before);
    assert_eq!(
        harness.write("k", None).await.status,
        200,
        "others are served"
    );
}

#[tokio::test]
async fn rejects_a_malformed_target_or_one_of_another_host() {
    let harness = Harness::silent();
    let before = harness.store().await.dump();
    let headers = format!("Host: a\r\nContent-Length: {}\r\n", BODY.len());
    for (target, message_part) in [
        (
            "https://evil.example/locks/123/WriteKey",
            "must name the same host",
        ),
        ("ftp://a/locks/123/WriteKey", "must name the same host"),
        ("locks/123/WriteKey", "not a valid HTTP/1.1 request"),
        ("a:80", "must be a path"),
        ("*", "must be a path"),
        ("", "not a valid HTTP/1.1 request"),
        ("/locks/123/Write Key", "not a valid HTTP/1.1 request"),
        ("/locks/123/\u{1}", "not a valid HTTP/1.1 request"),
    ] {
        let line = format!("POST {target} HTTP/1.1");
        let answer = raw(&harness, &request(&harness, &line, &headers, BODY)).await;
        assert_refused(target, &answer, 400, message_part);
    }
    for path in [
        "//locks/123/WriteKey",
        "/./locks/123/WriteKey",
        "/locks/123/../124/details",
        "/locks/123/%2e%2e/124/details",
        "/locks%2f123/WriteKey",
        "/locks/123/WriteKey%2F",
    ] {
        let line = format!("POST {path} HTTP/1.1");
        let answer = raw(&harness, &request(&harness, &line, &headers, BODY)).await;
        assert_refused(path, &answer, 404, "not found");
    }
    assert_eq!(harness.store().await.dump(), before);
}

#[tokio::test]
async fn rejects_an_ambiguous_body_framing() {
    let harness = Harness::silent();
    let before = harness.store().await.dump();
    let chunked = chunked(BODY);
    let length = BODY.len();
    for (headers, body, message_part) in [
        (
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
            chunked.as_str(),
            "not with both",
        ),
        (
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            &chunked,
            "not with both",
        ),
        (
            "Transfer-Encoding: chunked, chunked\r\n".to_owned(),
            &chunked,
            "named once",
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned(),
            &chunked,
            "named once",
        ),
        (
            "Transfer-Encoding: identity\r\n".to_owned(),
            BODY,
            "valid HTTP/1.1",
        ),
        (
            "Transfer-Encoding: xchunked\r\n".to_owned(),
            &chunked,
            "valid HTTP/1.1",
        ),
        (
            "Transfer-Encoding: \u{b}chunked\r\n".to_owned(),
            &chunked,
            "valid HTTP/1.1",
        ),
        (
            format!("Content-Length: {length}\r\nContent-Length: 3\r\n"),
            BODY,
            "valid HTTP/1.1",
        ),
        ("Content-Length: -1\r\n".to_owned(), BODY, "valid HTTP/1.1"),
        ("Content-Length: 1e1\r\n".to_owned(), BODY, "valid HTTP/1.1"),
        (
            "Content-Length: 99999999999999999999\r\n".to_owned(),
            BODY,
            "valid HTTP/1.1",
        ),
    ] {
        let answer = raw(
            &harness,
            &request(
                &harness,
                REQUEST_LINE,
                &format!("Host: a\r\n{headers}"),
                body,
            ),
        )
        .await;
        assert_refused(&headers, &answer, 400, message_part);
    }
    let unknown = "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n";
    let answer = raw(
        &harness,
        &request(&harness, REQUEST_LINE, unknown, &chunked),
    )
    .await;
    assert_refused(unknown, &answer, 501, "chunked");
    assert_eq!(harness.store().await.dump(), before);
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

#[tokio::test]
async fn rejects_an_ambiguous_framing_of_a_pipelined_request() {
    let harness = Harness::silent();
    // The second of two requests in one segment has both framings.
    let token = &harness.program.token;
    let first = format!("{REQUEST_LINE}\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}");
    let second = format!(
        "{REQUEST_LINE}\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        chunked(BODY)
    );
    let before = harness.store().await.dump();
    let answers = raw(&harness, format!("{first}{second}").as_bytes()).await;
    let (found, refused) = answers.split_at(answers.rfind("HTTP/1.1 ").expect("an answer"));
    assert!(found.starts_with("HTTP/1.1 401 "), "{answers}");
    assert_refused("the second", refused, 400, "not with both");
    assert_eq!(harness.store().await.dump(), before);
}

#[tokio::test]
async fn a_body_is_never_read_as_a_header_of_the_next_request() {
    let harness = Harness::silent();
    let token = &harness.program.token;
    let body = "{\nContent-Length: 1}";
    // A proxy may send the requests of several clients on one connection.
    let first = format!(
        "{REQUEST_LINE}\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let second = format!(
        "{REQUEST_LINE}\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{}",
        chunked(BODY)
    );
    let answers = raw(&harness, format!("{first}{second}").as_bytes()).await;
    let (found, written) = answers.split_at(answers.rfind("HTTP/1.1 ").expect("an answer"));
    assert!(found.starts_with("HTTP/1.1 401 "), "{answers}");
    assert!(written.starts_with("HTTP/1.1 200 "), "{answers}");
}

#[tokio::test]
async fn an_answer_before_the_body_closes_the_connection() {
    let harness = Harness::silent();
    for (method, path, status) in [
        ("POST", "/nowhere", 404),
        ("PUT", "/locks/123/details", 405),
        ("GET", "/healthz", 200),
        ("OPTIONS", "/healthz", 204),
    ] {
        let request = harness.program.request(method, path).body("{}");
        let answer = request.send().await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (status, Some("close")),
            "{method} {path}"
        );
    }
    let request = harness.program.request("POST", "/locks/123/WriteKey");
    let refused = request.header("Content-Type", "text/plain").body("{}");
    let refused = refused.send().await;
    assert_eq!(
        (refused.status, refused.header("connection")),
        (401, None),
        "{refused:?}"
    );
}

#[tokio::test]
async fn rejects_a_malformed_or_too_large_chunked_body() {
    let harness = Harness::silent();
    let before = harness.store().await.dump();
    let headers = "Host: a\r\nTransfer-Encoding: chunked\r\n";
    for (body, status) in [
        (format!("1{:016x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len()), 400),
        (format!("{:x}\n{BODY}\r\n0\r\n\r\n", BODY.len()), 400),
        (format!("{:x};a=\n\r\n{BODY}\r\n0\r\n\r\n", BODY.len()), 400),
        // A chunk size of 17 digits with leading zeros, and trailer lines without CR.
        (format!("{:017x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len()), 400),
        (
            format!("{:x}\r\n{BODY}\r\n{:017x}\r\n\r\n", BODY.len(), 0),
            400,
        ),
        (
            format!("{:x}\r\n{BODY}\r\n0\r\nX: y\nZ: z\r\n\r\n", BODY.len()),
            400,
        ),
        (
            format!("{:x}\r\n{BODY}\r\n0\r\nX: y\r\n\n", BODY.len()),
            400,
        ),
        (format!("+{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len()), 400),
        (format!("-1\r\n{BODY}\r\n0\r\n\r\n"), 400),
        (format!("x\r\n{BODY}\r\n0\r\n\r\n"), 400),
        (format!("2\r\n{BODY}\r\n0\r\n\r\n"), 400),
        (
            format!(
                "{}0\r\n\r\n",
                format!("64\r\n{}\r\n", " ".repeat(100)).repeat(50)
            ),
            413,
        ),
        (format!("fffffffffffffff\r\n{BODY}"), 408),
    ] {
        let answer = raw(&harness, &request(&harness, REQUEST_LINE, headers, &body)).await;
        assert_refused(&body, &answer, status, "body");
    }
    // Trailers are limited in size and ignored.
    let trailers = format!(
        "{:x}\r\n{BODY}\r\n0\r\nX: {}\r\n\r\n",
        BODY.len(),
        "x".repeat(64 * 1024)
    );
    let answer = raw(
        &harness,
        &request(&harness, REQUEST_LINE, headers, &trailers),
    )
    .await;
    assert_refused("trailers", &answer, 400, "body");
    assert_eq!(harness.store().await.dump(), before);
    let trailer = format!(
        "{:016x}\r\n{BODY}\r\n{:016x}\r\nkeyUuid: other\r\n\r\n",
        BODY.len(),
        0
    );
    let answer = raw(
        &harness,
        &request(&harness, REQUEST_LINE, headers, &trailer),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\"keyUuid\":\"k\""), "{answer}");
}

#[tokio::test]
async fn accepts_percent_encoded_paths_and_absolute_targets() {
    let harness = Harness::silent();
    for target in [
        "/locks/%31%32%33/WriteKey",
        "/%6cocks/123/Write%4bey",
        "http://a/locks/123/WriteKey",
        "https://A/locks/123/WriteKey",
    ] {
        let headers = format!("Host: a\r\nContent-Length: {}\r\n", BODY.len());
        let line = format!("POST {target} HTTP/1.1");
        let answer = raw(&harness, &request(&harness, &line, &headers, BODY)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer}");
    }
}

#[tokio::test]
async fn accepts_a_write_id_in_upper_case() {
    let harness = Harness::silent();
    let id = harness.write("k", None).await.write_id();
    let path = format!("/locks/{LOCK}/writes/{}", id.to_uppercase());
    let found = harness.program.get(&path).send().await;
    assert_eq!((found.status, &found.body["id"]), (200, &json!(id)));
    let withdrawn = harness
        .program
        .request("DELETE", &path)
        .bearer(&harness.program.token);
    assert_eq!(withdrawn.send().await.status, 200);
}

#[tokio::test]
async fn rejects_content_codings_and_accepts_a_byte_order_mark() {
    let harness = Harness::silent();
    let send = |coding: &str, body: &str| {
        let request = harness.program.write_key(LOCK, &json!({}));
        request.header("Content-Encoding", coding).body(body).send()
    };
    for coding in ["gzip", "br", "identity, gzip", "x"] {
        let refused = send(coding, BODY).await;
        assert_eq!(
            (refused.status, refused.header("accept-encoding")),
            (415, Some("identity"))
        );
        let message = refused.body["message"].as_str().expect("a message");
        assert!(message.contains("Content-Encoding"), "{message}");
    }
    for coding in ["identity", "", "Identity"] {
        assert_eq!(send(coding, BODY).await.status, 200, "{coding}");
    }
    assert_eq!(
        send("identity", &format!("\u{feff}{BODY}")).await.status,
        200
    );
}

#[tokio::test]
async fn answers_a_half_closed_client() {
    let harness = Harness::silent();
    let mut stream = TcpStream::connect(harness.program.address)
        .await
        .expect("a connection");
    let headers = format!("Host: a\r\nContent-Length: {}\r\n", BODY.len());
    let bytes = request(&harness, REQUEST_LINE, &headers, BODY);
    stream.write_all(&bytes).await.expect("sent");
    stream.shutdown().await.expect("shut down");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn refuses_http_2_with_an_http_2_answer() {
    let harness = Harness::silent();
    let mut stream = TcpStream::connect(harness.program.address)
        .await
        .expect("a connection");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.expect("sent");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .await
        .expect("the server closes the connection");
    assert_eq!(&answer[..9], b"\0\0\0\x04\0\0\0\0\0", "SETTINGS");
    assert_eq!(
        (answer[12], &answer[22..26]),
        (7, &b"\0\0\0\x0d"[..]),
        "GOAWAY, HTTP_1_1_REQUIRED"
    );
    // The HTTP/2 client of Node.js understands the refusal.
    let script = format!(
        "const session = require('http2').connect('http://{}');
         session.on('error', () => {{}});
         session.on('goaway', (code, _, text) => {{ console.log(code, String(text)); process.exit(); }});
         session.request({{':path': '/healthz'}}).on('error', () => {{}});",
        harness.program.address
    );
    let node = std::process::Command::new("node")
        .args(["-e", &script])
        .output();
    let printed = String::from_utf8(node.expect("Node.js runs").stdout).expect("text");
    assert_eq!(printed, "13 HTTP/1.1 required\n");
}

#[tokio::test]
async fn rejects_non_http_bytes() {
    let harness = Harness::silent();
    for bytes in [
        &b"GARBAGE\r\n\r\n"[..],
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/9\r\nHost: a\r\n\r\n",
        b"G\x00T /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let answer = raw(&harness, bytes).await;
        assert_refused(
            &String::from_utf8_lossy(bytes),
            &answer,
            400,
            "valid HTTP/1.1",
        );
    }
    let log = harness.program.log();
    assert!(log.contains("a request could not be read"), "{log}");
    assert_eq!(
        harness.write("k", None).await.status,
        200,
        "others are served"
    );
}

#[tokio::test]
async fn rejects_too_large_request_heads() {
    let harness = Harness::silent();
    let long = format!(
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(20_000)
    );
    let many = format!(
        "GET /healthz HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: y\r\n".repeat(200)
    );
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20_000));
    for (what, bytes) in [
        ("a long header", long),
        ("many headers", many),
        ("a long target", target),
    ] {
        let answer = raw(&harness, bytes.as_bytes()).await;
        assert_refused(what, &answer, 431, "16384 bytes");
    }
    let answer = harness
        .program
        .get("/healthz")
        .header("X-Long", &"x".repeat(8_000))
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn http_1_0_needs_no_host() {
    let harness = Harness::silent();
    let answer = raw(&harness, b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    let headers = format!("Content-Length: {}\r\n", BODY.len());
    let line = format!("POST /locks/{LOCK}/WriteKey HTTP/1.0");
    let answer = raw(&harness, &request(&harness, &line, &headers, BODY)).await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
}

#[tokio::test]
async fn rejects_a_body_that_is_not_utf_8() {
    let harness = Harness::silent();
    let before = harness.store().await.dump();
    for body in [
        &b"{\"keyUuid\":\"\xff\"}"[..],
        b"{\"keyUuid\":\"\xc0\xaf\"}",
        b"\xff\xfe{\x00",
    ] {
        let headers = format!("Host: a\r\nContent-Length: {}\r\n", body.len());
        let mut bytes = request(&harness, REQUEST_LINE, &headers, "");
        bytes.extend_from_slice(body);
        let answer = raw(&harness, &bytes).await;
        assert_refused("a body", &answer, 400, "The body");
    }
    assert_eq!(harness.store().await.dump(), before);
    assert_eq!(
        harness.write("k", None).await.status,
        200,
        "others are served"
    );
}

/// Reads until the server closes the connection, for at most a minute.
async fn read_until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(60), reading).await;
    read.expect("the server closes the connection")
        .expect("an orderly close");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_partial_head_after_a_pipelined_request_has_the_head_timeout() {
    // The idle timeout is longer than the test waits.
    let harness = Harness::new(&["--virtual-locks", "off", "--keep-alive", "10m"]);
    let token = &harness.program.token;
    let head = |framing: &str| {
        format!(
            "{REQUEST_LINE}\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n{framing}\r\n\r\n"
        )
    };
    let length = format!("Content-Length: {}", BODY.len());
    let waiting = ["GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: a\r\n"].map(|half| {
        [
            "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            format!("{}{BODY}", head(&length)),
            format!("{}{}", head("Transfer-Encoding: chunked"), chunked(BODY)),
        ]
        .map(|whole| (whole, half))
    });
    let waiting = waiting.concat().into_iter().map(|(whole, half)| {
        let address = harness.program.address;
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let sent = format!("{whole}{half}");
            stream.write_all(sent.as_bytes()).await.expect("sent");
            read_until_closed(&mut stream).await
        })
    });
    for waiting in waiting.collect::<Vec<_>>() {
        let answer = waiting.await.expect("no panic");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let harness = Harness::silent();
    let token = &harness.program.token;
    let head = |framing: &str| {
        format!(
            "{REQUEST_LINE}\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\n{framing}\r\n\r\n"
        )
    };
    let length = format!("Content-Length: {}", BODY.len());
    let last = "GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let all = [
        "\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("{}{BODY}", head(&length)),
        format!("{}{}", head("Transfer-Encoding: chunked"), chunked(BODY)),
        "GET /healthz HTTP/1.1\nHost: a\n\n".to_owned(),
        last.to_owned(),
    ]
    .concat();
    for piece in [all.len(), 700, 1] {
        let mut stream = TcpStream::connect(harness.program.address)
            .await
            .expect("a connection");
        stream.set_nodelay(true).expect("set");
        for bytes in all.as_bytes().chunks(piece) {
            stream.write_all(bytes).await.expect("sent");
        }
        let answers = read_until_closed(&mut stream).await;
        let found: Vec<&str> = ["\"ok\"", "\"success\"", "\"ready\""]
            .iter()
            .flat_map(|body| answers.match_indices(body))
            .map(|(_, body)| body)
            .collect();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 5, "{answers}");
        assert_eq!(found.len(), 5, "{answers}");
        assert!(answers.ends_with("{\"status\":\"ready\"}"), "{answers}");
    }
}

#[tokio::test]
async fn refuses_a_fragmented_http_2_preface_with_an_http_2_answer() {
    let harness = Harness::silent();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut refusals = Vec::new();
    for first in [1, 2, 5, 13, 15] {
        let mut stream = TcpStream::connect(harness.program.address)
            .await
            .expect("a connection");
        stream.set_nodelay(true).expect("set");
        stream.write_all(&preface[..first]).await.expect("sent");
        // Three answers on other connections take longer than the server needs to read the first bytes.
        for _ in 0..3 {
            assert_eq!(harness.program.get("/healthz").send().await.status, 200);
        }
        stream.write_all(&preface[first..]).await.expect("sent");
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .await
            .expect("the server closes the connection");
        assert_eq!(&answer[..9], b"\0\0\0\x04\0\0\0\0\0", "SETTINGS: {first}");
        refusals.push(answer);
    }
    assert!(refusals.iter().all(|answer| *answer == refusals[0]));
    // Methods that start like the preface are parsed as HTTP/1.1.
    for method in ["POST", "PUT", "PROPFIND", "PRI", "P"] {
        let mut stream = TcpStream::connect(harness.program.address)
            .await
            .expect("a connection");
        stream.set_nodelay(true).expect("set");
        let request = format!("{method} * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        for byte in request.as_bytes() {
            stream.write_all(&[*byte]).await.expect("sent");
        }
        let answer = read_until_closed(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{method}: {answer}");
    }
    // A client that stops within the preface gets an answer in HTTP/1.1.
    let answer = raw_and_shut_down(&harness, b"PRI * HT").await;
    assert!(!answer.contains("HTTP/2"), "{answer}");
}

/// Sends these bytes, closes the sending side, and reads until the server closes the connection.
async fn raw_and_shut_down(harness: &Harness, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(harness.program.address)
        .await
        .expect("a connection");
    stream.write_all(bytes).await.expect("sent");
    stream.shutdown().await.expect("shut down");
    read_until_closed(&mut stream).await
}
