//! Cases for imports, saves and loads.

use keywright_domain::model::{
    Anomaly, DeviceOutcome, KeyIndex, Lock, LockEvent, LockSnapshot, LockVersion, RecordedEvent,
    ReportedSlot, ShadowVersion, Write, WriteId,
};
use keywright_domain::policy::{self, Limits, ReportDecision, ReportedResult};
use keywright_domain::ports::{ImportError, RepoError};

use super::fixture::{StoreFixture, empty_save};
use crate::samples::{NOW, SHADOW_VERSION, created, lock_id, owner, prepared, slot, thing};

/// A lock that was never imported loads as `None`. It has no events and no writes.
pub async fn unknown_lock_loads_as_none(store: &StoreFixture) {
    assert_eq!(store.locks().load(lock_id(404)).await, Ok(None));
    assert_eq!(
        store.history().write(WriteId::from_u128(404)).await,
        Ok(None)
    );
    assert_eq!(store.events(404).await, []);
}

/// An imported lock is the fold of its events, with every member, also in an import that is too large for one statement of a database.
pub async fn imported_lock_is_the_fold_of_its_events(store: &StoreFixture) {
    let snapshot = store.with_lock(1).await;
    assert_eq!(Ok(snapshot.lock), Lock::fold(&[created(lock_id(1))]));
    assert_eq!(store.events(1).await, [created(lock_id(1))]);
    let many: Vec<_> = (2..=3001).map(|lock| created(lock_id(lock))).collect();
    let last = many.last().expect("events").clone();
    store.history().import(many).await.expect("imported");
    let found = store.locks().load(last.lock).await;
    let found = found.expect("the store answers").expect("the last lock");
    assert_eq!(Ok(found.lock), Lock::fold(&[last]));
}

/// An import with an invalid event appends none of its events.
pub async fn import_is_atomic(store: &StoreFixture) {
    let mut gap = created(lock_id(2));
    gap.version = LockVersion(3);
    let events = vec![created(lock_id(1)), created(lock_id(2)), gap];
    let imported = store.history().import(events).await;
    assert!(
        matches!(imported, Err(ImportError::NotAStream { .. })),
        "{imported:?}"
    );
    for lock in [1, 2] {
        let loaded = store.locks().load(lock_id(lock)).await;
        assert_eq!(loaded, Ok(None), "lock {lock} was imported");
    }
}

/// An import for a known lock makes saves stale that were decided before.
pub async fn import_makes_earlier_saves_stale(store: &StoreFixture) {
    let old = store.with_lock(1).await;
    store.import_owner(&old).await;
    let (_, save) = prepared(&old, 10, slot("key", None));
    assert_eq!(store.locks().save(save).await, Err(RepoError::Stale));
}

/// An import for a known lock appends its events, and keeps the shadow's version and the unfinished writes.
pub async fn import_keeps_what_is_known(store: &StoreFixture) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    let before = store.load(1).await;
    store.import_owner(&before).await;
    let after = store.load(1).await;
    let ids = |writes: &[Write]| writes.iter().map(|write| write.id).collect::<Vec<_>>();
    assert_eq!(ids(&after.unfinished), [sent.id]);
    assert_eq!(ids(&after.uncleared), ids(&before.uncleared));
    assert_eq!(after.shadow_version, before.shadow_version);
    assert_eq!(Ok(after.lock), Lock::fold(&store.events(1).await));
}

/// A save without a shadow version keeps the one that is known.
pub async fn save_without_shadow_version_keeps_the_known_one(store: &StoreFixture) {
    store.with_lock(1).await;
    store.send(1, 10).await;
    let before = store.load(1).await;
    assert_eq!(before.shadow_version, Some(SHADOW_VERSION));
    let unchanged = empty_save(&before);
    store
        .locks()
        .save(unchanged)
        .await
        .expect("the save is applied");
    assert_eq!(store.load(1).await.shadow_version, Some(SHADOW_VERSION));
}

/// A saved write is read back with every member, with its lock and from the history.
pub async fn saved_write_is_read_back(store: &StoreFixture) {
    store.with_lock(1).await;
    let prepared = store.prepare(1, 10).await;
    let snapshot = store.load(1).await;
    assert_eq!(snapshot.unfinished, std::slice::from_ref(&prepared));
    assert_eq!(store.history().write(prepared.id).await, Ok(Some(prepared)));
}

/// A commit appends its event to the stream and stores the shadow's version.
pub async fn commit_appends_its_event(store: &StoreFixture) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    let snapshot = store.load(1).await;
    let events = store.events(1).await;
    let versions: Vec<u64> = events.iter().map(|e| e.version.0).collect();
    assert_eq!(versions, [1, 2]);
    assert_eq!(events.last(), sent.requested_event().as_ref());
    assert_eq!(Ok(snapshot.lock), Lock::fold(&events));
    assert_eq!(snapshot.shadow_version, Some(SHADOW_VERSION));
}

/// A write that its lock has settled is no longer unfinished, has an uncleared result, and keeps its reason.
pub async fn settled_write_keeps_its_reason(store: &StoreFixture) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    let settled = store.fail(1, &sent).await;
    let snapshot = store.load(1).await;
    assert!(snapshot.unfinished.is_empty());
    assert_eq!(snapshot.uncleared, std::slice::from_ref(&settled));
    assert_eq!(store.history().write(settled.id).await, Ok(Some(settled)));
    let last = store.events(1).await.pop().expect("an event").event;
    assert!(matches!(last, LockEvent::KeyWriteFailed { .. }), "{last:?}");
}

/// A write keeps the anomalies of the lock's results, and the slot that the lock reported.
pub async fn write_keeps_its_anomalies(store: &StoreFixture) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    let settled = store.fail(1, &sent).await;
    let snapshot = store.load(1).await;
    let other = KeyIndex::new(77).expect("a key index");
    let reported = ReportedResult {
        thing: &thing(lock_id(1)),
        shadow_version: Some(ShadowVersion(7)),
        outcome: &DeviceOutcome::Succeeded {
            slot: ReportedSlot::Index(other),
        },
        entry_remains: true,
    };
    let limits = Limits::default();
    let decision = policy::decide_report(&snapshot, Some(&settled), &reported, &limits, NOW);
    let ReportDecision::Record(after, save) = decision else {
        panic!("the contradiction is new")
    };
    let expected = [
        Anomaly::ContradictingResult,
        Anomaly::OtherSlot,
        Anomaly::EntryLeft,
    ];
    assert_eq!(
        (&after.anomalies, after.reported_index),
        (&expected.into(), Some(other))
    );
    store.locks().save(save).await.expect("the report is saved");
    assert_eq!(store.history().write(after.id).await, Ok(Some(*after)));
}

/// A superseded write is not loaded with its lock. The history still has it, with its next check.
pub async fn superseded_write_is_not_live(store: &StoreFixture) {
    store.with_lock(1).await;
    store.send(1, 10).await;
    let newer = store.send(1, 11).await;
    let snapshot = store.load(1).await;
    let unfinished: Vec<WriteId> = snapshot.unfinished.iter().map(|w| w.id).collect();
    assert_eq!(unfinished, [newer.id]);
    let older = store.stored(10).await.expect("the write is stored");
    assert_eq!(older.state.name(), "SUPERSEDED");
    assert!(older.next_check_at.is_some());
}

/// A save that names an older revision, or one that the lock does not have yet, is stale and changes nothing.
pub async fn stale_save_changes_nothing(store: &StoreFixture) {
    let old = store.with_lock(1).await;
    store.send(1, 10).await;
    let before = store.load(1).await;
    let (late, save) = prepared(&old, 11, slot("other", None));
    assert_eq!(store.locks().save(save).await, Err(RepoError::Stale));
    let (early, mut save) = prepared(&before, 12, slot("other", None));
    save.revision = before.revision.next();
    assert_eq!(store.locks().save(save).await, Err(RepoError::Stale));
    assert_eq!(store.load(1).await, before);
    for write in [late, early] {
        assert_eq!(store.history().write(write.id).await, Ok(None));
    }
}

/// An abort increments the revision by one. It appends no event and leaves the lock's version as it was.
pub async fn abort_appends_no_event(store: &StoreFixture) {
    let before = store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    let prepared = store.load(1).await;
    store.abort(1, &write).await;
    let after = store.load(1).await;
    assert_eq!((after.lock, after.unfinished.len()), (before.lock, 0));
    assert_eq!(after.revision, prepared.revision.next());
    assert_eq!(store.events(1).await.len(), 1);
}

impl StoreFixture {
    /// Imports a change of the owner.
    async fn import_owner(&self, known: &LockSnapshot) {
        let event = RecordedEvent {
            version: known.lock.version.next(),
            event: LockEvent::OwnerSet { user: owner() },
            ..created(known.lock.id)
        };
        let imported = self.history().import(vec![event]).await;
        imported.expect("the event is imported");
    }
}
