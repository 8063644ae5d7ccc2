//! Load balancers that keep idle connections, with the settings that docs/operating.md recommends, but shorter times. An hour takes a
//! minute: the idle timeout of the balancer is 1 s instead of 60 s (HAProxy: a `pool-purge-delay` of 1 s instead of 5 s), and that of the
//! server is 3 s instead of 75 s.

use std::net::SocketAddr;
use std::time::Duration;

use keywright_tests::{Answer, ClientError, Connection, Proxy, Request, recipe, with_lines};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::harness::{Harness, LOCK, eventually};
use crate::replica_environment::nginx;

/// One hour, compressed.
const HOUR: Duration = Duration::from_secs(60);

/// The idle timeout of the balancer, compressed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Concurrent clients, and the number of requests that each sends between two pauses.
const CLIENTS: usize = 8;
const BURST: usize = 4;

/// The pauses of a client in milliseconds, each up to 50 ms longer. Most are below the balancer's timeout; one is just
/// above it, one between both timeouts, and one above the server's.
const PAUSES_MS: [u64; 16] = [
    100, 400, 800, 1050, 100, 400, 800, 100, 400, 1500, 800, 100, 400, 800, 100, 3100,
];

/// A client that reuses its connection unless it was idle for too long. It never retries.
struct Client {
    address: SocketAddr,
    request: Request,
    idle_timeout: Duration,
    idle: Option<(Connection, Instant)>,
    /// How many connections it has opened.
    opened: usize,
}

impl Client {
    async fn send(&mut self) -> Result<Answer, ClientError> {
        let mut connection = match self.idle.take() {
            Some((connection, since)) if since.elapsed() < self.idle_timeout => connection,
            _ => {
                self.opened += 1;
                Connection::open(self.address).await?
            }
        };
        let answer = connection.send(self.request.clone()).await?;
        self.idle = Some((connection, Instant::now()));
        Ok(answer)
    }

    /// Sends bursts of requests for an hour, with the pauses of [`PAUSES_MS`] from the index `first_pause` on. Returns the numbers
    /// of requests and of connections.
    async fn run(mut self, first_pause: usize) -> (usize, usize) {
        let end = Instant::now() + HOUR;
        let pauses = PAUSES_MS.iter().cycle().skip(first_pause);
        let mut sent = 0;
        for pause in pauses {
            if Instant::now() >= end {
                break;
            }
            for _ in 0..BURST {
                let answer = self.send().await.expect("an answer");
                assert_eq!(answer.status, 200, "request {sent}: {answer:?}");
                sent += 1;
            }
            tokio::time::sleep(Duration::from_millis(pause + fastrand::u64(0..50))).await;
        }
        (sent, self.opened)
    }
}

fn start() -> Harness {
    Harness::new(&["--virtual-locks", "off", "--keep-alive", "3s"])
}

fn request(harness: &Harness, address: SocketAddr) -> Request {
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 2 });
    let path = format!("/locks/{LOCK}/WriteKey");
    Request::new(address, "POST", &path)
        .bearer(&harness.program.token)
        .json(&body)
}

/// The number of connections that the server has accepted, including the one that reads the metric.
async fn accepted(harness: &Harness) -> usize {
    let metrics = harness.program.get("/metrics").send().await.text;
    let name = "keywright_connections_total ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|n| n.parse().ok()).expect("a number")
}

/// Runs clients of this address for an hour. Asserts that no request is lost, that few requests open a new connection to
/// the server, and that idle connections expire. Returns how many connections the server has accepted, and the clients have opened.
async fn assert_reuse_without_lost_requests(
    harness: &Harness,
    address: SocketAddr,
    client_idle_timeout: Duration,
) -> (usize, usize) {
    let before = accepted(harness).await;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client {
                address,
                request: request(harness, address),
                idle_timeout: client_idle_timeout,
                idle: None,
                opened: 0,
            };
            tokio::spawn(client.run(number * PAUSES_MS.len() / CLIENTS))
        })
        .collect();
    let (mut sent, mut opened_by_clients) = (0, 0);
    for client in clients {
        let (requests, connections) = client.await.expect("no request is lost");
        sent += requests;
        opened_by_clients += connections;
    }
    let opened = accepted(harness).await - before - 1;
    println!("{sent} requests over {opened} connections");
    assert!(
        opened * 4 <= sent,
        "{opened} connections for {sent} requests"
    );
    assert!(opened > CLIENTS, "{opened} connections: none has expired");
    (opened, opened_by_clients)
}

/// Asserts that nginx keeps no connection that was idle for twice its timeout: a request then opens exactly one.
async fn assert_all_idle_connections_expire(harness: &Harness, nginx: SocketAddr) {
    let before = accepted(harness).await;
    tokio::time::sleep(2 * IDLE_TIMEOUT).await;
    let answer = request(harness, nginx).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(accepted(harness).await - before - 1, 1);
}

#[tokio::test]
async fn an_hour_of_idle_and_reused_connections_behind_nginx_loses_no_request() {
    let harness = start();
    let nginx = nginx(&[harness.program.address], "1s");
    assert_reuse_without_lost_requests(&harness, nginx.address, Duration::MAX).await;
    assert_all_idle_connections_expire(&harness, nginx.address).await;
}

#[tokio::test]
async fn an_hour_of_idle_and_reused_connections_behind_haproxy_loses_no_request() {
    let harness = start();
    let haproxy = haproxy(harness.program.address);
    assert_reuse_without_lost_requests(&harness, haproxy.address, Duration::MAX).await;
}

#[tokio::test]
async fn an_hour_of_idle_and_reused_connections_behind_envoy_loses_no_request() {
    let harness = start();
    let envoy = envoy(harness.program.address);
    assert_reuse_without_lost_requests(&harness, envoy.address, Duration::MAX).await;
}

/// AWS ALB does not run here. A simulated proxy has its idle timeout and one connection for each client.
#[tokio::test]
async fn an_hour_of_idle_and_reused_connections_behind_a_proxy_without_retries_loses_no_request() {
    let harness = start();
    let server = harness.program.address;
    let (accepted, opened) =
        assert_reuse_without_lost_requests(&harness, server, IDLE_TIMEOUT).await;
    assert_eq!(accepted, opened);
    assert!(
        opened >= 2 * CLIENTS,
        "long pauses end connections: {opened}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_that_loses_a_server_answers_504_and_not_502() {
    for balancer in [|server| nginx(&[server], "60s"), haproxy, envoy] {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = server.local_addr().expect("an address");
        let closing = tokio::spawn(answer_health_checks_only(server));
        let balancer = balancer(address);
        eventually("the server is healthy", async || {
            let health = Request::new(balancer.address, "GET", "/readyz");
            (health.send().await.status == 200).then_some(())
        })
        .await;
        let request = Request::new(balancer.address, "POST", "/locks/1/WriteKey");
        let answer = request.json(&json!({ "keyUuid": "k" })).send().await;
        assert_eq!(answer.status, 504, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("x-request-id"), None);
        let expected = json!({
            "success": false, "error": "Gateway Timeout", "message": "The outcome is not known", "code": 504,
        });
        assert_eq!(answer.body, expected);
        closing.abort();
    }
}

/// A server that closes the connection after each request, without an answer except to health checks.
async fn answer_health_checks_only(server: TcpListener) {
    while let Ok((mut connection, _)) = server.accept().await {
        let mut request = vec![0; 4096];
        let length = connection.read(&mut request).await.unwrap_or(0);
        if request[..length].starts_with(b"GET /readyz ") {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = connection.write_all(answer).await;
        }
    }
}

/// Starts HAProxy as docs/operating.md recommends, with a shorter idle timeout.
fn haproxy(server: SocketAddr) -> Proxy {
    let lost = recipe("`lost.http` is a complete HTTP answer").replace('\n', "\r\n");
    Proxy::start("haproxy", &["-db", "-f"], |address, folder| {
        let error = folder.join("lost.http");
        std::fs::write(&error, &lost).expect("written");
        let purge = format!(
            "  default-server check inter 2s fall 1 rise 1 pool-purge-delay {}ms",
            IDLE_TIMEOUT.as_millis()
        );
        let recipe = with_lines(
            &recipe("### HAProxy"),
            &[
                (
                    "errorfile 502 /etc/haproxy/lost.http",
                    &format!("  errorfile 502 {}", error.display()),
                ),
                (
                    "default-server check inter 2s fall 1 rise 1 pool-purge-delay 5s",
                    &purge,
                ),
                ("server a 10.0.0.1:8787", &format!("  server a {server}")),
                ("server b 10.0.0.2:8787", ""),
            ],
        );
        format!("{recipe}\nfrontend clients\n  bind {address}\n  default_backend keywright\n")
    })
}

/// Starts Envoy as docs/operating.md recommends, with a shorter idle timeout.
fn envoy(server: SocketAddr) -> Proxy {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/envoy");
    let arguments = ["--log-level", "error", "--use-dynamic-base-id", "-c"];
    Proxy::start(program, &arguments, |address, _| {
        let socket_address = |address: SocketAddr| {
            format!(
                "{{socket_address: {{address: {}, port_value: {}}}}}",
                address.ip(),
                address.port()
            )
        };
        with_lines(
            &recipe("### Envoy"),
            &[
                (
                    "- address: {",
                    &format!("  - address: {}", socket_address(address)),
                ),
                (
                    "- endpoint: {address: {socket_address: {address: 10.0.0.1",
                    &format!(
                        "        - endpoint: {{address: {}}}",
                        socket_address(server)
                    ),
                ),
                (
                    "- endpoint: {address: {socket_address: {address: 10.0.0.2",
                    "",
                ),
                (
                    "common_http_protocol_options: {idle_timeout: 60s}",
                    "        common_http_protocol_options: {idle_timeout: 1s}",
                ),
            ],
        )
    })
}
