//! Bytes on a TCP connection, for requests that no HTTP client sends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::Harness;

pub(crate) const REQUEST_LINE: &str = "POST /locks/123/WriteKey HTTP/1.1";
pub(crate) const BODY: &str = r#"{"keyUuid":"k"}"#;

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

/// Sends these bytes, closes the sending side, and reads until the server closes the connection.
pub(crate) async fn raw_and_shut_down(harness: &Harness, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(harness.program.address)
        .await
        .expect("a connection");
    stream.write_all(bytes).await.expect("sent");
    stream.shutdown().await.expect("shut down");
    read_until_closed(&mut stream).await
}

/// Reads until the server closes the connection, for at most a minute.
pub(crate) async fn read_until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(60), reading).await;
    read.expect("the server closes the connection")
        .expect("an orderly close");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asserts that the answer is an error of the common form with a request id.
pub(crate) fn assert_refused(what: &str, answer: &str, status: u16, message_part: &str) {
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

pub(crate) fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}
