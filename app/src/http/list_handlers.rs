//! The handlers of `GET /locks`, `GET /writes` and `GET /locks/{id}/writes`: lists in pages.

use std::borrow::Cow;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, LINK};
use keywright_domain::model::{
    FailureReason, InvalidValue, KeyUuid, LockId, OrganizationId, Principal, Timestamp, Write,
    WriteId, WriteState,
};
use keywright_domain::{ListPage, LockFilter, WriteFilter};

use super::api_error::ApiError;
use super::authorization::{self, AuthorizedRequest, authenticate, authorize};
use super::request_parameters::{self, choice, page_limit, parameter};
use super::response::{self, HttpResponse};
use super::response_body::{LockPage, WritePage, WriteStatus};
use crate::app::App;

/// The state of a write that is prepared, SENT or IN_PROGRESS.
const OPEN: &str = "open";

/// The parameters that select writes in every list of writes.
const WRITE_FILTERS: [&str; 6] = [
    "state",
    "reason",
    "since",
    "unconfirmed",
    "key",
    "requestedBy",
];

/// `GET /locks`.
pub(super) async fn locks(
    app: &App,
    request: &Request<Incoming>,
) -> Result<HttpResponse, ApiError> {
    let (principal, _permit) = authenticate(app, request.headers()).await?;
    let query = request.uri().query();
    let limit = page_limit(query)?;
    let after = parameter(query, "after").map(|text| {
        let id: Option<LockId> = text.parse().ok();
        id.ok_or_else(unknown_cursor)
    });
    let after = after.transpose()?;
    let mut filter = LockFilter::default();
    filter.organization = value(query, "organization", OrganizationId::new)?;
    filter.key = value(query, "key", KeyUuid::new)?;
    let _quota = authorization::quota(app, &principal)?;
    let page = app.writes.list_locks(&principal, &filter, after, limit);
    let page = page.await?;
    let next = page.next.map(|id| id.to_string());
    let body = response::ok(&LockPage::new(&page.items, next.clone()));
    Ok(with_next(body, request, next))
}

/// `GET /writes`.
pub(super) async fn writes(
    app: &App,
    request: &Request<Incoming>,
) -> Result<HttpResponse, ApiError> {
    let (principal, _permit) = authenticate(app, request.headers()).await?;
    let filter = filter_of_all_writes(request.uri().query())?;
    let _quota = authorization::quota(app, &principal)?;
    if let Some(lock) = filter.lock {
        app.writes.read_lock(lock, &principal).await?;
    }
    write_page(app, request, &principal, &filter).await
}

/// Reads the filters of `GET /writes`.
///
/// # Errors
/// 400 with a message that says what to change.
pub(super) fn filter_of_all_writes(query: Option<&str>) -> Result<WriteFilter, ApiError> {
    let mut filter = write_filter(query, &WriteState::NAMES)?;
    if let Some(lock) = parameter(query, "lock") {
        let lock = lock.parse();
        let invalid = |_| ApiError::BadRequest("lock must be the numeric id of a lock".into());
        filter.lock = Some(lock.map_err(invalid)?);
    }
    filter.organization = value(query, "organization", OrganizationId::new)?;
    Ok(filter)
}

/// `GET /locks/{id}/writes`.
pub(super) async fn writes_of_lock(
    app: &App,
    lock: &str,
    request: &Request<Incoming>,
) -> Result<HttpResponse, ApiError> {
    let AuthorizedRequest {
        principal,
        lock,
        permit: _permit,
        quota: _quota,
    } = authorize(app, request.headers(), lock).await?;
    let query = request.uri().query();
    let mut filter = write_filter(query, &states_of_lock())?;
    if filter.state.as_deref() == Some(OPEN) {
        let others = { WRITE_FILTERS.iter() }.filter(|name| **name != "state");
        let mut others = others.chain(&["after", "limit"]);
        if let Some(name) = others.find(|name| parameter(query, name).is_some()) {
            let text = format!("state=open lists all writes that have not ended; leave {name} out");
            return Err(ApiError::BadRequest(text.into()));
        }
        let snapshot = app.writes.read_lock(lock, &principal).await?;
        let writes = snapshot.unfinished.iter().map(|write| status(app, write));
        return Ok(response::ok(&WritePage::new(writes.collect(), None)));
    }
    filter.lock = Some(lock);
    app.writes.read_lock(lock, &principal).await?;
    write_page(app, request, &principal, &filter).await
}

/// The status of a write as it is now.
pub(super) fn status(app: &App, write: &Write) -> WriteStatus {
    let confirm_within = app.writes.settings().limits.confirm_within;
    WriteStatus::of(write, app.clock.now(), confirm_within)
}

async fn write_page(
    app: &App,
    request: &Request<Incoming>,
    principal: &Principal,
    filter: &WriteFilter,
) -> Result<HttpResponse, ApiError> {
    let query = request.uri().query();
    let before = parameter(query, "after").map(|text| {
        let id: Option<WriteId> = text.parse().ok();
        id.ok_or_else(unknown_cursor)
    });
    let (before, limit) = (before.transpose()?, page_limit(query)?);
    let page = app.writes.list_writes(principal, filter, before, limit);
    let ListPage { items, next, .. } = page.await?;
    let writes = items.iter().map(|write| status(app, write)).collect();
    let next = next.map(|id| id.to_string());
    let body = response::ok(&WritePage::new(writes, next.clone()));
    Ok(with_next(body, request, next))
}

/// The values of `state` for the writes of one lock.
pub(super) fn states_of_lock() -> Vec<&'static str> {
    std::iter::once(OPEN).chain(WriteState::NAMES).collect()
}

/// Reads [`WRITE_FILTERS`].
fn write_filter(query: Option<&str>, states: &[&'static str]) -> Result<WriteFilter, ApiError> {
    let mut filter = WriteFilter::default();
    filter.state = choice(query, "state", states)?;
    let reasons: Vec<&str> = FailureReason::names().collect();
    filter.reason = choice(query, "reason", &reasons)?;
    if let Some(since) = parameter(query, "since") {
        let since: Option<Timestamp> = since.parse().ok();
        let text = "since must be a time in UTC since 1970, like 2026-05-29T12:00:00Z";
        filter.since = Some(since.ok_or(ApiError::BadRequest(text.into()))?);
    }
    let unconfirmed = choice(query, "unconfirmed", &["true", "false"])?;
    filter.unconfirmed = unconfirmed.map(|text| text == "true");
    filter.key = value(query, "key", KeyUuid::new)?;
    filter.requested_by = parameter(query, "requestedBy").map(Cow::into_owned);
    Ok(filter)
}

/// # Errors
/// 400 with the rule that the value breaks.
fn value<T>(
    query: Option<&str>,
    name: &str,
    parse: fn(&str) -> Result<T, InvalidValue>,
) -> Result<Option<T>, ApiError> {
    let value = parameter(query, name).map(|text| parse(&text));
    let invalid = |invalid| ApiError::BadRequest(format!("{name}: {invalid}").into());
    value.transpose().map_err(invalid)
}

fn unknown_cursor() -> ApiError {
    ApiError::BadRequest("after must be a cursor that this service has returned".into())
}

/// Adds the path of the next page, if there is one.
fn with_next(
    mut response: HttpResponse,
    request: &Request<Incoming>,
    next: Option<String>,
) -> HttpResponse {
    let Some(next) = next else { return response };
    let query = request_parameters::replaced(request.uri().query(), "after", &next);
    let link = format!("<{}?{query}>; rel=\"next\"", request.uri().path());
    if let Ok(link) = HeaderValue::from_str(&link) {
        response.headers_mut().insert(LINK, link);
    }
    response
}
