//! The answers of the HTTP parser, in our shape.
//!
//! What the parser of hyper refuses never comes to a handler: it answers by itself, with an empty body, and
//! closes the connection. Such an answer is known by what it has not, the request id that each of ours has,
//! and is replaced on its way out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::StatusCode;
use keywright_domain::ports::IdGenerator;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::info;

use super::api_error::ApiError;
use super::{OTHER_ROUTE, new_request_id};
use crate::connection::ConnectionState;
use crate::metrics::Metrics;

/// What is needed to refuse a request that cannot be read.
pub(crate) struct Refusals {
    pub(crate) ids: Arc<dyn IdGenerator>,
    /// How many bytes a request's line and headers may have.
    pub(crate) max_head: usize,
    /// Where refusals are counted. None are while the service starts.
    pub(crate) metrics: Option<Arc<Metrics>>,
}

/// A connection on which the parser's answers have our shape.
pub(crate) struct ParserAnswers<S> {
    stream: S,
    refusals: Arc<Refusals>,
    connection: Arc<ConnectionState>,
    /// What goes out instead of what the parser gave, and how much of it is gone.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S> ParserAnswers<S> {
    pub(crate) const fn new(
        stream: S,
        refusals: Arc<Refusals>,
        connection: Arc<ConnectionState>,
    ) -> Self {
        Self {
            stream,
            refusals,
            connection,
            instead: None,
        }
    }
}

/// What is to be said in place of these bytes, if they are an answer of the parser.
fn replacement(bytes: &[u8], refusals: &Refusals) -> Option<Vec<u8>> {
    let head = str::from_utf8(bytes.strip_suffix(b"\r\n\r\n")?).ok()?;
    let mut lines = head.split("\r\n");
    let (status, headers): (&str, Vec<&str>) = (lines.next()?, lines.collect());
    let empty = headers.contains(&"content-length: 0");
    let ours = headers
        .iter()
        .any(|header| header.starts_with("x-request-id:"));
    if !status.starts_with("HTTP/1.") || !empty || ours {
        return None;
    }
    let api_error = match status.split(' ').nth(1)? {
        "400" => ApiError::Unframed("This is not a valid HTTP/1.1 request".into()),
        "414" | "431" => ApiError::HeadTooLarge(refusals.max_head),
        _ => return None,
    };
    let id = new_request_id(&*refusals.ids);
    let (status, body) = api_error.status_and_body();
    if let Some(metrics) = &refusals.metrics {
        metrics.answered(OTHER_ROUTE, status.as_u16());
    }
    info!(id, status = status.as_u16(), "a request could not be read");
    let date = headers.iter().find(|header| header.starts_with("date:"));
    let mut answer = status_line(status);
    if let Some(header) = date {
        answer.push_str(header);
        answer.push_str("\r\n");
    }
    answer.push_str(&format!(
        "content-type: application/json\r\nx-request-id: {id}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    ));
    Some([answer.into_bytes(), body].concat())
}

fn status_line(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or_default();
    format!("HTTP/1.1 {} {reason}\r\n", status.as_str())
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ParserAnswers<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none() {
            match replacement(bytes, &this.refusals) {
                Some(answer) => {
                    this.connection.leave_body_unread();
                    this.instead = Some((answer, 0));
                }
                None => return Pin::new(&mut this.stream).poll_write(cx, bytes),
            }
        }
        while let Some((answer, gone)) = &mut this.instead {
            if *gone == answer.len() {
                this.instead = None;
                break;
            }
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &answer[*gone..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *gone += written;
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

impl<S: AsyncRead + Unpin> AsyncRead for ParserAnswers<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}
