//! The HTTP contract: what is asked, of whom, and what is answered.

mod answer;
mod api_error;
mod cors;
mod device_reports;
mod docs;
mod openapi;
mod parser_answers;
mod queries;
mod request;
mod request_head;
mod route;
mod schemas;
pub mod wire;
mod write_key;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderName, HeaderValue};
use hyper::{Method, Request, Response};
use keywright_domain::model::Tick;
use keywright_domain::ports::IdGenerator;
use tokio::time::Instant;
use tracing::{Instrument, Span, error, info, info_span};

use crate::app::App;
use crate::connection::ConnectionState;
use api_error::ApiError;
use cors::Cors;
pub(crate) use parser_answers::{ParserAnswers, Refusals};
use route::Route;

pub(crate) type Answer = Response<Full<Bytes>>;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What stands for a route in metrics where there is none. Unknown routes share it, so that clients cannot create time
/// series.
const OTHER_ROUTE: &str = "other";

/// How much of a request's path is logged, in characters.
const LOGGED_PATH: usize = 128;

/// Answers one request, whatever it is. Its id stands in each log line and in the answer. `hides_length`: the request has
/// a `Content-Length` that the parser does not show.
pub(crate) async fn answer(
    app: &Arc<App>,
    connection: &ConnectionState,
    client: IpAddr,
    request: Request<Incoming>,
    hides_length: bool,
) -> Answer {
    let start = Instant::now();
    let headers = request.headers();
    let has_body = !request.body().is_end_stream();
    let cors = Cors::of(headers, &app.cors);
    // A request without credentials does not count as a failed attempt.
    let has_credentials = headers.contains_key(AUTHORIZATION) || headers.contains_key("x-api-key");
    let id = request_id(&*app.ids, &request);
    let span = info_span!("request", id);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let decoded = route::decode(&path);
    let found = match &decoded {
        Ok(path) => route::find(&method, path),
        Err(_) => Err(ApiError::NotFound),
    };
    let route = found.as_ref().map_or(OTHER_ROUTE, Route::name);
    let quiet = matches!(found, Ok(Route::Health | Route::Ready | Route::Metrics));
    // Every other route leaves a body unread, after which the connection is closed.
    let reads_body = matches!(found, Ok(Route::WriteKey(_) | Route::DeviceReports));
    let methods = match found {
        Ok(Route::Options(methods)) => Some(methods),
        _ => None,
    };
    let deadline = app.deadline();
    let mut unanswered = Unanswered {
        app,
        line: Some((span.clone(), method, route)),
        path: &path,
        client,
        start,
    };
    let requested = request_head::check(&request, hides_length).and(found);
    let mut answer = dispatch(app, connection, requested, request, deadline)
        .instrument(span.clone())
        .await
        .unwrap_or_else(|api_error| match api_error {
            ApiError::Unauthorized if has_credentials && app.admission.failed(client) => {
                app.metrics.shed("failed_credentials");
                ApiError::TooManyFailures.into_answer()
            }
            api_error => api_error.into_answer(),
        });
    let status = answer.status();
    // An error may be known before the body is read to its end.
    if has_body && !status.is_success() {
        connection.leave_body_unread();
    }
    let ends = app.work.is_stopping() || has_body && !reads_body;
    let status = status.as_u16();
    app.metrics.answered(route, status);
    if let Some((span, method, route)) = unanswered.line.take()
        && !quiet
    {
        let duration_ms = millis(start);
        let path = start_of(&path);
        span.in_scope(|| info!(%method, path, route, status, duration_ms, %client, "answered"));
    }
    set_request_id(&mut answer, &id);
    let headers = answer.headers_mut();
    cors.apply(headers, methods);
    if ends {
        // A balancer that reuses the connection would find it closed soon.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    connection.end_request();
    answer
}

/// A request that has no answer yet. Dropped as such, it was given up because its connection ended.
struct Unanswered<'a> {
    app: &'a App,
    /// What the log line says besides the other fields; `None` once there is an answer.
    line: Option<(Span, Method, &'static str)>,
    path: &'a str,
    client: IpAddr,
    start: Instant,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some((span, method, route)) = self.line.take() else {
            return;
        };
        self.app.metrics.unanswered();
        let (path, client) = (start_of(self.path), self.client);
        let duration_ms = millis(self.start);
        span.in_scope(|| {
            info!(%method, path, route, duration_ms, %client, "the connection ended before the answer");
        });
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_micros() as f64 / 1000.0
}

/// Answers a request while the service is still being set up: the process is alive, and takes no work.
pub(crate) fn answer_at_start<B>(ids: &dyn IdGenerator, request: &Request<B>) -> Answer {
    let mut answer = match route::find(request.method(), request.uri().path()) {
        Ok(Route::Health) => health(),
        _ => ApiError::NotReady("The service is starting").into_answer(),
    };
    set_request_id(&mut answer, &request_id(ids, request));
    answer
}

fn health() -> Answer {
    answer::ok(&serde_json::json!({ "status": "ok" }))
}

/// The client's own id where it is harmless, else a new one.
fn request_id<B>(ids: &dyn IdGenerator, request: &Request<B>) -> String {
    let harmless = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let own = request.headers().get(REQUEST_ID);
    match own.and_then(|id| id.to_str().ok()).filter(harmless) {
        Some(id) => id.to_owned(),
        None => new_request_id(ids),
    }
}

fn new_request_id(ids: &dyn IdGenerator) -> String {
    format!("{:016x}", ids.next_id() & u128::from(u64::MAX))
}

fn set_request_id(answer: &mut Answer, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
}

fn start_of(path: &str) -> &str {
    let end = path.char_indices().nth(LOGGED_PATH);
    end.map_or(path, |(end, _)| &path[..end])
}

/// What comes of work that changes nothing.
///
/// # Errors
/// 503 where nothing has come of it by the request's deadline.
async fn by<T>(
    app: &App,
    deadline: Tick,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    app.by(deadline, work).await.unwrap_or_else(|| {
        error!("the request's time is over");
        Err(ApiError::Unavailable)
    })
}

async fn dispatch(
    app: &Arc<App>,
    connection: &ConnectionState,
    route: Result<Route<'_>, ApiError>,
    request: Request<Incoming>,
    deadline: Tick,
) -> Result<Answer, ApiError> {
    match route? {
        Route::Health => Ok(health()),
        Route::Options(methods) => Ok(answer::options(methods)),
        Route::Ready => queries::ready(app),
        Route::OpenApi => Ok(docs::openapi(app, request.headers())),
        Route::Docs => Ok(docs::page()),
        Route::Metrics => {
            let format = answer::metrics_format(request.headers());
            let text = app.metrics.text(format);
            Ok(answer::metrics(text, format))
        }
        Route::DocsScript => docs::script(request.headers()).await,
        Route::DeviceReports => device_reports::deliver(app, request).await,
        Route::WriteKey(lock) => {
            write_key::write_key(app, connection, lock, request, deadline).await
        }
        Route::Details(lock) => by(app, deadline, queries::details(app, lock, &request)).await,
        Route::Events(lock) => by(app, deadline, queries::events(app, lock, &request)).await,
        Route::Writes(lock) => by(app, deadline, queries::writes(app, lock, &request)).await,
        Route::Write(lock, write) => {
            by(app, deadline, queries::write(app, lock, write, &request)).await
        }
        Route::Withdraw(lock, write) => {
            write_key::withdraw(app, lock, write, &request, deadline).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_a_request_is_small_because_it_is_allocated_for_each() {
        fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let connection: &'static ConnectionState = Box::leak(Box::new(ConnectionState::new()));
        let size = size(|app: &'static Arc<App>, client, request| {
            answer(app, connection, client, request, false)
        });
        assert!(size < 4 * 1024, "{size} bytes");
    }
}
