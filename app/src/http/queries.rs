//! What is shown of a lock, and whether the service is there.

use hyper::Request;
use hyper::body::Incoming;
use serde_json::json;

use super::answer::{self, Details, EventPage, WriteStatus, Writes};
use super::api_error::ApiError;
use super::{Answer, request};
use crate::app::App;

/// `GET /readyz`: the store answers, what the shadows need is connected, tokens can be verified, and the service is not
/// being stopped.
pub(super) fn ready(app: &App) -> Result<Answer, ApiError> {
    if app.work.is_stopping() {
        return Err(ApiError::NotReady("The service is being stopped"));
    }
    if !app.connected.iter().all(|up| *up.borrow()) {
        let why =
            "The broker is not connected, or nobody answers for shadows there; the log says more";
        return Err(ApiError::NotReady(why));
    }
    if app.tokens.as_ref().is_some_and(|tokens| !tokens.has_keys()) {
        return Err(ApiError::NotReady("The keys of tokens are not known yet"));
    }
    // Asked for beside the requests, so that whoever asks often does not keep the store busy.
    match *app.store_answers.borrow() {
        true => Ok(answer::ok(&json!({ "status": "ready" }))),
        false => Err(ApiError::NotReady("The store of locks does not answer")),
    }
}

/// `GET /locks/{id}/details`.
pub(super) async fn details(
    app: &App,
    lock: &str,
    request: &Request<Incoming>,
) -> Result<Answer, ApiError> {
    let asked = request::asked(app, request.headers(), lock).await?;
    let snapshot = app.writes.read_lock(asked.lock, &asked.principal).await?;
    Ok(answer::ok(&Details::of(&snapshot.lock)))
}

/// `GET /locks/{id}/events?page=N`.
pub(super) async fn events(
    app: &App,
    lock: &str,
    request: &Request<Incoming>,
) -> Result<Answer, ApiError> {
    let asked = request::asked(app, request.headers(), lock).await?;
    let page = match request::parameter(request.uri().query(), "page") {
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
            asked.lock,
            &asked.principal,
            |known| EventPage::first(EventPage::number(page, &known.lock)),
            limit,
        )
        .await?;
    let page = EventPage::number(page, &snapshot.lock);
    Ok(answer::ok(&EventPage::new(&snapshot.lock, page, &events)))
}

/// `GET /locks/{id}/writes?state=open`: those that are not final, oldest first.
pub(super) async fn writes(
    app: &App,
    lock: &str,
    request: &Request<Incoming>,
) -> Result<Answer, ApiError> {
    let asked = request::asked(app, request.headers(), lock).await?;
    if request::parameter(request.uri().query(), "state") != Some("open") {
        let text = "The open writes of a lock are asked for with ?state=open";
        return Err(ApiError::BadRequest(text.into()));
    }
    let snapshot = app.writes.read_lock(asked.lock, &asked.principal).await?;
    let writes = snapshot.unfinished.iter().map(|w| status(app, w)).collect();
    Ok(answer::ok(&Writes { writes }))
}

/// `GET /locks/{id}/writes/{writeId}`.
pub(super) async fn write(
    app: &App,
    lock: &str,
    write: &str,
    request: &Request<Incoming>,
) -> Result<Answer, ApiError> {
    let asked = request::asked(app, request.headers(), lock).await?;
    let write = request::write_id(write)?;
    let write = app
        .writes
        .read_write(asked.lock, write, &asked.principal)
        .await?;
    Ok(answer::ok(&status(app, &write)))
}

fn status(app: &App, write: &keywright_domain::model::Write) -> WriteStatus {
    let confirm_within = app.writes.settings().limits.confirm_within;
    let unconfirmed = write.is_unconfirmed(app.clock.now(), confirm_within);
    WriteStatus::of(write, unconfirmed)
}
