//! Bytes on a TCP connection, for requests that no HTTP client sends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::Harness;

/// Only a failing test waits this long.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) const REQUEST_LINE: &str = "POST /locks/123/WriteKey HTTP/1.1";
pub(crate) const BODY: &str = r#"{"keyUuid":"k"}"#;

pub(crate) async fn connect(harness: &Harness) -> TcpStream {
    let connected = TcpStream::connect(harness.program.address).await;
    connected.expect("a connection")
}

/// Sends these bytes, and reads until the server closes the connection.
pub(crate) async fn raw(harness: &Harness, bytes: &[u8]) -> String {
    let mut stream = connect(harness).await;
    // The server may close before all bytes are sent.
    let _ = stream.write_all(bytes).await;
    read_until_closed_or_reset(&mut stream).await
}

/// Sends these bytes, closes the sending side, and reads until the server closes the connection.
pub(crate) async fn raw_and_shut_down(harness: &Harness, bytes: &[u8]) -> String {
    let mut stream = connect(harness).await;
    stream.write_all(bytes).await.expect("sent");
    stream.shutdown().await.expect("shut down");
    read_until_closed(&mut stream).await
}

/// Reads until the server closes the connection in an orderly way, for at most a minute.
pub(crate) async fn read_until_closed(stream: &mut TcpStream) -> String {
    let (read, answer) = read_to_end(stream).await;
    read.expect("an orderly close");
    answer
}

/// Reads until the server closes or resets the connection, for at most a minute.
pub(crate) async fn read_until_closed_or_reset(stream: &mut TcpStream) -> String {
    read_to_end(stream).await.1
}

async fn read_to_end(stream: &mut TcpStream) -> (std::io::Result<usize>, String) {
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(TIMEOUT, reading).await;
    let read = read.expect("the server closes the connection");
    (read, String::from_utf8_lossy(&answer).into_owned())
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
