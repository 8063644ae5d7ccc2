use std::time::Duration;

use async_trait::async_trait;

use crate::model::{LockId, LockSnapshot, Save, WorkerId, Write};

/// Why a request to the store failed, and whether it may have been applied nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepoError {
    /// **Not applied**: the lock has another revision than the save names, or does not exist. Load the lock and decide again.
    #[error("the lock has changed since it was loaded")]
    Stale,
    /// **Not applied**: the store could not be reached, or could not execute the request. The text is for the log.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// **Unknown**: the answer to a save, a claim, a purge or an import was lost. Load the lock to see whether it was applied. The
    /// text is for the log.
    #[error("the store did not say whether it saved: {0}")]
    Unknown(String),
    /// **Not applied**: a stored row violates an invariant. Repeating the request does not help.
    #[error("stored data is corrupt: table {table}, column {column}, key {key}")]
    Corrupt {
        /// The table of the row.
        table: &'static str,
        /// The column that violates the invariant.
        column: &'static str,
        /// The key of the row.
        key: String,
    },
}

/// Stores locks with their events and writes. A save is the only way to change a lock, apart from claims and imports.
///
/// - **Atomicity.** A save MUST be applied as a whole or not at all, and MUST be durable before it is answered.
/// - **Ordering.** A save MUST be applied only while the lock has exactly the revision that the save names, and MUST increment it.
///   So of several saves at one revision exactly one is applied, and a save that is repeated is stale.
/// - **Visibility.** A load MUST see every save that was answered before the load started.
/// - **Take-over.** A prepared write MUST be claimed by at most one worker at a time, and only after its lease has ended. A claim
///   MUST increment the epoch and the lock's revision, so that saves which the earlier worker decided on are stale.
/// - **Leases.** A lease MUST be measured by a monotonic clock, never by a wall clock. Its start MUST NOT be earlier than the save
///   or claim that stored it, and MUST NOT be later than the first call of [`LockRepo::claim`] that finds it in the store,
///   provided that this call is at least 250 ms after the call before. So a step of any wall clock, of this machine or of a
///   database, neither delays a claim nor ends the lease of a living worker.
#[async_trait]
pub trait LockRepo: Send + Sync {
    /// Loads a lock with its live writes, all of one revision. `None`: there is no such lock.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError>;

    /// Applies one save. The lease of a prepared write in it starts anew.
    ///
    /// # Errors
    /// See [`RepoError`]. Only after [`RepoError::Unknown`] may the save have been applied, or may still be.
    async fn save(&self, save: Save) -> Result<(), RepoError>;

    /// Takes over one prepared write whose lease has ended, the longest overdue first, and gives it to `worker` for `lease` from
    /// now. Returns the write with its new intent. `None`: no lease has ended.
    ///
    /// The caller calls it every second, because the lease of another process may be measured only from the first call that
    /// finds it.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`], [`RepoError::Corrupt`].
    async fn claim(&self, worker: WorkerId, lease: Duration) -> Result<Option<Write>, RepoError>;
}
