//! The end of serving: requests in progress are finished, and no new one begins. Background tasks are stopped after it.

use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use tracing::{info, warn};

use crate::app::App;

/// How much longer this may take than a request.
const MARGIN: Duration = Duration::from_secs(2);

/// Waits until all connections and use cases have ended, at most for the request timeout and a margin. No new connection may be
/// accepted meanwhile.
pub(crate) async fn finish(app: &App, connections: GracefulShutdown, request_timeout: Duration) {
    app.work.drain();
    info!("stopping: finishing what is in progress");
    let finished = async {
        connections.shutdown().await;
        app.work.tasks.wait().await;
    };
    match tokio::time::timeout(request_timeout + MARGIN, finished).await {
        Ok(()) => info!("stopped"),
        Err(_) => warn!(
            "stopped before all requests had finished; their writes are recovered at the next start"
        ),
    }
}
