//! Error responses of the HTTP parser, rewritten into the JSON shape of the API.
//!
//! A request that hyper's parser rejects does not reach a handler: hyper responds with an empty body and closes the connection.
//! Such a response has no `X-Request-Id`, which all responses of the API have. It is recognized by that and replaced while it
//! is written.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::StatusCode;
use keywright_domain::ports::IdGenerator;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::info;

use super::api_error::ApiError;
use super::{request_id, route};
use crate::connection::ConnectionState;
use crate::metrics::Metrics;

/// What an error response needs.
pub(crate) struct ParserErrorContext {
    pub(crate) ids: Arc<dyn IdGenerator>,
    /// Maximum size of a request line and its headers, in bytes.
    pub(crate) max_head: usize,
    /// Counts the responses. `None` while the service starts.
    pub(crate) metrics: Option<Arc<Metrics>>,
}

/// A stream that rewrites the error responses of the parser.
pub(crate) struct ParserErrorStream<S> {
    stream: S,
    context: Arc<ParserErrorContext>,
    connection: Arc<ConnectionState>,
    /// The response that is being written in place of the parser's.
    replacement: Option<Bytes>,
}

impl<S> ParserErrorStream<S> {
    pub(crate) const fn new(
        stream: S,
        context: Arc<ParserErrorContext>,
        connection: Arc<ConnectionState>,
    ) -> Self {
        Self {
            stream,
            context,
            connection,
            replacement: None,
        }
    }
}

/// The response in place of these bytes, if they are an error response of the parser.
fn replacement(bytes: &[u8], context: &ParserErrorContext) -> Option<Bytes> {
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
        "414" | "431" => ApiError::HeadTooLarge(context.max_head),
        _ => return None,
    };
    let id = request_id::generate(&*context.ids);
    let (status, body) = api_error.status_and_body();
    if let Some(metrics) = &context.metrics {
        metrics.answered(route::OTHER, status.as_u16());
    }
    info!(id, status = status.as_u16(), "a request could not be read");
    let date = headers.iter().find(|header| header.starts_with("date:"));
    let mut response = status_line(status);
    if let Some(header) = date {
        response.push_str(header);
        response.push_str("\r\n");
    }
    response.push_str(&format!(
        "content-type: application/json\r\nx-request-id: {id}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    ));
    Some([response.into_bytes(), body].concat().into())
}

fn status_line(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or_default();
    format!("HTTP/1.1 {} {reason}\r\n", status.as_str())
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ParserErrorStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut left = match this.replacement.take() {
            Some(left) => left,
            None => match replacement(bytes, &this.context) {
                Some(response) => {
                    this.connection.leave_body_unread();
                    response
                }
                None => return Pin::new(&mut this.stream).poll_write(cx, bytes),
            },
        };
        while !left.is_empty() {
            match Pin::new(&mut this.stream).poll_write(cx, &left) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => left.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.replacement = Some(left);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ParserErrorStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}
