//! Balancers in front that keep idle connections, with the settings that docs/operating.md recommends. The times of idle
//! connections are short: the server keeps them for 3 s instead of 75 s, and a balancer for 1 s instead of 60 s.

use std::net::SocketAddr;
use std::time::Duration;

use keywright_tests::{Connection, Proxy, Request, recipe, with_lines};
use serde_json::json;
use tokio::time::Instant;

use crate::harness::{LOCK, World};
use crate::replicas::nginx;

/// Clients at once, and how many requests each of them sends between two pauses.
const CLIENTS: usize = 16;
const BURST: usize = 6;

/// How long a balancer keeps an idle connection, in milliseconds.
const KEPT_MS: u64 = 1000;

/// Pauses of each client, in milliseconds: within the balancer's time.
const SHORT_PAUSES_MS: [u64; 3] = [100, 400, 800];

/// One of these is the last pause of a client: just beyond the balancer's time, between both times, beyond the server's.
const LONG_PAUSES_MS: [u64; 4] = [1050, 1500, 2500, 3100];

/// Requests of all clients.
const REQUESTS: usize = CLIENTS * BURST * (SHORT_PAUSES_MS.len() + 2);

fn world() -> World {
    World::new(&["--virtual-locks", "off", "--keep-alive", "3s"])
}

fn request(world: &World, address: SocketAddr) -> Request {
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 2 });
    let path = format!("/locks/{LOCK}/WriteKey");
    Request::new(address, "POST", &path)
        .bearer(&world.program.token)
        .json(&body)
}

fn pauses(client: usize) -> Vec<Duration> {
    let long = LONG_PAUSES_MS[client % LONG_PAUSES_MS.len()];
    let jittered = |pause| Duration::from_millis(pause + fastrand::u64(0..50));
    { SHORT_PAUSES_MS.into_iter().chain([long]) }
        .map(jittered)
        .collect()
}

/// How many connections the server has accepted before the one that asks for it.
async fn accepted(world: &World) -> usize {
    let metrics = world.program.get("/metrics").send().await.text;
    let name = "keywright_connections_total ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    let count: usize = line.and_then(|n| n.parse().ok()).expect("a number");
    count - 1
}

/// Each client sends some requests, pauses, and goes on, so that the balancer reuses some connections and finds others
/// expired. No request is lost, and few of them need a new connection to the server.
async fn assert_connections_are_reused_and_no_request_is_lost(world: &World, balancer: SocketAddr) {
    let before = accepted(world).await + 1;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let request = request(world, balancer);
            tokio::spawn(async move {
                // The clients' own connections are kept, too: some balancers reuse connections only for those.
                let mut own = Connection::open(balancer).await.expect("a connection");
                let mut statuses = Vec::new();
                let mut pauses = pauses(client).into_iter();
                loop {
                    for _ in 0..BURST {
                        let answer = own.send(request.clone()).await.expect("an answer");
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
    let opened = accepted(world).await - before;
    println!("{sent} requests over {opened} connections");
    assert!(
        opened * 4 <= sent,
        "{opened} connections for {sent} requests"
    );
}

#[tokio::test]
async fn nginx_reuses_idle_connections_without_losing_a_request() {
    let world = world();
    let nginx = nginx(&[world.program.address], &format!("{KEPT_MS}ms"));
    assert_connections_are_reused_and_no_request_is_lost(&world, nginx.address).await;
    // All that nginx has kept expires when nobody asks.
    let before = accepted(&world).await + 1;
    tokio::time::sleep(Duration::from_millis(2 * KEPT_MS)).await;
    let answer = request(&world, nginx.address).send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(accepted(&world).await - before, 1);
}

#[tokio::test]
async fn haproxy_reuses_idle_connections_without_losing_a_request() {
    let world = world();
    let haproxy = haproxy(world.program.address);
    assert_connections_are_reused_and_no_request_is_lost(&world, haproxy.address).await;
}

/// A proxy that keeps a connection of its own for each client, closes it after 1 s without a request, and repeats nothing.
#[tokio::test]
async fn a_proxy_with_a_pool_of_its_own_reuses_idle_connections_without_losing_a_request() {
    let world = world();
    let before = accepted(&world).await + 1;
    let proxies: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let address = world.program.address;
            let request = request(&world, address);
            tokio::spawn(async move {
                let mut opened = 0;
                let mut kept: Option<Connection> = None;
                let mut pauses = pauses(client).into_iter();
                loop {
                    let mut connection = match kept.take() {
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
                        return Ok::<usize, String>(opened);
                    };
                    let since = Instant::now();
                    tokio::time::sleep(pause).await;
                    let is_kept = since.elapsed() < Duration::from_millis(KEPT_MS);
                    kept = is_kept.then_some(connection);
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
        "the long pauses end connections: {opened}"
    );
    assert!(
        opened * 4 <= REQUESTS,
        "{opened} connections for {REQUESTS} requests"
    );
    assert_eq!(accepted(&world).await - before, opened);
}

/// HAProxy as docs/operating.md recommends, but that it closes idle connections sooner.
fn haproxy(server: SocketAddr) -> Proxy {
    let lost = recipe("`lost.http` is the whole answer").replace('\n', "\r\n");
    Proxy::start("haproxy", &["-db", "-f"], |address, folder| {
        let error = folder.join("lost.http");
        std::fs::write(&error, &lost).expect("written");
        let purge =
            format!("  default-server check inter 2s fall 1 rise 1 pool-purge-delay {KEPT_MS}ms");
        let recipe = with_lines(
            &recipe("**HAProxy**"),
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
