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
    pub(crate) work: Work,
}

/// The writes and withdrawals that are in progress.
pub(crate) struct Work {
    /// Places for them.
    pub(crate) places: Arc<Semaphore>,
    /// Their tasks, which go on when their client has hung up, and are awaited at the end.
    pub(crate) tasks: TaskTracker,
    draining: AtomicBool,
}

impl Work {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        Self {
            places: Arc::new(Semaphore::new(bounds.in_flight)),
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// From now on the service is not ready for new work, and nobody waits for a lock any more.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.tasks.close();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
