//! The state of a client connection that its stream, its request handlers and the accept loop share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::task::Waker;

use hyper::Request;
use hyper::body::Body;
use hyper::header::CONTENT_LENGTH;
use tokio::sync::SetOnce;
use tokio::time::Instant;

use super::request_parts::RequestParts;

use crate::mutex::lock_mutex;

/// The phase of a connection in its exchange of requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No byte of the next request has arrived since this moment.
    Idle(Instant),
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

pub(crate) struct ConnectionState {
    phase: Mutex<Phase>,
    parts: Mutex<RequestParts>,
    /// Wakes the task of the idle connection.
    waker: Mutex<Option<Waker>>,
    /// The client has closed its sending side while a handler works on its request.
    half_close: SetOnce<()>,
    /// A response was returned without reading its request to the end.
    unread_body: AtomicBool,
}

impl ConnectionState {
    pub(crate) fn new() -> Self {
        Self {
            phase: Mutex::new(Phase::Idle(Instant::now())),
            parts: Mutex::default(),
            waker: Mutex::default(),
            half_close: SetOnce::new(),
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
        self.half_close.wait().await;
    }

    pub(super) fn record_half_close(&self) {
        // It may be recorded already.
        let _ = self.half_close.set(());
    }

    /// When the connection became idle. `None`: it is not idle.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        match self.phase() {
            Phase::Idle(since) => Some(since),
            _ => None,
        }
    }

    /// Asks the task of an idle connection to close it. The task first checks whether bytes of a request have arrived, which the
    /// runtime may not have noticed yet. Does nothing if the connection is not idle.
    pub(crate) fn evict(&self) {
        let mut phase = lock_mutex(&self.phase);
        if matches!(*phase, Phase::Idle(_)) {
            *phase = Phase::Closing;
            if let Some(task) = lock_mutex(&self.waker).take() {
                task.wake();
            }
        }
    }

    /// Registers the task that [`Self::evict`] wakes.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut current = lock_mutex(&self.waker);
        if !current
            .as_ref()
            .is_some_and(|current| current.will_wake(waker))
        {
            *current = Some(waker.clone());
        }
    }

    pub(super) fn parts(&self) -> MutexGuard<'_, RequestParts> {
        lock_mutex(&self.parts)
    }

    pub(super) fn phase(&self) -> Phase {
        *lock_mutex(&self.phase)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        *lock_mutex(&self.phase) = phase;
    }

    pub(super) fn become_idle(&self) {
        self.set_phase(Phase::Idle(Instant::now()));
    }
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
