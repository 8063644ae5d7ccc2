//! Cases for the reads of `LockHistory`, idempotency records, and purging.

use std::time::Duration;

use keywright_domain::model::{
    Backlog, DueCursor, IdempotencyRecord, IdempotencyScope, Identity, Lock, LockVersion,
    Principal, Timestamp, WorkerId, Write, WriteId,
};
use keywright_domain::policy;
use keywright_domain::ports::RepoError;

use super::fixture::StoreFixture;
use crate::samples::{LEASE, NOW, created, lock_id, prepared, scope, slot};

/// Due writes are ordered by the time of their check and then by id, in pages of the requested size. Others are not listed.
pub async fn due_writes_are_ordered(store: &StoreFixture) {
    // The ids are not in the order of the checks, and two checks are at the same time.
    let at = |seconds| NOW.after(Duration::from_secs(seconds));
    for (lock, id, seconds) in [(1, 9, 10), (2, 8, 20), (3, 6, 20), (4, 7, 30), (5, 5, 40)] {
        store.with_lock(lock).await;
        let write = store.send(lock, id).await;
        store
            .put(&Write {
                next_check_at: Some(at(seconds)),
                ..write
            })
            .await;
    }
    let ids = |ids: &[u128]| {
        ids.iter()
            .copied()
            .map(WriteId::from_u128)
            .collect::<Vec<_>>()
    };
    assert_eq!(store.due(at(30), 2).await, ids(&[9, 6]), "the first page");
    let after = Some(DueCursor {
        at: at(20),
        id: WriteId::from_u128(6),
    });
    let rest = store.history().due(at(30), after, 9).await;
    let rest = rest.expect("the store answers").into_iter();
    let rest: Vec<WriteId> = rest.map(|write| write.id).collect();
    assert_eq!(rest, ids(&[8, 7]), "the page after a cursor");
    assert_eq!(store.due(NOW, 9).await, [], "nothing is due yet");
}

/// A page of events starts at the requested version and has no more events than requested.
pub async fn event_page_starts_at_version_and_respects_limit(store: &StoreFixture) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    store.fail(1, &sent).await;
    let page = store.history().events(lock_id(1), LockVersion(2), 1).await;
    let page = page.expect("the store answers").into_iter();
    let versions: Vec<u64> = page.map(|event| event.version.0).collect();
    assert_eq!(versions, [2]);
}

/// Locks are listed by their ids, in pages of the requested size, after the given id.
pub async fn locks_are_listed_in_pages(store: &StoreFixture) {
    for lock in [3, 1, 2] {
        store.with_lock(lock).await;
    }
    let page = async |after, limit| {
        let locks = store.history().locks(after, limit).await;
        locks.expect("the store answers")
    };
    let ids = |locks: Vec<Lock>| locks.iter().map(|lock| lock.id.get()).collect::<Vec<_>>();
    assert_eq!(ids(page(None, 2).await), [1, 2]);
    assert_eq!(ids(page(Some(lock_id(2)), 2).await), [3]);
    let first = page(None, 1).await;
    let expected = Lock::fold(&[created(lock_id(1))]);
    assert_eq!(Ok(&first[0]), expected.as_ref());
}

/// Writes of all locks are listed by their ids, the greatest first, in pages of the requested size, below the given id.
pub async fn writes_are_listed_newest_first(store: &StoreFixture) {
    store.with_lock(1).await;
    store.with_lock(2).await;
    let sent = store.send(2, 10).await;
    store.fail(2, &sent).await;
    store.send(1, 12).await;
    store.send(2, 11).await;
    let newest = store.prepare(1, 1 << 100).await;
    let page = async |before: Option<u128>, limit| {
        let before = before.map(WriteId::from_u128);
        let writes = store.history().writes(before, limit).await;
        writes.expect("the store answers")
    };
    let ids = |writes: &[Write]| writes.iter().map(|w| w.id.as_u128()).collect::<Vec<_>>();
    let first = page(None, 3).await;
    assert_eq!(ids(&first), [1 << 100, 12, 11]);
    assert_eq!(first[0], newest);
    assert_eq!(ids(&page(Some(11), 3).await), [10]);
    assert_eq!(ids(&page(Some(13), 1).await), [12]);
}

fn record(
    scope: &IdempotencyScope,
    write: u128,
    version_without_event: Option<LockVersion>,
) -> IdempotencyRecord {
    IdempotencyRecord {
        scope: scope.clone(),
        slot: slot("key", Some(2)),
        write: WriteId::from_u128(write),
        version_without_event,
        answer_deadline: NOW.after(LEASE / 2),
        expires_at: NOW.after(LEASE),
    }
}

/// An idempotency record of a save is read back by its scope. A later record of the same scope replaces it.
pub async fn idempotency_record_is_read_back(store: &StoreFixture) {
    let stored = async |scope: &IdempotencyScope| {
        let record = store.history().idempotency_record(scope).await;
        record.expect("the store answers")
    };
    let snapshot = store.with_lock(1).await;
    let (quoted, other) = (scope("a \"quoted\" key"), scope("another key"));
    assert_eq!(stored(&quoted).await, None);
    let (_, mut save) = prepared(&snapshot, 10, slot("key", Some(2)));
    let first = record(&quoted, 10, None);
    save.idempotency = Some(Box::new(first.clone()));
    store.locks().save(save).await.expect("the intent is saved");
    assert_eq!(stored(&quoted).await, Some(first));
    assert_eq!(stored(&other).await, None);
    let snapshot = store.load(1).await;
    let second = record(&quoted, 11, Some(LockVersion(7)));
    let save = policy::record_without_event(&snapshot, second.clone(), NOW);
    store.locks().save(save).await.expect("the record is saved");
    assert_eq!(stored(&quoted).await, Some(second));
    assert!(store.load(1).await.revision > snapshot.revision);
}

/// The idempotency records of two principals, and of two locks, are apart although their keys are the same.
pub async fn idempotency_records_of_principals_are_apart(store: &StoreFixture) {
    let first = scope("key");
    let other = Principal::of(Identity::EveryOrganization);
    let scopes = [
        first.clone(),
        IdempotencyScope::new(lock_id(1), &other, first.key.clone()),
        IdempotencyScope {
            lock: lock_id(2),
            ..first
        },
    ];
    for lock in [1, 2] {
        store.with_lock(lock).await;
    }
    for (scope, write) in scopes.iter().zip(10..) {
        let found = store.history().idempotency_record(scope).await;
        assert_eq!(found, Ok(None), "{scope:?}");
        let snapshot = store.load(scope.lock.get()).await;
        let save = policy::record_without_event(&snapshot, record(scope, write, None), NOW);
        store.locks().save(save).await.expect("the record is saved");
    }
    for (scope, write) in scopes.iter().zip(10..) {
        let found = store.history().idempotency_record(scope).await;
        assert_eq!(found, Ok(Some(record(scope, write, None))));
    }
}

/// A stale save stores no idempotency record.
pub async fn stale_save_stores_no_idempotency_record(store: &StoreFixture) {
    let old = store.with_lock(1).await;
    store.prepare(1, 10).await;
    let scope = scope("key");
    let save = policy::record_without_event(&old, record(&scope, 10, None), NOW);
    assert_eq!(store.locks().save(save).await, Err(RepoError::Stale));
    assert_eq!(store.history().idempotency_record(&scope).await, Ok(None));
}

/// The backlog counts intents with the age of the oldest, open writes, and unconfirmed ones: those sent too long ago, or in the
/// future by a clock that was set back since.
pub async fn backlog_counts_unfinished_writes(store: &StoreFixture) {
    let backlog = async |now: Timestamp| {
        let recent_times = now.before(LEASE / 2)..=now.after(LEASE / 2);
        let backlog = store.history().backlog(recent_times).await;
        backlog.expect("the store answers")
    };
    assert_eq!(backlog(NOW).await, Backlog::default());
    for lock in [1, 2, 3] {
        store.with_lock(lock).await;
    }
    store.prepare(1, 10).await;
    store.send(2, 11).await;
    let settled = store.send(3, 12).await;
    store.fail(3, &settled).await;
    // A store may use what it read up to 250 ms ago.
    let moment = Duration::from_secs(1);
    (store.advance_time)(moment).await;
    let first = backlog(NOW).await;
    let age = first.oldest_intent.expect("an intent is open");
    assert!(age <= moment, "{age:?}");
    let mut expected = Backlog {
        intents: 1,
        oldest_intent: Some(age),
        open: 1,
        unconfirmed: 0,
    };
    assert_eq!(first, expected);
    let later = Duration::from_secs(7);
    (store.advance_time)(later).await;
    // A step of the wall clock does not change the age.
    (store.set_wall_clock)(3_600_000).await;
    expected.oldest_intent = Some(age + later);
    expected.unconfirmed = 1;
    assert_eq!(backlog(NOW.after(LEASE)).await, expected);
    assert_eq!(backlog(NOW.before(LEASE)).await, expected);
    (store.advance_time)(LEASE).await;
    // Whether it claims the intent or not, the age goes on.
    let claimed = store.locks().claim(WorkerId(8), LEASE).await;
    claimed.expect("the store answers");
    let oldest = backlog(NOW.after(LEASE)).await.oldest_intent;
    let goes_on = oldest >= Some(age + later + LEASE);
    assert!(goes_on, "a claim starts the age anew: {oldest:?}");
}

/// A purge deletes expired idempotency records and old ended writes, at most as many as requested. It deletes no open write, no
/// write with a next check, and no event.
pub async fn purge_deletes_only_what_has_expired(store: &StoreFixture) {
    for lock in [1, 2, 3] {
        store.with_lock(lock).await;
    }
    let (scope, sent) = (scope("key"), store.send(1, 10).await);
    let uncleared = store.send(2, 11).await;
    let uncleared = store.fail(2, &uncleared).await;
    for write in [12, 13, 14] {
        let aborted = store.prepare(3, write).await;
        store.abort(3, &aborted).await;
    }
    let save = policy::record_without_event(&store.load(1).await, record(&scope, 10, None), NOW);
    store.locks().save(save).await.expect("the record is saved");

    let purge = async |now, ended_before, limit| {
        let deleted = store.history().purge(now, ended_before, limit).await;
        deleted.expect("the store answers")
    };
    assert_eq!(purge(NOW, NOW, 9).await, 0, "nothing has expired yet");
    let later = NOW.after(LEASE);
    assert_eq!(purge(NOW, later, 2).await, 2, "no more than the limit");
    assert_eq!(purge(later, later, 9).await, 2, "one write, one record");
    assert_eq!(purge(later, later, 9).await, 0);
    assert_eq!(store.history().idempotency_record(&scope).await, Ok(None));
    for id in [12, 13, 14] {
        assert_eq!(store.stored(id).await, None);
    }
    for left in [sent, uncleared] {
        let id = left.id;
        assert_eq!(store.history().write(id).await, Ok(Some(left)));
    }
    assert_eq!(store.events(1).await.len(), 2);
}

/// A purge deletes no prepared write, however old it is.
pub async fn purge_keeps_prepared_writes(store: &StoreFixture) {
    store.with_lock(1).await;
    let prepared = store.prepare(1, 10).await;
    let later = NOW.after(1000 * LEASE);
    assert_eq!(store.history().purge(later, later, 9).await, Ok(0));
    assert_eq!(store.stored(10).await.as_ref(), Some(&prepared));
    assert!(store.load(1).await.unfinished(prepared.id).is_some());
}
