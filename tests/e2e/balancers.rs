//! Balancers in front that keep idle connections: an hour with the default times (75 s here, 60 s there) is one minute in
//! which the server keeps idle connections for 5 s and the balancer for 3 s.

use std::net::SocketAddr;
use std::time::Duration;

use keywright_tests::{Connection, Proxy, Request};
use serde_json::json;

use crate::harness::{LOCK, World};
use crate::replicas::nginx;

/// Clients at once, and how often each of them asks.
const CLIENTS: u64 = 16;
const ROUNDS: u64 = 7;

/// The longest pause between two requests: longer than the balancer keeps a connection, shorter than the server does.
const LONGEST_PAUSE_MS: u64 = 4000;

fn world() -> World {
    World::new(&["--virtual-locks", "off", "--keep-alive", "5s"])
}

fn request(world: &World, address: SocketAddr) -> Request {
    let body = json!({ "keyUuid": "k", "keyIndexNumber": 2 });
    let path = format!("/locks/{LOCK}/WriteKey");
    Request::new(address, "POST", &path)
        .bearer(&world.program.token)
        .json(&body)
}

fn pause() -> Duration {
    Duration::from_millis(fastrand::u64(0..LONGEST_PAUSE_MS))
}

/// Each client asks, pauses, and asks again, so that the balancer reuses some connections and finds others expired.
async fn assert_no_request_is_lost(world: &World, balancer: SocketAddr) {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let request = request(world, balancer);
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                for _ in 0..ROUNDS {
                    statuses.push(request.clone().send().await.status);
                    tokio::time::sleep(pause()).await;
                }
                statuses
            })
        })
        .collect();
    for client in clients {
        let statuses = client.await.expect("no panic");
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
}

#[tokio::test]
async fn nginx_reuses_idle_connections_without_losing_a_request() {
    let world = world();
    let nginx = nginx(&[world.program.address], "3s");
    assert_no_request_is_lost(&world, nginx.address).await;
}

#[tokio::test]
async fn haproxy_reuses_idle_connections_without_losing_a_request() {
    let world = world();
    let haproxy = haproxy(world.program.address);
    assert_no_request_is_lost(&world, haproxy.address).await;
}

/// A proxy that keeps a connection of its own for each client, closes it after 3 s without a request, and repeats nothing.
#[tokio::test]
async fn a_proxy_with_a_pool_of_its_own_reuses_idle_connections_without_losing_a_request() {
    let world = world();
    let proxies: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let address = world.program.address;
            let request = request(&world, address);
            tokio::spawn(async move {
                let mut kept: Option<Connection> = None;
                for _ in 0..ROUNDS {
                    let mut connection = match kept.take() {
                        Some(connection) => connection,
                        None => Connection::open(address).await?,
                    };
                    let answer = connection.send(request.clone()).await?;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let pause = pause();
                    tokio::time::sleep(pause).await;
                    kept = (pause < Duration::from_secs(3)).then_some(connection);
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    for proxy in proxies {
        proxy.await.expect("no panic").expect("no request is lost");
    }
}

fn haproxy(server: SocketAddr) -> Proxy {
    Proxy::start("haproxy", &["-db", "-f"], |address, _| {
        format!(
            "defaults
               mode http
               timeout connect 1s
               timeout client 75s
               timeout server 45s
               timeout http-keep-alive 3s
               retries 0
             frontend clients
               bind {address}
               default_backend keywright
             backend keywright
               http-reuse always
               server a {server} pool-purge-delay 3s\n"
        )
    })
}
