//! The id of a request. It is in each log line of the request and in the header `X-Request-Id` of the response.

use hyper::Request;
use hyper::header::{HeaderName, HeaderValue};
use keywright_domain::ports::IdGenerator;

use super::response::HttpResponse;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id that the client sent, if it has 1 to 64 letters, digits, `-`, `_` and `.`; otherwise a new one.
pub(super) fn of_request<B>(ids: &dyn IdGenerator, request: &Request<B>) -> String {
    let is_safe = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let sent = request.headers().get(REQUEST_ID);
    match sent.and_then(|id| id.to_str().ok()).filter(is_safe) {
        Some(id) => id.to_owned(),
        None => generate(ids),
    }
}

pub(super) fn generate(ids: &dyn IdGenerator) -> String {
    format!("{:016x}", ids.next_id() & u128::from(u64::MAX))
}

pub(super) fn set(response: &mut HttpResponse, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
}
