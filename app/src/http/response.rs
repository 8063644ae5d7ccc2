//! HTTP responses: with a JSON body, or without a body.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use keywright_domain::model::{LockId, WriteId};
use serde::Serialize;

pub(crate) type HttpResponse = Response<Full<Bytes>>;

pub(super) fn json(status: StatusCode, body: Vec<u8>) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
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
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// The path of a write's status, for the header `Location`.
pub(super) fn write_location(lock: LockId, write: WriteId) -> HeaderValue {
    HeaderValue::from_str(&format!("/locks/{lock}/writes/{write}"))
        .unwrap_or(HeaderValue::from_static("/"))
}
