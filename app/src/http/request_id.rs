//! The id of a request. It is in each log line of the request and in the header `X-Request-Id` of the response.

use hyper::Request;
use hyper::header::{HeaderName, HeaderValue};
use keywright_domain::model::RequestId;
use keywright_domain::ports::IdGenerator;

use super::response::HttpResponse;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id that the client sent, if it is a valid one; otherwise a new one.
pub(super) fn of_request<B>(ids: &dyn IdGenerator, request: &Request<B>) -> RequestId {
    let sent = request.headers().get(REQUEST_ID);
    let sent = sent.and_then(|id| RequestId::new(id.to_str().ok()?).ok());
    sent.unwrap_or_else(|| generate(ids))
}

pub(super) fn generate(ids: &dyn IdGenerator) -> RequestId {
    let id = format!("{:016x}", ids.next_id() & u128::from(u64::MAX));
    RequestId::new(&id).expect("16 hexadecimal digits are a valid id")
}

pub(super) fn set(response: &mut HttpResponse, id: &RequestId) {
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
}
