use std::time::Duration;

use async_trait::async_trait;

use crate::model::{LockId, LockSnapshot, Save, WorkerId, Write};

/// Why the store did not answer as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepoError {
    /// **Not applied**: the lock has another revision now (or is unknown). Load and decide again.
    #[error("the lock has changed since it was loaded")]
    Stale,
    /// **Not applied**: the store could not be reached or refused to work.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// **Unknown**: the answer to a save or claim was lost. Load, and look for the write.
    #[error("the store did not say whether it saved: {0}")]
    Unknown(String),
    /// **Not applied**: a stored row breaks an invariant.
    #[error("stored data is corrupt: table {table}, column {column}, key {key}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's key.
        key: String,
    },
}

/// The locks, and the one way to change them.
///
/// - A save MUST be atomic and durable before it is answered, and MUST be taken only while the lock's
///   revision is the one it names; it then moves the revision by one. Of several saves at one
///   revision exactly one is taken.
/// - Every save of a lock MUST be seen by every load of it that starts after the save was answered.
/// - A prepared write MUST be claimed by at most one owner at a time, and only when its lease has ended.
///   A claim moves the epoch and the lock's revision by one, so that a save which an earlier owner decided
///   on comes too late.
/// - A lease MUST be counted by a monotonic clock, never by a wall clock: from the save or the claim that
///   carries it at the earliest, and from the first call of [`LockRepo::claim`] that finds it in the store at the
///   latest, where that call is 250 ms later than the one before. So a wall clock that is set in either direction,
///   this machine's or a database's, neither delays a claim nor takes a lease from an owner that is alive.
#[async_trait]
pub trait LockRepo: Send + Sync {
    /// The lock and its unfinished writes, of one revision; `None` where there is no such lock.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError>;

    /// Makes one change.
    ///
    /// # Errors
    /// See [`RepoError`]; on all but [`RepoError::Unknown`] nothing has changed.
    async fn save(&self, save: Save) -> Result<(), RepoError>;

    /// Takes over one prepared write whose lease has ended, the longest overdue first, for `owner`
    /// and for `lease` from now. `None`: there is none. It is called every second: a lease that another process
    /// holds is counted from the first call that finds it.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`], [`RepoError::Corrupt`].
    async fn claim(&self, owner: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError>;
}
