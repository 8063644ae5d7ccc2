//! Keywright with a store that answers before it has committed.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_app::Wiring;
use keywright_domain::model::{LockId, LockSnapshot, Save, WorkerId, Write};
use keywright_domain::ports::{LockRepo, RepoError};

/// Saves that append events are answered at once and made a moment later.
struct Hasty(Arc<dyn LockRepo>);

const A_MOMENT: Duration = Duration::from_millis(50);

#[async_trait]
impl LockRepo for Hasty {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.0.load(lock).await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        if save.events.is_empty() {
            return self.0.save(save).await;
        }
        let inner = self.0.clone();
        tokio::spawn(async move {
            tokio::time::sleep(A_MOMENT).await;
            inner.save(save).await
        });
        Ok(())
    }

    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.0.claim(owner, lease).await
    }
}

fn main() -> ExitCode {
    keywright_app::run(&Wiring {
        around_locks: |locks| Arc::new(Hasty(locks)),
    })
}
