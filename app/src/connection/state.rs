//! The state of a client connection that its stream, its request handlers and the accept loop share.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use hyper::Request;
use hyper::body::Body;
use hyper::header::CONTENT_LENGTH;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::request_parts::RequestParts;

/// The phase of a connection in its exchange of requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// No byte of the next request has arrived.
    Idle,
    /// The head of a request is arriving.
    Head,
    /// A handler works on a request.
    Request,
    /// The handler has returned a response, which may not be written yet.
    Answered,
    /// The idle connection is to be closed, unless bytes of a request have arrived meanwhile.
    Closing,
    /// The connection serves no further request.
    Closed,
}

impl Phase {
    const fn from_number(number: u8) -> Self {
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

pub(crate) struct ConnectionState {
    pub(super) accepted: Instant,
    phase: AtomicU8,
    /// Milliseconds from `accepted` until the connection became idle.
    idle_since: AtomicU64,
    parts: Mutex<RequestParts>,
    /// Wakes the task of the idle connection.
    waker: Mutex<Option<Waker>>,
    /// The client has closed its sending side while a handler works on its request.
    is_half_closed: AtomicBool,
    half_close: Notify,
    /// A response was returned without reading its request to the end.
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

    /// Registers that a handler begins with a request. Must be called before the parser reads more from the connection.
    ///
    /// Returns whether the head has a `Content-Length` that the parser does not show: it drops that header from a request that
    /// also has `Transfer-Encoding`.
    pub(crate) fn begin_request<B: Body>(&self, request: &Request<B>) -> bool {
        self.set_phase(Phase::Request);
        self.unread_body.store(false, Ordering::Relaxed);
        let length = request.body().size_hint().exact();
        let lengths = self.parts().begin_body(length);
        lengths > 0 && !request.headers().contains_key(CONTENT_LENGTH)
    }

    /// Registers that the handler has returned a response.
    pub(crate) fn end_request(&self) {
        self.set_phase(Phase::Answered);
    }

    /// Registers that the response does not wait for the rest of the request.
    pub(crate) fn leave_body_unread(&self) {
        self.unread_body.store(true, Ordering::Relaxed);
    }

    pub(super) fn has_unread_body(&self) -> bool {
        self.unread_body.load(Ordering::Relaxed)
    }

    /// Completes when the client has closed its sending side. It may still wait for the response, or be gone: TCP does not
    /// distinguish the two until a response is sent.
    pub(crate) async fn half_closed(&self) {
        let closed = self.half_close.notified();
        if !self.is_half_closed.load(Ordering::Acquire) {
            closed.await;
        }
    }

    pub(super) fn record_half_close(&self) {
        if !self.is_half_closed.swap(true, Ordering::AcqRel) {
            self.half_close.notify_one();
        }
    }

    /// When the connection became idle. `None`: it is not idle.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let idle = self.phase() == Phase::Idle;
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        idle.then(|| self.accepted + since)
    }

    /// Asks the task of an idle connection to close it. The task first checks whether bytes of a request have arrived, which the
    /// runtime may not have noticed yet. Does nothing if the connection is not idle.
    pub(crate) fn evict(&self) {
        if self.compare_and_set(Phase::Idle, Phase::Closing)
            && let Some(task) = lock(&self.waker).take()
        {
            task.wake();
        }
    }

    fn compare_and_set(&self, from: Phase, to: Phase) -> bool {
        let (from, to) = (from as u8, to as u8);
        let changed = self
            .phase
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }

    /// Registers the task that [`Self::evict`] wakes.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut current = lock(&self.waker);
        if !current
            .as_ref()
            .is_some_and(|current| current.will_wake(waker))
        {
            *current = Some(waker.clone());
        }
    }

    pub(super) fn parts(&self) -> MutexGuard<'_, RequestParts> {
        lock(&self.parts)
    }

    pub(super) fn phase(&self) -> Phase {
        Phase::from_number(self.phase.load(Ordering::Acquire))
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(super) fn become_idle(&self) {
        let since = self.accepted.elapsed().as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.idle_since.store(since, Ordering::Relaxed);
        self.set_phase(Phase::Idle);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_connection_is_not_evicted() {
        let state = ConnectionState::new();
        state.begin_request(&Request::new(String::new()));
        state.evict();
        assert_eq!(state.phase(), Phase::Request);
        assert_eq!(state.idle_since(), None);
        state.end_request();
        state.evict();
        assert_eq!(
            state.phase(),
            Phase::Answered,
            "its response may not be written yet"
        );
        state.become_idle();
        assert!(state.idle_since().is_some());
        state.evict();
        assert_eq!(state.phase(), Phase::Closing);
        assert_eq!(state.idle_since(), None, "it is chosen once");
    }
}
