//! What a request may use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keywright_domain::KeyWrites;
use keywright_domain::ports::{AuthPort, Clock, IdGenerator, LockHistory};
use keywright_domain::write::Write;
use tokio::sync::{Semaphore, broadcast};
use tokio_util::task::TaskTracker;

use crate::settings::Bounds;

pub(crate) struct App {
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) auth: Arc<dyn AuthPort>,
    /// For those who wait for a write to settle.
    pub(crate) history: Arc<dyn LockHistory>,
    /// Tells of each write that this process saves.
    pub(crate) saved: broadcast::Sender<Arc<Write>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGenerator>,
    pub(crate) bounds: Bounds,
    /// Places for writes and withdrawals.
    pub(crate) places: Arc<Semaphore>,
    /// Use cases that go on when their client has hung up; awaited at the end.
    pub(crate) tasks: TaskTracker,
    draining: AtomicBool,
}

/// What the composition root puts together.
pub(crate) struct Parts {
    pub(crate) writes: Arc<KeyWrites>,
    pub(crate) auth: Arc<dyn AuthPort>,
    pub(crate) history: Arc<dyn LockHistory>,
    pub(crate) saved: broadcast::Sender<Arc<Write>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdGenerator>,
}

impl App {
    pub(crate) fn new(parts: Parts, bounds: Bounds) -> Self {
        Self {
            writes: parts.writes,
            auth: parts.auth,
            history: parts.history,
            saved: parts.saved,
            clock: parts.clock,
            ids: parts.ids,
            bounds,
            places: Arc::new(Semaphore::new(bounds.in_flight)),
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// From now on the service is not ready for new work.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
