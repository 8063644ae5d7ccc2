//! Reads of a lock on behalf of a principal: rule 1 first, then the store.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use super::deadline::bounded;
use super::key_writes::KeyWrites;
use crate::model::{
    LockId, LockSnapshot, LockVersion, Principal, RecordedEvent, Tick, Write, WriteId,
};
use crate::policy::{self, Rejection};
use crate::ports::RepoError;

/// How often a waiting request reads the write when no notification arrives.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Why a read returned nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Rule 1 rejects the request.
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
        Ok(policy::authorize(known, principal, &*self.access)?)
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
        self.write_of(&snapshot, id).await
    }

    /// A write whose lock the caller does not know.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn find_write(&self, id: WriteId, principal: &Principal) -> Result<Write, ReadError> {
        let found = self.ports.history.write(id).await?;
        let write = found.ok_or(ReadError::WriteNotFound)?;
        self.read_lock(write.lock, principal).await?;
        Ok(write)
    }

    /// A write of a lock, in any state.
    pub(super) async fn write_of(
        &self,
        snapshot: &LockSnapshot,
        id: WriteId,
    ) -> Result<Write, ReadError> {
        if let Some(unfinished) = snapshot.unfinished(id) {
            return Ok(unfinished.clone());
        }
        let found = self.ports.history.write(id).await?;
        let found = found.filter(|write| write.lock == snapshot.lock.id);
        found.ok_or(ReadError::WriteNotFound)
    }

    /// Waits until the write has ended or `deadline` has passed, and returns the write as it is then. Each read authorizes again,
    /// so a principal that loses its access stops waiting.
    ///
    /// `changed` is called before each read. Its future completes when the write may have changed. The write is read again
    /// after 200 ms at the latest, so that changes which other processes record are found, too.
    ///
    /// # Errors
    /// See [`ReadError`]. While the store fails, the read is repeated until `deadline`.
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
            // Subscribed before the read, so that no change between the two is missed.
            let changed = changed();
            let write = match self.read_write(lock, id, principal).await {
                Err(refused @ (ReadError::Rejected(_) | ReadError::WriteNotFound)) => {
                    return Err(refused);
                }
                write => write,
            };
            let ended = write.as_ref().is_ok_and(|w| w.ended_at().is_some());
            if ended || timer.tick() >= deadline {
                return write;
            }
            let next_read = deadline.min(self.deadline(POLL_INTERVAL));
            bounded(timer, next_read, pin!(changed)).await;
        }
    }

    /// The lock, and at most `limit` of its events, from the version that `first` chooses.
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
