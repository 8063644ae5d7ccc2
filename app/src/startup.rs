//! Health checks while the service is still being set up, for instance while it waits for its database.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::http;

/// Connections at once, and how long each may take: probes ask seldom, are short, and give up after a second.
const CONNECTIONS: usize = 256;
const CONNECTION_TIME: Duration = Duration::from_millis(500);

/// Answers `/healthz` with 200 and everything else with 503, one request a connection, for as long as it is polled.
pub(crate) async fn answer_health_checks(listener: &TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(place) = places.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answer =
            service_fn(
                |request| async move { Ok::<_, Infallible>(http::answer_at_start(&request)) },
            );
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            let _ = timeout(CONNECTION_TIME, serving).await;
            drop(place);
        });
    }
}
