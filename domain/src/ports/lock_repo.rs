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
/// # Contract
///
/// A save is applied as a whole or not at all. A lease never starts before the save or claim that stored it. A call of
/// [`LockRepo::claim`] within 250 ms after another one may use what that one has read.
///
/// Each promise has the test case of its name in `keywright-testkit`. A save that is repeated names an old revision, so it is stale. The
/// cases end processes, not machines: no case shows that a store survives the loss of power (`fsync`, an append that was cut short).
///
/// 1. `unknown_lock_loads_as_none`: a lock that was never imported MUST load as `None`.
/// 2. `saved_write_is_read_back`: a load MUST see the writes of every save that was answered before the load started.
/// 3. `commit_appends_its_event`: a save MUST append its events to the stream of the lock and store the shadow's version.
/// 4. `settled_write_keeps_its_reason`: a write that its lock has settled MUST be loaded as uncleared, with its reason.
/// 5. `write_keeps_its_anomalies`: a write MUST keep its anomalies and the slot that the lock has reported.
/// 6. `superseded_write_is_not_live`: a load MUST have the live writes of the lock only.
/// 7. `every_state_is_read_back`: a write MUST be read back in the state in which it was saved, with whether a result was late.
/// 8. `every_reason_is_read_back`: a failed or aborted write MUST be read back with its reason, an error code of a device included.
/// 9. `times_are_read_back_to_the_millisecond`: times MUST be stored to the millisecond.
/// 10. `longest_texts_are_read_back`: texts MUST be stored whole, whatever characters they have.
/// 11. `largest_numbers_are_read_back`: ids, key indexes and capacities up to 2⁵³ − 1 MUST be stored exactly.
/// 12. `save_without_shadow_version_keeps_the_known_one`: a save without a shadow version MUST keep the one that is known.
/// 13. `stale_save_changes_nothing`: a save that names another revision than the lock has MUST be stale and change nothing.
/// 14. `abort_appends_no_event`: every applied save MUST increment the revision by one, also one without events.
/// 15. `save_survives_a_crash`: a save MUST be durable before it is answered.
/// 16. `clean_end_loses_nothing`: a store that is closed and opened again MUST have everything that it had.
/// 17. `exactly_one_of_concurrent_saves_is_applied`: of concurrent saves at one revision, exactly one MUST be applied.
/// 18. `concurrent_writes_of_one_lock_lose_nothing`: a load MUST have all parts of one revision, also while saves are applied.
/// 19. `concurrent_writes_of_many_locks_do_not_conflict`: a save MUST NOT be stale because of another lock.
/// 20. `claim_waits_for_the_end_of_the_lease`: a prepared write MUST be claimed only after its lease has ended.
/// 21. `wall_clock_steps_do_not_move_leases`: a lease MUST be measured by a monotonic clock, never by a wall clock.
/// 22. `claim_makes_saves_of_the_earlier_worker_stale`: a claim MUST increment the lock's revision.
/// 23. `claimed_intent_is_claimed_again_after_its_lease`: a claim MUST store its worker, its lease, and the next epoch.
/// 24. `longest_overdue_intent_is_claimed_first`: a claim MUST take the write whose lease ended first.
/// 25. `concurrent_claims_take_different_writes`: a prepared write MUST be claimed by at most one worker at a time.
/// 26. `only_one_of_save_and_claim_succeeds`: a claim and a concurrent save of the same write MUST NOT both be applied.
/// 27. `closed_intent_is_never_claimed`: a committed or aborted write MUST NOT be claimed.
/// 28. `intent_is_claimed_after_a_crash`: a prepared write of a process that has crashed MUST be claimed at the latest when its lease
///     has ended since the first call of [`LockRepo::claim`] that found it in the store.
/// 29. `claim_survives_a_crash`: a claim MUST be durable before it is answered.
#[async_trait]
pub trait LockRepo: Send + Sync {
    /// Loads a lock with its live writes, all of one revision. `None`: there is no such lock.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    async fn load(&self, lock: LockId) -> Result<Option<LockSnapshot>, RepoError>;

    /// Applies one save. The lease of a write that it prepares starts with it.
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
