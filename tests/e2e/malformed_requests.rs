//! Malformed HTTP requests. Each gets an error of the common form, has no effect, and does not disturb other clients.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Harness, LOCK, log_with};
use crate::raw_http::{BODY, REQUEST_LINE, assert_refused, chunked, raw};

/// A complete write request with this request line, and with these headers instead of Host and Content-Length.
fn request(harness: &Harness, line: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "{line}\r\n{headers}Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Connection: close\r\n\r\n{body}",
        harness.program.token
    )
    .into_bytes()
}

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
    log_with(&harness.program, &["a request could not be read"]).await;
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
