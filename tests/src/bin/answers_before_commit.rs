//! Keywright with a faulty store that answers before it has committed.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_app::Wiring;
use keywright_domain::model::{LockId, LockSnapshot, Save, WorkerId, Write};
use keywright_domain::ports::{LockRepo, RepoError};

/// Answers saves with events at once, and makes them 50 ms later.
struct AnswersBeforeCommit(Arc<dyn LockRepo>);

const DELAY: Duration = Duration::from_millis(50);

#[async_trait]
impl LockRepo for AnswersBeforeCommit {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.0.load(lock).await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        if save.events.is_empty() {
            return self.0.save(save).await;
        }
        let inner = self.0.clone();
        tokio::spawn(async move {
            tokio::time::sleep(DELAY).await;
            inner.save(save).await
        });
        Ok(())
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.0.claim(worker, lease).await
    }
}

fn main() -> ExitCode {
    keywright_app::run(&Wiring {
        wrap_lock_repo: |locks| Arc::new(AnswersBeforeCommit(locks)),
    })
}
