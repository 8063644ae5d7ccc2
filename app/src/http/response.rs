//! HTTP responses, most of them with a JSON body.

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use keywright_domain::model::{LockId, WriteId};
use serde::Serialize;

use super::event_stream_body::EventStreamBody;

/// A body that is known, or a stream of events.
pub(super) type ResponseBody = Either<Full<Bytes>, EventStreamBody>;

pub(crate) type HttpResponse = Response<ResponseBody>;

pub(super) fn new<const N: usize>(
    status: StatusCode,
    body: impl Into<Bytes>,
    headers: [(HeaderName, &'static str); N],
) -> HttpResponse {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    // `extend` would make room for these headers only, and the map would grow with each later one.
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

pub(super) fn json(status: StatusCode, body: Vec<u8>) -> HttpResponse {
    new(status, body, [(CONTENT_TYPE, "application/json")])
}

/// Serializes the body of a response. This cannot fail: the types of these bodies have only text as keys.
pub(super) fn to_json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

pub(super) fn ok(body: &impl Serialize) -> HttpResponse {
    json(StatusCode::OK, to_json(body))
}

/// The 204 to `OPTIONS` of a path with these methods.
pub(super) fn options(methods: &'static str) -> HttpResponse {
    new(StatusCode::NO_CONTENT, Bytes::new(), [(ALLOW, methods)])
}

/// The path of a write's status, for the header `Location`.
pub(super) fn write_location(lock: LockId, write: WriteId) -> HeaderValue {
    HeaderValue::from_str(&format!("/locks/{lock}/writes/{write}"))
        .unwrap_or(HeaderValue::from_static("/"))
}
