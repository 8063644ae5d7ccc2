//! One client connection below the HTTP parser: its deadlines, framing that the parser does not report, and its close.
//!
//! hyper has one timer for a request head, which also runs while a connection is idle. Here they are two: an idle
//! connection is kept for [`Bounds::keep_alive`], the first byte and each head have [`Bounds::header_time`]. For that, the
//! parser gets the bytes of one part of a request at a time, and what has arrived beyond that is held back: so a connection
//! on which half of the next head has arrived is not taken for an idle one.

mod request_parts;

use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use hyper::Request;
use hyper::body::Body;
use hyper::header::CONTENT_LENGTH;
use request_parts::RequestParts;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};
use tokio_io_timeout::TimeoutStream;
use tracing::info;

use crate::settings::Bounds;

/// How much of an unread request body is read and discarded before the connection is closed, and for how long. Closing a
/// socket with unread bytes resets it, and the client may lose the answer.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The start of an HTTP/2 connection whose client did not ask first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What such a client gets: an empty SETTINGS frame, and a GOAWAY frame with the error HTTP_1_1_REQUIRED.
const HTTP2_REFUSAL: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x19\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0dHTTP/1.1 required";

/// Where a connection is in its exchange of requests and answers.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Nothing of the next request has arrived.
    Idle,
    /// A head has begun.
    Head,
    /// A handler has the request.
    Request,
    /// The handler has answered; the answer may still be on its way out.
    Answered,
    /// The idle connection is to be closed, unless a request has arrived on it by now.
    Closing,
    /// The connection is closed. It serves no further request.
    Closed,
}

impl Phase {
    const fn of(number: u8) -> Self {
        match number {
            0 => Self::Idle,
            1 => Self::Head,
            2 => Self::Request,
            3 => Self::Answered,
            4 => Self::Closing,
            _ => Self::Closed,
        }
    }
}

/// What the stream, the request handler and the accept loop know of one connection together.
pub(crate) struct ConnectionState {
    accepted: Instant,
    phase: AtomicU8,
    /// Milliseconds from `accepted` to the moment at which the connection became idle.
    idle_since: AtomicU64,
    parts: Mutex<RequestParts>,
    /// The task of the idle connection.
    waker: Mutex<Option<Waker>>,
    /// Whether the client has ended what it sends, noticed while a handler has its request.
    is_half_closed: AtomicBool,
    half_close: Notify,
    /// Whether an answer was given without reading its request to the end.
    unread_body: AtomicBool,
}

impl ConnectionState {
    pub(crate) fn new() -> Self {
        Self {
            accepted: Instant::now(),
            phase: AtomicU8::new(Phase::Idle as u8),
            idle_since: AtomicU64::new(0),
            parts: Mutex::default(),
            waker: Mutex::default(),
            is_half_closed: AtomicBool::new(false),
            half_close: Notify::new(),
            unread_body: AtomicBool::new(false),
        }
    }

    /// Notes that a handler has the request. Must be called before the parser reads more of the connection.
    ///
    /// Answers whether the head has a `Content-Length` that the parser does not show: it drops that header from a request
    /// which also has `Transfer-Encoding`.
    pub(crate) fn begin_request<B: Body>(&self, request: &Request<B>) -> bool {
        self.set_phase(Phase::Request);
        self.unread_body.store(false, Ordering::Relaxed);
        let length = request.body().size_hint().exact();
        let lengths = self.parts().begin_body(length);
        lengths > 0 && !request.headers().contains_key(CONTENT_LENGTH)
    }

    /// Notes that the handler has answered.
    pub(crate) fn end_request(&self) {
        self.set_phase(Phase::Answered);
    }

    /// Notes that the answer does not wait for the rest of the request.
    pub(crate) fn leave_body_unread(&self) {
        self.unread_body.store(true, Ordering::Relaxed);
    }

    /// Completes when the client has ended what it sends. It may wait for its answer all the same, or be gone: TCP has one
    /// signal for both, until an answer is sent.
    pub(crate) async fn half_closed(&self) {
        let closed = self.half_close.notified();
        if !self.is_half_closed.load(Ordering::Acquire) {
            closed.await;
        }
    }

    fn note_half_close(&self) {
        if !self.is_half_closed.swap(true, Ordering::AcqRel) {
            self.half_close.notify_one();
        }
    }

    /// The moment since which nothing of a request has arrived; `None` while there is one.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let idle = self.phase() == Phase::Idle;
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        idle.then(|| self.accepted + since)
    }

    /// Asks an idle connection to close. Its own task does so, unless bytes of a request have arrived; what this process
    /// knows of the socket may be older. Nothing happens if a request has begun.
    pub(crate) fn evict(&self) {
        if self.change(Phase::Idle, Phase::Closing)
            && let Some(task) = lock(&self.waker).take()
        {
            task.wake();
        }
    }

    fn change(&self, from: Phase, to: Phase) -> bool {
        let (from, to) = (from as u8, to as u8);
        let changed = self
            .phase
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }

    /// Lets [`Self::evict`] wake this task.
    fn set_waker(&self, waker: &Waker) {
        let mut known = lock(&self.waker);
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    fn parts(&self) -> MutexGuard<'_, RequestParts> {
        lock(&self.parts)
    }

    fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Ordering::Acquire))
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    fn become_idle(&self) {
        let since = self.accepted.elapsed().as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.idle_since.store(since, Ordering::Relaxed);
        self.set_phase(Phase::Idle);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client's byte stream with the deadlines of [`Bounds`].
pub(crate) struct ClientStream {
    /// A client that does not read what it asked for is given up.
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    state: Arc<ConnectionState>,
    header_time: Duration,
    keep_alive: Duration,
    head_began: Instant,
    has_served: bool,
    /// The last write found no room.
    is_write_blocked: bool,
    /// The parser is told that the client has closed.
    has_ended: bool,
    /// The connection may still turn out to begin with [`HTTP2_PREFACE`].
    may_be_http2: bool,
    /// What has arrived and is not for the parser yet.
    held: BytesMut,
    /// Made when it is first needed. It may fire early, and is then set again.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes that may still be discarded, once the writing side is shut down.
    lingering: Option<usize>,
}

impl ClientStream {
    pub(crate) fn new(stream: TcpStream, state: Arc<ConnectionState>, bounds: &Bounds) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(bounds.write_time));
        Self {
            head_began: state.accepted,
            stream: Box::pin(stream),
            state,
            header_time: bounds.header_time,
            keep_alive: bounds.keep_alive,
            has_served: false,
            is_write_blocked: false,
            has_ended: false,
            may_be_http2: true,
            held: BytesMut::new(),
            timer: None,
            lingering: None,
        }
    }

    /// When the connection is given up if no byte arrives until then.
    fn read_deadline(&mut self) -> Option<Instant> {
        if self.state.phase() == Phase::Answered && !self.is_write_blocked {
            self.has_served = true;
            self.state.become_idle();
        }
        match self.state.phase() {
            Phase::Idle => {
                let timeout = self.idle_time();
                self.state.idle_since().map(|since| since + timeout)
            }
            Phase::Head => Some(self.head_began + self.header_time),
            // Bodies and answers have deadlines of their own.
            Phase::Request | Phase::Answered | Phase::Closing | Phase::Closed => None,
        }
    }

    const fn idle_time(&self) -> Duration {
        match self.has_served {
            true => self.keep_alive,
            false => self.header_time,
        }
    }

    /// Whether `deadline` has passed; else the task is woken when it has.
    fn is_over(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
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
}

impl ClientStream {
    /// Notes that bytes have arrived; `false`: the connection takes no request any more.
    fn note_arrival(&mut self) -> bool {
        match self.state.phase() {
            // Only this task leaves `Closing`, and `Idle` for another phase than that.
            Phase::Idle | Phase::Closing => self.state.set_phase(Phase::Head),
            // The parser discards the rest of a body that nobody has read.
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

    /// Looks what became of the client while a handler has its request, and the parser reads nothing.
    ///
    /// # Errors
    /// The client has reset the connection, so that nobody reads the answer.
    fn watch_client(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let socket = self.stream.get_ref();
        // Bytes of a later request, the end of what the client sends, or a reset.
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
            self.state.note_half_close();
        }
        Ok(())
    }

    /// Closes the connection if it is to be closed and nothing has arrived on it.
    fn close_if_idle(&mut self, cx: &Context<'_>) {
        if self.state.phase() == Phase::Idle {
            self.state.set_waker(cx.waker());
        }
        if self.state.phase() != Phase::Closing {
            return;
        }
        // The runtime may not know yet that bytes have arrived, so that the socket itself is asked.
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

    /// Whether what has arrived since the connection was accepted, `held` and `bytes`, is the whole HTTP/2 preface;
    /// `None`: it may be the beginning of one.
    fn is_http2(&self, bytes: &[u8]) -> Option<bool> {
        let mut arrived = self.held.iter().chain(bytes);
        let same = arrived.by_ref().zip(HTTP2_PREFACE).all(|(a, b)| a == b);
        match same && self.held.len() + bytes.len() < HTTP2_PREFACE.len() {
            true => None,
            false => Some(same),
        }
    }

    fn refuse_http2(&mut self, cx: &mut Context<'_>) {
        info!("a client spoke HTTP/2 without asking for it, and was told to use HTTP/1.1");
        // The socket is new and has room for it; a client that loses it still sees the connection closed.
        let _ = Pin::new(&mut self.stream).poll_write(cx, HTTP2_REFUSAL);
        self.state.leave_body_unread();
        self.has_ended = true;
    }

    /// Gives the parser what is held, as far as it is for the parser now.
    fn pass_held(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let most = self.held.len().min(buffer.remaining());
        let held = self.held.split();
        let taken = self.pass(&held[..most]);
        let passed = *taken.as_ref().unwrap_or(&0);
        buffer.put_slice(&held[..passed]);
        self.held = held;
        self.held.advance(passed);
        if self.held.is_empty() {
            // An idle connection needs no room for it.
            self.held = BytesMut::new();
        }
        taken.map(|_| ())
    }

    /// How many of these bytes are for the parser now.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.note_arrival() {
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
                    if deadline.is_some_and(|deadline| this.is_over(cx, deadline)) {
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
                // The client sends nothing more, so that what is held is not the whole preface.
                this.may_be_http2 = false;
                if this.held.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if this.may_be_http2 {
                match this.is_http2(bytes) {
                    Some(true) => this.refuse_http2(cx),
                    Some(false) if this.held.is_empty() => this.may_be_http2 = false,
                    verdict => {
                        this.may_be_http2 = verdict.is_none();
                        this.note_arrival();
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
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.is_write_blocked = written.is_pending();
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The parser flushes whenever its task runs.
        if self.state.phase() == Phase::Request {
            self.watch_client(cx)?;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Shuts the writing side down; where a request was not read to its end, discards some of the rest, so that the client
    /// can read the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.state.unread_body.load(Ordering::Relaxed) {
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

    #[test]
    fn a_busy_connection_is_not_evicted() {
        let state = ConnectionState::new();
        state.begin_request(&Request::new(String::new()));
        state.evict();
        assert!(state.phase() == Phase::Request);
        assert_eq!(state.idle_since(), None);
        state.end_request();
        state.evict();
        assert!(
            state.phase() == Phase::Answered,
            "its answer may be on the way"
        );
        state.become_idle();
        assert!(state.idle_since().is_some());
        state.evict();
        assert!(state.phase() == Phase::Closing);
        assert_eq!(state.idle_since(), None, "it is chosen once");
    }

    /// A connection that is idle as far as the runtime knows, and its client.
    async fn idle_connection(
        bounds: &Bounds,
    ) -> (ClientStream, Arc<ConnectionState>, std::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("its address");
        let client = std::net::TcpStream::connect(address).expect("a connection");
        let (socket, _) = listener.accept().await.expect("accepted");
        let state = Arc::new(ConnectionState::new());
        let mut stream = ClientStream::new(socket, state.clone(), bounds);
        let mut byte = [0; 1];
        let read = poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut byte);
            Poll::Ready(Pin::new(&mut stream).poll_read(cx, &mut buffer).is_ready())
        });
        assert!(!read.await, "nothing has arrived");
        (stream, state, client)
    }

    #[tokio::test]
    async fn an_evicted_connection_serves_a_request_that_the_runtime_has_not_seen() {
        let (mut stream, state, mut client) = idle_connection(&Bounds::default()).await;
        // This thread runs the runtime as well, which therefore learns nothing of these bytes yet.
        io::Write::write_all(&mut client, b"GET").expect("sent");
        state.evict();
        let mut request = [0; 3];
        let read = stream.read_exact(&mut request).await;
        read.expect("the request is read");
        assert_eq!(&request, b"GET");
        assert!(state.phase() == Phase::Head);
    }

    #[tokio::test]
    async fn a_request_that_arrives_just_before_the_end_of_the_idle_time_is_served() {
        let bounds = Bounds {
            header_time: Duration::from_millis(10),
            ..Bounds::default()
        };
        let (mut stream, state, mut client) = idle_connection(&bounds).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        // The time is over, and the runtime learns nothing of these bytes before the stream is polled.
        io::Write::write_all(&mut client, b"GET").expect("sent");
        let mut request = [0; 3];
        let read = stream.read_exact(&mut request).await;
        read.expect("the request is read");
        assert!(state.phase() == Phase::Head);
    }

    #[tokio::test]
    async fn an_evicted_connection_on_which_nothing_has_arrived_ends() {
        let (mut stream, state, _client) = idle_connection(&Bounds::default()).await;
        let reading = tokio::spawn(async move { stream.read_u8().await.map_err(|e| e.kind()) });
        tokio::task::yield_now().await;
        // The task waits for bytes now, and is woken.
        state.evict();
        let read = reading.await.expect("no panic");
        assert_eq!(read, Err(io::ErrorKind::UnexpectedEof));
        assert!(state.phase() == Phase::Closed);
    }

    #[test]
    fn the_http_2_refusal_has_frames_of_the_stated_lengths() {
        let (settings, goaway) = HTTP2_REFUSAL.split_at(9);
        assert_eq!(settings, b"\0\0\0\x04\0\0\0\0\0");
        let length = usize::from(goaway[2]);
        assert_eq!(goaway.len(), 9 + length);
    }
}
