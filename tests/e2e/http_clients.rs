//! Common HTTP clients: chunked bodies, proxies, HTTP/2, and pages of other origins in a browser.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keywright_tests::Answer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Harness, LOCK, root};

fn client_path(name: &str) -> PathBuf {
    root().join("tests/chunked_clients").join(name)
}

/// Runs a client that prints the status and the body of the answer, and asserts that its key was written.
async fn assert_writes_a_key(harness: &Harness, mut client: Command) {
    let key = "a-key-in-chunks";
    let url = format!("http://{}/locks/{LOCK}/WriteKey", harness.program.address);
    client.args([&url, &harness.program.token, key]);
    let output = tokio::task::spawn_blocking(move || client.output()).await;
    let output = output.expect("no panic").expect("the client runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let (status, body) = printed
        .trim()
        .split_once(' ')
        .unwrap_or_else(|| panic!("{printed}{errors}"));
    assert_eq!(status, "200", "{printed}{errors}");
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["event"]["data"]["keyUuid"], key, "{printed}");
}

#[tokio::test]
async fn curl_sends_chunks() {
    let harness = Harness::silent();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-w", "%{stderr}%{http_code}"]);
    curl.args([
        "-H",
        "Transfer-Encoding: chunked",
        "-H",
        "Content-Type: application/json",
    ]);
    curl.args([
        "-H",
        &format!("Authorization: Bearer {}", harness.program.token),
    ]);
    curl.args(["-d", "{\"keyUuid\":\"a\"}"]);
    curl.arg(format!(
        "http://{}/locks/{LOCK}/WriteKey",
        harness.program.address
    ));
    let output = curl.output().expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "200");
    let body: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(body["event"]["data"]["keyUuid"], "a");
}

#[tokio::test]
async fn node_fetch_sends_a_stream() {
    let harness = Harness::silent();
    let mut node = Command::new("node");
    node.arg(client_path("fetch.mjs"));
    assert_writes_a_key(&harness, node).await;
}

#[tokio::test]
async fn python_requests_sends_a_generator() {
    let harness = Harness::silent();
    let python = root().join(".venv/bin/python");
    assert!(
        python.exists(),
        "the Python packages are not installed: scripts/test does that"
    );
    let mut python = Command::new(python);
    python.arg(client_path("generator.py"));
    assert_writes_a_key(&harness, python).await;
}

#[tokio::test]
async fn go_sends_a_reader() {
    let harness = Harness::silent();
    // Debian's Go 1.19 is not on the PATH.
    let debian_go = Path::new("/usr/lib/go-1.19/bin/go");
    let program = if debian_go.exists() {
        debian_go
    } else {
        Path::new("go")
    };
    let mut go = Command::new(program);
    go.arg("run").arg(client_path("reader.go"));
    go.env("GO111MODULE", "off");
    assert_writes_a_key(&harness, go).await;
}

#[tokio::test]
async fn java_sends_an_input_stream() {
    let harness = Harness::silent();
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1"])
        .arg(client_path("InputStreamBody.java"));
    assert_writes_a_key(&harness, java).await;
}

/// Runs a command without blocking the test's runtime.
async fn run(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.expect("no panic").expect("the client runs")
}

/// An HTTPie command that sends a chunked body and prints the head and the body of the answer.
fn httpie(harness: &Harness, token: &str, body: &str) -> Command {
    let python = root().join(".venv/bin/python");
    assert!(
        python.exists(),
        "the Python packages are not installed: scripts/test does that"
    );
    let mut httpie = Command::new(python);
    httpie.args([
        "-m",
        "httpie",
        "--ignore-stdin",
        "--chunked",
        "--print=hb",
        "--pretty=none",
    ]);
    httpie.args(["--raw", body, "POST"]);
    httpie.arg(format!(
        "http://{}/locks/{LOCK}/WriteKey",
        harness.program.address
    ));
    httpie.arg(format!("Authorization: Bearer {token}"));
    // Use a configuration folder of the test's own.
    httpie.env("HTTPIE_CONFIG_DIR", harness.folder.path().join("httpie"));
    httpie
}

#[tokio::test]
async fn httpie_sends_chunks_and_reads_early_refusals() {
    let harness = Harness::silent();
    let long = format!("{{\"keyUuid\":\"{}\"}}", "x".repeat(100_000));
    for (token, body, status, part) in [
        (
            &*harness.program.token,
            "{\"keyUuid\":\"in-chunks\"}",
            200,
            "\"keyUuid\":\"in-chunks\"",
        ),
        (
            "no-token",
            "{\"keyUuid\":\"a\"}",
            401,
            "Authentication required",
        ),
        ("no-token", &*long, 401, "Authentication required"),
        (&*harness.program.token, &*long, 413, "at most"),
    ] {
        let output = run(httpie(&harness, token, body)).await;
        let printed = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let begin = format!("HTTP/1.1 {status} ");
        assert!(
            printed.starts_with(&begin) && printed.contains(part),
            "{printed}{errors}"
        );
        assert!(errors.is_empty(), "{errors}");
    }
}

/// curl without the proxies of the environment.
fn curl(arguments: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "", "-w", "%{http_code}"])
        .args(arguments);
    curl
}

#[tokio::test]
async fn the_server_as_a_proxy_of_curl_serves_its_own_host_and_opens_no_tunnel() {
    let harness = Harness::silent();
    let server = format!("http://{}", harness.program.address);
    let token = format!("Authorization: Bearer {}", harness.program.token);
    let write = format!("{server}/locks/{LOCK}/WriteKey");
    let json = "Content-Type: application/json";
    let body = "{\"keyUuid\":\"by-proxy\"}";
    let proxied = ["-x", &server, "-H", &token, "-H", json, "-d", body, &write];
    let output = run(curl(&proxied)).await;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        printed.contains("\"keyUuid\":\"by-proxy\"") && printed.ends_with("200"),
        "{output:?}"
    );
    // A tunnel would lead to another server.
    let tunnel = run(curl(&["-x", &server, "https://other.example/healthz"])).await;
    let errors = String::from_utf8_lossy(&tunnel.stderr);
    assert_eq!(tunnel.status.code(), Some(56), "{tunnel:?}");
    assert!(errors.contains("400"), "{errors}");
}

#[tokio::test]
async fn curl_reports_the_refusal_of_http_2_and_falls_back_to_http_1() {
    let harness = Harness::silent();
    let url = format!("http://{}/healthz", harness.program.address);
    let refused = run(curl(&["-v", "--http2-prior-knowledge", &url])).await;
    let printed = String::from_utf8_lossy(&refused.stderr);
    // 16 is curl's exit code for errors of HTTP/2, and 13 is HTTP_1_1_REQUIRED (RFC 9113, section 7).
    assert_eq!(refused.status.code(), Some(16), "{printed}");
    assert!(printed.contains("GOAWAY, error=13"), "{printed}");
    // The server ignores an offer to upgrade.
    let offered = run(curl(&["--http2", &url])).await;
    let printed = String::from_utf8_lossy(&offered.stdout);
    assert!(printed.ends_with("200"), "{offered:?}");
}

/// Serves an empty page on another port. Returns its origin.
async fn other_origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\
                Content-Length: 31\r\n\r\n<!doctype html><title>.</title>";
            let _ = stream.write_all(page.as_bytes()).await;
        }
    });
    origin
}

async fn call_from_page(origin: &str, harness: &Harness) -> Value {
    let python = root().join(".venv/bin/python");
    let mut page = Command::new(python);
    page.arg(root().join("tests/cors_page.py"));
    page.arg(format!("http://{}", harness.program.address));
    page.args([origin, &harness.program.token, "a-key-of-a-page"]);
    let output = tokio::task::spawn_blocking(move || page.output()).await;
    let output = output.expect("no panic").expect("Python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"))
}

#[tokio::test]
async fn chromium_can_call_the_server_only_from_an_allowed_origin() {
    let origin = other_origin().await;
    // By default the sandbox allows all loopback origins.
    let harness = Harness::silent();
    let seen = call_from_page(&origin, &harness).await;
    assert_eq!(
        (&seen["status"], &seen["withdrawn"]),
        (&json!(200), &json!(200)),
        "{seen}"
    );
    assert!(seen["headers"]["Location"].is_string(), "{seen}");
    assert!(seen["headers"]["X-Request-Id"].is_string(), "{seen}");
    assert_eq!(seen["refused"], 401, "the page can read errors: {seen}");
    let other = Harness::new(&[
        "--virtual-locks",
        "off",
        "--cors-origins",
        "https://app.example",
    ]);
    let seen = call_from_page(&origin, &other).await;
    assert!(seen["error"].is_string(), "{seen}");
    let store = other.store().await;
    let names = store.event_names_after_creation(LOCK).await;
    assert!(!names.contains(&"KeyWriteRequested"), "{names:?}");
}

async fn preflight(harness: &Harness, path: &str, origin: &str, method: &str) -> Answer {
    let request = harness
        .program
        .request("OPTIONS", path)
        .header("Origin", origin);
    let request = request.header("Access-Control-Request-Method", method);
    let headers = "authorization,content-type,idempotency-key,prefer";
    request
        .header("Access-Control-Request-Headers", headers)
        .send()
        .await
}

#[tokio::test]
async fn preflights_need_no_credentials_and_allow_the_configured_origins() {
    let origins = "https://app.example, http://localhost:3000";
    let harness = Harness::new(&["--virtual-locks", "off", "--cors-origins", origins]);
    for origin in ["https://app.example", "http://localhost:3000"] {
        let answer = preflight(&harness, "/locks/123/WriteKey", origin, "POST").await;
        assert_eq!(answer.status, 204, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(
            answer.header("access-control-allow-methods"),
            Some("POST, OPTIONS")
        );
        let headers = answer
            .header("access-control-allow-headers")
            .expect("headers");
        assert!(headers.contains("Authorization") && headers.contains("Idempotency-Key"));
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    for origin in [
        "https://other.example",
        "http://app.example",
        "http://localhost:3001",
        "null",
    ] {
        let answer = preflight(&harness, "/locks/123/WriteKey", origin, "POST").await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (204, None)
        );
        assert_eq!(
            answer.header("vary"),
            Some("Origin"),
            "caches must distinguish origins"
        );
    }
    let details = harness
        .program
        .get("/locks/123/details")
        .header("Origin", "https://app.example");
    let answer = details.send().await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    let exposed = answer
        .header("access-control-expose-headers")
        .expect("headers");
    for name in ["Location", "Retry-After", "X-Request-Id", "Link"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    let unknown = preflight(&harness, "/nowhere", "https://app.example", "POST").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn cors_origins_none_allows_no_origin() {
    let harness = Harness::new(&["--virtual-locks", "off", "--cors-origins", "none"]);
    let answer = preflight(
        &harness,
        "/locks/123/WriteKey",
        "http://localhost:3000",
        "POST",
    )
    .await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (204, None)
    );
    assert_eq!(answer.header("vary"), None);
}

#[tokio::test]
async fn options_lists_the_methods_of_a_path() {
    let harness = Harness::silent();
    for (path, allow) in [
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/locks/123/WriteKey", "POST, OPTIONS"),
        ("/locks/123/writes/7", "GET, HEAD, DELETE, OPTIONS"),
    ] {
        let answer = harness.program.request("OPTIONS", path).send().await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (204, Some(allow)),
            "{path}"
        );
        assert!(answer.text.is_empty() && answer.header("content-length").is_none());
    }
}
