//! Contract test cases for [`LockRepo`](keywright_domain::ports::LockRepo) and
//! [`LockHistory`](keywright_domain::ports::LockHistory).

mod concurrency;
mod fixture;
mod history;
mod leases;
mod saves;

pub use concurrency::*;
pub use fixture::{AdvanceTime, ClockFuture, IDLE_CLAIMER, SetWallClock, StoreFixture};
pub use history::*;
pub use leases::*;
pub use saves::*;

/// Generates a test for each case of the contract of `LockRepo` and `LockHistory`, on tokio's multi-threaded runtime.
///
/// In `lock_repo_cases!(fixture)`, `fixture().await` returns a [`StoreFixture`](crate::lock_repo::StoreFixture) with an empty store.
/// `fixture` is called once for each case.
#[macro_export]
macro_rules! lock_repo_cases {
    ($fixture:path) => {
        $crate::lock_repo_cases! { $fixture:
            unknown_lock_loads_as_none, imported_lock_is_the_fold_of_its_events, import_is_atomic,
            saved_write_is_read_back, commit_appends_its_event, settled_write_keeps_its_reason,
            write_keeps_its_anomalies, superseded_write_is_not_live, stale_save_changes_nothing,
            abort_appends_no_event, claim_waits_for_the_end_of_the_lease,
            wall_clock_steps_do_not_move_leases, claim_makes_saves_of_the_earlier_worker_stale,
            due_writes_are_ordered, event_page_starts_at_version_and_respects_limit, locks_are_listed_in_pages,
            idempotency_record_is_read_back, stale_save_stores_no_idempotency_record,
            purge_deletes_only_what_has_expired, backlog_counts_unfinished_writes,
            exactly_one_of_concurrent_saves_is_applied, concurrent_writes_of_one_lock_lose_nothing,
            concurrent_writes_of_many_locks_do_not_conflict, concurrent_claims_take_different_writes,
            claimed_intent_is_claimed_again_after_its_lease, only_one_of_save_and_claim_succeeds,
            closed_intent_is_never_claimed
        }
    };
    ($fixture:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const LOCK_REPO_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name; the testkit's own tests run every case against broken stores.
        pub async fn run_lock_repo_case(case: &str, store: &$crate::lock_repo::StoreFixture) {
            match case {
                $(stringify!($case) => $crate::lock_repo::$case(store).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            $crate::lock_repo::$case(&$fixture().await).await;
        })+
    };
}
