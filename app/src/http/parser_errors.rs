//! Error responses of the HTTP parser, rewritten into the JSON shape of the API.
//!
//! A request that hyper's parser rejects does not reach a handler: hyper responds with an empty body and closes the connection.
//! Such a response has no `X-Request-Id`, which all responses of the API have. It is recognized by that and replaced while it
//! is written.

use std::sync::Arc;

use bytes::Bytes;
use keywright_domain::ports::IdGenerator;
use tracing::info;

use super::api_error::ApiError;
use super::{request_id, route};
use crate::connection::Rewrite;
use crate::metrics::Metrics;

/// Rewrites the error responses of the parser. `metrics` counts them; it is `None` while the service starts.
pub(crate) fn rewrite_parser_errors(
    ids: Arc<dyn IdGenerator>,
    max_head: usize,
    metrics: Option<Arc<Metrics>>,
) -> Rewrite {
    Arc::new(move |bytes| replacement(bytes, &*ids, max_head, metrics.as_deref()))
}

/// The response in place of these bytes, if they are an error response of the parser.
fn replacement(
    bytes: &[u8],
    ids: &dyn IdGenerator,
    max_head: usize,
    metrics: Option<&Metrics>,
) -> Option<Bytes> {
    let head = str::from_utf8(bytes.strip_suffix(b"\r\n\r\n")?).ok()?;
    let mut lines = head.split("\r\n");
    let (status, headers): (&str, Vec<&str>) = (lines.next()?, lines.collect());
    let is_empty = headers.contains(&"content-length: 0");
    let has_id = headers
        .iter()
        .any(|header| header.starts_with("x-request-id:"));
    if !status.starts_with("HTTP/1.") || !is_empty || has_id {
        return None;
    }
    let api_error = match status.split(' ').nth(1)? {
        "400" => ApiError::Malformed("This is not a valid HTTP/1.1 request".into()),
        "414" | "431" => ApiError::HeadTooLarge(max_head),
        _ => return None,
    };
    let id = request_id::generate(ids);
    let (status, body) = api_error.status_and_body();
    if let Some(metrics) = metrics {
        metrics.answered(route::OTHER, status.as_u16());
    }
    info!(%id, status = status.as_u16(), "a request could not be read");
    let date = headers.iter().find(|header| header.starts_with("date:"));
    let date = date.map(|header| format!("{header}\r\n"));
    let head = format!(
        "HTTP/1.1 {status}\r\n{}content-type: application/json\r\nx-request-id: {id}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        date.unwrap_or_default(),
        body.len()
    );
    Some([head.into_bytes(), body].concat().into())
}
