//! The handler of `GET /events`: the feed as pages of JSON, or as a stream of server-sent events.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK,
};
use keywright_domain::FeedFilter;
use keywright_domain::model::{LockEvent, Position};

use super::api_error::ApiError;
use super::authorization::{self, authenticate};
use super::cursor;
use super::event_stream::{self, Reader};
use super::event_stream_body::EventStreamBody;
use super::request_parameters::{choice, page_limit, parameter};
use super::response::{self, HttpResponse, ResponseBody};
use super::response_body::FeedPage;
use crate::app::App;
use crate::connection::ConnectionState;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Proxies pass the events of a stream on one by one (nginx).
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `GET /events`.
pub(super) async fn read(
    app: &Arc<App>,
    connection: &Arc<ConnectionState>,
    request: &Request<Incoming>,
) -> Result<HttpResponse, ApiError> {
    let headers = request.headers();
    let (principal, _permit) = authenticate(app, headers).await?;
    let query = request.uri().query();
    let (filter, limit) = (filter(query)?, page_limit(query)?);
    let after = after(query, headers)?;
    let _quota = authorization::quota(app, &principal)?;
    if let Some(lock) = filter.lock {
        app.writes.read_lock(lock, &principal).await?;
    }
    let after = match after {
        After::Cursor(position) if app.writes.has_position(position).await? => position,
        After::Cursor(_) => return Err(unknown_cursor()),
        After::End => app.writes.feed_end().await?,
    };
    if accepts_stream(headers) {
        let Some(permit) = app.admission.stream_permit(&principal) else {
            app.metrics.shed("streams");
            return Err(ApiError::TooManyStreams);
        };
        let reader = Reader {
            credentials: authorization::credentials(headers)?,
            principal,
            filter,
            after,
            _permit: permit,
        };
        return Ok(stream(event_stream::start(app, connection, reader)));
    }
    let feed = app.writes.read_feed(&principal, &filter, after, limit);
    let feed = feed.await?;
    let mut response = response::ok(&FeedPage::of(&feed));
    let next = next_link(&filter, limit, feed.next);
    if let Ok(next) = HeaderValue::from_str(&next) {
        response.headers_mut().insert(LINK, next);
    }
    Ok(response)
}

/// The answer with a stream of server-sent events.
pub(super) fn stream(body: EventStreamBody) -> HttpResponse {
    let mut response = HttpResponse::new(ResponseBody::Right(body));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (ACCEL_BUFFERING, "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether the client accepts a stream, and prefers no page to it.
fn accepts_stream(headers: &HeaderMap) -> bool {
    let quality = |name: &str| {
        let accepted = headers.get_all(ACCEPT).iter();
        let accepted = accepted.filter_map(|value| value.to_str().ok());
        let ranges = accepted.flat_map(|value| value.split(','));
        let mut qualities = ranges.filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_named = parts.next()?.eq_ignore_ascii_case(name);
            let quality = parts
                .find_map(|part| part.strip_prefix("q="))
                .unwrap_or("1");
            is_named.then(|| quality.parse::<f32>().unwrap_or(0.0))
        });
        qualities.next().unwrap_or(0.0)
    };
    let stream = quality("text/event-stream");
    stream > 0.0 && stream >= quality("application/json")
}

enum After {
    Cursor(Position),
    /// The end of the feed: only events that are recorded from now on.
    End,
}

/// Where to begin. A client that reconnects to a stream sends the last event that it has seen in `Last-Event-ID`.
fn after(query: Option<&str>, headers: &HeaderMap) -> Result<After, ApiError> {
    let last = headers.get(LAST_EVENT_ID);
    let last = last.map(|value| Cow::from(value.to_str().unwrap_or_default()));
    let Some(text) = last.or_else(|| parameter(query, "after")) else {
        return Ok(After::Cursor(Position::START));
    };
    if text == "end" {
        return Ok(After::End);
    }
    let position = cursor::parse(&text).ok_or_else(unknown_cursor)?;
    Ok(After::Cursor(position))
}

fn unknown_cursor() -> ApiError {
    let text = "after must be a cursor that this service has returned, or end";
    ApiError::BadRequest(text.into())
}

fn filter(query: Option<&str>) -> Result<FeedFilter, ApiError> {
    let mut filter = FeedFilter::default();
    if let Some(lock) = parameter(query, "lock") {
        let lock = lock.parse();
        let invalid = |_| ApiError::BadRequest("lock must be the numeric id of a lock".into());
        filter.lock = Some(lock.map_err(invalid)?);
    }
    filter.event_type = choice(query, "type", &LockEvent::NAMES)?;
    Ok(filter)
}

fn next_link(filter: &FeedFilter, limit: usize, next: Position) -> String {
    let mut link = format!("</events?after={}&limit={limit}", cursor::text(next));
    // Writing to a string cannot fail.
    if let Some(lock) = filter.lock {
        let _ = write!(link, "&lock={lock}");
    }
    if let Some(name) = &filter.event_type {
        let _ = write!(link, "&type={name}");
    }
    link + r#">; rel="next""#
}
