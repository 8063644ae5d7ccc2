//! Several requests on one connection, sent before their answers.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::Harness;
use crate::raw_http::{BODY, REQUEST_LINE, assert_refused, chunked, raw, read_until_closed};

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
