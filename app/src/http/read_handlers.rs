//! The handlers of `GET` requests about locks, writes and readiness.

use hyper::Request;
use hyper::body::Incoming;
use serde_json::json;

use super::api_error::ApiError;
use super::authorization::authorize;
use super::request_parameters;
use super::response::{self, HttpResponse};
use super::response_body::{Details, EventPage, WriteStatus, Writes};
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

/// `GET /locks/{id}/details`.
pub(super) async fn details(
    app: &App,
    lock: &str,
    request: &Request<Incoming>,
) -> Result<HttpResponse, ApiError> {
    let authorized = authorize(app, request.headers(), lock).await?;
    let snapshot = app
        .writes
        .read_lock(authorized.lock, &authorized.principal)
        .await?;
    Ok(response::ok(&Details::of(&snapshot.lock)))
}

/// `GET /locks/{id}/events?page=N`.
pub(super) async fn events(
    app: &App,
    lock: &str,
    request: &Request<Incoming>,
) -> Result<HttpResponse, ApiError> {
    let authorized = authorize(app, request.headers(), lock).await?;
    let page = match request_parameters::query(request.uri().query(), "page") {
        None => None,
        Some(page) => match page.parse::<u64>() {
            Ok(page) if page > 0 => Some(page),
            _ => {
                return Err(ApiError::BadRequest(
                    "page must be an integer of at least 1".into(),
                ));
            }
        },
    };
    let limit = usize::try_from(EventPage::SIZE).unwrap_or(usize::MAX);
    let (snapshot, events) = app
        .writes
        .read_events(
            authorized.lock,
            &authorized.principal,
            |snapshot| EventPage::first_version(EventPage::number(page, &snapshot.lock)),
            limit,
        )
        .await?;
    let page = EventPage::number(page, &snapshot.lock);
    Ok(response::ok(&EventPage::new(&snapshot.lock, page, &events)))
}

/// `GET /locks/{id}/writes?state=open`: the writes that have not ended, oldest first.
pub(super) async fn writes(
    app: &App,
    lock: &str,
    request: &Request<Incoming>,
) -> Result<HttpResponse, ApiError> {
    let authorized = authorize(app, request.headers(), lock).await?;
    if request_parameters::query(request.uri().query(), "state") != Some("open") {
        let text = "The query must be ?state=open, which lists the open writes of the lock";
        return Err(ApiError::BadRequest(text.into()));
    }
    let snapshot = app
        .writes
        .read_lock(authorized.lock, &authorized.principal)
        .await?;
    let writes = snapshot.unfinished.iter().map(|w| status(app, w)).collect();
    Ok(response::ok(&Writes { writes }))
}

/// `GET /locks/{id}/writes/{writeId}`.
pub(super) async fn write(
    app: &App,
    lock: &str,
    write: &str,
    request: &Request<Incoming>,
) -> Result<HttpResponse, ApiError> {
    let authorized = authorize(app, request.headers(), lock).await?;
    let write = request_parameters::write_id(write)?;
    let write = app
        .writes
        .read_write(authorized.lock, write, &authorized.principal)
        .await?;
    Ok(response::ok(&status(app, &write)))
}

fn status(app: &App, write: &keywright_domain::model::Write) -> WriteStatus {
    let confirm_within = app.writes.settings().limits.confirm_within;
    let unconfirmed = write.is_unconfirmed(app.clock.now(), confirm_within);
    WriteStatus::of(write, unconfirmed)
}
