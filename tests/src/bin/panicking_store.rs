//! Keywright with a faulty store that panics on key index 1 at once and on key index 2 after a pause.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_app::Wiring;
use keywright_domain::model::{KeyIndex, LockId, LockSnapshot, Save, WorkerId, Write};
use keywright_domain::ports::{LockRepo, RepoError};

struct Panicking(Arc<dyn LockRepo>);

#[async_trait]
impl LockRepo for Panicking {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.0.load(lock).await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let slot = save.writes.first().and_then(|write| write.slot.index);
        match slot.map(KeyIndex::get) {
            Some(1) => panic!("at once"),
            Some(2) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                panic!("after a while")
            }
            _ => self.0.save(save).await,
        }
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.0.claim(worker, lease).await
    }
}

fn main() -> ExitCode {
    keywright_app::run(&Wiring {
        wrap_lock_repo: |inner| Arc::new(Panicking(inner)),
    })
}
