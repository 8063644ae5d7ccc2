//! Health checks while the service starts, for example while it waits for its database.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use keywright_domain::ports::IdGenerator;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::connection::{ClientStream, ConnectionState};
use crate::http;
use crate::settings::HttpLimits;

/// Connections at once.
const MAX_CONNECTIONS: usize = 256;

/// How long a connection may take. Probes are short, and give up after a second.
const CONNECTION_TIMEOUT: Duration = Duration::from_millis(500);

/// Answers `/healthz` with 200 and every other path with 503, one request for each connection. It never ends.
pub(crate) async fn answer_health_checks(
    listener: &TcpListener,
    http_limits: &HttpLimits,
    ids: Arc<dyn IdGenerator>,
    message: &'static str,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let rewrite = http::rewrite_parser_errors(ids.clone(), http_limits.max_head, None);
    // The semaphore is never closed.
    while let Ok(permit) = permits.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let state = Arc::new(ConnectionState::new());
        let stream = ClientStream::new(stream, state.clone(), http_limits, rewrite.clone());
        let ids = ids.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let _ = state.begin_request(&request);
            let answer = http::handle_during_startup(&*ids, message, &request);
            if !request.body().is_end_stream() {
                state.leave_body_unread();
            }
            state.end_request();
            async move { Ok::<_, Infallible>(answer) }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .max_buf_size(http_limits.max_head)
            .half_close(true)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            let _ = timeout(CONNECTION_TIMEOUT, serving).await;
            drop(permit);
        });
    }
}
