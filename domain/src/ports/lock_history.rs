use std::ops::RangeInclusive;

use async_trait::async_trait;

use super::lock_repo::RepoError;
use crate::model::{
    Backlog, DueCursor, FoldError, IdempotencyRecord, IdempotencyScope, Lock, LockId, LockVersion,
    LoggedEvent, Position, RecordedEvent, Timestamp, Write, WriteId,
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
/// A read sees every save that was answered before the read started. It changes nothing and can be repeated at any time.
///
/// # Contract
///
/// Each promise has the test case of its name in `keywright-testkit`.
///
/// 1. `imported_lock_is_the_fold_of_its_events`: an imported lock MUST be the fold of its events.
/// 2. `events_of_every_type_are_read_back`: events MUST be read back with all their members, whatever their type.
/// 3. `import_is_atomic`: all events of an import MUST be appended, or none.
/// 4. `import_survives_a_crash`: an import MUST be durable before it is answered.
/// 5. `import_makes_earlier_saves_stale`: an import MUST increment the revision of each lock.
/// 6. `import_keeps_what_is_known`: an import MUST keep the writes and the shadow's version of a known lock.
/// 7. `due_writes_are_ordered`: [`LockHistory::due`] MUST list exactly the writes with a next check in its range, in their order.
/// 8. `event_page_starts_at_version_and_respects_limit`: a page of events MUST begin at the requested version and end at the limit.
/// 9. `locks_are_listed_in_pages`: a page of locks MUST begin after the given id, be ordered by ids, and end at the limit.
/// 10. `idempotency_record_is_read_back`: a save MUST store its idempotency record in place of an earlier one of the same scope.
/// 11. `idempotency_records_of_principals_are_apart`: a record MUST be found only by the lock, principal and key of its scope.
/// 12. `stale_save_stores_no_idempotency_record`: a save that is not applied MUST NOT store its record.
/// 13. `backlog_counts_unfinished_writes`: a backlog MUST count intents, open writes and unconfirmed ones, and measure the age of the oldest
///     intent by a monotonic clock, at the latest from the first call that finds it; it may be 250 ms behind.
/// 14. `purge_deletes_only_what_has_expired`: a purge MUST NOT delete open writes, writes with a next check, or events.
/// 15. `purge_keeps_prepared_writes`: a purge MUST NOT delete prepared writes, however old they are.
/// 16. `log_has_every_event_once`: readings of the log, each continued at the last position of the one before, MUST return every event
///     that was saved or imported exactly once.
/// 17. `log_keeps_the_order_of_each_lock`: an event MUST have a higher position than all earlier events of its lock.
/// 18. `no_event_appears_behind_a_reader`: an event MUST NOT appear at or below a position that was read before it, however saves and
///     readings overlap.
/// 19. `positions_survive_a_crash`: an event MUST keep a position that was read.
/// 20. `writes_are_listed_newest_first`: a page of writes MUST have writes in every state, begin below the given id, be in descending order of
///     their ids, and end at the limit.
/// 21. `last_position_is_the_end_of_the_log`: the last position MUST be that of the last event that a reading of the whole log returns.
#[async_trait]
pub trait LockHistory: Send + Sync {
    /// Reads one write in any state. `None`: it does not exist or was purged.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn write(&self, id: WriteId) -> Result<Option<Write>, RepoError>;

    /// Reads at most `limit` writes in any state, in descending order of their ids. With `before`, only writes with a smaller id.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn writes(&self, before: Option<WriteId>, limit: usize) -> Result<Vec<Write>, RepoError>;

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

    /// Reads at most `limit` events of all locks after this position, in the order of their positions. There are
    /// fewer only at the end of the log.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn events_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<LoggedEvent>, RepoError>;

    /// The position of the last event that was saved or imported before the call; [`Position::START`] if there is none.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`].
    async fn last_position(&self) -> Result<Position, RepoError>;

    /// Reads at most `limit` writes whose `next_check_at` is at or before `until`, ordered by (`next_check_at`, id). With `after`,
    /// only writes after that position.
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

    /// Deletes at most `limit` idempotency records with `expires_at` at or before `now`, and at most `limit` writes that ended before
    /// `ended_before` and have no next check. Returns how many of both were deleted.
    ///
    /// It can be repeated at any time.
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
    /// Saves that were decided before become stale. An import that is repeated fails with [`ImportError::NotAStream`].
    ///
    /// # Errors
    /// See [`ImportError`].
    async fn import(&self, events: Vec<RecordedEvent>) -> Result<(), ImportError>;
}
