//! The contract of `LockRepo` and `LockHistory`.

mod concurrency;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::{
    Anomaly, Backlog, DeviceCode, DeviceOutcome, DueCursor, Epoch, FailureReason, IdempotencyKey,
    IdempotencyRecord, IdempotencyScope, KeyIndex, Lock, LockEvent, LockSnapshot, LockVersion,
    RecordedEvent, ReportedSlot, ShadowVersion, Timestamp, WorkerId, Write, WriteId,
};
use keywright_domain::policy;
use keywright_domain::policy::{Limits, ReportDecision, ReportedResult};
use keywright_domain::ports::{ImportError, LockHistory, LockRepo, RepoError};

use crate::samples::{LEASE, NOW, created, lock_id, prepared, principal, slot, thing};

pub use concurrency::*;

/// Lets the clock that counts leases run on.
pub type AdvanceTime = Arc<dyn Fn(Duration) -> TimeAdvanced + Send + Sync>;

/// Sets the wall clock of the store, such as a database's, by so many milliseconds: forward, or back where negative.
pub type SetWallClock = Arc<dyn Fn(i64) -> TimeAdvanced + Send + Sync>;

/// The clock running on.
pub type TimeAdvanced = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Claims so that the store sees the intents that are open, at moments when no lease has ended.
pub const OBSERVER: WorkerId = WorkerId(99);

/// A fresh store, and the means to let its clock run.
#[derive(Clone)]
pub struct StoreFixture {
    /// The locks.
    pub locks: Arc<dyn LockRepo>,
    /// Reads over the same store.
    pub history: Arc<dyn LockHistory>,
    /// Lets the monotonic clock that counts leases run on.
    pub pass: AdvanceTime,
    /// Sets the store's wall clock, where it has one; or, what comes to the same, moves the moments that it stored.
    pub set_wall_clock: SetWallClock,
}

impl StoreFixture {
    /// A store whose clock is moved by `pass` at once, and that has no wall clock.
    pub fn new<R>(repo: Arc<R>, pass: impl Fn(Duration) + Send + Sync + 'static) -> Self
    where
        R: LockRepo + LockHistory + 'static,
    {
        let pass = move |span| -> TimeAdvanced {
            pass(span);
            Box::pin(std::future::ready(()))
        };
        Self {
            locks: repo.clone(),
            history: repo,
            pass: Arc::new(pass),
            set_wall_clock: Arc::new(|_| Box::pin(std::future::ready(()))),
        }
    }

    /// The same with a wall clock.
    #[must_use]
    pub fn with_wall_clock(
        mut self,
        set: impl Fn(i64) -> TimeAdvanced + Send + Sync + 'static,
    ) -> Self {
        self.set_wall_clock = Arc::new(set);
        self
    }

    /// Has the store see all intents that are open, and lets their leases end.
    async fn end_leases(&self) {
        // A look at the store may serve for a while.
        (self.pass)(Duration::from_secs(1)).await;
        let claimed = self.locks.claim(OBSERVER, LEASE).await;
        assert_eq!(claimed, Ok(None), "no lease has ended");
        (self.pass)(LEASE).await;
    }

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
        let (sent, save) =
            policy::commit(&snapshot, &prepared, ShadowVersion(5), &[], &limits, NOW);
        self.locks.save(save).await.expect("the commit is saved");
        sent
    }

    async fn fail(&self, lock: u64, sent: &Write) -> Write {
        let (snapshot, limits) = (self.load(lock).await, Limits::default());
        let code = DeviceCode::new("E42").expect("a device code");
        let outcome = DeviceOutcome::Failed(FailureReason::DeviceError(code));
        let reported = ReportedResult {
            thing: &thing(lock_id(lock)),
            shadow_version: Some(ShadowVersion(6)),
            outcome: &outcome,
            entry_remains: false,
        };
        let decision = policy::decide_report(&snapshot, Some(sent), &reported, &limits, NOW);
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
pub async fn an_unknown_lock_is_none(store: &StoreFixture) {
    assert_eq!(store.locks.load(lock_id(404)).await, Ok(None));
    assert_eq!(store.history.write(WriteId::from_u128(404)).await, Ok(None));
    assert_eq!(store.events(404).await, []);
}

/// What was imported is the fold of the events, with every member.
pub async fn an_imported_lock_is_the_fold_of_its_events(store: &StoreFixture) {
    let snapshot = store.with_lock(1).await;
    assert_eq!(Ok(snapshot.lock), Lock::fold(&[created(lock_id(1))]));
    assert_eq!(store.events(1).await, [created(lock_id(1))]);
}

/// An import is done whole or not at all.
pub async fn an_import_is_all_or_nothing(store: &StoreFixture) {
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
pub async fn a_saved_write_comes_back(store: &StoreFixture) {
    store.with_lock(1).await;
    let prepared = store.prepare(1, 10).await;
    let snapshot = store.load(1).await;
    assert_eq!(snapshot.unfinished, std::slice::from_ref(&prepared));
    assert_eq!(store.history.write(prepared.id).await, Ok(Some(prepared)));
}

/// A commit appends at the head of the stream, and keeps the shadow's version.
pub async fn a_commit_appends_its_event(store: &StoreFixture) {
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
pub async fn a_settled_write_keeps_its_reason(store: &StoreFixture) {
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

/// What was odd about the lock's answers stays with the write, and so does the slot that the lock named.
pub async fn a_write_keeps_its_anomalies(store: &StoreFixture) {
    store.with_lock(1).await;
    let sent = store.send(1, 10).await;
    let settled = store.fail(1, &sent).await;
    let snapshot = store.load(1).await;
    let other = KeyIndex::new(77).expect("an index");
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
        panic!("a contradiction is news")
    };
    let found: Vec<Anomaly> = after.anomalies.iter().collect();
    let expected = [
        Anomaly::ContradictingResult,
        Anomaly::OtherSlot,
        Anomaly::EntryLeft,
    ];
    assert_eq!(
        (found, after.reported_index),
        (expected.into(), Some(other))
    );
    store.locks.save(save).await.expect("it is saved");
    assert_eq!(store.history.write(after.id).await, Ok(Some(*after)));
}

/// A save that was decided on an older revision changes nothing.
pub async fn a_stale_save_changes_nothing(store: &StoreFixture) {
    let old = store.with_lock(1).await;
    store.send(1, 10).await;
    let before = store.load(1).await;
    let (late, save) = prepared(&old, 11, slot("other", None));
    assert_eq!(store.locks.save(save).await, Err(RepoError::Stale));
    assert_eq!(store.load(1).await, before);
    assert_eq!(store.history.write(late.id).await, Ok(None));
}

/// An abort moves the revision and leaves the lock's version and stream alone.
pub async fn an_abort_leaves_the_stream_alone(store: &StoreFixture) {
    let before = store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    let snapshot = store.load(1).await;
    let save = policy::abort(&snapshot, &write, &FailureReason::Throttled, None, NOW);
    store.locks.save(save).await.expect("the abort is saved");
    let after = store.load(1).await;
    assert_eq!((after.lock, after.unfinished.len()), (before.lock, 0));
    assert!(after.revision > snapshot.revision);
    assert_eq!(store.events(1).await.len(), 1);
}

/// An intent is claimed only once its lease has ended, and then by one owner at a time.
pub async fn a_claim_waits_for_the_lease(store: &StoreFixture) {
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    assert_eq!(
        store.locks.claim(WorkerId(8), LEASE).await,
        Ok(None),
        "the lease has not ended"
    );
    store.end_leases().await;
    let claimed = store
        .locks
        .claim(WorkerId(8), LEASE)
        .await
        .expect("the store answers");
    let claimed = claimed.expect("the lease has ended");
    let intent = *claimed.intent().expect("still prepared");
    assert_eq!(
        (claimed.id, intent.worker, intent.epoch),
        (write.id, WorkerId(8), Epoch(2))
    );
    assert_eq!(
        store.locks.claim(WorkerId(9), LEASE).await,
        Ok(None),
        "it was claimed a moment ago"
    );
}

/// After a claim, what the earlier owner decided is stale.
pub async fn a_claim_outdates_the_earlier_owner(store: &StoreFixture) {
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    let known = store.load(1).await;
    store.end_leases().await;
    store
        .locks
        .claim(WorkerId(8), LEASE)
        .await
        .expect("the store answers")
        .expect("an intent");
    let save = policy::abort(&known, &write, &FailureReason::Throttled, None, NOW);
    assert_eq!(store.locks.save(save).await, Err(RepoError::Stale));
}

/// A wall clock that is set takes no lease from an owner that is alive, and delays no claim.
pub async fn a_wall_clock_moves_no_lease(store: &StoreFixture) {
    const HOUR: i64 = 3_600_000;
    store.with_lock(1).await;
    let write = store.prepare(1, 10).await;
    let claim = async |owner| {
        let claimed = store.locks.claim(owner, LEASE).await;
        claimed.expect("the store answers").map(|write| write.id)
    };
    assert_eq!(claim(OBSERVER).await, None, "the lease has not ended");
    (store.set_wall_clock)(HOUR).await;
    (store.pass)(LEASE / 2).await;
    assert_eq!(claim(OBSERVER).await, None, "the owner is alive");
    (store.set_wall_clock)(-2 * HOUR).await;
    (store.pass)(LEASE).await;
    assert_eq!(
        claim(WorkerId(8)).await,
        Some(write.id),
        "the lease has ended"
    );
}

/// Due writes come by their moment, as many as were asked for, and none that is not due.
pub async fn due_writes_come_in_order(store: &StoreFixture) {
    for lock in [1, 2, 3] {
        store.with_lock(lock).await;
        store.send(lock, u128::from(10 - lock)).await;
    }
    let ids = |ids: [u128; 2]| ids.map(WriteId::from_u128).to_vec();
    let confirm = NOW.after(Limits::default().confirm_within);
    assert_eq!(store.due(confirm, 2).await, ids([7, 8]));
    let after = Some(DueCursor {
        at: confirm,
        id: WriteId::from_u128(7),
    });
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
pub async fn pages_of_events_are_exact(store: &StoreFixture) {
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
pub async fn locks_come_in_pages(store: &StoreFixture) {
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

fn named(lock: u64, key: &str) -> IdempotencyScope {
    let key = IdempotencyKey::new(key).expect("an Idempotency-Key");
    IdempotencyScope::new(lock_id(lock), &principal(), key)
}

fn kept(
    request: &IdempotencyScope,
    write: u128,
    version_without_event: Option<LockVersion>,
) -> IdempotencyRecord {
    IdempotencyRecord {
        scope: request.clone(),
        slot: slot("key", Some(2)),
        write: WriteId::from_u128(write),
        version_without_event,
        answer_deadline: NOW.after(LEASE / 2),
        expires_at: NOW.after(LEASE),
    }
}

/// What a save keeps of a request comes back under its name, and a later save puts another in its place.
pub async fn a_kept_answer_comes_back(store: &StoreFixture) {
    let snapshot = store.with_lock(1).await;
    let (name, other) = (named(1, "a \"name\""), named(1, "another"));
    assert_eq!(store.history.idempotency_record(&name).await, Ok(None));
    let (_, mut save) = prepared(&snapshot, 10, slot("key", Some(2)));
    let first = kept(&name, 10, None);
    save.idempotency = Some(Box::new(first.clone()));
    store.locks.save(save).await.expect("the intent is saved");
    assert_eq!(
        store.history.idempotency_record(&name).await,
        Ok(Some(first))
    );
    assert_eq!(store.history.idempotency_record(&other).await, Ok(None));
    let snapshot = store.load(1).await;
    let second = kept(&name, 11, Some(LockVersion(7)));
    let save = policy::record_without_event(&snapshot, second.clone(), NOW);
    store.locks.save(save).await.expect("the answer is kept");
    assert_eq!(
        store.history.idempotency_record(&name).await,
        Ok(Some(second))
    );
    assert!(store.load(1).await.revision > snapshot.revision);
}

/// A save that comes too late keeps nothing.
pub async fn a_stale_save_keeps_no_answer(store: &StoreFixture) {
    let old = store.with_lock(1).await;
    store.prepare(1, 10).await;
    let name = named(1, "name");
    let save = policy::record_without_event(&old, kept(&name, 10, None), NOW);
    assert_eq!(store.locks.save(save).await, Err(RepoError::Stale));
    assert_eq!(store.history.idempotency_record(&name).await, Ok(None));
}

/// What is unfinished is counted: intents and the oldest of them, open writes, and those that were sent too long ago or, by
/// a clock that was set back since, in the future.
pub async fn what_is_unfinished_is_counted(store: &StoreFixture) {
    let backlog = async |now: Timestamp| {
        let recently = now.before(LEASE / 2)..=now.after(LEASE / 2);
        let backlog = store.history.backlog(recently).await;
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
    // A look at the store may serve for a while.
    let moment = Duration::from_secs(1);
    (store.pass)(moment).await;
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
    (store.pass)(later).await;
    expected.oldest_intent = Some(age + later);
    expected.unconfirmed = 1;
    assert_eq!(backlog(NOW.after(LEASE)).await, expected);
    assert_eq!(backlog(NOW.before(LEASE)).await, expected);
}

/// Kept answers and ended writes are forgotten when their time is over, as many as were asked for; open ones, and
/// those that somebody still has to look at, never are, and streams stay.
pub async fn what_is_over_is_forgotten(store: &StoreFixture) {
    for lock in [1, 2, 3] {
        store.with_lock(lock).await;
    }
    let (name, sent) = (named(1, "name"), store.send(1, 10).await);
    let uncleared = store.send(2, 11).await;
    let uncleared = store.fail(2, &uncleared).await;
    for write in [12, 13, 14] {
        let aborted = store.prepare(3, write).await;
        let snapshot = store.load(3).await;
        let save = policy::abort(&snapshot, &aborted, &FailureReason::Throttled, None, NOW);
        store.locks.save(save).await.expect("the abort is saved");
    }
    let save = policy::record_without_event(&store.load(1).await, kept(&name, 10, None), NOW);
    store.locks.save(save).await.expect("the answer is kept");

    let purge = async |now, before, limit| {
        let forgotten = store.history.purge(now, before, limit).await;
        forgotten.expect("the store answers")
    };
    assert_eq!(purge(NOW, NOW, 9).await, 0, "nothing is over yet");
    let later = NOW.after(LEASE);
    assert_eq!(purge(NOW, later, 2).await, 2, "no more than was asked for");
    assert_eq!(purge(later, later, 9).await, 2, "one write and one answer");
    assert_eq!(purge(later, later, 9).await, 0);
    assert_eq!(store.history.idempotency_record(&name).await, Ok(None));
    for id in [12, 13, 14] {
        let gone = store.history.write(WriteId::from_u128(id)).await;
        assert_eq!(gone, Ok(None));
    }
    for left in [sent, uncleared] {
        let id = left.id;
        assert_eq!(store.history.write(id).await, Ok(Some(left)));
    }
    assert_eq!(store.events(1).await.len(), 2);
}

/// A write that ended without the lock's word is looked at once more, and no decision has to know of it.
pub async fn a_superseded_write_is_not_live(store: &StoreFixture) {
    store.with_lock(1).await;
    store.send(1, 10).await;
    let newer = store.send(1, 11).await;
    let snapshot = store.load(1).await;
    let known: Vec<WriteId> = snapshot.unfinished.iter().map(|w| w.id).collect();
    assert_eq!(known, [newer.id]);
    let older = store.history.write(WriteId::from_u128(10)).await;
    let older = older.expect("the store answers").expect("it is kept");
    assert_eq!(older.state.name(), "SUPERSEDED");
    assert!(older.next_check_at.is_some());
}

/// Stamps a test for each case: `lock_repo_cases!(fresh)`, where `fresh().await` makes a [`StoreFixture`].
#[macro_export]
macro_rules! lock_repo_cases {
    ($fresh:path) => {
        $crate::lock_repo_cases! { $fresh:
            an_unknown_lock_is_none, an_imported_lock_is_the_fold_of_its_events,
            an_import_is_all_or_nothing, a_saved_write_comes_back, a_commit_appends_its_event,
            a_settled_write_keeps_its_reason, a_write_keeps_its_anomalies, a_superseded_write_is_not_live, a_stale_save_changes_nothing,
            an_abort_leaves_the_stream_alone, a_claim_waits_for_the_lease,
            a_wall_clock_moves_no_lease, a_claim_outdates_the_earlier_owner, due_writes_come_in_order, pages_of_events_are_exact,
            locks_come_in_pages, a_kept_answer_comes_back, a_stale_save_keeps_no_answer,
            what_is_over_is_forgotten, what_is_unfinished_is_counted, of_saves_at_once_one_is_taken, many_tasks_on_one_lock_lose_nothing,
            many_tasks_on_many_locks_do_not_meet, of_claims_at_once_each_takes_another_write,
            a_take_over_is_taken_over, a_save_and_a_take_over_exclude_each_other,
            a_closed_intent_is_never_claimed
        }
    };
    ($fresh:path: $($case:ident),+) => {
        /// The names of the cases.
        pub const LOCK_REPO_CASES: &[&str] = &[$(stringify!($case)),+];

        /// Runs one case by its name.
        pub async fn run_lock_repo_case(case: &str, store: &$crate::lock_repo::StoreFixture) {
            match case {
                $(stringify!($case) => $crate::lock_repo::$case(store).await,)+
                other => panic!("no such case: {other}"),
            }
        }

        $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            $crate::lock_repo::$case(&$fresh().await).await;
        })+
    };
}
