//! The HTTP API: from a request to its response.

mod admin;
mod api_error;
mod authorization;
pub mod bench_access;
mod cors;
mod cursor;
mod deadline;
mod device_reports;
mod docs;
mod event_stream;
mod event_stream_body;
mod feed_handler;
mod head_checks;
mod list_handlers;
mod metrics_response;
mod openapi;
mod operations;
mod parser_errors;
mod read_handlers;
mod request_body;
mod request_context;
mod request_id;
mod request_log;
mod request_parameters;
mod response;
mod response_body;
mod route;
mod schemas;
mod webhook_body;
mod webhook_handlers;
mod webhook_operations;
mod webhook_response;
mod write_handlers;

use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderValue};
use hyper::{Method, Request};
use keywright_domain::ports::IdGenerator;
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use crate::app::App;
use crate::connection::ConnectionState;
use api_error::ApiError;
use cors::Cors;
use deadline::run_until;
pub(crate) use event_stream::frame as event_frame;
pub(crate) use parser_errors::rewrite_parser_errors;
use request_context::RequestContext;
use request_log::RequestLog;
use response::{HttpResponse, ResponseBody};
use route::Route;

/// What an address serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    /// The API.
    Api,
    /// The operators' page.
    Admin,
    /// Both.
    ApiAndAdmin,
}

impl Surface {
    /// # Errors
    /// 404: the address does not serve this route.
    fn check(self, route: Route<'_>) -> Result<Route<'_>, ApiError> {
        let is_served = match route {
            Route::Admin => self != Self::Api,
            Route::Health => true,
            _ => self != Self::Admin,
        };
        is_served.then_some(route).ok_or(ApiError::NotFound)
    }
}

/// Handles one request. `hides_length`: the request has a `Content-Length` that the parser does not show.
pub(crate) async fn handle(
    app: &Arc<App>,
    surface: Surface,
    connection: &Arc<ConnectionState>,
    client: IpAddr,
    request: Request<Incoming>,
    hides_length: bool,
) -> HttpResponse {
    let start = Instant::now();
    let headers = request.headers();
    let has_body = !request.body().is_end_stream();
    let cors = Cors::of(headers, &app.cors);
    // A request without credentials does not count as a failed attempt.
    let has_credentials = headers.contains_key(AUTHORIZATION) || headers.contains_key("x-api-key");
    let id = request_id::of_request(&*app.ids, &request);
    let span = info_span!("request", %id);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let decoded = route::decode(&path);
    let route = match &decoded {
        Ok(path) => route::find(&method, path).and_then(|route| surface.check(route)),
        Err(_) => Err(ApiError::NotFound),
    };
    // Every other route leaves a body unread, after which the connection is closed.
    let reads_body = match &route {
        Ok(Route::WriteKey(_) | Route::DeviceReports) => true,
        Ok(Route::Admin) => method == Method::POST,
        Ok(route) => route.has_json_body(),
        Err(_) => false,
    };
    // Other origins have no use for pages.
    let is_page = matches!(route, Ok(Route::Admin));
    let methods = match route {
        Ok(Route::Options(methods)) => Some(methods),
        _ => None,
    };
    let context = RequestContext {
        id: id.clone(),
        deadline: app.deadline(),
    };
    let mut log = RequestLog {
        metrics: &app.metrics,
        span: span.clone(),
        method,
        path: &path,
        route: route.as_ref().map_or(route::OTHER, Route::name),
        client,
        start,
        is_quiet: matches!(route, Ok(Route::Health | Route::Ready | Route::Metrics)),
        status: None,
    };
    let route = head_checks::check(&request, hides_length).and(route);
    let mut response = dispatch(app, connection, client, route, request, context)
        .instrument(span)
        .await
        .unwrap_or_else(|error| match error {
            ApiError::Unauthorized
                if has_credentials && app.admission.record_failed_credentials(client) =>
            {
                app.metrics.shed("failed_credentials");
                ApiError::TooManyFailures.into_response()
            }
            error => error.into_response(),
        });
    let status = response.status();
    // An error may be known before the body is read to its end.
    if has_body && !status.is_success() {
        connection.leave_body_unread();
    }
    // While the service stops: a balancer that reuses the connection would soon find it closed.
    let closes = app.work.is_stopping() || has_body && !reads_body;
    log.status = Some(status.as_u16());
    drop(log);
    request_id::set(&mut response, &id);
    let headers = response.headers_mut();
    if !is_page {
        cors.apply(headers, methods);
    }
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // A stream ends the request itself.
    if matches!(response.body(), ResponseBody::Left(_)) {
        connection.end_request();
    }
    response
}

/// Handles a request while the service starts: the process runs, but does not accept work.
pub(crate) fn handle_during_startup<B>(
    ids: &dyn IdGenerator,
    message: &'static str,
    request: &Request<B>,
) -> HttpResponse {
    let mut response = match route::find(request.method(), request.uri().path()) {
        Ok(Route::Health) => health(),
        _ => ApiError::NotReady(message).into_response(),
    };
    request_id::set(&mut response, &request_id::of_request(ids, request));
    response
}

fn health() -> HttpResponse {
    response::ok(&serde_json::json!({ "status": "ok" }))
}

async fn dispatch(
    app: &Arc<App>,
    connection: &Arc<ConnectionState>,
    client: IpAddr,
    route: Result<Route<'_>, ApiError>,
    request: Request<Incoming>,
    context: RequestContext,
) -> Result<HttpResponse, ApiError> {
    let route = route?;
    match route {
        Route::Health => Ok(health()),
        Route::Options(methods) => Ok(response::options(methods)),
        Route::Ready => read_handlers::ready(app),
        Route::OpenApi => Ok(docs::openapi(app, request.headers())),
        Route::Docs => Ok(docs::page()),
        Route::Metrics => {
            let format = metrics_response::negotiate(request.headers());
            let text = app.metrics.text(format);
            Ok(metrics_response::response(text, format))
        }
        Route::Admin => Box::pin(admin::handle(app, connection, client, request, context)).await,
        Route::DocsScript => docs::script(request.headers()).await,
        Route::DeviceReports => device_reports::deliver(app, request).await,
        // Boxed: the future of a write has to stay small.
        Route::Feed => {
            let reading = Box::pin(feed_handler::read(app, connection, &request));
            run_until(app, context.deadline, reading).await
        }
        Route::Locks => {
            let listing = Box::pin(list_handlers::locks(app, &request));
            run_until(app, context.deadline, listing).await
        }
        Route::AllWrites => {
            let listing = Box::pin(list_handlers::writes(app, &request));
            run_until(app, context.deadline, listing).await
        }
        Route::Writes(lock) => {
            let listing = Box::pin(list_handlers::writes_of_lock(app, lock, &request));
            run_until(app, context.deadline, listing).await
        }
        Route::WriteKey(lock) => {
            write_handlers::write_key(app, connection, lock, request, context).await
        }
        Route::Details(lock) | Route::Events(lock) | Route::Write(lock, _) => {
            let reading = read_handlers::read(app, route, lock, &request);
            run_until(app, context.deadline, reading).await
        }
        Route::Withdraw(lock, write) => {
            write_handlers::withdraw(app, lock, write, &request, context).await
        }
        Route::Webhooks
        | Route::RegisterWebhook
        | Route::Webhook(_)
        | Route::ChangeWebhook(_)
        | Route::RemoveWebhook(_)
        | Route::RotateWebhookSecret(_)
        | Route::TestWebhook(_)
        | Route::WebhookDeliveries(_)
        | Route::ReplayWebhook(_) => {
            Box::pin(webhook_handlers::handle(app, route, request, context)).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each request allocates this future.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
            std::mem::size_of::<F>()
        }
        let connection: &'static Arc<ConnectionState> =
            Box::leak(Box::new(Arc::new(ConnectionState::new())));
        let size = size(|app: &'static Arc<App>, client, request| {
            handle(app, Surface::Api, connection, client, request, false)
        });
        assert!(size < 4 * 1024, "{size} bytes");
    }
}
