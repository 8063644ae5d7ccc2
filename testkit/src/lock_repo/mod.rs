//! Contract test cases for [`LockRepo`](keywright_domain::ports::LockRepo) and
//! [`LockHistory`](keywright_domain::ports::LockHistory).

mod concurrency;
mod durability;
mod fixture;
mod history;
mod leases;
mod log;
mod round_trips;
mod saves;

pub use concurrency::*;
pub use durability::*;
pub use fixture::{
    AdvanceTime, ClockFuture, Ending, IDLE_CLAIMER, OpenStore, Reopen, SetWallClock, StoreFixture,
};
pub use history::*;
pub use leases::*;
pub use log::*;
pub use round_trips::*;
pub use saves::*;

/// Generates a test for each case of the contract of `LockRepo` and `LockHistory`, on tokio's multi-threaded runtime.
///
/// In `lock_repo_cases!(fixture)`, `fixture().await` returns a [`StoreFixture`](crate::lock_repo::StoreFixture) with an empty store.
/// `fixture` is called once for each case. `lock_repo_cases!(volatile fixture)` leaves out the cases of durability, for stores that
/// keep nothing beyond their process.
#[macro_export]
macro_rules! lock_repo_cases {
    ($fixture:path) => {
        $crate::lock_repo_cases! { @list all $fixture }
    };
    (volatile $fixture:path) => {
        $crate::lock_repo_cases! { @list volatile $fixture }
    };
    // Cases that need a store which outlives its process are `durable`.
    (@list $mode:ident $fixture:path) => {
        $crate::lock_repo_cases! { @select $mode [] $fixture:
            unknown_lock_loads_as_none,
            saved_write_is_read_back,
            commit_appends_its_event,
            settled_write_keeps_its_reason,
            write_keeps_its_anomalies,
            superseded_write_is_not_live,
            every_state_is_read_back,
            every_reason_is_read_back,
            times_are_read_back_to_the_millisecond,
            longest_texts_are_read_back,
            largest_numbers_are_read_back,
            save_without_shadow_version_keeps_the_known_one,
            stale_save_changes_nothing,
            abort_appends_no_event,
            durable save_survives_a_crash,
            durable clean_end_loses_nothing,
            exactly_one_of_concurrent_saves_is_applied,
            concurrent_writes_of_one_lock_lose_nothing,
            concurrent_writes_of_many_locks_do_not_conflict,
            claim_waits_for_the_end_of_the_lease,
            wall_clock_steps_do_not_move_leases,
            claim_makes_saves_of_the_earlier_worker_stale,
            claimed_intent_is_claimed_again_after_its_lease,
            longest_overdue_intent_is_claimed_first,
            concurrent_claims_take_different_writes,
            only_one_of_save_and_claim_succeeds,
            closed_intent_is_never_claimed,
            durable intent_is_claimed_after_a_crash,
            durable claim_survives_a_crash,
            imported_lock_is_the_fold_of_its_events,
            events_of_every_type_are_read_back,
            import_is_atomic,
            durable import_survives_a_crash,
            import_makes_earlier_saves_stale,
            import_keeps_what_is_known,
            due_writes_are_ordered,
            event_page_starts_at_version_and_respects_limit,
            locks_are_listed_in_pages,
            idempotency_record_is_read_back,
            idempotency_records_of_principals_are_apart,
            stale_save_stores_no_idempotency_record,
            backlog_counts_unfinished_writes,
            purge_deletes_only_what_has_expired,
            purge_keeps_prepared_writes,
            log_has_every_event_once,
            log_keeps_the_order_of_each_lock,
            no_event_appears_behind_a_reader,
            durable positions_survive_a_crash,
            writes_are_listed_newest_first,
            last_position_is_the_end_of_the_log
        }
    };
    (@select volatile [$($kept:ident)*] $fixture:path: durable $case:ident $(, $($rest:tt)*)?) => {
        $crate::lock_repo_cases! { @select volatile [$($kept)*] $fixture: $($($rest)*)? }
    };
    (@select $mode:ident [$($kept:ident)*] $fixture:path: durable $case:ident $(, $($rest:tt)*)?) => {
        $crate::lock_repo_cases! { @select $mode [$($kept)* $case] $fixture: $($($rest)*)? }
    };
    (@select $mode:ident [$($kept:ident)*] $fixture:path: $case:ident $(, $($rest:tt)*)?) => {
        $crate::lock_repo_cases! { @select $mode [$($kept)* $case] $fixture: $($($rest)*)? }
    };
    (@select $mode:ident [$($case:ident)+] $fixture:path:) => {
        /// The names of the cases.
        pub const LOCK_REPO_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name; the testkit's own tests run every case against broken stores.
        pub async fn run_lock_repo_case(case: &str, store: &mut $crate::lock_repo::StoreFixture) {
            match case {
                $(stringify!($case) => $crate::lock_repo::$case(store).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            $crate::lock_repo::$case(&mut $fixture().await).await;
        })+
    };
}
