//! Requests that are wrong before anyone looks at what they ask for. Each is answered in the one shape, leaves
//! nothing, and keeps nobody else from being served.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{LOCK, World};

/// Sends these bytes and reads what comes until the server closes.
async fn raw(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.program.address)
        .await
        .expect("a connection");
    // The server may have had enough before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("it closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// One shape for all errors, with a request id.
fn assert_refused(what: &str, answer: &str, status: u16, says: &str) {
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
    assert!(message.contains(says), "{what}: {message}");
}

/// A whole request to write a key, with this line and these headers instead of Host and Content-Length.
fn request(world: &World, line: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "{line}\r\n{headers}Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Connection: close\r\n\r\n{body}",
        world.program.token
    )
    .into_bytes()
}

const LINE: &str = "POST /locks/123/WriteKey HTTP/1.1";
const BODY: &str = r#"{"keyUuid":"k"}"#;

#[tokio::test]
async fn a_host_that_is_missing_double_or_malformed() {
    let world = World::silent();
    let before = world.books().await.dump();
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
        let answer = raw(&world, &request(&world, LINE, &headers, BODY)).await;
        assert_refused(hosts, &answer, 400, "Host");
    }
    assert_eq!(world.books().await.dump(), before);
    assert_eq!(
        world.write("k", None).await.status,
        200,
        "others are served"
    );
}

#[tokio::test]
async fn a_target_that_is_absolute_or_malformed() {
    let world = World::silent();
    let before = world.books().await.dump();
    let headers = format!("Host: a\r\nContent-Length: {}\r\n", BODY.len());
    for (target, says) in [
        ("http://a/locks/123/WriteKey", "must be a path"),
        ("https://evil.example/locks/123/WriteKey", "must be a path"),
        ("locks/123/WriteKey", "not a valid HTTP/1.1 request"),
        ("a:80", "must be a path"),
        ("*", "must be a path"),
        ("", "not a valid HTTP/1.1 request"),
        ("/locks/123/Write Key", "not a valid HTTP/1.1 request"),
        ("/locks/123/\u{1}", "not a valid HTTP/1.1 request"),
    ] {
        let line = format!("POST {target} HTTP/1.1");
        let answer = raw(&world, &request(&world, &line, &headers, BODY)).await;
        assert_refused(target, &answer, 400, says);
    }
    for path in [
        "//locks/123/WriteKey",
        "/./locks/123/WriteKey",
        "/locks/123/../124/details",
        "/%6cocks/123/details",
    ] {
        let line = format!("POST {path} HTTP/1.1");
        let answer = raw(&world, &request(&world, &line, &headers, BODY)).await;
        assert_refused(path, &answer, 404, "not found");
    }
    assert_eq!(world.books().await.dump(), before);
}

#[tokio::test]
async fn a_body_whose_end_is_not_clear() {
    let world = World::silent();
    let before = world.books().await.dump();
    let chunked = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let length = BODY.len();
    for (headers, body, says) in [
        (
            "Transfer-Encoding: chunked\r\n".to_owned(),
            chunked.as_str(),
            "Content-Length",
        ),
        (
            "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
            &chunked,
            "Content-Length",
        ),
        (
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
            &chunked,
            "Content-Length",
        ),
        (
            "Transfer-Encoding: identity\r\n".to_owned(),
            BODY,
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
            &world,
            &request(&world, LINE, &format!("Host: a\r\n{headers}"), body),
        )
        .await;
        assert_refused(&headers, &answer, 400, says);
    }
    assert_eq!(world.books().await.dump(), before);
}

#[tokio::test]
async fn what_is_no_http() {
    let world = World::silent();
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
        let answer = raw(&world, bytes).await;
        assert_refused(
            &String::from_utf8_lossy(bytes),
            &answer,
            400,
            "valid HTTP/1.1",
        );
    }
    let log = world.program.log();
    assert!(log.contains("a request could not be read"), "{log}");
    assert_eq!(
        world.write("k", None).await.status,
        200,
        "others are served"
    );
}

#[tokio::test]
async fn headers_beyond_the_bounds() {
    let world = World::silent();
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
        let answer = raw(&world, bytes.as_bytes()).await;
        assert_refused(what, &answer, 431, "16384 bytes");
    }
    let answer = world
        .program
        .get("/healthz")
        .header("X-Long", &"x".repeat(8_000))
        .send()
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn old_clients_need_no_host() {
    let world = World::silent();
    let answer = raw(&world, b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    let headers = format!("Content-Length: {}\r\n", BODY.len());
    let line = format!("POST /locks/{LOCK}/WriteKey HTTP/1.0");
    let answer = raw(&world, &request(&world, &line, &headers, BODY)).await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_no_utf_8() {
    let world = World::silent();
    let before = world.books().await.dump();
    for body in [
        &b"{\"keyUuid\":\"\xff\"}"[..],
        b"{\"keyUuid\":\"\xc0\xaf\"}",
        b"\xef\xbb\xbf{\"keyUuid\":\"k\"}",
        b"\xff\xfe{\x00",
    ] {
        let headers = format!("Host: a\r\nContent-Length: {}\r\n", body.len());
        let mut bytes = request(&world, LINE, &headers, "");
        bytes.extend_from_slice(body);
        let answer = raw(&world, &bytes).await;
        assert_refused("a body", &answer, 400, "The body");
    }
    assert_eq!(world.books().await.dump(), before);
    assert_eq!(
        world.write("k", None).await.status,
        200,
        "others are served"
    );
}
