//! What was saved, for those who wait for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{LockId, LockSnapshot, Save, WorkerId, Write};
use keywright_domain::ports::{LockRepo, RepoError};
use tokio::sync::broadcast;

/// Tells everyone who watches of each write that was saved through it. What another process saves is not
/// seen here, so who must not miss anything looks at the store as well.
#[derive(Clone)]
pub struct Watched {
    inner: Arc<dyn LockRepo>,
    saved: broadcast::Sender<Arc<Write>>,
}

impl Watched {
    /// Tells `saved` of each write. A watcher that lags too far behind misses some, and is told so.
    pub const fn new(inner: Arc<dyn LockRepo>, saved: broadcast::Sender<Arc<Write>>) -> Self {
        Self { inner, saved }
    }
}

#[async_trait]
impl LockRepo for Watched {
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError> {
        self.inner.load(lock).await
    }

    async fn save(&self, save: Save) -> Result<(), RepoError> {
        if self.saved.receiver_count() == 0 {
            return self.inner.save(save).await;
        }
        let writes = save.writes.clone();
        self.inner.save(save).await?;
        for write in writes {
            // That the last watcher has just left is no error.
            let _ = self.saved.send(Arc::new(write));
        }
        Ok(())
    }

    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError> {
        self.inner.claim(owner, lease).await
    }
}
