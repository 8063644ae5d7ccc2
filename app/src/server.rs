//! The accept loop: it bounds the number of connections and serves them.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::connection::{ClientStream, ConnectionState};
use crate::http::{self, Surface};
use crate::settings::Settings;
use crate::shutdown;
use crate::signals::Stop;

/// How long a connection must have been idle before it is closed for another one: its first request may still be on the way.
const MIN_IDLE: Duration = Duration::from_secs(1);

/// The pause after an error of `accept`, for instance because no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a connection that waits for a permit looks for an idle connection to close.
const EVICTION_INTERVAL: Duration = Duration::from_millis(50);

/// Handles of ended connections are removed when there are this many more than twice the open connections.
const SPARE_HANDLES: usize = 64;

/// Serves until `stop` completes. Without `admin_listener`, the operators' page has the address of the API, if it is on. Unless that is [`Stop::Now`], it then continues for [`Settings::drain_delay`] while `/readyz`
/// responds 503. After that it accepts no more connections and lets requests and use cases finish, at most for the request
/// timeout plus a margin.
pub(crate) async fn run(
    listener: TcpListener,
    admin_listener: Option<TcpListener>,
    app: Arc<App>,
    settings: &Settings,
    stop: impl Future<Output = Stop>,
) {
    let graceful = GracefulShutdown::new();
    {
        let surface = match (&app.admin, &admin_listener) {
            (Some(_), None) => Surface::ApiAndAdmin,
            _ => Surface::Api,
        };
        let accepting = async {
            tokio::select! {
                () = accept_all(&listener, surface, &app, &graceful) => {}
                () = accept_admin(admin_listener.as_ref(), &app, &graceful) => {}
            }
        };
        let mut accepting = std::pin::pin!(accepting);
        let stop = tokio::select! {
            stop = stop => stop,
            () = &mut accepting => return,
        };
        app.work.announce_stop();
        if stop == Stop::AfterDrainDelay && !settings.drain_delay.is_zero() {
            info!(delay = ?settings.drain_delay, "stopping: not ready any more; requests are served during the drain delay");
            tokio::select! {
                () = tokio::time::sleep(settings.drain_delay) => {}
                () = accepting => {}
            }
        }
    }
    drop((listener, admin_listener));
    shutdown::finish(&app, graceful, settings.protocol.request_timeout).await;
}

async fn accept_admin(listener: Option<&TcpListener>, app: &Arc<App>, graceful: &GracefulShutdown) {
    match listener {
        Some(listener) => accept_all(listener, Surface::Admin, app, graceful).await,
        None => std::future::pending().await,
    }
}

async fn accept_all(
    listener: &TcpListener,
    surface: Surface,
    app: &Arc<App>,
    graceful: &GracefulShutdown,
) {
    let http_limits = app.http_limits;
    let mut parser = http1::Builder::new();
    parser
        .timer(TokioTimer::new())
        // `ClientStream` has timeouts of its own, which distinguish an idle connection from a slow head.
        .header_read_timeout(None)
        .max_buf_size(http_limits.max_head)
        .half_close(true)
        .keep_alive(true);
    let rewrite = http::rewrite_parser_errors(
        app.ids.clone(),
        http_limits.max_head,
        Some(app.metrics.clone()),
    );
    let mut connections = Connections::new(http_limits.max_connections);
    loop {
        let Some((stream, peer)) = accept(listener).await else {
            continue;
        };
        let Some(permit) = connections.permit().await else {
            return;
        };
        app.metrics.connected();
        let state = Arc::new(ConnectionState::new());
        let stream = ClientStream::new(stream, state.clone(), &http_limits, rewrite.clone());
        let (app, connection) = (app.clone(), state.clone());
        let serve = service_fn(move |request| {
            let (app, connection) = (app.clone(), connection.clone());
            // Not in the future: the parser may read the body before it polls that.
            let hides_length = connection.begin_request(&request);
            // Boxed: a connection holds room for the future of its service also while it is idle.
            Box::pin(async move {
                Ok::<_, Infallible>(
                    http::handle(&app, surface, &connection, peer, request, hides_length).await,
                )
            })
        });
        let served = parser.serve_connection(TokioIo::new(stream), serve);
        let served = graceful.watch(served);
        let task = tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = served.await {
                debug!(%error, "a connection failed");
            }
        });
        connections.open.push(OpenConnection {
            state,
            task: task.abort_handle(),
        });
    }
}

/// The connections, at most `max` at once.
struct Connections {
    permits: Arc<Semaphore>,
    max: usize,
    /// Connections that were accepted. Some of them may have ended.
    open: Vec<OpenConnection>,
}

struct OpenConnection {
    state: Arc<ConnectionState>,
    task: AbortHandle,
}

impl Connections {
    fn new(max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max)),
            max,
            open: Vec::new(),
        }
    }

    /// Waits for the permit of a new connection. If none is free, it closes the longest idle connection, or waits until one ends
    /// or has been idle for [`MIN_IDLE`]. `None`: the semaphore is closed, which does not happen.
    async fn permit(&mut self) -> Option<OwnedSemaphorePermit> {
        // The handle of an ended task still holds its memory.
        let busy = self.max - self.permits.available_permits();
        if self.open.len() > 2 * busy + SPARE_HANDLES {
            self.remove_ended();
        }
        loop {
            if let Ok(permit) = self.permits.clone().try_acquire_owned() {
                return Some(permit);
            }
            self.evict_longest_idle();
            let waiting = self.permits.clone().acquire_owned();
            if let Ok(permit) = tokio::time::timeout(EVICTION_INTERVAL, waiting).await {
                return permit.ok();
            }
        }
    }

    fn remove_ended(&mut self) {
        self.open
            .retain(|connection| !connection.task.is_finished());
    }

    fn evict_longest_idle(&mut self) {
        self.remove_ended();
        let idle = { self.open.iter() }
            .filter_map(|connection| Some((connection.state.idle_since()?, &connection.state)))
            .filter(|(since, _)| since.elapsed() >= MIN_IDLE);
        if let Some((_, state)) = idle.min_by_key(|(since, _)| *since) {
            state.evict();
        }
    }
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, IpAddr)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Responses are small and must not wait for more bytes.
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
