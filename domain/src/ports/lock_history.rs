use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::lock_repo::RepoError;
use crate::model::{
    Backlog, DueCursor, FoldError, IdempotencyRecord, IdempotencyScope, Lock, LockId, LockVersion,
    RecordedEvent, Timestamp, Write, WriteId,
};

/// Why events were not imported. None of them was, except that the outcome of [`RepoError::Unknown`] is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// An event does not continue the stream of its lock.
    #[error("event {at} of lock {lock} cannot be imported: {why}")]
    NotAStream {
        /// The lock.
        lock: LockId,
        /// The event's version.
        at: LockVersion,
        /// Why the event does not continue the stream.
        why: FoldError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] RepoError),
}

/// Further reads of the store behind [`super::LockRepo`], the import of events, and the deletion of old records.
///
/// - A read MUST see every save that was answered before the read started.
/// - A read MUST NOT change anything, and can be repeated at any time.
#[async_trait]
pub trait LockHistory: Send + Sync {
    /// Reads one write in any state. `None`: it does not exist or was purged.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError>;

    /// Reads at most `limit` events of a lock, from version `first` on, in ascending order of their versions without gaps. The list
    /// is empty beyond the end of the stream and for an unknown lock.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn events(
        &self,
        lock: LockId,
        first: LockVersion,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, RepoError>;

    /// Reads at most `limit` writes whose `next_check_at` is at or before `until`, ordered by (`next_check_at`, id). With `after`,
    /// only writes behind that position.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn due(
        &self,
        until: Timestamp,
        after: Option<DueCursor>,
        limit: usize,
    ) -> Result<Vec<Write>, RepoError>;

    /// Counts the unfinished writes of all locks. Writes that are SENT and were sent outside of `recent_times` count as unconfirmed.
    /// The age of the oldest intent MUST be measured by a monotonic clock, and may be 250 ms behind.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`].
    async fn backlog(&self, recent_times: RangeInclusive<Timestamp>) -> Result<Backlog, RepoError>;

    /// Reads the idempotency record of this scope, even if it has expired, as long as it is not purged.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn idempotency_record(
        &self,
        request: &IdempotencyScope,
    ) -> Result<Option<IdempotencyRecord>, RepoError>;

    /// Deletes at most `limit` idempotency records that had expired at `now`, and at most `limit` writes that ended before
    /// `ended_before` and have no next check. Returns how many of both were deleted.
    ///
    /// It MUST NOT delete prepared or open writes, nor any event. It can be repeated at any time.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`].
    async fn purge(
        &self,
        now: Timestamp,
        ended_before: Timestamp,
        limit: usize,
    ) -> Result<usize, RepoError>;

    /// Reads at most `limit` locks in ascending order of their ids. With `after`, only locks with a greater id.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn locks(&self, after: Option<LockId>, limit: usize) -> Result<Vec<Lock>, RepoError>;

    /// Appends events of any number of locks. The events of each lock are in the order of their versions; they continue its stream
    /// or create the lock.
    ///
    /// The import MUST be atomic and durable: all events are appended or none. It MUST increment the revision of each lock, so that
    /// saves which were decided before become stale. An import that is repeated fails with [`ImportError::NotAStream`].
    ///
    /// # Errors
    /// See [`ImportError`].
    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError>;
}
