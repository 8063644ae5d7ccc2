//! Cases for every state, event type, reason, time and text that a store has to keep.

use keywright_domain::model::{IdempotencyRecord, KeyIndex, Lock, LockEvent, Save, Write};
use keywright_domain::policy::{self, Limits};

use super::fixture::{StoreFixture, empty_save};
use crate::samples::{
    self, LEASE, NOW, created, every_event, every_reason, every_state, lock_id, prepared, slot,
};

async fn assert_read_back(store: &StoreFixture, write: Write) {
    store.put(&write).await;
    let stored = store.stored(write.id.as_u128()).await;
    assert_eq!(stored, Some(write));
}

/// A write in each state is read back with that state, and with whether its result came late.
pub async fn every_state_is_read_back(store: &StoreFixture) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    for state in every_state() {
        for next_check_at in [sent.next_check_at, None] {
            let write = Write {
                next_check_at,
                ..samples::in_state(&sent, state.clone())
            };
            assert_read_back(store, write).await;
        }
    }
}

/// A failed or aborted write is read back with its reason, whichever it is.
pub async fn every_reason_is_read_back(store: &StoreFixture) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    for reason in every_reason() {
        for state in samples::failures(&reason) {
            assert_read_back(store, samples::in_state(&sent, state)).await;
        }
    }
}

/// All times are read back to the millisecond: those of a write, of an event and of an idempotency record.
pub async fn times_are_read_back_to_the_millisecond(store: &StoreFixture) {
    let mut event = created(lock_id(1));
    event.time = samples::millis_after(NOW, 1);
    let imported = store.history().import(vec![event.clone()]).await;
    imported.expect("the lock is imported");
    assert_eq!(store.events(1).await, [event]);
    let (write, save) = prepared(&store.load(1).await, 10, slot("key", None));
    let write = Write {
        prepared_at: samples::millis_after(NOW, 2),
        expires_at: samples::millis_after(NOW, 3),
        ..write
    };
    let record = IdempotencyRecord {
        scope: samples::scope("key"),
        slot: write.slot.clone(),
        write: write.id,
        version_without_event: None,
        answer_deadline: samples::millis_after(NOW, 4),
        expires_at: samples::millis_after(NOW, 5),
    };
    let save = Save {
        writes: vec![write.clone()],
        idempotency: Some(Box::new(record.clone())),
        ..save
    };
    store.locks().save(save).await.expect("the intent is saved");
    assert_eq!(store.stored(10).await.as_ref(), Some(&write));
    let found = store.history().idempotency_record(&record.scope).await;
    assert_eq!(found, Ok(Some(record)));
    let snapshot = store.load(1).await;
    let at = samples::millis_after(NOW, 6);
    let (sent, save) = policy::commit(
        &snapshot,
        &write,
        samples::SHADOW_VERSION,
        &[],
        &Limits::default(),
        at,
    );
    store.locks().save(save).await.expect("the commit is saved");
    let expired = samples::in_state(&sent, samples::expired_at(samples::millis_after(NOW, 7)));
    assert_read_back(
        store,
        Write {
            next_check_at: Some(samples::millis_after(NOW, 8)),
            ..expired
        },
    )
    .await;
}

/// The longest texts are read back, with quotes, backslashes and characters of four bytes.
pub async fn longest_texts_are_read_back(store: &StoreFixture) {
    let event = samples::created_with_longest_texts(lock_id(1));
    let imported = store.history().import(vec![event.clone()]).await;
    imported.expect("the lock is imported");
    assert_eq!(Ok(store.load(1).await.lock), Lock::fold([&event]));
    assert_eq!(store.events(1).await, [event]);
    let (write, save) = samples::prepared_with_longest_texts(&store.load(1).await, 10);
    store.locks().save(save).await.expect("the intent is saved");
    assert_eq!(store.stored(10).await.as_ref(), Some(&write));
    let scope = samples::longest_scope();
    let record = IdempotencyRecord {
        scope: scope.clone(),
        slot: write.slot.clone(),
        write: write.id,
        version_without_event: None,
        answer_deadline: NOW.after(LEASE),
        expires_at: NOW.after(LEASE),
    };
    let save = policy::record_without_event(&store.load(1).await, record.clone(), NOW);
    store.locks().save(save).await.expect("the record is saved");
    let found = store.history().idempotency_record(&scope).await;
    assert_eq!(found, Ok(Some(record)));
}

/// The largest numbers are read back: a lock id, a key index and a key capacity of 2⁵³ − 1.
pub async fn largest_numbers_are_read_back(store: &StoreFixture) {
    let event = samples::created_with_largest_numbers();
    let imported = store.history().import(vec![event.clone()]).await;
    imported.expect("the lock is imported");
    let id = event.lock.get();
    assert_eq!(Ok(store.load(id).await.lock), Lock::fold([&event]));
    assert_eq!(store.events(id).await, [event]);
    let index = KeyIndex::new(keywright_domain::model::MAX_JSON_INTEGER).ok();
    let (mut write, mut save) = prepared(&store.load(id).await, u128::MAX, slot("key", None));
    (write.slot.index, write.reported_index) = (index, index);
    save.writes = vec![write.clone()];
    store.locks().save(save).await.expect("the intent is saved");
    assert_eq!(store.stored(u128::MAX).await, Some(write));
}

/// Events of every type are read back with all their members, imported ones and those of writes.
pub async fn events_of_every_type_are_read_back(store: &StoreFixture) {
    store.with_lock(1).await;
    let events = every_event(lock_id(1));
    let (vendor, own): (Vec<_>, Vec<_>) = events.iter().cloned().partition(|e| e.write.is_none());
    let created = |event: &LockEvent| matches!(event, LockEvent::LockCreated(_));
    let vendor = vendor.into_iter().filter(|e| !created(&e.event)).collect();
    store
        .history()
        .import(vendor)
        .await
        .expect("the events are imported");
    for event in own {
        let snapshot = store.load(1).await;
        let mut lock = snapshot.lock.clone();
        lock.apply(&event).expect("the next event");
        let save = Save {
            events: vec![event],
            folded: Some(Box::new(lock)),
            ..empty_save(&snapshot)
        };
        store.locks().save(save).await.expect("the event is saved");
    }
    assert_eq!(Ok(store.load(1).await.lock), Lock::fold(&events));
    assert_eq!(store.events(1).await, events);
}
