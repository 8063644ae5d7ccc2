//! Load balancers that keep idle connections, with the settings that docs/operating.md recommends. The idle
//! timeouts are shorter: 3 s instead of 75 s in the server, 1 s instead of 60 s in the balancer.

use std::net::SocketAddr;
use std::time::Duration;

use keywright_tests::{ClientError, Connection, Proxy, Request, recipe, with_lines};
use serde_json::json;
use tokio::time::Instant;

use crate::harness::{Harness, LOCK};
use crate::replica_environment::nginx;

/// Concurrent clients, and the number of requests that each sends between two pauses.
const CLIENTS: usize = 16;
const BURST: usize = 6;

/// The balancer's idle timeout in milliseconds.
const IDLE_TIMEOUT_MS: u64 = 1000;

/// Pauses of each client in milliseconds, below the balancer's timeout.
const SHORT_PAUSES_MS: [u64; 3] = [100, 400, 800];

/// The last pause of a client is one of these: just above the balancer's timeout, between both timeouts, above the server's.
const LONG_PAUSES_MS: [u64; 4] = [1050, 1500, 2500, 3100];

/// The number of requests of all clients together.
const REQUESTS: usize = CLIENTS * BURST * (SHORT_PAUSES_MS.len() + 2);

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

fn pauses(client: usize) -> Vec<Duration> {
    let long = LONG_PAUSES_MS[client % LONG_PAUSES_MS.len()];
    let jittered = |pause| Duration::from_millis(pause + fastrand::u64(0..50));
    { SHORT_PAUSES_MS.into_iter().chain([long]) }
        .map(jittered)
        .collect()
}

/// The number of connections that the server has accepted, without the one that reads the metric.
async fn accepted(harness: &Harness) -> usize {
    let metrics = harness.program.get("/metrics").send().await.text;
    let name = "keywright_connections_total ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    let count: usize = line.and_then(|n| n.parse().ok()).expect("a number");
    count - 1
}

/// Runs clients that send bursts of requests with pauses, so that the balancer reuses some connections and finds others
/// expired. Asserts that no request is lost and that few requests open a new connection to the server.
async fn assert_reuse_without_lost_requests(harness: &Harness, balancer: SocketAddr) {
    let before = accepted(harness).await + 1;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let request = request(harness, balancer);
            tokio::spawn(async move {
                // The client keeps its connection as well, because some balancers reuse connections only for such clients.
                let mut connection = Connection::open(balancer).await.expect("a connection");
                let mut statuses = Vec::new();
                let mut pauses = pauses(client).into_iter();
                loop {
                    for _ in 0..BURST {
                        let answer = connection.send(request.clone()).await.expect("an answer");
                        statuses.push(answer.status);
                    }
                    let Some(pause) = pauses.next() else {
                        return statuses;
                    };
                    tokio::time::sleep(pause).await;
                }
            })
        })
        .collect();
    let mut sent = 0;
    for client in clients {
        let statuses = client.await.expect("no panic");
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        sent += statuses.len();
    }
    assert_eq!(sent, REQUESTS);
    let opened = accepted(harness).await - before;
    println!("{sent} requests over {opened} connections");
    assert!(
        opened * 4 <= sent,
        "{opened} connections for {sent} requests"
    );
}

#[tokio::test]
async fn nginx_reuses_idle_connections_without_losing_a_request() {
    let harness = start();
    let nginx = nginx(&[harness.program.address], &format!("{IDLE_TIMEOUT_MS}ms"));
    assert_reuse_without_lost_requests(&harness, nginx.address).await;
    // Without requests, all idle connections of nginx expire.
    let before = accepted(&harness).await + 1;
    tokio::time::sleep(Duration::from_millis(2 * IDLE_TIMEOUT_MS)).await;
    let answer = request(&harness, nginx.address).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(accepted(&harness).await - before, 1);
}

#[tokio::test]
async fn haproxy_reuses_idle_connections_without_losing_a_request() {
    let harness = start();
    let haproxy = haproxy(harness.program.address);
    assert_reuse_without_lost_requests(&harness, haproxy.address).await;
}

/// A simulated proxy that keeps one connection for each client, closes it after 1 s without a request, and never retries.
#[tokio::test]
async fn a_proxy_without_retries_reuses_idle_connections_without_losing_a_request() {
    let harness = start();
    let before = accepted(&harness).await + 1;
    let proxies: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let address = harness.program.address;
            let request = request(&harness, address);
            tokio::spawn(async move {
                let mut opened = 0;
                let mut idle: Option<Connection> = None;
                let mut pauses = pauses(client).into_iter();
                loop {
                    let mut connection = match idle.take() {
                        Some(connection) => connection,
                        None => {
                            opened += 1;
                            Connection::open(address).await?
                        }
                    };
                    for _ in 0..BURST {
                        let answer = connection.send(request.clone()).await?;
                        assert_eq!(answer.status, 200, "{answer:?}");
                    }
                    let Some(pause) = pauses.next() else {
                        return Ok::<usize, ClientError>(opened);
                    };
                    let since = Instant::now();
                    tokio::time::sleep(pause).await;
                    let is_kept = since.elapsed() < Duration::from_millis(IDLE_TIMEOUT_MS);
                    idle = is_kept.then_some(connection);
                }
            })
        })
        .collect();
    let mut opened = 0;
    for proxy in proxies {
        opened += proxy.await.expect("no panic").expect("no request is lost");
    }
    assert!(
        opened >= 2 * CLIENTS,
        "long pauses end connections: {opened}"
    );
    assert!(
        opened * 4 <= REQUESTS,
        "{opened} connections for {REQUESTS} requests"
    );
    assert_eq!(accepted(&harness).await - before, opened);
}

/// Starts HAProxy as docs/operating.md recommends, with a shorter idle timeout.
fn haproxy(server: SocketAddr) -> Proxy {
    let lost = recipe("`lost.http` is a complete HTTP answer").replace('\n', "\r\n");
    Proxy::start("haproxy", &["-db", "-f"], |address, folder| {
        let error = folder.join("lost.http");
        std::fs::write(&error, &lost).expect("written");
        let purge = format!(
            "  default-server check inter 2s fall 1 rise 1 pool-purge-delay {IDLE_TIMEOUT_MS}ms"
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
