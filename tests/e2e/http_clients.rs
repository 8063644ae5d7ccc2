//! HTTP clients as they come: bodies of unknown length, and pages of other origins in a browser.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keywright_tests::Answer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{LOCK, World};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn client(name: &str) -> PathBuf {
    root().join("tests/chunked_clients").join(name)
}

/// Runs a client that prints the status and the body of an answer, and checks that its key was written.
async fn writes_a_key(world: &World, mut client: Command) {
    let key = "a-key-in-chunks";
    let url = format!("http://{}/locks/{LOCK}/WriteKey", world.program.address);
    client.args([&url, &world.program.token, key]);
    let output = tokio::task::spawn_blocking(move || client.output()).await;
    let output = output.expect("it is waited for").expect("the client runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let (status, body) = said
        .trim()
        .split_once(' ')
        .unwrap_or_else(|| panic!("{said}{errors}"));
    assert_eq!(status, "200", "{said}{errors}");
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["event"]["data"]["keyUuid"], key, "{said}");
}

#[tokio::test]
async fn curl_sends_chunks() {
    let world = World::silent();
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
        &format!("Authorization: Bearer {}", world.program.token),
    ]);
    curl.args(["-d", "{\"keyUuid\":\"a\"}"]);
    curl.arg(format!(
        "http://{}/locks/{LOCK}/WriteKey",
        world.program.address
    ));
    let output = curl.output().expect("curl runs");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "200");
    let body: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(body["event"]["data"]["keyUuid"], "a");
}

#[tokio::test]
async fn node_fetch_sends_a_stream() {
    let world = World::silent();
    let mut node = Command::new("node");
    node.arg(client("fetch.mjs"));
    writes_a_key(&world, node).await;
}

#[tokio::test]
async fn python_requests_sends_a_generator() {
    let world = World::silent();
    let python = root().join(".venv/bin/python");
    assert!(
        python.exists(),
        "the Python packages are not installed: scripts/test does that"
    );
    let mut python = Command::new(python);
    python.arg(client("generator.py"));
    writes_a_key(&world, python).await;
}

#[tokio::test]
async fn go_sends_a_reader() {
    let world = World::silent();
    // Debian keeps it where no path leads.
    let elsewhere = Path::new("/usr/lib/go-1.19/bin/go");
    let program = if elsewhere.exists() {
        elsewhere
    } else {
        Path::new("go")
    };
    let mut go = Command::new(program);
    go.arg("run").arg(client("reader.go"));
    go.env("GO111MODULE", "off");
    writes_a_key(&world, go).await;
}

#[tokio::test]
async fn java_sends_an_input_stream() {
    let world = World::silent();
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1"])
        .arg(client("InputStreamBody.java"));
    writes_a_key(&world, java).await;
}

/// Runs a command while the test's runtime goes on.
async fn run(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.expect("it is waited for").expect("the client runs")
}

/// HTTPie with a chunked body, which prints the answer's head and body.
fn httpie(world: &World, token: &str, body: &str) -> Command {
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
        world.program.address
    ));
    httpie.arg(format!("Authorization: Bearer {token}"));
    // HTTPie keeps its settings in a folder, which is the test's own here.
    httpie.env("HTTPIE_CONFIG_DIR", world.folder.path().join("httpie"));
    httpie
}

#[tokio::test]
async fn httpie_sends_chunks_and_reads_refusals_that_come_before_their_end() {
    let world = World::silent();
    let long = format!("{{\"keyUuid\":\"{}\"}}", "x".repeat(100_000));
    for (token, body, status, part) in [
        (
            &*world.program.token,
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
        (&*world.program.token, &*long, 413, "at most"),
    ] {
        let output = run(httpie(&world, token, body)).await;
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let begin = format!("HTTP/1.1 {status} ");
        assert!(
            said.starts_with(&begin) && said.contains(part),
            "{said}{errors}"
        );
        assert!(errors.is_empty(), "{errors}");
    }
}

/// curl, whatever proxies the surroundings name.
fn curl(arguments: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "", "-w", "%{http_code}"])
        .args(arguments);
    curl
}

#[tokio::test]
async fn curl_that_takes_the_server_for_its_proxy_is_served_for_its_host_and_opens_no_tunnel() {
    let world = World::silent();
    let server = format!("http://{}", world.program.address);
    let token = format!("Authorization: Bearer {}", world.program.token);
    let write = format!("{server}/locks/{LOCK}/WriteKey");
    let json = "Content-Type: application/json";
    let body = "{\"keyUuid\":\"by-proxy\"}";
    let proxied = ["-x", &server, "-H", &token, "-H", json, "-d", body, &write];
    let output = run(curl(&proxied)).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("\"keyUuid\":\"by-proxy\"") && said.ends_with("200"),
        "{output:?}"
    );
    // A tunnel would end at another server.
    let tunnel = run(curl(&["-x", &server, "https://other.example/healthz"])).await;
    let errors = String::from_utf8_lossy(&tunnel.stderr);
    assert_eq!(tunnel.status.code(), Some(56), "{tunnel:?}");
    assert!(errors.contains("400"), "{errors}");
}

#[tokio::test]
async fn curl_names_the_refusal_of_http_2_and_is_served_where_it_may_fall_back() {
    let world = World::silent();
    let url = format!("http://{}/healthz", world.program.address);
    let refused = run(curl(&["-v", "--http2-prior-knowledge", &url])).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    // 16 is curl's exit code for errors of HTTP/2, and 13 is HTTP_1_1_REQUIRED (RFC 9113, section 7).
    assert_eq!(refused.status.code(), Some(16), "{said}");
    assert!(said.contains("GOAWAY, error=13"), "{said}");
    // An offer to upgrade is ignored.
    let offered = run(curl(&["--http2", &url])).await;
    let said = String::from_utf8_lossy(&offered.stdout);
    assert!(said.ends_with("200"), "{offered:?}");
}

/// A page of another origin, on a port of its own.
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

async fn page_of(origin: &str, world: &World) -> Value {
    let python = root().join(".venv/bin/python");
    let mut page = Command::new(python);
    page.arg(root().join("tests/cors_page.py"));
    page.arg(format!("http://{}", world.program.address));
    page.args([origin, &world.program.token, "a-key-of-a-page"]);
    let output = tokio::task::spawn_blocking(move || page.output()).await;
    let output = output.expect("it is waited for").expect("Python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"))
}

#[tokio::test]
async fn chromium_calls_the_service_from_an_allowed_origin_and_from_no_other() {
    let origin = other_origin().await;
    // The sandbox allows every origin on loopback.
    let world = World::silent();
    let seen = page_of(&origin, &world).await;
    assert_eq!(
        (&seen["status"], &seen["withdrawn"]),
        (&json!(200), &json!(200)),
        "{seen}"
    );
    assert!(seen["headers"]["Location"].is_string(), "{seen}");
    assert!(seen["headers"]["X-Request-Id"].is_string(), "{seen}");
    assert_eq!(seen["refused"], 401, "an error can be read, too: {seen}");
    let other = World::new(&[
        "--virtual-locks",
        "off",
        "--cors-origins",
        "https://app.example",
    ]);
    let seen = page_of(&origin, &other).await;
    assert!(seen["error"].is_string(), "{seen}");
    let books = other.books().await;
    let names = books.names(LOCK).await;
    assert!(!names.contains(&"KeyWriteRequested"), "{names:?}");
}

async fn preflight(world: &World, path: &str, origin: &str, method: &str) -> Answer {
    let request = world
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
async fn preflights_are_answered_without_credentials_for_the_origins_of_the_setting() {
    let origins = "https://app.example, http://localhost:3000";
    let world = World::new(&["--virtual-locks", "off", "--cors-origins", origins]);
    for origin in ["https://app.example", "http://localhost:3000"] {
        let answer = preflight(&world, "/locks/123/WriteKey", origin, "POST").await;
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
        let answer = preflight(&world, "/locks/123/WriteKey", origin, "POST").await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (204, None)
        );
        assert_eq!(
            answer.header("vary"),
            Some("Origin"),
            "caches keep them apart"
        );
    }
    let details = world
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
    let unknown = preflight(&world, "/nowhere", "https://app.example", "POST").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn no_origin_is_allowed_unless_a_setting_says_so() {
    let world = World::new(&["--virtual-locks", "off", "--cors-origins", "none"]);
    let answer = preflight(
        &world,
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
async fn options_of_a_path_names_its_methods() {
    let world = World::silent();
    for (path, allow) in [
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/locks/123/WriteKey", "POST, OPTIONS"),
        ("/locks/123/writes/7", "GET, HEAD, DELETE, OPTIONS"),
    ] {
        let answer = world.program.request("OPTIONS", path).send().await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (204, Some(allow)),
            "{path}"
        );
        assert!(answer.text.is_empty() && answer.header("content-length").is_none());
    }
}
