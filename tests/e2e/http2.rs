//! HTTP/2 without negotiation is refused in HTTP/2.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::Harness;
use crate::raw_http::{raw_and_shut_down, read_until_closed};

/// The preface of HTTP/2 with an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn refuses_http_2_with_an_http_2_answer() {
    let harness = Harness::silent();
    let mut stream = TcpStream::connect(harness.program.address)
        .await
        .expect("a connection");
    stream.write_all(PREFACE).await.expect("sent");
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
async fn refuses_a_fragmented_http_2_preface_with_an_http_2_answer() {
    let harness = Harness::silent();
    let mut refusals = Vec::new();
    for first in [1, 2, 5, 13, 15] {
        let mut stream = TcpStream::connect(harness.program.address)
            .await
            .expect("a connection");
        stream.set_nodelay(true).expect("set");
        stream.write_all(&PREFACE[..first]).await.expect("sent");
        // Three answers on other connections take longer than the server needs to read the first bytes.
        for _ in 0..3 {
            assert_eq!(harness.program.get("/healthz").send().await.status, 200);
        }
        stream.write_all(&PREFACE[first..]).await.expect("sent");
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
