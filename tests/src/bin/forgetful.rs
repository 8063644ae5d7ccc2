//! Keywright with a store that leaves one event away and says that it has it.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keywright_app::Wiring;
use keywright_domain::model::{
    LockEvent, LockId, LockSnapshot, RecordedEvent, Save, WorkerId, Write,
};
use keywright_domain::ports::{LockRepo, RepoError};

/// Which of the saves that record a request.
const LOST: u32 = 9;

struct Forgetful {
    inner: Arc<dyn LockRepo>,
    appended: AtomicU32,
}

#[async_trait]
impl LockRepo for Forgetful {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.inner.load(lock).await
    }

    async fn save(&self, mut save: Save) -> Result<(), RepoError> {
        let requested = |e: &RecordedEvent| matches!(e.event, LockEvent::KeyWriteRequested(_));
        if save.events.iter().any(requested)
            && self.appended.fetch_add(1, Ordering::Relaxed) + 1 == LOST
        {
            save.events.retain(|event| !requested(event));
        }
        self.inner.save(save).await
    }

    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.inner.claim(owner, lease).await
    }
}

fn main() -> ExitCode {
    keywright_app::run(&Wiring {
        around_locks: |inner| {
            Arc::new(Forgetful {
                inner,
                appended: AtomicU32::new(0),
            })
        },
    })
}
