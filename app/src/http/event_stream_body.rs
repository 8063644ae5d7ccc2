//! The body of a response that does not end by itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use crate::connection::ConnectionState;

/// The body of a response that is a stream of events.
pub(crate) struct EventStreamBody {
    frames: mpsc::Receiver<Bytes>,
    /// The connection is busy as long as the stream.
    connection: Arc<ConnectionState>,
}

impl EventStreamBody {
    /// The body ends when all senders of `frames` are dropped.
    pub(super) const fn new(
        frames: mpsc::Receiver<Bytes>,
        connection: Arc<ConnectionState>,
    ) -> Self {
        Self { frames, connection }
    }
}

impl Body for EventStreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = self.frames.poll_recv(cx);
        frame.map(|frame| frame.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for EventStreamBody {
    fn drop(&mut self) {
        self.connection.end_request();
    }
}
