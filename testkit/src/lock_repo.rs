//! The contract of `LockRepo` and `LockHistory`.

use std::time::Duration;

use keywright_domain::event::{LockEvent, RecordedEvent};
use keywright_domain::lock::{Lock, LockSnapshot};
use keywright_domain::ports::{DeviceOutcome, ImportError, LockHistory, LockRepo, RepoError};
use keywright_domain::reason::FailureReason;
use keywright_domain::rules::{self, Limits, ReportDecision};
use keywright_domain::values::{DeviceCode, Epoch, LockVersion, ShadowVersion, Timestamp, WriteId};
use keywright_domain::write::{Owner, Write};

use crate::samples::{LEASE, NOW, created, lock_id, prepared, slot, thing};

/// A fresh store, and the means to let its clock run.
pub struct Store<'a> {
    /// The locks.
    pub locks: &'a dyn LockRepo,
    /// Reads over the same store.
    pub history: &'a dyn LockHistory,
    /// Lets the clock that counts leases run on.
    pub pass: &'a (dyn Fn(Duration) + Sync),
}

impl Store<'_> {
    async fn load(&self, id: u64) -> LockSnapshot {
        let known = self
            .locks
            .load(lock_id(id))
            .await
            .expect("the store answers");
        known.expect("the lock exists")
    }

    async fn with_lock(&self, id: u64) -> LockSnapshot {
        self.history
            .import(vec![created(lock_id(id))])
            .await
            .expect("the lock is imported");
        self.load(id).await
    }

    async fn prepare(&self, lock: u64, write: u128) -> Write {
        let (write, save) = prepared(&self.load(lock).await, write, slot("key", Some(2)));
        self.locks.save(save).await.expect("the intent is saved");
        write
    }

    async fn send(&self, lock: u64, write: u128) -> Write {
        let prepared = self.prepare(lock, write).await;
        let (snapshot, limits) = (self.load(lock).await, Limits::default());
        let (sent, save) = rules::commit(&snapshot, &prepared, ShadowVersion(5), &[], &limits, NOW);
        self.locks.save(save).await.expect("the commit is saved");
        sent
    }

    async fn fail(&self, lock: u64, sent: &Write) -> Write {
        let (snapshot, limits) = (self.load(lock).await, Limits::default());
        let code = DeviceCode::new("E42").expect("a device code");
        let outcome = DeviceOutcome::Failed(FailureReason::DeviceError(code));
        let (from, version) = (thing(lock_id(lock)), Some(ShadowVersion(6)));
        let decision = rules::decide_report(
            &snapshot,
            Some(sent),
            &from,
            version,
            &outcome,
            &limits,
            NOW,
        );
        let ReportDecision::Record(after, save) = decision else {
            panic!("the report is news")
        };
        self.locks.save(save).await.expect("the report is saved");
        *after
    }

    async fn events(&self, lock: u64) -> Vec<RecordedEvent> {
        self.history
            .events(lock_id(lock), LockVersion(1), 1000)
            .await
            .expect("the store answers")
    }

    async fn due(&self, until: Timestamp, limit: usize) -> Vec<WriteId> {
        let due = self
            .history
            .due(until, None, limit)
            .await
            .expect("the store answers");
        due.into_iter().map(|w| w.id).collect()
    }
}

/// A lock that was never imported is unknown, and so are its events and writes.
pub async fn an_unknown_lock_is_none(store: &Store<'_>) {
    assert_eq!(store.locks.load(lock_id(404)).await, Ok(None));
    assert_eq!(store.history.write(WriteId::from_u128(404)).await, Ok(None));
    assert_eq!(store.events(404).await, []);
}

/// What was imported is the fold of the events, with every member.
pub async fn an_imported_lock_is_the_fold_of_its_events(store: &Store<'_>) {
    let snapshot = store.with_lock(1).await;
    assert_eq!(Ok(snapshot.lock), Lock::fold(&[created(lock_id(1))]));
    assert_eq!(store.events(1).await, [created(lock_id(1))]);
}

/// An import is done whole or not at all.
pub async fn an_import_is_all_or_nothing(store: &Store<'_>) {
    let mut gap = created(lock_id(2));
    gap.version = LockVersion(3);
    let done = store
        .history
        .import(vec![created(lock_id(1)), created(lock_id(2)), gap])
        .await;
    assert!(
        matches!(done, Err(ImportError::NotAStream { .. })),
        "{done:?}"
    );
    for lock in [1, 2] {
        assert_eq!(
            store.locks.load(lock_id(lock)).await,
            Ok(None),
            "lock {lock} was imported"
        );
    }
}

/// A saved write comes back with every member, from the lock and from the history.
pub async fn a_saved_write_comes_back(store: &Store<'_>) {
    store.with_lock(1).await;
    let prepared = store.prepare(1, 10).await;
    let snapshot = store.load(1).await;
    assert_eq!(snapshot.unfinished, std::slice::from_ref(&prepared));
    assert_eq!(store.history.write(prepared.id).await, Ok(Some(prepared)));
}

/// A commit appends at the head of the stream, and keeps the shadow's version.
pub async fn a_commit_appends_its_event(store: &Store<'_>) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    let snapshot = store.load(1).await;
    let events = store.events(1).await;
    assert_eq!(
        events.iter().map(|e| e.version.0).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(events.last(), sent.requested_event().as_ref());
    assert_eq!(Ok(snapshot.lock), Lock::fold(&events));
    assert_eq!(snapshot.shadow_version, Some(ShadowVersion(5)));
}

/// A write that its lock settled is no longer unfinished, waits to be cleared, and keeps its reason.
pub async fn a_settled_write_keeps_its_reason(store: &Store<'_>) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    let settled = store.fail(1, &sent).await;
    let snapshot = store.load(1).await;
    assert!(snapshot.unfinished.is_empty());
    assert_eq!(snapshot.uncleared, std::slice::from_ref(&settled));
    assert_eq!(store.history.write(settled.id).await, Ok(Some(settled)));
    let last = store.events(1).await.pop().expect("an event").event;
    assert!(matches!(last, LockEvent::KeyWriteFailed { .. }), "{last:?}");
}

/// A save that was decided on an older revision changes nothing.
pub async fn a_stale_save_changes_nothing(store: &Store<'_>) {
    let old = store.with_lock(1).await;
    store.send(1, 10).await;
    let before = store.load(1).await;
    let (late, save) = prepared(&old, 11, slot("other", None));
    assert_eq!(store.locks.save(save).await, Err(RepoError::Stale));
    assert_eq!(store.load(1).await, before);
    assert_eq!(store.history.write(late.id).await, Ok(None));
}

/// An abort moves the revision and leaves the lock's version and stream alone.
pub async fn an_abort_leaves_the_stream_alone(store: &Store<'_>) {
    let before = store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    let snapshot = store.load(1).await;
    let save = rules::abort(&snapshot, &write, &FailureReason::Throttled, None, NOW);
    store.locks.save(save).await.expect("the abort is saved");
    let after = store.load(1).await;
    assert_eq!((after.lock, after.unfinished.len()), (before.lock, 0));
    assert!(after.revision > snapshot.revision);
    assert_eq!(store.events(1).await.len(), 1);
}

/// An intent is claimed only once its lease has ended, and then by one owner at a time.
pub async fn a_claim_waits_for_the_lease(store: &Store<'_>) {
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    assert_eq!(
        store.locks.claim(Owner(8), LEASE).await,
        Ok(None),
        "the lease has not ended"
    );
    (store.pass)(LEASE);
    let claimed = store
        .locks
        .claim(Owner(8), LEASE)
        .await
        .expect("the store answers");
    let claimed = claimed.expect("the lease has ended");
    let intent = *claimed.intent().expect("still prepared");
    assert_eq!(
        (claimed.id, intent.owner, intent.epoch),
        (write.id, Owner(8), Epoch(2))
    );
    assert_eq!(
        store.locks.claim(Owner(9), LEASE).await,
        Ok(None),
        "it was claimed a moment ago"
    );
}

/// After a claim, what the earlier owner decided is stale.
pub async fn a_claim_outdates_the_earlier_owner(store: &Store<'_>) {
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    let known = store.load(1).await;
    (store.pass)(LEASE);
    store
        .locks
        .claim(Owner(8), LEASE)
        .await
        .expect("the store answers")
        .expect("an intent");
    let save = rules::abort(&known, &write, &FailureReason::Throttled, None, NOW);
    assert_eq!(store.locks.save(save).await, Err(RepoError::Stale));
}

/// Due writes come by their moment, as many as were asked for, and none that is not due.
pub async fn due_writes_come_in_order(store: &Store<'_>) {
    for lock in [1, 2, 3] {
        store.with_lock(lock).await;
        store.send(lock, u128::from(10 - lock)).await;
    }
    let ids = |ids: [u128; 2]| ids.map(WriteId::from_u128).to_vec();
    let confirm = NOW.after(Limits::default().confirm_within);
    assert_eq!(store.due(confirm, 2).await, ids([7, 8]));
    let after = Some((confirm, WriteId::from_u128(7)));
    let rest = store
        .history
        .due(confirm, after, 9)
        .await
        .expect("the store answers");
    assert_eq!(
        rest.into_iter().map(|w| w.id).collect::<Vec<_>>(),
        ids([8, 9])
    );
    assert_eq!(store.due(NOW, 9).await, []);
}

/// Pages of the stream start where they are asked to and hold no more than that.
pub async fn pages_of_events_are_exact(store: &Store<'_>) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    store.fail(1, &sent).await;
    let page = store
        .history
        .events(lock_id(1), LockVersion(2), 1)
        .await
        .expect("the store answers");
    assert_eq!(page.iter().map(|e| e.version.0).collect::<Vec<_>>(), [2]);
}

/// Locks come by their ids, as many as were asked for, after the one that was named.
pub async fn locks_come_in_pages(store: &Store<'_>) {
    for lock in [3, 1, 2] {
        store.with_lock(lock).await;
    }
    let page = async |after, limit| {
        let locks = store.history.locks(after, limit).await;
        let locks = locks.expect("the store answers").into_iter();
        locks.map(|lock| lock.id.get()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2).await, [1, 2]);
    assert_eq!(page(Some(lock_id(2)), 2).await, [3]);
    let found = store
        .history
        .locks(None, 1)
        .await
        .expect("the store answers");
    assert_eq!(Ok(&found[0]), Lock::fold(&[created(lock_id(1))]).as_ref());
}

/// Stamps a test for each case: `lock_repo_cases!(fresh)`, where `fresh()` makes a `(locks, history,
/// pass)` of things that give `&dyn LockRepo`, `&dyn LockHistory` and `&dyn Fn(Duration)`.
#[macro_export]
macro_rules! lock_repo_cases {
    ($fresh:path) => {
        $crate::lock_repo_cases! { $fresh:
            an_unknown_lock_is_none, an_imported_lock_is_the_fold_of_its_events,
            an_import_is_all_or_nothing, a_saved_write_comes_back, a_commit_appends_its_event,
            a_settled_write_keeps_its_reason, a_stale_save_changes_nothing,
            an_abort_leaves_the_stream_alone, a_claim_waits_for_the_lease,
            a_claim_outdates_the_earlier_owner, due_writes_come_in_order, pages_of_events_are_exact,
            locks_come_in_pages
        }
    };
    ($fresh:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const LOCK_REPO_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name.
        pub async fn run_lock_repo_case(case: &str, store: &$crate::lock_repo::Store<'_>) {
            match case {
                $(stringify!($case) => $crate::lock_repo::$case(store).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test]
        async fn $case() {
            let (locks, history, pass) = $fresh();
            let store = $crate::lock_repo::Store { locks: &*locks, history: &*history, pass: &*pass };
            $crate::lock_repo::$case(&store).await;
        })+
    };
}
