//! Leases of webhooks in a store that only one process delivers from. They end with the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keywright_domain::model::{Tick, WebhookId, WorkerId};
use keywright_domain::ports::Timer;

/// The leases of this process. Clones share them.
#[derive(Clone)]
pub(super) struct ProcessLeases {
    timer: Arc<dyn Timer>,
    leases: Arc<Mutex<HashMap<WebhookId, Lease>>>,
}

#[derive(Clone, Copy)]
struct Lease {
    worker: WorkerId,
    until: Tick,
}

impl ProcessLeases {
    pub(super) fn new(timer: Arc<dyn Timer>) -> Self {
        Self {
            timer,
            leases: Arc::default(),
        }
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<WebhookId, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a webhook to a worker. Returns whether no other worker holds it.
    pub(super) fn claim(&self, id: WebhookId, worker: WorkerId, lease: Duration) -> bool {
        let now = self.timer.tick();
        let mut leases = self.leases();
        let held = leases.get(&id);
        if held.is_some_and(|held| held.worker != worker && now < held.until) {
            return false;
        }
        let until = now.after(lease);
        leases.insert(id, Lease { worker, until });
        true
    }

    /// Whether the worker was the last one that claimed the webhook.
    pub(super) fn holds(&self, id: WebhookId, worker: WorkerId) -> bool {
        let leases = self.leases();
        leases.get(&id).is_some_and(|held| held.worker == worker)
    }

    pub(super) fn release(&self, worker: WorkerId) {
        self.leases().retain(|_, held| held.worker != worker);
    }
}
