//! The handlers of `GET` requests about locks, writes and readiness.

use hyper::Request;
use hyper::body::Incoming;
use keywright_domain::model::LockSnapshot;
use serde_json::json;

use super::api_error::ApiError;
use super::authorization::authorize;
use super::list_handlers::status;
use super::request_parameters::{self, parameter};
use super::response::{self, HttpResponse};
use super::response_body::{Details, EventPage};
use super::route::Route;
use crate::app::App;

/// `GET /readyz`: 200 if the store answers, the connections that the shadows need are up, tokens can be verified, and the
/// service is not being stopped.
pub(super) fn ready(app: &App) -> Result<HttpResponse, ApiError> {
    if app.work.is_stopping() {
        return Err(ApiError::NotReady("The service is being stopped"));
    }
    if !app.connected.iter().all(|up| *up.borrow()) {
        let why = "The broker is not connected, or no shadow service answers there; see the log";
        return Err(ApiError::NotReady(why));
    }
    if app.tokens.as_ref().is_some_and(|tokens| !tokens.has_keys()) {
        return Err(ApiError::NotReady(
            "The keys that verify tokens are not available yet",
        ));
    }
    // A background task asks the store, so that frequent probes are no load for it.
    match *app.store_answers.borrow() {
        true => Ok(response::ok(&json!({ "status": "ready" }))),
        false => Err(ApiError::NotReady("The store of locks does not answer")),
    }
}

/// Answers a `GET` about a lock: its details, its events, or one of its writes.
pub(super) async fn read(
    app: &App,
    route: Route<'_>,
    lock: &str,
    request: &Request<Incoming>,
) -> Result<HttpResponse, ApiError> {
    let authorized = authorize(app, request.headers(), lock).await?;
    let (lock, principal, writes) = (authorized.lock, &authorized.principal, &app.writes);
    match route {
        Route::Details(_) => {
            let snapshot = writes.read_lock(lock, principal).await?;
            Ok(response::ok(&Details::of(&snapshot.lock)))
        }
        Route::Events(_) => {
            let page =
                match parameter(request.uri().query(), "page").map(|page| page.parse::<u64>()) {
                    None => None,
                    Some(Ok(page)) if page > 0 => Some(page),
                    Some(_) => {
                        let text = "page must be an integer of at least 1";
                        return Err(ApiError::BadRequest(text.into()));
                    }
                };
            let first = |read: &LockSnapshot| EventPage::first_version(page, &read.lock);
            let limit = usize::try_from(EventPage::SIZE).unwrap_or(usize::MAX);
            let (snapshot, events) = writes.read_events(lock, principal, first, limit).await?;
            Ok(response::ok(&EventPage::new(page, &snapshot.lock, &events)))
        }
        Route::Write(_, id) => {
            let id = request_parameters::write_id(id)?;
            let write = writes.read_write(lock, id, principal).await?;
            Ok(response::ok(&status(app, &write)))
        }
        // `dispatch` passes no other route.
        _ => Err(ApiError::NotFound),
    }
}
