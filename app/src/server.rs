//! Connections, their bounds and their end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::http::{self, ParserAnswers};
use crate::settings::Settings;

/// How long to wait when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How much longer than a request draining may take.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);

/// Serves until `stop` ends; then takes no more connections, lets requests and use cases come to their end,
/// and gives up on those that take longer than a request may.
pub(crate) async fn run(
    listener: TcpListener,
    app: Arc<App>,
    settings: &Settings,
    stop: impl Future<Output = ()>,
) {
    let bounds = settings.bounds;
    let mut connection = http1::Builder::new();
    connection
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_time)
        .max_buf_size(bounds.headers)
        .keep_alive(true);
    let places = Arc::new(Semaphore::new(bounds.connections));
    let graceful = GracefulShutdown::new();
    let accept_all = async {
        loop {
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let (stream, peer) = match accept(&listener).await {
                Some(accepted) => accepted,
                None => continue,
            };
            // A client that does not read what it asked for is given up, too.
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(bounds.write_time));
            let stream = ParserAnswers::new(Box::pin(stream), app.clone());
            let app = app.clone();
            let serve = service_fn(move |request| {
                let app = app.clone();
                // Boxed: a connection has room for the future of its service also while it is idle.
                Box::pin(
                    async move { Ok::<_, Infallible>(http::answer(&app, peer, request).await) },
                )
            });
            let served = connection.serve_connection(TokioIo::new(stream), serve);
            let served = graceful.watch(served);
            tokio::spawn(async move {
                let _place = place;
                if let Err(error) = served.await {
                    debug!(%error, "a connection ended early");
                }
            });
        }
    };
    tokio::select! {
        () = stop => {}
        () = accept_all => {}
    }
    drop(listener);
    app.work.drain();
    info!("stopping: finishing what is in progress");
    let finish = async {
        graceful.shutdown().await;
        app.work.tasks.wait().await;
    };
    let patience = settings.protocol.request + DRAIN_MARGIN;
    match tokio::time::timeout(patience, finish).await {
        Ok(()) => info!("stopped"),
        Err(_) => warn!("stopped before all was finished; writes are taken up at the next start"),
    }
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, IpAddr)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are small and must not wait for more to come.
            let _ = stream.set_nodelay(true);
            Some((stream, peer.ip()))
        }
        Err(error) => {
            warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
