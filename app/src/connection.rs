//! One client connection below the HTTP parser: its timeouts, framing that the parser does not report, and its close.
//!
//! hyper has one timer for a request head, which also runs while a connection is idle. Here an idle connection is kept for
//! [`HttpLimits::keep_alive`], while the first byte and each head have [`HttpLimits::head_timeout`]. To tell the two apart, the parser
//! gets the bytes of one part of a request at a time, and bytes beyond it are held back. So a connection on which half of the
//! next head has arrived does not count as idle.

mod http2;
mod request_parts;
mod state;

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use socket2::SockRef;
pub(crate) use state::ConnectionState;
use state::Phase;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_io_timeout::TimeoutStream;
use tracing::info;

use crate::settings::HttpLimits;

/// How many bytes of an unread request body are discarded before the connection is closed, and for how long. Closing a socket
/// with unread bytes resets it, and the client may lose the response.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Returns the response that the client gets in place of these bytes of the parser. `None`: it gets the bytes.
pub(crate) type Rewrite = Arc<dyn Fn(&[u8]) -> Option<Bytes> + Send + Sync>;

/// The byte stream of a client, with the timeouts of [`HttpLimits`].
pub(crate) struct ClientStream {
    /// Has a timeout for clients that do not read their responses.
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    state: Arc<ConnectionState>,
    head_timeout: Duration,
    keep_alive: Duration,
    head_began: Instant,
    has_served: bool,
    rewrite: Rewrite,
    /// The rest of a response that is being written in place of the parser's.
    replacement: Option<Bytes>,
    /// The last write was pending.
    is_write_blocked: bool,
    /// Reads return the end of the stream from now on.
    has_ended: bool,
    /// The bytes so far may be the beginning of HTTP/2.
    may_be_http2: bool,
    /// Bytes that have arrived and are not for the parser yet.
    held: BytesMut,
    /// Created when it is first needed. It may fire before the current deadline and is then set again.
    timer: Option<Pin<Box<Sleep>>>,
    /// The number of bytes that may still be discarded. `None`: the writing side is not shut down.
    lingering: Option<usize>,
}

impl ClientStream {
    pub(crate) fn new(
        stream: TcpStream,
        state: Arc<ConnectionState>,
        http_limits: &HttpLimits,
        rewrite: Rewrite,
    ) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(http_limits.send_timeout));
        Self {
            head_began: Instant::now(),
            stream: Box::pin(stream),
            state,
            head_timeout: http_limits.head_timeout,
            keep_alive: http_limits.keep_alive,
            has_served: false,
            rewrite,
            replacement: None,
            is_write_blocked: false,
            has_ended: false,
            may_be_http2: true,
            held: BytesMut::new(),
            timer: None,
            lingering: None,
        }
    }

    /// When the connection is closed if no byte arrives before.
    fn read_deadline(&mut self) -> Option<Instant> {
        if self.state.phase() == Phase::Answered && !self.is_write_blocked {
            self.has_served = true;
            self.state.become_idle();
        }
        match self.state.phase() {
            Phase::Idle(since) => Some(since + self.idle_timeout()),
            Phase::Head => Some(self.head_began + self.head_timeout),
            // Bodies and responses have timeouts of their own.
            Phase::Request | Phase::Answered | Phase::Closing | Phase::Closed => None,
        }
    }

    const fn idle_timeout(&self) -> Duration {
        match self.has_served {
            true => self.keep_alive,
            false => self.head_timeout,
        }
    }

    /// Whether `deadline` has passed. If not, the task is woken then.
    fn has_passed(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return true;
            }
            timer.as_mut().reset(deadline);
        }
        false
    }

    /// Updates the phase when bytes have arrived. `false`: the connection serves no further request.
    fn record_arrival(&mut self) -> bool {
        match self.state.phase() {
            // Other tasks change the phase only from `Idle` to `Closing`.
            Phase::Idle(_) | Phase::Closing => self.state.set_phase(Phase::Head),
            // The parser discards the rest of a body that no handler has read.
            Phase::Answered if self.state.parts().is_in_body() => return true,
            Phase::Answered => {
                self.has_served = true;
                self.state.set_phase(Phase::Head);
            }
            Phase::Closed => return false,
            Phase::Head | Phase::Request => return true,
        }
        self.head_began = Instant::now();
        self.state.parts().begin_head();
        true
    }

    /// Detects that the client has closed its sending side or is gone, while a handler works on its request and the parser does
    /// not read.
    ///
    /// # Errors
    /// The client has reset the connection and cannot read the response.
    fn check_client(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let socket = self.stream.get_ref();
        // Ready means bytes of a later request, the end of the stream, or a reset.
        if socket.poll_read_ready(cx).is_pending() {
            return Ok(());
        }
        let state = pin!(socket.ready(Interest::READABLE | Interest::WRITABLE | Interest::ERROR));
        let Poll::Ready(state) = state.poll(&mut Context::from_waker(Waker::noop())) else {
            return Ok(());
        };
        let state = state?;
        if state.is_write_closed() || state.is_error() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if state.is_read_closed() {
            self.state.record_half_close();
        }
        Ok(())
    }

    /// Closes a connection in the phase `Closing`, unless bytes have arrived on it.
    fn close_if_idle(&mut self, cx: &Context<'_>) {
        if self.state.idle_since().is_some() {
            self.state.set_waker(cx.waker());
        }
        if self.state.phase() != Phase::Closing {
            return;
        }
        // The runtime may not have noticed bytes that have arrived, so this asks the socket itself.
        let socket = SockRef::from(self.stream.get_ref());
        if socket
            .peek(&mut [MaybeUninit::uninit()])
            .is_ok_and(|n| n > 0)
        {
            self.state.become_idle();
        } else {
            self.state.set_phase(Phase::Closed);
            self.has_ended = true;
        }
    }

    fn refuse_http2(&mut self, cx: &mut Context<'_>) {
        info!(
            "a client sent HTTP/2 without negotiation; the connection is closed with HTTP_1_1_REQUIRED"
        );
        // The send buffer of a new socket has room for the frames. A client that misses them still sees the close.
        let _ = Pin::new(&mut self.stream).poll_write(cx, http2::REFUSAL);
        self.state.leave_body_unread();
        self.has_ended = true;
    }

    /// Gives the parser the held bytes that belong to the current part.
    fn pass_held(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let max = self.held.len().min(buffer.remaining());
        let held = self.held.split();
        let taken = self.pass(&held[..max]);
        let passed = *taken.as_ref().unwrap_or(&0);
        buffer.put_slice(&held[..passed]);
        self.held = held;
        self.held.advance(passed);
        if self.held.is_empty() {
            // An idle connection keeps no buffer.
            self.held = BytesMut::new();
        }
        taken.map(|_| ())
    }

    /// How many of these bytes the parser gets now.
    ///
    /// # Errors
    /// The bytes break a rule that the parser does not enforce.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.record_arrival() {
            self.has_ended = true;
            return Ok(0);
        }
        let taken = self.state.parts().take(bytes);
        taken.map_err(|invalid| io::Error::new(io::ErrorKind::InvalidData, invalid.0))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        loop {
            if this.has_ended {
                return Poll::Ready(Ok(()));
            }
            if !this.held.is_empty() && !this.may_be_http2 {
                return Poll::Ready(this.pass_held(buffer));
            }
            match Pin::new(&mut this.stream).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    let deadline = this.read_deadline();
                    if deadline.is_some_and(|deadline| this.has_passed(cx, deadline)) {
                        match this.state.phase() {
                            Phase::Head => this.has_ended = true,
                            _ => this.state.set_phase(Phase::Closing),
                        }
                    }
                    this.close_if_idle(cx);
                    if this.has_ended {
                        return Poll::Ready(Ok(()));
                    }
                    return Poll::Pending;
                }
            }
            let bytes = &buffer.filled()[before..];
            if bytes.is_empty() {
                // The client sends nothing more, so the held bytes are not the HTTP/2 preface.
                this.may_be_http2 = false;
                if this.held.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if this.may_be_http2 {
                match http2::is_http2(this.held.iter().chain(bytes)) {
                    Some(true) => this.refuse_http2(cx),
                    Some(false) if this.held.is_empty() => this.may_be_http2 = false,
                    verdict => {
                        this.may_be_http2 = verdict.is_none();
                        this.record_arrival();
                        this.held.extend_from_slice(bytes);
                    }
                }
                if this.has_ended || !this.held.is_empty() {
                    buffer.set_filled(before);
                    continue;
                }
            }
            let bytes = &buffer.filled()[before..];
            let taken = this.pass(bytes);
            let passed = *taken.as_ref().unwrap_or(&0);
            this.held.extend_from_slice(&bytes[passed..]);
            buffer.set_filled(before + passed);
            return Poll::Ready(taken.map(|_| ()));
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.replacement.is_none()
            && let Some(response) = (this.rewrite)(bytes)
        {
            this.state.leave_body_unread();
            this.replacement = Some(response);
        }
        let Some(left) = &mut this.replacement else {
            let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
            this.is_write_blocked = written.is_pending();
            return written;
        };
        while !left.is_empty() {
            let written = Pin::new(&mut this.stream).poll_write(cx, left);
            this.is_write_blocked = written.is_pending();
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => left.advance(written),
            }
        }
        this.replacement = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The parser flushes whenever its task runs.
        if self.state.phase() == Phase::Request {
            self.check_client(cx)?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Shuts the writing side down. If a request was not read to its end, it then discards some of the rest, so that the client
    /// can read the response.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.state.has_unread_body() {
                return Poll::Ready(Ok(()));
            }
            this.timer = Some(Box::pin(tokio::time::sleep(LINGER_TIME)));
            this.lingering = Some(LINGER_BYTES);
        }
        let mut discarded = [0; 4096];
        while let Some(left) = this.lingering.filter(|left| *left > 0) {
            let mut buffer = ReadBuf::new(&mut discarded);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    this.lingering = Some(left.saturating_sub(buffer.filled().len()));
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    if let Some(timer) = &mut this.timer {
                        ready!(timer.as_mut().poll(cx));
                    }
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// An idle connection and its client.
    async fn idle_connection(
        http_limits: &HttpLimits,
    ) -> (ClientStream, Arc<ConnectionState>, std::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("its address");
        let client = std::net::TcpStream::connect(address).expect("a connection");
        let (socket, _) = listener.accept().await.expect("accepted");
        let state = Arc::new(ConnectionState::new());
        let mut stream = ClientStream::new(socket, state.clone(), http_limits, Arc::new(|_| None));
        let mut byte = [0; 1];
        let read = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut byte);
            Poll::Ready(Pin::new(&mut stream).poll_read(cx, &mut buffer).is_ready())
        });
        assert!(!read.await, "nothing has arrived");
        (stream, state, client)
    }

    #[tokio::test]
    async fn an_evicted_connection_serves_a_request_that_the_runtime_has_not_noticed() {
        let (mut stream, state, mut client) = idle_connection(&HttpLimits::default()).await;
        // The runtime has only this thread and has not noticed these bytes yet.
        io::Write::write_all(&mut client, b"GET").expect("sent");
        state.evict();
        let mut request = [0; 3];
        let read = stream.read_exact(&mut request).await;
        read.expect("the request is read");
        assert_eq!(&request, b"GET");
        assert_eq!(state.phase(), Phase::Head);
    }

    #[tokio::test]
    async fn a_request_that_arrives_just_before_the_idle_timeout_is_served() {
        let http_limits = HttpLimits {
            head_timeout: Duration::from_millis(10),
            ..HttpLimits::default()
        };
        let (mut stream, state, mut client) = idle_connection(&http_limits).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        // The timeout has passed, and the runtime has not noticed these bytes before the stream is polled.
        io::Write::write_all(&mut client, b"GET").expect("sent");
        let mut request = [0; 3];
        let read = stream.read_exact(&mut request).await;
        read.expect("the request is read");
        assert_eq!(state.phase(), Phase::Head);
    }

    #[tokio::test]
    async fn an_evicted_connection_without_a_request_is_closed() {
        let (mut stream, state, _client) = idle_connection(&HttpLimits::default()).await;
        let reading = tokio::spawn(async move { stream.read_u8().await.map_err(|e| e.kind()) });
        tokio::task::yield_now().await;
        // The task now waits for bytes. The eviction wakes it.
        state.evict();
        let read = reading.await.expect("no panic");
        assert_eq!(read, Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(state.phase(), Phase::Closed);
    }
}
