//! Cases for claims and leases.

use std::time::Duration;

use keywright_domain::model::{Epoch, FailureReason, WorkerId, Write, WriteId};
use keywright_domain::policy;
use keywright_domain::ports::RepoError;

use super::fixture::{IDLE_CLAIMER, StoreFixture};
use crate::samples::{LEASE, NOW};

/// An intent is claimed only after its lease has ended, and then by one worker at a time.
pub async fn claim_waits_for_the_end_of_the_lease(store: &StoreFixture) {
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    for span in [Duration::ZERO, LEASE - Duration::from_millis(1)] {
        (store.advance_time)(span).await;
        let early = store.locks().claim(WorkerId(8), LEASE).await;
        assert_eq!(early, Ok(None), "the lease has not ended");
    }
    (store.advance_time)(LEASE).await;
    let claimed = store.locks().claim(WorkerId(8), LEASE).await;
    let claimed = claimed.expect("the store answers");
    let claimed = claimed.expect("the lease has ended");
    let intent = *claimed.intent().expect("the write is still prepared");
    assert_eq!(
        (claimed.id, intent.worker, intent.epoch),
        (write.id, WorkerId(8), Epoch(2))
    );
    let second = store.locks().claim(WorkerId(9), LEASE).await;
    assert_eq!(second, Ok(None), "the new lease has not ended");
}

/// After a claim, saves that the earlier worker decided on are stale.
pub async fn claim_makes_saves_of_the_earlier_worker_stale(store: &StoreFixture) {
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    let known = store.load(1).await;
    store.end_leases().await;
    let claimed = store.locks().claim(WorkerId(8), LEASE).await;
    claimed.expect("the store answers").expect("an intent");
    let save = policy::abort(&known, &write, &FailureReason::Throttled, None, NOW);
    assert_eq!(store.locks().save(save).await, Err(RepoError::Stale));
}

/// A step of the wall clock neither ends the lease of a living worker nor delays a claim.
pub async fn wall_clock_steps_do_not_move_leases(store: &StoreFixture) {
    const HOUR_MS: i64 = 3_600_000;
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    let claim = async |worker| {
        let claimed = store.locks().claim(worker, LEASE).await;
        claimed.expect("the store answers").map(|write| write.id)
    };
    assert_eq!(claim(IDLE_CLAIMER).await, None, "the lease has not ended");
    (store.set_wall_clock)(HOUR_MS).await;
    (store.advance_time)(LEASE / 2).await;
    assert_eq!(claim(IDLE_CLAIMER).await, None, "the lease has not ended");
    (store.set_wall_clock)(-2 * HOUR_MS).await;
    (store.advance_time)(LEASE).await;
    let claimed = claim(WorkerId(8)).await;
    assert_eq!(claimed, Some(write.id), "the lease has ended");
}

/// A claimed intent can be claimed again after each of its leases, every time with the next epoch.
pub async fn claimed_intent_is_claimed_again_after_its_lease(store: &StoreFixture) {
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    // Each lease is longer than the one before.
    for (worker, epoch) in [(8, 2), (9, 3), (8, 4)] {
        for _ in 2..epoch {
            (store.advance_time)(LEASE).await;
        }
        store.end_leases().await;
        let lease = LEASE * u32::try_from(epoch).expect("a small number");
        let claimed = store.locks().claim(WorkerId(worker), lease).await;
        let claimed = claimed.expect("the store answers");
        let claimed = claimed.unwrap_or_else(|| panic!("no claim of epoch {epoch}"));
        let intent = claimed.intent().expect("the write is still prepared");
        assert_eq!(
            (claimed.id, intent.worker, intent.epoch, intent.lease),
            (write.id, WorkerId(worker), Epoch(epoch), lease)
        );
        let stored = store.load(1).await;
        let stored = stored.unfinished(write.id).and_then(Write::intent);
        assert_eq!(stored, Some(intent));
    }
}

/// A committed or aborted write is never claimed.
pub async fn closed_intent_is_never_claimed(store: &StoreFixture) {
    for (lock, write) in [(1, 10), (2, 11)] {
        store.with_lock(lock).await;
        store.send(lock, write).await;
    }
    let aborted = store.prepare(1, 12).await;
    store.abort(1, &aborted).await;
    store.end_leases().await;
    assert_eq!(store.locks().claim(WorkerId(8), LEASE).await, Ok(None));
}

/// Of several intents whose leases have ended, the longest overdue is claimed first.
pub async fn longest_overdue_intent_is_claimed_first(store: &StoreFixture) {
    // Neither the ids of the locks nor those of the writes are in the order of the leases.
    let intents = [(2, 11), (3, 12), (1, 10)];
    for (lock, write) in intents {
        store.with_lock(lock).await;
        store.prepare(lock, write).await;
        // A store may use what it read up to 250 ms ago.
        (store.advance_time)(Duration::from_secs(1)).await;
        let claimed = store.locks().claim(IDLE_CLAIMER, LEASE).await;
        assert_eq!(claimed, Ok(None), "no lease has ended");
    }
    (store.advance_time)(LEASE).await;
    for (_, write) in intents {
        let claimed = store.locks().claim(WorkerId(8), LEASE).await;
        let claimed = claimed.expect("the store answers").map(|write| write.id);
        assert_eq!(claimed, Some(WriteId::from_u128(write)));
    }
}
