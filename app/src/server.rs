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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use crate::app::App;
use crate::connection::{ClientStream, ConnectionState};
use crate::http;
use crate::http::{ParserAnswers, Refusals};
use crate::settings::Settings;
use crate::signals::Stop;

/// A connection that has been idle for less is not closed for another one: its first request may be on the way through the
/// network.
const MIN_IDLE: Duration = Duration::from_secs(1);

/// How long to wait when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a connection without a place looks for an idle one that can make room.
const EVICTION_PAUSE: Duration = Duration::from_millis(50);

/// How many handles of ended connections are kept before they are looked for, beside as many as there are connections.
const SPARE_HANDLES: usize = 64;

/// How much longer than a request draining may take.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);

/// Serves until `stop` ends. Then it takes requests for [`Settings::drain_delay`] more while `/readyz` answers 503, unless
/// it was told to stop at once; after that it takes no more connections, lets requests and use cases come to their
/// end, and gives up on those that take longer than a request may.
pub(crate) async fn run(
    listener: TcpListener,
    app: Arc<App>,
    settings: &Settings,
    stop: impl Future<Output = Stop>,
) {
    let graceful = GracefulShutdown::new();
    {
        let mut accepting = std::pin::pin!(accept_all(&listener, &app, &graceful));
        let stop = tokio::select! {
            stop = stop => stop,
            () = &mut accepting => return,
        };
        app.work.announce_stop();
        if stop == Stop::AfterDrainDelay && !settings.drain_delay.is_zero() {
            info!(delay = ?settings.drain_delay, "stopping: not ready any more, requests are taken for the drain delay");
            tokio::select! {
                () = tokio::time::sleep(settings.drain_delay) => {}
                () = accepting => {}
            }
        }
    }
    drop(listener);
    app.work.drain();
    info!("stopping: finishing what is in progress");
    let finish = async {
        graceful.shutdown().await;
        app.work.tasks.wait().await;
    };
    let timeout = settings.protocol.request_timeout + DRAIN_MARGIN;
    match tokio::time::timeout(timeout, finish).await {
        Ok(()) => info!("stopped"),
        Err(_) => warn!("stopped before all was finished; writes are taken up at the next start"),
    }
}

async fn accept_all(listener: &TcpListener, app: &Arc<App>, graceful: &GracefulShutdown) {
    let bounds = app.bounds;
    let mut parser = http1::Builder::new();
    parser
        .timer(TokioTimer::new())
        // The stream has deadlines of its own, which tell an idle connection from a slow head.
        .header_read_timeout(None)
        .max_buf_size(bounds.headers)
        .half_close(true)
        .keep_alive(true);
    let refusals = Arc::new(Refusals {
        ids: app.ids.clone(),
        max_head: bounds.headers,
        metrics: Some(app.metrics.clone()),
    });
    let mut places = Places::new(bounds.connections);
    loop {
        let Some((stream, peer)) = accept(listener).await else {
            continue;
        };
        let Some(place) = places.take().await else {
            return;
        };
        app.metrics.connected();
        let state = Arc::new(ConnectionState::new());
        let stream = ClientStream::new(stream, state.clone(), &bounds);
        let stream = ParserAnswers::new(stream, refusals.clone(), state.clone());
        let (app, connection) = (app.clone(), state.clone());
        let serve = service_fn(move |request| {
            let (app, connection) = (app.clone(), connection.clone());
            // At once: the parser may read the body before it polls what answers.
            let hides_length = connection.begin_request(&request);
            // Boxed: a connection has room for the future of its service also while it is idle.
            Box::pin(async move {
                Ok::<_, Infallible>(
                    http::answer(&app, &connection, peer, request, hides_length).await,
                )
            })
        });
        let served = parser.serve_connection(TokioIo::new(stream), serve);
        let served = graceful.watch(served);
        let task = tokio::spawn(async move {
            let _place = place;
            if let Err(error) = served.await {
                debug!(%error, "a connection ended early");
            }
        });
        places.open.push((state, task.abort_handle()));
    }
}

/// At most so many connections at once.
struct Places {
    free: Arc<Semaphore>,
    cap: usize,
    /// Those that were accepted; some of them may have ended since.
    open: Vec<(Arc<ConnectionState>, AbortHandle)>,
}

impl Places {
    fn new(cap: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(cap)),
            cap,
            open: Vec::new(),
        }
    }

    /// A place for a connection. Where none is free, the connection that has been idle for longest is closed; where all
    /// of them are busy, or idle only for a moment, one of them is waited for. `None` is not expected: it says that the semaphore
    /// is closed.
    async fn take(&mut self) -> Option<OwnedSemaphorePermit> {
        // The handle of a task that has ended still holds its memory.
        let busy = self.cap - self.free.available_permits();
        if self.open.len() > 2 * busy + SPARE_HANDLES {
            self.forget_ended();
        }
        loop {
            if let Ok(place) = self.free.clone().try_acquire_owned() {
                return Some(place);
            }
            self.evict_longest_idle();
            let waiting = self.free.clone().acquire_owned();
            if let Ok(place) = tokio::time::timeout(EVICTION_PAUSE, waiting).await {
                return place.ok();
            }
        }
    }

    fn forget_ended(&mut self) {
        self.open.retain(|(_, task)| !task.is_finished());
    }

    fn evict_longest_idle(&mut self) {
        self.forget_ended();
        let idle = { self.open.iter() }
            .filter_map(|(state, _)| Some((state.idle_since()?, state)))
            .filter(|(since, _)| since.elapsed() >= MIN_IDLE);
        if let Some((_, state)) = idle.min_by_key(|(since, _)| *since) {
            state.evict();
        }
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
