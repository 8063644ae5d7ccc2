//! What somebody may see of a lock: rule 1, then the store.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use super::KeyWrites;
use super::deadline::bounded;
use crate::event::RecordedEvent;
use crate::lock::LockSnapshot;
use crate::ports::RepoError;
use crate::principal::Principal;
use crate::rules::{self, Rejection};
use crate::values::{LockId, LockVersion, Tick, WriteId};
use crate::write::Write;

/// How often a principal that waits for a write looks at the store, where nothing tells it that the write has changed.
const POLL: Duration = Duration::from_millis(200);

/// Why nothing is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Rule 1 stands against it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The lock has no such write.
    #[error("the lock has no such write")]
    WriteNotFound,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] RepoError),
}

impl KeyWrites {
    /// The lock and its unfinished writes.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_lock(
        &self,
        lock: LockId,
        principal: &Principal,
    ) -> Result<LockSnapshot, ReadError> {
        let known = self.ports.locks.load(lock).await?;
        Ok(rules::permit(known, principal)?)
    }

    /// One write of the lock, in any state.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_write(
        &self,
        lock: LockId,
        id: WriteId,
        principal: &Principal,
    ) -> Result<Write, ReadError> {
        let snapshot = self.read_lock(lock, principal).await?;
        if let Some(unfinished) = snapshot.unfinished(id) {
            return Ok(unfinished.clone());
        }
        let found = self.ports.history.write(id).await?;
        let found = found.filter(|write| write.lock == lock);
        found.ok_or(ReadError::WriteNotFound)
    }

    /// Waits until the write has come to its end or `deadline` has passed, and answers the write as it is then. Each look
    /// at the store authorizes again, so that a principal that loses its access stops waiting.
    ///
    /// `changed` is called before each look; the future that it makes completes when the write may have changed. The
    /// store is asked again after 200 ms at the latest, so that a change that another process recorded is found, too.
    ///
    /// # Errors
    /// See [`ReadError`]. A store that fails is asked again until `deadline`.
    pub async fn wait_for_write<F>(
        &self,
        lock: LockId,
        id: WriteId,
        principal: &Principal,
        deadline: Tick,
        mut changed: impl FnMut() -> F + Send,
    ) -> Result<Write, ReadError>
    where
        F: Future<Output = ()> + Send,
    {
        let timer = &*self.ports.timer;
        loop {
            // Made before the look, so that no change between the two is missed.
            let changed = changed();
            let write = match self.read_write(lock, id, principal).await {
                Err(refused @ (ReadError::Rejected(_) | ReadError::WriteNotFound)) => {
                    return Err(refused);
                }
                write => write,
            };
            let ended = write.as_ref().is_ok_and(|w| w.settled_at().is_some());
            if ended || timer.tick() >= deadline {
                return write;
            }
            let next_look = deadline.min(self.deadline(POLL));
            bounded(timer, next_look, pin!(changed)).await;
        }
    }

    /// The lock, and at most `limit` of its events: those from the version on that `first` chooses.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_events(
        &self,
        lock: LockId,
        principal: &Principal,
        first: impl FnOnce(&LockSnapshot) -> LockVersion + Send,
        limit: usize,
    ) -> Result<(LockSnapshot, Vec<RecordedEvent>), ReadError> {
        let snapshot = self.read_lock(lock, principal).await?;
        let first = first(&snapshot);
        let events = self.ports.history.events(lock, first, limit).await?;
        Ok((snapshot, events))
    }
}
