//! What somebody may see of a lock: rule 1, then the store.

use super::KeyWrites;
use crate::event::RecordedEvent;
use crate::lock::LockSnapshot;
use crate::ports::RepoError;
use crate::principal::Principal;
use crate::rules::{self, Rejection};
use crate::values::{LockId, LockVersion, WriteId};
use crate::write::Write;

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
        self.read_lock(lock, principal).await?;
        let found = self.ports.history.write(id).await?;
        let found = found.filter(|write| write.lock == lock);
        found.ok_or(ReadError::WriteNotFound)
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
