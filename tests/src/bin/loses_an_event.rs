//! Keywright with a faulty store that loses one event of a save and reports success.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keywright_app::Wiring;
use keywright_domain::model::{
    LockEvent, LockId, LockSnapshot, RecordedEvent, Save, WorkerId, Write,
};
use keywright_domain::ports::{LockRepo, RepoError};

/// The number of the first save with a `KeyWriteRequested` event that loses it. If this save is not applied, the next one loses its
/// event.
const LOST_SAVE: u32 = 9;

struct LosesAnEvent {
    inner: Arc<dyn LockRepo>,
    requests: AtomicU32,
    has_lost: AtomicBool,
}

#[async_trait]
impl LockRepo for LosesAnEvent {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.inner.load(lock).await
    }

    async fn save(&self, mut save: Save) -> Result<(), RepoError> {
        let requested = |e: &RecordedEvent| matches!(e.event, LockEvent::KeyWriteRequested(_));
        if !save.events.iter().any(requested)
            || self.requests.fetch_add(1, Ordering::Relaxed) + 1 < LOST_SAVE
            || self.has_lost.swap(true, Ordering::Relaxed)
        {
            return self.inner.save(save).await;
        }
        save.events.retain(|event| !requested(event));
        let saved = self.inner.save(save).await;
        self.has_lost.store(saved.is_ok(), Ordering::Relaxed);
        saved
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.inner.claim(worker, lease).await
    }
}

fn main() -> ExitCode {
    keywright_app::run(&Wiring {
        wrap_lock_repo: |inner| {
            Arc::new(LosesAnEvent {
                inner,
                requests: AtomicU32::new(0),
                has_lost: AtomicBool::new(false),
            })
        },
    })
}
