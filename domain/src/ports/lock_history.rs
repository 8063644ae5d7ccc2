use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::lock_repo::RepoError;
use crate::model::{
    Backlog, DueCursor, FoldError, IdempotencyRecord, IdempotencyScope, Lock, LockId, LockVersion,
    RecordedEvent, Timestamp, Write, WriteId,
};

/// Why events were not imported. Nothing of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// They do not go on from what the store has.
    #[error("event {at} of lock {lock} cannot be imported: {why}")]
    NotAStream {
        /// The lock.
        lock: LockId,
        /// The event's version.
        at: LockVersion,
        /// What is wrong.
        why: FoldError,
    },
    /// The store did not do it, or did not say.
    #[error(transparent)]
    Store(#[from] RepoError),
}

/// Reads beside [`super::LockRepo`], over the same store, and the way in for the vendor's events.
#[async_trait]
pub trait LockHistory: Send + Sync {
    /// One write in any state.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError>;

    /// At most `limit` events of a lock from version `first` on, in order. Empty beyond the end and
    /// for an unknown lock.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError>;

    /// At most `limit` writes whose `next_check_at` is at or before `until`, by (attention, id), those
    /// after `after` only.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError>;

    /// How much is unfinished at the moment. Writes that are SENT and were sent outside of `recently` count as
    /// unconfirmed.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`].
    async fn backlog(&self, recently: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError>;

    /// What is kept of a request of this name, also where its time is over.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn idempotency_record(
        &self,
        request: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError>;

    /// Deletes at most `limit` kept answers whose time was over at `now`, and at most `limit` writes that
    /// ended before `ended_before` and that nobody has to act on (no lease, no attention). Answers how many of
    /// both. Streams are never shortened.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`].
    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError>;

    /// At most `limit` locks by their ids, those after `after` only.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError>;

    /// Appends events of the vendor, of any number of locks: all of them or none. Each lock's go on
    /// from its version, or create it.
    ///
    /// # Errors
    /// See [`ImportError`].
    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError>;
}
