//! Injects faults into the calls of a store, for tests and for trying out failures in the sandbox.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{LockId, LockSnapshot, Save, WorkerId, Write};
use keywright_domain::ports::{LockRepo, RepoError};

use super::faults::{Fault, FaultInjector, Operation};

/// A store whose loads and saves have the faults of a plan. Claims pass.
#[derive(Clone)]
pub struct FaultyLockRepo {
    inner: Arc<dyn LockRepo>,
    faults: FaultInjector,
}

impl FaultyLockRepo {
    /// Injects these faults.
    pub fn new(inner: Arc<dyn LockRepo>, faults: FaultInjector) -> Self {
        Self { inner, faults }
    }
}

fn unavailable() -> RepoError {
    RepoError::Unavailable("injected".into())
}

#[async_trait]
impl LockRepo for FaultyLockRepo {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        match self.faults.next(&[Operation::Load]).await {
            Fault::Pass | Fault::Delay(_) => self.inner.load(lock).await,
            _ => Err(unavailable()),
        }
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        let lost = || Err(RepoError::Unknown("injected: the answer is lost".into()));
        match self.faults.next(&[Operation::Save]).await {
            Fault::Pass | Fault::Delay(_) => self.inner.save(save).await,
            Fault::NotSent | Fault::Refuse => Err(unavailable()),
            Fault::DropAnswer => {
                self.inner.save(save).await?;
                lost()
            }
            Fault::Late(span) => {
                let inner = self.inner.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(span).await;
                    let outcome = inner.save(save).await;
                    tracing::debug!(?outcome, "a delayed save ended");
                });
                lost()
            }
            Fault::LoseRequest | Fault::Withhold => lost(),
        }
    }

    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.inner.claim(worker, lease).await
    }
}
