//! Cases for the end of a process and the next start.

use keywright_domain::model::{Epoch, IdempotencyRecord, Lock, WorkerId, Write};
use keywright_domain::policy;

use super::fixture::{Ending, StoreFixture};
use crate::samples::{LEASE, NOW, created, lock_id, scope};

/// A save that was answered is there after a crash, with its write, its event, the shadow's version and its idempotency record.
pub async fn save_survives_a_crash(store: &mut StoreFixture) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    let record = record_of(&sent);
    let save = policy::record_without_event(&store.load(1).await, record.clone(), NOW);
    store.locks().save(save).await.expect("the record is saved");
    let (before, events) = (store.load(1).await, store.events(1).await);
    store.end_process(Ending::Crash).await;
    assert_eq!(store.load(1).await, before, "the lock after a crash");
    assert_eq!(store.events(1).await, events, "the events after a crash");
    let found = store.history().idempotency_record(&record.scope).await;
    assert_eq!(found, Ok(Some(record)), "the record after a crash");
}

/// A claim that was answered is there after a crash, with its worker, its epoch and the lock's revision.
pub async fn claim_survives_a_crash(store: &mut StoreFixture) {
    store.with_lock(1).await;
    store.prepare(1, 10).await;
    (store.advance_time)(LEASE).await;
    let mut claimed = store.locks().claim(WorkerId(8), LEASE).await;
    if claimed == Ok(None) {
        // The store may measure the lease from the claim that finds it.
        (store.advance_time)(LEASE).await;
        claimed = store.locks().claim(WorkerId(8), LEASE).await;
    }
    assert!(matches!(claimed, Ok(Some(_))), "{claimed:?}");
    let before = store.load(1).await;
    store.end_process(Ending::Crash).await;
    assert_eq!(store.load(1).await, before, "the lock after a crash");
}

/// An import that was answered is there after a crash.
pub async fn import_survives_a_crash(store: &mut StoreFixture) {
    let before = store.with_lock(1).await;
    store.end_process(Ending::Crash).await;
    let found = store.locks().load(lock_id(1)).await;
    assert_eq!(found, Ok(Some(before)));
}

/// After a clean end, everything is there again: locks, events, ended and open writes, and idempotency records.
pub async fn clean_end_loses_nothing(store: &mut StoreFixture) {
    store.with_lock(1).await;
    store.with_lock(2).await;
    let sent = store.send(1, 10).await;
    let settled = store.fail(1, &sent).await;
    let open = store.send(2, 11).await;
    let record = record_of(&settled);
    let save = policy::record_without_event(&store.load(1).await, record.clone(), NOW);
    store.locks().save(save).await.expect("the record is saved");
    let before = (store.load(1).await, store.load(2).await);
    let events_before = store.events(1).await;
    store.end_process(Ending::Clean).await;
    assert_eq!((store.load(1).await, store.load(2).await), before);
    assert_eq!(store.events(1).await, events_before);
    let found = store.history().idempotency_record(&record.scope).await;
    assert_eq!(found, Ok(Some(record)));
    for write in [settled, open] {
        assert_eq!(store.stored(write.id.as_u128()).await, Some(write));
    }
    let events = store.events(2).await;
    assert_eq!(Ok(store.load(2).await.lock), Lock::fold(&events));
    assert_eq!(events.first(), Some(&created(lock_id(2))));
}

fn record_of(write: &Write) -> IdempotencyRecord {
    IdempotencyRecord {
        scope: scope("key"),
        slot: write.slot.clone(),
        write: write.id,
        version_without_event: None,
        answer_deadline: NOW,
        expires_at: NOW.after(LEASE),
    }
}

/// An intent of a process that crashed can be claimed at the latest when its lease has ended since the next start.
pub async fn intent_is_claimed_after_a_crash(store: &mut StoreFixture) {
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    store.end_process(Ending::Crash).await;
    let mut claimed = store.locks().claim(WorkerId(8), LEASE).await;
    if claimed == Ok(None) {
        (store.advance_time)(LEASE).await;
        claimed = store.locks().claim(WorkerId(8), LEASE).await;
    }
    let claimed = claimed.expect("the store answers").expect("the intent");
    let epoch = claimed.intent().map(|intent| intent.epoch);
    assert_eq!((claimed.id, epoch), (write.id, Some(Epoch(2))));
}
